package loop

import (
	"context"
	"errors"
	"testing"
	"time"
)

// inThread runs fn on another goroutine while l runs, until fn returns.
func inThread(t testing.TB, l *Loop, fn func()) {
	t.Helper()
	go func() {
		// Posted in any case, so that a test that fails does not hang.
		defer func() { _, _ = l.CallSoonThreadsafe(l.Stop) }()
		fn()
	}()
	runLoop(t, l)
}

func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), stuck)
	t.Cleanup(cancel)
	return ctx
}

func TestRunCoroutineThreadsafeReturnsTheResultToAnotherGoroutine(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		broken := errors.New("broken")
		inThread(t, l, func() {
			n, err := RunCoroutineThreadsafe(l, func(co *Coro) (int, error) {
				return 42, Sleep(co, time.Millisecond)
			}).Result(within(t))
			if n != 42 || err != nil {
				t.Errorf("result: %d, %v", n, err)
			}
			_, err = RunCoroutineThreadsafe(l, func(co *Coro) (int, error) { return 0, broken }).Result(within(t))
			if err != broken {
				t.Errorf("error: %v", err)
			}
		})
	})
}

func TestCancellingTheThreadFutureCancelsTheTask(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		inThread(t, l, func() {
			started, ended := make(chan struct{}), make(chan error, 1)
			f := RunCoroutineThreadsafe(l, func(co *Coro) (int, error) {
				close(started)
				err := Sleep(co, time.Hour)
				ended <- err
				return 0, err
			})
			waitFor(t, started, "the task")
			if !f.Cancel() || f.Cancel() {
				t.Error("the future was not cancelled exactly once")
			}
			wantErr(t, "the task's wait", <-ended, ErrCancelled)
			_, err := f.Result(within(t))
			wantErr(t, "Result", err, ErrCancelled)
			if !f.Cancelled() || !f.Done() {
				t.Error("the future is not cancelled")
			}
		})
	})
}

func TestCancellingTheTaskCancelsTheThreadFuture(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		inThread(t, l, func() {
			f := RunCoroutineThreadsafe(l, func(co *Coro) (int, error) {
				co.Task().Cancel("enough")
				return 0, Sleep(co, time.Hour)
			})
			_, err := f.Result(within(t))
			wantErr(t, "Result", err, ErrCancelled)
			if !f.Cancelled() {
				t.Error("the future is not cancelled")
			}
		})
	})
}

func TestResultGivesUpWhenItsContextEnds(t *testing.T) {
	f := NewThreadFuture[int]()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := f.Result(ctx)
	wantErr(t, "Result", err, context.Canceled)
	if f.Done() {
		t.Error("the future is done")
	}
}

func TestResultOfADoneFutureDoesNotLookAtItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	f := NewThreadFuture[int]()
	if err := f.SetResult(1); err != nil {
		t.Fatal(err)
	}
	for range 100 { // select would choose either
		if n, err := f.Result(ctx); n != 1 || err != nil {
			t.Fatalf("got %d, %v", n, err)
		}
	}
}

func TestATaskThatCannotBeMadeFailsTheFutureAndIsReported(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		refused := errors.New("refused by the factory")
		reports := collectReports(l)
		l.SetTaskFactory(func(AnyTask, *TaskOptions) error { return refused })
		inThread(t, l, func() {
			_, err := RunCoroutineThreadsafe(l, func(*Coro) (int, error) { return 0, nil }).Result(within(t))
			wantErr(t, "Result", err, refused)
		})
		if len(*reports) != 1 || !errors.Is((*reports)[0].Exception, refused) {
			t.Errorf("reported: %v", *reports)
		}
	})
}

func TestATaskFactoryThatEndsAbruptlyFailsTheFuture(t *testing.T) {
	boom, exit := errors.New("boom"), errors.New("exit")
	for _, test := range []struct {
		name     string
		factory  func()
		want     error
		reported int
		run      error
	}{
		{"panic", func() { panic(boom) }, boom, 1, nil},
		{"Goexit", goexit, ErrGoexit, 0, nil},
		{"LoopExit", func() { panic(LoopExit{exit}) }, nil, 0, exit},
	} {
		t.Run(test.name, func(t *testing.T) {
			forEachBackend(t, func(t *testing.T, l *Loop) {
				reports := collectReports(l)
				l.SetTaskFactory(func(AnyTask, *TaskOptions) error {
					test.factory()
					return nil
				})
				f := RunCoroutineThreadsafe(l, func(*Coro) (int, error) { return 0, nil })
				l.Stop()
				if err := l.RunForever(); !errors.Is(err, test.run) {
					t.Errorf("RunForever: %v, want %v", err, test.run)
				}
				if !f.Done() {
					t.Fatal("the future is not done")
				}
				var p *PanicError
				if _, err := f.Result(within(t)); !errors.Is(err, test.want) && (test.want != nil || !errors.As(err, &p)) {
					t.Errorf("Result: %v, want %v", err, test.want)
				}
				if len(*reports) != test.reported {
					t.Errorf("reported: %v", *reports)
				}
			})
		})
	}
}

func TestRunCoroutineThreadsafeOfNothingFails(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		_, err := RunCoroutineThreadsafe[int](l, nil).Result(within(t))
		wantErr(t, "Result", err, ErrInvalidArgument)
	})
}

func TestAPanicInACallbackOfAThreadFutureDoesNotStopClose(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		reports := collectReports(l)
		boom := errors.New("boom")
		f := RunCoroutineThreadsafe(l, func(co *Coro) (int, error) { return 0, Sleep(co, time.Hour) })
		called := false
		f.AddDoneCallback(func() { panic(boom) })
		f.AddDoneCallback(func() { called = true })
		runOnce(t, l)
		if err := l.Close(); err != nil || !called {
			t.Errorf("Close: %v, the second callback was called: %v", err, called)
		}
		if len(*reports) == 0 || !errors.Is((*reports)[0].Exception, boom) {
			t.Errorf("reported: %v", *reports)
		}
	})
}

func TestRunCoroutineThreadsafeOnAClosedLoopFails(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		_, err := RunCoroutineThreadsafe(l, func(*Coro) (int, error) { return 0, nil }).Result(within(t))
		wantErr(t, "Result", err, ErrLoopClosed)
		if n := len(l.closers.fns); n != 0 {
			t.Errorf("%d futures wait for the close of a closed loop", n)
		}
	})
}

func TestCloseEndsTheWaitForATask(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		collectReports(l)
		queued := RunCoroutineThreadsafe(l, func(*Coro) (int, error) { return 0, nil })
		runOnce(t, l) // the task exists, but had no turn yet
		unheard := RunCoroutineThreadsafe(l, func(*Coro) (int, error) { return 0, nil })
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		for _, f := range []*ThreadFuture[int]{queued, unheard} {
			_, err := f.Result(within(t))
			wantErr(t, "Result", err, ErrLoopClosed)
		}
	})
}

func TestAThreadFutureIsCompletedOnce(t *testing.T) {
	f := NewThreadFuture[int]()
	calls := 0
	f.AddDoneCallback(func() { calls++ })
	wantErr(t, "a nil error", f.SetException(nil), ErrInvalidArgument)
	if err := f.SetResult(1); err != nil {
		t.Fatal(err)
	}
	wantErr(t, "a second result", f.SetResult(2), ErrInvalidState)
	wantErr(t, "an error after the result", f.SetException(errors.New("late")), ErrInvalidState)
	f.AddDoneCallback(func() { calls++ })
	if n, err := f.Result(within(t)); n != 1 || err != nil || f.Cancel() || calls != 2 {
		t.Errorf("result %d, %v, %d callbacks", n, err, calls)
	}
}

func TestAWrappedThreadFutureEndsAsItDoes(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		broken := errors.New("broken")
		runMain(t, l, func(co *Coro) error {
			f := NewThreadFuture[int]()
			w := WrapFuture(l, f)
			go f.SetResult(42)
			if n, err := w.Await(co); n != 42 || err != nil {
				t.Errorf("result: %d, %v", n, err)
			}
			f = NewThreadFuture[int]()
			w = WrapFuture(l, f)
			go f.SetException(broken)
			if _, err := w.Await(co); err != broken {
				t.Errorf("error: %v", err)
			}
			f = NewThreadFuture[int]()
			w = WrapFuture(l, f)
			go f.Cancel()
			_, err := w.Await(co)
			wantErr(t, "cancelled", err, ErrCancelled)
			return nil
		})
	})
}

func TestCancellingAWrapperCancelsTheThreadFutureUnlessItIsDone(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		runMain(t, l, func(co *Coro) error {
			f, done := NewThreadFuture[int](), NewThreadFuture[int]()
			w, wdone := WrapFuture(l, f), WrapFuture(l, done)
			if err := done.SetResult(1); err != nil {
				return err
			}
			if !w.Cancel("") || !wdone.Cancel("") {
				t.Error("a wrapper could not be cancelled")
			}
			for range 2 {
				if err := Sleep(co, 0); err != nil {
					return err
				}
			}
			if !f.Cancelled() {
				t.Error("the cancellation did not reach the thread future")
			}
			if n, err := done.Result(within(t)); n != 1 || err != nil {
				t.Errorf("the finished future: %d, %v", n, err)
			}
			return nil
		})
	})
}

func TestEnsureFutureAndIsFuture(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		f := CreateFuture[int](l)
		if a, err := EnsureFuture(l, Awaitable[int](f)); a != Awaitable[int](f) || err != nil {
			t.Errorf("EnsureFuture: %v, %v", a, err)
		}
		other := newTestLoop(t, l.Backend().Name())
		_, err := EnsureFuture(other, Awaitable[int](f))
		wantErr(t, "another loop", err, ErrDifferentLoop)
		task := CreateTask(l, func(*Coro) (int, error) { return 1, nil }, nil)
		runOnce(t, l)
		for v, want := range map[any]bool{f: true, task: true, 1: false, "x": false} {
			if IsFuture(v) != want {
				t.Errorf("IsFuture(%v) is %v", v, !want)
			}
		}
	})
}
