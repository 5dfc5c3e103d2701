package transport

import (
	"syscall"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/loop"
)

// operation is an operation for which a task waits.
type operation struct {
	op        backend.Op
	co        *loop.Coro
	n         int
	errno     syscall.Errno
	done      bool
	cancelled bool
}

// perform submits the operation and suspends the task until it has completed.
// Then n and errno are set, also when the error is a CancelledError: an
// operation can succeed although it was asked to end. A Coro outside of its task
// is refused before anything is submitted, because the completion would wake the
// task from some other wait.
func (o *operation) perform(co *loop.Coro) error {
	if err := co.CheckCurrent(o.op.Code.String()); err != nil {
		return err
	}
	o.co, o.done, o.cancelled = co, false, false
	o.op.Receiver = o
	if err := co.Loop().Submit(&o.op); err != nil {
		return err
	}
	for !o.done {
		err := co.Suspend(o)
		if err != nil && (!o.done || o.errno != 0 && co.Loop().IsClosed()) {
			return err
		}
	}
	if o.cancelled {
		return co.CancelledError()
	}
	return nil
}

// Complete resumes the task, unless the loop is being closed.
func (o *operation) Complete(_ *backend.Op, r backend.Result) {
	o.n, o.errno, o.done = r.N, r.Errno, true
	if !o.co.Loop().IsClosed() {
		o.co.Resume()
	}
}

// CancelWait asks the operation to end; its completion resumes the task.
func (o *operation) CancelWait(co *loop.Coro) bool {
	o.cancelled = true
	if o.done {
		co.Wake()
	} else {
		co.Loop().CancelOp(&o.op)
	}
	return true
}

// String says what the task waits for.
func (o *operation) String() string { return o.op.String() }
