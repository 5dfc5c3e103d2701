package sockapi

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/epoll"
	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/uring"
)

// borrowingEcho sends back what comes until the peer closes.
func borrowingEcho(co *loop.Coro, s *Socket) *loop.Task[struct{}] {
	return spawn(co, func(co *loop.Coro) (struct{}, error) {
		for {
			data, err := RecvBorrowed(co, s)
			if err == io.EOF {
				return struct{}{}, nil
			}
			if err != nil {
				return struct{}{}, err
			}
			if err := SendAll(co, s, data); err != nil {
				return struct{}{}, err
			}
		}
	})
}

// borrowTask receives once in a task of its own.
func borrowTask(co *loop.Coro, s *Socket) *loop.Task[string] {
	return spawn(co, func(co *loop.Coro) (string, error) {
		data, err := RecvBorrowed(co, s)
		return string(data), err
	})
}

// randomBytes returns n bytes that no two positions share.
func randomBytes(n int) []byte {
	p := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(n)})
	_, _ = r.Read(p)
	return p
}

func TestBorrowedMemoryCarriesMessagesOfEverySize(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		run(t, l, func(co *loop.Coro) error {
			s, peer := tcpPair(t, co)
			echo := borrowingEcho(co, peer)
			for _, size := range []int{1, 64, 65, 512, 4096, 32 << 10, 32<<10 + 1, 256 << 10, 1 << 20, 3, 5 << 20, 100, 7} {
				for range 5 {
					want := randomBytes(size)
					sent := spawn(co, func(co *loop.Coro) (struct{}, error) { return struct{}{}, SendAll(co, s, want) })
					got := make([]byte, size)
					for n := 0; n < size; {
						m, err := RecvInto(co, s, got[n:])
						if err != nil {
							return err
						}
						n += m
					}
					if _, err := sent.Await(co); err != nil {
						return err
					}
					if !bytes.Equal(got, want) {
						t.Fatalf("%d bytes came back wrong", size)
					}
				}
			}
			return finish(co, []*Socket{s}, []*loop.Task[struct{}]{echo})
		})
	})
}

func TestLentBytesStayWhileOthersReceive(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		run(t, l, func(co *loop.Coro) error {
			for _, size := range []int{100, 20 << 10, 200 << 10} {
				var held, want [][]byte
				for range 5 {
					a, b := tcpPair(t, co)
					p := randomBytes(size + len(held))
					sent := spawn(co, func(co *loop.Coro) (struct{}, error) { return struct{}{}, SendAll(co, b, p) })
					data, err := RecvBorrowed(co, a)
					if err != nil {
						return err
					}
					held, want = append(held, data), append(want, bytes.Clone(data))
					for range 3 {
						if err := roundTrip(co, b, p[:0]); err != nil {
							return err
						}
					}
					yield(t, co, 5)
					sent.Cancel("")
					_, _ = sent.Await(co)
				}
				for i := range held {
					if !bytes.Equal(held[i], want[i]) {
						t.Errorf("the bytes lent to socket %d have changed", i)
					}
				}
			}
			return nil
		})
	})
}

func TestWhatCameAheadGoesToTheNextCallWhicheverItIs(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		calls := map[string]func(co *loop.Coro, s *Socket) (string, error){
			"RecvBorrowed": func(co *loop.Coro, s *Socket) (string, error) {
				p, err := RecvBorrowed(co, s)
				return string(p), err
			},
			"RecvInto": func(co *loop.Coro, s *Socket) (string, error) {
				var p [100]byte
				n, err := RecvInto(co, s, p[:])
				return string(p[:n]), err
			},
			"Recv": func(co *loop.Coro, s *Socket) (string, error) { p, err := Recv(co, s, 4096); return string(p), err },
			"RecvFrom": func(co *loop.Coro, s *Socket) (string, error) {
				p, _, err := RecvFrom(co, s, 100)
				return string(p), err
			},
			"Conn.Read": func(co *loop.Coro, s *Socket) (string, error) {
				var p [9]byte
				n, err := NewConn(co, s).Read(p[:])
				return string(p[:n]), err
			},
		}
		for name, call := range calls {
			for _, arrives := range []bool{true, false} {
				a, b := pair(t, unix.SOCK_STREAM)
				run(t, l, func(co *loop.Coro) error {
					if err := SendAll(co, b, []byte("first")); err != nil {
						return err
					}
					if p, err := RecvBorrowed(co, a); string(p) != "first" || err != nil {
						t.Errorf("RecvBorrowed = %q, %v", p, err)
					}
					if err := SendAll(co, b, []byte("second")); err != nil {
						return err
					}
					if arrives {
						yield(t, co, 3)
					}
					if got, err := call(co, a); got != "second" || err != nil {
						t.Errorf("%s = %q, %v", name, got, err)
					}
					if err := SendAll(co, b, []byte("third")); err != nil {
						return err
					}
					if got, err := call(co, a); got != "third" || err != nil {
						t.Errorf("%s = %q, %v", name, got, err)
					}
					if err := CloseWait(co, b); err != nil {
						return err
					}
					if got, err := call(co, a); got != "" || err != io.EOF {
						t.Errorf("%s at the end = %q, %v", name, got, err)
					}
					return nil
				})
			}
		}
	})
}

func TestTheLoopDoesNotReceiveAheadWithoutEnd(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		run(t, l, func(co *loop.Coro) error {
			a, b := tcpPair(t, co)
			want := randomBytes(32 << 20)
			sent := spawn(co, func(co *loop.Coro) (struct{}, error) {
				if err := SendAll(co, b, want); err != nil {
					return struct{}{}, err
				}
				return struct{}{}, CloseWait(co, b)
			})
			first, err := RecvBorrowed(co, a)
			if err != nil {
				return err
			}
			got := bytes.Clone(first)
			yield(t, co, 500)
			if sent.Done() {
				t.Error("everything was received ahead")
			}
			for {
				data, err := RecvBorrowed(co, a)
				if err == io.EOF {
					break
				}
				if err != nil {
					return err
				}
				got = append(got, data...)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%d bytes came, or wrong ones", len(got))
			}
			_, err = sent.Await(co)
			return err
		})
	})
}

func TestACancelledBorrowLosesNothing(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, b := pair(t, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			for turns := range 6 {
				first := borrowTask(co, a)
				yield(t, co, 3)
				if err := SendAll(co, b, []byte("data")); err != nil {
					return err
				}
				yield(t, co, turns)
				first.Cancel("")
				got, err := first.Await(co)
				if err != nil {
					if !errors.Is(err, loop.ErrCancelled) {
						t.Errorf("the cancelled call = %v", err)
					}
					got, err = borrowTask(co, a).Await(co)
				}
				if got != "data" || err != nil {
					t.Errorf("cancelled after %d turns: %q, %v", turns, got, err)
				}
			}
			waiting := borrowTask(co, a)
			yield(t, co, 3)
			waiting.Cancel("")
			// Nothing else happens on the socket, so only the cancel can end it.
			if _, err := waiting.Await(co); !errors.Is(err, loop.ErrCancelled) {
				t.Errorf("the cancelled call = %v", err)
			}
			return nil
		})
	})
}

func TestRacingCancelsOfBorrowsNeitherLoseNorDoubleBytes(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		run(t, l, func(co *loop.Coro) error {
			a, b := tcpPair(t, co)
			want := randomBytes(8 << 20)
			sent := spawn(co, func(co *loop.Coro) (struct{}, error) { return struct{}{}, SendAll(co, b, want) })
			var got []byte
			for round := 0; len(got) < len(want); round++ {
				task := spawn(co, func(co *loop.Coro) (struct{}, error) {
					if round%5 == 4 {
						p := make([]byte, 1+round%3000)
						n, err := RecvInto(co, a, p)
						got = append(got, p[:n]...)
						return struct{}{}, err
					}
					data, err := RecvBorrowed(co, a)
					got = append(got, data...)
					return struct{}{}, err
				})
				yield(t, co, round%4)
				if round%3 != 0 {
					task.Cancel("")
				}
				if _, err := task.Await(co); err != nil && !errors.Is(err, loop.ErrCancelled) {
					return err
				}
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%d bytes came, or wrong ones", len(got))
			}
			_, err := sent.Await(co)
			return err
		})
	})
}

func TestCloseEndsABorrow(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		run(t, l, func(co *loop.Coro) error {
			a, b := pair(t, unix.SOCK_STREAM)
			waiting := borrowTask(co, a)
			yield(t, co, 3)
			if err := CloseWait(co, a); err != nil {
				return err
			}
			if got, err := waiting.Await(co); !errors.Is(err, ErrSocketClosed) {
				t.Errorf("RecvBorrowed = %q, %v", got, err)
			}
			if _, err := RecvInto(co, b, make([]byte, 1)); err != io.EOF {
				t.Errorf("the peer got %v, want io.EOF", err)
			}
			if _, err := RecvBorrowed(co, a); !errors.Is(err, ErrSocketClosed) {
				t.Errorf("RecvBorrowed on a closed socket = %v", err)
			}
			// Without a call that waits.
			a, b = pair(t, unix.SOCK_STREAM)
			if err := SendAll(co, b, []byte("x")); err != nil {
				return err
			}
			if _, err := RecvBorrowed(co, a); err != nil {
				return err
			}
			if err := CloseWait(co, a); err != nil {
				return err
			}
			if _, err := RecvInto(co, b, make([]byte, 1)); err != io.EOF {
				t.Errorf("the peer got %v, want io.EOF", err)
			}
			return nil
		})
	})
}

func TestAResetComesAfterTheBytesBeforeIt(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		run(t, l, func(co *loop.Coro) error {
			a, b := tcpPair(t, co)
			if err := SendAll(co, b, []byte("first")); err != nil {
				return err
			}
			if _, err := RecvBorrowed(co, a); err != nil {
				return err
			}
			if err := SendAll(co, b, []byte("second")); err != nil {
				return err
			}
			yield(t, co, 3)
			if err := b.SetLinger(0); err != nil {
				return err
			}
			if err := CloseWait(co, b); err != nil {
				return err
			}
			yield(t, co, 3)
			if data, err := RecvBorrowed(co, a); string(data) != "second" || err != nil {
				t.Errorf("RecvBorrowed = %q, %v", data, err)
			}
			if data, err := RecvBorrowed(co, a); !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("RecvBorrowed = %q, %v", data, err)
			}
			return nil
		})
	})
}

func TestASettledSocketCanBeTakenAway(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, b := pair(t, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			if err := SendAll(co, b, []byte("first")); err != nil {
				return err
			}
			if _, err := RecvBorrowed(co, a); err != nil {
				return err
			}
			if _, _, err := a.Detach(); !errors.Is(err, loop.ErrInvalidState) {
				t.Errorf("Detach while the loop receives ahead = %v", err)
			}
			if err := SendAll(co, b, []byte("second")); err != nil {
				return err
			}
			for range 2 {
				if err := Settle(co, a); err != nil {
					return err
				}
			}
			fd, r, err := a.Detach()
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			var p [100]byte
			received := r.Data
			if len(received) == 0 {
				n, err := unix.Read(fd, p[:])
				if err != nil {
					return err
				}
				received = p[:n]
			}
			if string(received) != "second" {
				t.Errorf("after Detach %q was there", received)
			}
			if err := Settle(co, b); err != nil {
				t.Errorf("Settle of a socket that needs none = %v", err)
			}
			return nil
		})
	})
}

func TestASettleThatIsCancelledCanBeRepeated(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, b := pair(t, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			for turns := range 4 {
				waiting := borrowTask(co, a)
				yield(t, co, 3)
				waiting.Cancel("")
				_, _ = waiting.Await(co)
				settling := spawn(co, func(co *loop.Coro) (struct{}, error) { return struct{}{}, Settle(co, a) })
				yield(t, co, turns)
				settling.Cancel("")
				if _, err := settling.Await(co); err != nil && !errors.Is(err, loop.ErrCancelled) {
					t.Errorf("Settle = %v", err)
				}
				if err := SendAll(co, b, []byte("data")); err != nil {
					return err
				}
				if got, err := borrowTask(co, a).Await(co); got != "data" || err != nil {
					t.Errorf("RecvBorrowed = %q, %v", got, err)
				}
			}
			return Settle(co, a)
		})
	})
}

func TestOnlyStreamsLendMemory(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		run(t, l, func(co *loop.Coro) error {
			for _, typ := range []int{unix.SOCK_DGRAM, unix.SOCK_SEQPACKET} {
				a, _ := pair(t, typ)
				if _, err := RecvBorrowed(co, a); !errors.Is(err, loop.ErrInvalidArgument) {
					t.Errorf("RecvBorrowed on type %d = %v", typ, err)
				}
			}
			return nil
		})
	})
}

func TestALoopIsClosedWhileItReceivesAhead(t *testing.T) {
	for _, name := range backendNames {
		t.Run(name, func(t *testing.T) {
			l := newLoop(t, name)
			a, b := pair(t, unix.SOCK_STREAM)
			run(t, l, func(co *loop.Coro) error {
				if err := SendAll(co, b, []byte("x")); err != nil {
					return err
				}
				_, err := RecvBorrowed(co, a)
				return err
			})
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			other := newLoop(t, name)
			run(t, other, func(co *loop.Coro) error {
				if err := SendAll(co, b, []byte("y")); err != nil {
					return err
				}
				if data, err := RecvBorrowed(co, a); string(data) != "y" || err != nil {
					t.Errorf("on another loop RecvBorrowed = %q, %v", data, err)
				}
				return nil
			})
		})
	}
}

// What was kept may lie in memory of the loop that has received it.
func TestKeptMemoryStaysWithItsLoop(t *testing.T) {
	var loops []*loop.Loop
	for _, size := range []int{100_000, 1 << 20} {
		l, err := loop.NewEventLoop(loop.WithBackendFactory(func() (backend.Backend, error) {
			return epoll.New(&epoll.Options{BufferSize: size})
		}))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := l.Close(); err != nil {
				t.Error(err)
			}
		})
		loops = append(loops, l)
	}
	a, b := pair(t, unix.SOCK_STREAM)
	if err := b.SetOption(unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<20); err != nil {
		t.Fatal(err)
	}
	kept, want := randomBytes(50_000), randomBytes(120_000)
	run(t, loops[0], func(co *loop.Coro) error {
		if err := SendAll(co, b, []byte("x")); err != nil {
			return err
		}
		if _, err := RecvBorrowed(co, a); err != nil {
			return err
		}
		if _, err := unix.Write(b.Fd(), kept); err != nil {
			return err
		}
		yield(t, co, 3) // it is received ahead
		return errors.Join(Settle(co, a), Settle(co, b))
	})
	run(t, loops[1], func(co *loop.Coro) error {
		if err := SendAll(co, a, []byte("x")); err != nil { // a belongs to this loop now
			return err
		}
		if got, err := RecvBorrowed(co, a); !bytes.Equal(got, kept) || err != nil {
			t.Errorf("received %d bytes of those kept, %v", len(got), err)
		}
		if _, err := unix.Write(b.Fd(), want); err != nil {
			return err
		}
		got, err := RecvBorrowed(co, a)
		if !bytes.Equal(got, want) {
			t.Errorf("received %d bytes, %d wanted", len(got), len(want))
		}
		return err
	})
}

func TestBorrowingAllocatesNothing(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		run(t, l, func(co *loop.Coro) error {
			for _, size := range []int{64, 16 << 10, 100 << 10} {
				s, peer := tcpPair(t, co)
				echo := borrowingEcho(co, peer)
				p := make([]byte, size)
				var failed error
				trip := func() {
					if err := roundTrip(co, s, p); err != nil {
						failed = err
					}
				}
				for range 100 {
					trip()
				}
				if n := testing.AllocsPerRun(200, trip); n != 0 || failed != nil {
					t.Errorf("%d bytes: %v allocations per round trip, %v", size, n, failed)
				}
				if err := finish(co, []*Socket{s}, []*loop.Task[struct{}]{echo}); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// The copies of messages that are too small for a loan, after large ones, are of
// a size that the backend lends, too.
func TestBorrowingCopiesWithoutAllocating(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		run(t, l, func(co *loop.Coro) error {
			s, peer := pair(t, unix.SOCK_STREAM)
			echo := borrowingEcho(co, peer)
			large, small := make([]byte, 100<<10), make([]byte, 20<<10)
			var failed error
			trips := func() {
				if err := errors.Join(roundTrip(co, s, large), roundTrip(co, s, small)); err != nil {
					failed = err
				}
			}
			for range 100 {
				trips()
			}
			if n := testing.AllocsPerRun(200, trips); n != 0 || failed != nil {
				t.Errorf("%v allocations for a large and a small message, %v", n, failed)
			}
			return finish(co, []*Socket{s}, []*loop.Task[struct{}]{echo})
		})
	})
}

// forEachConfiguration is forEachBackend, and one more io_uring whose provided
// buffers are so few and small that it runs out of them all the time.
func forEachConfiguration(t *testing.T, test func(t *testing.T, l *loop.Loop)) {
	t.Helper()
	forEachBackend(t, test)
	t.Run("io_uring with small buffers", func(t *testing.T) {
		if err := uring.Available(); err != nil {
			t.Skipf("io_uring: %v", err)
		}
		l, err := loop.NewEventLoop(loop.WithBackendFactory(func() (backend.Backend, error) {
			return uring.New(&uring.Options{Buffers: 4, BufferSize: 512})
		}))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := l.Close(); err != nil {
				t.Errorf("Close of the loop: %v", err)
			}
		})
		test(t, l)
	})
}

func TestACancelThatMeetsSeveralArrivalsLosesNone(t *testing.T) {
	forEachConfiguration(t, func(t *testing.T, l *loop.Loop) {
		a, b := pair(t, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			for turns := range 3 {
				waiting := borrowTask(co, a)
				yield(t, co, 3)
				// More than one of the small buffers. After one turn they are
				// delivered just when the cancelled task is about to run.
				want := randomBytes(900)
				for p := want; len(p) > 0; p = p[300:] {
					if _, err := unix.Write(b.Fd(), p[:300]); err != nil {
						return err
					}
				}
				yield(t, co, turns)
				waiting.Cancel("")
				first, err := waiting.Await(co)
				if err != nil && !errors.Is(err, loop.ErrCancelled) {
					return err
				}
				got := []byte(first)
				for len(got) < len(want) {
					data, err := RecvBorrowed(co, a)
					if err != nil {
						return err
					}
					got = append(got, data...)
				}
				if !bytes.Equal(got, want) {
					t.Fatal("wrong bytes")
				}
			}
			return nil
		})
	})
}

func TestBytesThatCameBeforeACloseStayAfterIt(t *testing.T) {
	forEachConfiguration(t, func(t *testing.T, l *loop.Loop) {
		run(t, l, func(co *loop.Coro) error {
			for turns := range 3 {
				a, b := pair(t, unix.SOCK_STREAM)
				other, peer := pair(t, unix.SOCK_STREAM)
				want := randomBytes(400)
				waiting := spawn(co, func(co *loop.Coro) (bool, error) {
					data, err := RecvBorrowed(co, a)
					if err != nil {
						return false, err
					}
					came := bytes.Clone(data)
					for range 3 {
						if err := SendAll(co, peer, make([]byte, 500)); err != nil {
							return false, err
						}
						if _, err := RecvBorrowed(co, other); err != nil {
							return false, err
						}
					}
					return bytes.Equal(came, want) && bytes.Equal(data, want), nil
				})
				yield(t, co, 3)
				if _, err := unix.Write(b.Fd(), want); err != nil {
					return err
				}
				yield(t, co, turns)
				if err := CloseWait(co, a); err != nil {
					return err
				}
				if same, err := waiting.Await(co); !same || err != nil {
					t.Errorf("closed after %d turns: the same bytes: %v, %v", turns, same, err)
				}
			}
			return nil
		})
	})
}

// A call that receives in its own way waits first for the end of the receiving ahead.
func TestWhatCameBeforeACloseGoesToTheCallThatEndsTheReceivingAhead(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		for ahead := range 4 { // how many turns the bytes come before the call
			for turns := 1; turns < 5; turns++ { // and that before the close
				a, b := pair(t, unix.SOCK_STREAM)
				run(t, l, func(co *loop.Coro) error {
					if err := SendAll(co, b, []byte("first")); err != nil {
						return err
					}
					if p, err := RecvBorrowed(co, a); string(p) != "first" || err != nil {
						t.Errorf("RecvBorrowed = %q, %v", p, err)
					}
					if _, err := unix.Write(b.Fd(), []byte("second")); err != nil {
						return err
					}
					yield(t, co, ahead)
					waiting := recvTask(co, a)
					yield(t, co, turns)
					if err := a.Close(); err != nil {
						return err
					}
					if got, err := waiting.Await(co); got != "second" || err != nil {
						t.Errorf("%d turns ahead, closed %d turns later: RecvInto = %q, %v", ahead, turns, got, err)
					}
					return nil
				})
			}
		}
	})
}

func TestASettleOfASocketThatIsClosedMeanwhileFails(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, b := pair(t, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			if err := SendAll(co, b, []byte("x")); err != nil {
				return err
			}
			if _, err := RecvBorrowed(co, a); err != nil {
				return err
			}
			settling := spawn(co, func(co *loop.Coro) (struct{}, error) { return struct{}{}, Settle(co, a) })
			yield(t, co, 1)
			if err := a.Close(); err != nil {
				return err
			}
			if _, err := settling.Await(co); !errors.Is(err, ErrSocketClosed) {
				t.Errorf("Settle = %v", err)
			}
			return nil
		})
	})
}

func TestALoopIsClosedWhenBytesForACancelledBorrowHaveCome(t *testing.T) {
	for _, name := range backendNames {
		t.Run(name, func(t *testing.T) {
			l := newLoop(t, name)
			var panics []any
			l.SetExceptionHandler(func(_ *loop.Loop, c *loop.ExceptionContext) {
				if c.Message != "Task was destroyed but it is pending!" {
					panics = append(panics, c.Message, c.Exception)
				}
			})
			a, b := pair(t, unix.SOCK_STREAM)
			var borrowErr error
			closes := func(co *loop.Coro) error { // when it is unwound
				defer func() { _ = a.Close() }()
				return loop.Sleep(co, time.Hour)
			}
			var waiting *loop.Task[struct{}]
			run(t, l, func(co *loop.Coro) error {
				co.Loop().Go(closes)
				waiting = spawn(co, func(co *loop.Coro) (struct{}, error) {
					_, borrowErr = RecvBorrowed(co, a)
					return struct{}{}, borrowErr
				})
				co.Loop().Go(closes)
				yield(t, co, 3)
				return nil
			})
			// The task is queued, and so are the bytes, when the loop is closed.
			closeAfter(t, l, func() {
				if _, err := unix.Write(b.Fd(), []byte("data")); err != nil {
					t.Error(err)
				}
				waiting.Cancel("")
			})
			if len(panics) > 0 {
				t.Errorf("reported: %v", panics)
			}
			if !errors.Is(borrowErr, loop.ErrLoopClosed) && !errors.Is(borrowErr, loop.ErrCancelled) {
				t.Errorf("RecvBorrowed = %v", borrowErr)
			}
		})
	}
}
