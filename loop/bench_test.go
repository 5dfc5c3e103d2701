package loop

import (
	"testing"
	"time"
)

// benchEachBackend runs a benchmark as a task on every backend.
func benchEachBackend(b *testing.B, bench func(b *testing.B, co *Coro)) {
	for _, name := range backends {
		b.Run(name, func(b *testing.B) {
			l := newTestLoop(b, name)
			runMain(b, l, func(co *Coro) error {
				b.ReportAllocs()
				bench(b, co)
				return nil
			})
		})
	}
}

// BenchmarkCallSoon is the cost of scheduling and running one callback, in
// batches of 1000 a turn.
func BenchmarkCallSoon(b *testing.B) {
	benchEachBackend(b, func(b *testing.B, co *Coro) {
		fn := func() {}
		const batch = 1000
		for b.Loop() {
			for range batch {
				_, _ = co.Loop().CallSoon(fn)
			}
			_ = Sleep(co, 0)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/batch, "ns/call")
	})
}

// BenchmarkTurn is the cost of a turn with one callback in it.
func BenchmarkTurn(b *testing.B) {
	benchEachBackend(b, func(b *testing.B, co *Coro) {
		for b.Loop() {
			_ = Sleep(co, 0)
		}
	})
}

// BenchmarkAwaitSwitch is the cost of suspending one task and resuming another
// that waits for a future, in batches so that the turn does not count.
func BenchmarkAwaitSwitch(b *testing.B) {
	benchEachBackend(b, func(b *testing.B, co *Coro) {
		const tasks = 1000
		l := co.Loop()
		stop := false
		for range tasks {
			l.Go(func(co *Coro) error {
				for !stop {
					if err := Sleep(co, 0); err != nil {
						return err
					}
				}
				return nil
			})
		}
		for b.Loop() {
			_ = Sleep(co, 0)
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/tasks, "ns/switch")
		stop = true
		_ = Sleep(co, 0)
		_ = Sleep(co, 0)
	})
}

// BenchmarkCreateTask is the cost of a task that does nothing.
func BenchmarkCreateTask(b *testing.B) {
	benchEachBackend(b, func(b *testing.B, co *Coro) {
		for b.Loop() {
			t := co.Loop().Go(func(*Coro) error { return nil })
			_, _ = t.Await(co)
		}
	})
}

// BenchmarkTimer is the cost of arming and cancelling a timer with many others
// pending.
func BenchmarkTimer(b *testing.B) {
	for _, pending := range []int{1000, 1_000_000} {
		b.Run(map[int]string{1000: "1000", 1_000_000: "1000000"}[pending], func(b *testing.B) {
			benchEachBackend(b, func(b *testing.B, co *Coro) {
				l := co.Loop()
				for i := range pending {
					_, _ = l.CallLater(time.Hour+time.Duration(i), func() {})
				}
				fn := func() {}
				n := 0
				for b.Loop() {
					h, _ := l.CallLater(time.Minute, fn)
					h.Cancel()
					if n++; n%1000 == 0 {
						_ = Sleep(co, 0)
					}
				}
			})
		})
	}
}

// BenchmarkCallSoonThreadsafe is the time from posting a callback to a sleeping
// loop until it has run.
func BenchmarkCallSoonThreadsafe(b *testing.B) {
	for _, name := range backends {
		b.Run(name, func(b *testing.B) {
			l := newTestLoop(b, name)
			ended := make(chan error)
			go func() { ended <- l.RunForever() }()
			ran := make(chan struct{})
			fn := func() { ran <- struct{}{} }
			b.ReportAllocs()
			for b.Loop() {
				if _, err := l.CallSoonThreadsafe(fn); err != nil {
					b.Fatal(err)
				}
				<-ran
			}
			_, _ = l.CallSoonThreadsafe(l.Stop)
			if err := <-ended; err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkRunInExecutor is a function on another goroutine and its result. With
// -cpu 1 it tells what the goroutine waits for a processor.
func BenchmarkRunInExecutor(b *testing.B) {
	benchEachBackend(b, func(b *testing.B, co *Coro) {
		nothing := func() (int, error) { return 0, nil }
		for b.Loop() {
			if _, err := RunInExecutor(co.Loop(), nil, nothing).Await(co); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkReplyToAGoroutine is a callback that answers another goroutine, seen
// from that one.
func BenchmarkReplyToAGoroutine(b *testing.B) {
	benchEachBackend(b, func(b *testing.B, co *Coro) {
		over := CreateFuture[int](co.Loop())
		go func() {
			reply := make(chan int, 1)
			for b.Loop() {
				_, _ = co.Loop().CallSoonThreadsafe(func() { reply <- 1 })
				<-reply
			}
			_, _ = co.Loop().CallSoonThreadsafe(func() { over.complete(0, nil) })
		}()
		_, _ = over.Await(co)
	})
}
