package uring

import (
	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
)

// A poll ends with the events that have woken it, though somebody else may have
// read the data since: the kernel looks only when the poll begins. Whoever is told
// then would block, or get EAGAIN. So what a Wait has found of polls is true when
// it returns, as it is with epoll.

// isPoll reports whether op is a poll that completes once.
func isPoll(op *backend.Op) bool {
	return op.Code == backend.OpPoll && op.Flags&backend.Multishot == 0
}

// findStale marks the polls that the Wait has found and that are not ready any
// more: polled begins them anew.
func (b *Backend) findStale() {
	if b.polls == 0 {
		return
	}
	for i := b.ring.head; i != b.cqEnd; i++ {
		c := b.ring.at(i)
		idx := b.slots.find(c.UserData())
		if c.UserData()>>56 != kindOp || idx == 0 {
			continue
		}
		s := b.slots.at(idx)
		if isPoll(s.op) && !s.cancelled && c.Flags()&cqeMore == 0 && found(s, c.Result()) > 0 {
			s.stale = !readyNow(s.op)
		}
	}
}

// found returns what a poll that has ended with res is to tell.
func found(s *slot, res int32) int32 {
	if s.stage == stageFound {
		return s.op.State.Res
	}
	return wanted(s.op, res)
}

// readyNow reports whether a poll would complete at once.
func readyNow(op *backend.Op) bool {
	p := [1]unix.PollFd{{Fd: op.FD, Events: int16(op.Arg)}}
	n, err := unix.Poll(p[:], 0)
	return n != 0 || err != nil
}
