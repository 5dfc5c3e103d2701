package uring

import (
	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/internal/nowait"
)

// A poll ends with the events that have woken it, though somebody else may have
// read the data since: the kernel looks only when the poll begins. Whoever is told
// then would block, or get EAGAIN. So what a Wait has found of polls is true when
// it returns, as it is with epoll.

// isPoll reports whether op is a poll that completes once.
func isPoll(op *backend.Op) bool {
	return op.Code == backend.OpPoll && op.Flags&backend.Multishot == 0
}

// findStale notes what is ready now for the polls that the Wait has found: polled
// begins those anew for which nothing is.
func (b *Backend) findStale() {
	if b.polls == 0 {
		return
	}
	for i := b.ring.head; i != b.cqEnd; i++ {
		c := b.ring.at(i)
		idx := b.slots.find(c.UserData())
		if c.UserData()>>56 != kindOp || idx == 0 || c.Flags()&cqeMore != 0 {
			continue
		}
		s := b.slots.at(idx)
		if isPoll(s.op) && !s.cancelled && (s.stage == stageFound || wanted(s.op, c.Result()) > 0) {
			s.stage, s.op.State.Res = stageFound, int32(nowait.Poll(s.op.FD, int16(s.op.Arg)))
		}
	}
}
