package loop

import "maps"

// Context holds the values of context variables (contextvars.Context). Every
// callback and task runs in one: by default in a copy of the context of the
// code that scheduled it. A Context belongs to one loop's thread.
type Context struct {
	vars *vars
}

// vars is an immutable set of values, shared by the contexts copied from each
// other. nil is the empty set.
type vars struct {
	m map[any]any
}

// NewContext returns an empty context.
func NewContext() *Context { return &Context{} }

// Copy returns a context with the same values, in constant time
// (contextvars.copy_context).
func (c *Context) Copy() *Context { return &Context{vars: c.vars} }

// Len returns the number of variables that have a value.
func (c *Context) Len() int {
	if c.vars == nil {
		return 0
	}
	return len(c.vars.m)
}

// ContextVar is a variable whose value depends on the context
// (contextvars.ContextVar). Its identity is its address.
type ContextVar[T any] struct {
	name string
}

// NewContextVar returns a new variable; the name is for messages.
func NewContextVar[T any](name string) *ContextVar[T] { return &ContextVar[T]{name: name} }

// Name returns the name given to NewContextVar.
func (v *ContextVar[T]) Name() string { return v.name }

// Get returns the variable's value in c; ok is false if it has none.
func (v *ContextVar[T]) Get(c *Context) (value T, ok bool) {
	if c == nil || c.vars == nil {
		return value, false
	}
	held, ok := c.vars.m[v]
	value, _ = held.(T) // not so for a nil interface
	return value, ok
}

// Set gives the variable a value in c and returns a function that restores what
// was there before. A value that refers to the task of c prevents the report of
// an error of that task which nobody retrieves: that is made when the garbage
// collector finds the task unused, and in the task's context.
func (v *ContextVar[T]) Set(c *Context, value T) (reset func()) {
	before := c.vars
	next := &vars{m: map[any]any{}}
	if before != nil {
		next.m = maps.Clone(before.m)
	}
	next.m[v] = value
	c.vars = next
	return func() { v.restore(c, before) }
}

// restore gives the variable the value that it had in before.
func (v *ContextVar[T]) restore(c *Context, before *vars) {
	next := &vars{m: maps.Clone(c.vars.m)}
	delete(next.m, v)
	if before != nil {
		if old, ok := before.m[v]; ok {
			next.m[v] = old
		}
	}
	c.vars = next
}

// scope is the context of the code that is running: ctx or, until somebody asks
// for an object, only the values that such an object would hold.
type scope struct {
	ctx  *Context
	vars *vars
}

// snapshot returns the values to be captured by what the running code
// schedules.
func (s *scope) snapshot() *vars {
	if s.ctx != nil {
		return s.ctx.vars
	}
	return s.vars
}

// copy returns a new Context with the values to be captured, for what is called
// more than once.
func (s *scope) copy() *Context { return &Context{vars: s.snapshot()} }

// context returns the Context object of the scope.
func (s *scope) context() *Context {
	if s.ctx == nil {
		s.ctx = &Context{vars: s.vars}
	}
	return s.ctx
}

// CurrentContext returns the context of the callback or task that is running,
// or the loop's own if none is. Loop's thread only.
func (l *Loop) CurrentContext() *Context { return l.scope.context() }
