package loop

import (
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"
)

// maxWait is the longest that the loop sleeps; asyncio has the same limit.
const maxWait = 24 * time.Hour

// RunForever runs the loop until Stop is called (loop.run_forever). It may be
// called from any goroutine that is not on a running loop's thread; the loop
// runs on its own thread, and the caller waits. If Stop was called before, one
// turn is run, without waiting.
//
// The error is ErrLoopClosed, ErrLoopRunning, ErrOtherLoopRunning, that of a
// LoopExit, or says why the backend does not work (any longer).
func (l *Loop) RunForever() error {
	if err := l.enter(); err != nil {
		return fmt.Errorf("RunForever: %w", err)
	}
	defer l.left()
	if err := l.runEntered(); err != errExited {
		return err
	}
	return nil
}

// enter claims the loop for a run.
func (l *Loop) enter() error {
	if other := loopOfThread(); other != nil && other != l && other.running.Load() {
		return ErrOtherLoopRunning
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed.Load() {
		return ErrLoopClosed
	}
	if !l.running.CompareAndSwap(false, true) {
		return ErrLoopRunning
	}
	return nil
}

// left gives the loop up after a run.
func (l *Loop) left() {
	l.mu.Lock()
	l.running.Store(false)
	l.mu.Unlock()
}

// runEntered runs the loop, which the caller has entered and leaves.
func (l *Loop) runEntered() (err error) {
	l.onLoop(func() { err = l.run() })
	return err
}

// RunUntilComplete runs the loop until a is done and returns its result
// (loop.run_until_complete). If the loop is stopped before, the error is
// ErrStopped and a stays as it is, to be completed by a later run. It is
// ErrInvalidArgument for a nil a, also a nil *Future or *Task, and
// ErrDifferentLoop for one of another loop. For others see RunForever.
func RunUntilComplete[T any](l *Loop, a Awaitable[T]) (T, error) {
	var zero T
	if isNil(a) {
		return zero, fmt.Errorf("RunUntilComplete: %w: the future is nil", ErrInvalidArgument)
	}
	switch done, err := l.runUntil(a); {
	case err == errExited && !done:
		return zero, fmt.Errorf("RunUntilComplete: %w", ErrStopped)
	case err != nil && err != errExited:
		return zero, fmt.Errorf("RunUntilComplete: %w", err)
	}
	return a.Result()
}

// runUntil runs the loop until f is done, and reports whether it is. When it has
// returned, only a future that is done may be looked at.
func (l *Loop) runUntil(f AnyFuture) (done bool, err error) {
	if f.Loop() != l {
		return false, ErrDifferentLoop
	}
	if err := l.enter(); err != nil {
		return false, err
	}
	defer l.left() // last, for then another goroutine may run the loop
	if t := f.asTask(); t != nil {
		t.quiet = true // the caller knows that it is pending
	}
	over := false
	cb := f.addDoneCallback(nil, func(AnyFuture) {
		// It may stay queued after a LoopExit, and must not stop the next run.
		if !over {
			l.Stop()
		}
	})
	err = l.runEntered()
	over = true
	f.RemoveDoneCallback(cb)
	if done = f.Done(); err == nil && !done {
		err = ErrStopped
	}
	return done, err
}

// Stop makes the run end after the current turn (loop.stop). What that turn
// scheduled stays queued for the next run. It is idempotent, and legal before a
// run and on a closed loop. From another goroutine, post it:
// l.CallSoonThreadsafe(l.Stop).
func (l *Loop) Stop() {
	if !l.Refuses("Loop.Stop") {
		l.stopping = true
	}
}

// errExited is what run returns for a LoopExit without an error.
var errExited = errors.New("the loop was left")

// run turns the loop until it is to stop. It runs on the loop's thread.
func (l *Loop) run() error {
	if err := l.enable(); err != nil {
		return err
	}
	l.onTurn, l.base = true, l.scope
	l.submitEarly()
	for {
		if err := l.turn(); err != nil {
			return err
		}
		if l.exit == nil && l.stopping {
			if err := l.flush(); err != nil || l.exit == nil {
				return err
			}
		}
		if l.exit != nil {
			err := l.exit.Err
			if err == nil {
				err = errExited
			}
			l.exit = nil
			return err
		}
	}
}

// ranOut notes that the run has ended.
func (l *Loop) ranOut() { l.stopping, l.onTurn = false, false }

// turn is one iteration: it waits for something to do and does what was there
// to be done when it began.
func (l *Loop) turn() error {
	l.turnCount++
	l.endTurn()
	l.timers.purge()
	timeout := l.timeout()
	if timeout != 0 {
		l.shrink()
		l.yield()
	}
	if err := l.be.Wait(timeout); err != nil {
		return fmt.Errorf("backend %s: %w", l.be.Name(), err)
	}
	if l.posted.Load() {
		l.drainInbox()
		l.handOver()
	}
	n := l.ready.n
	l.collectDue()
	for ; n > 0 && l.exit == nil; n-- {
		l.ready.pop().run(l)
	}
	if l.exit == nil {
		l.dispatch()
	}
	l.callLate()
	l.runDue()
	if l.exit != nil {
		l.keepRest(n)
	}
	return nil
}

// Turn returns the number of the current turn, which begins before the loop
// waits. Loop's thread only.
func (l *Loop) Turn() uint64 { return l.turnCount }

// timeout returns how long the loop may sleep: not at all if something is to be
// run, until the earliest timer, or for ever. Timers that are due already, and
// writers that are late, are what a turn has left that was cut short.
func (l *Loop) timeout() time.Duration {
	if l.ready.n > 0 || l.stopping || l.posted.Load() || l.exit != nil || len(l.due) > 0 || len(l.watches.late) > 0 {
		return 0
	}
	if len(l.timers.entries) == 0 {
		return -1
	}
	when, now := l.timers.entries[0].when, l.Time()
	if when <= now { // or else the difference may overflow
		return 0
	}
	return min(when-now, maxWait)
}

// collectDue takes the timers whose time has come out of the heap.
func (l *Loop) collectDue() {
	if len(l.timers.entries) == 0 {
		return
	}
	now := l.Time()
	for len(l.timers.entries) > 0 && l.timers.entries[0].when <= now {
		cb := l.timers.pop()
		if cb.cancelled {
			l.timers.cancelled--
			continue
		}
		cb.timer = false
		l.due = append(l.due, cb)
	}
}

// runDue calls the timers that collectDue found, up to a LoopExit.
func (l *Loop) runDue() {
	done := 0
	for ; done < len(l.due) && l.exit == nil; done++ {
		cb := l.due[done]
		l.due[done] = nil
		if cb != nil {
			cb.run(l)
		}
	}
	l.due = slices.Delete(l.due, 0, done)
}

// keepRest queues the timers that a LoopExit has left for the next run: behind
// the n callbacks that it has left, before those that this turn has scheduled.
func (l *Loop) keepRest(n int) {
	scheduled := l.ready.n - n
	l.ready.rotate(n)
	for _, cb := range l.due {
		if cb != nil {
			l.ready.push(cb)
		}
	}
	clear(l.due)
	l.due = l.due[:0]
	l.ready.rotate(scheduled)
}

// leave notes a LoopExit. What called the code that raised it, such as another
// callback, goes on until it returns; nothing else is called after that.
func (l *Loop) leave(exit LoopExit) {
	l.exit = &exit
	l.be.Halt()
}

// dispatch delivers the completions of I/O. A panic that a receiver let through
// is reported, and the rest delivered.
func (l *Loop) dispatch() {
	for l.exit == nil && !l.dispatchSome() {
	}
}

func (l *Loop) dispatchSome() (all bool) {
	before := l.scope
	defer func() {
		l.scope = before
		if r := recover(); r != nil {
			l.current = nil
			l.HandlePanic(r, debug.Stack(), &ExceptionContext{Message: "Panic in an I/O completion"})
		}
	}()
	l.be.Dispatch()
	return true
}

// TurnEnder is something to be done at the end of a turn, before the loop
// waits, such as sending what was written during the turn.
type TurnEnder interface {
	// EndTurn is called once, on the loop's thread. It may call AtTurnEnd again,
	// and is then called again in the same turn.
	EndTurn()
}

// AtTurnEnd arranges for e.EndTurn to be called when the current turn's
// callbacks have run. It allocates nothing. Loop's thread only.
func (l *Loop) AtTurnEnd(e TurnEnder) { l.turnEnders = append(l.turnEnders, e) }

func (l *Loop) endTurn() {
	for len(l.turnEnders) > 0 {
		l.guarded(l.endSome, "Panic at the end of a turn")
	}
}

// endSome calls those that are to be called at the end of the turn. One that
// panics leaves the rest to the next call.
func (l *Loop) endSome() {
	for l.turnEnded < len(l.turnEnders) {
		e := l.turnEnders[l.turnEnded]
		l.turnEnders[l.turnEnded] = nil
		l.turnEnded++
		e.EndTurn()
	}
	l.turnEnders, l.turnEnded = l.turnEnders[:0], 0
}

// guarded calls fn and reports its panic.
func (l *Loop) guarded(fn func(), what string) {
	defer func() {
		if r := recover(); r != nil {
			l.HandlePanic(r, debug.Stack(), &ExceptionContext{Message: what})
		}
	}()
	fn()
}

// flush hands what the last turn wrote to the kernel before a run ends.
func (l *Loop) flush() error {
	l.endTurn()
	if err := l.be.Wait(0); err != nil {
		return fmt.Errorf("backend %s: %w", l.be.Name(), err)
	}
	return nil
}
