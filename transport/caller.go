package transport

import (
	"runtime/debug"

	"github.com/seed-80cfe818/ringloop/loop"
)

// caller calls the protocol of a transport, in the context in which the
// transport was made.
type caller struct {
	loop *loop.Loop
	ctx  *loop.Context
}

func newCaller(l *loop.Loop) caller { return caller{l, l.CurrentContext().Copy()} }

// call calls fn, which calls the protocol. A panic is reported as one of the
// callback named what.
func (c *caller) call(what string, transport, protocol any, fn func()) {
	c.callOrEnd(nil, what, transport, protocol, fn)
}

// callOrEnd is call for a callback whose panic ends the transport: end is called
// with it, as a *loop.PanicError, before it is reported. ok says that there was none.
func (c *caller) callOrEnd(end func(error), what string, transport, protocol any, fn func()) (ok bool) {
	before := c.loop.EnterContext(c.ctx)
	defer func() {
		c.loop.LeaveContext(before)
		c.loop.LogSlow(before, protocol, transport)
		if r := recover(); r != nil {
			stack := debug.Stack()
			err := &loop.PanicError{Value: r, Stack: stack}
			if end != nil {
				end(err)
			}
			c.loop.HandlePanic(r, stack, &loop.ExceptionContext{
				Message: "Panic in " + what, Exception: err, Transport: transport, Protocol: protocol,
			})
		}
	}()
	fn()
	return true
}

// soon queues fn for the next turn.
func (c *caller) soon(fn func()) { callSoon(c.loop, c.ctx, fn) }

// callSoon queues fn for the next turn. On a closed loop nobody is left to be told.
func callSoon(l *loop.Loop, ctx *loop.Context, fn func()) { _, _ = l.CallSoonContext(ctx, fn) }
