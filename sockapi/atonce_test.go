package sockapi

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/loop"
)

// wayToSend is a way to send a message to a socket of its own type.
type wayToSend struct {
	typ  int
	size int // of the message, in bytes: small ones of a stream go out at once only on epoll
	send func(co *loop.Coro, s *Socket, p []byte) error
}

func (c wayToSend) message() []byte { return bytes.Repeat([]byte("x"), c.size) }

func (c wayToSend) one(co *loop.Coro, s *Socket) error { return c.send(co, s, c.message()) }

// want expects n messages.
func (c wayToSend) want(t *testing.T, co *loop.Coro, s *Socket, n int) {
	t.Helper()
	for got, want := 0, n*c.size; got < want; {
		p, err := Recv(co, s, want-got)
		if err != nil {
			t.Errorf("received %d bytes of %d, then %v", got, want, err)
			return
		}
		got += len(p)
	}
	var p [10]byte
	if n, _, err := unix.Recvfrom(s.Fd(), p[:], unix.MSG_DONTWAIT); !errors.Is(err, syscall.EAGAIN) && n != 0 {
		t.Errorf("received %d bytes more, %v", n, err)
	}
}

func sendAllInTwo(co *loop.Coro, s *Socket, p []byte) error {
	return SendAllV(co, s, [][]byte{{}, p[:len(p)/2], p[len(p)/2:]})
}

func sendToPeer(co *loop.Coro, s *Socket, p []byte) error {
	_, err := SendTo(co, s, p, Addr{})
	return err
}

var senders = map[string]wayToSend{
	"SendAll":          {unix.SOCK_STREAM, 1, SendAll},
	"SendAll 20K":      {unix.SOCK_STREAM, 20 << 10, SendAll},
	"SendAllV":         {unix.SOCK_STREAM, 1, sendAllInTwo},
	"SendAllV 20K":     {unix.SOCK_STREAM, 20 << 10, sendAllInTwo},
	"SendAll packets":  {unix.SOCK_DGRAM, 1, SendAll},
	"SendAllV packets": {unix.SOCK_DGRAM, 2, sendAllInTwo},
	"SendTo":           {unix.SOCK_DGRAM, 1, sendToPeer},
	"SendTo 20K":       {unix.SOCK_DGRAM, 20 << 10, sendToPeer},
}

// forEachSender runs a test with a socket that has sent already, and whose peer
// has received that.
func forEachSender(t *testing.T, test func(t *testing.T, co *loop.Coro, a, b *Socket, c wayToSend)) {
	for name, c := range senders {
		t.Run(name, func(t *testing.T) {
			forEachBackend(t, func(t *testing.T, l *loop.Loop) {
				a, b := pair(t, c.typ)
				run(t, l, func(co *loop.Coro) error {
					if err := c.one(co, a); err != nil {
						return err
					}
					c.want(t, co, b, 1)
					test(t, co, a, b, c)
					return nil
				})
			})
		})
	}
}

func TestACancelledTaskDoesNotSendAtOnceEither(t *testing.T) {
	forEachSender(t, func(t *testing.T, co *loop.Coro, a, b *Socket, c wayToSend) {
		task := co.Loop().Go(func(co *loop.Coro) error {
			co.Task().Cancel("before")
			var ce *loop.CancelledError
			if err := c.one(co, a); !errors.As(err, &ce) || ce.Msg != "before" {
				t.Errorf("the first send = %v", err)
			}
			c.want(t, co, b, 0)
			return c.one(co, a) // the task knows of its cancellation now
		})
		if _, err := task.Await(co); err != nil {
			t.Error(err)
		}
		c.want(t, co, b, 1)
	})
}

func TestTheCoroOfAnotherTaskDoesNotSendAtOnceEither(t *testing.T) {
	forEachSender(t, func(t *testing.T, co *loop.Coro, a, b *Socket, c wayToSend) {
		task := co.Loop().Go(func(*loop.Coro) error { return c.one(co, a) })
		if _, err := task.Await(co); !errors.Is(err, loop.ErrNotCurrent) {
			t.Errorf("the send = %v", err)
		}
		c.want(t, co, b, 0)
	})
}

func TestATaskThatSendsWithoutEndLetsOthersRun(t *testing.T) {
	forEachSender(t, func(t *testing.T, co *loop.Coro, a, b *Socket, c wayToSend) {
		sends, ran := 0, false
		_, err := co.Loop().CallSoon(func() { ran = true })
		if err != nil {
			t.Fatal(err)
		}
		receiving := co.Loop().Go(func(co *loop.Coro) error {
			c.want(t, co, b, 100)
			return nil
		})
		for ; sends < 100; sends++ {
			if err := c.one(co, a); err != nil {
				t.Fatal(err)
			}
			if !ran && sends > maxTries {
				t.Fatalf("nothing else ran during %d sends", sends)
			}
		}
		if _, err := receiving.Await(co); err != nil {
			t.Error(err)
		}
	})
}

func TestSlicesArriveInOrderHoweverManyAreSentAtOnce(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, b := pair(t, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			if err := SendAll(co, a, []byte(":")); err != nil {
				return err
			}
			want := ":"
			for _, n := range []int{0, 1, fewBufs - 1, fewBufs, fewBufs + 1, 3 * fewBufs} {
				bufs := make([][]byte, n)
				for i := range bufs {
					part := strings.Repeat(string(rune('a'+i)), i%3)
					bufs[i] = []byte(part)
					want += part
				}
				if err := SendAllV(co, a, bufs); err != nil {
					return err
				}
			}
			if err := a.Shutdown(unix.SHUT_WR); err != nil {
				return err
			}
			if got, err := io.ReadAll(NewConn(co, b)); string(got) != want || err != nil {
				t.Errorf("received %q, %v, want %q", got, err, want)
			}
			return nil
		})
	})
}

// The kernel tells of a broken connection once.
func TestAnErrorThatIsFoundAtOnceIsReturned(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		ln, addr := listen(t, "tcp", "127.0.0.1:0")
		run(t, l, func(co *loop.Coro) error {
			a, err := Dial(co, "tcp", addr.String())
			if err != nil {
				return err
			}
			defer a.Close()
			b, _, err := Accept(co, ln)
			if err != nil {
				return err
			}
			if err := SendAll(co, a, []byte("x")); err != nil {
				return err
			}
			if err := b.Close(); err != nil { // with unread data: a reset
				return err
			}
			yield(t, co, 3)
			if err := SendAll(co, a, []byte("x")); !errors.Is(err, syscall.ECONNRESET) || !strings.Contains(err.Error(), addr.String()) {
				t.Errorf("send = %v", err)
			}
			return nil
		})
	})
}

// A first byte, so that the socket knows its loop, and then more than fits.
func TestWhatDoesNotFitAtOnceIsSentLater(t *testing.T) {
	for name, c := range senders {
		if c.typ != unix.SOCK_STREAM {
			continue
		}
		t.Run(name, func(t *testing.T) {
			forEachBackend(t, func(t *testing.T, l *loop.Loop) {
				a, b := pair(t, c.typ)
				run(t, l, func(co *loop.Coro) error {
					sum := sha256.New()
					sending := spawn(co, func(co *loop.Coro) (struct{}, error) {
						for _, n := range []int{1, 2 << 20, 100_000} {
							p := make([]byte, n)
							for i := range p {
								p[i] = byte(i>>8 + i)
							}
							sum.Write(p)
							if err := c.send(co, a, p); err != nil {
								return struct{}{}, err
							}
						}
						return struct{}{}, a.Shutdown(unix.SHUT_WR)
					})
					got, err := io.ReadAll(NewConn(co, b))
					if _, serr := sending.Await(co); err != nil || serr != nil {
						t.Errorf("receive: %v, send: %v", err, serr)
					}
					if sha256.Sum256(got) != [32]byte(sum.Sum(nil)) {
						t.Errorf("the %d bytes are not those that were sent", len(got))
					}
					return nil
				})
			})
		})
	}
}

func TestATaskWhosePacketsAreRefusedLetsOthersRun(t *testing.T) {
	for name, c := range senders {
		if c.typ != unix.SOCK_DGRAM {
			continue
		}
		t.Run(name, func(t *testing.T) {
			forEachBackend(t, func(t *testing.T, l *loop.Loop) {
				a, _ := pair(t, c.typ)
				run(t, l, func(co *loop.Coro) error {
					if err := c.one(co, a); err != nil { // so that the socket knows its loop
						return err
					}
					if err := unix.Shutdown(a.Fd(), unix.SHUT_WR); err != nil {
						return err
					}
					ran := false
					if _, err := l.CallSoon(func() { ran = true }); err != nil {
						return err
					}
					for n := 0; !ran; n++ {
						if err := c.one(co, a); !errors.Is(err, syscall.EPIPE) {
							t.Fatal(err)
						}
						if n > maxTries {
							t.Fatalf("nothing else ran during %d sends that are refused", n)
						}
					}
					return nil
				})
			})
		})
	}
}

// waysToReceive are those that take a packet that is there at once.
var waysToReceive = map[string]func(co *loop.Coro, s *Socket) ([]byte, error){
	"Recv": func(co *loop.Coro, s *Socket) ([]byte, error) { return Recv(co, s, 10) },
	"RecvFrom": func(co *loop.Coro, s *Socket) ([]byte, error) {
		p, _, err := RecvFrom(co, s, 10)
		return p, err
	},
}

// forEachReceiver runs a test with a socket that has received a packet already, and
// to which n more have been sent: "a", "b" and so on.
func forEachReceiver(t *testing.T, n int, test func(t *testing.T, co *loop.Coro, s *Socket, receive func(co *loop.Coro, s *Socket) ([]byte, error))) {
	for name, receive := range waysToReceive {
		t.Run(name, func(t *testing.T) {
			forEachBackend(t, func(t *testing.T, l *loop.Loop) {
				from, s := pair(t, unix.SOCK_DGRAM)
				run(t, l, func(co *loop.Coro) error {
					for i := range n + 1 {
						if err := unix.Send(from.Fd(), []byte{"-abcdefghijklmnopqrstuvwxyz"[i]}, 0); err != nil {
							return err
						}
					}
					if p, err := receive(co, s); string(p) != "-" || err != nil {
						t.Fatalf("received %q, %v", p, err)
					}
					test(t, co, s, receive)
					return nil
				})
			})
		})
	}
}

func TestACancelledTaskDoesNotReceiveAtOnceEither(t *testing.T) {
	forEachReceiver(t, 1, func(t *testing.T, co *loop.Coro, s *Socket, receive func(*loop.Coro, *Socket) ([]byte, error)) {
		task := co.Loop().Go(func(co *loop.Coro) error {
			co.Task().Cancel("before")
			var ce *loop.CancelledError
			if p, err := receive(co, s); !errors.As(err, &ce) || len(p) > 0 {
				t.Errorf("received %q, %v", p, err)
			}
			return nil
		})
		if _, err := task.Await(co); err != nil {
			t.Error(err)
		}
		if p, err := receive(co, s); string(p) != "a" || err != nil {
			t.Errorf("received %q, %v", p, err)
		}
	})
}

func TestTheCoroOfAnotherTaskDoesNotReceiveAtOnceEither(t *testing.T) {
	forEachReceiver(t, 1, func(t *testing.T, co *loop.Coro, s *Socket, receive func(*loop.Coro, *Socket) ([]byte, error)) {
		task := co.Loop().Go(func(*loop.Coro) error {
			_, err := receive(co, s)
			return err
		})
		if _, err := task.Await(co); !errors.Is(err, loop.ErrNotCurrent) {
			t.Errorf("the receive = %v", err)
		}
	})
}

func TestATaskThatReceivesWithoutEndLetsOthersRun(t *testing.T) {
	const packets = maxTries + 5
	forEachReceiver(t, packets, func(t *testing.T, co *loop.Coro, s *Socket, receive func(*loop.Coro, *Socket) ([]byte, error)) {
		ranAfter := -1
		received := ""
		if _, err := co.Loop().CallSoon(func() { ranAfter = len(received) }); err != nil {
			t.Fatal(err)
		}
		for len(received) < packets {
			p, err := receive(co, s)
			if err != nil {
				t.Fatal(err)
			}
			received += string(p)
		}
		if want := "abcdefghijklmnopqrstuvwxyz"[:packets]; received != want {
			t.Errorf("received %q, want %q", received, want)
		}
		if ranAfter < 0 || ranAfter > maxTries {
			t.Errorf("something else ran after %d receives", ranAfter)
		}
	})
}

// The kernel tells once that nobody was there for what was sent.
func TestAnErrorThatAReceiveFindsAtOnceIsReturned(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		run(t, l, func(co *loop.Coro) error {
			gone, addr := packet(t, "udp", "127.0.0.1:0")
			s, _ := packet(t, "udp", "127.0.0.1:0")
			if _, err := SendTo(co, s, []byte("x"), addr); err != nil { // so that the socket knows its loop
				return err
			}
			if err := Connect(co, s, addr); err != nil {
				return err
			}
			if err := gone.Close(); err != nil {
				return err
			}
			if err := unix.Send(s.Fd(), []byte("x"), 0); err != nil {
				return err
			}
			if p, err := Recv(co, s, 10); !errors.Is(err, syscall.ECONNREFUSED) || len(p) > 0 {
				t.Errorf("received %q, %v", p, err)
			}
			return nil
		})
	})
}
