package loop

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// gate blocks jobs until it is opened.
type gate struct {
	started chan struct{}
	open    chan struct{}
	once    sync.Once
}

func newGate(t testing.TB) *gate {
	g := &gate{started: make(chan struct{}, 100), open: make(chan struct{})}
	t.Cleanup(g.release)
	return g
}

func (g *gate) release() { g.once.Do(func() { close(g.open) }) }

// job reports that it has started and waits for the gate.
func (g *gate) job() (int, error) {
	g.started <- struct{}{}
	<-g.open
	return 1, nil
}

// newPool returns a pool that is shut down when the test ends.
func newPool(t testing.TB, workers int, name string) *PoolExecutor {
	p := NewPoolExecutor(workers, name)
	t.Cleanup(func() { p.Shutdown(true) })
	return p
}

func TestRunInExecutorDeliversTheResultOnTheLoop(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		broken := errors.New("broken")
		runMain(t, l, func(co *Coro) error {
			var onLoop atomic.Bool
			f := RunInExecutor(l, nil, func() (int, error) {
				onLoop.Store(l.onThread())
				return 42, nil
			})
			if n, err := f.Await(co); n != 42 || err != nil {
				t.Errorf("result: %d, %v", n, err)
			}
			if onLoop.Load() {
				t.Error("the function ran on the loop's thread")
			}
			_, err := RunInExecutor(l, nil, func() (int, error) { return 0, broken }).Await(co)
			if err != broken {
				t.Errorf("error: %v", err)
			}
			return nil
		})
	})
}

func TestThePanicOfAJobBecomesTheFuturesError(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		runMain(t, l, func(co *Coro) error {
			_, err := RunInExecutor(l, nil, func() (int, error) { panic("broken job") }).Await(co)
			var p *PanicError
			if !errors.As(err, &p) || p.Value != "broken job" || !bytes.Contains(p.Stack, []byte("executor_test.go")) {
				t.Errorf("error: %v", err)
			}
			_, err = RunInExecutor(l, newPool(t, 1, "one"), func() (int, error) {
				runtime.Goexit()
				return 0, nil
			}).Await(co)
			wantErr(t, "Goexit", err, ErrGoexit)
			return nil
		})
	})
}

func TestAWorkerThatCalledGoexitIsReplaced(t *testing.T) {
	p := newPool(t, 1, "one")
	g := newGate(t)
	done := make(chan struct{})
	for _, fn := range []func(){func() { g.job(); runtime.Goexit() }, func() { close(done) }} {
		if _, err := p.Submit(fn); err != nil {
			t.Fatal(err)
		}
	}
	<-g.started
	g.release()
	waitFor(t, done, "the job behind the one that called Goexit")
}

func waitFor(t testing.TB, ch <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-ch:
	case <-time.After(stuck):
		t.Fatalf("%s: nothing happened", what)
	}
}

func TestAPoolStartsNoMoreWorkersThanItMay(t *testing.T) {
	const workers, jobs = 3, 20
	p := NewPoolExecutor(workers, "limited")
	g := newGate(t)
	var running, peak atomic.Int32
	for range jobs {
		if _, err := p.Submit(func() {
			n := running.Add(1)
			for old := peak.Load(); n > old && !peak.CompareAndSwap(old, n); old = peak.Load() {
			}
			g.job()
			running.Add(-1)
		}); err != nil {
			t.Fatal(err)
		}
	}
	for range workers {
		<-g.started
	}
	g.release()
	p.Shutdown(true)
	if peak.Load() != workers {
		t.Errorf("%d jobs ran at a time, want %d", peak.Load(), workers)
	}
	if n := running.Load(); n != 0 || len(g.started) != jobs-workers {
		t.Errorf("after Shutdown %d jobs run and %d were started", n, len(g.started)+workers)
	}
}

func TestDefaultWorkersCarryTheNamePrefix(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		runMain(t, l, func(co *Coro) error {
			labels, err := RunInExecutor(l, nil, func() (string, error) {
				var b strings.Builder
				err := pprof.Lookup("goroutine").WriteTo(&b, 1)
				return b.String(), err
			}).Await(co)
			if !strings.Contains(labels, `"executor":"ringloop_0"`) {
				t.Errorf("no goroutine has the label ringloop_0:\n%s", labels)
			}
			return err
		})
	})
}

func TestCancellingTheFutureWithdrawsAJobThatWasNotStarted(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		p := newPool(t, 1, "one")
		g := newGate(t)
		runMain(t, l, func(co *Coro) error {
			running := RunInExecutor(l, p, g.job)
			var called atomic.Bool
			waiting := RunInExecutor(l, p, func() (int, error) { called.Store(true); return 0, nil })
			<-g.started
			if !waiting.Cancel("") || !running.Cancel("") {
				t.Error("a future could not be cancelled")
			}
			if err := Sleep(co, 0); err != nil { // futures tell the executor on the next turn
				return err
			}
			if err := Sleep(co, 0); err != nil {
				return err
			}
			g.release()
			// The pool has one worker: when this is done, all before it are.
			if _, err := RunInExecutor(l, p, func() (int, error) { return 0, nil }).Await(co); err != nil {
				return err
			}
			if called.Load() {
				t.Error("the withdrawn job was called")
			}
			return nil
		})
	})
}

// Every one of them was looked for in the queue, so that a flood of them took the
// loop's thread for seconds.
func TestCancelledJobsLeaveTheQueueTogether(t *testing.T) {
	const jobs = 100
	p := newPool(t, 1, "one")
	g := newGate(t)
	submit := func(fn func()) Job {
		t.Helper()
		j, err := p.Submit(fn)
		if err != nil {
			t.Fatal(err)
		}
		return j
	}
	submit(func() { g.job() })
	<-g.started
	var called []int
	var queued []Job
	for i := range jobs {
		queued = append(queued, submit(func() { called = append(called, i) }))
	}
	length := func() int {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.queue)
	}
	cancel := func(from, to int) {
		t.Helper()
		for i := from; i < to; i += 3 {
			if !queued[i].Cancel() || queued[i].Cancel() {
				t.Errorf("job %d was cancelled not at all or twice", i)
			}
		}
	}
	cancel(0, jobs)
	if n := length(); n != jobs {
		t.Errorf("the queue has %d jobs, want the %d that were submitted", n, jobs)
	}
	cancel(1, jobs)
	if n := length(); n < jobs/3 || n >= jobs {
		t.Errorf("the queue has %d jobs after most of %d were cancelled", n, jobs)
	}
	last := make(chan struct{})
	submit(func() { close(last) })
	g.release()
	waitFor(t, last, "the last job")
	for i, n := range called {
		if n != 3*i+2 {
			t.Fatalf("called %v, want every third in order", called)
		}
	}
	if n := length(); n != 0 || len(called) != jobs/3 {
		t.Errorf("called %v, and the queue has %d jobs", called, n)
	}
}

func TestAJobThatEndsAfterTheLoopWasClosedIsDropped(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		p := newPool(t, 2, "two")
		g := newGate(t)
		kept, dropped := RunInExecutor(l, p, g.job), RunInExecutor(l, p, g.job)
		dropped.Cancel("")
		<-g.started
		<-g.started
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		g.release()
		p.Shutdown(true)
		if kept.Done() || !dropped.Cancelled() {
			t.Errorf("the futures are %v and %v", kept, dropped)
		}
	})
}

func TestTheDefaultExecutorMustBeAPool(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		p := newPool(t, 1, "mine")
		if err := l.SetDefaultExecutor(p); err != nil {
			t.Fatal(err)
		}
		wantErr(t, "another type", l.SetDefaultExecutor(otherExecutor{p}), ErrInvalidArgument)
		wantErr(t, "nil", l.SetDefaultExecutor(nil), ErrInvalidArgument)
		wantErr(t, "a nil pool", l.SetDefaultExecutor((*PoolExecutor)(nil)), ErrInvalidArgument)
		if ex, err := l.executor(nil); ex != Executor(p) || err != nil {
			t.Errorf("the default executor is %v, %v", ex, err)
		}
		if err := l.SetDefaultExecutor(newPool(t, 1, "next")); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Submit(func() {}); err != nil {
			t.Errorf("the pool that was replaced: %v", err)
		}
	})
}

func TestAReplacedDefaultExecutorLeavesNoGoroutines(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		runMain(t, l, func(co *Coro) error {
			_, err := RunInExecutor(l, nil, func() (int, error) { return 0, nil }).Await(co)
			return err
		})
		made := l.defaultPool.pool
		first, second := newPool(t, 1, "first"), newPool(t, 1, "second")
		for _, p := range []*PoolExecutor{first, second} {
			if err := l.SetDefaultExecutor(p); err != nil {
				t.Fatal(err)
			}
		}
		select {
		case <-made.done:
		case <-time.After(stuck):
			t.Error("the pool that the loop has made still has goroutines")
		}
		if _, err := first.Submit(func() {}); err != nil {
			t.Errorf("the pool of the caller was shut down: %v", err)
		}
	})
}

// otherExecutor is an Executor that is no pool.
type otherExecutor struct{ Executor }

func TestAfterTheDefaultShutdownOnlyExplicitExecutorsWork(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		runMain(t, l, func(co *Coro) error {
			one := func() (int, error) { return 1, nil }
			if _, err := RunInExecutor(l, nil, one).Await(co); err != nil {
				return err
			}
			if err := ShutdownDefaultExecutor(co, 0); err != nil {
				return err
			}
			_, err := RunInExecutor(l, nil, one).Await(co)
			wantErr(t, "the default executor", err, ErrExecutorShutdown)
			_, err = l.Getaddrinfo("127.0.0.1", "80", nil).Await(co)
			wantErr(t, "Getaddrinfo", err, ErrExecutorShutdown)
			if n, err := RunInExecutor(l, newPool(t, 1, "mine"), one).Await(co); n != 1 || err != nil {
				t.Errorf("an explicit executor: %d, %v", n, err)
			}
			return ShutdownDefaultExecutor(co, 0)
		})
	})
}

func TestShutdownOfAnUnusedDefaultExecutorIsImmediate(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		runMain(t, l, func(co *Coro) error { return ShutdownDefaultExecutor(co, 0) })
	})
}

func TestShutdownDefaultExecutorWaitsForItsWork(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		g := newGate(t)
		runMain(t, l, func(co *Coro) error {
			f := RunInExecutor(l, nil, g.job)
			<-g.started
			soon(t, l, g.release)
			if err := ShutdownDefaultExecutor(co, stuck); err != nil {
				return err
			}
			if n, err := f.Await(co); n != 1 || err != nil {
				t.Errorf("the job: %d, %v", n, err)
			}
			return nil
		})
	})
}

func TestShutdownDefaultExecutorGivesUpAfterItsTimeout(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		logged := logTo(l)
		g := newGate(t)
		runMain(t, l, func(co *Coro) error {
			RunInExecutor(l, nil, g.job)
			<-g.started
			return ShutdownDefaultExecutor(co, time.Millisecond)
		})
		if !strings.Contains(logged.String(), "did not finish its work within 1ms") {
			t.Errorf("logged: %s", logged)
		}
	})
}

func TestRunInExecutorReportsWhyItCannotSubmit(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		shut := NewPoolExecutor(1, "shut")
		shut.Shutdown(true)
		_, err := RunInExecutor(l, shut, func() (int, error) { return 0, nil }).Result()
		wantErr(t, "a pool that is shut down", err, ErrExecutorShutdown)
		if !strings.Contains(fmt.Sprint(err), "executor shut") {
			t.Errorf("%v does not name the pool", err)
		}
		_, err = RunInExecutor[int](l, nil, nil).Result()
		wantErr(t, "a nil function", err, ErrInvalidArgument)
		_, err = RunInExecutor(l, (*PoolExecutor)(nil), func() (int, error) { return 0, nil }).Result()
		wantErr(t, "a nil pool", err, ErrInvalidArgument)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		_, err = RunInExecutor(l, nil, func() (int, error) { return 0, nil }).Result()
		if wantErr(t, "a closed loop", err, ErrLoopClosed); err.Error() != "RunInExecutor: event loop is closed" {
			t.Errorf("a closed loop: %v", err)
		}
	})
}

func TestCancelOfAJobIsTooLateOnceItRuns(t *testing.T) {
	p := newPool(t, 1, "one")
	g := newGate(t)
	running, err := p.Submit(func() { g.job() })
	if err != nil {
		t.Fatal(err)
	}
	<-g.started
	waiting, err := p.Submit(func() { t.Error("the cancelled job was called") })
	if err != nil {
		t.Fatal(err)
	}
	if running.Cancel() {
		t.Error("the running job was cancelled")
	}
	if !waiting.Cancel() || waiting.Cancel() {
		t.Error("the waiting job was not cancelled exactly once")
	}
	if _, err := p.Submit(nil); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("a nil function: %v", err)
	}
}
