package backendtest

import (
	"bytes"
	"errors"
	"sync"

	"github.com/seed-80cfe818/ringloop/backend"
	"golang.org/x/sys/unix"
)

func lifecycleTests() []test {
	return single("lifecycle", []test{
		{name: "Close without Enable is harmless", raw: true, fn: func(d *driver) { d.close() }},
		{name: "Close without Enable works on another thread", raw: true, fn: closeElsewhere},
		{name: "Enable and Close at once is harmless", fn: func(d *driver) { d.close() }},
		{name: "the features belong to the backend of that name", fn: featuresAreConsistent},
		{name: "the features can be read from any goroutine", fn: featuresFromAnyGoroutine},
		{name: "a closed backend refuses everything and Wake does nothing", fn: closedRefuses},
		{name: "Wake during Close is harmless", fn: wakeDuringClose},
		{name: "Close ends a multitude of operations of every kind", fn: closeEndsEverything},
		{name: "Close ends what was submitted but never waited for", fn: closeEndsUnwaited},
		{name: "Close delivers what had come but was not dispatched", fn: closeDeliversDone},
		{name: "Close finishes the closing of descriptors", fn: closeFinishesOpClose},
		{name: "a Receiver closes the backend", fn: closeInside},
		{name: "data lent to a Receiver that closes stays as it is", fn: closeBorrowing},
		{name: "what comes while a Receiver closes does not change its data", fn: closeInsideData},
		{name: "a Receiver cannot submit while the backend closes", fn: noSubmitDuringClose},
		{name: "Close leaves the descriptors of its user open", fn: closeLeavesFDs},
		{name: "fifty backends in turn leave nothing behind", fn: manyInTurn},
		{name: "two backends in one process do not disturb each other", fn: twoBackends},
		{name: "Dispatch without Wait delivers nothing", fn: dispatchWithoutWait},
		{name: "a nop completes with 0", fn: func(d *driver) { d.wantN(d.submit(d.op(backend.OpNop, -1)), 0) }},
		{name: "an operation can be submitted again after its completion", fn: submitAgain},
	})
}

func closeElsewhere(d *driver) {
	p := d.spawn("Close on another thread", func() error {
		d.close()
		return nil
	})
	<-p.done
}

func featuresAreConsistent(d *driver) {
	fs := d.be.Features()
	if d.be.Name() == "" || fs.Backend != d.be.Name() {
		d.t.Errorf("Name is %q, Features.Backend %q", d.be.Name(), fs.Backend)
	}
	again := d.be.Features()
	seen := make(map[string]bool)
	for i, f := range fs.List {
		switch {
		case f.Name == "" || seen[f.Name]:
			d.t.Errorf("feature %d has the name %q", i, f.Name)
		case f.Since == "":
			d.t.Errorf("%s: no kernel version", f.Name)
		case f.InUse == (f.Reason != nil):
			d.t.Errorf("%s: InUse %v, but Reason %v", f.Name, f.InUse, f.Reason)
		case !f.InUse && f.Instead == "":
			d.t.Errorf("%s: nothing is done instead", f.Name)
		case again.List[i].Name != f.Name || again.List[i].InUse != f.InUse:
			d.t.Errorf("%s became %s", f, again.List[i])
		}
		seen[f.Name] = true
	}
}

func featuresFromAnyGoroutine(d *driver) {
	want := d.be.Features().String()
	for range 4 {
		d.spawn("reading the features", func() error {
			for range 100 {
				if d.be.Features().String() != want {
					return errors.New("the features changed")
				}
			}
			return nil
		})
	}
	for range 100 {
		d.do(d.op(backend.OpNop, -1))
	}
	d.join()
}

func closedRefuses(d *driver) {
	a, b := d.socketpair(unix.SOCK_STREAM)
	d.feed(b, []byte("x"))
	ended := d.submit(d.op(backend.OpNop, -1))
	d.wantN(ended, 0)
	d.close()
	for code := range backend.NumCodes {
		o := d.operands(backend.Code(code), a)
		d.refuse(o, backend.ErrClosed)
		if r, ok := d.try(o); ok {
			d.t.Errorf("Try of %s on a closed backend: %+v", o, r)
		}
	}
	d.cancel(ended)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 100 {
				d.be.Wake()
			}
		})
	}
	wg.Wait()
	if got := d.take(a, 1); got[0] != 'x' {
		d.t.Errorf("the byte became %q", got)
	}
}

// operands returns an operation with operands that fit its code.
func (d *driver) operands(code backend.Code, fd int) *op {
	o := d.op(code, fd)
	o.Buf = make([]byte, 8)
	o.Ext = new(backend.Ext)
	switch code {
	case backend.OpConnect:
		d.ok(o.Ext.Addr.SetUnix("/nowhere"), "making the address")
	case backend.OpPoll:
		o.Arg = unix.POLLIN
	case backend.OpSendfile:
		o.FD2, o.Off, o.Len = int32(fd), 0, 1
	case backend.OpShutdown:
		o.Arg = unix.SHUT_RDWR
	}
	return o
}

func wakeDuringClose(d *driver) {
	var wg sync.WaitGroup
	started := make(chan struct{}, 4)
	for range 4 {
		wg.Go(func() {
			started <- struct{}{}
			for range 5000 {
				d.be.Wake()
			}
		})
	}
	<-started
	d.close()
	wg.Wait()
	// Whoever opens a descriptor now gets a number that the backend had.
	e := d.eventfd()
	d.be.Wake()
	if _, err := unix.Read(e, make([]byte, 8)); err != unix.EAGAIN {
		d.t.Errorf("Wake after Close wrote to a descriptor that belongs to someone else: %v", err)
	}
}

// everyKind submits operations of every kind that wait for something that does
// not come, n of each, and returns them.
func (d *driver) everyKind(n int) []*op {
	d.t.Helper()
	l := d.listener(inet4, 1)
	a, _ := d.tcp(inet4)
	full, _ := d.socketpair(unix.SOCK_STREAM)
	d.fill(full)
	r, _ := d.pipe()
	_, w := d.pipe()
	d.fill(w)
	multi, _ := d.tcp(inet4)
	dgram, _ := d.socketpair(unix.SOCK_DGRAM)
	file := d.file(bytesOf(100, 0))
	var ops []*op
	for range n {
		sendfile := d.sendfile(full, file, 0, 100)
		send := d.send(full, bytesOf(100, 0))
		sendmsg := d.sendmsg(full, bytesOf(100, 0), bytesOf(10, 0))
		ops = append(ops,
			d.accept(l), d.recv(a, 10), d.recv(a, 0), d.recvmsg(dgram, 10),
			send, sendmsg, sendfile,
			d.read(r, 10), d.write(w, bytesOf(100, 0)),
			d.poll(a, unix.POLLIN), d.poll(r, unix.POLLIN),
			d.multi(d.poll(multi, unix.POLLIN)), d.multi(d.recv(multi, 0)),
		)
	}
	for _, o := range ops {
		d.submit(o)
	}
	return ops
}

func closeEndsEverything(d *driver) {
	ops := d.everyKind(200)
	d.pending(ops...)
	d.close()
	for _, o := range ops {
		if !o.done || o.last.Errno != unix.ECANCELED {
			d.t.Errorf("%s: done %v, errno %v; want ECANCELED", o, o.done, o.last.Errno)
		}
	}
}

func closeEndsUnwaited(d *driver) {
	ops := d.everyKind(20)
	d.close()
	for _, o := range ops {
		if !o.done {
			d.t.Errorf("%s: no terminal completion", o)
		}
	}
}

func closeDeliversDone(d *driver) {
	a, b := d.socketpair(unix.SOCK_STREAM)
	recv := d.submit(d.recv(a, 10))
	d.feed(b, []byte("hello"))
	d.wait(safety)
	d.close()
	if !recv.done || recv.last.N != 5 || string(recv.bytes()) != "hello" {
		d.t.Errorf("%s: done %v, %+v; want the bytes that had come", recv, recv.done, recv.last)
	}
}

// closeInside closes in the first of several completions, when nothing else is
// in flight and when more is.
func closeInside(d *driver) {
	for _, n := range []int{1, 3} {
		var recvs []*op
		for range n {
			a, b := d.socketpair(unix.SOCK_STREAM)
			o := d.recv(a, 0)
			o.on = func(r result) {
				if string(r.Data) != "hello" && r.Errno != unix.ECANCELED {
					d.t.Errorf("%s: %q, errno %v", o, r.Data, r.Errno)
				}
				if !d.closed {
					d.close()
				}
			}
			recvs = append(recvs, d.submit(o))
			d.feed(b, []byte("hello"))
		}
		d.until("the backend is closed", func() bool { return d.closed })
		for _, o := range recvs {
			if !o.done {
				d.t.Errorf("%s has not ended", o)
			}
		}
		d.be, d.closed = d.make(), false
		d.enable()
	}
}

// closeBorrowing closes while another receive, submitted just before, finds data
// as well.
func closeBorrowing(d *driver) {
	for _, more := range []func(*op) *op{func(o *op) *op { return o }, d.multi} {
		d.close()
		d.be, d.closed = d.make(), false
		d.enable()
		x, y := d.socketpair(unix.SOCK_STREAM)
		d.feed(y, []byte("spoil"))
		a, b := d.socketpair(unix.SOCK_STREAM)
		d.feed(b, []byte("hello"))
		recv := more(d.recv(a, 0))
		recv.on = func(r result) {
			if d.closed {
				return
			}
			d.submit(more(d.recv(x, 0)))
			d.close()
			if string(r.Data) != "hello" {
				d.t.Errorf("the data became %q", r.Data)
			}
		}
		d.submit(recv)
		d.until("the backend is closed", func() bool { return d.closed })
	}
}

// closeInsideData closes after a few completions, in every size that makes a
// backend receive in another way, when more has come for all connections.
func closeInsideData(d *driver) {
	for _, size := range [...]int{10, 100 << 10} {
		for _, after := range [...]int{1, 2, 20} {
			count := 0
			var peers []int
			more := func() {
				for i, b := range peers {
					_, _ = unix.Write(b, bytes.Repeat([]byte{byte(5*count + i)}, size)) // as much as there is room for
				}
			}
			for range 4 {
				a, b := d.socketpair(unix.SOCK_STREAM)
				peers = append(peers, b)
				o := d.multi(d.recv(a, 0))
				o.on = func(r result) {
					if count++; d.closed || r.N == 0 {
						return
					}
					before := bytes.Clone(r.Data)
					if more(); count < after {
						return
					}
					d.close()
					if !bytes.Equal(r.Data, before) {
						d.t.Errorf("of %d bytes in completion %d, some changed while it closed the backend", len(before), count)
					}
				}
				d.submit(o)
			}
			d.turn(0)
			more()
			d.until("the backend is closed", func() bool { return d.closed })
			d.be, d.closed = d.make(), false
			d.enable()
		}
	}
}

func closeFinishesOpClose(d *driver) {
	a, b := d.socketpair(unix.SOCK_STREAM)
	recv := d.submit(d.recv(a, 10))
	d.pending(recv)
	c := d.submit(d.closeOp(a))
	d.disown(a)
	d.close()
	if !c.done || c.last.Errno != 0 {
		d.t.Errorf("%s: done %v, errno %v", c, c.done, c.last.Errno)
	}
	if c.seq < recv.seq {
		d.t.Error("the close completed before the recv")
	}
	if isOpen(a) {
		d.t.Errorf("fd %d is still open", a)
	}
	d.atEnd(b)
}

func noSubmitDuringClose(d *driver) {
	a, _ := d.socketpair(unix.SOCK_STREAM)
	recv := d.recv(a, 10)
	recv.on = func(backend.Result) { d.refuse(recv, backend.ErrClosed) }
	d.submit(recv)
	d.pending(recv)
	d.close()
	if !recv.done {
		d.t.Error("the recv has no terminal completion")
	}
}

func closeLeavesFDs(d *driver) {
	a, b := d.socketpair(unix.SOCK_STREAM)
	recv := d.submit(d.recv(a, 10))
	poll := d.submit(d.poll(a, unix.POLLIN))
	d.pending(recv, poll)
	d.close()
	d.feed(b, []byte("still here"))
	if got := string(d.take(a, 10)); got != "still here" {
		d.t.Errorf("got %q", got)
	}
}

func manyInTurn(d *driver) {
	d.close()
	for range 50 {
		d.be, d.closed = d.make(), false
		d.enable()
		a, b := d.socketpair(unix.SOCK_STREAM)
		recv := d.submit(d.recv(a, 10))
		done := d.submit(d.recv(b, 10))
		d.feed(a, []byte("x"))
		d.wantN(done, 1)
		d.close()
		if recv.last.Errno != unix.ECANCELED {
			d.t.Errorf("the waiting recv ended with %v", recv.last.Errno)
		}
		d.closeFD(a)
		d.closeFD(b)
	}
}

func twoBackends(d *driver) {
	other := d.make()
	if err := other.Enable(); err != nil {
		d.t.Fatalf("Enable of a second backend on the thread: %v", err)
	}
	a, b := d.socketpair(unix.SOCK_STREAM)
	first := d.submit(d.recv(a, 10))
	second := &driver{t: d.t, be: other, where: outside, closes: make(map[int32]bool)}
	for i := range 100 {
		msg := bytesOf(8, int64(i))
		second.wantN(second.submit(second.send(b, msg)), len(msg))
		d.wantBytes(first, msg)
		d.submit(first)
	}
	second.close()
	d.pending(first)
	d.feed(b, []byte("end"))
	d.wantBytes(first, []byte("end"))
}

func dispatchWithoutWait(d *driver) {
	d.dispatch()
	d.dispatch()
	d.do(d.op(backend.OpNop, -1))
	seq := d.seq
	d.dispatch()
	if d.seq != seq {
		d.t.Errorf("%d completions came twice", d.seq-seq)
	}
}

func submitAgain(d *driver) {
	o := d.op(backend.OpNop, -1)
	for range 1000 {
		d.wantN(d.submit(o), 0)
	}
}
