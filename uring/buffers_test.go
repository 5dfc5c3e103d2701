package uring

import (
	"bytes"
	"runtime"
	"testing"
	"weak"

	"github.com/seed-80cfe818/ringloop/backend"
)

func TestProvidedBuffersAreKeptFromTheCollectorUntilClose(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	bufs, release := dropped(t)
	runtime.GC()
	release()
	if s := bufs.Value(); s != nil {
		s.close()
	} else {
		t.Error("the memory is free although the kernel had it")
	}
	runtime.GC()
	if bufs.Value() != nil {
		t.Error("the memory is not free although it is closed")
	}
}

// dropped returns the buffers of a backend that still receives, and to which
// nobody refers, and what releases the rest of it.
func dropped(t *testing.T) (bufs weak.Pointer[buffers], release func()) {
	b, err := New(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Enable(); err != nil {
		t.Fatal(err)
	}
	r, _ := pair(t)
	submit(t, b, newOp(backend.Op{Code: backend.OpRecv, FD: r, Flags: backend.Multishot}))
	if err := b.Wait(0); err != nil {
		t.Fatal(err)
	}
	ring, waker := b.ring, b.waker
	return weak.Make(b.bufs), func() {
		waker.close()
		if err := ring.close(); err != nil {
			t.Error(err)
		}
	}
}

func TestLargeBuffersAreMadeWhenTheyAreNeeded(t *testing.T) {
	b := open(t, &Options{BufferSize: maxSlab})
	if n := len(b.bufs.mem); n != 1 {
		t.Errorf("%d buffers of %d bytes before anything is received", n, maxSlab)
	}
	var ops []*probeOp
	for i := range byte(3) {
		r, w := pair(t)
		write(t, w, []byte{i})
		ops = append(ops, newOp(backend.Op{Code: backend.OpRecv, FD: r}))
	}
	submit(t, b, ops...)
	for i, op := range ops {
		run(t, b, op.ended)
		if !bytes.Equal(op.data, []byte{byte(i)}) {
			t.Errorf("receive %d got %v", i, op.data)
		}
	}
	if n := len(b.bufs.mem); n < 2 || n > len(ops) {
		t.Errorf("%d buffers when %d were needed at once", n, len(ops))
	}
}
