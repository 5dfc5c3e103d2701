package loop

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestATaskStartsOnTheNextTurnInItsPlace(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		var got []string
		soon(t, l, func() {
			soon(t, l, func() { got = append(got, "a") })
			l.Go(func(*Coro) error { got = append(got, "task"); return nil })
			soon(t, l, func() { got = append(got, "b") })
			if len(got) != 0 {
				t.Error("something ran inline")
			}
		})
		runOnce(t, l)
		runOnce(t, l)
		if !slices.Equal(got, []string{"a", "task", "b"}) {
			t.Errorf("got %q", got)
		}
	})
}

func TestTaskNames(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		runMain(t, l, func(co *Coro) error {
			a, b := l.Go(func(*Coro) error { return nil }), l.Go(func(*Coro) error { return nil })
			if a.Name() == b.Name() || !strings.HasPrefix(a.Name(), "Task-") {
				t.Errorf("names %q and %q", a.Name(), b.Name())
			}
			c := CreateTask(l, func(co *Coro) (string, error) { return co.Task().Name(), nil }, &TaskOptions{Name: "chosen"})
			if name, err := c.Await(co); name != "chosen" || err != nil {
				t.Errorf("got %q, %v", name, err)
			}
			c.SetName("later")
			if c.Name() != "later" {
				t.Errorf("got %q", c.Name())
			}
			d := CreateTask(l, func(*Coro) (int, error) { return 0, nil }, &TaskOptions{Name: "chosen"})
			c.SetName("")
			d.SetName("")
			if c.Name() == d.Name() || c.Name() == "" {
				t.Errorf("without their names the tasks are %q and %q", c.Name(), d.Name())
			}
			return nil
		})
	})
}

func TestATaskCancelledBeforeItsFirstStepNeverRuns(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		task := l.Go(func(*Coro) error { t.Error("it ran"); return nil })
		if !task.Cancel("early") {
			t.Error("Cancel said no")
		}
		_, err := RunUntilComplete(l, task)
		var ce *CancelledError
		if !errors.As(err, &ce) || ce.Msg != "early" || !task.Cancelled() {
			t.Errorf("got %v, cancelled %v", err, task.Cancelled())
		}
	})
}

func TestCancelReachesTheWaitWithItsMessage(t *testing.T) {
	waits := map[string]func(l *Loop, co *Coro) error{
		"future": func(l *Loop, co *Coro) error { _, err := CreateFuture[int](l).Await(co); return err },
		"task": func(l *Loop, co *Coro) error {
			_, err := l.Go(func(co *Coro) error { return Sleep(co, time.Hour) }).Await(co)
			return err
		},
		"sleep": func(l *Loop, co *Coro) error { return Sleep(co, time.Hour) },
		"turn":  func(l *Loop, co *Coro) error { return Sleep(co, 0) },
	}
	forEachBackend(t, func(t *testing.T, l *Loop) {
		for name, wait := range waits {
			var got error
			task := l.Go(func(co *Coro) error {
				got = wait(l, co)
				return got
			})
			soon(t, l, func() { task.Cancel("go away") })
			_, err := RunUntilComplete(l, task)
			var ce *CancelledError
			if !errors.As(got, &ce) || ce.Msg != "go away" {
				t.Errorf("%s: the wait returned %v", name, got)
			}
			if !errors.As(err, &ce) || !task.Cancelled() || task.Cancel("") {
				t.Errorf("%s: the task ended with %v, cancelled %v", name, err, task.Cancelled())
			}
		}
		if l.timers.purge(); len(l.timers.entries) != 0 {
			t.Errorf("%d timers are left of the cancelled sleeps", len(l.timers.entries))
		}
		if len(l.AllTasks()) != 0 {
			t.Errorf("tasks left: %v", l.AllTasks())
		}
	})
}

func TestATaskMaySwallowItsCancellation(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		task := CreateTask(l, func(co *Coro) (string, error) {
			if err := Sleep(co, time.Hour); !errors.Is(err, ErrCancelled) {
				t.Errorf("got %v", err)
			}
			return "done", Sleep(co, time.Millisecond)
		}, nil)
		soon(t, l, func() { task.Cancel("") })
		got, err := RunUntilComplete(l, task)
		if got != "done" || err != nil || task.Cancelled() || task.Cancelling() != 1 {
			t.Errorf("got %q, %v; cancelled %v, cancelling %d", got, err, task.Cancelled(), task.Cancelling())
		}
	})
}

func TestCancelOfTheRunningTaskHitsItsNextWait(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		f := CreateFuture[int](l)
		runMain(t, l, func(co *Coro) error {
			co.Task().Cancel("self")
			_, err := f.Await(co)
			wantErr(t, "Await", err, ErrCancelled)
			if !f.Cancelled() {
				t.Error("the awaited future was not cancelled")
			}
			co.Task().Uncancel()
			return Sleep(co, time.Millisecond)
		})
	})
}

func TestCancelJustBeforeReturnEndsCancelled(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		task := l.Go(func(co *Coro) error { co.Task().Cancel("late"); return nil })
		_, err := RunUntilComplete(l, task)
		wantErr(t, "task", err, ErrCancelled)
	})
}

func TestCancelRequestsAreCountedAndWithdrawn(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		task := l.Go(func(co *Coro) error { return Sleep(co, time.Millisecond) })
		task.Cancel("1")
		task.Cancel("2")
		if task.Cancelling() != 2 || task.Uncancel() != 1 || task.Uncancel() != 0 || task.Uncancel() != 0 {
			t.Error("wrong counts")
		}
		if _, err := RunUntilComplete(l, task); err != nil {
			t.Errorf("a withdrawn cancellation was delivered: %v", err)
		}
	})
}

func TestATaskSaysThatItIsBeingCancelledUntilTheRequestIsWithdrawn(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		says := func(task AnyTask, state string) {
			t.Helper()
			if s := fmt.Sprint(task); !strings.HasPrefix(s, "<Task "+state+" ") {
				t.Errorf("the task is %s, want %s", s, state)
			}
		}
		task := l.Go(func(co *Coro) error {
			err := Sleep(co, time.Hour)
			says(co.Task(), "cancelling")
			co.Task().Uncancel()
			says(co.Task(), "pending")
			return err
		})
		says(task, "pending")
		runOnce(t, l)
		task.Cancel("")
		says(task, "cancelling")
		_, err := RunUntilComplete(l, task)
		wantErr(t, "task", err, ErrCancelled)
		says(task, "cancelled")
		unstarted := l.Go(func(*Coro) error { return nil })
		unstarted.Cancel("")
		says(unstarted, "cancelling")
		runOnce(t, l)
		says(unstarted, "cancelled")
	})
}

func TestCancelAfterTheAwaitedFutureIsDoneWins(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		f := CreateFuture[int](l)
		task := l.Go(func(co *Coro) error { _, err := f.Await(co); return err })
		soon(t, l, func() {
			_ = f.SetResult(1)
			task.Cancel("")
		})
		_, err := RunUntilComplete(l, task)
		wantErr(t, "task", err, ErrCancelled)
	})
}

func TestOfTwoCancellationsTheWaitTellsTheFirst(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		f := CreateFuture[int](l)
		task := l.Go(func(co *Coro) error { _, err := f.Await(co); return err })
		soon(t, l, func() {
			f.Cancel("the future")
			task.Cancel("the task")
		})
		_, err := RunUntilComplete(l, task)
		var ce *CancelledError
		if !errors.As(err, &ce) || ce.Msg != "the future" {
			t.Errorf("task: %v", err)
		}
	})
}

func TestASecondCancelDoesNotChangeTheMessageOfAWaitThatEnds(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		for what, wait := range map[string]func(co *Coro) error{
			"sleep":  func(co *Coro) error { return Sleep(co, time.Hour) },
			"future": func(co *Coro) error { _, err := CreateFuture[int](l).Await(co); return err },
			"timeout": func(co *Coro) error {
				return Timeout(co, time.Hour, func() error { return Sleep(co, time.Hour) })
			},
		} {
			var first, next error
			task := l.Go(func(co *Coro) error {
				first = wait(co)
				next = Sleep(co, time.Hour)
				return next
			})
			soon(t, l, func() {
				task.Cancel("why")
				task.Cancel("again")
				soon(t, l, func() { task.Cancel("enough") })
			})
			_, err := RunUntilComplete(l, task)
			for got, want := range map[error]string{first: "why", next: "enough", err: "enough"} {
				var ce *CancelledError
				if !errors.As(got, &ce) || ce.Msg != want {
					t.Errorf("%s: %v, want the message %q", what, got, want)
				}
			}
		}
	})
}

func TestATaskThatGoesOnIsToldTheMessageOfEveryRequest(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		var told []string
		stubborn := func(co *Coro) error {
			for range 2 {
				var ce *CancelledError
				if errors.As(Sleep(co, time.Hour), &ce) {
					told = append(told, ce.Msg)
				}
			}
			return nil
		}
		for what, wait := range map[string]func(co *Coro) error{
			"task": func(co *Coro) error { _, err := l.Go(stubborn).Await(co); return err },
			"generator": func(co *Coro) error {
				_, _, err := NewAsyncGen(func(co *Coro, _ func(int) error) error { return stubborn(co) }).Next(co)
				return err
			},
		} {
			told = nil
			task := l.Go(wait)
			runMain(t, l, func(co *Coro) error { return Sleep(co, time.Millisecond) })
			for _, msg := range []string{"one", "two"} {
				task.Cancel(msg)
				runOnce(t, l)
			}
			_, err := RunUntilComplete(l, task)
			if err != nil || !slices.Equal(told, []string{"one", "two"}) {
				t.Errorf("%s: it was told %q and ended with %v", what, told, err)
			}
		}
	})
}

func TestATasksPanicIsReportedAndItsError(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		reports := collectReports(l)
		boom := errors.New("boom")
		task := l.Go(func(*Coro) error { panic(boom) })
		_, err := RunUntilComplete(l, task)
		var p *PanicError
		if !errors.As(err, &p) || !errors.Is(err, boom) || !strings.Contains(string(p.Stack), "TestATasksPanic") {
			t.Errorf("got %v", err)
		}
		if len(*reports) != 1 || (*reports)[0].Task != AnyTask(task) {
			t.Errorf("reports %v", *reports)
		}
		runMain(t, l, func(co *Coro) error { return Sleep(co, 0) })
	})
}

// The methods of such an error panic when they look for what it wraps.
func TestANilPointerAsAnErrorEndsItsTaskAndNothingElse(t *testing.T) {
	var broken error = (*fs.PathError)(nil)
	forEachBackend(t, func(t *testing.T, l *Loop) {
		reports := collectReports(l)
		runMain(t, l, func(co *Coro) error {
			returned := l.Go(func(*Coro) error { return broken })
			joined := l.Go(func(*Coro) error { return errors.Join(ErrCancelled, broken) })
			panicked := l.Go(func(*Coro) error { panic(broken) })
			if _, err := returned.Await(co); err != broken || returned.Cancelled() {
				t.Errorf("returned: %v", err)
			}
			if _, err := joined.Await(co); err == nil || joined.Cancelled() {
				t.Errorf("joined with a cancellation: %v", err)
			}
			_, err := panicked.Await(co)
			if p, ok := err.(*PanicError); !ok || p.Value != broken {
				t.Errorf("panicked: %v", err)
			}
			return Sleep(co, 0)
		})
		if len(*reports) != 1 {
			t.Errorf("reports %v", *reports)
		}
	})
}

func TestANilPointerAsAnErrorPassesThroughGeneratorsAndTimeouts(t *testing.T) {
	var broken error = (*fs.PathError)(nil)
	forEachBackend(t, func(t *testing.T, l *Loop) {
		runMain(t, l, func(co *Coro) error {
			gen := func() *AsyncGen[int] {
				return NewAsyncGen(func(_ *Coro, yield func(int) error) error { _ = yield(1); return broken })
			}
			for what, end := range map[string]func(g *AsyncGen[int]) error{
				"Next":   func(g *AsyncGen[int]) error { _, _, err := g.Next(co); return err },
				"AClose": func(g *AsyncGen[int]) error { return g.AClose(co) },
			} {
				g := gen()
				if _, ok, err := g.Next(co); !ok || err != nil {
					t.Errorf("the first value: %v, %v", ok, err)
				}
				if err := end(g); err != broken {
					t.Errorf("%s: %v", what, err)
				}
			}
			err := Timeout(co, time.Millisecond, func() error { _ = Sleep(co, time.Hour); return broken })
			if err != broken {
				t.Errorf("a function that took too long: %v", err)
			}
			err = Timeout(co, time.Millisecond, func() error { return errors.Join(Sleep(co, time.Hour), broken) })
			wantErr(t, "joined with the cancellation", err, ErrTimeout)
			if p := new(fs.PathError); !errors.As(err, &p) || p != nil {
				t.Errorf("the error got lost: %v", err)
			}
			return Sleep(co, 0)
		})
	})
}

func TestTasksRefuseResultsFromOutside(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		task := CreateTask(l, func(*Coro) (int, error) { return 1, nil }, nil)
		wantErr(t, "SetResult", task.SetResult(2), ErrInvalidState)
		wantErr(t, "SetException", task.SetException(errors.New("x")), ErrInvalidState)
		if v, err := RunUntilComplete(l, task); v != 1 || err != nil {
			t.Errorf("got %v, %v", v, err)
		}
	})
}

func TestCurrentAndAllTasks(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		if l.CurrentTask() != nil {
			t.Error("a current task outside a run")
		}
		soon(t, l, func() {
			if l.CurrentTask() != nil {
				t.Error("a current task in a callback")
			}
		})
		blocked := l.Go(func(co *Coro) error { return Sleep(co, time.Hour) })
		runMain(t, l, func(co *Coro) error {
			if l.CurrentTask() != co.Task() {
				t.Error("the current task is another")
			}
			all := l.AllTasks()
			if len(all) != 2 || !slices.Contains(all, AnyTask(blocked)) || !slices.Contains(all, co.Task()) {
				t.Errorf("all tasks: %v", all)
			}
			blocked.Cancel("")
			_, err := blocked.Await(co)
			wantErr(t, "Await", err, ErrCancelled)
			if n := len(l.AllTasks()); n != 1 {
				t.Errorf("%d tasks", n)
			}
			return nil
		})
	})
}

func TestTaskFactory(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		if l.TaskFactory() != nil {
			t.Error("a factory by default")
		}
		refused := errors.New("refused")
		var seen []string
		l.SetTaskFactory(func(task AnyTask, o *TaskOptions) error {
			if o.Name == "bad" {
				return refused
			}
			seen = append(seen, task.Name())
			return nil
		})
		runMain(t, l, func(co *Coro) error {
			_, err := CreateTask(l, func(*Coro) (int, error) { return 0, nil }, &TaskOptions{Name: "bad"}).Await(co)
			wantErr(t, "refused task", err, refused)
			_, err = CreateTask(l, func(*Coro) (int, error) { return 0, nil }, &TaskOptions{Name: "good"}).Await(co)
			return err
		})
		if !slices.Contains(seen, "good") {
			t.Errorf("the factory saw %q", seen)
		}
		ctx := NewContext()
		for _, eager := range []bool{false, true} {
			l.SetTaskFactory(func(_ AnyTask, o *TaskOptions) error {
				*o = TaskOptions{Name: "renamed", Context: ctx, EagerStart: eager}
				return nil
			})
			runMain(t, l, func(co *Coro) error {
				_, err := CreateTask(l, func(co *Coro) (int, error) {
					if task := co.Task(); task.Name() != "renamed" || task.Context() != ctx || l.CurrentContext() != ctx {
						t.Errorf("the task is %v and does not run in the context of the factory", task)
					}
					return 0, nil
				}, &TaskOptions{Context: NewContext()}).Await(co)
				return err
			})
		}
		l.SetTaskFactory(nil)
		if l.TaskFactory() != nil {
			t.Error("the factory was not removed")
		}
	})
}

func TestEagerTasks(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		l.SetTaskFactory(EagerTaskFactory)
		before := l.Go(func(*Coro) error { return nil })
		if before.Done() {
			t.Error("started although the loop does not run")
		}
		v := NewContextVar[int]("v")
		runMain(t, l, func(co *Coro) error {
			me := l.CurrentTask()
			v.Set(l.CurrentContext(), 1)
			quick := CreateTask(l, func(in *Coro) (string, error) {
				if l.CurrentTask() != in.Task() || !slices.Contains(l.AllTasks(), in.Task()) {
					t.Error("the eager task is not the current one")
				}
				v.Set(l.CurrentContext(), 2)
				return "eager", nil
			}, nil)
			if !quick.Done() || l.CurrentTask() != me || quick.Cancel("") {
				t.Error("it did not finish inside CreateTask")
			}
			if got, _ := v.Get(l.CurrentContext()); got != 1 {
				t.Errorf("the eager task changed its creator's context to %d", got)
			}
			slow := CreateTask(l, func(in *Coro) (string, error) {
				v.Set(l.CurrentContext(), 3)
				err := Sleep(in, time.Millisecond)
				if got, _ := v.Get(l.CurrentContext()); got != 3 || l.CurrentTask() != in.Task() {
					t.Errorf("after its sleep the eager task sees %d and is not the current one", got)
				}
				return "slow", err
			}, nil)
			if got, _ := v.Get(l.CurrentContext()); slow.Done() || l.CurrentTask() != me || got != 1 {
				t.Errorf("a task that sleeps is done: %v, its creator sees %d", slow.Done(), got)
			}
			if got, err := slow.Await(co); got != "slow" || err != nil {
				t.Errorf("got %q, %v", got, err)
			}
			blocked := l.Go(func(in *Coro) error { return Sleep(in, time.Hour) })
			if !blocked.Cancel("") {
				t.Error("a task that sleeps cannot be cancelled")
			}
			_, err := blocked.Await(co)
			wantErr(t, "the cancelled task", err, ErrCancelled)
			boom := errors.New("boom")
			if failed := l.Go(func(*Coro) error { return boom }); failed.Exception() != boom || l.CurrentTask() != me {
				t.Errorf("the failed task has %v", failed.Exception())
			}
			return nil
		})
	})
}

func TestCoroContextIsCancelledWithTheTask(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		var ctx context.Context
		task := l.Go(func(co *Coro) error {
			ctx = co.Context()
			return Sleep(co, time.Hour)
		})
		soon(t, l, func() { task.Cancel("why") })
		_, _ = RunUntilComplete(l, task)
		if ctx.Err() != context.Canceled || !strings.Contains(context.Cause(ctx).Error(), "why") {
			t.Errorf("got %v, cause %v", ctx.Err(), context.Cause(ctx))
		}
		runMain(t, l, func(co *Coro) error { ctx = co.Context(); return nil })
		if ctx.Err() == nil {
			t.Error("the context outlives its task")
		}
	})
}

func TestTimeout(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		runMain(t, l, func(co *Coro) error {
			err := Timeout(co, time.Millisecond, func() error { return Sleep(co, time.Hour) })
			wantErr(t, "a wait that is too long", err, ErrTimeout)
			err = Timeout(co, 0, func() error { return Sleep(co, 0) })
			wantErr(t, "the shortest wait with no time left", err, ErrTimeout)
			err = Timeout(co, 0, func() error { return nil })
			wantErr(t, "no wait", err, nil)
			if co.Task().Cancelling() != 0 {
				t.Error("the timeout left a cancellation request")
			}
			boom := errors.New("boom")
			err = Timeout(co, time.Hour, func() error { return boom })
			wantErr(t, "an error in time", err, boom)
			err = Timeout(co, time.Hour, func() error {
				return Timeout(co, time.Millisecond, func() error { return Sleep(co, time.Hour) })
			})
			wantErr(t, "the inner of two", err, ErrTimeout)
			err = Timeout(co, time.Millisecond, func() error {
				err := Timeout(co, time.Hour, func() error { return Sleep(co, time.Hour) })
				wantErr(t, "the wait inside the outer timeout", err, ErrCancelled)
				return err
			})
			wantErr(t, "the outer of two", err, ErrTimeout)
			err = Timeout(co, time.Millisecond, func() error {
				ctx := co.Context()
				_ = Sleep(co, time.Hour)
				return ctx.Err()
			})
			wantErr(t, "a wait that tells by the task's context", err, ErrTimeout)
			before := co.Context()
			err = Timeout(co, time.Millisecond, func() error { return Sleep(co, time.Hour) })
			wantErr(t, "a wait with a context from before", err, ErrTimeout)
			if before.Err() == nil || co.Context().Err() != nil {
				t.Errorf("the context from before says %v, another one %v", before.Err(), co.Context().Err())
			}
			return Sleep(co, time.Millisecond)
		})
		task := l.Go(func(co *Coro) error {
			return Timeout(co, time.Hour, func() error { return Sleep(co, time.Hour) })
		})
		soon(t, l, func() { task.Cancel("from outside") })
		_, err := RunUntilComplete(l, task)
		wantErr(t, "cancelled from outside", err, ErrCancelled)
	})
}

func TestAnErrorThatIsJoinedWithACancellationIsNotLost(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		boom := errors.New("boom")
		for what, c := range map[string]struct {
			also      func(err error) error
			cancelled bool
		}{
			"alone":                     {func(err error) error { return err }, true},
			"wrapped":                   {func(err error) error { return fmt.Errorf("serve: %w", err) }, true},
			"joined with nothing":       {func(err error) error { return errors.Join(err, nil) }, true},
			"joined with its like":      {func(err error) error { return errors.Join(err, context.Canceled) }, true},
			"joined with another error": {func(err error) error { return errors.Join(err, boom) }, false},
			"joined, then wrapped":      {func(err error) error { return fmt.Errorf("serve: %w", errors.Join(boom, err)) }, false},
		} {
			task := l.Go(func(co *Coro) error { return c.also(Sleep(co, time.Hour)) })
			soon(t, l, func() { task.Cancel("enough") })
			_, err := RunUntilComplete(l, task)
			wantErr(t, what, err, ErrCancelled)
			if task.Cancelled() != c.cancelled || errors.Is(err, boom) == c.cancelled {
				t.Errorf("%s: cancelled is %v, the error is %v", what, task.Cancelled(), err)
			}
		}
		runMain(t, l, func(co *Coro) error {
			err := Timeout(co, time.Millisecond, func() error { return errors.Join(Sleep(co, time.Hour), boom) })
			wantErr(t, "the error of a function that took too long", err, boom)
			wantErr(t, "the error of a function that took too long", err, ErrTimeout)
			if errors.Is(err, ErrCancelled) {
				t.Errorf("a time limit looks like a request to end: %v", err)
			}
			return nil
		})
	})
}

func TestTimeoutRefusesTheCoroOfAnotherTask(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		runMain(t, l, func(co *Coro) error {
			inner := CreateTask(l, func(*Coro) (int, error) {
				return 0, Timeout(co, 0, func() error { t.Error("the function was called"); return nil })
			}, &TaskOptions{Name: "inner"})
			err := Sleep(co, 5*time.Millisecond)
			wantErr(t, "the wait of the task whose Coro it was", err, nil)
			_, err = inner.Await(co)
			wantErr(t, "Timeout", err, ErrNotCurrent)
			if !strings.Contains(err.Error(), co.Task().Name()) || !strings.Contains(err.Error(), "inner") {
				t.Errorf("the error does not name both tasks: %v", err)
			}
			return nil
		})
	})
}

func TestManyTasks(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		const n = 3000 // more than the pool of coroutines keeps
		sum := 0
		for round := range 3 {
			var tasks []*Task[int]
			for i := range n {
				tasks = append(tasks, CreateTask(l, func(co *Coro) (int, error) {
					return i, Sleep(co, time.Duration(i%7)*time.Microsecond)
				}, nil))
			}
			runMain(t, l, func(co *Coro) error {
				for _, task := range tasks {
					v, err := task.Await(co)
					if err != nil {
						return fmt.Errorf("round %d: %w", round, err)
					}
					sum += v
				}
				return nil
			})
		}
		if want := 3 * n * (n - 1) / 2; sum != want {
			t.Errorf("sum %d, want %d", sum, want)
		}
	})
}

func TestATimeoutSaysHowLongItWasAndWhatItWaitedFor(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		runMain(t, l, func(co *Coro) error {
			never := CreateFuture[int](l)
			slow := CreateTask(l, func(co *Coro) (int, error) { return 0, Sleep(co, time.Hour) }, &TaskOptions{Name: "slow"})
			for waitsFor, fn := range map[string]func() error{
				"a timer": func() error { return Sleep(co, time.Hour) },
				"<Future": func() error { _, err := never.Await(co); return err },
				`"slow"`:  func() error { _, err := slow.Await(co); return err },
			} {
				const limit = 2 * time.Millisecond
				err := Timeout(co, limit, fn)
				var te *TimeoutError
				if !errors.Is(err, ErrTimeout) || !errors.As(err, &te) || te.Limit != limit || !te.Timeout() || !strings.Contains(te.WaitsFor, waitsFor) {
					t.Errorf("waiting for %s: %#v", waitsFor, err)
					continue
				}
				if want := "timed out after " + limit.String() + ", waiting for " + te.WaitsFor; err.Error() != want {
					t.Errorf("the text is %q, want %q", err, want)
				}
			}
			return nil
		})
	})
}
