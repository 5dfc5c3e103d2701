package sockapi

import (
	"bytes"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/loop"
)

// maxTries is how many operations on a socket may be done at once, without
// letting the rest of the loop run.
const maxTries = 16

// lane is one of the two directions of a socket. One call at a time has it and
// uses its operation; the others wait, first come, first served. Handing one
// operation after the other to the backend keeps what a cancelled one received
// in front of what the next one receives.
type lane struct {
	op   backend.Op
	sock *Socket
	co   *loop.Coro // the task that waits for op
	// first and last are the calls that wait for the lane.
	first, last *waiter
	n           int // the result of op
	errno       syscall.Errno
	holder      *loop.Coro // of the call that has the lane, or nil
	begun       bool       // op was handed to the backend
	ended       bool       // op was cancelled because this direction was shut down
	cancelled   bool       // the task that waits for op was cancelled
	expired     bool       // the deadline of the call that has the lane has passed
}

func (ln *lane) init(s *Socket) {
	ln.sock = s
	ln.op.Receiver = ln
}

// perform does op, at once or by suspending the task, and sets n and errno. An
// error says that the wait ended for another reason than op; then errno is 0
// only if op had succeeded nevertheless.
func (ln *lane) perform(co *loop.Coro) error {
	s := ln.sock
	ln.errno, ln.n = syscall.ECANCELED, 0
	ln.begun, ln.ended, ln.cancelled = false, false, false
	switch {
	case s.state >= stateClosing: // while the call waited for something else
		if ln.drain(); ln.errno != 0 {
			return ErrSocketClosed
		}
		return nil
	case ln.expired:
		return os.ErrDeadlineExceeded
	}
	ln.co = co
	err := co.SuspendStart(ln)
	for err == nil && ln.op.InFlight() {
		err = co.Suspend(ln) // somebody else has woken the task
	}
	ln.co = nil
	if err == nil && (ln.cancelled || ln.errno == syscall.ECANCELED) {
		return ln.interrupted(co)
	}
	return err
}

// await waits for f, which is not an operation of the backend, while the call has
// the lane. An error says that the wait ended for another reason; then f is
// cancelled.
func (ln *lane) await(co *loop.Coro, f loop.AnyFuture) error {
	if ln.sock.home == nil {
		ln.sock.home = homeOf(ln.sock.loop) // so that Close finds it in use
	}
	over := false
	cb := f.AddDoneCallback(func(loop.AnyFuture) {
		if !over { // it may be queued already when the wait ends
			co.Wake()
		}
	})
	ln.co = co
	var err error
	for err == nil && !f.Done() {
		switch {
		case ln.sock.state >= stateClosing:
			err = ErrSocketClosed
		case ln.expired:
			err = os.ErrDeadlineExceeded
		default:
			err = co.Suspend((*aside)(ln))
		}
	}
	ln.co, over = nil, true
	if err != nil {
		f.RemoveDoneCallback(cb)
		f.Cancel("")
	}
	return err
}

// aside is a lane as what a task in await waits for.
type aside lane

// CancelWait wakes the task; Suspend tells it why.
func (a *aside) CancelWait(co *loop.Coro) bool {
	co.Wake()
	return false
}

// String says what a task waits for.
func (a *aside) String() string { return "what is to be sent on " + a.sock.String() }

// Start begins op, on the loop's stack. It reports false if there is nothing to
// wait for.
func (ln *lane) Start() bool {
	s := ln.sock
	if s.home == nil {
		s.home = homeOf(s.loop)
	}
	ln.begun = true
	if s.tries < maxTries && ln.try() {
		s.tries++
		return false
	}
	s.tries = 0
	s.refused = s.loop.Submit(&ln.op)
	return s.refused == nil
}

// try does op at once if that is possible.
func (ln *lane) try() bool {
	r, ok := ln.sock.loop.Try(&ln.op)
	if ok {
		ln.take(&r)
	}
	return ok
}

// take keeps the result.
func (ln *lane) take(r *backend.Result) {
	ln.n, ln.errno = r.N, r.Errno
	if r.Data != nil {
		// Borrowed memory: it has to be copied before the loop goes on.
		ln.op.Buf = bytes.Clone(r.Data)
	}
}

// interrupted says why op was not begun or was cancelled.
func (ln *lane) interrupted(co *loop.Coro) error {
	switch {
	case ln.sock.refused != nil:
		err := ln.sock.refused
		ln.sock.refused = nil
		return err
	case ln.cancelled:
		return co.CancelledError()
	case ln.sock.state >= stateClosing:
		return ErrSocketClosed
	case ln.expired:
		return os.ErrDeadlineExceeded
	case ln.ended:
		return syscall.EPIPE
	}
	return nil
}

// shut ends the operation of a direction that was shut down. The kernel does not
// tell who waits for room in a Unix stream.
func (ln *lane) shut() {
	if ln.sock.family == unix.AF_UNIX && ln.op.InFlight() && ln.op.Code != backend.OpClose {
		ln.ended = true
		ln.sock.loop.CancelOp(&ln.op)
	}
}

// Complete is told by the backend that op has ended.
func (ln *lane) Complete(op *backend.Op, r backend.Result) {
	s := ln.sock
	if op.Code == backend.OpClose {
		s.closed(r.Errno)
		return
	}
	if s.ahead&aheadOn != 0 && ln == &s.in {
		s.cameAhead(&r)
		return
	}
	ln.take(&r)
	if r.Errno == syscall.ECANCELED {
		if s.loop.IsClosed() {
			return // the loop ends its tasks itself
		}
		if s.state == stateClosing && !ln.cancelled {
			ln.drain()
		}
	}
	ln.co.Resume()
}

// CancelWait is told that the waiting task is cancelled.
func (ln *lane) CancelWait(*loop.Coro) bool {
	if !ln.op.InFlight() {
		return false
	}
	ln.cancelled = true
	ln.sock.loop.CancelOp(&ln.op)
	return true
}

// String says what a task waits for, and whose answer that may be.
func (ln *lane) String() string {
	if peer := ln.sock.formerPeer(); peer.IsValid() {
		return ln.op.String() + " (" + peer.String() + ")"
	}
	return ln.op.String()
}

// waiter is a call that waits for its turn.
type waiter struct {
	co      *loop.Coro
	ln      *lane
	next    *waiter
	err     error // why it shall not have its turn
	granted bool
}

var waiters = sync.Pool{New: func() any { return new(waiter) }}

// acquire waits until the lane is free and takes it.
func (ln *lane) acquire(co *loop.Coro) error {
	if ln.holder == nil {
		ln.holder, ln.expired = co, false
		return nil
	}
	return ln.queue(co)
}

func (ln *lane) queue(co *loop.Coro) error {
	w := waiters.Get().(*waiter)
	w.co, w.ln = co, ln
	if ln.first == nil {
		ln.first = w
	} else {
		ln.last.next = w
	}
	ln.last = w
	err := co.Suspend(w)
	for err == nil && !w.granted && w.err == nil {
		err = co.Suspend(w) // somebody else has woken the task
	}
	if err == nil {
		err = w.err
	}
	if err != nil {
		if w.granted {
			ln.release()
		} else {
			ln.drop(w)
		}
	}
	*w = waiter{}
	waiters.Put(w)
	return err
}

// abandon frees a lane whose loop is closed, or that nobody has.
func (ln *lane) abandon() { ln.holder, ln.first, ln.last, ln.co = nil, nil, nil, nil }

// release gives the lane to the next call.
func (ln *lane) release() {
	w := ln.first
	if w == nil {
		ln.holder = nil
		if ln.sock.state == stateClosing {
			ln.sock.closeWhenIdle()
		}
		return
	}
	ln.drop(w)
	ln.holder, ln.expired = w.co, false
	w.granted = true
	w.co.Wake()
}

// drop takes w out of the queue.
func (ln *lane) drop(w *waiter) {
	var before *waiter
	for at := ln.first; at != nil; before, at = at, at.next {
		if at != w {
			continue
		}
		if before == nil {
			ln.first = w.next
		} else {
			before.next = w.next
		}
		if ln.last == w {
			ln.last = before
		}
		w.next = nil
		return
	}
}

// expire ends the call of co whose deadline has passed: it waits for its turn, or
// has it, unless it was ended before for another reason.
func (ln *lane) expire(co *loop.Coro) {
	for w := ln.first; w != nil; w = w.next {
		if w.co == co {
			ln.drop(w)
			w.err = os.ErrDeadlineExceeded
			co.Wake()
			return
		}
	}
	if ln.holder != co {
		return
	}
	ln.expired = true
	ln.wake()
}

// wake ends the wait of the call that has the lane.
func (ln *lane) wake() {
	switch {
	case ln.op.InFlight():
		ln.sock.loop.CancelOp(&ln.op)
	case ln.co != nil:
		ln.co.Wake() // it waits for something else
	}
}

// refuse ends the wait of every call in the queue.
func (ln *lane) refuse(err error) {
	for w := ln.first; w != nil; w = ln.first {
		ln.drop(w)
		w.err = err
		w.co.Wake()
	}
}

// CancelWait is told that the task of a waiting call is cancelled.
func (w *waiter) CancelWait(co *loop.Coro) bool {
	if w.granted || w.err != nil {
		return false // it is about to run, and Suspend tells it
	}
	w.ln.drop(w)
	w.err = co.CancelledError()
	co.Wake()
	return true
}

// String says what a task waits for.
func (w *waiter) String() string { return "its turn after " + w.ln.op.String() }
