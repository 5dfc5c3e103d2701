package loop

import (
	"fmt"
	"time"
)

// shutdownExecutorTimeout is how long Run waits for the default executor.
const shutdownExecutorTimeout = 300 * time.Second

// Run is the main entry point of a program (asyncio.run): it makes a loop, by the
// policy if there are no options, runs main as a task until it ends, and cleans
// up. That is: the tasks that are left are cancelled and waited for, and errors of
// theirs go to the exception handler; asynchronous generators are closed; the
// default executor is shut down, for which it waits up to five minutes; the loop
// is closed.
//
// The error is main's, as it is, but for a cancellation, which is a *CancelledError
// with its message; or that of a LoopExit, or else what went wrong in making,
// running or closing the loop. SIGINT keeps Go's default action; install a handler
// to change that. Run may be called from any goroutine that is not a running
// loop's; there it returns ErrOtherLoopRunning.
func Run(main func(co *Coro) error, opts ...Option) error {
	if _, err := RunningLoop(); err == nil {
		return fmt.Errorf("Run: %w", ErrOtherLoopRunning)
	}
	l, err := newLoop(opts)
	if err != nil {
		return err
	}
	err = l.runMain(l.Go(main))
	for _, step := range []func() error{l.cleanUp, l.Close} {
		if stepErr := step(); err == nil {
			err = stepErr
		}
	}
	return err
}

// runMain runs the loop until main is done, or a LoopExit ends the run.
func (l *Loop) runMain(main *Task[struct{}]) error {
	switch _, err := l.runUntil(main); err {
	case nil:
		_, err = main.Result()
		return err
	case errExited:
		return nil
	default:
		return fmt.Errorf("Run: %w", err)
	}
}

// newLoop makes the loop of Run.
func newLoop(opts []Option) (*Loop, error) {
	if len(opts) > 0 {
		return NewEventLoop(opts...)
	}
	p := EventLoopPolicy()
	l, err := p.NewEventLoop()
	if err == nil && l == nil {
		err = fmt.Errorf("policy %T: %w", p, ErrNoEventLoop)
	}
	return l, err
}

// cleanUp ends what main has left behind.
func (l *Loop) cleanUp() error {
	if err := l.cancelAll(); err != nil {
		return err
	}
	_, err := RunUntilComplete(l, l.Go(func(co *Coro) error {
		if err := ShutdownAsyncgens(co); err != nil {
			return err
		}
		return ShutdownDefaultExecutor(co, shutdownExecutorTimeout)
	}))
	return err
}

// cancelAll cancels all tasks, waits for them, and reports their errors.
func (l *Loop) cancelAll() error {
	tasks := l.AllTasks()
	if len(tasks) == 0 {
		return nil
	}
	for _, t := range tasks {
		t.Cancel("")
	}
	if _, err := RunUntilComplete(l, l.allDone(tasks)); err != nil {
		return err
	}
	for _, t := range tasks {
		if t.Cancelled() || t.asTask().told {
			continue
		}
		if err := t.Exception(); err != nil {
			l.CallExceptionHandler(&ExceptionContext{
				Message: "unhandled error during the shutdown of Run", Exception: err, Task: t,
			})
		}
	}
	return nil
}

// allDone returns a future that is done when all tasks are. It is no task, which
// one of them could find among the loop's tasks and cancel.
func (l *Loop) allDone(tasks []AnyTask) *Future[struct{}] {
	f, left := CreateFuture[struct{}](l), len(tasks)
	for _, t := range tasks {
		t.AddDoneCallback(func(AnyFuture) {
			if left--; left == 0 {
				_ = f.SetResult(struct{}{})
			}
		})
	}
	return f
}
