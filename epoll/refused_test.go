package epoll

import (
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
