package loop

import (
	"context"
	"errors"
	"fmt"
	"reflect"
)

// Awaitable is what a task can wait for: a *Future[T] or a *Task[T].
type Awaitable[T any] interface {
	AnyFuture
	// Await suspends the task until the result is there and returns it.
	Await(co *Coro) (T, error)
	// Result returns the result without waiting.
	Result() (T, error)
}

// AnyFuture is a *Future[T] or *Task[T] of any T.
type AnyFuture interface {
	// Loop returns the loop that the future belongs to (Future.get_loop).
	Loop() *Loop
	// Done reports whether the future has a result or an error or was cancelled.
	Done() bool
	// Cancelled reports whether the future was cancelled.
	Cancelled() bool
	// Cancel cancels the future; see Future.Cancel and Task.Cancel.
	Cancel(msg string) bool
	// Exception returns the error of the future; see Future.Exception.
	Exception() error
	// AddDoneCallback arranges for fn to be called; see Future.AddDoneCallback.
	AddDoneCallback(fn func(AnyFuture)) *DoneCallback
	// RemoveDoneCallback undoes AddDoneCallback.
	RemoveDoneCallback(cb *DoneCallback) int

	// asTask returns the task that the future is, or nil.
	asTask() *task
	addDoneCallback(ctx *Context, fn func(AnyFuture)) *DoneCallback
}

// isNil reports whether x is nil or a nil pointer.
func isNil(x any) bool {
	v := reflect.ValueOf(x)
	return !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil()
}

type futureState uint8

const (
	pending futureState = iota
	cancelled
	finished
)

// future is the part of a Future that does not depend on the type of its value.
type future struct {
	loop  *Loop
	self  AnyFuture // the Future or Task around it
	err   error
	msg   string // of the cancellation
	first [1]waiter
	// waiters are told when the future is done, in this order.
	waiters []waiter
	report  *unretrieved
	debug   *origin
	state   futureState
}

// waiter is a task or a callback that waits for a future.
type waiter struct {
	task *task
	cb   *DoneCallback
}

// DoneCallback is a callback of a future, for RemoveDoneCallback.
type DoneCallback struct {
	f    *future
	fn   func(AnyFuture)
	ctx  *Context
	vars *vars
	// debug says where the callback was added.
	debug *origin
}

func (f *future) init(l *Loop, self AnyFuture) {
	f.loop, f.self = l, self
	f.waiters = f.first[:0]
	if l.debug.Load() {
		f.debug = l.originOf(nil)
	}
}

func (f *future) asTask() *task { return nil }

// Loop returns the loop that the future belongs to (Future.get_loop). It may be
// called from any goroutine.
func (f *future) Loop() *Loop { return f.loop }

// Done reports whether the future has a result or an error or was cancelled
// (Future.done).
func (f *future) Done() bool { return f.state != pending }

// Cancelled reports whether the future was cancelled (Future.cancelled).
func (f *future) Cancelled() bool { return f.state == cancelled }

// Exception returns the error that the future was completed with, nil if it has
// a result, a CancelledError if it was cancelled, and ErrInvalidState if it is
// not done (Future.exception). The error counts as retrieved.
func (f *future) Exception() error {
	switch f.state {
	case pending:
		return fmt.Errorf("%w: exception is not set", ErrInvalidState)
	case cancelled:
		return f.cancelledError()
	}
	f.retrieved()
	return f.err
}

func (f *future) cancelledError() error { return &CancelledError{Msg: f.msg} }

// AddDoneCallback arranges for fn to be called with the future, on the turn
// after it is done, in the order in which callbacks and waiting tasks were
// added; if it is done already, on the next turn (Future.add_done_callback). fn
// runs in a copy of the current context.
func (f *future) AddDoneCallback(fn func(AnyFuture)) *DoneCallback {
	return f.AddDoneCallbackContext(nil, fn)
}

// AddDoneCallbackContext is AddDoneCallback with the context in which fn is
// called.
func (f *future) AddDoneCallbackContext(ctx *Context, fn func(AnyFuture)) *DoneCallback {
	if f.loop.Refuses("Future.AddDoneCallback") {
		return &DoneCallback{f: f, fn: fn, ctx: ctx}
	}
	return f.addDoneCallback(ctx, fn)
}

// addDoneCallback is AddDoneCallbackContext for a goroutine that has entered the
// loop to run it.
func (f *future) addDoneCallback(ctx *Context, fn func(AnyFuture)) *DoneCallback {
	cb := &DoneCallback{f: f, fn: fn, ctx: ctx}
	if ctx == nil {
		cb.vars = f.loop.scope.snapshot()
	}
	if f.loop.debug.Load() {
		cb.debug = f.loop.originOf(fn)
	}
	if f.state != pending {
		f.loop.enqueue(cb)
		return cb
	}
	f.waiters = append(f.waiters, waiter{cb: cb})
	return cb
}

// RemoveDoneCallback removes a callback that was not queued yet, and returns
// how many it removed, 0 or 1 (Future.remove_done_callback).
func (f *future) RemoveDoneCallback(cb *DoneCallback) int {
	for i := range f.waiters {
		if f.waiters[i].cb == cb && cb != nil {
			f.removeWaiter(i)
			return 1
		}
	}
	return 0
}

func (f *future) removeWaiter(i int) {
	last := len(f.waiters) - 1
	copy(f.waiters[i:], f.waiters[i+1:])
	f.waiters[last] = waiter{}
	f.waiters = f.waiters[:last]
}

// forget removes a task from those that wait.
func (f *future) forget(t *task) {
	for i := range f.waiters {
		if f.waiters[i].task == t {
			f.removeWaiter(i)
			return
		}
	}
}

// run calls the callback.
func (cb *DoneCallback) run(l *Loop) {
	l.call(Handle{debug: cb.debug}, func() { cb.fn(cb.f.self) }, scope{cb.ctx, cb.vars})
}

// settle makes the future done and queues everybody who waits.
func (f *future) settle(state futureState) {
	f.state = state
	for i, w := range f.waiters {
		f.waiters[i] = waiter{}
		if w.task != nil {
			w.task.queue()
		} else {
			f.loop.enqueue(w.cb)
		}
	}
	f.waiters = f.first[:0]
}

// fail completes the future with an error, which is reported if nobody ever
// looks at it.
func (f *future) fail(err error) {
	f.err = err
	f.settle(finished)
	f.watchFor(err)
}

// cancel makes a pending future cancelled. Of one that has failed the error counts
// as retrieved: who cancels it does not want it.
func (f *future) cancel(msg string) bool {
	if f.state != pending {
		f.retrieved()
		return false
	}
	f.msg = msg
	f.settle(cancelled)
	return true
}

// awaited is the future as what a task waits for.
type awaited future

// CancelWait cancels the future. If that comes too late, the task gets no error that
// the future has, which is still to be reported.
func (a *awaited) CancelWait(co *Coro) bool {
	return a.state == pending && a.self.Cancel(co.t.cancelMsg)
}

func (a *awaited) relays() {}

// wait suspends the task until the future is done.
func (f *future) wait(co *Coro) error {
	if f.loop != co.l {
		return fmt.Errorf("%w: task %s awaits it", ErrDifferentLoop, co.t.name())
	}
	if f == &co.t.future {
		return ErrSelfAwait
	}
	if f.state != pending {
		return nil
	}
	f.waiters = append(f.waiters, waiter{task: co.t})
	for f.state == pending { // more than once if somebody else wakes the task
		if err := co.Suspend((*awaited)(f)); err != nil {
			f.forget(co.t)
			if f.state == cancelled && isCancelled(err) {
				return nil // with the message of the first of two cancellations
			}
			return err
		}
	}
	return nil
}

func (f *future) describe() string {
	state := [...]string{"pending", "cancelled", "finished"}[f.state]
	if f.state == finished && f.err != nil {
		state += fmt.Sprintf(" exception=%v", f.err)
	}
	return "<Future " + state + f.debug.String() + ">"
}

// String describes the future.
func (f *future) String() string { return f.describe() }

// Future is the result of something that is not done yet (asyncio.Future). It
// belongs to one loop; its methods may be called on that loop's thread only.
type Future[T any] struct {
	future
	value T
}

// CreateFuture returns a pending future of l (loop.create_future). It works on
// a closed loop too.
func CreateFuture[T any](l *Loop) *Future[T] {
	f := &Future[T]{}
	f.init(l, f)
	return f
}

// SetResult completes the future with a value. It fails with ErrInvalidState if
// the future is done, and in debug mode with ErrWrongThread (Future.set_result).
func (f *Future[T]) SetResult(value T) error {
	if err := f.loop.CheckThread("SetResult"); err != nil {
		return err
	}
	if f.state != pending {
		return fmt.Errorf("%w: %s is done already", ErrInvalidState, f.describe())
	}
	f.value = value
	f.settle(finished)
	return nil
}

// SetException completes the future with an error, which must not be nil. It
// fails with ErrInvalidState if the future is done, and in debug mode with
// ErrWrongThread (Future.set_exception).
func (f *Future[T]) SetException(err error) error {
	if err := f.loop.CheckThread("SetException"); err != nil {
		return err
	}
	if f.state != pending {
		return fmt.Errorf("%w: %s is done already", ErrInvalidState, f.describe())
	}
	if err == nil {
		return fmt.Errorf("%w: SetException of a nil error", ErrInvalidArgument)
	}
	f.fail(err)
	return nil
}

// Cancel makes the future cancelled and reports whether it was pending
// (Future.cancel). msg, which may be empty, is part of the error that waiting
// tasks get. An error that the future has already counts as retrieved.
func (f *Future[T]) Cancel(msg string) bool {
	return !f.loop.Refuses("Future.Cancel") && f.cancel(msg)
}

// Result returns the value or the error that the future was completed with, a
// CancelledError if it was cancelled, and ErrInvalidState if it is not done
// (Future.result). An error counts as retrieved.
func (f *Future[T]) Result() (T, error) {
	if f.state == finished {
		f.retrieved()
		return f.value, f.err
	}
	var zero T
	if f.state == cancelled {
		return zero, f.cancelledError()
	}
	return zero, fmt.Errorf("%w: result is not set", ErrInvalidState)
}

// Await suspends the task until the future is done and returns its result. If
// the task is cancelled meanwhile, so is the future. A future of another loop
// is refused with ErrDifferentLoop, the task itself with ErrSelfAwait.
func (f *Future[T]) Await(co *Coro) (T, error) {
	if err := f.wait(co); err != nil {
		var zero T
		return zero, err
	}
	return f.Result()
}

// isCancelled reports whether err means that something was cancelled.
func isCancelled(err error) bool { return isError(err, ErrCancelled) }

// isError is errors.Is for an error of the user's. One whose methods panic, as those
// of a nil pointer do, is no other.
func isError(err, target error) (is bool) {
	defer func() { _ = recover() }()
	return errors.Is(err, target)
}

// beyondCancellation returns what err joins with a cancellation, and what must not
// get lost with it; nil if that is nothing.
func beyondCancellation(err error) error {
	for err != nil {
		switch e := err.(type) {
		case interface{ Unwrap() error }:
			err = e.Unwrap()
		case interface{ Unwrap() []error }:
			var rest []error
			for _, part := range e.Unwrap() {
				if isCancelled(part) || isError(part, context.Canceled) {
					part = beyondCancellation(part)
				}
				rest = append(rest, part)
			}
			return errors.Join(rest...)
		default:
			return nil
		}
	}
	return nil
}
