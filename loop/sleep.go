package loop

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Sleep suspends the task for d. Zero and less skip exactly one turn
// (asyncio.sleep). It returns a CancelledError if the task is cancelled, and
// then its timer is cancelled too.
func Sleep(co *Coro, d time.Duration) error {
	l := co.l
	if err := co.CheckCurrent("Sleep"); err != nil {
		return err
	}
	if d <= 0 {
		co.Wake()
		return co.Suspend(yielded{})
	}
	if err := l.checkWait("Sleep"); err != nil {
		return err
	}
	cb := l.newCallback(nil, nil)
	cb.task, cb.timer = co.t, true
	h := Handle{cb: cb, gen: cb.gen}
	l.timers.push(addTime(l.Time(), d), cb)
	err := co.Suspend((*sleeping)(cb))
	for err == nil && cb.gen == h.gen && !cb.cancelled {
		err = co.Suspend((*sleeping)(cb)) // somebody else has woken the task
	}
	switch {
	case err != nil:
		h.Cancel()
	case h.Cancelled():
		err = co.CancelledError()
	}
	return err
}

// yielded is what a task waits for that skips a turn: it is queued already.
type yielded struct{}

func (yielded) CancelWait(*Coro) bool { return false }
func (yielded) String() string        { return "its next turn" }

// sleeping is the timer of a task that waits in Sleep.
type sleeping callback

// CancelWait cancels the timer, which tells Sleep, and wakes the task.
func (s *sleeping) CancelWait(co *Coro) bool {
	cb := (*callback)(s)
	Handle{cb: cb, gen: cb.gen}.Cancel()
	co.Wake()
	return true
}
func (s *sleeping) String() string { return "a timer" }

// Timeout runs fn, which must take co to wait, and cancels what it waits for
// when it takes longer than d; then it returns a *TimeoutError, which is
// ErrTimeout and says what it waited for (asyncio.timeout). Another cancellation
// of the task passes through, and what fn has joined with its own cancellation
// comes with the *TimeoutError. A d of zero or less cancels the first wait. A nil
// fn is an ErrInvalidArgument; with the Coro of another task it is ErrNotCurrent,
// and fn is not called.
func Timeout(co *Coro, d time.Duration, fn func() error) (err error) {
	if fn == nil {
		return fmt.Errorf("Timeout: %w: the function is nil", ErrInvalidArgument)
	}
	t := co.t
	if err := co.CheckCurrent("Timeout"); err != nil {
		return err
	}
	if err := co.l.checkWait("Timeout"); err != nil {
		return err
	}
	var expired *TimeoutError
	over := false
	before := t.Cancelling()
	expire := func() {
		if !over {
			expired = &TimeoutError{Limit: max(d, 0), WaitsFor: t.waiting()}
			t.Cancel("timeout")
		}
	}
	var timer TimerHandle
	if d > 0 {
		timer, err = co.l.CallLater(d, expire)
	} else { // ahead of what fn schedules: a timer would come behind that
		timer.Handle, err = co.l.CallSoon(expire)
	}
	if err != nil {
		return err
	}
	defer func() { // also after a panic, which the task may survive
		over = true
		timer.Cancel()
		if expired == nil || t.Uncancel() > before || !isCancelled(err) && !isError(err, context.Canceled) {
			return
		}
		if rest := beyondCancellation(err); rest != nil {
			err = errors.Join(expired, rest)
		} else {
			err = expired
		}
	}()
	return fn()
}
