package loop

import (
	"errors"
	"strings"
	"testing"

	"github.com/seed-80cfe818/ringloop/backend"
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
