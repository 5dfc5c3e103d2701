package loop

import (
	"fmt"
	"runtime/debug"
	"strings"
	"sync/atomic"
)

// ExceptionContext describes an error that nobody can be told about directly
// (the context dict of loop.call_exception_handler). Fields that do not apply
// are zero.
type ExceptionContext struct {
	// Message says what went wrong.
	Message string
	// Exception is the error; that of a panic is a *PanicError.
	Exception error
	// Future and Task are what the error ended, or who nobody waits for.
	Future any
	Task   AnyTask
	// Handle describes the callback that has failed.
	Handle fmt.Stringer
	// Protocol and Transport are those of the connection, and Socket is the
	// listening one, all of package transport.
	Protocol, Transport, Socket any
	// AsyncGen is the *AsyncGen that could not be closed, or its description.
	AsyncGen any
	// SourceTraceback says where the future or task was made, in debug mode.
	SourceTraceback string
	// HandleTraceback says where the running callback was scheduled, in debug
	// mode.
	HandleTraceback string
	// Context is the report whose own handler failed.
	Context *ExceptionContext
	// Extra holds what else is to be known.
	Extra map[string]any
}

// ExceptionHandler deals with the errors that nobody else can be told about. It
// is called on the loop's thread; c is its own to keep.
type ExceptionHandler func(l *Loop, c *ExceptionContext)

// SetExceptionHandler installs a handler; nil restores the default
// (loop.set_exception_handler). Loop's thread only.
func (l *Loop) SetExceptionHandler(h ExceptionHandler) { l.handler = h }

// ExceptionHandler returns the custom handler, nil for the default
// (loop.get_exception_handler). Loop's thread only.
func (l *Loop) ExceptionHandler() ExceptionHandler { return l.handler }

// CallExceptionHandler passes c to the custom or the default handler, in the
// context of the task of c, else of the running callback
// (loop.call_exception_handler). If the handler panics, the default handler is
// told of that, with c as the Context. It never panics, except for a LoopExit.
// Loop's thread only.
func (l *Loop) CallExceptionHandler(c *ExceptionContext) {
	before := l.scope
	if c.Task != nil {
		l.scope = scope{ctx: c.Task.Context()}
	}
	defer func() { l.scope = before }()
	h := l.handler
	if h == nil {
		l.tryDefaultHandler(c)
		return
	}
	if r := try(func() { h(l, c) }); r != nil {
		if l.exiting(r) {
			return
		}
		l.tryDefaultHandler(&ExceptionContext{
			Message:   "Unhandled error in exception handler",
			Exception: &PanicError{Value: r, Stack: debug.Stack()},
			Context:   c,
		})
	}
}

// tryDefaultHandler calls the default handler and logs its own failure.
func (l *Loop) tryDefaultHandler(c *ExceptionContext) {
	if r := try(func() { l.DefaultExceptionHandler(c) }); r != nil && !l.exiting(r) {
		l.Logger().Error("Error in default exception handler while handling: "+c.Message, "panic", formatPanic(r))
	}
}

// try calls fn and returns the value that it panicked with.
func try(fn func()) (r any) {
	defer func() { r = recover() }()
	fn()
	return nil
}

// HandlePanic deals with a value that was recovered from a panic of a user's
// function: a LoopExit ends the run; anything else is reported to the exception
// handler as c, with a PanicError. stack is debug.Stack() of the panic. It is
// for packages that call users' code from completions of I/O.
func (l *Loop) HandlePanic(r any, stack []byte, c *ExceptionContext) {
	if l.exiting(r) {
		return
	}
	if c.Exception == nil {
		c.Exception = &PanicError{Value: r, Stack: stack}
	}
	l.CallExceptionHandler(c)
}

// exiting notes a LoopExit; it reports whether r is one.
func (l *Loop) exiting(r any) bool {
	exit, ok := r.(LoopExit)
	if !ok {
		if _, ok = r.(exitDispatch); ok {
			panic(r)
		}
		return false
	}
	l.exit = &exit
	if l.dispatching && l.current == nil {
		panic(exitDispatch{})
	}
	return true
}

// callbackPanicked reports the panic of a callback.
func (l *Loop) callbackPanicked(r any, h Handle) {
	if l.exiting(r) {
		return
	}
	c := &ExceptionContext{
		Message:         "Exception in callback" + h.debug.String(),
		Exception:       &PanicError{Value: r, Stack: debug.Stack()},
		HandleTraceback: h.debug.trace(),
		SourceTraceback: h.debug.trace(),
	}
	if h != (Handle{}) {
		c.Handle = h
	}
	l.CallExceptionHandler(c)
}

func formatPanic(v any) string { return strings.TrimSpace(fmt.Sprint(v)) }

// unretrieved reports an error that nobody looked at, when its future is
// collected. It must not refer to the future.
type unretrieved struct {
	loop      *Loop
	exception error
	future    string
	isTask    bool
	source    *origin
	seen      atomic.Bool
}

// retrieved notes that somebody has looked at the future's error.
func (f *future) retrieved() {
	if f.report != nil {
		f.report.seen.Store(true)
	}
}

// send posts the report to the loop's exception handler. It runs on a goroutine
// of the garbage collector's.
func (r *unretrieved) send() {
	if r.seen.Load() {
		return
	}
	what := "Future"
	if r.isTask {
		what = "Task"
	}
	// A closed loop has nobody left to tell.
	_, _ = r.loop.CallSoonThreadsafe(func() {
		r.loop.CallExceptionHandler(&ExceptionContext{
			Message: what + " exception was never retrieved", Exception: r.exception,
			Future: r.future, SourceTraceback: r.source.trace(),
		})
	})
}
