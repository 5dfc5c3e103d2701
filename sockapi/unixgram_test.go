package sockapi

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/epoll"
	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/uring"
)

// counted is a backend that counts the turns of its loop.
type counted struct {
	backend.Backend
	turns int
}

func (b *counted) Wait(timeout time.Duration) error {
	b.turns++
	return b.Backend.Wait(timeout)
}

// forEachCounted is forEachBackend with a backend that counts.
func forEachCounted(t *testing.T, test func(t *testing.T, l *loop.Loop, b *counted)) {
	for _, name := range backendNames {
		t.Run(name, func(t *testing.T) {
			if err := uring.Available(); name == "io_uring" && err != nil {
				t.Skipf("io_uring: %v", err)
			}
			b := &counted{}
			l, err := loop.NewEventLoop(loop.WithBackendFactory(func() (_ backend.Backend, err error) {
				if name == "epoll" {
					b.Backend, err = epoll.New(nil)
				} else {
					b.Backend, err = uring.New(nil)
				}
				return b, err
			}))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := l.Close(); err != nil {
					t.Errorf("Close of the loop: %v", err)
				}
			})
			test(t, l, b)
		})
	}
}

// sender starts a task that sends numbered packets to addr until it fails, and
// waits until the receiver is full. sent is how many the kernel has taken.
func sender(t *testing.T, co *loop.Coro, s *Socket, addr Addr) (task *loop.Task[struct{}], sent *int) {
	t.Helper()
	sent = new(int)
	task = co.Loop().Go(func(co *loop.Coro) error {
		for {
			if _, err := SendTo(co, s, fmt.Appendf(nil, "%d", *sent), addr); err != nil {
				return err
			}
			*sent++
		}
	})
	for idle, before := 0, -1; idle < 20; idle++ {
		if *sent != before {
			idle, before = 0, *sent
		}
		yield(t, co, 1)
	}
	return task, sent
}

// drain receives n packets, which must be numbered from 0.
func drain(t *testing.T, co *loop.Coro, s *Socket, n int) {
	t.Helper()
	p := make([]byte, 16)
	for i := range n {
		n, err := RecvInto(co, s, p)
		if err != nil || string(p[:n]) != fmt.Sprint(i) {
			t.Fatalf("packet %d is %q, %v", i, p[:n], err)
		}
	}
}

func TestASenderToAFullUnixSocketLetsTheLoopSleep(t *testing.T) {
	for _, how := range []string{"named", "connected"} {
		t.Run(how, func(t *testing.T) {
			forEachCounted(t, func(t *testing.T, l *loop.Loop, b *counted) {
				a, _ := packet(t, "unixgram", t.TempDir()+"/a")
				_, addr := packet(t, "unixgram", t.TempDir()+"/c")
				run(t, l, func(co *loop.Coro) error {
					if how == "connected" {
						if err := Connect(co, a, addr); err != nil {
							return err
						}
						addr = Addr{}
					}
					task, sent := sender(t, co, a, addr)
					full, turns, start := *sent, b.turns, l.Time()
					if err := loop.Sleep(co, 100*time.Millisecond); err != nil {
						return err
					}
					// The longest pause between attempts is 4 ms, and each takes a few turns.
					if n, bound := b.turns-turns, 100+2*int((l.Time()-start)/time.Millisecond); n > bound {
						t.Errorf("the loop has turned %d times, more than %d", n, bound)
					}
					if *sent != full {
						t.Errorf("%d packets sent, then %d", full, *sent)
					}
					task.Cancel("")
					if _, err := task.Await(co); !errors.Is(err, loop.ErrCancelled) {
						t.Errorf("the sender ended with %v", err)
					}
					return nil
				})
			})
		})
	}
}

func TestASenderToAFullUnixSocketGoesOnWhenThereIsRoom(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, _ := packet(t, "unixgram", t.TempDir()+"/a")
		c, addr := packet(t, "unixgram", t.TempDir()+"/c")
		run(t, l, func(co *loop.Coro) error {
			task, sent := sender(t, co, a, addr)
			drain(t, co, c, *sent+1000)
			task.Cancel("")
			if _, err := task.Await(co); !errors.Is(err, loop.ErrCancelled) {
				t.Errorf("the sender ended with %v", err)
			}
			return nil
		})
	})
}

func TestASenderToAFullUnixSocketCanBeCancelled(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, _ := packet(t, "unixgram", t.TempDir()+"/a")
		c, addr := packet(t, "unixgram", t.TempDir()+"/c")
		run(t, l, func(co *loop.Coro) error {
			task, sent := sender(t, co, a, addr)
			task.Cancel("enough")
			if _, err := task.Await(co); !errors.Is(err, loop.ErrCancelled) {
				t.Errorf("the sender ended with %v", err)
			}
			drain(t, co, c, *sent)
			if n, err := SendTo(co, a, []byte("0"), addr); n != 1 || err != nil {
				t.Errorf("SendTo after the cancellation = %d, %v", n, err)
			}
			drain(t, co, c, 1)
			return nil
		})
	})
}

func TestCloseEndsASenderToAFullUnixSocket(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, _ := packet(t, "unixgram", t.TempDir()+"/a")
		_, addr := packet(t, "unixgram", t.TempDir()+"/c")
		run(t, l, func(co *loop.Coro) error {
			task, _ := sender(t, co, a, addr)
			queued := co.Loop().Go(func(co *loop.Coro) error {
				_, err := SendTo(co, a, []byte("behind"), addr)
				return err
			})
			yield(t, co, 2)
			if err := CloseWait(co, a); err != nil {
				return err
			}
			for _, task := range []*loop.Task[struct{}]{task, queued} {
				var oe *OpError
				if _, err := task.Await(co); !errors.Is(err, ErrSocketClosed) || !errors.As(err, &oe) || oe.Addr != addr && task != queued {
					t.Errorf("a sender ended with %v", err)
				}
			}
			return nil
		})
	})
}

func TestASenderToAFullUnixSocketLearnsThatThePeerIsGone(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, _ := packet(t, "unixgram", t.TempDir()+"/a")
		c, addr := packet(t, "unixgram", t.TempDir()+"/c")
		run(t, l, func(co *loop.Coro) error {
			task, _ := sender(t, co, a, addr)
			if err := CloseWait(co, c); err != nil {
				return err
			}
			if _, err := task.Await(co); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("the sender ended with %v", err)
			}
			return nil
		})
	})
}
