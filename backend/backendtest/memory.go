package backendtest

import (
	"runtime"
	"testing"

	"github.com/seed-80cfe818/ringloop/backend"
	"golang.org/x/sys/unix"
)

func memoryTests() []test {
	return single("memory", []test{
		{name: "buffers that only the backend knows survive the collector", fn: memoryPressure},
		{name: "operations that only the backend knows survive the collector", fn: memoryForgotten},
		{name: "addresses and pieces that only the backend knows survive the collector", fn: memoryMessages},
		{name: "cancelled operations keep their buffers until they end", fn: memoryCancelled},
		{name: "submitting does not allocate", fn: memoryNoAlloc},
		{name: "multishot recv does not allocate", fn: memoryNoAllocMulti},
	})
}

// pressure makes garbage and collects it on another goroutine until the
// returned function is called.
func (d *driver) pressure() (end func()) {
	stop := make(chan struct{})
	p := d.spawn("making garbage", func() error {
		var keep [64][]byte
		for i := 0; ; i++ {
			select {
			case <-stop:
				runtime.KeepAlive(keep)
				return nil
			default:
			}
			garbage := make([]byte, 64+i%8192)
			for j := range garbage {
				garbage[j] = 0xaa
			}
			keep[i%len(keep)] = garbage
			if i%200 == 0 {
				runtime.GC()
			}
		}
	})
	return func() {
		close(stop)
		<-p.done
	}
}

func memoryPressure(d *driver) {
	end := d.pressure()
	defer end()
	const rounds, width = 30, 50
	var as, bs [width]int
	for i := range width {
		as[i], bs[i] = d.socketpair(unix.SOCK_STREAM)
	}
	for round := range rounds {
		var recvs, sends [width]*op
		for i := range width {
			recvs[i] = d.submit(d.recv(as[i], 1000+i))
		}
		d.turn(0)
		for i := range width {
			sends[i] = d.submit(d.whole(d.send(bs[i], bytesOf(1000+i, int64(round*i)))))
		}
		for i := range width {
			d.wantBytes(recvs[i], bytesOf(1000+i, int64(round*i)))
			d.wantN(sends[i], 1000+i)
		}
	}
}

// memoryForgotten keeps no reference to its operations.
func memoryForgotten(d *driver) {
	end := d.pressure()
	defer end()
	const n = 2000
	a, b := d.socketpair(unix.SOCK_STREAM)
	x, y := d.socketpair(unix.SOCK_STREAM)
	var pos int64
	for range n {
		forgetRecv(d, a, &pos)
	}
	d.settle()
	d.spawn("writing", func() error { return d.putPattern(b, 16*n) })
	d.until("all receives", func() bool { return d.flying == 0 || d.t.Failed() })
	if pos != 16*n {
		d.t.Errorf("%d bytes came, want %d", pos, 16*n)
	}
	for i := range n {
		o := d.whole(d.send(x, bytesOf(16<<10, int64(i)*16<<10)))
		o.on = func(r result) {
			if r.Errno != 0 || r.N != 16<<10 {
				d.t.Errorf("send: N %d, errno %v", r.N, r.Errno)
			}
		}
		d.submit(o)
	}
	d.settle()
	runtime.GC()
	reading := d.spawn("reading", func() error { return d.getPattern(y, n*16<<10) })
	d.until("all sends", func() bool { return d.flying == 0 && reading.ended() })
}

func forgetRecv(d *driver, a int, pos *int64) {
	o := d.recv(a, 16)
	o.on = func(r result) {
		if r.Errno != 0 || r.N == 0 || !follows(o.Buf[:r.N], *pos) {
			d.t.Errorf("at %d: N %d, errno %v, or wrong bytes", *pos, r.N, r.Errno)
		}
		*pos += int64(r.N)
	}
	d.submit(o)
}

func memoryMessages(d *driver) {
	end := d.pressure()
	defer end()
	a, b := d.bound(inet4, unix.SOCK_DGRAM), d.bound(inet4, unix.SOCK_DGRAM)
	to, from := d.addr(b), d.addr(a)
	got := 0
	for i := range 1000 {
		recv := d.recvmsg(b, 100)
		recv.on = func(r result) {
			if r.Errno != 0 || r.N != 30 || !follows(recv.Buf[:r.N], int64(i)) || recv.Ext.Addr != from {
				d.t.Errorf("message %d: N %d, errno %v, or wrong bytes or address", i, r.N, r.Errno)
			}
			got++
		}
		d.submit(recv)
		d.turn(0)
		msg := d.sendmsg(a, bytesOf(10, int64(i)), nil, bytesOf(20, int64(i+10)))
		msg.Ext.Addr = to
		d.submit(msg)
		d.until("the message", func() bool { return d.flying == 0 || d.t.Failed() })
	}
	if got != 1000 {
		d.t.Errorf("%d messages came", got)
	}
}

// memoryCancelled lets cancelled receives race with bytes, while fresh memory
// of the same size is handed out: a write after the end would be seen there.
func memoryCancelled(d *driver) {
	const size = 512
	a, b := d.tcp(inet4)
	var live [][]byte
	check := func() {
		for _, p := range live {
			for _, c := range p {
				if c != 0x55 {
					d.t.Fatal("memory was written after the operation had ended")
				}
			}
		}
		live = live[:0]
	}
	for i := range 3000 {
		recv := d.submit(d.recv(a, size))
		if i%2 == 0 {
			d.turn(0)
		}
		d.cancel(recv)
		d.feed(b, bytesOf(size, 0))
		d.outcome(recv)
		for n := recv.last.N; n < size; {
			n += len(d.take(a, size-n))
		}
		for j := range recv.Buf {
			recv.Buf[j] = 0x55
		}
		live = append(live, recv.Buf)
		if i%100 == 99 {
			d.settle()
			check()
		}
	}
	check()
}

// quiet is a Receiver that records nothing, so that what is measured is the
// backend.
type quiet struct {
	count int
	bytes int
}

func (q *quiet) Complete(_ *backend.Op, r backend.Result) {
	q.count++
	q.bytes += r.N
}

// allocs turns the backend in steps and returns the allocations of one.
func (d *driver) allocs(step func()) float64 {
	for range 100 {
		step()
	}
	return testing.AllocsPerRun(500, step)
}

func memoryNoAlloc(d *driver) {
	a, b := d.socketpair(unix.SOCK_STREAM)
	q := new(quiet)
	buf, msg := make([]byte, 64), make([]byte, 64)
	recv := &backend.Op{Receiver: q, Code: backend.OpRecv, FD: int32(a), Buf: buf}
	send := &backend.Op{Receiver: q, Code: backend.OpSend, FD: int32(b), Buf: msg}
	poll := &backend.Op{Receiver: q, Code: backend.OpPoll, FD: int32(a), Arg: unix.POLLIN}
	failed := 0
	n := d.allocs(func() {
		for _, o := range [...]*backend.Op{recv, poll, send} {
			if err := d.be.Submit(o); err != nil {
				failed++
			}
		}
		for recv.InFlight() || send.InFlight() {
			if err := d.be.Wait(safety); err != nil {
				failed++
				return
			}
			d.be.Dispatch()
		}
		// The recv may have taken the bytes before the poll saw them.
		d.be.Cancel(poll)
		for poll.InFlight() {
			if err := d.be.Wait(safety); err != nil {
				failed++
				return
			}
			d.be.Dispatch()
		}
	})
	if n != 0 || failed != 0 {
		d.t.Errorf("%v allocations in a turn of recv, poll and send, %d errors", n, failed)
	}
}

func memoryNoAllocMulti(d *driver) {
	a, b := d.socketpair(unix.SOCK_STREAM)
	q := new(quiet)
	msg := make([]byte, 64)
	recv := &backend.Op{Receiver: q, Code: backend.OpRecv, FD: int32(a), Flags: backend.Multishot}
	if err := d.be.Submit(recv); err != nil {
		d.t.Fatal(err)
	}
	failed := 0
	n := d.allocs(func() {
		want := q.bytes + len(msg)
		if _, err := unix.Write(b, msg); err != nil {
			failed++
		}
		for q.bytes < want {
			if err := d.be.Wait(safety); err != nil {
				failed++
				return
			}
			d.be.Dispatch()
		}
	})
	if n != 0 || failed != 0 {
		d.t.Errorf("%v allocations for a completion, %d errors", n, failed)
	}
	d.be.Cancel(recv)
	d.until("the end", func() bool { return !recv.InFlight() })
}
