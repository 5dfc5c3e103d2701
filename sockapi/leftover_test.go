package sockapi

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/loop"
)

// What a cancelled call leaves to the next one: what the kernel gives only once,
// and nothing else.

func TestAnErrorOfTheMomentIsNotKeptForTheNextReceive(t *testing.T) {
	receives := map[string]func(co *loop.Coro, s *Socket) *loop.Task[string]{"RecvInto": recvTask, "RecvBorrowed": borrowTask}
	for name, receive := range receives {
		t.Run(name, func(t *testing.T) {
			forEachBackend(t, func(t *testing.T, l *loop.Loop) {
				ln, addr := listen(t, "tcp", "127.0.0.1:0")
				run(t, l, func(co *loop.Coro) error {
					for turns := range 4 {
						s := open(t, unix.AF_INET, unix.SOCK_STREAM)
						early := receive(co, s) // it is not connected yet
						yield(t, co, turns)
						early.Cancel("")
						_, _ = early.Await(co)
						yield(t, co, 3)
						if err := Connect(co, s, addr); err != nil {
							return err
						}
						conn, _, err := Accept(co, ln)
						if err != nil {
							return err
						}
						closeAtEnd(t, conn)
						if err := SendAll(co, conn, []byte("x")); err != nil {
							return err
						}
						if got, err := Recv(co, s, 1); string(got) != "x" || err != nil {
							t.Errorf("cancelled after %d turns: then received %q, %v", turns, got, err)
						}
					}
					return nil
				})
			})
		})
	}
}

func TestAShortageOfDescriptorsIsNotKeptForTheNextAccept(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		run(t, l, func(co *loop.Coro) error {
			ln, _ := connected(t, co)
			ln.tries = maxTries // so that it is the backend's
			_ = withoutDescriptors(t, func() error {
				first := acceptTask(co, ln)
				yield(t, co, 1)
				first.Cancel("")
				_, err := first.Await(co)
				return err
			})
			_, err := acceptTask(co, ln).Await(co)
			return err
		})
	})
}

func TestAReceiveLeavesAConnectionToTheNextAccept(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		run(t, l, func(co *loop.Coro) error {
			ln, _, conn, peer := accepted(t, co)
			ln.kept = &kept{conn: conn, addr: peer} // as after a cancellation
			_, intoErr := RecvInto(co, ln, make([]byte, 1))
			_, recvErr := Recv(co, ln, 1<<20)
			_, _, fromErr := RecvFrom(co, ln, 1)
			_, borrowErr := RecvBorrowed(co, ln)
			for _, err := range []error{intoErr, recvErr, fromErr, borrowErr} {
				if !errors.Is(err, unix.ENOTCONN) {
					t.Errorf("a receive on a listener = %v, want ENOTCONN", err)
				}
			}
			if got, _, err := Accept(co, ln); got != conn || err != nil {
				t.Errorf("Accept = %v, %v, want what was kept", got, err)
			}
			return nil
		})
	})
}

// The kernel names a Unix socket's peer as that was bound, and an IPv6 one
// without its flow.
func TestACancelledConnectIsPickedUpWhateverTheKernelCallsThePeer(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		dir := t.TempDir()
		was, is := filepath.Join(dir, "was"), filepath.Join(dir, "is")
		listen(t, "unix", was)
		if err := os.Rename(was, is); err != nil {
			t.Fatal(err)
		}
		_, six := listen(t, "tcp6", "[::1]:0")
		run(t, l, func(co *loop.Coro) error {
			for _, addr := range []Addr{UnixAddr(is), IPv6Addr(six.AddrPort(), 7, 0)} {
				s := open(t, addr.Family(), unix.SOCK_STREAM)
				s.tries = maxTries // so that it is the backend's
				first := connectTask(co, s, addr)
				yield(t, co, 1)
				first.Cancel("")
				if _, err := first.Await(co); !errors.Is(err, loop.ErrCancelled) {
					t.Errorf("the cancelled Connect = %v", err)
				}
				if err := Connect(co, s, addr); err != nil {
					t.Errorf("Connect to %v again = %v", addr, err)
				}
			}
			return nil
		})
	})
}

func TestAConnectThatWasPickedUpDoesNotPretendLater(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		_, other := listen(t, "tcp", "127.0.0.1:0")
		run(t, l, func(co *loop.Coro) error {
			ln, addr, s := cancelledConnect(t, co)
			second := connectTask(co, s, addr)
			yield(t, co, 3)
			if _, err := acceptTask(co, ln).Await(co); err != nil { // makes room
				return err
			}
			if _, err := second.Await(co); err != nil {
				return err
			}
			if err := Connect(co, s, other); !errors.Is(err, unix.EISCONN) {
				t.Errorf("a Connect to another address = %v, want EISCONN", err)
			}
			return nil
		})
	})
}
