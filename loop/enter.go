package loop

// Entered is what EnterContext replaced, for LeaveContext.
type Entered struct{ scope scope }

// EnterContext makes ctx the current context, as it is, until LeaveContext. It
// is for packages that call users' code from completions of I/O, and allocates
// nothing. Loop's thread only.
func (l *Loop) EnterContext(ctx *Context) Entered {
	before := Entered{l.scope}
	l.scope = scope{ctx: ctx}
	return before
}

// LeaveContext undoes EnterContext. Calls are nested.
func (l *Loop) LeaveContext(before Entered) { l.scope = before.scope }
