package loop

import (
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/epoll"
	"github.com/seed-80cfe818/ringloop/uring"
)

// countingBackend counts how often the loop asks the kernel, and notes for how
// long it would wait.
type countingBackend struct {
	backend.Backend
	timeouts []time.Duration
	onWait   func() // called before a wait, if not nil
}

func (b *countingBackend) Wait(timeout time.Duration) error {
	b.timeouts = append(b.timeouts, timeout)
	if b.onWait != nil {
		b.onWait()
	}
	return b.Backend.Wait(timeout)
}

// newCountingLoop returns a loop on a backend that counts.
func newCountingLoop(t *testing.T, name string) (*Loop, *countingBackend) {
	t.Helper()
	counting := &countingBackend{}
	l, err := NewEventLoop(WithBackendFactory(func() (b backend.Backend, err error) {
		if name == "epoll" {
			counting.Backend, err = epoll.New(nil)
		} else {
			counting.Backend, err = uring.New(nil)
		}
		return counting, err
	}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return l, counting
}

// allocated is something whose end can be seen.
type allocated struct{ _ [64]byte }

func (*allocated) String() string { return "thing" }

// watchEnd returns a thing and a channel that is closed when nobody refers to it.
func watchEnd() (*allocated, <-chan struct{}) {
	thing, gone := &allocated{}, make(chan struct{})
	runtime.AddCleanup(thing, func(gone chan struct{}) { close(gone) }, gone)
	return thing, gone
}

// wantGone collects garbage until the thing is gone.
func wantGone(t *testing.T, what string, gone <-chan struct{}) {
	t.Helper()
	for start := time.Now(); time.Since(start) < 20*time.Second; {
		runtime.GC()
		select {
		case <-gone:
			return
		case <-time.After(time.Millisecond):
		}
	}
	t.Errorf("the loop still refers to %s", what)
}

func TestALoopRunsOnABackendOfYourOwn(t *testing.T) {
	forEachBackend(t, func(t *testing.T, other *Loop) {
		l, counting := newCountingLoop(t, other.be.Name())
		if l.Backend() != backend.Backend(counting) {
			t.Fatalf("the backend is %v", l.Backend())
		}
		runMain(t, l, func(co *Coro) error { return Sleep(co, time.Millisecond) })
		if len(counting.timeouts) == 0 {
			t.Error("the backend was never asked")
		}
		refused := errors.New("refused")
		_, err := NewEventLoop(WithBackendFactory(func() (backend.Backend, error) { return nil, refused }))
		wantErr(t, "NewEventLoop", err, refused)
		_, err = NewEventLoop(WithBackendFactory(func() (backend.Backend, error) { return nil, nil }))
		wantErr(t, "NewEventLoop without a backend", err, ErrInvalidArgument)
		_, err = NewEventLoop(nil)
		wantErr(t, "NewEventLoop with an option that is nil", err, ErrInvalidArgument)
	})
}

func TestStopBeforeRunPollsOnceWithoutWaiting(t *testing.T) {
	forEachBackend(t, func(t *testing.T, other *Loop) {
		l, counting := newCountingLoop(t, other.be.Name())
		runOnce(t, l) // what a first run sets up is not counted
		mustCall[TimerHandle](t)(l.CallLater(time.Hour, func() { t.Error("called") }))
		counting.timeouts = nil
		turns := countTurns(l)
		runOnce(t, l)
		// The second hands over what the turn has submitted.
		if n := turns(); n != 1 || !slices.Equal(counting.timeouts, []time.Duration{0, 0}) {
			t.Errorf("%d turns, waited for %v, want 1 turn that waits for 0", n, counting.timeouts)
		}
	})
}

func TestThePollWaitsForTheEarliestTimerThatIsNotCancelled(t *testing.T) {
	forEachBackend(t, func(t *testing.T, other *Loop) {
		l, counting := newCountingLoop(t, other.be.Name())
		runOnce(t, l)
		mustCall[TimerHandle](t)(l.CallLater(time.Millisecond, func() { t.Error("called") })).Cancel()
		due := mustCall[TimerHandle](t)(l.CallLater(time.Hour, func() { t.Error("called") }))
		mustCall[TimerHandle](t)(l.CallLater(2*time.Hour, func() { t.Error("called") }))
		counting.timeouts = nil
		counting.onWait = func() { mustCall[Handle](t)(l.CallSoonThreadsafe(l.Stop)) }
		before := l.Time()
		if err := l.RunForever(); err != nil {
			t.Fatal(err)
		}
		counting.onWait = nil
		latest, earliest := due.When()-before, due.When()-l.Time()
		if got := counting.timeouts[0]; got > latest || got < earliest {
			t.Errorf("waited for %v, want %v to %v", got, earliest, latest)
		}
	})
}

func TestATaskInterruptedByStopCanBeCancelledInALaterRun(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		task := l.Go(func(co *Coro) error { return Sleep(co, time.Hour) })
		soon(t, l, l.Stop)
		_, err := RunUntilComplete(l, task)
		wantErr(t, "the stopped run", err, ErrStopped)
		if !task.Cancel("enough") {
			t.Error("the task cannot be cancelled")
		}
		_, err = RunUntilComplete(l, task)
		wantErr(t, "the later run", err, ErrCancelled)
	})
}

func TestACancelledTimerLetsGoOfItsCallbackAtOnce(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		thing, gone := watchEnd()
		fn := func() { _ = thing.String() }
		h := mustCall[TimerHandle](t)(l.CallLater(time.Hour, fn))
		h.Cancel()
		wantGone(t, "the callback of a cancelled timer", gone)
		if !h.Cancelled() || h.When() < time.Hour {
			t.Errorf("the handle says %v", h)
		}
	})
}

func TestWhatHasRunIsLetGo(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		ends := map[string]<-chan struct{}{}
		add := func(what string, schedule func(fn func())) {
			thing, gone := watchEnd()
			schedule(func() { _ = thing.String() })
			ends[what] = gone
		}
		add("a callback", func(fn func()) { soon(t, l, fn) })
		add("a timer", func(fn func()) { mustCall[TimerHandle](t)(l.CallLater(0, fn)) })
		add("a callback of another thread", func(fn func()) { mustCall[Handle](t)(l.CallSoonThreadsafe(fn)) })
		add("a task", func(fn func()) { l.Go(func(co *Coro) error { fn(); return Sleep(co, 0) }) })
		add("a callback of a future", func(fn func()) {
			f := CreateFuture[int](l)
			f.AddDoneCallback(func(AnyFuture) { fn() })
			_ = f.SetResult(1)
		})
		ends["the result of a future"] = awaitedResult(l)
		for range 4 {
			runOnce(t, l)
		}
		for what, gone := range ends {
			wantGone(t, what, gone)
		}
	})
}

// awaitedResult makes a task that awaits a future, and returns what tells the
// end of the future's result.
func awaitedResult(l *Loop) <-chan struct{} {
	result, gone := watchEnd()
	f := CreateFuture[*allocated](l)
	l.Go(func(co *Coro) error { _, err := f.Await(co); return err })
	_ = f.SetResult(result)
	return gone
}

func TestASleepOfNothingSkipsExactlyOneTurn(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		runMain(t, l, func(co *Coro) error {
			for _, d := range []time.Duration{0, -time.Hour} {
				turns := countTurns(l)
				if err := Sleep(co, d); err != nil {
					return err
				}
				if n := turns(); n != 1 {
					t.Errorf("Sleep(%v) took %d turns", d, n)
				}
			}
			if n := len(l.timers.entries); n != 0 {
				t.Errorf("%d timers were made", n)
			}
			return nil
		})
	})
}

func TestATaskRunsInTheContextItWasGiven(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		v := NewContextVar[int]("v")
		ctx := NewContext()
		v.Set(ctx, 1)
		task := CreateTask(l, func(co *Coro) (int, error) {
			got, _ := v.Get(l.CurrentContext())
			v.Set(l.CurrentContext(), 2)
			if err := Sleep(co, 0); err != nil {
				return 0, err
			}
			later, _ := v.Get(l.CurrentContext())
			return 10*got + later, nil
		}, &TaskOptions{Context: ctx})
		if task.Context() != ctx {
			t.Error("the task has another context")
		}
		got, err := RunUntilComplete(l, task)
		if got != 12 || err != nil {
			t.Errorf("the task saw %d, %v", got, err)
		}
		if got, _ := v.Get(ctx); got != 2 {
			t.Errorf("the context given holds %d: it was copied", got)
		}
		own := l.Go(func(*Coro) error { v.Set(l.CurrentContext(), 3); return nil })
		if _, err := RunUntilComplete(l, own); err != nil {
			t.Fatal(err)
		}
		if got, _ := v.Get(own.Context()); got != 3 {
			t.Errorf("the task's own context holds %d", got)
		}
	})
}

func TestATaskHasItsContextAlsoWhileCodeInsideItRunsInAnother(t *testing.T) {
	inside := map[string]func(l *Loop, look func()){
		"an eager task": func(l *Loop, look func()) {
			CreateTask(l, func(*Coro) (int, error) { look(); return 0, nil }, &TaskOptions{EagerStart: true})
		},
		"a protocol": func(l *Loop, look func()) {
			defer l.LeaveContext(l.EnterContext(NewContext()))
			look()
		},
		"an exception handler": func(l *Loop, look func()) {
			l.SetExceptionHandler(func(*Loop, *ExceptionContext) { look() })
			l.CallExceptionHandler(&ExceptionContext{Task: CreateTask(l, func(*Coro) (int, error) { return 0, nil }, nil)})
		},
	}
	forEachBackend(t, func(t *testing.T, l *Loop) {
		v := NewContextVar[int]("v")
		for name, run := range inside {
			runMain(t, l, func(co *Coro) error {
				v.Set(l.CurrentContext(), 1)
				var seen *Context
				run(l, func() {
					seen = co.Task().Context()
					if got, _ := v.Get(seen); got != 1 || l.CurrentContext() == seen {
						t.Errorf("in %s: the task's value is %d, the context is the task's: %v", name, got, l.CurrentContext() == seen)
					}
				})
				if own := l.CurrentContext(); own != seen || own != co.Task().Context() {
					t.Errorf("%s has seen another context of the task", name)
				}
				return nil
			})
		}
	})
}

func TestADoneCallbackRunsInTheContextItWasGiven(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		ctx := NewContext()
		f := CreateFuture[int](l)
		called := false
		f.AddDoneCallbackContext(ctx, func(AnyFuture) {
			called = true
			if l.CurrentContext() != ctx {
				t.Error("called in another context")
			}
		})
		_ = f.SetResult(1)
		runOnce(t, l)
		if !called {
			t.Error("not called")
		}
	})
}

func TestRemovingADoneCallbackIsTooLateOnceTheFutureIsDone(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		f := CreateFuture[int](l)
		var got []string
		var second *DoneCallback
		f.AddDoneCallback(func(AnyFuture) {
			got = append(got, "first")
			if n := f.RemoveDoneCallback(second); n != 0 {
				t.Errorf("removed %d callbacks that are queued already", n)
			}
		})
		second = f.AddDoneCallback(func(AnyFuture) { got = append(got, "second") })
		_ = f.SetResult(1)
		runOnce(t, l)
		if !slices.Equal(got, []string{"first", "second"}) {
			t.Errorf("called %q", got)
		}
	})
}

func TestATasksStackSaysWhereItWasMadeAndWhatItWaitsFor(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		l.SetDebug(true)
		f := CreateFuture[int](l)
		task := CreateTask(l, func(co *Coro) (int, error) { return f.Await(co) }, &TaskOptions{Name: "waiter"})
		runOnce(t, l)
		s := task.Stack()
		for _, want := range []string{`<Task pending name="waiter"`, "waits for <Future pending", "behaviour_test.go"} {
			if !strings.Contains(s, want) {
				t.Errorf("the stack lacks %q:\n%s", want, s)
			}
		}
		_ = f.SetResult(1)
		if _, err := RunUntilComplete(l, task); err != nil {
			t.Fatal(err)
		}
		if s := task.Stack(); strings.Contains(s, "waits for") || !strings.Contains(s, "finished") {
			t.Errorf("the stack of a task that is done:\n%s", s)
		}
	})
}

func TestAnEagerFactoryKeepsWhatItWraps(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		refused := errors.New("refused")
		var seen []string
		l.SetTaskFactory(CreateEagerTaskFactory(func(task AnyTask, o *TaskOptions) error {
			seen = append(seen, o.Name)
			if o.Name == "bad" {
				return refused
			}
			return nil
		}))
		soon(t, l, func() {
			good := CreateTask(l, func(*Coro) (int, error) { return 1, nil }, &TaskOptions{Name: "good"})
			if !good.Done() {
				t.Error("the task did not start eagerly")
			}
			bad := CreateTask(l, func(*Coro) (int, error) { t.Error("it ran"); return 1, nil }, &TaskOptions{Name: "bad"})
			wantErr(t, "the task that was refused", bad.Exception(), refused)
		})
		runOnce(t, l)
		if !slices.Equal(seen, []string{"good", "bad"}) {
			t.Errorf("the factory saw %q", seen)
		}
	})
}

func TestDebugRefusesCallsFromATaskOfAnotherLoop(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		other := newTestLoop(t, l.be.Name())
		l.SetDebug(true)
		soon(t, l, func() {
			done := make(chan error, 1)
			go func() {
				_, err := RunUntilComplete(other, other.Go(func(*Coro) error {
					_, err := l.CallSoon(func() {})
					return err
				}))
				done <- err
			}()
			wantErr(t, "CallSoon", <-done, ErrWrongThread)
		})
		runOnce(t, l)
	})
}

func TestDebugRefusesToWaitOnAGoroutineThatATaskHasStarted(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		l.SetDebug(true)
		runMain(t, l, func(co *Coro) error {
			f := CreateFuture[int](l)
			done := make(chan error, 1)
			go func() {
				_, err := f.Await(co)
				done <- err
			}()
			wantErr(t, "Await on another goroutine", <-done, ErrWrongThread)
			if _, err := l.CallSoon(func() { _ = f.SetResult(1) }); err != nil {
				return err
			}
			_, err := f.Await(co)
			return err
		})
	})
}

func TestWhatDebugModeRefusesAnotherGoroutineQueuesNothing(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		l.SetDebug(true)
		log := logTo(l)
		done := CreateFuture[int](l)
		_ = done.SetResult(1)
		pending := CreateFuture[int](l)
		called := 0
		var co *Coro
		l.Go(func(c *Coro) error { co = c; return Sleep(co, 0) })
		runOnce(t, l)
		soon(t, l, func() {
			before := l.ready.n
			finished := make(chan struct{})
			go func() {
				defer close(finished)
				done.AddDoneCallback(func(AnyFuture) { called++ })
				pending.AddDoneCallback(func(AnyFuture) { called++ })
				wantErr(t, "Getaddrinfo", l.Getaddrinfo("127.0.0.1", "80", nil).Exception(), ErrWrongThread)
				wantErr(t, "Sleep of a task that waits", Sleep(co, 0), ErrWrongThread)
			}()
			<-finished
			if l.ready.n != before {
				t.Errorf("%d were queued", l.ready.n-before)
			}
			_ = pending.SetResult(1)
		})
		runOnce(t, l)
		runOnce(t, l)
		if n := strings.Count(log.String(), "Future.AddDoneCallback"); n < 2 || called != 0 {
			t.Errorf("%d callbacks were called, %d calls refused: %s", called, n, log)
		}
	})
}

func TestAReportSaysWhereTheCallbackWasScheduledInDebugMode(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		reports := collectReports(l)
		for _, debug := range []bool{false, true} {
			*reports = nil
			l.SetDebug(debug)
			h := soon(t, l, func() { panic("boom") })
			runOnce(t, l)
			if len(*reports) != 1 || (*reports)[0].Handle != h {
				t.Fatalf("reports: %v", *reports)
			}
			c := (*reports)[0]
			if knows := strings.Contains(c.SourceTraceback, "behaviour_test.go"); knows != debug {
				t.Errorf("debug %v: the report says %q", debug, c.SourceTraceback)
			}
		}
	})
}

func TestTheDefaultHandlerSaysWhereTheRunningCallbackWasScheduledInDebugMode(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		log := logTo(l)
		report := func() { l.CallExceptionHandler(&ExceptionContext{Message: "something"}) }
		for _, debug := range []bool{false, true} {
			log.Reset()
			l.SetDebug(debug)
			soon(t, l, report)
			runOnce(t, l)
			s := log.String()
			if knows := strings.Contains(s, "handle_traceback") && strings.Contains(s, "behaviour_test.go"); knows != debug {
				t.Errorf("debug %v: the log says %q", debug, s)
			}
		}
		log.Reset()
		report()
		if strings.Contains(log.String(), "handle_traceback") {
			t.Errorf("outside a callback the log says %q", log)
		}
	})
}
