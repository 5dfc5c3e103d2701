package backendtest

import (
	"slices"

	"github.com/seed-80cfe818/ringloop/backend"
	"golang.org/x/sys/unix"
)

func multishotTests() []test {
	return slices.Concat(over("multishot", streams, []pairTest{
		{"a recv delivers everything in order until the end", multiRecv},
		{"a recv delivers far more than the buffers hold", multiFlood},
		{"a cancelled recv leaves the rest to the next", multiCancel},
		{"a recv behind a single one waits for its turn", multiBehindSingle},
		{"a single recv behind it waits for its end", multiBeforeSingle},
		{"a recv can be submitted again from its last completion", multiAgain},
		{"a recv hears nothing of the other direction", multiSendMeanwhile},
	}), over("multishot", only(streams, "tcp4", "tcp6", "blocking tcp4"), []pairTest{
		{"a reset ends a recv after the bytes before it", multiReset},
	}), single("multishot", []test{
		{name: "two hundred receives share the buffers", fn: multiMany},
		{name: "a Receiver that cancels from inside gets no more", fn: multiCancelInside},
		{name: "a flooding connection does not starve another", fn: multiFair},
		{name: "a flooding connection does not starve a wake-up", fn: multiFairWake},
		{name: "borrowed data stays as it is until Complete returns", fn: multiBorrowed},
		{name: "a datagram is one completion", fn: multiDatagram},
		{name: "bytes are neither lost nor doubled by racing cancels", fn: multiRace},
	}), over("multishot", fillable, []pairTest{
		{"a recv takes what was there before, and the end", multiThere},
	}))
}

// collector checks what a recv into lent memory gets against the pattern.
type collector struct {
	pos   int64
	count int
}

// collect makes o check its data; then is called after each completion and may
// be nil.
func (d *driver) collect(o *op, c *collector, then func(r result)) *op {
	o.on = func(r result) {
		c.count++
		if !follows(r.Data, c.pos) {
			d.t.Errorf("%s: wrong bytes between %d and %d", o, c.pos, c.pos+int64(len(r.Data)))
		}
		c.pos += int64(len(r.Data))
		if then != nil {
			then(r)
		}
	}
	return o
}

// wantTotal turns until c has n bytes.
func (d *driver) wantTotal(c *collector, n int64) {
	d.t.Helper()
	d.until("all bytes", func() bool { return c.pos >= n || d.t.Failed() })
	if c.pos != n {
		d.t.Fatalf("%d bytes came, want %d", c.pos, n)
	}
}

func multiRecv(d *driver, a, b int) {
	var c collector
	o := d.submit(d.collect(d.multi(d.recv(a, 0)), &c, nil))
	d.pending(o)
	var fed int64
	for i := range 100 {
		k := 1 + i*37
		d.feed(b, bytesOf(k, fed))
		fed += int64(k)
		d.wantTotal(&c, fed)
	}
	d.pending(o)
	d.ok(unix.Shutdown(b, unix.SHUT_WR), "shutdown")
	d.wantN(o, 0)
	d.wantTotal(&c, fed)
}

func multiFlood(d *driver, a, b int) {
	const n = 16 << 20
	var c collector
	o := d.submit(d.collect(d.multi(d.recv(a, 0)), &c, nil))
	d.spawn("writing", func() error {
		if err := d.putPattern(b, n); err != nil {
			return err
		}
		return unix.Shutdown(b, unix.SHUT_WR)
	})
	d.wantN(o, 0)
	d.wantTotal(&c, n)
}

func multiThere(d *driver, a, b int) {
	fed := int64(d.fill(b))
	d.ok(unix.Shutdown(b, unix.SHUT_WR), "shutdown")
	var c collector
	d.wantN(d.submit(d.collect(d.multi(d.recv(a, 0)), &c, nil)), 0)
	d.wantTotal(&c, fed)
	d.wantN(d.submit(d.multi(d.recv(a, 0))), 0)
}

func multiCancel(d *driver, a, b int) {
	var c collector
	var fed int64
	for range 20 {
		o := d.submit(d.collect(d.multi(d.recv(a, 0)), &c, nil))
		d.feed(b, bytesOf(500, fed))
		fed += 500
		d.wantTotal(&c, fed)
		d.pending(o)
		d.feed(b, bytesOf(500, fed)) // may come before the cancel or stay
		fed += 500
		d.cancel(o)
		d.wantErr(o, unix.ECANCELED)
		for c.pos < fed {
			r := d.do(d.collect(d.recv(a, 0), &c, nil))
			if r.Errno != 0 || r.N == 0 {
				d.t.Fatalf("N %d, errno %v", r.N, r.Errno)
			}
		}
	}
}

func multiBehindSingle(d *driver, a, b int) {
	first := d.submit(d.recv(a, 4))
	multi := d.submit(d.multi(d.recv(a, 0)))
	d.pending(first, multi)
	d.feed(b, []byte("abcd"))
	d.wantBytes(first, []byte("abcd"))
	d.pending(multi)
	if len(multi.more) != 0 {
		d.t.Errorf("the multishot has %d completions", len(multi.more))
	}
	d.feed(b, []byte("efgh"))
	d.until("the rest", func() bool { return len(multi.more) > 0 })
	if got := string(multi.more[0].Data); got != "efgh" {
		d.t.Errorf("got %q", got)
	}
	d.cancel(multi)
	d.wantErr(multi, unix.ECANCELED)
}

func multiBeforeSingle(d *driver, a, b int) {
	multi := d.submit(d.multi(d.recv(a, 0)))
	single := d.submit(d.recv(a, 100))
	for i := range 10 {
		d.feed(b, []byte("abcd"))
		d.until("bytes", func() bool { return len(multi.more) > i })
	}
	d.pending(single)
	d.cancel(multi)
	d.wantErr(multi, unix.ECANCELED)
	d.feed(b, []byte("last"))
	d.wantBytes(single, []byte("last"))
}

func multiAgain(d *driver, a, b int) {
	var c collector
	var fed int64
	rounds := 0
	o := d.multi(d.recv(a, 0))
	d.collect(o, &c, func(r result) {
		if r.More {
			d.cancel(o)
			return
		}
		if rounds++; rounds < 50 {
			d.submit(o)
		}
	})
	d.submit(o)
	for rounds < 50 {
		d.feed(b, bytesOf(100, fed))
		fed += 100
		d.until("bytes", func() bool { return c.pos == fed || o.done })
		d.turn(0)
	}
	for c.pos < fed {
		d.wantN(d.submit(d.collect(d.recv(a, 0), &c, nil)), int(fed-c.pos))
	}
}

func multiSendMeanwhile(d *driver, a, b int) {
	var c collector
	o := d.submit(d.collect(d.multi(d.recv(a, 0)), &c, nil))
	for i := range 50 {
		d.wantN(d.submit(d.send(a, []byte("ping"))), 4)
		d.take(b, 4)
		d.feed(b, bytesOf(10, int64(i*10)))
		d.wantTotal(&c, int64(i*10+10))
	}
	d.cancel(o)
	d.wantErr(o, unix.ECANCELED)
}

func multiReset(d *driver, a, b int) {
	var c collector
	o := d.submit(d.collect(d.multi(d.recv(a, 0)), &c, nil))
	d.feed(b, bytesOf(100, 0))
	d.wantTotal(&c, 100)
	d.reset(b)
	d.wantErr(o, unix.ECONNRESET)
}

func multiMany(d *driver) {
	const size = 100 << 10
	n := d.budget(200)
	ops, cs := make([]*op, n), make([]collector, n)
	var peers []int
	for i := range ops {
		a, b := d.socketpair(unix.SOCK_STREAM)
		ops[i] = d.submit(d.collect(d.multi(d.recv(a, 0)), &cs[i], nil))
		peers = append(peers, b)
	}
	d.spawn("writing to all", func() error {
		for pos := int64(0); pos < size; pos += size / 10 {
			for _, b := range peers {
				if err := d.put(b, bytesOf(size/10, pos)); err != nil {
					return err
				}
			}
		}
		for _, b := range peers {
			if err := unix.Shutdown(b, unix.SHUT_WR); err != nil {
				return err
			}
		}
		return nil
	})
	for i, o := range ops {
		d.wantN(o, 0)
		if cs[i].pos != size {
			d.t.Errorf("connection %d got %d bytes, want %d", i, cs[i].pos, size)
		}
	}
}

func multiCancelInside(d *driver) {
	for range 50 {
		a, b := d.socketpair(unix.SOCK_STREAM)
		fed := d.fill(b)
		var c collector
		o := d.multi(d.recv(a, 0))
		d.collect(o, &c, func(r result) {
			if r.More {
				d.cancel(o)
			}
		})
		d.submit(o)
		r := d.outcome(o)
		if r.Errno != 0 && r.Errno != unix.ECANCELED {
			d.t.Fatalf("errno %v", r.Errno)
		}
		if rest := fed - int(c.pos); rest > 0 && !follows(d.take(a, rest), c.pos) {
			d.t.Fatal("the rest is wrong")
		}
		d.closeFD(a)
		d.closeFD(b)
	}
}

// flood keeps fd full until the returned function is called.
func (d *driver) flood(fd int) (end func()) {
	stop := make(chan struct{})
	p := d.spawn("flooding", func() error {
		buf := make([]byte, 64<<10)
		for !d.stop.Load() {
			select {
			case <-stop:
				return nil
			default:
			}
			if _, err := unix.Write(fd, buf); err != nil && err != unix.EAGAIN && err != unix.EINTR {
				return err
			}
		}
		return nil
	})
	return func() {
		close(stop)
		<-p.done
	}
}

// fairTurns is the number of turns after which a completion of a quiet
// connection must have come in spite of a flooding one. A backend that starves
// it would need as many as the flood lasts, or never leave the first.
const fairTurns = 50

func multiFair(d *driver) {
	loud, loudPeer := d.tcp(inet4)
	quiet, quietPeer := d.tcp(inet4)
	flood := d.multi(d.recv(loud, 0))
	flood.on = func(result) { flood.more = flood.more[:0] }
	d.submit(flood)
	end := d.flood(loudPeer)
	d.until("the flood", func() bool { return flood.seq > 100 })
	echo := d.multi(d.recv(quiet, 0))
	echoed := 0
	echo.on = func(r result) { echoed += r.N }
	d.submit(echo)
	for i := range 200 {
		d.feed(quietPeer, []byte("x"))
		for turns := 0; echoed == i; turns++ {
			if turns > fairTurns {
				d.t.Fatalf("byte %d has not come after %d turns", i, turns)
			}
			d.turn(safety)
		}
	}
	end()
	for _, o := range []*op{flood, echo} {
		d.cancel(o)
		d.wantErr(o, unix.ECANCELED)
	}
}

func multiFairWake(d *driver) {
	loud, loudPeer := d.socketpair(unix.SOCK_STREAM)
	flood := d.multi(d.recv(loud, 0))
	flood.on = func(result) { flood.more = flood.more[:0] }
	d.submit(flood)
	end := d.flood(loudPeer)
	// Every call has to return, although there is always more.
	for range 1000 {
		d.be.Wake()
		d.turn(safety)
	}
	end()
	d.cancel(flood)
	d.wantErr(flood, unix.ECANCELED)
}

// multiBorrowed submits and cancels a lot while it holds data.
func multiBorrowed(d *driver) {
	a, b := d.socketpair(unix.SOCK_STREAM)
	x, y := d.socketpair(unix.SOCK_STREAM)
	const n = 1 << 20
	var c collector
	o := d.multi(d.recv(a, 0))
	spoil := d.send(x, make([]byte, 100))
	other := d.submit(d.multi(d.recv(y, 0)))
	other.on = func(result) { other.more = other.more[:0] }
	d.collect(o, &c, func(r result) {
		if !spoil.flying {
			d.submit(spoil)
		}
		nop := d.submit(d.op(backend.OpNop, -1))
		d.cancel(nop)
		d.be.Wake()
		if !follows(r.Data, c.pos-int64(len(r.Data))) {
			d.t.Errorf("the data at %d changed during Complete", c.pos)
		}
	})
	d.submit(o)
	d.spawn("writing", func() error { return d.putPattern(b, n) })
	d.wantTotal(&c, n)
	d.cancel(o)
	d.cancel(other)
	d.wantErr(o, unix.ECANCELED)
	d.wantErr(other, unix.ECANCELED)
	d.until("the others", func() bool { return d.flying == 0 })
}

func multiDatagram(d *driver) {
	a, b := d.socketpair(unix.SOCK_DGRAM)
	o := d.submit(d.multi(d.recv(a, 0)))
	for i := range 100 {
		d.feed(b, bytesOf(1+i, int64(i)))
		d.until("datagram", func() bool { return len(o.more) == i+1 || o.done })
		if o.done || len(o.more[i].Data) != 1+i || !follows(o.more[i].Data, int64(i)) {
			d.t.Fatalf("datagram %d came wrong, or the recv has ended: %+v", i, o.last)
		}
	}
	d.cancel(o)
	d.wantErr(o, unix.ECANCELED)
}

func multiRace(d *driver) {
	const n = 4 << 20
	a, b := d.tcp(inet4)
	d.spawn("writing", func() error { return d.putPattern(b, n) })
	var c collector
	for round := 0; c.pos < n && !d.t.Failed(); round++ {
		o := d.submit(d.collect(d.multi(d.recv(a, 0)), &c, nil))
		for range round % 4 {
			d.turn(0)
		}
		d.cancel(o)
		d.wantErr(o, unix.ECANCELED)
	}
}
