package loop

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"testing"
	"time"
)

func TestFutureTransitions(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		f := CreateFuture[int](l)
		if f.Done() || f.Cancelled() || f.Loop() != l {
			t.Error("a new future is done, cancelled or homeless")
		}
		_, err := f.Result()
		wantErr(t, "Result of a pending future", err, ErrInvalidState)
		wantErr(t, "Exception of a pending future", f.Exception(), ErrInvalidState)
		wantErr(t, "SetException(nil)", f.SetException(nil), ErrInvalidArgument)
		if err := f.SetResult(7); err != nil {
			t.Fatal(err)
		}
		if v, err := f.Result(); v != 7 || err != nil {
			t.Errorf("got %v, %v", v, err)
		}
		if f.Exception() != nil || !f.Done() || f.Cancelled() {
			t.Error("wrong state after SetResult")
		}
		wantErr(t, "second SetResult", f.SetResult(8), ErrInvalidState)
		wantErr(t, "late SetException", f.SetException(errors.New("x")), ErrInvalidState)
		if f.Cancel("") {
			t.Error("a done future was cancelled")
		}
	})
}

func TestFutureException(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		boom := errors.New("boom")
		f := CreateFuture[int](l)
		if err := f.SetException(boom); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Result(); err != boom {
			t.Errorf("Result: %v", err)
		}
		if f.Exception() != boom {
			t.Errorf("Exception: %v", f.Exception())
		}
	})
}

func TestFutureCancelCarriesItsMessage(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		f := CreateFuture[int](l)
		if !f.Cancel("enough") || f.Cancel("again") {
			t.Error("wrong answers of Cancel")
		}
		_, err := f.Result()
		var ce *CancelledError
		if !errors.As(err, &ce) || ce.Msg != "enough" {
			t.Errorf("got %v", err)
		}
		wantErr(t, "Exception", f.Exception(), ErrCancelled)
		wantErr(t, "Exception", f.Exception(), context.Canceled)
		wantErr(t, "SetResult", f.SetResult(1), ErrInvalidState)
	})
}

func TestDoneCallbacksRunLaterAndInOrder(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		f := CreateFuture[int](l)
		var got []int
		for i := range 4 {
			f.AddDoneCallback(func(done AnyFuture) {
				if done != AnyFuture(f) {
					t.Error("called with another future")
				}
				got = append(got, i)
				if i == 1 {
					panic("one callback that fails")
				}
			})
		}
		removed := f.AddDoneCallback(func(AnyFuture) { t.Error("a removed callback was called") })
		if n := f.RemoveDoneCallback(removed); n != 1 {
			t.Errorf("removed %d", n)
		}
		if n := f.RemoveDoneCallback(removed); n != 0 {
			t.Errorf("removed %d the second time", n)
		}
		reports := collectReports(l)
		soon(t, l, func() {
			_ = f.SetResult(1)
			f.AddDoneCallback(func(AnyFuture) { got = append(got, 4) })
			if len(got) != 0 {
				t.Error("called inline")
			}
		})
		runOnce(t, l)
		runOnce(t, l)
		if !slices.Equal(got, []int{0, 1, 2, 3, 4}) {
			t.Errorf("got %v", got)
		}
		if len(*reports) != 1 {
			t.Errorf("%d reports, want 1", len(*reports))
		}
	})
}

func TestAnErrorNobodyLookedAtIsReported(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		reports := collectReports(l)
		boom := errors.New("boom")
		soon(t, l, func() {
			lost := CreateFuture[int](l)
			_ = lost.SetException(boom)
			seen := CreateFuture[int](l)
			_ = seen.SetException(errors.New("seen"))
			_ = seen.Exception()
			value := CreateFuture[int](l)
			_ = value.SetResult(1)
			gone := CreateFuture[int](l)
			gone.Cancel("")
			l.Go(func(*Coro) error { return errors.New("task") })
		})
		RunCoroutineThreadsafe(l, func(*Coro) (int, error) { return 0, errors.New("unwanted") }).Cancel()
		deadline := time.Now().Add(time.Minute)
		for len(*reports) < 3 && time.Now().Before(deadline) {
			runOnce(t, l)
			runtime.GC()
		}
		runOnce(t, l)
		var got []string
		for _, c := range *reports {
			got = append(got, c.Message+": "+c.Exception.Error())
		}
		slices.Sort(got)
		want := []string{
			"Future exception was never retrieved: boom", "Task exception was never retrieved: task",
			"Task exception was never retrieved: unwanted",
		}
		if !slices.Equal(got, want) {
			t.Errorf("reports %q, want %q", got, want)
		}
	})
}

func TestAnErrorNobodyLookedAtIsReportedInTheContextOfItsTask(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		v := NewContextVar[string]("v")
		var got []string
		l.SetExceptionHandler(func(l *Loop, _ *ExceptionContext) {
			s, _ := v.Get(l.CurrentContext())
			got = append(got, s)
		})
		soon(t, l, func() {
			l.Go(func(co *Coro) error {
				v.Set(l.CurrentContext(), "task")
				return errors.New("boom")
			})
		})
		deadline := time.Now().Add(time.Minute)
		for len(got) < 1 && time.Now().Before(deadline) {
			runOnce(t, l)
			runtime.GC()
		}
		if !slices.Equal(got, []string{"task"}) {
			t.Errorf("got %q", got)
		}
	})
}

func TestCloseReportsWhatNobodyLookedAtInDebugMode(t *testing.T) {
	for _, debug := range []bool{true, false} {
		forEachBackend(t, func(t *testing.T, l *Loop) {
			l.SetDebug(debug)
			reports := collectReports(l)
			lost, seen := CreateFuture[int](l), CreateFuture[int](l)
			_ = lost.SetException(errors.New("lost"))
			_ = seen.SetException(errors.New("seen"))
			_, _ = seen.Result()
			runOnce(t, l)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			runtime.KeepAlive(lost)
			switch {
			case !debug:
				if len(*reports) != 0 {
					t.Errorf("outside debug mode: %v", *reports)
				}
			case len(*reports) != 1 || (*reports)[0].Message != "Future exception was never retrieved" || (*reports)[0].SourceTraceback == "":
				t.Errorf("reports %v", *reports)
			}
		})
	}
}

func TestTheErrorOfWhatIsCancelledTooLateIsNotReported(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		l.SetDebug(true) // so that Close makes the reports
		reports := collectReports(l)
		future := CreateFuture[int](l)
		_ = future.SetException(errors.New("unwanted"))
		task := l.Go(func(*Coro) error { return errors.New("unwanted") })
		runOnce(t, l)
		if future.Cancel("") || task.Cancel("") || future.Cancelled() || task.Cancelled() {
			t.Error("what has failed was cancelled")
		}
		lost := CreateFuture[int](l) // not cancelled itself, only the wait for it
		waiter := l.Go(func(co *Coro) error { _, err := lost.Await(co); return err })
		runOnce(t, l)
		_ = lost.SetException(errors.New("lost"))
		waiter.Cancel("")
		_, err := RunUntilComplete(l, waiter)
		wantErr(t, "the cancelled wait", err, ErrCancelled)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		runtime.KeepAlive(future)
		runtime.KeepAlive(task)
		if len(*reports) != 1 || (*reports)[0].Exception.Error() != "lost" {
			t.Errorf("reports %v", *reports)
		}
	})
}

func TestAwaitOfADoneFutureDoesNotWait(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		runMain(t, l, func(co *Coro) error {
			f := CreateFuture[string](l)
			_ = f.SetResult("x")
			turns := countTurns(l)
			if v, err := f.Await(co); v != "x" || err != nil {
				t.Errorf("got %q, %v", v, err)
			}
			if turns() != 0 {
				t.Error("it took a turn")
			}
			return nil
		})
	})
}

func TestSeveralTasksAwaitOneFuture(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		f := CreateFuture[int](l)
		var got []int
		for i := range 5 {
			l.Go(func(co *Coro) error {
				v, err := f.Await(co)
				got = append(got, i*v)
				return err
			})
		}
		runMain(t, l, func(co *Coro) error {
			if err := Sleep(co, 0); err != nil {
				return err
			}
			_ = f.SetResult(10)
			return Sleep(co, 0)
		})
		if !slices.Equal(got, []int{0, 10, 20, 30, 40}) {
			t.Errorf("got %v", got)
		}
	})
}

func TestAwaitRules(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		other := newTestLoop(t, l.be.Name())
		var self *Task[struct{}]
		self = l.Go(func(co *Coro) error {
			_, err := CreateFuture[int](other).Await(co)
			wantErr(t, "another loop's future", err, ErrDifferentLoop)
			_, err = self.Await(co)
			wantErr(t, "the task itself", err, ErrSelfAwait)
			return nil
		})
		if _, err := RunUntilComplete(l, self); err != nil {
			t.Fatal(err)
		}
		var stray *Coro
		runMain(t, l, func(co *Coro) error { stray = co; return nil })
		runMain(t, l, func(*Coro) error {
			_, err := CreateFuture[int](l).Await(stray)
			wantErr(t, "a Coro of another task", err, ErrNotCurrent)
			return nil
		})
	})
}

func TestAStrayWakeEndsNoWait(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		runMain(t, l, func(co *Coro) error {
			const nap = 5 * time.Millisecond
			f := CreateFuture[int](l)
			wake := func() {
				if _, err := l.CallSoon(co.Wake); err != nil {
					t.Error(err)
				}
			}
			wake()
			before := l.Time()
			if err := Sleep(co, nap); err != nil || l.Time()-before < nap {
				t.Errorf("Sleep = %v after %v, want %v", err, l.Time()-before, nap)
			}
			wake()
			if _, err := l.CallLater(nap, func() { _ = f.SetResult(1) }); err != nil {
				return err
			}
			n, err := f.Await(co)
			if n != 1 {
				t.Errorf("Await = %d, want 1", n)
			}
			return err
		})
	})
}
