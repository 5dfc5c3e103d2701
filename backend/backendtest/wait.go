package backendtest

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-80cfe818/ringloop/backend"
	"golang.org/x/sys/unix"
)

func waitTests() []test {
	return single("wait", []test{
		{name: "a timeout of 0 returns though nothing comes", fn: waitZero},
		{name: "a positive timeout is kept", fn: func(d *driver) { waitUntil(d, 30*time.Millisecond) }},
		{name: "a timeout below a millisecond does not spin", fn: func(d *driver) { waitUntil(d, 300*time.Microsecond) }},
		{name: "a timeout of a nanosecond ends", fn: func(d *driver) { waitUntil(d, 1) }},
		{name: "the longest timeout does not overflow", fn: waitLongest},
		{name: "a negative timeout waits for a completion", fn: waitForCompletion},
		{name: "a completion ends a long timeout", fn: waitLongForCompletion},
		{name: "a completion that was not dispatched ends the next Wait", fn: waitUndispatched},
		{name: "completions are delivered in the order they were reaped, once", fn: waitDeliversOnce},
		{name: "Wake before Wait makes it return", fn: wakeBefore},
		{name: "Wake during Wait makes it return", fn: wakeDuring},
		{name: "Wake makes a Wait with a timeout return", fn: wakeTimed},
		{name: "Wake from a Receiver makes the next Wait return", fn: wakeFromReceiver},
		{name: "a thousand wakes do not keep Wait awake for ever", fn: wakesAreConsumed},
		{name: "no wake-up is lost among many goroutines", fn: wakeRace},
		{name: "a wake-up does not hide a completion", fn: wakeAndCompletion},
	})
}

func waitZero(d *driver) {
	a, _ := d.socketpair(unix.SOCK_STREAM)
	recv := d.submit(d.recv(a, 1))
	for range 100 {
		d.turn(0)
	}
	d.pending(recv)
	d.cancel(recv)
	d.wantErr(recv, unix.ECANCELED)
}

// waitUntil waits for a moment in the way of a loop: again and again for the
// time that is left. Only signals may add returns to the one at the end.
func waitUntil(d *driver, timeout time.Duration) {
	const limit = 20
	for range 5 {
		deadline := time.Now().Add(timeout)
		returns := 0
		for left := timeout; left > 0; left = time.Until(deadline) {
			d.turn(left)
			returns++
		}
		if returns > limit {
			d.t.Errorf("Wait(%v) returned %d times before its time", timeout, returns)
		}
	}
}

func waitLongest(d *driver) {
	for _, timeout := range []time.Duration{math.MaxInt64, math.MaxInt64 - 1, 1000 * time.Hour, -1, math.MinInt64} {
		d.be.Wake()
		d.wait(timeout)
	}
	d.dispatch()
}

// guard wakes the backend after the safety limit, so that a Wait without a
// limit that misses its event ends, and reports whether that happened.
func (d *driver) guard() (expired func() bool) {
	var late atomic.Bool
	timer := time.AfterFunc(safety, func() {
		late.Store(true)
		d.be.Wake()
	})
	d.t.Cleanup(func() { timer.Stop() })
	return late.Load
}

func waitForCompletion(d *driver) {
	expired := d.guard()
	a, b := d.socketpair(unix.SOCK_STREAM)
	recv := d.submit(d.recv(a, 1))
	p := d.spawn("writing", func() error { return d.put(b, []byte("x")) })
	for !recv.done && !expired() {
		d.turn(-1)
	}
	d.wantBytes(recv, []byte("x"))
	<-p.done
}

func waitLongForCompletion(d *driver) {
	a, b := d.socketpair(unix.SOCK_STREAM)
	recv := d.recv(a, 1)
	for i := range 200 {
		msg := bytesOf(1, int64(i))
		d.submit(recv)
		d.spawn("writing", func() error { return d.put(b, msg) })
		d.wantBytes(recv, msg)
		d.join()
	}
}

func waitUndispatched(d *driver) {
	expired := d.guard()
	nop := d.submit(d.op(backend.OpNop, -1))
	d.wait(-1)
	d.wait(-1)
	d.wait(-1)
	d.dispatch()
	if !nop.done || expired() {
		d.t.Errorf("the completion was delivered: %v, a Wait hung: %v", nop.done, expired())
	}
}

func waitDeliversOnce(d *driver) {
	nops := make([]*op, 100)
	for i := range nops {
		nops[i] = d.submit(d.op(backend.OpNop, -1))
	}
	d.all(nops...)
	seen := make(map[int]bool)
	for _, o := range nops {
		if seen[o.seq] {
			d.t.Errorf("two completions have the number %d", o.seq)
		}
		seen[o.seq] = true
	}
}

func wakeBefore(d *driver) {
	expired := d.guard()
	for range 100 {
		d.be.Wake()
		d.wait(-1)
	}
	if expired() {
		d.t.Error("Wait did not return")
	}
}

func wakeDuring(d *driver) {
	expired := d.guard()
	for range 200 {
		var woke atomic.Bool
		d.spawn("waking", func() error {
			woke.Store(true)
			d.be.Wake()
			return nil
		})
		for !woke.Load() && !expired() {
			d.turn(-1)
		}
		d.join()
	}
	if expired() {
		d.t.Error("Wait did not return")
	}
}

func wakeTimed(d *driver) {
	for range 200 {
		var woke atomic.Bool
		d.spawn("waking", func() error {
			woke.Store(true)
			d.be.Wake()
			return nil
		})
		d.until("wake-up", woke.Load)
		d.join()
	}
}

func wakeFromReceiver(d *driver) {
	expired := d.guard()
	nop := d.op(backend.OpNop, -1)
	nop.on = func(backend.Result) { d.be.Wake() }
	for range 100 {
		d.wantN(d.submit(nop), 0)
		d.wait(-1)
	}
	if expired() {
		d.t.Error("Wait did not return")
	}
}

func wakesAreConsumed(d *driver) {
	const wakes = 1000
	for range wakes {
		d.be.Wake()
	}
	// Each wake may end one Wait; after them the backend has to sleep again.
	for range wakes {
		d.turn(0)
	}
	waitUntil(d, 20*time.Millisecond)
}

// wakeRace posts items from many goroutines, each followed by a wake, to a
// consumer that sleeps without a limit whenever its queue is empty.
func wakeRace(d *driver) {
	const producers, each = 8, 3000
	expired := d.guard()
	var mu sync.Mutex
	posted, taken := 0, 0
	for range producers {
		d.spawn("posting", func() error {
			for range each {
				mu.Lock()
				posted++
				mu.Unlock()
				d.be.Wake()
			}
			return nil
		})
	}
	for taken < producers*each {
		mu.Lock()
		news := posted > taken
		taken = posted
		mu.Unlock()
		if !news {
			d.turn(-1)
		}
		if expired() {
			d.t.Fatalf("a wake-up was lost: %d of %d items came", taken, producers*each)
		}
	}
}

func wakeAndCompletion(d *driver) {
	a, b := d.socketpair(unix.SOCK_STREAM)
	recv := d.recv(a, 8)
	stop := make(chan struct{})
	waker := d.spawn("waking all the time", func() error {
		for {
			select {
			case <-stop:
				return nil
			default:
				d.be.Wake()
			}
		}
	})
	for i := range 2000 {
		msg := bytesOf(8, int64(i))
		d.submit(recv)
		d.feed(b, msg)
		d.wantBytes(recv, msg)
	}
	close(stop)
	<-waker.done
}
