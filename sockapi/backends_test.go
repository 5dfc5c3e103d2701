package sockapi

import (
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/internal/leaktest"
	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/uring"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// patience is how long a test may take before it counts as hanging.
const patience = 60 * time.Second

var backendNames = []string{"io_uring", "epoll"}

// forEachBackend runs a test once per backend, with a fresh loop that is closed
// at the end, when nothing may be left in flight.
func forEachBackend(t *testing.T, test func(t *testing.T, l *loop.Loop)) {
	t.Helper()
	for _, name := range backendNames {
		t.Run(name, func(t *testing.T) { test(t, newLoop(t, name)) })
	}
}

// newLoop returns a loop on the backend.
func newLoop(t testing.TB, name string) *loop.Loop {
	t.Helper()
	if name == "io_uring" {
		if err := uring.Available(); err != nil {
			t.Skipf("io_uring: %v", err)
		}
	}
	l, err := loop.NewEventLoop(loop.WithBackend(name))
	if err != nil {
		t.Fatalf("NewEventLoop: %v", err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("Close of the loop: %v", err)
		}
	})
	return l
}

// run runs fn in a task of l until it returns, and fails the test with its
// error. Operations of sockets that fn has closed have ended by then.
func run(t testing.TB, l *loop.Loop, fn func(co *loop.Coro) error) {
	t.Helper()
	watchdog := time.AfterFunc(patience, func() {
		_, _ = l.CallSoonThreadsafe(func() { panic(loop.LoopExit{Err: errors.New("the test hangs")}) })
	})
	defer watchdog.Stop()
	_, err := loop.RunUntilComplete(l, loop.CreateTask(l, func(co *loop.Coro) (struct{}, error) {
		return struct{}{}, fn(co)
	}, nil))
	if err != nil {
		t.Fatal(err)
	}
}

// spawn runs fn in a task of its own.
func spawn[T any](co *loop.Coro, fn func(co *loop.Coro) (T, error)) *loop.Task[T] {
	return loop.CreateTask(co.Loop(), fn, nil)
}

// yield lets the loop turn n times.
func yield(t testing.TB, co *loop.Coro, n int) {
	t.Helper()
	for range n {
		if err := loop.Sleep(co, 0); err != nil {
			t.Errorf("Sleep: %v", err)
		}
	}
}

// pair returns two connected stream sockets that are closed when the test ends.
func pair(t testing.TB, typ int) (a, b *Socket) {
	t.Helper()
	a, b, err := Pair(typ)
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, a)
	closeAtEnd(t, b)
	return a, b
}

func closeAtEnd(t testing.TB, s *Socket) {
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
}

// listen returns a listener that is closed when the test ends, and its address.
func listen(t testing.TB, network, address string) (*Socket, Addr) {
	t.Helper()
	s, err := Listen(network, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, s)
	addr, err := s.LocalAddr()
	if err != nil {
		t.Fatal(err)
	}
	return s, addr
}

// open returns a new socket that is closed when the test ends.
func open(t testing.TB, family, typ int) *Socket {
	t.Helper()
	s, err := New(family, typ, 0)
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, s)
	return s
}

// tcpPair returns two connected TCP sockets that are closed when the test ends.
func tcpPair(t testing.TB, co *loop.Coro) (a, b *Socket) {
	t.Helper()
	_, a, b, _ = accepted(t, co)
	return a, b
}

// accepted returns a TCP listener and a connection to it, which are closed when the
// test ends, and the address of the client.
func accepted(t testing.TB, co *loop.Coro) (ln, client, conn *Socket, peer Addr) {
	t.Helper()
	ln, client = connected(t, co)
	conn, peer, err := Accept(co, ln)
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, conn)
	return ln, client, conn, peer
}

// connected returns a TCP listener and a client whose connection waits to be
// accepted. Both are closed when the test ends.
func connected(t testing.TB, co *loop.Coro) (ln, client *Socket) {
	t.Helper()
	ln, addr := listen(t, "tcp", "127.0.0.1:0")
	client = open(t, unix.AF_INET, unix.SOCK_STREAM)
	if err := Connect(co, client, addr); err != nil {
		t.Fatal(err)
	}
	return ln, client
}

// tempFile makes a file with the given content.
func tempFile(t testing.TB, content []byte) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "file")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if _, err := f.Write(content); err != nil {
		t.Fatal(err)
	}
	return f
}
