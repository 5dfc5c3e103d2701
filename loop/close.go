package loop

import (
	"fmt"
	"runtime"
)

// Close releases the backend, the loop's thread and its signal handlers, and
// shuts the default executor down without waiting for it (loop.close). It may
// be called from any goroutine while the loop does not run; a running loop is
// refused with ErrLoopRunning. It is idempotent.
//
// Operations in flight are cancelled. Queued callbacks and timers are dropped,
// and futures stay pending for ever. A task that is waiting is reported to the
// exception handler, and its wait, like every later one, returns ErrLoopClosed,
// so that its deferred functions run. In debug mode the errors of futures and
// tasks that nobody has looked at are reported too. Transports get no
// ConnectionLost: close them first.
func (l *Loop) Close() error {
	l.mu.Lock()
	if l.running.Load() {
		l.mu.Unlock()
		return fmt.Errorf("close: %w", ErrLoopRunning)
	}
	if l.closed.Swap(true) {
		l.mu.Unlock()
		return nil
	}
	l.mu.Unlock()
	l.unclosed.Stop()
	var err error
	if l.requests == nil {
		err = l.releaseAll()
	} else {
		l.onLoop(func() { err = l.releaseAll() })
		close(l.requests)
		<-l.ended
	}
	return err
}

// releaseAll lets go of everything that the loop holds.
func (l *Loop) releaseAll() error {
	l.closeParts()
	err := l.closeBackend()
	l.cancelEarly()
	l.closeAttached()
	l.tellUnseen()
	for t := l.tasks; t != nil; t = l.tasks {
		l.abandon(t)
	}
	for _, w := range l.idleWorkers {
		w.stop()
	}
	l.idleWorkers = nil
	l.mu.Lock()
	l.inbox = nil
	l.mu.Unlock()
	l.ready, l.timers = queue{}, timerHeap{}
	l.due, l.freeCallbacks, l.turnEnders, l.turnEnded, l.early = nil, nil, nil, 0, nil
	l.callSure(true)
	if err != nil {
		return fmt.Errorf("close backend %s: %w", l.be.Name(), err)
	}
	return nil
}

// closeBackend delivers the last completions, also if a receiver panics at one.
func (l *Loop) closeBackend() (err error) {
	for closed := false; !closed; {
		l.guarded(func() {
			err = l.be.Close()
			closed = true
		}, "Panic in an I/O completion")
	}
	return err
}

// abandon ends the coroutine of a task that is pending when the loop closes.
func (l *Loop) abandon(t *task) {
	if !t.quiet {
		t.quiet = true // also if the handler ends its goroutine
		l.CallExceptionHandler(&ExceptionContext{
			Message: "Task was destroyed but it is pending!", Task: t.self.(AnyTask), SourceTraceback: t.debug.trace(),
		})
	}
	l.unlink(t)
	w := t.worker
	if w == nil {
		return
	}
	t.worker = nil
	before := l.scope
	l.current, l.scope = t, scope{t.ctx, t.vars}
	w.stop()
	l.current, l.scope = nil, before
}

// maxAbandoned is how many waits of a task may fail with ErrLoopClosed before
// the task is unwound by a panic, because it does not look at the error. After as
// many again that it has recovered from, it is ended by runtime.Goexit, from which
// it cannot.
const maxAbandoned = 100

// unwind is the panic that ends a task which goes on waiting on a closed loop.
type unwind struct{}

// closedError returns ErrLoopClosed. It counts the attempts of a task that is
// being unwound.
func (l *Loop) closedError() error {
	if l.current != nil {
		return l.abandoned(l.current)
	}
	return ErrLoopClosed
}

// abandoned returns the error of a wait on a closed loop.
func (l *Loop) abandoned(t *task) error {
	switch t.abandons = min(t.abandons+1, 2*maxAbandoned+1); {
	case t.abandons > 2*maxAbandoned:
		runtime.Goexit()
	case t.abandons > maxAbandoned:
		panic(unwind{})
	}
	return fmt.Errorf("task %s: %w", t.name(), ErrLoopClosed)
}
