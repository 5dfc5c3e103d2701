package sockapi

import (
	"syscall"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/loop"
)

// A socket that is read by RecvBorrowed receives by one operation that goes on
// (multishot), also while no call waits: submitting one for every call would
// cost as much as the call itself.

// aheadState says how far the receiving is ahead of the calls.
type aheadState uint8

const (
	aheadOn       aheadState = 1 << iota // in.op is in flight, and goes on
	aheadCame                            // it has brought something for the call that waits
	aheadSettling                        // a call waits for its end
)

// aheadLimit is how many bytes the loop receives before it waits for a call.
const aheadLimit = 64 << 10

// receiving is a socket as what a task in RecvBorrowed waits for.
type receiving Socket

// await waits until something has come; lane.n and errno tell what. An error
// says that the wait ended for another reason, perhaps although it has come.
func (s *Socket) await(co *loop.Coro) error {
	if s.state >= stateClosing {
		return ErrSocketClosed
	}
	ln := &s.in
	ln.co, ln.n, ln.errno = co, 0, 0
	w := (*receiving)(s)
	err := co.SuspendStart(w)
	s.tries = 0 // the loop has run
	for err == nil && s.ahead&aheadCame == 0 && s.refused == nil {
		err = co.Suspend(w) // somebody else has woken the task
	}
	if err == nil {
		err, s.refused = s.refused, nil
	}
	return err
}

// Start begins to receive, unless the loop does already.
func (w *receiving) Start() bool {
	s := (*Socket)(w)
	if s.ahead&aheadOn == 0 {
		s.receiveAhead()
	}
	return s.refused == nil
}

// CancelWait wakes the task; Suspend tells it why. The receiving goes on.
func (w *receiving) CancelWait(co *loop.Coro) bool {
	co.Wake()
	return false
}

// String says what a task waits for.
func (w *receiving) String() string { return w.in.String() }

func (s *Socket) receiveAhead() {
	if s.home == nil {
		s.home = homeOf(s.loop)
	}
	op := &s.in.op
	op.Code, op.FD, op.Buf, op.Flags, op.Len = backend.OpRecv, s.fd, nil, backend.Multishot, maxDrain
	if s.refused = s.loop.Submit(op); s.refused != nil {
		op.Flags = 0 // it is the next call's
		return
	}
	s.ahead |= aheadOn
}

// cameAhead takes a completion of the operation that goes on.
func (s *Socket) cameAhead(r *backend.Result) {
	ln := &s.in
	if !r.More {
		s.ahead &^= aheadOn
		ln.op.Flags = 0
	}
	if r.Errno == syscall.ECANCELED && s.loop.IsClosed() {
		if ln.co == nil {
			s.settled()
		}
		return // the loop ends its tasks itself
	}
	waits := ln.co != nil && s.ahead&(aheadCame|aheadSettling) == 0
	switch {
	case waits && r.Errno == syscall.ECANCELED && s.state < stateClosing:
		// It was too far ahead, or is to be settled no more.
		if s.receiveAhead(); s.refused != nil {
			s.refused = nil
			s.handOver(r)
		}
	case waits:
		s.handOver(r)
	case r.N > 0:
		s.keepAhead(r.Data)
	default:
		s.keepErrno(r.Errno)
	}
	if s.ahead&aheadOn == 0 {
		s.settled()
	}
}

// handOver gives the outcome to the call that waits.
func (s *Socket) handOver(r *backend.Result) {
	ln := &s.in
	ln.n, ln.errno = r.N, r.Errno
	if r.N > 0 {
		s.lent = s.home.pool.take(r.Data)
	} else if r.Errno == syscall.ECANCELED {
		if ln.drain(); ln.errno == 0 {
			s.lent = ln.op.Buf
		}
		ln.op.Buf = nil
	}
	s.ahead |= aheadCame
	ln.co.Resume()
}

// putAside keeps what had come for a call that ended for another reason. It goes
// before what has come since, while the task was about to run.
func (s *Socket) putAside() {
	ln := &s.in
	switch {
	case s.state == stateClosed: // after the loop, in which it waited
	case ln.n > 0:
		k := s.keptAhead()
		since, mem := k.data, k.mem
		k.mem, k.data = s.lent, append(s.lent[:ln.n], since...)
		s.lent = mem
		s.giveBack()
	default:
		s.keepErrno(ln.errno)
	}
}

// keepAhead keeps data for which no call waits, and stops the receiving if that
// is too much.
func (s *Socket) keepAhead(data []byte) {
	k := s.keptAhead()
	if len(k.data) == 0 {
		k.mem = s.home.pool.take(data)
		k.data = k.mem[:len(data)]
	} else {
		k.data = append(k.data, data...)
	}
	if len(k.data) >= aheadLimit && s.ahead&aheadOn != 0 {
		s.loop.CancelOp(&s.in.op)
	}
}

// keepErrno keeps an error for which no call waits, if there is one.
func (s *Socket) keepErrno(errno syscall.Errno) {
	if errno != 0 && errno != syscall.ECANCELED && toldOnce(&s.in.op, errno) {
		s.keptAhead().errno = errno
	}
}

func (s *Socket) keptAhead() *kept {
	if s.kept == nil {
		s.kept = new(kept)
	}
	return s.kept
}

// Settle ends the receiving ahead for RecvBorrowed, and returns when the kernel
// has let go of the socket, which can then be detached, or used by another loop.
// What was received goes to the next call that receives. A socket that another
// loop has used belongs to the task's loop from then on. It does nothing else.
func Settle(co *loop.Coro, s *Socket) error {
	if s == nil || s.ahead&aheadOn == 0 && (s.home == nil || s.loop == co.Loop()) {
		return nil
	}
	if err := s.enter(co, "settle"); err != nil {
		return err
	}
	if err := s.acquireInput(co); err != nil {
		return s.wrap("settle", err)
	}
	s.in.release()
	if s.state >= stateClosing {
		return s.fail("settle", ErrSocketClosed)
	}
	return nil
}

// acquireInput waits until the input is free, takes it, and ends the receiving
// ahead, for a call that receives in its own way.
func (s *Socket) acquireInput(co *loop.Coro) error {
	ln := &s.in
	if err := ln.acquire(co); err != nil {
		return err
	}
	if s.ahead&aheadOn == 0 {
		return nil
	}
	err := s.settle(co)
	if err != nil {
		ln.release()
	}
	return err
}

// settling is a socket as what a task waits for that settles it.
type settling Socket

// CancelWait wakes the task; Suspend tells it why.
func (w *settling) CancelWait(co *loop.Coro) bool {
	co.Wake()
	return false
}

// String says what a task waits for.
func (w *settling) String() string { return "the end of " + w.in.op.String() }

// settle ends the receiving ahead while the call has the lane. What has come goes to
// the call also if the socket is closed or the call is late by then, as its operation
// will find.
func (s *Socket) settle(co *loop.Coro) (err error) {
	ln := &s.in
	ln.co = co
	s.ahead |= aheadSettling
	s.loop.CancelOp(&ln.op)
	for err == nil && s.ahead&aheadOn != 0 {
		err = co.Suspend((*settling)(s))
	}
	s.ahead &^= aheadSettling
	ln.co = nil
	return err
}

// settled goes on with what waited for the end of the receiving ahead.
func (s *Socket) settled() {
	if s.ahead&aheadSettling != 0 {
		s.in.co.Wake()
	}
	if s.state == stateClosing {
		s.closeWhenIdle()
	}
}
