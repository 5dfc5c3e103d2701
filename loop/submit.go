package loop

import (
	"errors"
	"fmt"
	"slices"
	"syscall"

	"github.com/seed-80cfe818/ringloop/backend"
)

// Submit hands an operation to the backend; see backend.Backend.Submit for who
// owns it until when. While the loop does not run, the operation is kept until
// it does. The error is ErrLoopClosed, or that of the backend. Loop's thread
// only.
func (l *Loop) Submit(op *backend.Op) error {
	if l.closed.Load() {
		return fmt.Errorf("%s: %w", op, l.closedError())
	}
	if l.onTurn {
		return l.be.Submit(op)
	}
	if err := backend.Check(op); err != nil {
		return err
	}
	op.State = backend.State{Phase: backend.Early}
	l.early = append(l.early, op)
	return nil
}

// Try performs an operation at once if the backend can do so without waiting;
// see backend.Backend.Try. Loop's thread only.
func (l *Loop) Try(op *backend.Op) (backend.Result, bool) {
	if !l.onTurn || l.closed.Load() {
		return backend.Result{}, false
	}
	return l.be.Try(op)
}

// Keep lets the receiver of a completion keep the memory of its data; see
// backend.Backend.Keep. Loop's thread only.
func (l *Loop) Keep(data []byte) []byte { return l.be.Keep(data) }

// GiveBack returns memory that Keep has returned; see backend.Backend.GiveBack.
// Loop's thread only.
func (l *Loop) GiveBack(kept []byte) bool { return l.be.GiveBack(kept) }

// CancelOp asks for an operation to end; its own completion is the answer. It
// does nothing if the operation is not in flight. Loop's thread only.
func (l *Loop) CancelOp(op *backend.Op) {
	switch {
	case op.State.Phase == backend.Early:
		op.State.CancelRequested = true // see submitEarly
	case l.onTurn:
		l.be.Cancel(op)
	case op.InFlight():
		// Between runs nothing goes to the kernel: ask on the next run.
		l.enqueue(&lateCancel{op})
	}
}

// lateCancel cancels an operation on the next run.
type lateCancel struct{ op *backend.Op }

func (c *lateCancel) run(l *Loop) { l.be.Cancel(c.op) }

// withdraw takes back an operation that was submitted while the loop did not
// run; it reports whether it was still waiting for that.
func (l *Loop) withdraw(op *backend.Op) bool {
	i := slices.Index(l.early, op)
	if i < 0 {
		return false
	}
	l.early = slices.Delete(l.early, i, i+1)
	op.State.Phase = backend.Idle
	return true
}

// nextEarly takes back the first operation that was submitted while the loop did
// not run. Whoever is told of it may take back others, and may end its goroutine.
func (l *Loop) nextEarly() *backend.Op {
	op := l.early[0]
	l.early[0] = nil
	l.early = l.early[1:]
	op.State.Phase = backend.Idle
	return op
}

// submitEarly hands the operations that were submitted before the run to the
// backend, unless they were cancelled since.
func (l *Loop) submitEarly() {
	for len(l.early) > 0 {
		op := l.nextEarly()
		if op.CancelRequested() {
			l.endEarly(op, syscall.ECANCELED)
			continue
		}
		err := l.be.Submit(op)
		var errno syscall.Errno
		switch {
		case err == nil:
		case errors.As(err, &errno): // Submit had taken it, so it completes
			l.endEarly(op, errno)
		default:
			l.CallExceptionHandler(&ExceptionContext{Message: "operation submitted before the run was refused", Exception: err})
		}
	}
	l.early = nil
}

// endEarly completes an operation that the backend does not have.
func (l *Loop) endEarly(op *backend.Op, errno syscall.Errno) {
	l.guarded(func() { op.Receiver.Complete(op, backend.Result{Errno: errno}) }, "Panic in an I/O completion")
}

// cancelEarly completes the operations that were never handed to the backend,
// because the loop is closed instead of running again.
func (l *Loop) cancelEarly() {
	for len(l.early) > 0 {
		l.endEarly(l.nextEarly(), syscall.ECANCELED)
	}
}
