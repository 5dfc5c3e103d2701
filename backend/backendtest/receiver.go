package backendtest

import (
	"github.com/seed-80cfe818/ringloop/backend"
	"golang.org/x/sys/unix"
)

func receiverTests() []test {
	return single("receiver", []test{
		{name: "it submits other operations from inside", fn: receiverSubmits},
		{name: "it submits the same operation from inside, once a turn", fn: receiverResubmits},
		{name: "it cancels others that wait", fn: receiverCancels},
		{name: "it cancels others whose completion is next", fn: receiverCancelsNext},
		{name: "it closes the descriptor of others whose completion is next", fn: receiverCloses},
		{name: "after a panic the next Dispatch goes on", fn: receiverPanics},
		{name: "after a panic of a multishot it goes on", fn: receiverPanicsMulti},
		{name: "after panics in a row nothing is lost", fn: receiverPanicsAlways},
		{name: "after a halt the next Dispatch goes on", fn: receiverHalts},
		{name: "after a halt of a multishot it goes on", fn: receiverHaltsMulti},
		{name: "a halt outside of Dispatch does nothing", fn: receiverHaltsOutside},
		{name: "it tries and wakes from inside", fn: receiverTries},
	})
}

func receiverSubmits(d *driver) {
	a, b := d.socketpair(unix.SOCK_STREAM)
	const rounds = 500
	var ping, pong *op
	ping, pong = d.recv(a, 8), d.recv(b, 8)
	count := 0
	bounce := func(self *op, fd int) func(result) {
		return func(r result) {
			if r.Errno == unix.ECANCELED && count >= rounds {
				return
			}
			if r.Errno != 0 || r.N != 8 {
				d.t.Errorf("%s: N %d, errno %v", self, r.N, r.Errno)
				return
			}
			if count++; count < rounds {
				d.submit(self)
				d.submit(d.send(fd, append([]byte(nil), self.Buf...)))
			}
		}
	}
	ping.on, pong.on = bounce(ping, a), bounce(pong, b)
	d.submit(ping)
	d.submit(pong)
	d.submit(d.send(a, bytesOf(8, 0)))
	d.until("the exchange", func() bool { return count >= rounds || d.t.Failed() })
	for _, o := range []*op{ping, pong} {
		d.cancel(o)
	}
	d.until("the end", func() bool { return d.flying == 0 })
}

func receiverResubmits(d *driver) {
	nop := d.op(backend.OpNop, -1)
	count := 0
	nop.on = func(result) {
		if count++; count < 1000 {
			d.submit(nop)
		}
	}
	d.submit(nop)
	for was := count; count < 1000; was = count {
		d.until("next", func() bool { return count > was })
		if count > was+1 {
			d.t.Fatalf("%d completions of the same operation in one Dispatch", count-was)
		}
	}
}

func receiverCancels(d *driver) {
	a, b := d.socketpair(unix.SOCK_STREAM)
	waiting := make([]*op, 20)
	for i := range waiting {
		x, _ := d.socketpair(unix.SOCK_STREAM)
		waiting[i] = d.submit(d.recv(x, 10))
	}
	trigger := d.recv(a, 1)
	trigger.on = func(result) {
		for _, o := range waiting {
			d.cancel(o)
		}
	}
	d.submit(trigger)
	d.pending(waiting...)
	d.feed(b, []byte("x"))
	for _, o := range waiting {
		d.wantErr(o, unix.ECANCELED)
	}
}

// batch returns receives of several connections whose bytes have all come, so
// that their completions are delivered by one Dispatch, if the backend can.
func (d *driver) batch(n int) []*op {
	d.t.Helper()
	ops, peers := make([]*op, n), make([]int, n)
	for i := range ops {
		var a int
		a, peers[i] = d.socketpair(unix.SOCK_STREAM)
		ops[i] = d.submit(d.recv(a, 8))
	}
	d.pending(ops...)
	for _, b := range peers {
		d.feed(b, []byte("x"))
	}
	return ops
}

func receiverCancelsNext(d *driver) {
	ops := d.batch(20)
	for _, o := range ops {
		o.on = func(r result) {
			if r.Errno != 0 && r.Errno != unix.ECANCELED {
				d.t.Errorf("%s: %v", o, r.Errno)
			}
			for _, other := range ops {
				d.cancel(other)
			}
		}
	}
	d.all(ops...)
	for _, o := range ops {
		if o.last.Errno == unix.ECANCELED {
			d.wantN(d.submit(d.recv(int(o.FD), 8)), 1)
		}
	}
}

func receiverCloses(d *driver) {
	ops := d.batch(20)
	var closes []*op
	for _, o := range ops {
		o.on = func(result) {
			if closes != nil {
				return
			}
			for _, other := range ops {
				closes = append(closes, d.submit(d.closeOp(int(other.FD))))
				d.disown(int(other.FD))
			}
		}
	}
	d.all(ops...)
	for i, c := range closes {
		d.wantN(c, 0)
		if ops[i].seq > c.seq {
			d.t.Errorf("%s came after the close", ops[i])
		}
	}
}

// caught turns once and returns what a Receiver panicked with.
func (d *driver) caught() (v any) {
	d.t.Helper()
	d.wait(safety)
	defer func() {
		v = recover()
		d.checkInFlight()
	}()
	d.dispatchOnly()
	return nil
}

func receiverPanics(d *driver) {
	ops := d.batch(20)
	ops[7].on = func(result) { panic("boom") }
	panics := 0
	for panics == 0 {
		if v := d.caught(); v != nil {
			panics++
			if v != "boom" {
				d.t.Fatalf("Dispatch panicked with %v", v)
			}
		}
	}
	// The rest comes without another Wait.
	d.dispatch()
	for _, o := range ops {
		d.wantN(o, 1)
	}
	ops[7].on = nil
	d.submit(ops[7])
	d.pending(ops[7])
	d.cancel(ops[7])
	d.wantErr(ops[7], unix.ECANCELED)
}

func receiverPanicsMulti(d *driver) {
	a, b := d.socketpair(unix.SOCK_STREAM)
	const n = 1 << 20
	var c collector
	o := d.multi(d.recv(a, 0))
	d.collect(o, &c, func(r result) {
		if c.count%3 == 0 {
			panic("boom")
		}
	})
	d.submit(o)
	d.spawn("writing", func() error { return d.putPattern(b, n) })
	panics := 0
	for c.pos < n && !d.t.Failed() {
		if d.caught() != nil {
			panics++
		}
	}
	if panics == 0 {
		d.t.Error("no panic passed through")
	}
	o.on = nil
	d.cancel(o)
	d.wantErr(o, unix.ECANCELED)
}

func receiverPanicsAlways(d *driver) {
	ops := d.batch(50)
	for range 50 {
		ops = append(ops, d.submit(d.op(backend.OpNop, -1)))
	}
	for _, o := range ops {
		o.on = func(result) { panic(o) }
	}
	seen := make(map[any]bool)
	for len(seen) < len(ops) {
		v := d.caught()
		if v != nil && seen[v] {
			d.t.Fatalf("%v panicked twice", v)
		}
		if v != nil {
			seen[v] = true
		}
	}
}

// receiverHalts halts at every completion: of what the kernel does, and of what
// is cancelled before it gets there.
func receiverHalts(d *driver) {
	ops := d.batch(20)
	a, _ := d.socketpair(unix.SOCK_STREAM)
	for range 20 {
		ops = append(ops, d.submit(d.op(backend.OpNop, -1)))
		early := d.submit(d.recv(a, 8))
		d.cancel(early)
		ops = append(ops, early)
	}
	delivered := 0
	for _, o := range ops {
		o.on = func(result) {
			delivered++
			d.be.Halt()
		}
	}
	for delivered < len(ops) {
		before := delivered
		d.turn(safety)
		if n := delivered - before; n > 1 {
			d.t.Fatalf("a Dispatch that was halted delivered %d completions", n)
		}
	}
}

func receiverHaltsMulti(d *driver) {
	a, b := d.socketpair(unix.SOCK_STREAM)
	const n = 1 << 20
	var c collector
	o := d.multi(d.recv(a, 0))
	d.collect(o, &c, func(result) { d.be.Halt() })
	d.submit(o)
	d.spawn("writing", func() error { return d.putPattern(b, n) })
	for c.pos < n && !d.t.Failed() {
		before := c.count
		d.turn(safety)
		if c.count > before+1 {
			d.t.Fatalf("a Dispatch that was halted delivered %d completions", c.count-before)
		}
	}
	o.on = nil
	d.cancel(o)
	d.wantErr(o, unix.ECANCELED)
}

func receiverHaltsOutside(d *driver) {
	var ops []*op
	delivered := 0
	for range 20 {
		o := d.op(backend.OpNop, -1)
		o.on = func(result) { delivered++ }
		ops = append(ops, d.submit(o))
	}
	d.wait(safety)
	d.be.Halt()
	d.dispatch()
	if delivered < 2 {
		d.t.Errorf("the next Dispatch delivered %d completions", delivered)
	}
	d.all(ops...)
}

func receiverTries(d *driver) {
	a, b := d.socketpair(unix.SOCK_STREAM)
	d.feed(b, []byte("x"))
	nop := d.op(backend.OpNop, -1)
	recv := d.recv(a, 8)
	took := 0
	nop.on = func(result) {
		r, ok := d.try(recv)
		if !ok {
			d.submit(recv)
			return
		}
		took = r.N
		d.be.Wake()
	}
	d.wantN(d.submit(nop), 0)
	d.until("the byte", func() bool { return took == 1 || recv.done })
}
