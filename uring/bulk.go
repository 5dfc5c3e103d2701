package uring

import (
	"syscall"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/internal/nowait"
)

// A connection on which much arrives is better off without provided buffers:
// every one that it fills is memory that was cold, and a call of the receiver.
// Such a connection receives in bulk: it waits until it is readable, and then
// receives with recv(2) into one large buffer, which stays in the processor's
// cache because all connections use it in turn. One that finds all provided
// buffers taken receives so once, so that nobody has to wait for those.

const (
	// bulkTurn is how many bytes a multishot receives in bulk, about, before
	// others have their turn.
	bulkTurn = 256 << 10
	// bulkAfter is how many provided buffers in a row have to be filled before
	// a connection receives in bulk.
	bulkAfter = 2
	// bulkUntil is how many receives in a row have to bring less than a provided
	// buffer holds before it uses those again.
	bulkUntil = 16
)

// bulk reports whether op receives by recv(2) instead of into provided buffers.
func (b *Backend) bulk(op *backend.Op) bool {
	return op.Code == backend.OpRecv && op.Buf == nil && (b.bufs == nil || op.State.Mark&markBulk != 0)
}

// learn notes how much a recv without a buffer of its own has brought. A
// multishot that shall go on in bulk is cancelled; it goes on when it has ended.
func (b *Backend) learn(idx uint32, n int) {
	if b.bufs == nil {
		return
	}
	op := b.slots.at(idx).op
	st := &op.State
	full := n >= b.bufs.size
	if full == (st.Mark&markBulk != 0) {
		st.Mark &= markHabit - 1
		return
	}
	st.Mark += markHabit
	switch count := st.Mark / markHabit; {
	case full && count == bulkAfter:
		st.Mark = st.Mark&(markHabit-1) | markBulk
		if op.Flags&backend.Multishot != 0 && b.slots.at(idx).stage == stageOp {
			st.Mark |= markLeaving
			b.prepCancel(idx)
		}
	case !full && count == bulkUntil:
		st.Mark &= markQueued | markLeaving
	}
}

// startBulk waits until the descriptor of a recv is readable, unless it cannot be
// received from: a poll would not tell, for a listener is readable when somebody
// connects.
func (b *Backend) startBulk(idx uint32) {
	if errno := takeError(b.slots.at(idx).op.FD); errno != 0 {
		b.later(idx, -int32(errno))
		return
	}
	b.prepReady(idx)
}

// recvBulk receives with recv(2) for an operation whose descriptor is readable.
func (b *Backend) recvBulk(idx uint32) {
	b.bulks++
	s := b.slots.at(idx)
	data, errno := b.recvOwn(s.op.FD)
	n := len(data)
	switch {
	case errno == syscall.EAGAIN && s.shut:
		b.shut(idx)
	case errno == syscall.EAGAIN:
		b.rearm(idx)
	case errno != 0:
		b.finish(idx, failure(errno))
	case s.op.Flags&backend.Multishot != 0 && n > 0:
		b.learn(idx, n)
		b.rearm(idx)
		if b.bulk(s.op) {
			b.drain(idx, data)
		} else { // what the kernel receives from now on comes behind this
			b.received(s.op, data)
		}
	default:
		b.learn(idx, n)
		b.finish(idx, backend.Result{Data: data, N: n})
	}
}

// recvOwn receives what there is into the backend's own buffer.
func (b *Backend) recvOwn(fd int32) ([]byte, syscall.Errno) {
	buf := b.own.Bytes()
	n, errno := nowait.Recv(fd, buf)
	if errno != 0 {
		return nil, errno
	}
	return buf[:n:n], 0
}

// drain delivers what a multishot recv has brought, and what comes next, for as
// long as that fills the buffer: whoever sends so much is still sending, and to
// wait for each piece would cost more than to take it. A receiver that keeps the
// buffer is busy with it. Meanwhile the kernel only polls, so that nothing can
// overtake, and the end is left to that poll.
func (b *Backend) drain(idx uint32, data []byte) {
	s := b.slots.at(idx)
	op, gen := s.op, s.gen
	for got := len(data); ; got += len(data) {
		full, kept := len(data) == b.own.Size(), b.own.Kept()
		b.received(op, data)
		if !full || got >= bulkTurn || op.Enough || b.own.Kept() > kept || b.halted || s.gen != gen || s.cancelled {
			return
		}
		var errno syscall.Errno
		if data, errno = b.recvOwn(op.FD); len(data) == 0 {
			b.drained(idx, errno)
			return
		}
	}
}

// drained acts on what has ended a drain. The kernel tells an error only once, so
// that it is kept as what the poll has found.
func (b *Backend) drained(idx uint32, errno syscall.Errno) {
	if errno == 0 || errno == syscall.EAGAIN {
		return
	}
	s := b.slots.at(idx)
	s.stage, s.op.State.Res = stageFound, -int32(errno)
	b.prepCancel(idx)
}

// newestFirst reverses the order in which the connections that receive in bulk
// have their turn, if there are several. All have it in the same Dispatch. What
// arrived last is still in the processor's cache, and so much arrives that the
// rest is not: in the order of arrival everything would be pushed out by the time
// its turn comes. Each of them has one completion, that of its poll.
func (b *Backend) newestFirst() {
	several := b.bulks > 1
	b.bulks = 0
	if !several {
		return
	}
	for i, j := b.ring.head, b.cqEnd-1; int32(j-i) > 0; {
		switch {
		case !b.bulkPolled(i):
			i++
		case !b.bulkPolled(j):
			j--
		default:
			p, q := b.ring.at(i), b.ring.at(j)
			*p, *q = *q, *p
			i++
			j--
		}
	}
}

// bulkPolled reports whether the completion at position i of the queue tells that
// a connection in bulk is readable.
func (b *Backend) bulkPolled(i uint32) bool {
	ud := b.ring.at(i).UserData()
	idx := b.slots.find(ud)
	if ud>>56 != kindOp || idx == 0 {
		return false
	}
	s := b.slots.at(idx)
	return s.stage == stagePoll && s.op.State.Mark&markBulk != 0
}
