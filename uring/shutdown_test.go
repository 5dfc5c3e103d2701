package uring

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
)

// A shutdown is performed by another thread of the kernel, which may post its
// completion before that of a send which had found the socket full.
func TestASendThatWasOvertakenByAShutdownEnds(t *testing.T) {
	for _, flags := range []backend.Flags{0, backend.WaitAll} {
		b := open(t, nil)
		a, _ := pair(t)
		if flags == 0 { // a WaitAll send fills it by itself
			for err := error(nil); err == nil; {
				_, err = unix.Write(int(a), make([]byte, 1000))
			}
		}
		send := newOp(backend.Op{Code: backend.OpSend, FD: a, Buf: make([]byte, 1<<20), Flags: flags})
		submit(t, b, send)
		if err := b.Wait(0); err != nil {
			t.Fatal(err)
		}
		shutdown := newOp(backend.Op{Code: backend.OpShutdown, FD: a, Arg: unix.SHUT_WR})
		idx := b.slots.take(&shutdown.Op)
		shutdown.State.Phase = backend.Armed
		if err := unix.Shutdown(int(a), unix.SHUT_WR); err != nil {
			t.Fatal(err)
		}
		b.complete(completion(b.slots.userData(kindOp, idx), 0))
		run(t, b, send.ended)
		if got := send.last(); got.Errno != unix.EPIPE {
			t.Errorf("got %+v, want EPIPE", got)
		}
	}
}
