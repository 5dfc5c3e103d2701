package backendtest

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/seed-80cfe818/ringloop/backend"
	"golang.org/x/sys/unix"
)

func stressTests() []test {
	var all []test
	seeds := []uint64{1, 2, 3}
	if testing.Short() {
		seeds = seeds[:1]
	}
	for _, seed := range seeds {
		all = append(all,
			test{name: fmt.Sprintf("stress/random operations and cancels on many connections are exact/seed %d", seed),
				fn: func(d *driver) { stress(d, seed, false) }},
			test{name: fmt.Sprintf("stress/the same among signals, wakes and collections/seed %d", seed),
				fn: func(d *driver) { stress(d, seed, true) }},
		)
	}
	return all
}

// flow is a connection on which the pattern is sent from a to b by random
// operations, of which some are cancelled.
type flow struct {
	d          *driver
	rng        *rand.Rand
	a, b, file int
	total      int64
	sent, got  int64
	send, recv *op
	ended      bool
	closed     int
}

// stressSize is the number of bytes of the file that flows send from.
const stressSize = 1 << 20

func stress(d *driver, seed uint64, disturbed bool) {
	rng := rand.New(rand.NewPCG(seed, seed))
	if disturbed {
		defer d.storm()()
		defer d.pressure()()
	}
	file := d.file(bytesOf(stressSize, 0))
	const width, connections = 16, 64
	var flows [width]*flow
	started, finished := 0, 0
	for finished < connections {
		for i, f := range flows {
			if f != nil && f.closed == 2 {
				finished++
				flows[i] = nil
			}
			if flows[i] == nil && started < connections {
				flows[i] = d.start(rng, file)
				started++
			}
		}
		if finished < connections {
			d.turn(safety)
		}
		if f := flows[rng.IntN(width)]; f != nil {
			f.disturb()
		}
		if d.t.Failed() {
			d.t.Fatalf("seed %d", seed)
		}
	}
	d.until("the last completions", func() bool { return d.flying == 0 })
}

func (d *driver) start(rng *rand.Rand, file int) *flow {
	f := &flow{d: d, rng: rng, file: file, total: int64(1 + rng.IntN(stressSize))}
	if rng.IntN(2) == 0 {
		f.a, f.b = d.tcp(inet4)
	} else {
		f.a, f.b = d.socketpair(unix.SOCK_STREAM)
	}
	f.nextSend()
	f.nextRecv()
	return f
}

// nextSend sends some of what is left, or ends the stream.
func (f *flow) nextSend() {
	d, left := f.d, int(f.total-f.sent)
	if left == 0 {
		f.send = nil
		d.submit(d.shutdown(f.a, unix.SHUT_WR))
		return
	}
	n := 1 + f.rng.IntN(min(left, 50000))
	var o *op
	switch f.rng.IntN(5) {
	case 0:
		o = d.send(f.a, bytesOf(n, f.sent))
	case 1:
		o = d.whole(d.send(f.a, bytesOf(n, f.sent)))
	case 2:
		o = d.whole(d.sendmsg(f.a, bytesOf(n/2, f.sent), bytesOf(n-n/2, f.sent+int64(n/2))))
	case 3:
		o = d.write(f.a, bytesOf(n, f.sent))
	default:
		o = d.sendfile(f.a, f.file, f.sent, n)
	}
	o.on = func(r result) {
		if r.Errno != 0 && r.Errno != unix.ECANCELED {
			d.t.Errorf("%s after %d bytes: %v", o, f.sent, r.Errno)
			return
		}
		f.sent += int64(r.N)
		f.nextSend()
	}
	f.send = d.submit(o)
}

// nextRecv receives some bytes, or sees the end and closes the connection.
func (f *flow) nextRecv() {
	d, n := f.d, 1+f.rng.IntN(40000)
	var o *op
	switch f.rng.IntN(5) {
	case 0:
		o = d.recv(f.b, n)
	case 1:
		o = d.recv(f.b, 0)
	case 2:
		o = d.recvmsg(f.b, n)
	case 3:
		o = d.read(f.b, n)
	default:
		o = d.multi(d.recv(f.b, 0))
	}
	o.on = func(r result) { f.received(o, r) }
	f.recv = d.submit(o)
}

func (f *flow) received(o *op, r result) {
	d := f.d
	got := r.Data
	if got == nil {
		got = o.Buf[:r.N]
	}
	if r.Errno != 0 && r.Errno != unix.ECANCELED || !follows(got, f.got) {
		d.t.Errorf("%s after %d bytes: errno %v, or wrong bytes", o, f.got, r.Errno)
		return
	}
	f.got += int64(len(got))
	switch {
	case r.More:
	case r.Errno == 0 && r.N == 0:
		if f.got != f.total {
			d.t.Errorf("%s: the stream ended after %d of %d bytes", o, f.got, f.total)
		}
		f.end()
	default:
		f.nextRecv()
	}
}

// end closes both sides with operations in flight.
func (f *flow) end() {
	d := f.d
	f.ended, f.recv = true, nil
	d.submit(d.recv(f.a, 10))
	d.submit(d.multi(d.poll(f.a, unix.POLLPRI)))
	for _, fd := range []int{f.a, f.b} {
		c := d.closeOp(fd)
		c.on = func(r result) {
			if r.Errno != 0 {
				d.t.Errorf("%s: %v", c, r.Errno)
			}
			f.closed++
		}
		d.disown(fd)
		d.submit(c)
	}
}

// disturb cancels what is in flight, or adds an operation of another kind.
func (f *flow) disturb() {
	d := f.d
	if f.ended {
		return
	}
	switch f.rng.IntN(5) {
	case 0:
		if f.send != nil {
			d.cancel(f.send)
		}
	case 1:
		d.cancel(f.recv)
	case 2:
		d.submit(d.poll(f.b, unix.POLLIN))
	case 3:
		d.submit(d.op(backend.OpNop, -1))
	case 4:
		d.be.Wake()
	}
}
