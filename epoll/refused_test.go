package epoll

import (
	"errors"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/internal/forbid"
	"github.com/seed-80cfe818/ringloop/internal/linger"
)

func TestTimeoutsGoOnInMillisecondsWhereExactOnesAreForbiddenMeanwhile(t *testing.T) {
	for _, errno := range []unix.Errno{unix.EPERM, unix.ENOSYS} {
		t.Run(unix.ErrnoName(errno), func(t *testing.T) {
			forbid.Alone(t, func(t *testing.T) {
				b, err := New(nil)
				if err != nil {
					t.Fatal(err)
				}
				defer b.Close()
				b.lookout = linger.Lookout{} // it sleeps in any case
				forbid.Calls(t, errno, unix.SYS_EPOLL_PWAIT2)
				if err := b.Wait(time.Millisecond); err != nil {
					t.Errorf("Wait: %v", err)
				}
				f, _ := b.Features().Lookup("epoll-pwait2")
				if f.InUse || f.Reason == nil {
					t.Errorf("it says of epoll_pwait2: %+v", f)
				}
			})
		})
	}
}

func TestNewNamesTheCallThatIsRefused(t *testing.T) {
	for call, number := range map[string]uintptr{
		"epoll_create1": unix.SYS_EPOLL_CREATE1, "eventfd": unix.SYS_EVENTFD2, "epoll_ctl": unix.SYS_EPOLL_CTL,
	} {
		t.Run(call, func(t *testing.T) {
			forbid.Alone(t, func(t *testing.T) {
				forbid.Calls(t, unix.ENOSPC, number)
				_, err := New(nil)
				if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), call) {
					t.Errorf("New: %v", err)
				}
			})
		})
	}
}
