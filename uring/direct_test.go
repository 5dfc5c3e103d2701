package uring

import (
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
)

func TestASendAtOnceTellsTheErrorOfTheConnection(t *testing.T) {
	b := open(t, nil)
	r, w := tcpPair(t)
	reset(t, w)
	p := []unix.PollFd{{Fd: r, Events: unix.POLLIN}}
	for n, err := 0, error(unix.EINTR); n != 1; {
		if err != unix.EINTR {
			t.Fatal(n, err)
		}
		n, err = unix.Poll(p, -1)
	}
	op := newOp(backend.Op{Code: backend.OpSend, FD: r, Buf: make([]byte, dearDirect)})
	if res, ok := b.Try(&op.Op); !ok || res.Errno != syscall.ECONNRESET {
		t.Errorf("Try: %+v, %v; want ECONNRESET", res, ok)
	}
}
