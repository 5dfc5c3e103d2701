package loop

import (
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// mustCall fails the test if a callback could not be scheduled.
func mustCall[H any](t testing.TB) func(h H, err error) H {
	return func(h H, err error) H {
		t.Helper()
		if err != nil {
			t.Fatalf("schedule: %v", err)
		}
		return h
	}
}

// soon queues fn and fails the test if that is refused.
func soon(t testing.TB, l *Loop, fn func()) Handle {
	t.Helper()
	return mustCall[Handle](t)(l.CallSoon(fn))
}

// runMain runs fn as a task until it ends.
func runMain(t testing.TB, l *Loop, fn func(co *Coro) error) {
	t.Helper()
	if _, err := RunUntilComplete(l, l.Go(fn)); err != nil {
		t.Fatalf("task: %v", err)
	}
}

// runOnce runs one turn.
func runOnce(t testing.TB, l *Loop) {
	t.Helper()
	l.Stop()
	if err := l.RunForever(); err != nil {
		t.Fatalf("RunForever: %v", err)
	}
}

func wantErr(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got error %v, want %v", what, err, want)
	}
}

func TestRunUntilCompleteTakesAtLeastTheDelay(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		start := l.Time()
		runMain(t, l, func(co *Coro) error { return Sleep(co, 20*time.Millisecond) })
		if took := l.Time() - start; took < 20*time.Millisecond {
			t.Errorf("a sleep of 20 ms took %v", took)
		}
	})
}

func TestRunInsideARunIsRefused(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		runMain(t, l, func(co *Coro) error {
			wantErr(t, "RunForever", l.RunForever(), ErrLoopRunning)
			f := CreateFuture[int](l)
			_, err := RunUntilComplete(l, f)
			wantErr(t, "RunUntilComplete", err, ErrLoopRunning)
			if len(f.waiters) != 0 {
				t.Error("the refused run left a callback on its future")
			}
			return nil
		})
	})
}

func TestRunInsideAnotherLoopsRunIsRefused(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		other := newTestLoop(t, l.be.Name())
		runMain(t, l, func(co *Coro) error {
			wantErr(t, "RunForever", other.RunForever(), ErrOtherLoopRunning)
			return nil
		})
		runMain(t, other, func(co *Coro) error { return nil })
	})
}

func TestRunUntilCompleteStoppedBeforeLeavesTheTaskToALaterRun(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		release := CreateFuture[string](l)
		task := CreateTask(l, func(co *Coro) (string, error) { return release.Await(co) }, nil)
		soon(t, l, l.Stop)
		_, err := RunUntilComplete(l, task)
		wantErr(t, "stopped run", err, ErrStopped)
		if task.Done() {
			t.Fatal("the task is done")
		}
		soon(t, l, func() { _ = release.SetResult("later") })
		got, err := RunUntilComplete(l, task)
		if got != "later" || err != nil {
			t.Errorf("second run: got %q, %v", got, err)
		}
	})
}

func TestRunUntilCompleteRefusesAnotherLoopsFuture(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		other := newTestLoop(t, l.be.Name())
		_, err := RunUntilComplete(l, CreateFuture[int](other))
		wantErr(t, "RunUntilComplete", err, ErrDifferentLoop)
	})
}

func TestNilFuturesAreRefused(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		for name, a := range map[string]Awaitable[int]{
			"nil": nil, "a nil Future": (*Future[int])(nil), "a nil Task": (*Task[int])(nil),
		} {
			_, run := RunUntilComplete(l, a)
			_, ensure := EnsureFuture(l, a)
			for _, err := range []error{run, ensure} {
				wantErr(t, name, err, ErrInvalidArgument)
				if !strings.HasSuffix(err.Error(), "the future is nil") {
					t.Errorf("%s: %v does not name the argument", name, err)
				}
			}
		}
	})
}

func TestRunUntilCompleteReturnsTheTasksError(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		boom := errors.New("boom")
		_, err := RunUntilComplete(l, l.Go(func(*Coro) error { return boom }))
		if err != boom {
			t.Errorf("got %v, want the task's own error", err)
		}
	})
}

func TestLoopExitUnwindsTheRunAndKeepsTheRestOfTheBatch(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		interrupt := errors.New("interrupt")
		var got []string
		add := func(s string) func() { return func() { got = append(got, s) } }
		soon(t, l, func() {
			add("before")()
			soon(t, l, add("new"))
		})
		soon(t, l, func() { panic(LoopExit{interrupt}) })
		soon(t, l, add("after"))
		mustCall[TimerHandle](t)(l.CallLater(0, add("timer")))
		err := l.RunForever()
		wantErr(t, "RunForever", err, interrupt)
		if l.IsRunning() || l.IsClosed() {
			t.Errorf("running=%v closed=%v after the exit", l.IsRunning(), l.IsClosed())
		}
		if !slices.Equal(got, []string{"before"}) {
			t.Errorf("ran %q before the exit", got)
		}
		runOnce(t, l)
		if want := []string{"before", "after", "timer", "new"}; !slices.Equal(got, want) {
			t.Errorf("ran %q, want %q", got, want)
		}
	})
}

func TestLoopExitInATaskLeavesNoStopRequest(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		interrupt := errors.New("interrupt")
		reports := collectReports(l)
		_, err := RunUntilComplete(l, l.Go(func(*Coro) error { panic(LoopExit{interrupt}) }))
		wantErr(t, "RunUntilComplete", err, interrupt)
		runMain(t, l, func(co *Coro) error { return Sleep(co, time.Millisecond) })
		if len(*reports) != 0 {
			t.Errorf("reported %q", (*reports)[0].Message)
		}
	})
}

func TestStopBeforeRunRunsExactlyOneTurn(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		turns := 0
		var again func()
		again = func() {
			turns++
			soon(t, l, again)
		}
		soon(t, l, again)
		runOnce(t, l)
		if turns != 1 {
			t.Errorf("%d turns, want 1", turns)
		}
	})
}

func TestStopFinishesTheTurn(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		var got []string
		soon(t, l, func() {
			l.Stop()
			l.Stop()
			soon(t, l, func() { got = append(got, "next run") })
		})
		soon(t, l, func() { got = append(got, "same turn") })
		if err := l.RunForever(); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, []string{"same turn"}) {
			t.Errorf("ran %q in the first run", got)
		}
		runOnce(t, l)
		if !slices.Equal(got, []string{"same turn", "next run"}) {
			t.Errorf("ran %q in both runs", got)
		}
	})
}

func TestCloseIsIdempotentAndFinal(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		runOnce(t, l)
		for range 2 {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if !l.IsClosed() {
			t.Error("not closed")
		}
		wantErr(t, "RunForever", l.RunForever(), ErrLoopClosed)
		_, err := l.CallSoon(func() {})
		wantErr(t, "CallSoon", err, ErrLoopClosed)
		_, err = l.CallSoonThreadsafe(func() {})
		wantErr(t, "CallSoonThreadsafe", err, ErrLoopClosed)
		_, err = l.CallLater(0, func() {})
		wantErr(t, "CallLater", err, ErrLoopClosed)
		_, err = l.CallAt(0, func() {})
		wantErr(t, "CallAt", err, ErrLoopClosed)
		task := l.Go(func(*Coro) error { return nil })
		wantErr(t, "CreateTask", task.Exception(), ErrLoopClosed)
		_, err = RunUntilComplete(l, CreateFuture[int](l))
		wantErr(t, "RunUntilComplete", err, ErrLoopClosed)
		l.Stop()
		l.SetDebug(true)
		if l.Time() <= 0 {
			t.Error("the clock stands still")
		}
	})
}

func TestCloseOfARunningLoopIsRefused(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		runMain(t, l, func(*Coro) error {
			wantErr(t, "Close", l.Close(), ErrLoopRunning)
			return nil
		})
	})
}

func TestCloseReleasesItsDescriptors(t *testing.T) {
	count := func() int {
		d, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(d)
	}
	forEachBackend(t, func(t *testing.T, l *Loop) {
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		before := count()
		for range 20 {
			again := newTestLoop(t, l.be.Name())
			runOnce(t, again)
			if err := again.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if after := count(); after > before {
			t.Errorf("%d descriptors before, %d after", before, after)
		}
	})
}

func TestRunningLoopIsKnownOnlyInsideARun(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		none := func(when string) {
			t.Helper()
			if got, err := RunningLoop(); got != nil || !errors.Is(err, ErrNoRunningLoop) {
				t.Errorf("%s: got %v, %v", when, got, err)
			}
		}
		none("before")
		soon(t, l, func() {
			if got, err := RunningLoop(); got != l || err != nil {
				t.Errorf("in a callback: got %v, %v", got, err)
			}
			if !l.IsRunning() {
				t.Error("not running inside a callback")
			}
		})
		runMain(t, l, func(co *Coro) error {
			if got, err := RunningLoop(); got != l || err != nil {
				t.Errorf("in a task: got %v, %v", got, err)
			}
			return nil
		})
		none("after")
		if l.IsRunning() {
			t.Error("running after the run")
		}
	})
}

func TestARunMayBeStartedByAnyGoroutine(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		for range 3 {
			var wg sync.WaitGroup
			wg.Go(func() {
				runMain(t, l, func(co *Coro) error { return Sleep(co, time.Microsecond) })
			})
			wg.Wait()
		}
	})
}

func TestPendingTasksAreUnwoundAndReportedByClose(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		reports := collectReports(l)
		var waitErr error
		deferred := false
		l.Go(func(co *Coro) error {
			defer func() { deferred = true }()
			_, waitErr = CreateFuture[int](l).Await(co)
			for range 2 * maxAbandoned { // goes on regardless, until it is unwound
				_ = Sleep(co, time.Hour)
			}
			t.Error("the task was not unwound")
			return nil
		})
		runOnce(t, l)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		wantErr(t, "Await", waitErr, ErrLoopClosed)
		if !deferred {
			t.Error("the deferred function did not run")
		}
		if len(*reports) != 1 || (*reports)[0].Message != "Task was destroyed but it is pending!" {
			t.Errorf("reports: %v", *reports)
		}
	})
}

func TestATaskUnwoundByCloseMayGoOnWaitingInItsDeferredFunctions(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		l.SetExceptionHandler(func(_ *Loop, c *ExceptionContext) {
			if c.Message != "Task was destroyed but it is pending!" {
				t.Errorf("reported: %s: %v", c.Message, c.Exception)
			}
		})
		name := NewContextVar[string]("name")
		ended := false
		l.Go(func(co *Coro) error {
			name.Set(l.CurrentContext(), "task")
			defer func() {
				_, err := CreateFuture[int](l).Await(co)
				wantErr(t, "Await", err, ErrLoopClosed)
				wantErr(t, "Sleep(0)", Sleep(co, 0), ErrLoopClosed)
				wantErr(t, "Sleep", Sleep(co, time.Hour), ErrLoopClosed)
				wantErr(t, "Timeout", Timeout(co, time.Hour, func() error { return nil }), ErrLoopClosed)
				_, err = RunInExecutor(l, nil, func() (int, error) { return 0, nil }).Await(co)
				wantErr(t, "RunInExecutor", err, ErrLoopClosed)
				if s, _ := name.Get(l.CurrentContext()); s != "task" {
					t.Errorf("the variable is %q", s)
				}
				ended = true
			}()
			return Sleep(co, time.Hour)
		})
		runOnce(t, l)
		if err := l.Close(); err != nil || !ended {
			t.Errorf("Close: %v, the deferred function has ended: %v", err, ended)
		}
	})
}

// What does not wait does not count among the waits that a task has left.
func TestATaskUnwoundByCloseMaySeeAnyNumberOfCallsRefused(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		l.SetExceptionHandler(func(*Loop, *ExceptionContext) {}) // the task is pending
		a, _ := socketPair(t)
		calls := map[string]func() error{
			"CallSoon":           func() error { _, err := l.CallSoon(func() {}); return err },
			"CallLater":          func() error { _, err := l.CallLater(0, func() {}); return err },
			"AddReader":          func() error { return l.AddReader(a, func() {}) },
			"AddSignalHandler":   func() error { return l.AddSignalHandler(syscall.SIGUSR1, func() {}) },
			"SetDefaultExecutor": func() error { return l.SetDefaultExecutor(NewPoolExecutor(1, "")) },
		}
		ended := false
		l.Go(func(co *Coro) error {
			defer func() {
				for what, call := range calls {
					for range maxAbandoned {
						wantErr(t, what, call(), ErrLoopClosed)
					}
				}
				wantErr(t, "Sleep", Sleep(co, time.Hour), ErrLoopClosed)
				ended = true
			}()
			return Sleep(co, time.Hour)
		})
		runOnce(t, l)
		if err := l.Close(); err != nil || !ended {
			t.Errorf("Close: %v, the deferred function has ended: %v", err, ended)
		}
	})
}

// A task that looks at no error of a wait is unwound all the same.
func TestATaskThatGoesOnWaitingOnAClosedLoopIsUnwound(t *testing.T) {
	for what, wait := range map[string]func(co *Coro) error{
		"Await":         func(co *Coro) error { _, err := CreateFuture[int](co.l).Await(co); return err },
		"Sleep":         func(co *Coro) error { return Sleep(co, time.Hour) },
		"Timeout":       func(co *Coro) error { return Timeout(co, time.Hour, func() error { return nil }) },
		"CreateTask":    func(co *Coro) error { _, err := co.l.Go(func(*Coro) error { return nil }).Await(co); return err },
		"RunInExecutor": func(co *Coro) error { _, err := co.l.Getaddrinfo("::1", "", nil).Await(co); return err },
	} {
		t.Run(what, func(t *testing.T) {
			forEachBackend(t, func(t *testing.T, l *Loop) {
				l.SetExceptionHandler(func(*Loop, *ExceptionContext) {}) // the task is pending
				unwound := false
				l.Go(func(co *Coro) error {
					defer func() { unwound = true }()
					_ = Sleep(co, time.Hour)
					for {
						wantErr(t, what, wait(co), ErrLoopClosed)
					}
				})
				runOnce(t, l)
				if err := l.Close(); err != nil || !unwound {
					t.Errorf("Close: %v, the task was unwound: %v", err, unwound)
				}
			})
		})
	}
}

// Not even by recovering from everything, as what supervises others does.
func TestATaskThatRecoversFromEverythingDoesNotKeepTheLoopOpen(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		l.SetExceptionHandler(func(*Loop, *ExceptionContext) {}) // the tasks are pending
		supervise := func(co *Coro) {                            // forever
			once := func() {
				defer func() { _ = recover() }()
				_ = Sleep(co, time.Hour)
			}
			for {
				once()
			}
		}
		ended := 0
		for range 3 {
			l.Go(func(co *Coro) error {
				defer func() { ended++ }()
				defer supervise(co)
				supervise(co)
				return nil
			})
		}
		runOnce(t, l)
		if err := l.Close(); err != nil || ended != 3 {
			t.Errorf("Close: %v, %d tasks have ended", err, ended)
		}
	})
}

func TestGoexitInATaskEndsOnlyTheTask(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		ran := false
		task := l.Go(func(*Coro) error {
			soon(t, l, func() { ran = true })
			goexit()
			return nil
		})
		_, err := RunUntilComplete(l, task)
		wantErr(t, "RunUntilComplete", err, ErrGoexit)
		runMain(t, l, func(co *Coro) error { return Sleep(co, time.Millisecond) })
		if !ran {
			t.Error("a callback was lost")
		}
	})
}

func TestStringDescribesTheLoop(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		if s := l.String(); !strings.Contains(s, l.be.Name()) || !strings.Contains(s, "running=false") {
			t.Errorf("got %q", s)
		}
	})
}

// collectReports makes the loop keep its reports.
func collectReports(l *Loop) *[]*ExceptionContext {
	reports := &[]*ExceptionContext{}
	l.SetExceptionHandler(func(_ *Loop, c *ExceptionContext) { *reports = append(*reports, c) })
	return reports
}
