package uring

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
)

func TestNopCompletesOnce(t *testing.T) {
	b := open(t, nil)
	op := newOp(backend.Op{})
	submit(t, b, op)
	run(t, b, op.ended)
	if len(op.got) != 1 || op.got[0].Errno != 0 || b.InFlight() != 0 {
		t.Fatalf("got %+v, %d in flight", op.got, b.InFlight())
	}
}

func TestMultishotRecvDeliversUntilEndOfStream(t *testing.T) {
	for _, off := range [][]string{nil, {MultishotRecv}, {ProvidedBuffers}} {
		b := open(t, &Options{Disable: off})
		r, w := pair(t, unix.SOCK_STREAM)
		op := newOp(backend.Op{Code: backend.OpRecv, FD: r, Flags: backend.Multishot})
		submit(t, b, op)
		var want []byte
		for i := range 100 {
			p := bytes.Repeat([]byte{byte(i)}, 1+i*7)
			want = append(want, p...)
			write(t, w, p)
			run(t, b, func() bool { return len(op.data) == len(want) })
		}
		unix.Shutdown(int(w), unix.SHUT_WR)
		run(t, b, op.ended)
		if !bytes.Equal(op.data, want) || op.last().N != 0 || op.last().Errno != 0 {
			t.Fatalf("without %v: wrong data or end %+v", off, op.last())
		}
	}
}
