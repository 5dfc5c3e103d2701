package uring

import (
	"syscall"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/internal/callcost"
	"github.com/seed-80cfe818/ringloop/internal/nowait"
)

// A send as a system call of its own is paid for with the system call. In return
// it takes the data where it lies in the processor's cache, without a copy and
// without the way through both queues. From which size on that is cheaper depends
// on the price of a system call: dearDirect is the size in bytes where system
// calls are dear, cheapDirect where they are cheap.
const dearDirect, cheapDirect = 16 << 10, 2 << 10

// directSend is the size in bytes from which on sends are made at once.
func directSend() int {
	if callcost.Dear() {
		return dearDirect
	}
	return cheapDirect
}

// trySend sends what the socket takes at once; where it would wait, the ring does.
// Any other error is the outcome, for the kernel tells it only once.
func trySend(op *backend.Op) (backend.Result, bool) {
	n, errno := nowait.Send(op.FD, op.Buf)
	switch errno {
	case 0:
		return backend.Result{N: n}, true
	case syscall.EAGAIN:
		return backend.Result{}, false
	}
	return failure(errno), true
}
