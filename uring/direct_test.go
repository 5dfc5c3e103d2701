package uring

import (
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
)

func TestSmallSendsAreMadeAtOnceWhereCallsAreCheap(t *testing.T) {
	for cost, want := range map[time.Duration]int{
		50 * time.Nanosecond:  cheapDirect,
		cheapCall:             cheapDirect,
		cheapCall + 1:         dearDirect,
		500 * time.Nanosecond: dearDirect,
	} {
		if got := directSize(cost); got != want {
			t.Errorf("directSize(%v) = %d, want %d", cost, got, want)
		}
	}
	if cost := callCost(); cost <= 0 {
		t.Errorf("a system call takes %v", cost)
	}
}

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
