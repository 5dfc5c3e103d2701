package loop

import (
	"context"
	"errors"
	"time"
)

// The conditions that asyncio reports as RuntimeError, InvalidStateError,
// ValueError or TypeError. Errors of this package wrap them with what was
// tried.
var (
	// ErrLoopClosed: the loop was closed ("Event loop is closed").
	ErrLoopClosed = errors.New("event loop is closed")
	// ErrLoopRunning: the loop is running already, or must not be for this call.
	ErrLoopRunning = errors.New("this event loop is already running")
	// ErrOtherLoopRunning: another loop is running in this thread.
	ErrOtherLoopRunning = errors.New("cannot run the event loop while another loop is running in this thread")
	// ErrNoRunningLoop: no loop is running in this thread.
	ErrNoRunningLoop = errors.New("no running event loop")
	// ErrNoEventLoop: no loop was set and none is running.
	ErrNoEventLoop = errors.New("there is no current event loop")
	// ErrStopped: the loop was stopped before the awaited future completed.
	ErrStopped = errors.New("event loop stopped before Future completed")
	// ErrWrongThread: a method that is not thread-safe was called on a thread
	// that is not the running loop's (debug mode).
	ErrWrongThread = errors.New("non-thread-safe operation invoked on an event loop other than the current one")
	// ErrDifferentLoop: a future belongs to another loop.
	ErrDifferentLoop = errors.New("future belongs to a different loop")
	// ErrInvalidState: a future is not in the state that the call needs.
	ErrInvalidState = errors.New("invalid state")
	// ErrInvalidArgument: an argument is missing or makes no sense.
	ErrInvalidArgument = errors.New("invalid argument")
	// ErrSelfAwait: a task awaited itself.
	ErrSelfAwait = errors.New("task cannot await on itself")
	// ErrNotCurrent: a Coro was used outside its own running task.
	ErrNotCurrent = errors.New("coroutine is not the one that is running")
	// ErrTimeout: a time limit passed (asyncio's TimeoutError). [Timeout] returns
	// it in a [TimeoutError].
	ErrTimeout = errors.New("timed out")
	// ErrGoexit: a task's function called runtime.Goexit. The loop goes on, and so
	// it does when a callback calls it, but 2 KB of stack are kept for each such
	// call until the loop is closed; the runtime bears some hundred thousand.
	ErrGoexit = errors.New("task called runtime.Goexit")
	// ErrCancelled is what every [CancelledError] is to errors.Is.
	ErrCancelled = errors.New("cancelled")
)

// CancelledError ends a wait that was cancelled (asyncio's CancelledError). It
// is ErrCancelled and context.Canceled to errors.Is.
type CancelledError struct {
	// Msg is the message given to Cancel, which may be empty.
	Msg string
}

// Error includes the message.
func (e *CancelledError) Error() string {
	if e.Msg == "" {
		return ErrCancelled.Error()
	}
	return ErrCancelled.Error() + ": " + e.Msg
}

// Is reports whether target is ErrCancelled or context.Canceled.
func (e *CancelledError) Is(target error) bool {
	return target == ErrCancelled || target == context.Canceled
}

// TimeoutError says that a wait took longer than [Timeout] allows. It is
// ErrTimeout to errors.Is.
type TimeoutError struct {
	// Limit is the time that was allowed.
	Limit time.Duration
	// WaitsFor describes what the task was waiting for when that had passed, as
	// in "recv on fd 7"; it is empty if that is not known.
	WaitsFor string
}

// Error includes the limit and what the task was waiting for.
func (e *TimeoutError) Error() string {
	s := ErrTimeout.Error() + " after " + e.Limit.String()
	if e.WaitsFor != "" {
		s += ", waiting for " + e.WaitsFor
	}
	return s
}

// Unwrap returns ErrTimeout.
func (e *TimeoutError) Unwrap() error { return ErrTimeout }

// Timeout returns true, for code that asks as for a net.Error.
func (e *TimeoutError) Timeout() bool { return true }

// LoopExit is the value of a panic in a callback or task that unwinds the run,
// which returns Err at once. The callbacks of the turn that did not run yet stay
// queued for the next run. If it was another callback that has called the one
// that panics, as by a Write that pauses a protocol, it returns first. (In
// asyncio, KeyboardInterrupt and SystemExit do this.)
type LoopExit struct {
	// Err is what Run and RunForever return. It may be nil. RunUntilComplete
	// returns ErrStopped then, unless the future is done.
	Err error
}

// PanicError is the error of a callback or task that panicked.
type PanicError struct {
	// Value is the argument of panic.
	Value any
	// Stack is the goroutine's stack at the panic, as debug.Stack formats it.
	Stack []byte
}

// Error formats the panic's value, without the stack.
func (e *PanicError) Error() string { return "panic: " + formatPanic(e.Value) }

// Unwrap returns the panic's value if it is an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}
