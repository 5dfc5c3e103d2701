package sockapi

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/loop"
)

// takeNumber gives the number fd to a duplicate of s if it is free, or else the
// next one, which is closed when the test ends.
func takeNumber(t *testing.T, s *Socket, fd int) (taken int) {
	t.Helper()
	taken, err := unix.FcntlInt(uintptr(s.Fd()), unix.F_DUPFD_CLOEXEC, fd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Close(taken); err != nil {
			t.Errorf("descriptor %d was closed by somebody else: %v", taken, err)
		}
	})
	return taken
}

// closeAfter calls fn in one more turn of the loop, and closes it.
func closeAfter(t *testing.T, l *loop.Loop, fn func()) {
	t.Helper()
	if _, err := l.CallSoon(func() {
		l.Stop()
		fn()
	}); err != nil {
		t.Fatal(err)
	}
	if err := l.RunForever(); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// What a loop has found before its last run ended is delivered when it is closed,
// to one direction after the other.
func TestADescriptorStaysOpenWhileItsLoopIsClosedWithTheOtherDirectionInFlight(t *testing.T) {
	// closing is when the socket is closed.
	for closing, before := range map[string]bool{"before the loop": true, "when something has come": false} {
		for _, name := range backendNames {
			t.Run(closing+"/"+name, func(t *testing.T) {
				l := newLoop(t, name)
				l.SetExceptionHandler(func(*loop.Loop, *loop.ExceptionContext) {}) // the tasks are pending
				a, b := pair(t, unix.SOCK_STREAM)
				other, peer := pair(t, unix.SOCK_STREAM)
				fd := a.Fd()
				received, reused := "", false
				receive := func(co *loop.Coro) error {
					defer func() {
						sending := a.out.op.InFlight() // an old kernel may have cancelled that before
						_ = a.Close()
						reused = takeNumber(t, other, fd) == fd
						if reused && sending {
							t.Error("the descriptor is closed, and something in flight on it")
						}
					}()
					var p [4]byte
					n, err := RecvInto(co, a, p[:])
					received = string(p[:n])
					return err
				}
				run(t, l, func(co *loop.Coro) error {
					co.Loop().Go(func(co *loop.Coro) error { return SendAll(co, a, make([]byte, 16<<20)) })
					if !before {
						co.Loop().Go(receive)
					}
					yield(t, co, 5)
					return nil
				})
				if before {
					if _, err := unix.Write(b.Fd(), []byte("data")); err != nil {
						t.Fatal(err)
					}
					a.tries = maxTries // so that it is the backend's
					l.Go(receive)
				}
				closeAfter(t, l, func() {
					if before {
						_ = a.Close()
						return
					}
					if _, err := unix.Write(b.Fd(), []byte("data")); err != nil {
						t.Error(err)
					}
					for p := make([]byte, 64<<10); ; { // makes room
						if _, err := unix.Read(b.Fd(), p); err != nil {
							break
						}
					}
				})
				if received != "data" {
					t.Errorf("received %q", received)
				}
				if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != unix.EBADF && !reused {
					t.Errorf("descriptor %d is open: %v", fd, err)
				}
				if n, err := unix.Read(peer.Fd(), make([]byte, 1)); err != unix.EAGAIN {
					t.Errorf("%d bytes went to somebody else: %v", n, err)
				}
			})
		}
	}
}

// A task that goes on while its loop is closed is refused, and leaves the socket to
// the next loop as it was.
func TestASocketThatAClosedLoopDoesNotReceiveOnIsReceivedOnByTheNext(t *testing.T) {
	for _, name := range backendNames {
		t.Run(name, func(t *testing.T) {
			l := newLoop(t, name)
			a, b := pair(t, unix.SOCK_STREAM)
			other, peer := pair(t, unix.SOCK_STREAM)
			var borrowErr error
			run(t, l, func(co *loop.Coro) error {
				co.Loop().Go(func(co *loop.Coro) error {
					if _, err := RecvInto(co, other, make([]byte, 1)); err != nil {
						return err
					}
					_, borrowErr = RecvBorrowed(co, a)
					return nil
				})
				yield(t, co, 3)
				return nil
			})
			closeAfter(t, l, func() {
				if _, err := unix.Write(peer.Fd(), []byte("x")); err != nil {
					t.Error(err)
				}
			})
			if !errors.Is(borrowErr, loop.ErrLoopClosed) {
				t.Errorf("RecvBorrowed = %v, want ErrLoopClosed", borrowErr)
			}
			run(t, newLoop(t, name), func(co *loop.Coro) error {
				if err := SendAll(co, b, []byte("data")); err != nil {
					return err
				}
				if p, err := Recv(co, a, ownBuffer+1); string(p) != "data" || err != nil {
					t.Errorf("Recv = %q, %v", p, err)
				}
				return nil
			})
		})
	}
}

// A task that goes on waiting after Close has delivered its last data is unwound on
// its own stack: that is no panic of the loop, and the other tasks are told as well.
func TestATaskThatGoesOnReceivingWhileItsLoopIsClosedIsUnwound(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		l.SetExceptionHandler(func(_ *loop.Loop, c *loop.ExceptionContext) {
			if c.Exception != nil { // the tasks are pending
				t.Errorf("reported: %s: %v", c.Message, c.Exception)
			}
		})
		const tasks = 3
		ended := 0
		for range tasks {
			a, b := pair(t, unix.SOCK_STREAM)
			l.Go(func(co *loop.Coro) error {
				_, _ = l.CallSoon(func() {
					l.Stop()
					if _, err := unix.Write(b.Fd(), []byte("x")); err != nil {
						t.Error(err)
					}
				})
				defer func() { ended++ }()
				for {
					_, _ = RecvInto(co, a, make([]byte, 1))
				}
			})
		}
		if err := l.RunForever(); err != nil {
			t.Fatal(err)
		}
		if err := l.Close(); err != nil || ended != tasks {
			t.Errorf("Close: %v, %d tasks have ended", err, ended)
		}
	})
}
