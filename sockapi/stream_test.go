package sockapi

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/loop"
)

func TestEchoOverEveryKindOfStream(t *testing.T) {
	for _, c := range []struct{ network, address string }{
		{"tcp", "127.0.0.1:0"}, {"tcp4", "127.0.0.1:0"}, {"tcp6", "[::1]:0"}, {"tcp", "localhost:0"},
		{"unix", "@ringloop-sockapi-echo"}, {"unix", "FILE"}, {"unixpacket", "FILE"},
	} {
		t.Run(c.network+" "+c.address, func(t *testing.T) {
			forEachBackend(t, func(t *testing.T, l *loop.Loop) {
				address := c.address
				if address == "FILE" {
					address = t.TempDir() + "/socket"
				}
				ln, addr := listen(t, c.network, address)
				run(t, l, func(co *loop.Coro) error {
					server := spawn(co, func(co *loop.Coro) (struct{}, error) { return struct{}{}, echoOnce(co, ln) })
					if ln.Family() != unix.AF_UNIX {
						address = addr.String()
					}
					s, err := Dial(co, c.network, address)
					if err != nil {
						return err
					}
					defer s.Close()
					if err := SendAll(co, s, []byte("hello")); err != nil {
						return err
					}
					got, err := Recv(co, s, 100)
					if string(got) != "hello" || err != nil {
						t.Errorf("Recv = %q, %v", got, err)
					}
					if err := s.Shutdown(unix.SHUT_WR); err != nil {
						return err
					}
					if got, err := Recv(co, s, 100); err != io.EOF {
						t.Errorf("Recv at the end = %q, %v; want io.EOF", got, err)
					}
					if n, err := RecvInto(co, s, make([]byte, 10)); n != 0 || err != io.EOF {
						t.Errorf("RecvInto at the end = %d, %v; want io.EOF", n, err)
					}
					_, err = server.Await(co)
					return err
				})
			})
		})
	}
}

// echoOnce accepts one connection and sends back what comes.
func echoOnce(co *loop.Coro, ln *Socket) error {
	s, _, err := Accept(co, ln)
	if err != nil {
		return err
	}
	defer s.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := RecvInto(co, s, buf)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := SendAll(co, s, buf[:n]); err != nil {
			return err
		}
	}
}

func TestAcceptReturnsANonBlockingSocketAndThePeersAddress(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		run(t, l, func(co *loop.Coro) error {
			_, client, conn, peer := accepted(t, co)
			if local, err := client.LocalAddr(); err != nil || local != peer {
				t.Errorf("peer = %v, want %v (%v)", peer, local, err)
			}
			if flags, err := unix.FcntlInt(uintptr(conn.Fd()), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
				t.Errorf("flags %#x, %v: not non-blocking", flags, err)
			}
			if flags, err := unix.FcntlInt(uintptr(conn.Fd()), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("flags %#x, %v: not close-on-exec", flags, err)
			}
			if conn.Family() != unix.AF_INET || conn.Type() != unix.SOCK_STREAM {
				t.Errorf("%v has the wrong kind", conn)
			}
			return nil
		})
	})
}

func TestBigTransfersArriveUnchanged(t *testing.T) {
	size := 24 << 20
	if testing.Short() {
		size = 4 << 20
	}
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		ln, addr := listen(t, "tcp", "127.0.0.1:0")
		rnd := rand.New(rand.NewPCG(1, 2))
		run(t, l, func(co *loop.Coro) error {
			data := make([]byte, size)
			for i := range data {
				data[i] = byte(rnd.Uint32())
			}
			receiver := spawn(co, func(co *loop.Coro) ([32]byte, error) { return receiveSum(co, ln, rnd) })
			s := open(t, unix.AF_INET, unix.SOCK_STREAM)
			if err := Connect(co, s, addr); err != nil {
				return err
			}
			for rest := data; len(rest) > 0; {
				n := min(rnd.IntN(3<<20)+1, len(rest))
				if err := sendSomehow(co, s, rest[:n], rnd); err != nil {
					return err
				}
				rest = rest[n:]
			}
			if err := CloseWait(co, s); err != nil {
				return err
			}
			sum, err := receiver.Await(co)
			if err == nil && sum != sha256.Sum256(data) {
				err = errors.New("the data arrived changed")
			}
			return err
		})
	})
}

// sendSomehow sends p by SendAll or in pieces by SendAllV.
func sendSomehow(co *loop.Coro, s *Socket, p []byte, rnd *rand.Rand) error {
	if rnd.IntN(2) == 0 {
		return SendAll(co, s, p)
	}
	var bufs [][]byte
	for len(p) > 0 {
		n := min(rnd.IntN(1000), len(p))
		bufs = append(bufs, p[:n])
		p = p[n:]
	}
	return SendAllV(co, s, bufs)
}

// receiveSum accepts a connection and returns the checksum of what comes.
func receiveSum(co *loop.Coro, ln *Socket, rnd *rand.Rand) (sum [32]byte, err error) {
	s, _, err := Accept(co, ln)
	if err != nil {
		return sum, err
	}
	defer s.Close()
	h := sha256.New()
	buf := make([]byte, 256<<10)
	for err == nil {
		var p []byte
		if rnd.IntN(2) == 0 {
			p, err = Recv(co, s, rnd.IntN(200<<10)+1)
		} else {
			var n int
			n, err = RecvInto(co, s, buf[:rnd.IntN(len(buf))+1])
			p = buf[:n]
		}
		h.Write(p)
	}
	if err == io.EOF {
		err = nil
	}
	return [32]byte(h.Sum(nil)), err
}

func TestRecvReturnsNoMoreThanAskedAndKeepsTheRest(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, b := pair(t, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			sent := bytes.Repeat([]byte("0123456789"), 2000)
			first := spawn(co, func(co *loop.Coro) ([]byte, error) { return Recv(co, a, ownBuffer+1) })
			yield(t, co, 3)
			if err := SendAll(co, b, sent); err != nil {
				return err
			}
			got, err := first.Await(co)
			if err != nil {
				return err
			}
			if len(got) > ownBuffer+1 {
				t.Errorf("received %d bytes, more than asked for", len(got))
			}
			for len(got) < len(sent) {
				p, err := Recv(co, a, 700)
				if err != nil {
					return err
				}
				if len(p) > 700 {
					t.Errorf("received %d bytes, more than asked for", len(p))
				}
				got = append(got, p...)
			}
			if !bytes.Equal(got, sent) {
				t.Error("the data arrived changed")
			}
			return nil
		})
	})
}

func TestRecvOfAsMuchAsThereIsNeedsNoMemoryForMore(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, b := pair(t, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			sent := bytes.Repeat([]byte("0123456789"), 1000)
			if err := SendAll(co, b, sent); err != nil {
				return err
			}
			for n := ownBuffer + 1; len(sent) > 0; n = math.MaxInt { // the second finds what the first has left
				p, err := Recv(co, a, n)
				if err != nil || !bytes.HasPrefix(sent, p) {
					return fmt.Errorf("received %d bytes: %v", len(p), err)
				}
				sent = sent[len(p):]
			}
			return nil
		})
	})
}

func TestAPacketForWhichThereIsNoMemoryStays(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		l.SetExceptionHandler(func(*loop.Loop, *loop.ExceptionContext) {}) // the panic is reported
		a, b := pair(t, unix.SOCK_DGRAM)
		run(t, l, func(co *loop.Coro) error {
			if err := SendAll(co, b, []byte("packet")); err != nil {
				return err
			}
			task := spawn(co, func(co *loop.Coro) ([]byte, error) { return Recv(co, a, math.MaxInt) })
			var pe *loop.PanicError
			if _, err := task.Await(co); !errors.As(err, &pe) {
				t.Errorf("a receive of %d bytes = %v, want a panic", math.MaxInt, err)
			}
			if p, err := recvTask(co, a).Await(co); p != "packet" || err != nil {
				t.Errorf("then received %q, %v", p, err)
			}
			return nil
		})
	})
}

func TestNothingToDoReturnsAtOnce(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, _ := pair(t, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			if n, err := RecvInto(co, a, nil); n != 0 || err != nil {
				t.Errorf("RecvInto(nil) = %d, %v", n, err)
			}
			if n, _, err := RecvFromInto(co, a, []byte{}); n != 0 || err != nil {
				t.Errorf("RecvFromInto(empty) = %d, %v", n, err)
			}
			if err := SendAll(co, a, nil); err != nil {
				t.Errorf("SendAll(nil) = %v", err)
			}
			if err := SendAllV(co, a, [][]byte{nil, {}}); err != nil {
				t.Errorf("SendAllV(empty pieces) = %v", err)
			}
			return nil
		})
	})
}

func TestCallsInOneDirectionAreServedInOrder(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, b := pair(t, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			var got []byte
			var tasks []*loop.Task[int]
			for range 10 {
				tasks = append(tasks, spawn(co, func(co *loop.Coro) (int, error) {
					var p [1]byte
					n, err := RecvInto(co, a, p[:])
					got = append(got, p[:n]...)
					return n, err
				}))
			}
			yield(t, co, 3)
			if err := SendAll(co, b, []byte("0123456789")); err != nil {
				return err
			}
			for _, task := range tasks {
				if _, err := task.Await(co); err != nil {
					return err
				}
			}
			if string(got) != "0123456789" {
				t.Errorf("received in the order %q", got)
			}
			return nil
		})
	})
}

func TestConcurrentSendAllsAreNotMixed(t *testing.T) {
	const tasks, size = 8, 1 << 20
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, b := pair(t, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			for i := range tasks {
				spawn(co, func(co *loop.Coro) (struct{}, error) {
					return struct{}{}, SendAll(co, a, bytes.Repeat([]byte{byte(i)}, size))
				})
			}
			buf := make([]byte, size)
			for i := range tasks {
				if _, err := io.ReadFull(NewConn(co, b), buf); err != nil {
					return err
				}
				if !bytes.Equal(buf, bytes.Repeat([]byte{byte(i)}, size)) {
					return fmt.Errorf("block %d is mixed with another", i)
				}
			}
			return nil
		})
	})
}

func TestAResetConnectionIsAConnectionErrorForReceiverAndSender(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		run(t, l, func(co *loop.Coro) error {
			_, client, conn, peer := accepted(t, co)
			waiting := spawn(co, func(co *loop.Coro) (int, error) { return RecvInto(co, conn, make([]byte, 10)) })
			yield(t, co, 3)
			if err := client.SetLinger(0); err != nil {
				return err
			}
			if err := CloseWait(co, client); err != nil {
				return err
			}
			if _, err := waiting.Await(co); !errors.Is(err, syscall.ECONNRESET) || !errors.Is(err, ErrConnection) {
				t.Errorf("RecvInto after a reset by %v = %v", peer, err)
			} else if !strings.Contains(err.Error(), peer.String()) {
				t.Errorf("the error does not name the peer %v: %v", peer, err)
			}
			err := SendAll(co, conn, []byte("x"))
			if !errors.Is(err, syscall.EPIPE) || !errors.Is(err, ErrConnection) || !strings.Contains(err.Error(), peer.String()) {
				t.Errorf("SendAll after a reset by %v = %v", peer, err)
			}
			return nil
		})
	})
}

func TestABusySocketLetsOtherTasksRun(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, b := pair(t, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			done := false
			busy := spawn(co, func(co *loop.Coro) (int, error) {
				var p [1]byte
				for n := 0; ; n++ { // always ready, because it sends before it receives
					if done {
						return n, nil
					}
					if err := SendAll(co, a, p[:]); err != nil {
						return n, err
					}
					if _, err := RecvInto(co, b, p[:]); err != nil {
						return n, err
					}
				}
			})
			yield(t, co, 10)
			done = true
			_, err := busy.Await(co)
			return err
		})
	})
}

func TestTCP6LeavesIPv4Alone(t *testing.T) {
	four, addr := listen(t, "tcp4", "0.0.0.0:0")
	six, err := Listen("tcp6", fmt.Sprintf("[::]:%d", addr.Port()), nil)
	if err != nil {
		t.Fatalf("next to %v: %v", four, err)
	}
	closeAtEnd(t, six)
}
