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

// senders are the ways to send one byte, each to a socket of its own type.
var senders = map[string]struct {
	typ  int
	send func(co *loop.Coro, s *Socket) error
}{
	"SendAll":  {unix.SOCK_STREAM, func(co *loop.Coro, s *Socket) error { return SendAll(co, s, []byte("x")) }},
	"SendAllV": {unix.SOCK_STREAM, func(co *loop.Coro, s *Socket) error { return SendAllV(co, s, [][]byte{{}, []byte("x")}) }},
	"SendTo": {unix.SOCK_DGRAM, func(co *loop.Coro, s *Socket) error {
		_, err := SendTo(co, s, []byte("x"), Addr{})
		return err
	}},
}

// forEachSender runs a test with a socket that has sent already, and whose peer
// has received that.
func forEachSender(t *testing.T, test func(t *testing.T, co *loop.Coro, a, b *Socket, send func(co *loop.Coro, s *Socket) error)) {
	for name, c := range senders {
		t.Run(name, func(t *testing.T) {
			forEachBackend(t, func(t *testing.T, l *loop.Loop) {
				a, b := pair(t, c.typ)
				run(t, l, func(co *loop.Coro) error {
					if err := c.send(co, a); err != nil {
						return err
					}
					if _, err := Recv(co, b, 10); err != nil {
						return err
					}
					test(t, co, a, b, c.send)
					return nil
				})
			})
		})
	}
}

// wantNothing expects that the peer has sent nothing.
func wantNothing(t *testing.T, s *Socket) {
	t.Helper()
	var p [10]byte
	if n, _, err := unix.Recvfrom(s.Fd(), p[:], unix.MSG_DONTWAIT); !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("received %d bytes, %v", n, err)
	}
}

func TestACancelledTaskDoesNotSendAtOnceEither(t *testing.T) {
	forEachSender(t, func(t *testing.T, co *loop.Coro, a, b *Socket, send func(co *loop.Coro, s *Socket) error) {
		task := co.Loop().Go(func(co *loop.Coro) error {
			co.Task().Cancel("before")
			var ce *loop.CancelledError
			if err := send(co, a); !errors.As(err, &ce) || ce.Msg != "before" {
				t.Errorf("the first send = %v", err)
			}
			wantNothing(t, b)
			return send(co, a) // the task knows of its cancellation now
		})
		if _, err := task.Await(co); err != nil {
			t.Error(err)
		}
		if p, err := Recv(co, b, 10); string(p) != "x" || err != nil {
			t.Errorf("received %q, %v", p, err)
		}
	})
}

func TestTheCoroOfAnotherTaskDoesNotSendAtOnceEither(t *testing.T) {
	forEachSender(t, func(t *testing.T, co *loop.Coro, a, b *Socket, send func(co *loop.Coro, s *Socket) error) {
		task := co.Loop().Go(func(*loop.Coro) error { return send(co, a) })
		if _, err := task.Await(co); !errors.Is(err, loop.ErrNotCurrent) {
			t.Errorf("the send = %v", err)
		}
		wantNothing(t, b)
	})
}

func TestATaskThatSendsWithoutEndLetsOthersRun(t *testing.T) {
	forEachSender(t, func(t *testing.T, co *loop.Coro, a, b *Socket, send func(co *loop.Coro, s *Socket) error) {
		sends, ran := 0, false
		_, err := co.Loop().CallSoon(func() { ran = true })
		if err != nil {
			t.Fatal(err)
		}
		receiving := co.Loop().Go(func(co *loop.Coro) error {
			for got := 0; got < 100; {
				p, err := Recv(co, b, 10)
				if err != nil {
					return err
				}
				got += len(p)
			}
			return nil
		})
		for ; sends < 100; sends++ {
			if err := send(co, a); err != nil {
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

func TestALargeListOfSlicesIsSentEntirely(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, b := pair(t, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			sum := sha256.New()
			sending := spawn(co, func(co *loop.Coro) (struct{}, error) {
				for range 3 {
					bufs := make([][]byte, fewBufs)
					for i := range bufs {
						bufs[i] = bytes.Repeat([]byte{byte(i), 1, 2}, 100_000+i)
						sum.Write(bufs[i])
					}
					if err := SendAllV(co, a, bufs); err != nil {
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

func TestWhatDoesNotFitAtOnceIsSentLater(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, b := pair(t, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			const size = 8 << 20
			sending := spawn(co, func(co *loop.Coro) (struct{}, error) {
				for _, n := range []int{1, size - 1} {
					p := make([]byte, n)
					for i := range p {
						p[i] = byte(i + n)
					}
					if err := SendAll(co, a, p); err != nil {
						return struct{}{}, err
					}
				}
				return struct{}{}, a.Shutdown(unix.SHUT_WR)
			})
			got, err := io.ReadAll(NewConn(co, b))
			if _, serr := sending.Await(co); err != nil || serr != nil {
				t.Errorf("receive: %v, send: %v", err, serr)
			}
			if len(got) != size {
				t.Fatalf("%d bytes", len(got))
			}
			for i, c := range got[1:] {
				if c != byte(i+size-1) {
					t.Fatalf("byte %d is %d", i+1, c)
				}
			}
			return nil
		})
	})
}
