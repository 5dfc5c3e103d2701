package sockapi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/loop"
)

// recvTask receives once in a task of its own.
func recvTask(co *loop.Coro, s *Socket) *loop.Task[string] {
	return spawn(co, func(co *loop.Coro) (string, error) {
		var p [100]byte
		n, err := RecvInto(co, s, p[:])
		return string(p[:n]), err
	})
}

func TestACancelledReceiveFollowedAtOnceByAnotherYieldsTheDataToThat(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, b := pair(t, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			first := recvTask(co, a)
			yield(t, co, 3)
			first.Cancel("enough")
			second := recvTask(co, a)
			yield(t, co, 3)
			if err := SendAll(co, b, []byte("data")); err != nil {
				return err
			}
			if got, err := second.Await(co); got != "data" || err != nil {
				t.Errorf("the second receive = %q, %v", got, err)
			}
			var ce *loop.CancelledError
			if _, err := first.Result(); !errors.As(err, &ce) || ce.Msg != "enough" {
				t.Errorf("the first receive = %v", err)
			}
			return nil
		})
	})
}

func TestDataThatArrivesBeforeTheCancelIsNotLost(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, b := pair(t, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			for turns := range 6 {
				first := recvTask(co, a)
				yield(t, co, 3)
				if err := SendAll(co, b, []byte("data")); err != nil {
					return err
				}
				yield(t, co, turns)
				first.Cancel("")
				got, err := first.Await(co)
				if err != nil {
					got, err = recvTask(co, a).Await(co)
				}
				if got != "data" || err != nil {
					t.Errorf("cancelled after %d turns: %q, %v", turns, got, err)
				}
			}
			return nil
		})
	})
}

func TestAReceiveIsCancelledPromptlyWhileBlocked(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, _ := pair(t, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			task := recvTask(co, a)
			yield(t, co, 3)
			task.Cancel("")
			// Nothing else happens on the socket, so only the cancel can end it.
			if _, err := task.Await(co); !errors.Is(err, loop.ErrCancelled) {
				t.Errorf("the cancelled receive = %v", err)
			}
			return nil
		})
	})
}

func TestACallThatWaitsForItsTurnIsCancelledAndTheOthersKeepTheirOrder(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, b := pair(t, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			var tasks []*loop.Task[byte]
			for range 5 {
				tasks = append(tasks, spawn(co, func(co *loop.Coro) (byte, error) {
					var p [1]byte
					_, err := RecvInto(co, a, p[:])
					return p[0], err
				}))
			}
			yield(t, co, 2)
			for _, i := range []int{0, 2, 4} {
				tasks[i].Cancel("")
			}
			if err := SendAll(co, b, []byte("xy")); err != nil {
				return err
			}
			x, errX := tasks[1].Await(co)
			y, errY := tasks[3].Await(co)
			if x != 'x' || y != 'y' {
				t.Errorf("received %q, %v and %q, %v", x, errX, y, errY)
			}
			for _, i := range []int{0, 2, 4} {
				if _, err := tasks[i].Await(co); !errors.Is(err, loop.ErrCancelled) {
					t.Errorf("task %d = %v", i, err)
				}
			}
			return nil
		})
	})
}

func TestACancelledSendAllLetsTheNextOneDeliverAllItsBytes(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, b := pair(t, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			big := bytes.Repeat([]byte{'a'}, 8<<20)
			first := spawn(co, func(co *loop.Coro) (struct{}, error) { return struct{}{}, SendAll(co, a, big) })
			yield(t, co, 3)
			first.Cancel("")
			next := bytes.Repeat([]byte{'b'}, 4<<20)
			second := spawn(co, func(co *loop.Coro) (struct{}, error) { return struct{}{}, SendAll(co, a, next) })
			got := make([]byte, 0, 16<<20)
			for bytes.Count(got[max(0, len(got)-len(next)):], []byte{'b'}) < len(next) {
				p, err := Recv(co, b, 1<<20)
				if err != nil {
					return err
				}
				got = append(got, p...)
			}
			if bytes.Contains(got, []byte("ba")) {
				t.Error("bytes of the cancelled call came after those of the next")
			}
			if _, err := first.Await(co); !errors.Is(err, loop.ErrCancelled) {
				t.Errorf("the cancelled SendAll = %v", err)
			}
			_, err := second.Await(co)
			return err
		})
	})
}

func TestAConnectionThatACancelledAcceptTookGoesToTheNextAccept(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		ln, addr := listen(t, "tcp", "127.0.0.1:0")
		run(t, l, func(co *loop.Coro) error {
			for turns := range 6 {
				first := acceptTask(co, ln)
				yield(t, co, 3)
				client := open(t, unix.AF_INET, unix.SOCK_STREAM)
				if err := Connect(co, client, addr); err != nil {
					return err
				}
				yield(t, co, turns)
				first.Cancel("")
				peer, err := first.Await(co)
				if err != nil {
					peer, err = acceptTask(co, ln).Await(co)
				}
				if local, lerr := client.LocalAddr(); err != nil || lerr != nil || local != peer {
					t.Errorf("cancelled after %d turns: accepted %v, %v; want %v, %v", turns, peer, err, local, lerr)
				}
			}
			return nil
		})
	})
}

// acceptTask accepts a connection, closes it and returns the peer's address.
func acceptTask(co *loop.Coro, ln *Socket) *loop.Task[Addr] {
	return spawn(co, func(co *loop.Coro) (Addr, error) {
		conn, peer, err := Accept(co, ln)
		if err != nil {
			return Addr{}, err
		}
		return peer, conn.Close()
	})
}

func TestAListenerWhoseAcceptWasCancelledRefusesClientsOnceClosed(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		ln, addr := listen(t, "tcp", "127.0.0.1:0")
		run(t, l, func(co *loop.Coro) error {
			waiting := acceptTask(co, ln)
			yield(t, co, 3)
			waiting.Cancel("")
			if err := CloseWait(co, ln); err != nil {
				return err
			}
			client := open(t, unix.AF_INET, unix.SOCK_STREAM)
			if err := Connect(co, client, addr); !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("Connect to a closed listener = %v", err)
			}
			return nil
		})
	})
}

func TestACancelledDatagramReceiveKeepsTheMessageAndItsSender(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, addr := packet(t, "udp", "127.0.0.1:0")
		b, from := packet(t, "udp", "127.0.0.1:0")
		run(t, l, func(co *loop.Coro) error {
			for turns := range 6 {
				receive := func(co *loop.Coro) (string, error) {
					p, sender, err := RecvFrom(co, a, 100)
					if err == nil && sender != from {
						t.Errorf("the sender is %v, want %v", sender, from)
					}
					return string(p), err
				}
				first := spawn(co, receive)
				yield(t, co, 3)
				if _, err := SendTo(co, b, []byte("data"), addr); err != nil {
					return err
				}
				yield(t, co, turns)
				first.Cancel("")
				got, err := first.Await(co)
				if err != nil {
					got, err = receive(co)
				}
				if got != "data" || err != nil {
					t.Errorf("cancelled after %d turns: %q, %v", turns, got, err)
				}
			}
			return nil
		})
	})
}

// TestRandomCancelsLoseNothing lets tasks that are cancelled at random receive a
// stream while it is sent.
func TestRandomCancelsLoseNothing(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		for seed := range uint64(8) {
			rnd := rand.New(rand.NewPCG(seed, 7))
			a, b := pair(t, unix.SOCK_STREAM)
			run(t, l, func(co *loop.Coro) error {
				sent := make([]byte, 200<<10)
				for i := range sent {
					sent[i] = byte(rnd.Uint32())
				}
				sender := spawn(co, func(co *loop.Coro) (struct{}, error) {
					return struct{}{}, sendSlowly(t, co, b, sent, rnd)
				})
				var got []byte
				for len(got) < len(sent) {
					task := spawn(co, func(co *loop.Coro) (struct{}, error) {
						p, err := receiveAny(co, a, rnd)
						got = append(got, p...)
						return struct{}{}, err
					})
					yield(t, co, rnd.IntN(4))
					if rnd.IntN(3) > 0 {
						task.Cancel("")
					}
					if _, err := task.Await(co); err != nil && !errors.Is(err, loop.ErrCancelled) {
						return err
					}
				}
				if !bytes.Equal(got, sent) {
					t.Errorf("seed %d: the data arrived changed", seed)
				}
				_, err := sender.Await(co)
				return err
			})
		}
	})
}

func sendSlowly(t *testing.T, co *loop.Coro, s *Socket, data []byte, rnd *rand.Rand) error {
	for len(data) > 0 {
		n := min(rnd.IntN(5000)+1, len(data))
		if err := SendAll(co, s, data[:n]); err != nil {
			return err
		}
		data = data[n:]
		yield(t, co, rnd.IntN(3))
	}
	return nil
}

func receiveAny(co *loop.Coro, s *Socket, rnd *rand.Rand) ([]byte, error) {
	size := rnd.IntN(8000) + 1
	switch rnd.IntN(3) {
	case 0:
		return Recv(co, s, size)
	case 1:
		p, _, err := RecvFrom(co, s, size)
		return p, err
	}
	p := make([]byte, size)
	n, err := RecvInto(co, s, p)
	return p[:n], err
}

func TestATaskThatWasCancelledBeforeItWaitsGetsItsCancellationAndTheDataStay(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, b := pair(t, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			task := spawn(co, func(co *loop.Coro) (struct{}, error) {
				co.Task().Cancel("self")
				_, err := RecvInto(co, a, make([]byte, 10))
				return struct{}{}, err
			})
			if _, err := task.Await(co); !errors.Is(err, loop.ErrCancelled) {
				t.Errorf("RecvInto of a cancelled task = %v", err)
			}
			if err := SendAll(co, b, []byte("data")); err != nil {
				return err
			}
			var p [10]byte
			n, err := io.ReadAtLeast(NewConn(co, a), p[:], 4)
			if string(p[:n]) != "data" || err != nil {
				t.Errorf("received %q, %v", p[:n], err)
			}
			return nil
		})
	})
}

func TestACallThatIsWokenTooEarlyGoesOnWaiting(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, b := pair(t, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			var waiting [2]*loop.Coro // for the bytes, and for its turn
			var tasks [2]*loop.Task[string]
			for i := range tasks {
				tasks[i] = spawn(co, func(co *loop.Coro) (string, error) {
					waiting[i] = co
					var p [4]byte
					n, err := RecvInto(co, a, p[:])
					return string(p[:n]), err
				})
			}
			yield(t, co, 3)
			for _, w := range waiting {
				w.Wake()
			}
			yield(t, co, 3)
			if tasks[0].Done() || tasks[1].Done() {
				t.Error("a receive ended although nothing was received")
			}
			if err := SendAll(co, b, []byte("onceagain")); err != nil {
				return err
			}
			for i, want := range [...]string{"once", "agai"} {
				if got, err := tasks[i].Await(co); got != want || err != nil {
					t.Errorf("receive %d = %q, %v, want %q", i, got, err, want)
				}
			}
			return nil
		})
	})
}

func TestAnAcceptWithoutFreeDescriptorsFailsAndTheConnectionWaits(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		run(t, l, func(co *loop.Coro) error {
			ln, _ := connected(t, co)
			err := withoutDescriptors(t, func() error {
				_, _, err := Accept(co, ln)
				return err
			})
			if !errors.Is(err, unix.EMFILE) {
				t.Errorf("Accept = %v, want EMFILE", err)
			}
			conn, _, err := Accept(co, ln)
			if err != nil {
				return err
			}
			return CloseWait(co, conn)
		})
	})
}

// withoutDescriptors calls fn while the process can open no more descriptors.
func withoutDescriptors(t *testing.T, fn func() error) error {
	t.Helper()
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	few := before
	few.Cur = 3 // the standard ones
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
			t.Error(err)
		}
	}()
	return fn()
}

func TestATimeoutNamesTheOperationThatTookTooLong(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		s, _ := pair(t, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			err := loop.Timeout(co, time.Millisecond, func() error {
				_, err := RecvInto(co, s, make([]byte, 1))
				return err
			})
			if want := fmt.Sprintf("timed out after 1ms, waiting for recv on fd %d", s.Fd()); !errors.Is(err, loop.ErrTimeout) || err.Error() != want {
				t.Errorf("the error is %v, want %s", err, want)
			}
			return nil
		})
	})
}

func TestRecvFromOfATCPConnectionNamesNobodyAlsoAfterACancelledReceive(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		run(t, l, func(co *loop.Coro) error {
			a, b, err := narrowPair(t, co)
			if err != nil {
				return err
			}
			cancelled := spawn(co, func(co *loop.Coro) (int, error) { return RecvInto(co, b, make([]byte, 5)) })
			yield(t, co, 3)
			if err := SendAll(co, a, []byte("early, late")); err != nil {
				return err
			}
			cancelled.Cancel("")
			for i := range 2 {
				data, from, err := RecvFrom(co, b, 5)
				if len(data) == 0 || from.IsValid() || err != nil {
					t.Errorf("RecvFrom %d = %q from %v, %v; want no address", i, data, from, err)
				}
			}
			return nil
		})
	})
}
