package loop

import (
	"errors"
	"io"
	"log/slog"
	"slices"
	"testing"
	"time"
)

// quiet keeps reports that a test expects out of its output.
func quiet() Option { return WithLogger(slog.New(slog.NewTextHandler(io.Discard, nil))) }

func forEachBackendName(t *testing.T, test func(t *testing.T, opt Option)) {
	forEachBackend(t, func(t *testing.T, l *Loop) { test(t, WithBackend(l.Backend().Name())) })
}

func TestRunReturnsTheErrorOfMainAndClosesTheLoop(t *testing.T) {
	forEachBackendName(t, func(t *testing.T, opt Option) {
		broken := errors.New("broken")
		var l *Loop
		err := Run(func(co *Coro) error {
			l = co.Loop()
			if err := Sleep(co, time.Millisecond); err != nil {
				return err
			}
			return broken
		}, opt)
		if err != broken {
			t.Errorf("Run: %v", err)
		}
		if !l.IsClosed() {
			t.Error("the loop was not closed")
		}
		if err := Run(func(*Coro) error { return nil }, opt); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
}

func TestRunCancelsTheTasksThatAreLeftAndWaitsForThem(t *testing.T) {
	forEachBackendName(t, func(t *testing.T, opt Option) {
		var ended []string
		var reports []*ExceptionContext
		broken := errors.New("broken while it was cancelled")
		err := Run(func(co *Coro) error {
			l := co.Loop()
			l.SetExceptionHandler(func(_ *Loop, c *ExceptionContext) { reports = append(reports, c) })
			l.Go(func(co *Coro) error {
				err := Sleep(co, time.Hour)
				wantErr(t, "the sleep", err, ErrCancelled)
				if err := Sleep(co, time.Millisecond); err != nil {
					return err
				}
				ended = append(ended, "slow")
				return err
			})
			l.Go(func(co *Coro) error {
				if err := Sleep(co, time.Hour); err == nil {
					t.Error("the sleep was not cancelled")
				}
				return broken
			})
			return Sleep(co, 0)
		}, opt)
		if err != nil {
			t.Errorf("Run: %v", err)
		}
		if want := []string{"slow"}; !slices.Equal(ended, want) {
			t.Errorf("ended: %v, want %v", ended, want)
		}
		if len(reports) != 1 || reports[0].Exception != broken || reports[0].Task == nil {
			t.Errorf("reports: %v", reports)
		}
	})
}

func TestAPanicOfATaskThatRunCancelsIsReportedOnce(t *testing.T) {
	forEachBackendName(t, func(t *testing.T, opt Option) {
		var left *Task[struct{}]
		var reports []*ExceptionContext
		boom := errors.New("boom")
		err := Run(func(co *Coro) error {
			l := co.Loop()
			l.SetExceptionHandler(func(_ *Loop, c *ExceptionContext) { reports = append(reports, c) })
			left = l.Go(func(co *Coro) error {
				_ = Sleep(co, time.Hour)
				panic(boom)
			})
			return Sleep(co, 0)
		}, opt)
		if err != nil {
			t.Errorf("Run: %v", err)
		}
		if len(reports) != 1 || !errors.Is(reports[0].Exception, boom) || reports[0].Task != AnyTask(left) {
			t.Errorf("reports: %v", reports)
		}
	})
}

func TestATaskThatCancelsAllOthersAtTheEndOfRunCutsNothingShort(t *testing.T) {
	forEachBackendName(t, func(t *testing.T, opt Option) {
		var last, exit error
		g := NewAsyncGen(func(co *Coro, yield func(int) error) error {
			exit = yield(1)
			return exit
		})
		err := Run(func(co *Coro) error {
			if _, _, err := g.Next(co); err != nil {
				return err
			}
			co.Loop().Go(func(co *Coro) error {
				wantErr(t, "the sleep", Sleep(co, time.Hour), ErrCancelled)
				for _, other := range co.Loop().AllTasks() {
					if other != co.Task() {
						other.Cancel("")
					}
				}
				last = Sleep(co, time.Millisecond)
				return last
			})
			return Sleep(co, 0)
		}, opt)
		if err != nil {
			t.Errorf("Run: %v", err)
		}
		if last != nil {
			t.Errorf("the last wait of the task that was left: %v", last)
		}
		wantErr(t, "the generator's yield", exit, ErrGeneratorExit)
	})
}

func TestRunClosesGeneratorsAndTheDefaultExecutor(t *testing.T) {
	forEachBackendName(t, func(t *testing.T, opt Option) {
		var pool *PoolExecutor
		var exit error
		g := NewAsyncGen(func(co *Coro, yield func(int) error) error {
			exit = yield(1)
			return exit
		})
		jobEnded := false
		err := Run(func(co *Coro) error {
			if _, _, err := g.Next(co); err != nil {
				return err
			}
			RunInExecutor(co.Loop(), nil, func() (int, error) {
				jobEnded = true
				return 0, nil
			})
			pool = co.Loop().defaultPool.pool
			return nil
		}, opt)
		if err != nil {
			t.Errorf("Run: %v", err)
		}
		wantErr(t, "the generator's yield", exit, ErrGeneratorExit)
		waitFor(t, pool.done, "the end of the default executor")
		if !jobEnded {
			t.Error("the job did not run")
		}
	})
}

func TestRunInsideARunningLoopIsRefused(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		runMain(t, l, func(co *Coro) error {
			err := Run(func(*Coro) error { return nil }, WithBackend(l.Backend().Name()), quiet())
			wantErr(t, "Run", err, ErrOtherLoopRunning)
			return nil
		})
	})
}

func TestRunWithoutABackendSaysWhy(t *testing.T) {
	err := Run(func(*Coro) error { return nil }, WithBackend("kqueue"))
	wantErr(t, "Run", err, ErrInvalidArgument)
}

func TestRunEndsAMainThatStoppedTheLoop(t *testing.T) {
	forEachBackendName(t, func(t *testing.T, opt Option) {
		var waited error
		err := Run(func(co *Coro) error {
			co.Loop().Stop()
			waited = Sleep(co, time.Hour)
			return waited
		}, opt)
		wantErr(t, "Run", err, ErrStopped)
		wantErr(t, "the wait of main", waited, ErrCancelled)
	})
}

func TestRunReturnsWhatALoopExitSays(t *testing.T) {
	forEachBackendName(t, func(t *testing.T, opt Option) {
		bye := errors.New("bye")
		for _, want := range []error{nil, bye} {
			exit := LoopExit{Err: want}
			err := Run(func(*Coro) error { panic(exit) }, opt)
			if !errors.Is(err, want) {
				t.Errorf("Run = %v after a LoopExit in main, want %v", err, want)
			}
			err = Run(func(co *Coro) error {
				soon(t, co.Loop(), func() { panic(exit) })
				return Sleep(co, time.Hour)
			}, opt)
			if !errors.Is(err, want) {
				t.Errorf("Run = %v after a LoopExit in a callback, want %v", err, want)
			}
		}
	})
}

func TestRunUntilCompleteAfterALoopExitWithoutAnErrorIsStopped(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		f := CreateFuture[int](l)
		soon(t, l, func() { panic(LoopExit{}) })
		_, err := RunUntilComplete(l, f)
		wantErr(t, "the future is pending", err, ErrStopped)
		soon(t, l, func() { _ = f.SetResult(1); panic(LoopExit{}) })
		if n, err := RunUntilComplete(l, f); n != 1 || err != nil {
			t.Errorf("the future is done: %d, %v", n, err)
		}
		soon(t, l, func() { panic(LoopExit{}) })
		if err := l.RunForever(); err != nil {
			t.Errorf("RunForever: %v", err)
		}
	})
}
