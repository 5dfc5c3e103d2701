package sockapi

import (
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/loop"
)

// enter reports why the running task may not use the socket for op, and binds
// the socket to the task's loop.
func (s *Socket) enter(co *loop.Coro, op string) error {
	if s != nil && s.state == stateOpen && s.loop == co.Loop() && !s.loop.Debug() {
		return nil
	}
	return s.enterSlowly(co, op)
}

func (s *Socket) enterSlowly(co *loop.Coro, op string) error {
	if err := s.direct(op); err != nil {
		return err
	}
	if s.state == stateAdopted {
		return s.owned(op)
	}
	if s.loop != co.Loop() {
		if s.busy() {
			return s.fail(op, ErrOtherLoop)
		}
		if err := s.leaveLoop(); err != nil {
			return err
		}
		s.loop = co.Loop()
	}
	if s.loop.Debug() {
		flags, err := unix.FcntlInt(uintptr(s.fd), unix.F_GETFL, 0)
		if err == nil && flags&unix.O_NONBLOCK == 0 {
			err = fmt.Errorf("%w: the socket must be non-blocking", loop.ErrInvalidArgument)
		}
		if err != nil {
			return s.fail(op, err)
		}
	}
	return nil
}

// leaveLoop unbinds the socket from its loop. The loop's backend may know the
// descriptor, and would mistake the next file of that number for it: so the
// socket goes on with a duplicate, and the loop closes the number that it knows.
func (s *Socket) leaveLoop() error {
	l := s.loop
	if l == nil || l.IsClosed() {
		s.loop = nil
		return nil
	}
	fd, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return s.fail("move to another loop", err)
	}
	old := &closeOp{loop: l}
	old.op = backend.Op{Receiver: old, Code: backend.OpClose, FD: s.fd}
	if _, err := l.CallSoonThreadsafe(old.submit); err != nil {
		old.closeNow()
	}
	s.loop, s.fd = nil, int32(fd)
	return nil
}

// closeOp closes a descriptor on the loop that knows it.
type closeOp struct {
	op   backend.Op
	loop *loop.Loop
}

func (c *closeOp) submit() {
	if c.loop.Submit(&c.op) != nil {
		c.closeNow()
	}
}

func (c *closeOp) closeNow() {
	// Nobody waits for the outcome, and Linux frees the number in any case.
	_ = unix.Close(int(c.op.FD))
}

// Complete is told that the descriptor was closed, or that the loop was.
func (c *closeOp) Complete(_ *backend.Op, r backend.Result) {
	if r.Cancelled() {
		c.closeNow()
	}
}
