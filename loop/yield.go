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
	if now := l.Time(); now-l.yielded >= yieldEvery {
		l.yielded = now
		runtime.Gosched()
	}
}
