package loop

import (
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// counter yields 0, 1, 2 ... for ever, and notes how it ended.
func counter(ended *[]error) *AsyncGen[int] {
	return NewAsyncGen(func(co *Coro, yield func(int) error) error {
		for i := 0; ; i++ {
			if err := yield(i); err != nil {
				*ended = append(*ended, err)
				return err
			}
			if err := Sleep(co, 0); err != nil {
				*ended = append(*ended, err)
				return err
			}
		}
	})
}

func TestAGeneratorYieldsItsValuesAndEnds(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		broken := errors.New("broken")
		g := NewAsyncGen(func(co *Coro, yield func(int) error) error {
			for i := range 5 {
				if i%2 == 0 {
					if err := Sleep(co, time.Millisecond); err != nil {
						return err
					}
				}
				if err := yield(i); err != nil {
					return err
				}
			}
			return broken
		})
		runMain(t, l, func(co *Coro) error {
			var got []int
			for {
				v, ok, err := g.Next(co)
				if !ok {
					if err != broken {
						t.Errorf("the end: %v", err)
					}
					break
				}
				got = append(got, v)
			}
			if want := []int{0, 1, 2, 3, 4}; !slices.Equal(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
			if v, ok, err := g.Next(co); v != 0 || ok || err != nil {
				t.Errorf("after the end: %v, %v, %v", v, ok, err)
			}
			return g.AClose(co)
		})
		if n := len(l.gens.open); n != 0 {
			t.Errorf("%d generators are open", n)
		}
	})
}

func TestAGeneratorIsNotRunBeforeItsFirstNext(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		g := NewAsyncGen(func(*Coro, func(int) error) error {
			t.Error("the function was called")
			return nil
		})
		runMain(t, l, func(co *Coro) error {
			if err := g.AClose(co); err != nil {
				return err
			}
			if _, ok, err := g.Next(co); ok || err != nil {
				t.Errorf("Next of a closed generator: %v, %v", ok, err)
			}
			return nil
		})
	})
}

func TestACloseLetsTheFunctionReturn(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		var ended []error
		g := counter(&ended)
		runMain(t, l, func(co *Coro) error {
			for want := range 3 {
				if v, ok, err := g.Next(co); v != want || !ok || err != nil {
					t.Errorf("Next: %v, %v, %v, want %d", v, ok, err, want)
				}
			}
			if err := g.AClose(co); err != nil {
				t.Errorf("AClose: %v", err)
			}
			if len(ended) != 1 || ended[0] != ErrGeneratorExit {
				t.Errorf("the function ended with %v", ended)
			}
			return g.AClose(co)
		})
	})
}

func TestAGeneratorThatIgnoresItsExitIsEnded(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		deferred := false
		g := NewAsyncGen(func(co *Coro, yield func(int) error) error {
			defer func() { deferred = true }()
			for {
				_ = yield(1)
			}
		})
		runMain(t, l, func(co *Coro) error {
			if _, _, err := g.Next(co); err != nil {
				return err
			}
			wantErr(t, "AClose", g.AClose(co), ErrInvalidState)
			return nil
		})
		if !deferred {
			t.Error("the deferred function did not run")
		}
	})
}

// Also one that recovers from the panic by which it is ended. What that was is
// nobody's business.
func TestAGeneratorThatRecoversFromEverythingIsEnded(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		deferred := false
		g := NewAsyncGen(func(co *Coro, yield func(int) error) error {
			defer func() { deferred = true }()
			once := func() {
				defer func() { _ = recover() }()
				_ = yield(1)
			}
			for {
				once()
			}
		})
		runMain(t, l, func(co *Coro) error {
			if _, _, err := g.Next(co); err != nil {
				return err
			}
			wantErr(t, "AClose", g.AClose(co), ErrInvalidState)
			if _, ok, err := g.Next(co); ok || err != nil {
				t.Errorf("Next of a closed generator: %v, %v", ok, err)
			}
			return nil
		})
		if !deferred {
			t.Error("the deferred function did not run")
		}
	})
}

func TestCancellingTheConsumerCancelsWhatTheGeneratorWaitsFor(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		var inside error
		g := NewAsyncGen(func(co *Coro, yield func(int) error) error {
			inside = Sleep(co, time.Hour)
			return inside
		})
		runMain(t, l, func(co *Coro) error {
			consumer := l.Go(func(co *Coro) error {
				_, _, err := g.Next(co)
				return err
			})
			for range 3 {
				if err := Sleep(co, 0); err != nil {
					return err
				}
			}
			_, _, err := g.Next(co)
			wantErr(t, "a second Next meanwhile", err, ErrInvalidState)
			wantErr(t, "AClose meanwhile", g.AClose(co), ErrInvalidState)
			consumer.Cancel("enough")
			_, err = consumer.Await(co)
			wantErr(t, "the consumer", err, ErrCancelled)
			wantErr(t, "the wait in the generator", inside, ErrCancelled)
			if _, ok, err := g.Next(co); ok || err != nil {
				t.Errorf("Next afterwards: %v, %v", ok, err)
			}
			return nil
		})
	})
}

func TestAConsumerCancelledBeforeTheGeneratorBeganIsTold(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		var ended []error
		g := counter(&ended)
		runMain(t, l, func(co *Coro) error {
			co.Task().Cancel("early")
			_, _, err := g.Next(co)
			wantErr(t, "Next", err, ErrCancelled)
			return nil
		})
	})
}

func TestAGeneratorCancelledBetweenTwoValuesEnds(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		var inner AnyTask
		g := NewAsyncGen(func(co *Coro, yield func(int) error) error {
			inner = co.Task()
			return yield(1)
		})
		runMain(t, l, func(co *Coro) error {
			if _, _, err := g.Next(co); err != nil {
				return err
			}
			inner.Cancel("enough")
			for range 3 {
				if err := Sleep(co, 0); err != nil {
					return err
				}
			}
			_, ok, err := g.Next(co)
			wantErr(t, "Next", err, ErrCancelled)
			if ok {
				t.Error("there is another value")
			}
			if _, ok, err := g.Next(co); ok || err != nil {
				t.Errorf("after the end: %v, %v", ok, err)
			}
			return nil
		})
	})
}

// TestAGeneratorThatCleansUpByItselfIsWaitedFor has a generator that was cancelled
// between two values, and waits.
func TestAGeneratorThatCleansUpByItselfIsWaitedFor(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		cleaning := func(co *Coro, then func(yield func(int) error) error) *AsyncGen[int] {
			gate := CreateFuture[int](l)
			var inner AnyTask
			g := NewAsyncGen(func(co *Coro, yield func(int) error) error {
				inner = co.Task()
				wantErr(t, "yield", yield(1), ErrCancelled)
				soon(t, l, func() { soon(t, l, func() { _ = gate.SetResult(0) }) })
				_, err := gate.Await(co)
				return errors.Join(err, then(yield))
			})
			_, _, err := g.Next(co)
			inner.Cancel("enough")
			if err = errors.Join(err, Sleep(co, 0)); err != nil || gate.Done() {
				t.Errorf("before the cleanup: %v, it has ended: %v", err, gate.Done())
			}
			return g
		}
		end := errors.New("the end")
		runMain(t, l, func(co *Coro) error {
			g := cleaning(co, func(func(int) error) error { return end })
			_, ok, err := g.Next(co)
			wantErr(t, "Next", err, end)
			if ok {
				t.Error("there is another value")
			}
			g = cleaning(co, func(yield func(int) error) error { return yield(2) })
			if v, ok, err := g.Next(co); v != 2 || !ok || err != nil {
				t.Errorf("Next: %d, %v, %v", v, ok, err)
			}
			return errors.Join(g.AClose(co), cleaning(co, func(yield func(int) error) error { return yield(2) }).AClose(co))
		})
	})
}

func TestThePanicOfAGeneratorReachesItsConsumer(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		reports := collectReports(l)
		g := NewAsyncGen(func(*Coro, func(int) error) error { panic("broken generator") })
		runMain(t, l, func(co *Coro) error {
			_, ok, err := g.Next(co)
			var p *PanicError
			if ok || !errors.As(err, &p) || p.Value != "broken generator" {
				t.Errorf("Next: %v, %v", ok, err)
			}
			return nil
		})
		if len(*reports) != 1 {
			t.Errorf("reports: %v", *reports)
		}
	})
}

func TestAGeneratorIsNoTaskOfTheLoop(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		var ended []error
		g := counter(&ended)
		reports := collectReports(l)
		runMain(t, l, func(co *Coro) error {
			if _, _, err := g.Next(co); err != nil {
				return err
			}
			if all := l.AllTasks(); len(all) != 1 || all[0] != co.Task() {
				t.Errorf("the tasks are %v", all)
			}
			return nil
		})
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if len(ended) != 1 || !errors.Is(ended[0], ErrLoopClosed) {
			t.Errorf("Close ended the generator with %v", ended)
		}
		if len(*reports) != 0 {
			t.Errorf("reports: %v", *reports)
		}
	})
}

func TestOnlyTheGeneratorsOwnTaskMayYield(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		runMain(t, l, func(co *Coro) error {
			var stray func(int) error
			g := NewAsyncGen(func(co *Coro, yield func(int) error) error {
				stray = yield
				if err := yield(1); err != nil {
					return err
				}
				return yield(2)
			})
			for want := 1; want <= 2; want++ {
				if n, ok, err := g.Next(co); n != want || !ok || err != nil {
					t.Errorf("Next: %d, %v, %v, want %d", n, ok, err, want)
				}
				wantErr(t, "yield of another task", stray(-1), ErrNotCurrent)
			}
			if _, ok, err := g.Next(co); ok || err != nil {
				t.Errorf("Next at the end: %v, %v", ok, err)
			}
			wantErr(t, "yield after the end", stray(-1), ErrNotCurrent)
			return nil
		})
	})
}

func TestTheCoroOfAnotherTaskNeitherBeginsNorEndsAGenerator(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		var ended []error
		fresh, begun := counter(&ended), counter(&ended)
		runMain(t, l, func(co *Coro) error {
			if _, _, err := begun.Next(co); err != nil {
				return err
			}
			soon(t, l, func() {
				_, _, err := fresh.Next(co)
				wantErr(t, "Next of a new one", err, ErrNotCurrent)
				_, _, err = begun.Next(co)
				wantErr(t, "Next", err, ErrNotCurrent)
				wantErr(t, "AClose", begun.AClose(co), ErrNotCurrent)
				wantErr(t, "ShutdownAsyncgens", ShutdownAsyncgens(co), ErrNotCurrent)
				wantErr(t, "ShutdownDefaultExecutor", ShutdownDefaultExecutor(co, 0), ErrNotCurrent)
			})
			for range 3 {
				if err := Sleep(co, 0); err != nil {
					return err
				}
			}
			if fresh.core.state != genNew || begun.core.state != genSuspended || len(ended) > 0 || l.gens.shut || l.defaultPool.shut {
				t.Errorf("%v, %v, ended: %v, shut down: %v, %v", fresh, begun, ended, l.gens.shut, l.defaultPool.shut)
			}
			return begun.AClose(co)
		})
	})
}

func TestAGeneratorBelongsToOneLoop(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		var ended []error
		g := counter(&ended)
		next := func(co *Coro) error {
			_, _, err := g.Next(co)
			return err
		}
		runMain(t, l, next)
		other := newTestLoop(t, l.Backend().Name())
		_, err := RunUntilComplete(other, other.Go(next))
		wantErr(t, "Next on another loop", err, ErrDifferentLoop)
	})
}

func TestShutdownAsyncgensClosesWhatIsOpenAndReportsFailures(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		var ended []error
		broken := errors.New("broken cleanup")
		fine, begun := counter(&ended), counter(&ended)
		failing := NewAsyncGen(func(co *Coro, yield func(int) error) error {
			_ = yield(1)
			return broken
		})
		reports := collectReports(l)
		log := logTo(l)
		runMain(t, l, func(co *Coro) error {
			for _, g := range []*AsyncGen[int]{fine, failing} {
				if _, _, err := g.Next(co); err != nil {
					return err
				}
			}
			if err := ShutdownAsyncgens(co); err != nil {
				return err
			}
			if len(ended) != 1 || ended[0] != ErrGeneratorExit {
				t.Errorf("the generator ended with %v", ended)
			}
			if log.Len() > 0 {
				t.Errorf("logged: %s", log)
			}
			if _, _, err := begun.Next(co); err != nil {
				return err
			}
			return begun.AClose(co)
		})
		if !strings.Contains(log.String(), "was begun after ShutdownAsyncgens") {
			t.Errorf("logged: %s", log)
		}
		if len(*reports) != 1 || (*reports)[0].Exception != broken || (*reports)[0].AsyncGen != failing {
			t.Errorf("reports: %v", *reports)
		}
	})
}

// TestShutdownAsyncgensFindsNothingWrongWithWhatIsCancelledAndEnds has generators
// that return in the turn in which they are to be closed.
func TestShutdownAsyncgensFindsNothingWrongWithWhatIsCancelledAndEnds(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		reports := collectReports(l)
		waiting, ended := 0, 0
		consume := func(co *Coro) error {
			g := NewAsyncGen(func(co *Coro, _ func(int) error) error {
				waiting++
				err := Sleep(co, time.Hour)
				wantErr(t, "a wait while cleaning up", Sleep(co, 0), nil)
				ended++
				return err
			})
			_, _, err := g.Next(co)
			return err
		}
		consumers := []*Task[struct{}]{l.Go(consume), l.Go(consume)}
		for waiting < len(consumers) {
			runOnce(t, l)
		}
		for _, c := range consumers {
			c.Cancel("")
		}
		runMain(t, l, ShutdownAsyncgens)
		for _, c := range consumers {
			_, err := RunUntilComplete(l, c)
			wantErr(t, "the consumer", err, ErrCancelled)
		}
		if ended != len(consumers) || len(*reports) != 0 {
			t.Errorf("%d of %d have ended, %d reports", ended, len(consumers), len(*reports))
		}
	})
}

// TestShutdownAsyncgensClosesAllAtTheSameTime has two generators whose cleanups
// wait for each other.
func TestShutdownAsyncgensClosesAllAtTheSameTime(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		reports := collectReports(l)
		ended := [2]*Future[int]{CreateFuture[int](l), CreateFuture[int](l)}
		var open []*AsyncGen[int]
		for i := range ended {
			open = append(open, NewAsyncGen(func(co *Coro, yield func(int) error) error {
				end := yield(i)
				_ = ended[i].SetResult(i)
				if _, err := ended[1-i].Await(co); err != nil {
					return err
				}
				return end
			}))
		}
		runMain(t, l, func(co *Coro) error {
			for _, g := range open {
				if _, _, err := g.Next(co); err != nil {
					return err
				}
			}
			return Timeout(co, stuck, func() error { return ShutdownAsyncgens(co) })
		})
		runtime.KeepAlive(open)
		if len(*reports) != 0 {
			t.Errorf("reports: %v", *reports)
		}
	})
}

func TestShutdownAsyncgensIsNotCancelledByWhoCancelsAllOtherTasks(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		var ended []error
		g := counter(&ended)
		runMain(t, l, func(co *Coro) error {
			if _, _, err := g.Next(co); err != nil {
				return err
			}
			soon(t, l, func() {
				for _, other := range l.AllTasks() {
					if other != co.Task() {
						other.Cancel("everybody")
					}
				}
			})
			return ShutdownAsyncgens(co)
		})
		runtime.KeepAlive(g)
		if len(ended) != 1 || ended[0] != ErrGeneratorExit {
			t.Errorf("the generator ended with %v", ended)
		}
	})
}

// afterYield is what another task does when a generator has just yielded, before
// the task that waits in Next runs again.
func afterYield(t *testing.T, l *Loop, meddle func(co *Coro, g *AsyncGen[int]) error) {
	t.Helper()
	gate := CreateFuture[int](l)
	g := NewAsyncGen(func(co *Coro, yield func(int) error) error {
		_ = gate.SetResult(0)
		return yield(1)
	})
	runMain(t, l, func(co *Coro) error {
		meddler := l.Go(func(co *Coro) error {
			if _, err := gate.Await(co); err != nil {
				return err
			}
			return meddle(co, g)
		})
		if err := Sleep(co, 0); err != nil { // the meddler is the first to wait
			return err
		}
		if v, ok, err := g.Next(co); v != 1 || !ok || err != nil {
			t.Errorf("Next: %d, %v, %v", v, ok, err)
		}
		_, err := meddler.Await(co)
		return errors.Join(err, g.AClose(co))
	})
}

func TestAValueOnItsWayBelongsToTheTaskThatWaitsForIt(t *testing.T) {
	for name, meddle := range map[string]func(co *Coro, g *AsyncGen[int]) error{
		"Next":   func(co *Coro, g *AsyncGen[int]) error { _, _, err := g.Next(co); return err },
		"AClose": func(co *Coro, g *AsyncGen[int]) error { return g.AClose(co) },
	} {
		t.Run(name, func(t *testing.T) {
			forEachBackend(t, func(t *testing.T, l *Loop) {
				afterYield(t, l, func(co *Coro, g *AsyncGen[int]) error {
					for range 2 {
						wantErr(t, name+" of another task", meddle(co, g), ErrInvalidState)
					}
					return nil
				})
			})
		})
	}
}

func TestAnEndOnItsWayBelongsToTheTaskThatWaitsForIt(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		broken := errors.New("broken")
		var g *AsyncGen[int]
		stolen := errors.New("not called")
		g = NewAsyncGen(func(co *Coro, yield func(int) error) error {
			// Behind the callback that ends the generator, ahead of the consumer.
			co.Task().AddDoneCallback(func(AnyFuture) {
				CreateTask(l, func(co *Coro) (int, error) {
					_, _, stolen = g.Next(co)
					return 0, nil
				}, &TaskOptions{EagerStart: true})
			})
			return broken
		})
		runMain(t, l, func(co *Coro) error {
			_, _, err := g.Next(co)
			wantErr(t, "Next", err, broken)
			wantErr(t, "Next of another task", stolen, ErrInvalidState)
			return nil
		})
	})
}

func TestAConsumerCancelledWithAValueOnItsWayIsToldAndTheValueIsKept(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		runMain(t, l, func(co *Coro) error {
			var consumer *Task[int]
			g := NewAsyncGen(func(co *Coro, yield func(int) error) error {
				soon(t, l, func() { consumer.Cancel("now") })
				return yield(1)
			})
			consumer = CreateTask(l, func(co *Coro) (int, error) {
				v, _, err := g.Next(co)
				return v, err
			}, nil)
			_, err := consumer.Await(co)
			wantErr(t, "the consumer", err, ErrCancelled)
			if v, ok, err := g.Next(co); v != 1 || !ok || err != nil {
				t.Errorf("Next: %d, %v, %v", v, ok, err)
			}
			return g.AClose(co)
		})
	})
}

func TestAGeneratorThatNobodyRefersToIsClosed(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		closed := make(chan error, 1)
		begin := func(co *Coro) error {
			g := NewAsyncGen(func(co *Coro, yield func(int) error) error {
				err := yield(1)
				closed <- err
				return err
			})
			_, _, err := g.Next(co)
			return err
		}
		runMain(t, l, func(co *Coro) error {
			if err := begin(co); err != nil {
				return err
			}
			deadline := l.Time() + stuck
			for len(closed) == 0 && l.Time() < deadline {
				runtime.GC()
				if err := Sleep(co, time.Millisecond); err != nil {
					return err
				}
			}
			return nil
		})
		if len(closed) == 0 {
			t.Fatal("the generator was not closed")
		}
		wantErr(t, "yield", <-closed, ErrGeneratorExit)
	})
}

func TestTheTaskFactoryIsNotToldOfAGenerator(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		told := 0
		l.SetTaskFactory(func(AnyTask, *TaskOptions) error { told++; return nil })
		g := NewAsyncGen(func(co *Coro, yield func(int) error) error { return yield(1) })
		runMain(t, l, func(co *Coro) error {
			_, _, err := g.Next(co)
			if n := len(l.AllTasks()); n != 1 {
				t.Errorf("%d tasks", n)
			}
			return errors.Join(err, g.AClose(co))
		})
		if told != 1 {
			t.Errorf("the factory was told of %d tasks, there is one", told)
		}
	})
}
