package transport

import (
	"slices"

	"github.com/seed-80cfe818/ringloop/loop"
)

// closedError is the ErrLoopClosed of a loop that was closed since the task was resumed
// for the last time: that of a wait, for a task that does not look at those is unwound
// in the end.
func closedError(co *loop.Coro) error { return loop.Sleep(co, 0) }

// waitList is tasks that wait for one event.
type waitList struct {
	what string // what they wait for, for messages
	cos  []*loop.Coro
}

// wait suspends the task until wake is called. It returns an error if the task
// was cancelled or the loop closed.
func (w *waitList) wait(co *loop.Coro) error {
	w.cos = append(w.cos, co)
	err := co.Suspend(w)
	if err != nil {
		if i := slices.Index(w.cos, co); i >= 0 {
			w.cos = slices.Delete(w.cos, i, i+1)
		}
	}
	return err
}

// wake resumes all tasks, on the next turn.
func (w *waitList) wake() {
	for _, co := range w.cos {
		co.Wake()
	}
	w.cos = nil
}

// CancelWait wakes the task; Suspend tells it why.
func (w *waitList) CancelWait(co *loop.Coro) bool {
	co.Wake()
	return false
}

// String says what the tasks wait for.
func (w *waitList) String() string { return w.what }
