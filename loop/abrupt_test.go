package loop

import (
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
)

// hangs is how long a run may take before it counts as hanging.
const hangs = 30 * time.Second

// mustReturn runs the loop by run and fails the test if that hangs.
func mustReturn(t *testing.T, l *Loop, run func() error) error {
	t.Helper()
	hung := errors.New("the run hangs")
	watchdog := time.AfterFunc(hangs, func() {
		_, _ = l.CallSoonThreadsafe(func() { panic(LoopExit{Err: hung}) })
	})
	defer watchdog.Stop()
	err := run()
	if errors.Is(err, hung) {
		t.Fatal(err)
	}
	return err
}

// ender calls a function at the end of a turn.
type ender func()

func (e ender) EndTurn() { e() }

func TestGoexitInACallbackKeepsAStopOfTheSameTurn(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		soon(t, l, l.Stop)
		soon(t, l, runtime.Goexit)
		if err := mustReturn(t, l, l.RunForever); err != nil {
			t.Fatal(err)
		}
		ran := false
		soon(t, l, func() { ran = true })
		runOnce(t, l)
		if !ran {
			t.Error("the loop does not work any more")
		}
	})
}

func TestGoexitInATimerKeepsTheTimersOfTheSameTurn(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		at := l.Time()
		mustCall[TimerHandle](t)(l.CallAt(at, runtime.Goexit))
		mustCall[TimerHandle](t)(l.CallAt(at, l.Stop))
		if err := mustReturn(t, l, l.RunForever); err != nil {
			t.Fatal(err)
		}
	})
}

func TestGoexitAtTheEndOfATurnKeepsTheOtherTurnEnders(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		soon(t, l, func() {
			l.AtTurnEnd(ender(runtime.Goexit))
			l.AtTurnEnd(ender(l.Stop))
		})
		if err := mustReturn(t, l, l.RunForever); err != nil {
			t.Fatal(err)
		}
	})
}

func TestGoexitLeavesTheLoopItsOwnContext(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		v := NewContextVar[int]("v")
		own := l.CurrentContext()
		v.Set(own, 1)
		l.Go(func(*Coro) error {
			v.Set(l.CurrentContext(), 2)
			runtime.Goexit()
			return nil
		})
		runOnce(t, l)
		got, _ := v.Get(l.CurrentContext())
		if l.CurrentContext() != own || got != 1 {
			t.Errorf("the loop's own context is another one and holds %d", got)
		}
	})
}

func TestGoexitDuringCloseDoesNotKeepTheLoopOpen(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		l.SetExceptionHandler(func(*Loop, *ExceptionContext) {})
		second := false
		for i := range 2 {
			l.Go(func(co *Coro) error {
				if i == 0 {
					defer runtime.Goexit()
				} else {
					defer func() { second = true }()
				}
				return Sleep(co, time.Hour)
			})
		}
		runOnce(t, l)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if !second {
			t.Error("a task was not unwound")
		}
	})
}

// panicking panics whatever it is told of.
type panicking struct{ told int }

func (p *panicking) Complete(*backend.Op, backend.Result) { p.LoopClosed() }
func (p *panicking) LoopClosed()                          { p.told++; panic("told") }

func TestPanicsDuringCloseAreReportedAndKeepNothingOpen(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		reports := collectReports(l)
		fd, _ := socketPair(t)
		var p panicking
		var ops [2]backend.Op
		unwound := false
		l.GoInner("waiting", nil, func(co *Coro) error {
			defer func() { unwound = true }()
			for i := range ops {
				ops[i] = backend.Op{Receiver: &p, Code: backend.OpPoll, FD: int32(fd), Arg: unix.POLLIN}
				if err := l.Submit(&ops[i]); err != nil {
					t.Error(err)
				}
				l.Attached(i, func() Attachment { return &p })
			}
			return Sleep(co, time.Hour)
		})
		runOnce(t, l)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if told := len(ops) + 2; p.told != told || len(*reports) != told || !unwound {
			t.Errorf("%d of %d were told, %d reports, the task was unwound: %v", p.told, told, len(*reports), unwound)
		}
	})
}

func TestGoexitInACompletionKeepsTheOthers(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		for i := range 2 {
			a, b := socketPair(t)
			if err := l.AddReader(a, func() {
				if _, err := l.RemoveReader(a); err != nil {
					t.Error(err)
				}
				if i == 0 {
					runtime.Goexit()
				}
				l.Stop()
			}); err != nil {
				t.Fatal(err)
			}
			send(t, b, "x")
		}
		if err := mustReturn(t, l, l.RunForever); err != nil {
			t.Fatal(err)
		}
	})
}

// exitPlaces are the places from which a LoopExit can come.
var exitPlaces = map[string]func(t *testing.T, l *Loop, exit func()){
	"callback":      func(t *testing.T, l *Loop, exit func()) { soon(t, l, exit) },
	"threadsafe":    func(t *testing.T, l *Loop, exit func()) { mustCall[Handle](t)(l.CallSoonThreadsafe(exit)) },
	"timer":         func(t *testing.T, l *Loop, exit func()) { mustCall[TimerHandle](t)(l.CallLater(0, exit)) },
	"task":          func(t *testing.T, l *Loop, exit func()) { l.Go(func(*Coro) error { exit(); return nil }) },
	"end of a turn": func(t *testing.T, l *Loop, exit func()) { l.AtTurnEnd(ender(exit)) },
	"end of a turn with callbacks": func(t *testing.T, l *Loop, exit func()) {
		soon(t, l, func() { l.AtTurnEnd(ender(exit)) })
	},
	"end of the last turn": func(t *testing.T, l *Loop, exit func()) {
		soon(t, l, func() {
			l.Stop()
			l.AtTurnEnd(ender(exit))
		})
	},
	"done callback": func(t *testing.T, l *Loop, exit func()) {
		f := CreateFuture[int](l)
		f.AddDoneCallback(func(AnyFuture) { exit() })
		if err := f.SetResult(1); err != nil {
			t.Fatal(err)
		}
	},
	"exception handler": func(t *testing.T, l *Loop, exit func()) {
		l.SetExceptionHandler(func(*Loop, *ExceptionContext) { exit() })
		soon(t, l, func() { panic("x") })
	},
	"exception handler for a task": func(t *testing.T, l *Loop, exit func()) {
		l.SetExceptionHandler(func(*Loop, *ExceptionContext) { exit() })
		l.Go(func(*Coro) error { panic("x") })
	},
	"eager task": func(t *testing.T, l *Loop, exit func()) {
		soon(t, l, func() {
			CreateTask(l, func(*Coro) (int, error) { exit(); return 0, nil }, &TaskOptions{EagerStart: true})
		})
	},
	"task factory": func(t *testing.T, l *Loop, exit func()) {
		l.SetTaskFactory(func(AnyTask, *TaskOptions) error { exit(); return nil })
		soon(t, l, func() { l.Go(func(*Coro) error { return nil }) })
	},
	"I/O": func(t *testing.T, l *Loop, exit func()) {
		a, b := socketPair(t)
		if err := l.AddReader(a, func() {
			if _, err := l.RemoveReader(a); err != nil {
				t.Error(err)
			}
			exit()
		}); err != nil {
			t.Fatal(err)
		}
		send(t, b, "x")
	},
}

func TestALoopExitEndsTheRunAtOnceWhereverItComesFrom(t *testing.T) {
	for name, place := range exitPlaces {
		t.Run(name, func(t *testing.T) {
			forEachBackend(t, func(t *testing.T, l *Loop) {
				want := errors.New("exit")
				place(t, l, func() {
					l.SetExceptionHandler(nil)
					l.SetTaskFactory(nil)
					panic(LoopExit{Err: want})
				})
				if err := mustReturn(t, l, l.RunForever); !errors.Is(err, want) {
					t.Errorf("RunForever = %v, want the error of the LoopExit", err)
				}
				ran := false
				soon(t, l, func() { ran = true })
				runOnce(t, l)
				if !ran {
					t.Error("the next run did not do its callbacks")
				}
			})
		})
	}
}

func TestALoopOutlivesAnyNumberOfGoexits(t *testing.T) {
	const many = 4
	for _, how := range []string{"callbacks", "tasks"} {
		t.Run(how, func(t *testing.T) {
			forEachBackend(t, func(t *testing.T, l *Loop) {
				l.SetExceptionHandler(func(*Loop, *ExceptionContext) {})
				exits := 0
				exit := func() { exits++; runtime.Goexit() }
				for range many {
					if how == "tasks" {
						l.Go(func(*Coro) error { exit(); return nil })
					} else {
						soon(t, l, exit)
					}
				}
				if _, err := l.CallLater(time.Millisecond, l.Stop); err != nil {
					t.Fatal(err)
				}
				if err := mustReturn(t, l, l.RunForever); err != nil || exits != many {
					t.Errorf("%v, %d of %d goroutines have ended", err, exits, many)
				}
			})
		})
	}
}

func TestALoopExitInAnEagerTaskOfAReaderKeepsTheOtherReaders(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		want := errors.New("exit")
		called := 0
		for range 2 {
			a, b := socketPair(t)
			addReader(t, l, a, func() {
				called++
				removeReader(t, l, a)
				CreateTask(l, func(*Coro) (int, error) { panic(LoopExit{want}) }, &TaskOptions{EagerStart: true})
			})
			send(t, b, "x")
		}
		for run := 1; run <= 2; run++ {
			if err := mustReturn(t, l, l.RunForever); !errors.Is(err, want) || called != run {
				t.Errorf("run %d: %v, %d readers were called", run, err, called)
			}
		}
	})
}

func TestAnUncancelledSleepEndsCancelledAndLeavesNoTimer(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		runMain(t, l, func(co *Coro) error {
			var first, second error
			f := CreateFuture[int](l)
			task := l.Go(func(co *Coro) error {
				first = Sleep(co, time.Millisecond)
				_, second = f.Await(co)
				return nil
			})
			if err := Sleep(co, 0); err != nil {
				return err
			}
			task.Cancel("")
			task.Uncancel()
			if err := Sleep(co, 10*time.Millisecond); err != nil {
				return err
			}
			if task.Done() {
				t.Error("the timer of the sleep ended a later wait")
			} else if err := f.SetResult(1); err != nil {
				return err
			}
			if _, err := task.Await(co); err != nil {
				return err
			}
			wantErr(t, "Sleep", first, ErrCancelled)
			wantErr(t, "Await", second, nil)
			return nil
		})
	})
}

func TestATimeoutLeftByAPanicDoesNotCancelTheTaskLater(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		runMain(t, l, func(co *Coro) error {
			func() {
				defer func() { _ = recover() }()
				_ = Timeout(co, time.Millisecond, func() error { panic("out of it") })
			}()
			return Sleep(co, 10*time.Millisecond)
		})
	})
}

func TestATimeoutWithdrawsItsRequestAlsoAfterAPanic(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		runMain(t, l, func(co *Coro) error {
			func() {
				defer func() { _ = recover() }()
				_ = Timeout(co, time.Millisecond, func() error { panic(Sleep(co, time.Hour)) })
			}()
			if n := co.Task().Cancelling(); n != 0 || co.Context().Err() != nil {
				t.Errorf("%d requests are left, and the context says %v", n, co.Context().Err())
			}
			return nil
		})
	})
}

func TestTasksThatAwaitEachOtherCanBeCancelled(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		runMain(t, l, func(co *Coro) error {
			var a, b *Task[struct{}]
			a = l.Go(func(co *Coro) error { _, err := b.Await(co); return err })
			b = l.Go(func(co *Coro) error { _, err := a.Await(co); return err })
			if err := Sleep(co, 0); err != nil {
				return err
			}
			a.Cancel("")
			for _, task := range []*Task[struct{}]{a, b} {
				_, err := task.Await(co)
				wantErr(t, "the task", err, ErrCancelled)
			}
			return nil
		})
	})
}

func TestTheContextOfAnEndedOrCancelledTaskIsCancelled(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		runMain(t, l, func(co *Coro) error {
			var ended *Coro
			if _, err := l.Go(func(co *Coro) error { ended = co; return nil }).Await(co); err != nil {
				return err
			}
			if ended.Context().Err() == nil {
				t.Error("the context of a task that has ended is not cancelled")
			}
			co.Task().Cancel("")
			if co.Context().Err() == nil {
				t.Error("the context of a cancelled task is not cancelled")
			}
			co.Task().Uncancel()
			if co.Context().Err() != nil {
				t.Error("the context is cancelled although the request was withdrawn")
			}
			return nil
		})
	})
}

func TestTheRoomForABurstIsNotKept(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		const burst = maxKept + 1
		for range burst {
			soon(t, l, func() {})
			mustCall[TimerHandle](t)(l.CallLater(0, func() {}))
		}
		kept := func() int { return max(len(l.ready.buf), cap(l.due), cap(l.timers.entries)) }
		idle := l.Go(func(co *Coro) error {
			for kept() > maxKept {
				if err := Sleep(co, time.Millisecond); err != nil {
					return err
				}
			}
			return nil
		})
		if err := mustReturn(t, l, func() error { _, err := RunUntilComplete(l, idle); return err }); err != nil {
			t.Fatal(err)
		}
	})
}

func TestRunsOfManyGoroutinesDoNotRace(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		const goroutines, runs = 8, 20
		ended := make(chan error, goroutines)
		f := CreateFuture[int](l)
		if err := f.SetResult(1); err != nil {
			t.Fatal(err)
		}
		for range goroutines {
			go func() {
				for done := 0; done < runs; {
					v, err := RunUntilComplete(l, f)
					switch {
					case errors.Is(err, ErrLoopRunning):
						runtime.Gosched()
						continue
					case err != nil || v != 1:
						ended <- errors.Join(err, errors.New("wrong result"))
						return
					}
					done++
				}
				ended <- nil
			}()
		}
		for range goroutines {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
}

// outcomes counts the completions of operations.
type outcomes []backend.Result

func (o *outcomes) Complete(_ *backend.Op, r backend.Result) { *o = append(*o, r) }

// After a LoopExit the loop, and the future that is pending, belong to whoever
// runs the loop next. For the race detector.
func TestARunThatWasLeftDoesNotLookAtThePendingFuture(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		for range 100 {
			f := CreateFuture[int](l)
			soon(t, l, func() { panic(LoopExit{}) })
			soon(t, l, func() {
				if err := f.SetResult(1); err != nil {
					t.Error(err)
				}
				l.Stop()
			})
			left, next := make(chan error, 1), make(chan error, 1)
			go func() {
				_, err := RunUntilComplete(l, f)
				left <- err
			}()
			for !l.IsRunning() && len(left) == 0 {
				runtime.Gosched()
			}
			go func() {
				err := l.RunForever()
				for errors.Is(err, ErrLoopRunning) {
					runtime.Gosched()
					err = l.RunForever()
				}
				next <- err
			}()
			wantErr(t, "RunUntilComplete", <-left, ErrStopped)
			if err := <-next; err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestAnOperationSubmittedBeforeTheRunCompletesAlsoIfItIsRefused(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		if err != nil {
			t.Fatal(err)
		}
		var got outcomes
		var ops [2]backend.Op // the second close comes too late
		for i := range ops {
			ops[i] = backend.Op{Receiver: &got, Code: backend.OpClose, FD: int32(fd)}
			if err := l.Submit(&ops[i]); err != nil {
				t.Fatal(err)
			}
		}
		runMain(t, l, func(co *Coro) error { return Sleep(co, 0) })
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if len(got) != 2 || got[0].Errno+got[1].Errno != unix.EBADF {
			t.Errorf("the completions are %v, want one success and one EBADF", got)
		}
	})
}

func TestALoopThatWasNeverRunNorClosedIsReportedAndReleased(t *testing.T) {
	for _, name := range backends {
		t.Run(name, func(t *testing.T) {
			if err := newTestLoop(t, name).Close(); err != nil { // skips where it must
				t.Fatal(err)
			}
			logged := make(chan string, 1)
			func() {
				l, err := NewEventLoop(WithBackend(name), WithLogger(slog.New(slog.NewTextHandler(lineWriter(logged), nil))))
				if err != nil {
					t.Fatal(err)
				}
				soon(t, l, func() {})
			}()
			deadline := time.After(hangs)
			for {
				runtime.GC()
				select {
				case line := <-logged:
					if !strings.Contains(line, "unclosed event loop") {
						t.Errorf("the log says %q", line)
					}
					return
				case <-deadline:
					t.Fatal("no report")
				default:
					runtime.Gosched()
				}
			}
		})
	}
}

// lineWriter passes on the first line that is written to it.
type lineWriter chan<- string

func (w lineWriter) Write(p []byte) (int, error) {
	select {
	case w <- string(p):
	default:
	}
	return len(p), nil
}

// eagerly makes an eager task.
func eagerly(l *Loop, fn func(co *Coro) (int, error)) *Task[int] {
	return CreateTask(l, fn, &TaskOptions{EagerStart: true})
}

// exitTask is the function of a task that calls runtime.Goexit.
func exitTask(*Coro) (int, error) {
	goexit()
	return 0, nil
}

func wantExited(t *testing.T, task *Task[int]) {
	t.Helper()
	_, err := task.Result()
	wantErr(t, "the eager task", err, ErrGoexit)
}

// eagerExits let an eager task call runtime.Goexit. done says that who has made the
// task went on.
var eagerExits = map[string]func(t *testing.T, l *Loop) (done *bool){
	"in a task": func(t *testing.T, l *Loop) *bool {
		done := false
		v := NewContextVar[string]("v")
		l.Go(func(co *Coro) error {
			v.Set(l.CurrentContext(), "parent")
			wantExited(t, eagerly(l, func(co *Coro) (int, error) {
				v.Set(l.CurrentContext(), "child")
				return exitTask(co)
			}))
			if s, _ := v.Get(l.CurrentContext()); s != "parent" || l.CurrentTask() != co.Task() {
				t.Errorf("the task goes on in the context of %q as %v", s, l.CurrentTask())
			}
			err := Sleep(co, time.Millisecond)
			done = true
			return err
		})
		return &done
	},
	"in an eager task": func(t *testing.T, l *Loop) *bool {
		done := false
		l.Go(func(co *Coro) error {
			n, err := eagerly(l, func(co *Coro) (int, error) {
				wantExited(t, eagerly(l, exitTask))
				return 7, Sleep(co, 0)
			}).Await(co)
			done = n == 7
			return err
		})
		return &done
	},
	"in a callback": func(t *testing.T, l *Loop) *bool {
		done := false
		soon(t, l, func() {
			wantExited(t, eagerly(l, exitTask))
			wantExited(t, eagerly(l, exitTask))
			done = l.CurrentTask() == nil
		})
		return &done
	},
	"after its first step": func(t *testing.T, l *Loop) *bool {
		done := false
		l.Go(func(co *Coro) error {
			_, err := eagerly(l, func(co *Coro) (int, error) {
				if err := Sleep(co, 0); err != nil {
					return 0, err
				}
				return exitTask(co)
			}).Await(co)
			wantErr(t, "Await", err, ErrGoexit)
			done = true
			return nil
		})
		return &done
	},
}

func TestGoexitInAnEagerTaskEndsOnlyThatTask(t *testing.T) {
	for name, place := range eagerExits {
		t.Run(name, func(t *testing.T) {
			forEachBackend(t, func(t *testing.T, l *Loop) {
				for _, debug := range []bool{false, true} {
					l.SetDebug(debug)
					done := place(t, l)
					runMain(t, l, func(co *Coro) error { return Sleep(co, 5*time.Millisecond) })
					if !*done {
						t.Errorf("who made the task did not go on (debug mode %v)", debug)
					}
				}
			})
		})
	}
}

func TestGoexitsKeepNothingOfACloseFromBeingDone(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		l.SetDebug(true)
		reports := 0
		l.SetExceptionHandler(func(*Loop, *ExceptionContext) { reports++; runtime.Goexit() })
		const each = 3
		var threads []*ThreadFuture[int]
		var failed []*Future[int]
		for range each {
			f := RunCoroutineThreadsafe(l, func(co *Coro) (int, error) { return 0, Sleep(co, time.Hour) })
			f.AddDoneCallback(runtime.Goexit)
			threads = append(threads, f)
			failed = append(failed, CreateFuture[int](l))
			if err := failed[len(failed)-1].SetException(errors.New("nobody looks")); err != nil {
				t.Fatal(err)
			}
		}
		runOnce(t, l)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		for _, f := range threads {
			if _, err := f.Result(t.Context()); !errors.Is(err, ErrLoopClosed) {
				t.Errorf("the result of a coroutine is %v", err)
			}
		}
		if want := 2 * each; reports != want { // pending tasks, and errors
			t.Errorf("%d reports, want %d", reports, want)
		}
		runtime.KeepAlive(failed)
	})
}

func TestAGoexitInTheHandlerOfAnEagerTaskSparesItsCaller(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		l.SetExceptionHandler(func(*Loop, *ExceptionContext) { runtime.Goexit() })
		went := false
		outer := l.Go(func(*Coro) error {
			CreateTask(l, func(*Coro) (int, error) { panic("inner") }, &TaskOptions{EagerStart: true})
			went = true
			return nil
		})
		if err := mustReturn(t, l, func() error { _, err := RunUntilComplete(l, outer); return err }); err != nil || !went {
			t.Errorf("the caller went on: %v, %v", went, err)
		}
	})
}
