package loop

import (
	"context"
	"fmt"
	"iter"
	"runtime/debug"
)

// Coro is the coroutine of a running task. Functions that may suspend the task
// take it as their first argument. It is valid only inside its own task: other
// tasks and callbacks get ErrNotCurrent. A goroutine that a task has started
// must not use it either; debug mode refuses that with ErrWrongThread, otherwise
// Go may end the process.
type Coro struct {
	l *Loop
	t *task
}

// Loop returns the loop that runs the task.
func (co *Coro) Loop() *Loop { return co.l }

// Task returns the task.
func (co *Coro) Task() AnyTask { return co.t.self.(AnyTask) }

// Context returns a context that is cancelled when the task is cancelled, and
// when it has ended, for functions that take one. Its cause is the
// CancelledError. The limit of a [Timeout] that passes cancels it too, and it stays
// cancelled; what comes after the Timeout asks for another. A function for another
// goroutine, as for RunInExecutor, takes the context that the task has asked for:
// the Coro is not for it.
func (co *Coro) Context() context.Context {
	t := co.t
	if t.std != nil {
		return t.std
	}
	std, cancel := context.WithCancelCause(context.Background())
	if t.state != pending {
		cancel(context.Canceled)
		return std
	}
	if t.cancels > 0 {
		cancel(co.CancelledError())
	}
	t.std, t.stdCancel = std, cancel
	return std
}

// Canceller is what a suspended task waits for.
type Canceller interface {
	// CancelWait is called when the task is cancelled while it waits. It returns
	// true if it has seen to it that the task will be resumed and that the
	// waiting code will return Coro.CancelledError; if it returns false, Suspend
	// itself returns that error as soon as the task is resumed.
	CancelWait(co *Coro) bool
}

// Suspend stops the task until Resume or Wake is called, which the caller has
// arranged. It is the primitive under every function that waits. It returns a
// CancelledError if the task was cancelled and w could not take it on,
// ErrLoopClosed when the loop is closed, ErrNotCurrent outside of the task, and
// in debug mode ErrWrongThread; then the caller must see to it that nobody
// resumes the task later.
func (co *Coro) Suspend(w Canceller) error {
	t := co.t
	if err := co.CheckCurrent("a wait"); err != nil {
		return err
	}
	if t.worker == nil { // the loop is closed, and the task has been told once
		return co.l.abandoned(t)
	}
	if t.mustCancel && w.CancelWait(co) {
		t.mustCancel, t.answering = false, answers(w)
	}
	t.waitsFor = w
	alive := t.worker.yield(struct{}{})
	t.waitsFor, t.answering = nil, false
	if !alive {
		return co.l.abandoned(t)
	}
	if t.mustCancel {
		t.mustCancel = false
		return co.CancelledError()
	}
	return nil
}

// CheckCurrent returns ErrNotCurrent, wrapped with what was called and by whom,
// unless the Coro's task is the one that runs, and in debug mode ErrWrongThread on
// another goroutine. It is for packages that begin something before they suspend
// the task.
func (co *Coro) CheckCurrent(what string) error {
	if err := co.l.CheckThread(what); err != nil {
		return err
	}
	if co.l.current != co.t {
		return co.foreign(what)
	}
	return nil
}

// Unhindered reports whether a function that may suspend the task can first try
// to do without: the task is the one that runs, and is not to be told of a
// cancellation. It is false in debug mode, where a suspension checks more. It is
// for packages that wait for I/O.
func (co *Coro) Unhindered() bool {
	t := co.t
	return co.l.current == t && !t.mustCancel && t.worker != nil && !co.l.debug.Load()
}

func (co *Coro) foreign(what string) error {
	running := "a callback"
	if t := co.l.current; t != nil {
		running = "task " + t.name()
	}
	return fmt.Errorf("%s with the Coro of task %s in %s: %w", what, co.t.name(), running, ErrNotCurrent)
}

// Starter is what a suspended task waits for and what is begun only when the
// task is suspended, on the loop's own stack. That keeps the stacks of tasks
// small, of which there may be as many as connections.
type Starter interface {
	Canceller
	// Start begins it. It returns false if there is nothing to wait for; then
	// the task goes on at once.
	Start() bool
}

// SuspendStart is Suspend for something that is still to be begun. If the task
// was cancelled before, it returns a CancelledError without beginning.
func (co *Coro) SuspendStart(w Starter) error {
	l, t := co.l, co.t
	switch {
	case l.current != t:
	case t.mustCancel:
		t.mustCancel = false
		return co.CancelledError()
	case l.closed.Load(): // or Submit would unwind the loop's stack, not the task's
		return l.abandoned(t)
	}
	l.starting = w
	err := co.Suspend(w)
	if err != nil {
		l.starting = nil // if it was not begun
	}
	return err
}

// advance runs the task until it is suspended or ends.
func (l *Loop) advance(t *task) {
	for {
		t.worker.next()
		w := l.starting
		if w == nil {
			return
		}
		l.starting = nil
		if w.Start() {
			return
		}
	}
}

// Wake queues the suspended task for the next turn. It does nothing if it is
// queued already. Loop's thread only.
func (co *Coro) Wake() { co.t.queue() }

// Resume runs the suspended task until it waits again or ends, or, when
// another task is running, wakes it. It is for completions of I/O. Loop's
// thread only.
func (co *Coro) Resume() {
	l := co.l
	if l.current != nil || co.t.queued {
		co.t.queue()
		return
	}
	co.t.step(l)
}

// CancelledError returns the error for a wait that ends because the task was
// cancelled.
func (co *Coro) CancelledError() error { return &CancelledError{Msg: co.t.cancelMsg} }

// worker is a coroutine that runs one task after the other. It is made and
// switched to by the loop's goroutine.
type worker struct {
	t     *task
	next  func() (struct{}, bool)
	stop  func()
	yield func(struct{}) bool
}

const maxIdleWorkers = 1024

// worker takes a coroutine for t from the pool.
func (l *Loop) worker(t *task) *worker {
	var w *worker
	if n := len(l.idleWorkers); n > 0 {
		w = l.idleWorkers[n-1]
		l.idleWorkers[n-1] = nil
		l.idleWorkers = l.idleWorkers[:n-1]
	} else {
		w = &worker{}
		w.next, w.stop = iter.Pull(w.main)
	}
	w.t = t
	return w
}

// release puts the coroutine of a task that has ended back into the pool.
func (l *Loop) release(w *worker) {
	if len(l.idleWorkers) < maxIdleWorkers {
		l.idleWorkers = append(l.idleWorkers, w)
		return
	}
	w.stop()
}

// main runs tasks until the coroutine is stopped.
func (w *worker) main(yield func(struct{}) bool) {
	w.yield = yield
	for {
		w.t.guard()
		w.t = nil
		if !yield(struct{}{}) {
			return
		}
	}
}

// guard runs the task's function and completes the task, whether the function
// returns, panics or calls runtime.Goexit.
func (t *task) guard() {
	returned := false
	defer func() {
		if returned {
			return
		}
		r := recover()
		if r == nil {
			t.gone = true
			t.finish(ErrGoexit)
			if t.eager {
				panic(goexited{})
			}
			return
		}
		exited := true
		defer func() {
			if exited { // by the exception handler
				t.gone = true
				if t.eager {
					panic(goexited{})
				}
			}
		}()
		t.panicked(r, debug.Stack())
		exited = false
	}()
	err := t.body(&t.coro)
	returned = true
	t.finish(err)
}
