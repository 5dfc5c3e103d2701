package loop

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestCloseRacingWithOtherGoroutinesLeavesNobodyWaiting(t *testing.T) {
	for _, name := range backends {
		t.Run(name, func(t *testing.T) {
			for range 20 {
				closeUnderFire(t, newTestLoop(t, name))
			}
		})
	}
}

// closeUnderFire closes a loop while other goroutines use what they may.
func closeUnderFire(t *testing.T, l *Loop) {
	l.SetExceptionHandler(func(*Loop, *ExceptionContext) {})
	if err := l.AddSignalHandler(syscall.SIGUSR2, func() {}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	attack := func(fn func()) {
		wg.Go(func() {
			for range 100 {
				fn()
			}
		})
	}
	attack(func() {
		h, err := l.CallSoonThreadsafe(func() {})
		if err == nil {
			_ = h.String()
			h.Cancel()
		}
	})
	attack(func() {
		f := RunCoroutineThreadsafe(l, func(co *Coro) (int, error) { return 1, Sleep(co, time.Microsecond) })
		v, err := f.Result(context.Background())
		if (err != nil || v != 1) && !errors.Is(err, ErrLoopClosed) {
			t.Errorf("the thread future ended with %v, %v", v, err)
		}
	})
	attack(func() {
		f := RunCoroutineThreadsafe(l, func(co *Coro) (int, error) { return 1, Sleep(co, time.Hour) })
		f.Cancel()
	})
	attack(func() { _, _, _ = l.String(), l.Features(), l.BackendReason() })
	attack(func() {
		if err := syscall.Kill(syscall.Getpid(), syscall.SIGUSR2); err != nil {
			t.Error(err)
		}
		runtime.Gosched()
	})
	jobs := 0
	l.Go(func(co *Coro) error {
		for {
			if _, err := RunInExecutor(l, nil, func() (int, error) { return 1, nil }).Await(co); err != nil {
				return err
			}
			if jobs++; jobs == 10 {
				l.Stop()
			}
		}
	})
	if err := l.RunForever(); err != nil {
		t.Error(err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
}

func TestRandomCancelsEndEveryTaskAndLeaveNothingBehind(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		seed := uint64(time.Now().UnixNano())
		rng := rand.New(rand.NewPCG(seed, 0))
		l.SetExceptionHandler(func(*Loop, *ExceptionContext) {})
		var live []*Task[int]
		runMain(t, l, func(co *Coro) error {
			for range 3000 {
				live = append(live, CreateTask(l, func(co *Coro) (int, error) { return randomSteps(co, rng, live) },
					&TaskOptions{EagerStart: rng.IntN(4) == 0}))
				if rng.IntN(3) == 0 {
					live[rng.IntN(len(live))].Cancel("")
				}
				if rng.IntN(8) == 0 {
					live[rng.IntN(len(live))].Uncancel()
				}
				if rng.IntN(4) == 0 {
					if err := Sleep(co, 0); err != nil {
						return err
					}
				}
			}
			for len(l.AllTasks()) > 1 { // besides this one
				for _, task := range live {
					task.Cancel("")
				}
				if err := Sleep(co, time.Millisecond); err != nil {
					return err
				}
			}
			return nil
		})
		if l.current != nil || l.taskCount != 0 {
			t.Errorf("seed %d: current %v, %d tasks", seed, l.current, l.taskCount)
		}
		for _, e := range l.timers.entries {
			if !e.cb.cancelled {
				t.Errorf("seed %d: a timer is left behind", seed)
			}
		}
	})
}

// randomSteps waits in random ways, and swallows some cancellations.
func randomSteps(co *Coro, rng *rand.Rand, others []*Task[int]) (n int, err error) {
	for range rng.IntN(6) {
		switch rng.IntN(7) {
		case 0:
			err = Sleep(co, 0)
		case 1:
			err = Sleep(co, time.Duration(rng.IntN(500))*time.Microsecond)
		case 2:
			d := time.Duration(rng.IntN(300)) * time.Microsecond
			err = Timeout(co, d, func() error {
				return Timeout(co, d, func() error { return Sleep(co, 200*time.Microsecond) })
			})
		case 3:
			if len(others) > 0 {
				_, err = others[rng.IntN(len(others))].Await(co)
			}
		case 4:
			co.Task().Cancel("")
		case 5:
			f := CreateFuture[int](co.Loop())
			soonErr := error(nil)
			if _, soonErr = co.Loop().CallSoon(func() { f.Cancel("") }); soonErr != nil {
				return 0, soonErr
			}
			_, err = f.Await(co)
		case 6:
			if rng.IntN(4) == 0 {
				panic("random")
			}
		}
		if err != nil && rng.IntN(2) == 0 {
			return n, err
		}
		n++
	}
	return n, err
}

// A goroutine may be moved to another thread at any time, and the one that it was
// on may become a loop's right after.
func TestAGoroutineIsNotTakenForTheLoopWhoseThreadItWasOn(t *testing.T) {
	rounds := 5000
	if testing.Short() {
		rounds = 1000
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range rounds {
				ownBriefly(new(Loop))
			}
		})
		wg.Go(func() {
			for range rounds {
				if l := loopOfThread(); l != nil {
					t.Errorf("it is taken for the one of thread %d", l.tid.Load())
					return
				}
			}
		})
	}
	wg.Wait()
}

// ownBriefly makes the calling goroutine's thread that of l, for a moment.
func ownBriefly(l *Loop) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	l.register()
	defer l.unregister()
	runtime.Gosched()
}
