package loop

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
)

// ThreadFuture is a result that other goroutines than the loop's set and wait
// for (concurrent.futures.Future). Its methods may be called from any
// goroutine. Make one with NewThreadFuture or RunCoroutineThreadsafe.
type ThreadFuture[T any] struct {
	mu        sync.Mutex
	state     futureState
	value     T
	err       error
	done      chan struct{}
	callbacks []func()
}

// NewThreadFuture returns a pending future.
func NewThreadFuture[T any]() *ThreadFuture[T] {
	return &ThreadFuture[T]{done: make(chan struct{})}
}

// Result waits until the future is done and returns its value or error, a
// CancelledError if it was cancelled. If ctx ends before, the error is ctx's,
// and the future is not affected. It must not be called on the thread of the
// loop that is to complete the future: it would wait for ever.
func (f *ThreadFuture[T]) Result(ctx context.Context) (T, error) {
	select {
	case <-f.done:
	case <-ctx.Done():
		if !f.Done() { // or select has chosen one of two
			var zero T
			return zero, context.Cause(ctx)
		}
	}
	return f.value, f.err
}

// Done reports whether the future has a result or an error or was cancelled.
func (f *ThreadFuture[T]) Done() bool {
	select {
	case <-f.done:
		return true
	default:
		return false
	}
}

// Cancelled reports whether the future was cancelled.
func (f *ThreadFuture[T]) Cancelled() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state == cancelled
}

// Cancel makes the future cancelled and reports whether it was pending. What
// works for it is asked to end: the task of RunCoroutineThreadsafe, the futures
// of WrapFuture.
func (f *ThreadFuture[T]) Cancel() bool {
	var zero T
	return f.settle(cancelled, zero, &CancelledError{})
}

// SetResult completes the future; it fails with ErrInvalidState if it is done.
func (f *ThreadFuture[T]) SetResult(value T) error {
	if !f.settle(finished, value, nil) {
		return fmt.Errorf("%w: the future is done already", ErrInvalidState)
	}
	return nil
}

// SetException completes the future with an error, which must not be nil; it
// fails with ErrInvalidState if the future is done.
func (f *ThreadFuture[T]) SetException(err error) error {
	if err == nil {
		return fmt.Errorf("%w: SetException of a nil error", ErrInvalidArgument)
	}
	var zero T
	if !f.settle(finished, zero, err) {
		return fmt.Errorf("%w: the future is done already", ErrInvalidState)
	}
	return nil
}

// AddDoneCallback arranges for fn to be called when the future is done, on the
// goroutine that completes it; if it is done already, at once. A panic of fn is
// passed on to who completes the future, when the other callbacks were called.
func (f *ThreadFuture[T]) AddDoneCallback(fn func()) {
	f.mu.Lock()
	if f.state == pending {
		f.callbacks = append(f.callbacks, fn)
		f.mu.Unlock()
		return
	}
	f.mu.Unlock()
	fn()
}

// settle completes the future and reports whether it was pending.
func (f *ThreadFuture[T]) settle(state futureState, value T, err error) bool {
	f.mu.Lock()
	if f.state != pending {
		f.mu.Unlock()
		return false
	}
	f.state, f.value, f.err = state, value, err
	callbacks := f.callbacks
	f.callbacks = nil
	close(f.done)
	f.mu.Unlock()
	callAll(callbacks)
	return true
}

// callAll calls every function, also if one of them panics.
func callAll(fns []func()) {
	if len(fns) > 0 {
		defer callAll(fns[1:])
		fns[0]()
	}
}

// RunCoroutineThreadsafe makes a task that runs fn on the loop and returns a
// future of its result, for goroutines that are not the loop's
// (asyncio.run_coroutine_threadsafe). Cancelling the future cancels the task. If
// the loop is closed before the task has ended, the error is ErrLoopClosed. If
// the task factory refuses the task or panics, that is the future's error and is
// also reported to the exception handler. A nil fn is an ErrInvalidArgument. It
// may be called from any goroutine.
func RunCoroutineThreadsafe[T any](l *Loop, fn func(co *Coro) (T, error)) *ThreadFuture[T] {
	f := NewThreadFuture[T]()
	forget := l.onClose(func(err error) { _ = f.SetException(err) })
	f.AddDoneCallback(forget)
	err := fmt.Errorf("%w: the task's function is nil", ErrInvalidArgument)
	if fn != nil {
		_, err = l.CallSoonThreadsafe(func() { f.run(l, fn) })
	}
	if err != nil {
		_ = f.SetException(fmt.Errorf("RunCoroutineThreadsafe: %w", err))
	}
	return f
}

// run makes the task that completes the future. It runs on the loop.
func (f *ThreadFuture[T]) run(l *Loop, fn func(co *Coro) (T, error)) {
	const failed = "Task could not be created"
	var t *Task[T]
	defer func() {
		if t != nil {
			return
		}
		// The task factory panicked, or called runtime.Goexit.
		r, stack := recover(), debug.Stack()
		if r == nil {
			_ = f.SetException(ErrGoexit)
			return
		}
		err := &PanicError{Value: r, Stack: stack}
		_ = f.SetException(err)
		l.HandlePanic(r, stack, &ExceptionContext{Message: failed, Exception: err})
	}()
	t = CreateTask(l, fn, nil)
	if t.Done() && t.body != nil { // it was never started
		l.CallExceptionHandler(&ExceptionContext{Message: failed, Exception: t.Exception(), Task: t})
	}
	t.AddDoneCallback(func(AnyFuture) {
		// Of a future that was cancelled meanwhile nobody wants the result. An
		// error is reported then.
		switch {
		case t.Cancelled():
			f.Cancel()
		case t.err == nil:
			_ = f.SetResult(t.value)
		case f.SetException(t.err) == nil:
			t.retrieved()
		}
	})
	f.AddDoneCallback(func() {
		if f.Cancelled() {
			_, _ = l.CallSoonThreadsafe(func() {
				if !t.Done() { // or its error would not be reported
					t.Cancel("")
				}
			})
		}
	})
}

// WrapFuture returns a future of the loop that ends as f does
// (asyncio.wrap_future). Cancelling one cancels the other. For a nil f it fails
// with ErrInvalidArgument. Loop's thread only.
func WrapFuture[T any](l *Loop, f *ThreadFuture[T]) *Future[T] {
	w := CreateFuture[T](l)
	if f == nil {
		w.fail(fmt.Errorf("WrapFuture: %w: the future is nil", ErrInvalidArgument))
		return w
	}
	f.AddDoneCallback(func() {
		// A closed loop has nobody left to tell.
		_, _ = l.CallSoonThreadsafe(func() {
			if f.Cancelled() {
				w.Cancel("")
				return
			}
			w.complete(f.value, f.err)
		})
	})
	w.AddDoneCallback(func(AnyFuture) {
		if w.Cancelled() {
			f.Cancel()
		}
	})
	return w
}

// IsFuture reports whether v is a Future or a Task (asyncio.isfuture).
func IsFuture(v any) bool {
	_, ok := v.(AnyFuture)
	return ok
}

// EnsureFuture returns a, after checking that it belongs to l
// (asyncio.ensure_future); otherwise the error is ErrDifferentLoop, and
// ErrInvalidArgument for a nil a, also a nil *Future or *Task. Go has no
// coroutine objects that would have to be wrapped: CreateTask takes the function
// itself.
func EnsureFuture[T any](l *Loop, a Awaitable[T]) (Awaitable[T], error) {
	switch {
	case isNil(a):
		return nil, fmt.Errorf("EnsureFuture: %w: the future is nil", ErrInvalidArgument)
	case a.Loop() != l:
		return nil, fmt.Errorf("EnsureFuture: %w", ErrDifferentLoop)
	}
	return a, nil
}

// closers are what other goroutines want to be told of when the loop closes.
type closers struct {
	mu  sync.Mutex
	fns map[*func(error)]struct{}
}

// onClose arranges for fn to be called when the loop is closed; forget undoes
// that. It may be called from any goroutine.
func (l *Loop) onClose(fn func(error)) (forget func()) {
	c := &l.closers
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fns == nil {
		c.fns = map[*func(error)]struct{}{}
	}
	key := &fn
	c.fns[key] = struct{}{}
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		delete(c.fns, key)
	}
}

// takeOne removes an element of a set and returns it, the zero value if there is
// none.
func takeOne[T comparable](mu *sync.Mutex, set *map[T]struct{}) (one T) {
	mu.Lock()
	defer mu.Unlock()
	for one = range *set {
		delete(*set, one)
		break
	}
	return one
}

// tellClosed tells those who called onClose.
func (l *Loop) tellClosed() {
	for {
		fn := takeOne(&l.closers.mu, &l.closers.fns)
		if fn == nil {
			return
		}
		l.guarded(func() { (*fn)(ErrLoopClosed) }, "Panic in a callback of a ThreadFuture")
	}
}
