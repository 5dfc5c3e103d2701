package loop

import (
	"fmt"
	"os"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/epoll"
	"github.com/seed-80cfe818/ringloop/uring"
)

// BackendEnv is the environment variable that chooses the backend: auto,
// io_uring or epoll. It is the documented way to keep io_uring off.
const BackendEnv = "RINGLOOP_BACKEND"

// choice remembers how the backend was chosen.
type choice struct {
	forced bool
	reason string
}

// BackendReason says in a sentence why the loop uses the backend it uses. It
// may be called from any goroutine.
func (l *Loop) BackendReason() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.choice.reason
}

// chooseBackend makes the backend that the options or the environment ask for.
func (l *Loop) chooseBackend(o *options) (err error) {
	if o.factory != nil {
		l.choice = choice{true, "given by the program"}
		if l.be, err = o.factory(); err == nil && l.be == nil {
			err = fmt.Errorf("%w: the backend factory returned no backend", ErrInvalidArgument)
		}
		return err
	}
	name, by := o.backend, "WithBackend"
	if name == "" {
		name, by = os.Getenv(BackendEnv), BackendEnv
	}
	switch name {
	case "", "auto":
		return l.chooseAuto()
	case "io_uring":
		l.be, err = newUring()
	case "epoll":
		l.be, err = newEpoll()
	default:
		return fmt.Errorf("%w: %s=%q: a backend is auto, io_uring or epoll", ErrInvalidArgument, by, name)
	}
	l.choice = choice{true, "forced by " + by}
	return err
}

// chooseAuto takes io_uring where it works, else epoll.
func (l *Loop) chooseAuto() (err error) {
	if l.be, err = newUring(); err == nil {
		l.choice.reason = "io_uring is available"
		return nil
	}
	why := err
	if l.be, err = newEpoll(); err != nil {
		return err
	}
	l.choice.reason = why.Error()
	return nil
}

// replaceBackend takes epoll instead of a backend that could not be enabled,
// unless that was forced.
func (l *Loop) replaceBackend(why error) error {
	if l.choice.forced || l.be.Name() == "epoll" {
		return why
	}
	be, err := newEpoll()
	if err != nil {
		return err
	}
	l.mu.Lock() // other goroutines may be waking it
	old := l.be
	l.be = be
	l.choice.reason = why.Error()
	l.mu.Unlock()
	if err := old.Close(); err != nil {
		return err
	}
	return be.Enable()
}

func newUring() (backend.Backend, error) {
	b, err := uring.New(nil)
	if err != nil {
		return nil, err
	}
	return b, nil
}

func newEpoll() (backend.Backend, error) {
	b, err := epoll.New(nil)
	if err != nil {
		return nil, err
	}
	return b, nil
}
