package sockapi

import (
	"errors"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/loop"
)

// The kernel tells only once why a connection broke. It must not tell that to an
// operation which has sent a part and so does not fail.
func TestAResetDuringASendThatHasSentAPartIsReported(t *testing.T) {
	p := make([]byte, 4<<20)
	for name, send := range map[string]func(co *loop.Coro, s *Socket) error{
		"SendAll":  func(co *loop.Coro, s *Socket) error { return SendAll(co, s, p) },
		"SendAllV": func(co *loop.Coro, s *Socket) error { return SendAllV(co, s, [][]byte{p[:1000], p[1000:]}) },
	} {
		for _, receives := range []bool{false, true} {
			forEachBackend(t, func(t *testing.T, l *loop.Loop) {
				run(t, l, func(co *loop.Coro) error {
					a, b, err := narrowPair(t, co)
					if err != nil {
						return err
					}
					sending := spawn(co, func(co *loop.Coro) (int, error) { return 0, send(co, a) })
					receiving := spawn(co, func(co *loop.Coro) (int, error) {
						if !receives {
							return 0, nil
						}
						return RecvInto(co, a, make([]byte, 1))
					})
					buf := make([]byte, 64<<10)
					for n := 0; n < len(p)/4; {
						m, err := RecvInto(co, b, buf)
						if err != nil {
							return err
						}
						n += m
					}
					if err := b.SetLinger(0); err != nil {
						return err
					}
					if err := CloseWait(co, b); err != nil {
						return err
					}
					_, sendErr := sending.Await(co)
					_, recvErr := receiving.Await(co)
					if !errors.Is(sendErr, ErrConnection) {
						t.Errorf("%s ends with %v", name, sendErr)
					}
					if !errors.Is(sendErr, syscall.ECONNRESET) && !errors.Is(recvErr, syscall.ECONNRESET) {
						t.Errorf("%s ends with %v and the receive with %v: nobody hears of the reset", name, sendErr, recvErr)
					}
					return nil
				})
			})
		}
	}
}

// narrowPair returns a TCP connection that holds little of what is sent from a to b.
func narrowPair(t *testing.T, co *loop.Coro) (a, b *Socket, err error) {
	const size = 256 << 10
	ln, addr := listen(t, "tcp", "127.0.0.1:0")
	a = open(t, unix.AF_INET, unix.SOCK_STREAM)
	if err := ln.SetOption(unix.SOL_SOCKET, unix.SO_RCVBUF, size); err != nil {
		return nil, nil, err
	}
	if err := a.SetOption(unix.SOL_SOCKET, unix.SO_SNDBUF, size); err != nil {
		return nil, nil, err
	}
	if err := Connect(co, a, addr); err != nil {
		return nil, nil, err
	}
	b, _, err = Accept(co, ln)
	if err == nil {
		closeAtEnd(t, b)
	}
	return a, b, err
}
