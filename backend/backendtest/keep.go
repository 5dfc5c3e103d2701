package backendtest

import (
	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
)

func keepTests() []test {
	return append(over("keep", streams, []pairTest{
		{"a recv passes from large to small amounts and back", multiTides},
		{"kept memory stays as it is until it is given back", keepLent},
		{"kept memory of single messages stays as it is until it is given back", keepMessages},
		{"no more memory is taken back than was kept", keepOnce},
	}), single("keep", []test{
		{name: "nothing is lost by cancels between large and small amounts", fn: multiTidesRace},
		{name: "memory of others is not taken back", fn: keepForeign},
	})...)
}

// Sizes that make a backend receive in different ways.
const (
	tideHigh = 2 << 20
	tideLow  = 100
)

// multiTides lets one recv get much at once and little at a time by turns.
func multiTides(d *driver, a, b int) {
	var c collector
	o := d.submit(d.collect(d.multi(d.recv(a, 0)), &c, nil))
	var fed int64
	for range 3 {
		from := fed
		d.spawn("writing", func() error { return d.putPatternFrom(b, from, from+tideHigh) })
		fed += tideHigh
		d.wantTotal(&c, fed)
		for range 40 {
			d.feed(b, bytesOf(tideLow, fed))
			fed += tideLow
			d.wantTotal(&c, fed)
		}
	}
	d.pending(o)
	d.ok(unix.Shutdown(b, unix.SHUT_WR), "shutdown")
	d.wantN(o, 0)
	d.wantTotal(&c, fed)
}

// multiTidesRace cancels one recv at all moments of that.
func multiTidesRace(d *driver) {
	a, b := d.tcp(inet4)
	d.spawn("writing", func() error { return d.putPattern(b, 4*tideHigh) })
	var c collector
	o := d.multi(d.recv(a, 0))
	for round := 0; c.pos < 4*tideHigh && !d.t.Failed(); round++ {
		left := round % 7
		d.collect(o, &c, func(r result) {
			if left--; left == 0 && r.More {
				d.cancel(o)
			}
		})
		d.submit(o)
		for range round % 3 {
			d.turn(0)
		}
		if left > 0 {
			d.until("some completions", func() bool { return left <= 0 || c.pos == 4*tideHigh })
		}
		d.cancel(o)
		d.wantErr(o, unix.ECANCELED)
		o.more = o.more[:0]
	}
}

// loan is memory that is kept.
type loan struct {
	mem, data []byte
	pos       int64
}

// end checks that the memory is as it was, and gives it back.
func (l loan) end(d *driver) {
	if !follows(l.data, l.pos) {
		d.t.Errorf("what was kept from %d on has changed", l.pos)
	}
	if !d.be.GiveBack(l.mem) {
		d.t.Errorf("what was kept from %d on is not taken back", l.pos)
	}
}

// keeping receives, keeps what it can, and lets send send total bytes.
func keeping(d *driver, a int, total int64, send func(c *collector)) {
	var loans []loan
	var c collector
	o := d.multi(d.recv(a, 0))
	d.collect(o, &c, func(r result) {
		if mem := d.be.Keep(r.Data); mem != nil {
			loans = append(loans, loan{mem, r.Data, c.pos - int64(len(r.Data))})
		}
		if len(loans) == 20 {
			for _, l := range loans {
				l.end(d)
			}
			loans = loans[:0]
		}
	})
	d.submit(o)
	send(&c)
	d.wantTotal(&c, total)
	for _, l := range loans {
		l.end(d)
	}
	d.cancel(o)
	d.wantErr(o, unix.ECANCELED)
}

// keepLent keeps the memory of a few completions while others arrive.
func keepLent(d *driver, a, b int) {
	keeping(d, a, 4*tideHigh, func(*collector) {
		d.spawn("writing", func() error { return d.putPattern(b, 4*tideHigh) })
	})
}

// keepMessages does the same with messages of which each is received alone.
func keepMessages(d *driver, a, b int) {
	const size, count = 12 << 10, 200
	keeping(d, a, size*count, func(c *collector) {
		for i := range int64(count) {
			d.feed(b, bytesOf(size, i*size))
			d.wantTotal(c, (i+1)*size)
		}
	})
}

// keepOnce gives memory back that could be the backend's by its size.
func keepOnce(d *driver, a, b int) {
	sizes := make(map[int]bool)
	var c collector
	o := d.multi(d.recv(a, 0))
	d.collect(o, &c, func(r result) {
		if mem := d.be.Keep(r.Data); mem != nil {
			sizes[len(mem)] = true
			if !d.be.GiveBack(mem) {
				d.t.Errorf("%d bytes that were kept are not taken back", len(mem))
			}
		}
	})
	d.submit(o)
	d.spawn("writing", func() error { return d.putPattern(b, tideHigh) })
	d.wantTotal(&c, tideHigh)
	for size := range sizes {
		if d.be.GiveBack(make([]byte, size)) {
			d.t.Errorf("%d bytes that are somebody else's are taken back", size)
		}
	}
	d.cancel(o)
	d.wantErr(o, unix.ECANCELED)
}

func keepForeign(d *driver) {
	if d.be.GiveBack(make([]byte, 7)) {
		d.t.Error("memory that Keep has not returned is taken back")
	}
	if mem := d.be.Keep(make([]byte, 7)); mem != nil {
		d.t.Error("memory that is not the backend's can be kept")
	}
	d.do(d.op(backend.OpNop, -1))
}
