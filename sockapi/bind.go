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
		if err := co.Loop().CheckFD(int(s.fd)); err != nil {
			return s.fail(op, err)
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
	s.lent = nil
	if s.kept != nil {
		s.kept.mem = nil // it is the loop's
	}
	if s.home == nil || s.loop.IsClosed() {
		s.loop, s.home, s.ahead = nil, nil, 0
		s.in.abandon()
		s.out.abandon()
		return nil
	}
	fd, err := unix.FcntlInt(uintptr(s.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return s.fail("move to another loop", err)
	}
	s.home.leave(s.fd)
	s.loop, s.home, s.fd = nil, nil, int32(fd)
	return nil
}

// home is what the sockets of one loop have in common: memory, and the closes
// that the loop has not begun yet.
type home struct {
	loop    *loop.Loop
	pool    pool      // what RecvBorrowed lends
	direct  int       // see backend.Backend.DirectSend
	closing []*Socket // closed during this turn
	over    bool      // the loop is closed, and nothing is in flight any more
}

type homeKey struct{}

// homeOf returns the home on l, whose thread calls it.
func homeOf(l *loop.Loop) *home {
	return l.Attached(homeKey{}, func() loop.Attachment {
		return &home{loop: l, pool: pool{loop: l}, direct: l.Backend().DirectSend()}
	}).(*home)
}

// close lets the loop close the socket at the end of the turn, which is on the
// loop's own stack.
func (h *home) close(s *Socket) {
	if len(h.closing) == 0 {
		h.loop.AtTurnEnd(h)
	}
	h.closing = append(h.closing, s)
}

// EndTurn begins the closes of the turn.
func (h *home) EndTurn() {
	for i, s := range h.closing {
		h.closing[i] = nil
		if h.loop.Submit(&s.out.op) != nil {
			_ = s.closeNow() // the loop is closed; nobody is to be told
		}
	}
	h.closing = h.closing[:0]
}

// leave lets the loop close fd, perhaps on another loop's thread. A loop that does
// not run would leave it open, for nobody knows how long.
func (h *home) leave(fd int32) {
	c := &closeOp{loop: h.loop}
	c.op = backend.Op{Receiver: c, Code: backend.OpClose, FD: fd}
	if !h.loop.IsRunning() {
		c.closeNow()
		return
	}
	h.loop.CallSurely(c.submit)
}

// LoopClosed closes what the loop did not come to.
func (h *home) LoopClosed() {
	h.over = true
	h.EndTurn()
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
