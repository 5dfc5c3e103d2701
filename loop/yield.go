package loop

import (
	"runtime"
	"time"
)

// yieldEvery is how often the loop's goroutine lets Go's scheduler choose anew
// who runs. If it did not for 10 ms, the scheduler's monitor would call it
// greedy: it would interrupt it by a signal, take its processor away whenever it
// waits in the kernel, and look for that every 20 us. With a single processor
// and few connections, where the loop sleeps after every message, that costs
// half as much again as serving them.
const yieldEvery = 5 * time.Millisecond

// yield is called when the loop has nothing to run and may be about to sleep.
func (l *Loop) yield() {
	if now := l.Time(); l.handedOver || now-l.yielded >= yieldEvery {
		l.handedOver = false
		l.yielded = now
		runtime.Gosched()
	}
}

// handOver makes the next yield one that counts: another goroutine has asked for
// something and may wait for the answer, or is to begin with something. Until the
// scheduler's monitor notices that the loop sleeps, it would have no processor if
// Go has only one: 200 us instead of 8 for a RunInExecutor and back.
func (l *Loop) handOver() { l.handedOver = true }
