package uring

import (
	"slices"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
)

// fdEntry is what the backend knows of one descriptor.
type fdEntry struct {
	in, out queue
	all     uint32 // the first slot of those in flight on the descriptor
	closing uint32 // the slot of its OpClose
}

// queue holds the operations of one direction, linked by State.Next and Prev.
// The first is with the kernel.
type queue struct{ head, tail *backend.Op }

func (q *queue) push(op *backend.Op) {
	op.State.Prev, op.State.Next = q.tail, nil
	if q.tail == nil {
		q.head = op
	} else {
		q.tail.State.Next = op
	}
	q.tail = op
}

func (q *queue) remove(op *backend.Op) {
	prev, next := op.State.Prev, op.State.Next
	if prev == nil {
		q.head = next
	} else {
		prev.State.Next = next
	}
	if next == nil {
		q.tail = prev
	} else {
		next.State.Prev = prev
	}
	op.State.Prev, op.State.Next = nil, nil
}

// queueOf returns the queue that op waits in, nil if it waits for nobody.
func (e *fdEntry) queueOf(op *backend.Op) *queue {
	switch {
	case op.Input():
		return &e.in
	case op.Output():
		return &e.out
	}
	return nil
}

// Entries live in pages, so that high numbers cost no more than low ones.
const (
	pageShift = 6
	pageSize  = 1 << pageShift
)

type fdPage [pageSize]fdEntry

// fdTable is what the backend knows of descriptors, by their numbers.
type fdTable struct{ pages []*fdPage }

// at returns the entry of a descriptor that find has returned before.
func (t *fdTable) at(n int32) *fdEntry { return &t.pages[n>>pageShift][n&(pageSize-1)] }

// find returns the entry of a descriptor, nil if it is not open and nothing is
// known of its neighbours.
func (t *fdTable) find(n int32) *fdEntry {
	i := int(n >> pageShift)
	if i >= len(t.pages) || t.pages[i] == nil {
		if _, err := unix.FcntlInt(uintptr(n), unix.F_GETFD, 0); err != nil {
			return nil
		}
		if i >= len(t.pages) {
			t.pages = append(t.pages, make([]*fdPage, i+1-len(t.pages))...)
		}
		t.pages[i] = new(fdPage)
	}
	return t.at(n)
}

// link puts a slot into the list of its descriptor.
func (b *Backend) link(e *fdEntry, idx uint32) {
	s := b.slots.at(idx)
	s.onFD, s.prev, s.next = true, 0, e.all
	if e.all != 0 {
		b.slots.at(e.all).prev = idx
	}
	e.all = idx
}

// unlink takes a slot out of the lists of its descriptor and starts what
// waited behind it. When nothing is left, the descriptor can be closed.
func (b *Backend) unlink(idx uint32) {
	s := b.slots.at(idx)
	if !s.onFD {
		return
	}
	s.onFD = false
	op := s.op
	e := b.fds.at(op.FD)
	if s.prev == 0 {
		e.all = s.next
	} else {
		b.slots.at(s.prev).next = s.next
	}
	if s.next != 0 {
		b.slots.at(s.next).prev = s.prev
	}
	if e.all == 0 && e.closing != 0 {
		b.closable = append(b.closable, e.closing)
	}
	b.dequeue(e, op)
}

// dequeue takes op out of its queue and starts the next one if it was first.
func (b *Backend) dequeue(e *fdEntry, op *backend.Op) {
	q := e.queueOf(op)
	if q == nil || op.State.Mark&markQueued == 0 {
		return
	}
	op.State.Mark &^= markQueued
	first := q.head == op
	q.remove(op)
	if first && q.head != nil {
		b.start(q.head.State.Slot)
	}
}

// startCloses closes the descriptors whose last operation was delivered.
func (b *Backend) startCloses() {
	for _, idx := range b.closable {
		b.prep(idx)
	}
	b.closing = append(b.closing, b.closable...)
	b.closable = b.closable[:0]
}

// forgetCloses makes the numbers of descriptors usable again as soon as the
// kernel has taken the closes: from then on a new file may have them, even
// before the completion of the close has been seen.
func (b *Backend) forgetCloses() {
	if len(b.closing) == 0 || b.ring.pending() != 0 || len(b.ring.stash) != 0 {
		return
	}
	for _, idx := range b.closing {
		b.fds.at(b.slots.at(idx).op.FD).closing = 0
	}
	b.closing = b.closing[:0]
}

// closed forgets a close that has completed before the kernel had taken all that
// was submitted with it.
func (b *Backend) closed(idx uint32) {
	if i := slices.Index(b.closing, idx); i >= 0 {
		b.closing = slices.Delete(b.closing, i, i+1)
		b.fds.at(b.slots.at(idx).op.FD).closing = 0
	}
}
