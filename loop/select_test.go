package loop

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/internal/forbid"
	"github.com/seed-80cfe818/ringloop/uring"
)

func TestTheBackendComesFromTheEnvironmentUnlessItIsGiven(t *testing.T) {
	auto := "io_uring"
	if uring.Available() != nil {
		auto = "epoll"
	}
	for _, c := range []struct{ env, option, want, reason string }{
		{"", "", auto, ""},
		{"auto", "", auto, ""},
		{"epoll", "", "epoll", "forced by RINGLOOP_BACKEND"},
		{"epoll", "auto", auto, ""},
		{"io_uring", "epoll", "epoll", "forced by WithBackend"},
		{"kqueue", "epoll", "epoll", "forced by WithBackend"},
	} {
		t.Setenv(BackendEnv, c.env)
		l, err := NewEventLoop(WithBackend(c.option))
		if err != nil {
			t.Errorf("%s=%q, WithBackend(%q): %v", BackendEnv, c.env, c.option, err)
			continue
		}
		if got := l.Features().Backend; got != c.want || !strings.Contains(l.BackendReason(), c.reason) {
			t.Errorf("%s=%q, WithBackend(%q): %s, %s", BackendEnv, c.env, c.option, got, l.BackendReason())
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestABackendThatCannotBeHadIsAnErrorThatSaysWhoAskedForIt(t *testing.T) {
	t.Setenv(BackendEnv, "kqueue")
	_, err := NewEventLoop()
	wantErr(t, "NewEventLoop", err, ErrInvalidArgument)
	if want := `RINGLOOP_BACKEND="kqueue"`; err != nil && !strings.Contains(err.Error(), want) {
		t.Errorf("%q lacks %q", err, want)
	}
	t.Setenv(BackendEnv, "io_uring")
	l, err := NewEventLoop()
	if why := uring.Available(); why != nil {
		if refused := (*backend.UnavailableError)(nil); !errors.As(err, &refused) {
			t.Errorf("io_uring does not work (%v), yet the error is %v", why, err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

func TestAutoTakesEpollWhereOneCallOfIoUringIsRefused(t *testing.T) {
	calls := map[string]uintptr{
		"io_uring_setup": unix.SYS_IO_URING_SETUP, "io_uring_register": unix.SYS_IO_URING_REGISTER, "io_uring_enter": unix.SYS_IO_URING_ENTER,
	}
	if !forbid.IsAlone() { // where nothing is to be known before it is forbidden
		if err := uring.Available(); err != nil {
			t.Skipf("io_uring: %v", err)
		}
	}
	for name, number := range calls {
		for _, when := range []string{"from the beginning", "before the first run"} {
			if name == "io_uring_setup" && when == "before the first run" {
				continue // it was called
			}
			t.Run(name+" "+when, func(t *testing.T) {
				forbid.Alone(t, func(t *testing.T) { autoWithout(t, name, number, when == "from the beginning") })
			})
		}
	}
}

// autoWithout runs a loop that chooses its backend in a process that may not make
// a call.
func autoWithout(t *testing.T, name string, number uintptr, early bool) {
	if early {
		forbid.Calls(t, unix.EPERM, number)
	}
	l, err := NewEventLoop(WithBackend("auto"))
	if err != nil {
		t.Fatal(err)
	}
	if !early {
		forbid.Calls(t, unix.EPERM, number)
	}
	l.Stop()
	if err := l.RunForever(); err != nil {
		t.Errorf("RunForever: %v", err)
	}
	if got, why := l.Features().Backend, l.BackendReason(); got != "epoll" || !strings.Contains(why, name+": operation not permitted") {
		t.Errorf("it runs on %s, because %q", got, why)
	}
	if err := l.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}
