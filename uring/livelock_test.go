package uring

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
)

// The kernel tries a write to a blocking socket again and again while the peer has
// ended its output and does not read. It does not find an operation that it has in
// its hands, so that the cancellation is repeated; more of them than the queue holds
// are under way.
func TestWaitReturnsWhileManyCancelsAreRepeated(t *testing.T) {
	b := open(t, nil)
	var ops []*probeOp
	for range 300 {
		fd, peer := pair(t)
		if err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, 16<<10); err != nil {
			t.Fatal(err)
		}
		if err := unix.SetNonblock(int(fd), false); err != nil {
			t.Fatal(err)
		}
		ops = append(ops,
			newOp(backend.Op{Code: backend.OpWrite, FD: fd, Buf: make([]byte, 100<<10), Off: -1}),
			newOp(backend.Op{Code: backend.OpWrite, FD: fd, Buf: make([]byte, 100<<10), Off: -1}))
		if err := unix.Shutdown(int(peer), unix.SHUT_WR); err != nil {
			t.Fatal(err)
		}
	}
	submit(t, b, ops...)
	turn := func() {
		if err := b.Wait(0); err != nil {
			t.Fatal(err)
		}
		b.Dispatch()
	}
	turn()
	stuck := time.AfterFunc(time.Minute, func() { panic("Wait(0) does not return") })
	defer stuck.Stop()
	for _, op := range ops {
		b.Cancel(&op.Op)
	}
	turn()
	run(t, b, func() bool { return b.InFlight() == 0 })
}
