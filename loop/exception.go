package loop

import (
	"fmt"
	"runtime/debug"
	"strings"
)

// ExceptionContext describes an error that nobody can be told about directly
// (the context dict of loop.call_exception_handler). Fields that do not apply
// are zero.
type ExceptionContext struct {
	// Message says what has happened.
	Message string
	// Exception is the error, a *PanicError for a panic.
	Exception error
	// Future is the future or, if that was collected, its description.
	Future any
	// Task is the task that failed.
	Task AnyTask
	// Handle is the callback that failed, a Handle.
	Handle fmt.Stringer
	// Protocol and Transport belong to the connection, datagram endpoint, pipe
	// or subprocess.
	Protocol, Transport any
	// Socket is the listening one of package transport.
	Socket any
	// AsyncGen is the *AsyncGen or, if that was collected, its description.
	AsyncGen any
	// SourceTraceback is the stack that made the future or task, in debug mode.
	SourceTraceback string
	// HandleTraceback is the stack that scheduled the callback, in debug mode.
	HandleTraceback string
	// Context is the report whose own handler failed.
	Context *ExceptionContext
	// Extra holds what else is to be known.
	Extra map[string]any
}

// ExceptionHandler deals with the errors that nobody else can be told about. It is
// called on the loop's thread, or, while the loop does not run, on the goroutine
// that uses it. It must not wait, and may keep c.
type ExceptionHandler func(l *Loop, c *ExceptionContext)

// SetExceptionHandler installs a handler; nil restores the default
// (loop.set_exception_handler).
func (l *Loop) SetExceptionHandler(h ExceptionHandler) { l.handler = h }

// ExceptionHandler returns the custom handler, nil for the default
// (loop.get_exception_handler).
func (l *Loop) ExceptionHandler() ExceptionHandler { return l.handler }

// CallExceptionHandler passes c to the custom or the default handler, in the
// context of the Task of c, else of its Future if that is a task, else of its
// Handle, else in the current one (loop.call_exception_handler). If the handler
// panics, the default handler is told of that, with c as the Context; a LoopExit
// ends the run, between two runs the next. It never panics. Loop's thread only.
func (l *Loop) CallExceptionHandler(c *ExceptionContext) {
	if c == nil {
		c = &ExceptionContext{}
	}
	l.keepContext()
	before := l.scope
	if ctx := c.runsIn(); ctx != nil {
		l.scope = scope{ctx: ctx}
	}
	defer func() { l.scope = before }()
	h := l.handler
	if h == nil {
		l.tryDefaultHandler(c)
		return
	}
	if err := try(func() { h(l, c) }); err != nil && !l.exiting(err.Value) {
		l.tryDefaultHandler(&ExceptionContext{
			Message:   "Unhandled error in exception handler",
			Exception: err,
			Context:   c,
		})
	}
}

// runsIn returns the context in which the handler is to be called, nil for the
// current one, which is also that of a nil pointer.
func (c *ExceptionContext) runsIn() *Context {
	for _, about := range []any{c.Task, c.Future, c.Handle} {
		if in, ok := about.(interface{ Context() *Context }); ok && !isNil(about) {
			return in.Context()
		}
	}
	return nil
}

// tryDefaultHandler calls the default handler and logs its own failure. If the
// logger panics too, there is nobody left to tell.
func (l *Loop) tryDefaultHandler(c *ExceptionContext) {
	err := try(func() { l.DefaultExceptionHandler(c) })
	if err == nil || l.exiting(err.Value) {
		return
	}
	err = try(func() {
		l.Logger().Error("Error in default exception handler while handling: "+c.Message, "panic", formatPanic(err.Value), keyTraceback, string(err.Stack))
	})
	if err != nil {
		l.exiting(err.Value)
	}
}

// try calls fn and returns its panic.
func try(fn func()) (err *PanicError) {
	defer func() {
		if r := recover(); r != nil {
			err = &PanicError{Value: r, Stack: debug.Stack()}
		}
	}()
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
	if ok {
		l.leave(exit)
	}
	return ok
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
		Handle:          h,
	}
	l.CallExceptionHandler(c)
}

func formatPanic(v any) string { return strings.TrimSpace(fmt.Sprint(v)) }
