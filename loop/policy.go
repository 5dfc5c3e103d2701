package loop

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// Policy decides what the current event loop is while none is running
// (asyncio.AbstractEventLoopPolicy). Its methods may be called from any
// goroutine.
type Policy interface {
	// EventLoop returns the current loop, or ErrNoEventLoop; never nil without
	// an error.
	EventLoop() (*Loop, error)
	// SetEventLoop makes l the current loop; nil means none. It neither runs nor
	// owns nor closes it.
	SetEventLoop(l *Loop)
	// NewEventLoop makes a loop, which does not become the current one. Run calls
	// it, and returns its error; the function NewEventLoop does not.
	NewEventLoop() (*Loop, error)
}

// DefaultPolicy is the policy unless another is set
// (asyncio.DefaultEventLoopPolicy). asyncio has a current loop per thread; a
// goroutine has no identity to keep one for, so that this policy has one for the
// whole process. It never makes one by itself. The zero value is ready for use,
// also to be embedded.
type DefaultPolicy struct {
	current atomic.Pointer[Loop]
}

// EventLoop returns what SetEventLoop was given last, or ErrNoEventLoop.
func (p *DefaultPolicy) EventLoop() (*Loop, error) {
	if l := p.current.Load(); l != nil {
		return l, nil
	}
	return nil, ErrNoEventLoop
}

// SetEventLoop makes l the current loop of the process; nil means none.
func (p *DefaultPolicy) SetEventLoop(l *Loop) { p.current.Store(l) }

// NewEventLoop is the function NewEventLoop without options.
func (p *DefaultPolicy) NewEventLoop() (*Loop, error) { return NewEventLoop() }

// policy is the process's policy, nil until it is asked for.
var policy struct {
	sync.Mutex
	p Policy
}

// EventLoopPolicy returns the process's policy (asyncio.get_event_loop_policy).
// It may be called from any goroutine.
func EventLoopPolicy() Policy {
	policy.Lock()
	defer policy.Unlock()
	if policy.p == nil {
		policy.p = &DefaultPolicy{}
	}
	return policy.p
}

// SetEventLoopPolicy replaces the process's policy; nil stands for a new
// DefaultPolicy (asyncio.set_event_loop_policy). Loops that exist are not
// affected. It may be called from any goroutine.
func SetEventLoopPolicy(p Policy) {
	policy.Lock()
	defer policy.Unlock()
	policy.p = p
}

// EventLoop returns the loop that is running in the calling thread or, outside
// of callbacks and tasks, the policy's current loop (asyncio.get_event_loop).
// The error is ErrNoEventLoop if there is none. It may be called from any
// goroutine.
func EventLoop() (*Loop, error) {
	if l, err := RunningLoop(); err == nil {
		return l, nil
	}
	p := EventLoopPolicy()
	l, err := p.EventLoop()
	if err == nil && l == nil {
		err = fmt.Errorf("policy %T: %w", p, ErrNoEventLoop)
	}
	return l, err
}

// SetEventLoop makes l the policy's current loop; nil means none
// (asyncio.set_event_loop). RunningLoop is not affected. It may be called from
// any goroutine.
func SetEventLoop(l *Loop) { EventLoopPolicy().SetEventLoop(l) }
