package uring

import (
	"syscall"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/internal/nowait"
)

// recvPacket receives for an operation with AtDelivery whose descriptor is ready.
func (b *Backend) recvPacket(idx uint32) {
	s := b.slots.at(idx)
	n, errno := nowait.Receive(s.op)
	switch {
	case errno == 0:
		b.finish(idx, backend.Result{N: n})
	case errno == syscall.EAGAIN && s.shut:
		b.shut(idx)
	case errno == syscall.EAGAIN: // somebody else has taken it
		b.rearm(idx)
	default:
		b.finish(idx, failure(errno))
	}
}

// tryPacket receives a packet that is there already; any error but that there is
// none is the outcome, for the kernel tells it only once.
func tryPacket(op *backend.Op) (backend.Result, bool) {
	n, errno := nowait.Receive(op)
	if errno == syscall.EAGAIN {
		return backend.Result{}, false
	}
	if errno != 0 {
		return failure(errno), true
	}
	return backend.Result{N: n}, true
}
