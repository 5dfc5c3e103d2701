package uring

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
)

func TestAConnectionReceivesInBulkWhileItFillsBuffers(t *testing.T) {
	const size = 256
	for _, flags := range []backend.Flags{backend.Multishot, 0} {
		b := open(t, &Options{BufferSize: size})
		r, w := pair(t, unix.SOCK_STREAM)
		op := newOp(backend.Op{Code: backend.OpRecv, FD: r, Flags: flags})
		var want []byte
		feed := func(n int) {
			p := bytes.Repeat([]byte{byte(len(want))}, n)
			want = append(want, p...)
			write(t, w, p)
			for len(op.data) < len(want) {
				before := len(op.data)
				if !op.InFlight() {
					submit(t, b, op)
				}
				run(t, b, func() bool { return len(op.data) > before })
			}
		}
		feed(size - 1)
		if b.bulk(&op.Op) {
			t.Fatal("a small message made it receive in bulk")
		}
		feed(8 * size)
		feed(8 * size)
		if !b.bulk(&op.Op) {
			t.Fatal("it does not receive in bulk")
		}
		feed(8 * size)
		if n := op.last().N; n != 8*size {
			t.Errorf("%d bytes came at once, want all %d", n, 8*size)
		}
		for range bulkUntil {
			feed(size - 1)
		}
		if b.bulk(&op.Op) {
			t.Fatal("small messages are still received in bulk")
		}
		if !bytes.Equal(op.data, want) {
			t.Fatal("wrong bytes")
		}
	}
}

func TestAReceiveThatFindsNoBufferIsNotPutOff(t *testing.T) {
	b := open(t, &Options{Buffers: 1, BufferSize: 64})
	ops := make([]*probeOp, 20)
	for i := range ops {
		r, w := pair(t, unix.SOCK_STREAM)
		write(t, w, bytes.Repeat([]byte{byte(i)}, 1+i))
		ops[i] = newOp(backend.Op{Code: backend.OpRecv, FD: r, Flags: backend.Flags(i % 2)})
	}
	submit(t, b, ops...)
	if err := b.Wait(-1); err != nil {
		t.Fatal(err)
	}
	b.Dispatch()
	for i, op := range ops {
		if !bytes.Equal(op.data, bytes.Repeat([]byte{byte(i)}, 1+i)) {
			t.Errorf("receive %d got %v in the first turn", i, op.data)
		}
	}
}
