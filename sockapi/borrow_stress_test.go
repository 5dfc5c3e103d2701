package sockapi

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/loop"
)

// TestRandomCallsOfManySocketsAreExact lets many connections carry a stream each
// at the same time. Calls of every kind receive them; some are cancelled, and
// what was borrowed is looked at again after others have received.
func TestRandomCallsOfManySocketsAreExact(t *testing.T) {
	forEachConfiguration(t, func(t *testing.T, l *loop.Loop) {
		for seed := range uint64(3) {
			run(t, l, func(co *loop.Coro) error {
				var tasks []*loop.Task[struct{}]
				for i := range uint64(10) {
					a, b := pair(t, unix.SOCK_STREAM)
					if i%2 == 0 {
						a, b = tcpPair(t, co)
					}
					rnd := rand.New(rand.NewPCG(seed, i))
					sent := randomBytes(100<<10 + int(i))
					tasks = append(tasks,
						spawn(co, func(co *loop.Coro) (struct{}, error) { return struct{}{}, sendTides(co, b, sent, rnd) }),
						spawn(co, func(co *loop.Coro) (struct{}, error) {
							if err := receiveTides(co, a, sent, rnd); err != nil {
								return struct{}{}, fmt.Errorf("seed %d, connection %d: %w", seed, i, err)
							}
							return struct{}{}, CloseWait(co, a)
						}))
				}
				for _, task := range tasks {
					if _, err := task.Await(co); err != nil {
						return err
					}
				}
				return nil
			})
		}
	})
}

// sendTides sends data in pieces of very different sizes, and closes.
func sendTides(co *loop.Coro, s *Socket, data []byte, rnd *rand.Rand) error {
	for len(data) > 0 {
		n := min(1+rnd.IntN(1<<(4+rnd.IntN(13))), len(data))
		if err := SendAll(co, s, data[:n]); err != nil {
			return err
		}
		data = data[n:]
		for range rnd.IntN(4) {
			if err := loop.Sleep(co, 0); err != nil {
				return err
			}
		}
	}
	return CloseWait(co, s)
}

// receiveTides receives what sendTides sends by calls in tasks of their own, of
// which it cancels some, up to the end of the stream.
func receiveTides(co *loop.Coro, s *Socket, want []byte, rnd *rand.Rand) error {
	r := &tideReceiver{s: s, want: want, rnd: rnd}
	for {
		calls := make([]*loop.Task[struct{}], 1+rnd.IntN(2))
		for i := range calls {
			calls[i] = spawn(co, func(co *loop.Coro) (struct{}, error) { return struct{}{}, r.once(co) })
		}
		for _, call := range calls {
			for range rnd.IntN(4) {
				if err := loop.Sleep(co, 0); err != nil {
					return err
				}
			}
			if rnd.IntN(3) == 0 {
				call.Cancel("")
			}
		}
		end := false
		for _, call := range calls {
			_, err := call.Await(co)
			switch {
			case err == io.EOF:
				end = true
			case errors.Is(err, loop.ErrCancelled), errors.Is(err, os.ErrDeadlineExceeded):
			case err != nil:
				return err
			}
		}
		if end && len(r.want) > 0 {
			return fmt.Errorf("the stream has ended %d bytes too early", len(r.want))
		}
		if end {
			return nil
		}
	}
}

// tideReceiver checks what comes on a socket.
type tideReceiver struct {
	s    *Socket
	want []byte // what is still to come
	rnd  *rand.Rand
	// borrowed counts the loans, of which there is one at a time.
	borrowed int
}

// once receives once, or settles the socket.
func (r *tideReceiver) once(co *loop.Coro) error {
	size := 1 + r.rnd.IntN(6000)
	p := make([]byte, size)
	switch r.rnd.IntN(10) {
	case 0:
		return Settle(co, r.s)
	case 1:
		data, err := Recv(co, r.s, size)
		return r.check(data, err)
	case 2:
		data, _, err := RecvFrom(co, r.s, size)
		return r.check(data, err)
	case 3:
		n, err := RecvInto(co, r.s, p)
		return r.check(p[:n], err)
	case 4:
		c := NewConn(co, r.s)
		_ = c.SetReadDeadline(time.Now().Add(time.Duration(r.rnd.IntN(1000)) * time.Microsecond))
		n, err := c.Read(p)
		_ = c.SetReadDeadline(time.Time{})
		return r.check(p[:n], err)
	}
	return r.borrow(co)
}

// borrow receives, and holds what it got while others receive.
func (r *tideReceiver) borrow(co *loop.Coro) error {
	data, err := RecvBorrowed(co, r.s)
	r.borrowed++
	was, came := r.borrowed, r.want
	if err := r.check(data, err); err != nil {
		return err
	}
	for range r.rnd.IntN(4) {
		if err := loop.Sleep(co, 0); err != nil {
			return err
		}
		if r.borrowed != was || r.s.in.holder != nil {
			return nil // somebody else has it now
		}
		if !bytes.HasPrefix(came, data) {
			return fmt.Errorf("%d bytes have changed while they were lent", len(data))
		}
	}
	return nil
}

// check takes data, which follows what came before.
func (r *tideReceiver) check(data []byte, err error) error {
	if !bytes.HasPrefix(r.want, data) {
		return fmt.Errorf("%d wrong bytes, %d before the end", len(data), len(r.want))
	}
	r.want = r.want[len(data):]
	return err
}
