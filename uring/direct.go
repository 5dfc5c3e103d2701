package uring

import (
	"sync"
	"syscall"
	"time"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/internal/nowait"
)

// A send as a system call of its own is paid for with the system call. In return
// it takes the data where it lies in the processor's cache, without a copy and
// without the way through both queues. From which size on that is cheaper depends
// on the price of a system call, which differs by a factor of five between
// machines, for what processors and kernels do against Spectre, and for seccomp
// filters. So it is measured.
const (
	// dearDirect is the size in bytes where system calls are dear, cheapDirect
	// where they are cheap.
	dearDirect, cheapDirect = 16 << 10, 2 << 10
	// cheapCall is how long a system call takes at most where it is cheap.
	cheapCall = 150 * time.Nanosecond
)

// directSend is the size in bytes from which on sends are made at once.
var directSend = sync.OnceValue(func() int { return directSize(callCost()) })

func directSize(cost time.Duration) int {
	if cost <= cheapCall {
		return cheapDirect
	}
	return dearDirect
}

// callCost is how long a system call takes: one that sends, to no socket. The
// quickest of several short series tells best, for others may use the processor.
func callCost() time.Duration {
	const series, calls = 16, 32
	least := time.Duration(1 << 62)
	for range series {
		start := time.Now()
		for range calls {
			nowait.Send(-1, nil)
		}
		least = min(least, time.Since(start))
	}
	return least / calls
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
