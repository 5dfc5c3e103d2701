package loop

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-80cfe818/ringloop/backend"
)

func goexit() { runtime.Goexit() }

func TestCallSoonIsFirstInFirstOut(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		var got []int
		for i := range 1000 {
			soon(t, l, func() { got = append(got, i) })
		}
		runOnce(t, l)
		if len(got) != 1000 || !slices.IsSorted(got) {
			t.Errorf("%d callbacks ran, sorted %v", len(got), slices.IsSorted(got))
		}
	})
}

func TestACallbackOfACallbackWaitsForTheNextTurn(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		inner := false
		soon(t, l, func() { soon(t, l, func() { inner = true }) })
		runOnce(t, l)
		if inner {
			t.Error("it ran in the same turn")
		}
		runOnce(t, l)
		if !inner {
			t.Error("it did not run in the next turn")
		}
	})
}

func TestANilCallbackIsRefused(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		_, err := l.CallSoon(nil)
		wantErr(t, "CallSoon", err, ErrInvalidArgument)
		_, err = l.CallSoonThreadsafe(nil)
		wantErr(t, "CallSoonThreadsafe", err, ErrInvalidArgument)
		_, err = l.CallLater(0, nil)
		wantErr(t, "CallLater", err, ErrInvalidArgument)
		_, err = RunUntilComplete(l, l.Go(nil))
		wantErr(t, "Go", err, ErrInvalidArgument)
		_, err = RunUntilComplete(l, WrapFuture[int](l, nil))
		wantErr(t, "WrapFuture", err, ErrInvalidArgument)
		runMain(t, l, func(co *Coro) error {
			wantErr(t, "Timeout", Timeout(co, time.Second, nil), ErrInvalidArgument)
			_, _, err := NewAsyncGen[int](nil).Next(co)
			wantErr(t, "Next", err, ErrInvalidArgument)
			return nil
		})
	})
}

func TestCallSoonThreadsafeWakesASleepingLoopInOrder(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		var got []string
		soon(t, l, func() {
			go func() {
				_, err := l.CallSoonThreadsafe(func() { got = append(got, "thread") })
				if err == nil {
					_, err = l.CallSoonThreadsafe(l.Stop)
				}
				if err != nil {
					t.Error(err)
				}
			}()
		})
		if err := l.RunForever(); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, []string{"thread"}) {
			t.Errorf("ran %q", got)
		}
	})
}

func TestCallSoonThreadsafeKeepsItsPlaceBeforeALaterCallSoon(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		var got []string
		soon(t, l, func() {
			var wg sync.WaitGroup
			wg.Go(func() { _, _ = l.CallSoonThreadsafe(func() { got = append(got, "thread") }) })
			wg.Wait()
			soon(t, l, func() { got = append(got, "later") })
			soon(t, l, l.Stop)
		})
		if err := l.RunForever(); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, []string{"thread", "later"}) {
			t.Errorf("ran %q", got)
		}
	})
}

func TestCallSoonThreadsafeOnTheLoopKeepsItsPlaceAmongTasksAndDoneCallbacks(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		var order []string
		note := func(what string) func() { return func() { order = append(order, what) } }
		post := func(what string) { mustCall[Handle](t)(l.CallSoonThreadsafe(note(what))) }
		done, pending := CreateFuture[int](l), CreateFuture[int](l)
		_ = done.SetResult(0)
		pending.AddDoneCallback(func(AnyFuture) { note("done later")() })
		soon(t, l, func() {
			post("first")
			l.Go(func(*Coro) error { note("task")(); return nil })
			post("second")
			_ = pending.SetResult(0)
			post("third")
			done.AddDoneCallback(func(AnyFuture) { note("done before")() })
		})
		runOnce(t, l)
		runOnce(t, l)
		if want := []string{"first", "task", "second", "done later", "third", "done before"}; !slices.Equal(order, want) {
			t.Errorf("called %q, want %q", order, want)
		}
	})
}

func TestThreadsafeCallsRacingWithTimersAreNotLost(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		const threads, calls = 8, 2000
		var ran atomic.Int64
		for range threads {
			go func() {
				for range calls {
					if _, err := l.CallSoonThreadsafe(func() { ran.Add(1) }); err != nil {
						t.Error(err)
					}
				}
			}()
		}
		var tick func()
		tick = func() {
			h := mustCall[TimerHandle](t)(l.CallLater(time.Hour, func() {}))
			h.Cancel()
			if ran.Load() == threads*calls {
				l.Stop()
				return
			}
			mustCall[TimerHandle](t)(l.CallLater(50*time.Microsecond, tick))
		}
		soon(t, l, tick)
		if err := l.RunForever(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestACancelOfAThreadsafeHandleWinsCompletelyOrNotAtAll(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		const n = 5000
		var ran, cancelled atomic.Int64
		go func() {
			for range n {
				h, err := l.CallSoonThreadsafe(func() { ran.Add(1) })
				if err != nil {
					t.Error(err)
				}
				h.Cancel()
				h.Cancel()
				if h.Cancelled() {
					cancelled.Add(1)
				}
			}
			_, _ = l.CallSoonThreadsafe(l.Stop)
		}()
		if err := l.RunForever(); err != nil {
			t.Fatal(err)
		}
		if ran.Load()+cancelled.Load() != n {
			t.Errorf("%d ran and %d were cancelled, of %d", ran.Load(), cancelled.Load(), n)
		}
	})
}

func TestACancelledHandleIsNotCalled(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		h := soon(t, l, func() { t.Error("called") })
		h.Cancel()
		h.Cancel()
		var later Handle
		soon(t, l, func() { later.Cancel() })
		later = soon(t, l, func() { t.Error("called although cancelled in the same turn") })
		runOnce(t, l)
		if !h.Cancelled() || !later.Cancelled() {
			t.Errorf("cancelled: %v, %v", h.Cancelled(), later.Cancelled())
		}
	})
}

func TestAHandleThatRanIsNotCancelled(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		h := soon(t, l, func() {})
		th := mustCall[TimerHandle](t)(l.CallLater(0, func() {}))
		when := th.When()
		runOnce(t, l)
		if h.Cancelled() || th.Cancelled() {
			t.Error("cancelled after it ran")
		}
		if th.When() != when {
			t.Errorf("it was due at %v and says %v after it ran", when, th.When())
		}
		// Cancelling it now must not hit whoever uses the memory next.
		ran := false
		soon(t, l, func() { ran = true })
		h.Cancel()
		th.Cancel()
		runOnce(t, l)
		if !ran {
			t.Error("a stale handle cancelled another callback")
		}
	})
}

func TestATimerFiresOnceAfterItsDelay(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		fired := 0
		start := l.Time()
		var at time.Duration
		mustCall[TimerHandle](t)(l.CallLater(70*time.Millisecond, func() {
			fired++
			at = l.Time()
			mustCall[TimerHandle](t)(l.CallLater(5*time.Millisecond, l.Stop))
		}))
		if err := l.RunForever(); err != nil {
			t.Fatal(err)
		}
		if fired != 1 || at-start < 69*time.Millisecond {
			t.Errorf("fired %d times, after %v", fired, at-start)
		}
	})
}

func TestTimersRunByTimeAndEqualOnesInOrder(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		var got []string
		add := func(when time.Duration, s string) {
			mustCall[TimerHandle](t)(l.CallAt(when, func() { got = append(got, s) }))
		}
		add(-1, "-1")
		add(-2, "-2")
		for i := range 50 {
			add(0, fmt.Sprint("0.", i))
		}
		runOnce(t, l)
		want := []string{"-2", "-1"}
		for i := range 50 {
			want = append(want, fmt.Sprint("0.", i))
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %q", got)
		}
	})
}

func TestManyTimersRunInOrder(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		rnd := rand.New(rand.NewPCG(1, 2))
		var got []time.Duration
		var handles []TimerHandle
		for range 20_000 {
			when := time.Duration(rnd.IntN(1000)) - 2000
			handles = append(handles, mustCall[TimerHandle](t)(l.CallAt(when, func() { got = append(got, when) })))
		}
		kept := 0
		for i, h := range handles {
			if i%10 < 7 {
				h.Cancel()
			} else {
				kept++
			}
		}
		runOnce(t, l)
		if len(got) != kept || !slices.IsSorted(got) {
			t.Errorf("%d of %d ran, sorted %v", len(got), kept, slices.IsSorted(got))
		}
		if l.timers.cancelled != 0 || len(l.timers.entries) != 0 {
			t.Errorf("%d cancelled of %d are left", l.timers.cancelled, len(l.timers.entries))
		}
	})
}

func TestTheHeapIsPurgedWhenHalfOfManyTimersAreCancelled(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		var handles []TimerHandle
		for i := range 2 * minTimersToPurge {
			handles = append(handles, mustCall[TimerHandle](t)(l.CallLater(time.Hour+time.Duration(i), func() {})))
		}
		for _, h := range handles[:minTimersToPurge+1] {
			h.Cancel()
		}
		runOnce(t, l)
		if got, want := len(l.timers.entries), minTimersToPurge-1; got != want {
			t.Errorf("%d timers in the heap, want %d", got, want)
		}
	})
}

func TestACancelledTimerDoesNotKeepTheLoopAwake(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		h := mustCall[TimerHandle](t)(l.CallLater(time.Millisecond, func() { t.Error("called") }))
		mustCall[TimerHandle](t)(l.CallLater(time.Hour, func() {}))
		h.Cancel()
		l.timers.purge()
		if got := l.timeout(); got < 59*time.Minute {
			t.Errorf("the loop would sleep %v", got)
		}
	})
}

func TestEndlessDelaysAreLegal(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		h := mustCall[TimerHandle](t)(l.CallLater(math.MaxInt64, func() { t.Error("called") }))
		if h.When() != math.MaxInt64 {
			t.Errorf("when is %v", h.When())
		}
		if got := l.timeout(); got != maxWait {
			t.Errorf("the loop would sleep %v, want %v", got, maxWait)
		}
		runOnce(t, l)
		h.Cancel()
		if h.When() != math.MaxInt64 {
			t.Errorf("when is %v after cancel", h.When())
		}
	})
}

func TestTheLongestTimeAgoIsDueAtOnce(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		var order []string
		mustCall[TimerHandle](t)(l.CallLater(-1, func() { order = append(order, "later") }))
		mustCall[TimerHandle](t)(l.CallLater(math.MinInt64, func() { order = append(order, "first") }))
		mustCall[TimerHandle](t)(l.CallAt(math.MinInt64, func() { order = append(order, "at") }))
		if got := l.timeout(); got != 0 {
			t.Errorf("the loop would sleep %v", got)
		}
		runOnce(t, l)
		if want := []string{"at", "first", "later"}; !slices.Equal(order, want) {
			t.Errorf("called %q, want %q", order, want)
		}
	})
}

func TestShortSleepsDoNotSpin(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		turns := 0
		runMain(t, l, func(co *Coro) error {
			for _, d := range []time.Duration{10 * time.Millisecond, time.Millisecond, 100 * time.Microsecond, time.Microsecond, time.Nanosecond} {
				ticks := countTurns(l)
				if err := Sleep(co, d); err != nil {
					return err
				}
				turns += ticks()
			}
			return nil
		})
		if turns > 20 {
			t.Errorf("five sleeps took %d turns", turns)
		}
	})
}

func TestTheClockMovesWithinACallback(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		soon(t, l, func() {
			start := l.Time()
			for l.Time() == start {
			}
			armed := l.Time()
			h := mustCall[TimerHandle](t)(l.CallLater(time.Second, func() {}))
			if h.When() < armed+time.Second {
				t.Errorf("armed at %v for %v", armed, h.When())
			}
			h.Cancel()
		})
		runOnce(t, l)
	})
}

func TestTheOrderOfATurn(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		var got []string
		add := func(s string) func() { return func() { got = append(got, s) } }
		op := &nopOp{done: add("io")}
		op.Receiver = op
		soon(t, l, func() {
			// The operation completes, and the timer is due, on the next turn.
			if err := l.Submit(&op.Op); err != nil {
				t.Error(err)
			}
			mustCall[TimerHandle](t)(l.CallLater(0, add("timer")))
			soon(t, l, func() {
				got = append(got, "queued")
				soon(t, l, add("next turn"))
			})
		})
		for range 3 {
			runOnce(t, l)
		}
		if want := []string{"queued", "io", "timer", "next turn"}; !slices.Equal(got, want) {
			t.Errorf("order %q, want %q", got, want)
		}
	})
}

func TestCallSoonAndRunAllocateNothing(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		fn := func() {}
		runMain(t, l, func(co *Coro) error {
			allocs := testing.AllocsPerRun(1000, func() {
				_, _ = l.CallSoon(fn)
				_ = Sleep(co, 0)
			})
			if allocs != 0 {
				t.Errorf("%v allocations per CallSoon, run and switch", allocs)
			}
			return nil
		})
	})
}

// nopOp is an operation that completes at once.
type nopOp struct {
	backend.Op
	done func()
}

func (o *nopOp) Complete(*backend.Op, backend.Result) { o.done() }

// countTurns counts the turns of the loop until the returned function is
// called.
func countTurns(l *Loop) func() int {
	before := l.turnCount
	return func() int { return int(l.turnCount - before) }
}
