package loop

import (
	"fmt"
	"sync/atomic"
	"time"
)

// callback is a queued function. It is pooled: gen tells its lives apart, so
// that a Handle of a former life does nothing. A cancelled one is left to the
// garbage collector, because its handles still answer.
type callback struct {
	loop *Loop
	fn   func()
	task *task // woken instead of calling fn, if not nil
	ctx  *Context
	vars *vars
	gen  uint64
	// shared is set for a callback that any goroutine may cancel.
	shared *atomic.Int32
	debug  *origin

	cancelled bool
	timer     bool
}

// The states of callback.shared.
const (
	sharedPending int32 = iota
	sharedTaken
	sharedCancelled
)

// Handle is a scheduled callback (asyncio.Handle). It is a small value to be
// copied; the zero Handle is one of nothing. Its methods may be called on the
// loop's thread only, those of a handle made by CallSoonThreadsafe on any.
type Handle struct {
	cb  *callback
	gen uint64
	// debug describes this life of the callback, also when that is over.
	debug *origin
}

// Cancel prevents the callback from being called and drops the loop's reference
// to it. It does nothing if the callback has been called, or is being called
// now, or was cancelled before (asyncio.Handle.cancel).
func (h Handle) Cancel() {
	cb := h.cb
	switch {
	case cb == nil:
	case cb.shared != nil:
		if cb.shared.CompareAndSwap(sharedPending, sharedCancelled) {
			cb.fn = nil
		}
	case cb.gen == h.gen && !cb.cancelled:
		cb.cancelled = true
		cb.fn, cb.task = nil, nil
		if cb.timer {
			cb.loop.timers.cancelled++
		}
	}
}

// Cancelled reports whether the callback was cancelled before it was called
// (asyncio.Handle.cancelled).
func (h Handle) Cancelled() bool {
	if h.cb == nil {
		return false
	}
	if h.cb.shared != nil {
		return h.cb.shared.Load() == sharedCancelled
	}
	return h.cb.gen == h.gen && h.cb.cancelled
}

// Context returns the context in which the callback will be called: the very
// object given when it was scheduled, or its private copy. It is nil once the
// callback was called (asyncio.Handle.get_context). Loop's thread only.
func (h Handle) Context() *Context {
	cb := h.cb
	if cb == nil || cb.gen != h.gen || cb.shared != nil && cb.shared.Load() == sharedTaken {
		return nil
	}
	if cb.ctx == nil {
		cb.ctx = &Context{vars: cb.vars}
	}
	return cb.ctx
}

// String describes the handle; in debug mode with the function and the place
// that scheduled it.
func (h Handle) String() string {
	if h.debug != nil && h.debug.timer != nil {
		return TimerHandle{h, *h.debug.timer}.String()
	}
	return "<Handle" + h.state() + ">"
}

// TimerHandle is a callback scheduled for a time (asyncio.TimerHandle).
type TimerHandle struct {
	Handle
	when time.Duration
}

// When returns the time on the loop's clock for which the callback was
// scheduled, also after it was called or cancelled (asyncio.TimerHandle.when).
func (h TimerHandle) When() time.Duration { return h.when }

// String describes the handle.
func (h TimerHandle) String() string {
	return fmt.Sprintf("<TimerHandle when=%v%s>", h.when, h.state())
}

// state is what the descriptions of all handles have in common.
func (h Handle) state() string {
	if h.Cancelled() {
		return " cancelled" + h.debug.String()
	}
	return h.debug.String()
}

// newCallback takes a callback from the pool and captures the current context.
func (l *Loop) newCallback(fn func(), ctx *Context) *callback {
	var cb *callback
	if n := len(l.freeCallbacks); n > 0 {
		cb = l.freeCallbacks[n-1]
		l.freeCallbacks = l.freeCallbacks[:n-1]
	} else {
		cb = &callback{loop: l}
	}
	cb.fn = fn
	cb.ctx = ctx
	if ctx == nil {
		cb.vars = l.scope.snapshot()
	}
	if l.debug.Load() {
		cb.debug = l.originOf(fn)
	}
	return cb
}

const maxFreeCallbacks = 4096

// run calls the callback, unless it was cancelled.
func (cb *callback) run(l *Loop) {
	if cb.shared != nil {
		if !cb.shared.CompareAndSwap(sharedPending, sharedTaken) {
			return
		}
	} else if cb.cancelled {
		return
	}
	fn, t, sc := cb.fn, cb.task, scope{cb.ctx, cb.vars}
	h := Handle{cb, cb.gen, cb.debug}
	if cb.shared == nil {
		cb.gen++
	}
	cb.fn, cb.task, cb.ctx, cb.vars, cb.timer = nil, nil, nil, nil, false
	if cb.shared == nil { // others may look at a shared one
		cb.debug = nil
		if len(l.freeCallbacks) < maxFreeCallbacks {
			l.freeCallbacks = append(l.freeCallbacks, cb)
		}
	}
	if t != nil {
		t.step(l)
		return
	}
	l.call(h, fn, sc)
}

// call runs fn in a context and reports its panic to the exception handler. In
// debug mode it also reports that it was slow.
func (l *Loop) call(h Handle, fn func(), sc scope) {
	if l.debug.Load() {
		l.callTimed(h, fn, sc)
		return
	}
	l.callIn(h, fn, sc)
}

func (l *Loop) callIn(h Handle, fn func(), sc scope) {
	before := l.scope
	l.scope = sc
	defer func() {
		if r := recover(); r != nil {
			l.callbackPanicked(r, h)
		}
		l.scope = before
	}()
	fn()
}
