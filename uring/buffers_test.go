package uring

import (
	"runtime"
	"testing"
	"weak"

	"golang.org/x/sys/unix"

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
	r, _ := pair(t, unix.SOCK_STREAM)
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
