package loop

import (
	"fmt"
	"time"
)

// Entered is what EnterContext replaced, for LeaveContext, and when.
type Entered struct {
	scope scope
	since time.Duration // 0 outside debug mode
}

// EnterContext makes ctx the current context, as it is, until LeaveContext. It
// is for packages that call users' code from completions of I/O, and allocates
// nothing there. Loop's thread only.
func (l *Loop) EnterContext(ctx *Context) Entered {
	l.keepContext()
	before := Entered{scope: l.scope}
	if l.debug.Load() {
		before.since = l.Time()
	}
	l.scope = scope{ctx: ctx}
	return before
}

// LeaveContext undoes EnterContext. Calls are nested.
func (l *Loop) LeaveContext(before Entered) { l.scope = before.scope }

// LogSlow logs, in debug mode, that the call of a protocol between EnterContext
// and now took SlowCallbackDuration or longer. It names the type of the protocol and
// prints the transport with %v. Loop's thread only.
func (l *Loop) LogSlow(before Entered, protocol, transport any) {
	if before.since != 0 {
		l.logSlow(l.Time()-before.since, func() string { return fmt.Sprintf("%T of %v", protocol, transport) })
	}
}
