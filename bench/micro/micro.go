// Package micro measures what callbacks, timers and tasks cost on a loop, and
// what the nearest thing costs with goroutines and channels.
package micro

import (
	"fmt"
	"runtime"
	"time"

	"github.com/seed-80cfe818/ringloop/loop"
)

// Result is the cost of one operation in nanoseconds, by the name of the case.
// The names are those of servers/python/loop.py, too.
type Result map[string]float64

// The cases, in the order of the table.
var Cases = []string{"call_soon", "call_soon_threadsafe", "timer, 1000 pending", "timer, 1000000 pending", "create task", "switch task"}

// batch is how many operations are made between two looks at the clock.
const batch = 1000

// measure calls batches until d is over and returns nanoseconds per operation.
func measure(d time.Duration, once func() error) (float64, error) {
	if err := once(); err != nil { // warm-up
		return 0, err
	}
	n, start := 0, time.Now()
	for time.Since(start) < d {
		if err := once(); err != nil {
			return 0, err
		}
		n += batch
	}
	return float64(time.Since(start).Nanoseconds()) / float64(n), nil
}

// Loop measures a loop of ours; every case takes d.
func Loop(backend string, d time.Duration) (Result, error) {
	res := Result{}
	err := loop.Run(func(co *loop.Coro) error {
		for name, once := range map[string]func(*loop.Coro) error{
			"call_soon": callSoon, "create task": createTasks, "call_soon_threadsafe": callThreadsafe,
		} {
			ns, err := measure(d, func() error { return once(co) })
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			res[name] = ns
		}
		return loopSwitches(co, d, res)
	}, loop.WithBackend(backend))
	for _, pending := range []int{1000, 1_000_000} {
		if err == nil {
			err = loopTimers(backend, pending, d, res)
		}
	}
	return res, err
}

// callSoon runs callbacks, a batch a turn.
func callSoon(co *loop.Coro) error {
	fn := func() {}
	for range batch {
		if _, err := co.Loop().CallSoon(fn); err != nil {
			return err
		}
	}
	return loop.Sleep(co, 0)
}

// callThreadsafe runs callbacks that another goroutine posts.
func callThreadsafe(co *loop.Coro) error {
	l := co.Loop()
	done := loop.CreateFuture[struct{}](l)
	left := batch
	fn := func() {
		if left--; left == 0 {
			_ = done.SetResult(struct{}{})
		}
	}
	failed := make(chan error, 1)
	go func() {
		for range batch {
			if _, err := l.CallSoonThreadsafe(fn); err != nil {
				failed <- err
				return
			}
		}
		failed <- nil
	}()
	if _, err := done.Await(co); err != nil {
		return err
	}
	return <-failed
}

// createTasks makes tasks and waits until they have run.
func createTasks(co *loop.Coro) error {
	left := batch
	for range batch {
		co.Loop().Go(func(*loop.Coro) error {
			left--
			return nil
		})
	}
	for left > 0 {
		if err := loop.Sleep(co, 0); err != nil {
			return err
		}
	}
	return nil
}

// loopSwitches lets tasks give way to one another.
func loopSwitches(co *loop.Coro, d time.Duration, res Result) error {
	stop := false
	for range batch {
		co.Loop().Go(func(co *loop.Coro) error {
			for !stop {
				if err := loop.Sleep(co, 0); err != nil {
					return err
				}
			}
			return nil
		})
	}
	ns, err := measure(d, func() error { return loop.Sleep(co, 0) })
	stop, res["switch task"] = true, ns
	return err
}

// loopTimers arms and cancels timers while others are pending.
func loopTimers(backend string, pending int, d time.Duration, res Result) error {
	return loop.Run(func(co *loop.Coro) error {
		l := co.Loop()
		fn := func() {}
		for i := range pending {
			if _, err := l.CallLater(time.Hour+time.Duration(i), fn); err != nil {
				return err
			}
		}
		ns, err := measure(d, func() error {
			for range batch {
				h, err := l.CallLater(time.Minute, fn)
				if err != nil {
					return err
				}
				h.Cancel()
			}
			return loop.Sleep(co, 0)
		})
		res[fmt.Sprintf("timer, %d pending", pending)] = ns
		return err
	}, loop.WithBackend(backend))
}

// Goroutines measures the same with goroutines, channels and runtime timers.
func Goroutines(d time.Duration) (Result, error) {
	res := Result{}
	for name, once := range map[string]func() error{
		"call_soon": callChannel, "call_soon_threadsafe": callChannel, "create task": createGoroutines,
	} {
		ns, err := measure(d, once)
		if err != nil {
			return nil, err
		}
		res[name] = ns
	}
	ns, err := goSwitches(d)
	if err != nil {
		return nil, err
	}
	res["switch task"] = ns
	for _, pending := range []int{1000, 1_000_000} {
		if res[fmt.Sprintf("timer, %d pending", pending)], err = goTimers(pending, d); err != nil {
			return nil, err
		}
	}
	return res, nil
}

// callChannel sends functions to a goroutine that calls them.
func callChannel() error {
	calls := make(chan func(), batch)
	done := make(chan struct{})
	go func() {
		for fn := range calls {
			fn()
		}
		close(done)
	}()
	fn := func() {}
	for range batch {
		calls <- fn
	}
	close(calls)
	<-done
	return nil
}

func createGoroutines() error {
	done := make(chan struct{}, batch)
	for range batch {
		go func() { done <- struct{}{} }()
	}
	for range batch {
		<-done
	}
	return nil
}

// goSwitches passes a token around a ring of goroutines.
func goSwitches(d time.Duration) (float64, error) {
	first := make(chan struct{})
	in := first
	for range batch {
		out := make(chan struct{})
		go func(in <-chan struct{}, out chan<- struct{}) {
			defer close(out)
			for range in {
				out <- struct{}{}
			}
		}(in, out)
		in = out
	}
	ns, err := measure(d, func() error {
		first <- struct{}{}
		<-in
		return nil
	})
	close(first)
	return ns, err
}

func goTimers(pending int, d time.Duration) (float64, error) {
	fn := func() {}
	timers := make([]*time.Timer, pending)
	for i := range timers {
		timers[i] = time.AfterFunc(time.Hour+time.Duration(i), fn)
	}
	ns, err := measure(d, func() error {
		for range batch {
			time.AfterFunc(time.Minute, fn).Stop()
		}
		runtime.Gosched()
		return nil
	})
	for _, t := range timers {
		t.Stop()
	}
	return ns, err
}
