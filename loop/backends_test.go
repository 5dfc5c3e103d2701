package loop

import (
	"testing"

	"github.com/seed-80cfe818/ringloop/uring"
)

// backends returns the backends that can be tested here. Where io_uring is
// refused its tests are skipped with the reason.
var backends = []string{"io_uring", "epoll"}

// forEachBackend runs a test once per backend, with a fresh loop that is closed
// at the end.
func forEachBackend(t *testing.T, test func(t *testing.T, l *Loop)) {
	t.Helper()
	for _, name := range backends {
		t.Run(name, func(t *testing.T) {
			l := newTestLoop(t, name)
			test(t, l)
		})
	}
}

// newTestLoop returns a loop on the backend, closed when the test ends.
func newTestLoop(t testing.TB, name string) *Loop {
	t.Helper()
	if name == "io_uring" {
		if err := uring.Available(); err != nil {
			t.Skipf("io_uring: %v", err)
		}
	}
	l, err := NewEventLoop(WithBackend(name))
	if err != nil {
		t.Fatalf("NewEventLoop: %v", err)
	}
	l.SetDebug(false)
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return l
}
