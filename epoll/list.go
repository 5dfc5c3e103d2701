package epoll

import (
	"syscall"

	"github.com/seed-80cfe818/ringloop/backend"
)

// The lists of an entry are rings: head.Prev is the tail, so that one pointer
// per list is enough.

func push(head **backend.Op, op *backend.Op) {
	h := *head
	if h == nil {
		op.State.Next, op.State.Prev = op, op
		*head = op
		return
	}
	t := h.State.Prev
	op.State.Next, op.State.Prev = h, t
	t.State.Next, h.State.Prev = op, op
}

func unlink(head **backend.Op, op *backend.Op) {
	next, prev := op.State.Next, op.State.Prev
	if next == op {
		*head = nil
	} else {
		prev.State.Next, next.State.Prev = next, prev
		if *head == op {
			*head = next
		}
	}
	op.State.Next, op.State.Prev = nil, nil
}

// queue is a list of completed operations, first in, first out.
type queue struct {
	head, tail *backend.Op
}

func (q *queue) push(op *backend.Op) {
	op.State.Next = nil
	if q.head == nil {
		q.head = op
	} else {
		q.tail.State.Next = op
	}
	q.tail = op
}

func (q *queue) pop() *backend.Op {
	op := q.head
	q.head = op.State.Next
	op.State.Next = nil
	return op
}

// append moves all of other to the end of q.
func (q *queue) append(other *queue) {
	switch {
	case other.head == nil:
		return
	case q.head == nil:
		*q = *other
	default:
		q.tail.State.Next = other.head
		q.tail = other.tail
	}
	*other = queue{}
}

// The outcome of a completed operation and the progress of a waiting one are
// kept in State.Slot and State.Res together: 31 bits in Res, the rest in Slot.
// A negative Res is an error number.

func keep(op *backend.Op, n int, errno syscall.Errno) {
	if errno != 0 {
		op.State.Res = -int32(errno)
		return
	}
	op.State.Res, op.State.Slot = int32(n&0x7fffffff), uint32(n>>31)
}

func progress(op *backend.Op) int { return int(op.State.Slot)<<31 | int(op.State.Res) }

// finish records the outcome of op for the next Dispatch.
func (b *Backend) finish(op *backend.Op, n int, errno syscall.Errno) {
	keep(op, n, errno)
	op.State.Phase = backend.Done
	b.done.push(op)
}

// deliverDone delivers the first of the batch. Everything is in order before
// the Receiver is called, because it may panic.
func (b *Backend) deliverDone() {
	op := b.batch.pop()
	var r backend.Result
	if op.State.Res < 0 {
		r.Errno = syscall.Errno(-op.State.Res)
	} else {
		r.N = progress(op)
	}
	if op.Code == backend.OpClose && r.Errno == 0 && op.State.Mark != alreadyClosed {
		r.Errno = b.closeFD(op.FD)
	}
	b.deliverLast(op, r)
}

// deliverLast hands op back to its submitter with a terminal completion.
func (b *Backend) deliverLast(op *backend.Op, r backend.Result) {
	op.State.Phase = backend.Idle
	b.inFlight--
	op.Receiver.Complete(op, r)
}
