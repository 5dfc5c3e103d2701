package sockapi

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/loop"
)

func TestDataThatArrivedBeforeTheCloseIsDeliveredToThePendingReceive(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		receivers := map[string]func(co *loop.Coro, s *Socket) ([]byte, error){
			"RecvInto": func(co *loop.Coro, s *Socket) ([]byte, error) {
				p := make([]byte, 100)
				n, err := RecvInto(co, s, p)
				return p[:n], err
			},
			"Recv":      func(co *loop.Coro, s *Socket) ([]byte, error) { return Recv(co, s, 100) },
			"Recv much": func(co *loop.Coro, s *Socket) ([]byte, error) { return Recv(co, s, 1<<20) },
			"RecvFrom": func(co *loop.Coro, s *Socket) ([]byte, error) {
				p, _, err := RecvFrom(co, s, 100)
				return p, err
			},
		}
		for name, receive := range receivers {
			a, b := pair(t, unix.SOCK_STREAM)
			run(t, l, func(co *loop.Coro) error {
				waiting := spawn(co, func(co *loop.Coro) ([]byte, error) { return receive(co, a) })
				yield(t, co, 3)
				if err := SendAll(co, b, []byte("data")); err != nil {
					return err
				}
				if err := a.Close(); err != nil {
					return err
				}
				if got, err := waiting.Await(co); string(got) != "data" || err != nil {
					t.Errorf("%s on a socket that was closed = %q, %v", name, got, err)
				}
				return nil
			})
		}
	})
}

func TestCloseEndsPendingCallsWithErrSocketClosed(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, _ := pair(t, unix.SOCK_STREAM)
		ln, _ := listen(t, "tcp", "127.0.0.1:0")
		run(t, l, func(co *loop.Coro) error {
			var tasks []*loop.Task[struct{}]
			start := func(fn func(co *loop.Coro) error) {
				tasks = append(tasks, spawn(co, func(co *loop.Coro) (struct{}, error) { return struct{}{}, fn(co) }))
			}
			for range 2 { // the second of each waits for its turn
				start(func(co *loop.Coro) error { _, err := RecvInto(co, a, make([]byte, 10)); return err })
				start(func(co *loop.Coro) error { return SendAll(co, a, make([]byte, 16<<20)) })
				start(func(co *loop.Coro) error { _, _, err := Accept(co, ln); return err })
			}
			yield(t, co, 5)
			fd := a.Fd()
			if err := errors.Join(a.Close(), ln.Close()); err != nil {
				return err
			}
			for i, task := range tasks {
				if _, err := task.Await(co); !errors.Is(err, ErrSocketClosed) || !errors.Is(err, net.ErrClosed) {
					t.Errorf("call %d = %v", i, err)
				}
			}
			if err := CloseWait(co, a); err != nil { // the second close of both
				return err
			}
			for a.state != stateClosed {
				yield(t, co, 1)
			}
			if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != unix.EBADF {
				t.Errorf("descriptor %d is still open: %v", fd, err)
			}
			return nil
		})
	})
}

func TestTheDescriptorStaysOpenWhileAnOperationHoldsIt(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, _ := pair(t, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			fd := int(a.fd)
			waiting := recvTask(co, a)
			yield(t, co, 3)
			if err := a.Close(); err != nil {
				return err
			}
			if a.Fd() != -1 {
				t.Errorf("Fd of a closed socket = %d", a.Fd())
			}
			if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
				t.Errorf("descriptor %d was freed under the operation: %v", fd, err)
			}
			if _, err := waiting.Await(co); !errors.Is(err, ErrSocketClosed) {
				t.Errorf("the pending receive = %v", err)
			}
			return nil
		})
	})
}

// The call whose turn it is has not begun yet when the socket is closed.
func TestACallThatHasJustGotItsTurnDoesNotSendAfterClose(t *testing.T) {
	for name, c := range senders {
		t.Run(name, func(t *testing.T) {
			forEachBackend(t, func(t *testing.T, l *loop.Loop) {
				a, b := pair(t, c.typ)
				run(t, l, func(co *loop.Coro) error {
					if err := c.one(co, a); err != nil {
						return err
					}
					if err := a.out.acquire(co); err != nil {
						return err
					}
					late := co.Loop().Go(func(co *loop.Coro) error { return c.one(co, a) })
					yield(t, co, 2)
					a.out.release()
					if err := a.Close(); err != nil {
						return err
					}
					if _, err := late.Await(co); !errors.Is(err, ErrSocketClosed) {
						t.Errorf("the send = %v", err)
					}
					c.want(t, co, b, 1)
					return nil
				})
			})
		})
	}
}

func TestSendfileThatReadsWhenTheSocketIsClosedSendsNoMore(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, b := pair(t, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			if err := SendAll(co, a, []byte("x")); err != nil {
				return err
			}
			r, w, err := os.Pipe()
			if err != nil {
				return err
			}
			defer r.Close()
			sending := spawn(co, func(co *loop.Coro) (int64, error) { return NewConn(co, a).ReadFrom(r) })
			yield(t, co, 3)
			if err := a.Close(); err != nil {
				return err
			}
			if _, err := w.WriteString("late"); err != nil {
				return err
			}
			if err := w.Close(); err != nil {
				return err
			}
			if n, err := sending.Await(co); n != 0 || !errors.Is(err, ErrSocketClosed) {
				t.Errorf("sent %d, %v", n, err)
			}
			if p, err := Recv(co, b, 10); string(p) != "x" || err != nil {
				t.Errorf("received %q, %v", p, err)
			}
			return nil
		})
	})
}

func TestAfterCloseWaitThePeerSeesTheEnd(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, b := pair(t, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			waiting := recvTask(co, a)
			yield(t, co, 3)
			if err := CloseWait(co, a); err != nil {
				return err
			}
			if _, err := Recv(co, b, 1); err != io.EOF {
				t.Errorf("the peer received %v, want io.EOF", err)
			}
			_, err := waiting.Await(co)
			if !errors.Is(err, ErrSocketClosed) {
				t.Errorf("the pending receive = %v", err)
			}
			return nil
		})
	})
}

func TestACancelledCloseWaitStillCloses(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, b := pair(t, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			pending := recvTask(co, a)
			yield(t, co, 3)
			closing := spawn(co, func(co *loop.Coro) (struct{}, error) {
				co.Task().Cancel("")
				return struct{}{}, CloseWait(co, a)
			})
			if _, err := closing.Await(co); !errors.Is(err, loop.ErrCancelled) {
				t.Errorf("the cancelled CloseWait = %v", err)
			}
			if _, err := Recv(co, b, 1); err != io.EOF {
				t.Errorf("the peer received %v, want io.EOF", err)
			}
			_, _ = pending.Await(co)
			return nil
		})
	})
}

func TestEveryCallOnAClosedSocketIsRefused(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		for _, used := range []bool{false, true} {
			a, b := pair(t, unix.SOCK_STREAM)
			run(t, l, func(co *loop.Coro) error {
				if used {
					if err := errors.Join(SendAll(co, a, []byte("x")), CloseWait(co, a)); err != nil {
						return err
					}
				} else if err := a.Close(); err != nil {
					return err
				}
				for name, err := range everyCall(co, a, b) {
					if !errors.Is(err, ErrSocketClosed) {
						t.Errorf("%s on a closed socket = %v", name, err)
					}
				}
				return a.Close()
			})
		}
	})
}

func TestASocketClosedInTheLastTurnOfARunIsClosedThen(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, b := pair(t, unix.SOCK_STREAM)
		task := l.Go(func(co *loop.Coro) error {
			defer l.Stop()
			if err := SendAll(co, a, []byte("x")); err != nil {
				return err
			}
			return a.Close()
		})
		if err := errors.Join(l.RunForever(), task.Exception()); err != nil {
			t.Fatal(err)
		}
		p := make([]byte, 10)
		if n, err := unix.Read(b.Fd(), p); n != 1 || err != nil {
			t.Fatalf("received %d bytes, %v", n, err)
		}
		if n, err := unix.Read(b.Fd(), p); n != 0 || err != nil {
			t.Errorf("after the run, instead of the end: %d, %v", n, err)
		}
		run(t, l, func(co *loop.Coro) error { return CloseWait(co, a) })
	})
}

// everyCall calls every function on s, none of which may wait, and returns their
// errors.
func everyCall(co *loop.Coro, s, other *Socket) map[string]error {
	errs := map[string]error{}
	p := make([]byte, 10)
	_, errs["Recv"] = Recv(co, s, 10)
	_, errs["RecvInto"] = RecvInto(co, s, p)
	_, _, errs["RecvFrom"] = RecvFrom(co, s, 10)
	_, _, errs["RecvFromInto"] = RecvFromInto(co, s, p)
	errs["SendAll"] = SendAll(co, s, p)
	errs["SendAllV"] = SendAllV(co, s, [][]byte{p})
	_, errs["SendTo"] = SendTo(co, s, p, Addr{})
	errs["Connect"] = Connect(co, s, UnixAddr("/none"))
	_, _, errs["Accept"] = Accept(co, s)
	_, errs["Sendfile"] = Sendfile(co, s, other, 0, ToEnd, nil)
	return errs
}

// ReadAt lets a Socket stand in for a file in everyCall.
func (s *Socket) ReadAt([]byte, int64) (int, error) { return 0, io.EOF }

func TestAListenerClosedWhileAConnectionIsKeptDropsIt(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		run(t, l, func(co *loop.Coro) error {
			ln, client, conn, peer := accepted(t, co)
			ln.kept = &kept{conn: conn, addr: peer}
			if err := CloseWait(co, ln); err != nil {
				return err
			}
			if _, err := Recv(co, client, 1); err == nil {
				t.Error("the connection that nobody accepted is still open")
			}
			return nil
		})
	})
}

// TestRandomClosesLeaveNothingBehind closes sockets under calls in every state;
// the descriptors are counted when all tests are done.
func TestRandomClosesLeaveNothingBehind(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		rnd := rand.New(rand.NewPCG(3, 4))
		run(t, l, func(co *loop.Coro) error {
			for range 100 {
				a, b, err := Pair(unix.SOCK_STREAM)
				if err != nil {
					return err
				}
				var tasks []*loop.Task[struct{}]
				for range rnd.IntN(5) {
					tasks = append(tasks, spawn(co, func(co *loop.Coro) (struct{}, error) {
						return struct{}{}, pingOrPong(co, []*Socket{a, b}[rnd.IntN(2)], rnd)
					}))
				}
				yield(t, co, rnd.IntN(4))
				for _, task := range tasks {
					if rnd.IntN(3) == 0 {
						task.Cancel("")
					}
				}
				yield(t, co, rnd.IntN(2))
				if err := errors.Join(a.Close(), b.Close()); err != nil {
					return err
				}
				for _, task := range tasks {
					_, _ = task.Await(co) // anything may have ended it
				}
			}
			return nil
		})
	})
}

func pingOrPong(co *loop.Coro, s *Socket, rnd *rand.Rand) error {
	for range 3 {
		var err error
		switch rnd.IntN(6) {
		case 0:
			_, err = Recv(co, s, rnd.IntN(5000)+1)
		case 1:
			_, err = RecvBorrowed(co, s)
		case 2:
			err = Settle(co, s)
		default:
			err = SendAll(co, s, make([]byte, rnd.IntN(300<<10)))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// TestRandomClosesOfListenersLeaveNoConnectionBehind closes listeners while
// accepts are under way, cancelled or completed.
func TestRandomClosesOfListenersLeaveNoConnectionBehind(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		rnd := rand.New(rand.NewPCG(5, 6))
		run(t, l, func(co *loop.Coro) error {
			for range 100 {
				ln, addr := listen(t, "tcp", "127.0.0.1:0")
				var accepts []*loop.Task[Addr]
				for range rnd.IntN(3) + 1 {
					accepts = append(accepts, acceptTask(co, ln))
				}
				yield(t, co, rnd.IntN(3))
				client, err := New(unix.AF_INET, unix.SOCK_STREAM, 0)
				if err != nil {
					return err
				}
				connecting := connectTask(co, client, addr)
				yield(t, co, rnd.IntN(4))
				for _, task := range accepts {
					if rnd.IntN(2) == 0 {
						task.Cancel("")
					}
				}
				yield(t, co, rnd.IntN(2))
				if err := ln.Close(); err != nil {
					return err
				}
				for _, task := range accepts {
					_, _ = task.Await(co) // accepted, cancelled or closed
				}
				_, _ = connecting.Await(co) // or refused
				if err := CloseWait(co, client); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

func TestClosingTheLoopEndsPendingCallsAndTheSocketCanStillBeClosed(t *testing.T) {
	for _, name := range backendNames {
		t.Run(name, func(t *testing.T) {
			l := newLoop(t, name)
			l.SetExceptionHandler(func(*loop.Loop, *loop.ExceptionContext) {}) // the task is reported
			a, b := pair(t, unix.SOCK_STREAM)
			var got error
			run(t, l, func(co *loop.Coro) error {
				spawn(co, func(co *loop.Coro) (struct{}, error) {
					_, got = RecvInto(co, a, make([]byte, 10))
					return struct{}{}, got
				})
				yield(t, co, 3)
				return SendAll(co, b, nil)
			})
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if !errors.Is(got, loop.ErrLoopClosed) {
				t.Errorf("the pending receive = %v, want ErrLoopClosed", got)
			}
			fd := a.Fd()
			if err := a.Close(); err != nil {
				t.Errorf("Close = %v", err)
			}
			if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != unix.EBADF {
				t.Errorf("descriptor %d is still open: %v", fd, err)
			}
		})
	}
}

func TestCallsOfATaskThatItsClosedLoopUnwindsFail(t *testing.T) {
	for _, name := range backendNames {
		t.Run(name, func(t *testing.T) {
			l := newLoop(t, name)
			l.SetExceptionHandler(func(*loop.Loop, *loop.ExceptionContext) {}) // the task is pending
			a, b := pair(t, unix.SOCK_STREAM)
			after := map[string]error{}
			ended := false
			run(t, l, func(co *loop.Coro) error {
				spawn(co, func(co *loop.Coro) (struct{}, error) {
					defer func() { ended = true }()
					_, err := RecvInto(co, a, make([]byte, 1))
					for name, err := range everyCall(co, a, b) {
						after[name] = err
					}
					return struct{}{}, err
				})
				yield(t, co, 3)
				return nil
			})
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if !ended || len(after) == 0 {
				t.Errorf("the task has ended: %v, after %d calls", ended, len(after))
			}
			for name, err := range after {
				if !errors.Is(err, loop.ErrLoopClosed) {
					t.Errorf("%s = %v, want ErrLoopClosed", name, err)
				}
			}
		})
	}
}

func TestAConnectionOfAnAcceptThatItsLoopEndsAfterTheListenerIsClosed(t *testing.T) {
	for _, name := range backendNames {
		t.Run(name, func(t *testing.T) {
			l := newLoop(t, name)
			l.SetExceptionHandler(func(*loop.Loop, *loop.ExceptionContext) {}) // the tasks are pending
			ln, addr := listen(t, "tcp4", "127.0.0.1:0")
			client := open(t, unix.AF_INET, unix.SOCK_STREAM)
			closes := func(co *loop.Coro) error { // when it is unwound
				defer func() { _ = ln.Close() }()
				return loop.Sleep(co, time.Hour)
			}
			var waiting *loop.Coro
			var acceptErr error
			run(t, l, func(co *loop.Coro) error {
				co.Loop().Go(closes)
				co.Loop().Go(func(co *loop.Coro) error {
					waiting = co
					_, _, acceptErr = Accept(co, ln)
					return acceptErr
				})
				co.Loop().Go(closes)
				yield(t, co, 3)
				return nil
			})
			// The connection comes while the task is queued, and before that goes on
			// it is cancelled and the run ends.
			soon := func(fn func()) {
				if _, err := l.CallSoon(fn); err != nil {
					t.Error(err)
				}
			}
			var before, after func()
			before = func() {
				if !ln.in.op.InFlight() {
					waiting.Task().Cancel("")
					panic(loop.LoopExit{})
				}
				soon(before)
			}
			after = func() {
				waiting.Wake()
				soon(after)
			}
			soon(func() {
				to := &unix.SockaddrInet4{Port: int(addr.Port()), Addr: [4]byte{127, 0, 0, 1}}
				if err := unix.Connect(client.Fd(), to); err != nil && err != unix.EINPROGRESS {
					t.Error(err)
				}
				soon(before)
				after()
			})
			_ = l.RunForever()
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if !errors.Is(acceptErr, loop.ErrLoopClosed) {
				t.Errorf("Accept = %v", acceptErr)
			}
			for err := error(unix.EINTR); err == unix.EINTR; {
				_, err = unix.Poll([]unix.PollFd{{Fd: int32(client.Fd()), Events: unix.POLLIN}}, 60_000)
			}
			if _, err := unix.Read(client.Fd(), make([]byte, 1)); err == unix.EAGAIN {
				t.Error("the connection that nobody got is still open")
			}
		})
	}
}

func TestShutdownEndsWhoWaitsForRoomInAUnixStream(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		file := tempFile(t, make([]byte, 4<<20))
		for name, send := range map[string]func(co *loop.Coro, s *Socket) error{
			"SendAll":  func(co *loop.Coro, s *Socket) error { return SendAll(co, s, make([]byte, 4<<20)) },
			"SendAllV": func(co *loop.Coro, s *Socket) error { return SendAllV(co, s, [][]byte{make([]byte, 4<<20)}) },
			"Sendfile": func(co *loop.Coro, s *Socket) error { _, err := Sendfile(co, s, file, 0, ToEnd, nil); return err },
		} {
			a, _ := pair(t, unix.SOCK_STREAM)
			run(t, l, func(co *loop.Coro) error {
				sending := spawn(co, func(co *loop.Coro) (int, error) { return 0, send(co, a) })
				yield(t, co, 5)
				if err := a.Shutdown(unix.SHUT_WR); err != nil {
					return err
				}
				if _, err := sending.Await(co); !errors.Is(err, unix.EPIPE) {
					t.Errorf("%s = %v, want EPIPE", name, err)
				}
				if err := SendAll(co, a, []byte("x")); !errors.Is(err, unix.EPIPE) {
					t.Errorf("SendAll after %s = %v, want EPIPE", name, err)
				}
				return nil
			})
		}
	})
}

// wantOneByteThenEnd reads from a socket without its loop.
func wantOneByteThenEnd(t *testing.T, peer *Socket) {
	t.Helper()
	var p [8]byte
	if n, err := unix.Read(peer.Fd(), p[:]); n != 1 || err != nil {
		t.Errorf("the peer got %d bytes, %v", n, err)
	}
	if n, err := unix.Read(peer.Fd(), p[:]); n != 0 || err != nil {
		t.Errorf("the peer got %d bytes, %v, want the end", n, err)
	}
}

// usedPair is pair, of which a has sent a byte in a run of l that is over.
func usedPair(t *testing.T, l *loop.Loop) (a, peer *Socket) {
	t.Helper()
	a, peer = pair(t, unix.SOCK_STREAM)
	run(t, l, func(co *loop.Coro) error { return SendAll(co, a, []byte("x")) })
	return a, peer
}

func TestCloseTakesEffectThoughTheSocketsLoopDoesNotRun(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, peer := usedPair(t, l)
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		wantOneByteThenEnd(t, peer)
	})
}

func TestTheNumberOfASocketThatWasClosedBetweenRunsCanBeUsedAnew(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		number := int32(-1)
		a, _ := pair(t, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			waiting := recvTask(co, a) // so that the backend knows the descriptor
			yield(t, co, 3)
			waiting.Cancel("")
			_, _ = waiting.Await(co)
			number = a.fd
			return nil
		})
		if err := a.Close(); err != nil {
			t.Fatal(err)
		}
		a, peer := pair(t, unix.SOCK_STREAM)
		if a.fd != number {
			t.Errorf("the next socket has number %d, not %d", a.fd, number)
		}
		run(t, l, func(co *loop.Coro) error {
			waiting := recvTask(co, a)
			yield(t, co, 3)
			if err := SendAll(co, peer, []byte("x")); err != nil {
				return err
			}
			got, err := waiting.Await(co)
			if got != "x" {
				t.Errorf("who has the number now got %q", got)
			}
			return err
		})
	})
}

func TestCloseOnAnotherLoopTakesEffectThoughTheFirstDoesNotRun(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, peer := usedPair(t, l)
		run(t, newLoop(t, l.Features().Backend), func(co *loop.Coro) error {
			if err := SendAll(co, a, nil); err != nil { // moves it
				return err
			}
			return CloseWait(co, a)
		})
		wantOneByteThenEnd(t, peer)
	})
}

func TestADetachedDescriptorIsTheOnlyOneThoughTheLoopDoesNotRun(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, peer := usedPair(t, l)
		fd, _, err := a.Detach()
		if err != nil {
			t.Fatal(err)
		}
		_ = unix.Close(fd)
		wantOneByteThenEnd(t, peer)
	})
}
