package backendtest

import (
	"slices"

	"golang.org/x/sys/unix"
)

func tryTests() []test {
	return slices.Concat(over("try", only(streams, "tcp4", "unix", "socketpair", "blocking tcp4"), []pairTest{
		{"a recv that would wait is left undone", tryWouldWait},
		{"a recv of what is there has the outcome of Submit", tryRecv},
		{"a send has the outcome of Submit", trySend},
		{"the end of the stream has the outcome of Submit", tryEnd},
		{"bytes are exact when tries and submits mix", tryMixed},
	}), single("try", []test{
		{name: "errors are those of Submit", fn: tryErrors},
		{name: "an accept has the outcome of Submit", fn: tryAccept},
		{name: "datagrams have the outcome of Submit", fn: tryDatagram},
		{name: "files have the outcome of Submit", fn: tryFile},
		{name: "a connect is finished or left undone", fn: tryConnect},
		{name: "every kind of operation stays idle when it is left undone", fn: tryEveryKind},
	}), over("try", fillable, []pairTest{
		{"a send to a full peer is left undone or says how much", tryFull},
		{"it keeps out of a queue of earlier operations", tryBehind},
	}))
}

// attempt tries o, and submits it if that did nothing. Either way it returns
// the outcome.
func (d *driver) attempt(o *op) result {
	d.t.Helper()
	r, ok := d.try(o)
	if !ok {
		return d.do(o)
	}
	if o.done || r.More {
		d.t.Errorf("Try of %s called the Receiver: %v, or has more: %v", o, o.done, r.More)
	}
	o.last = r
	o.last.Data = append([]byte(nil), r.Data...)
	return o.last
}

// fresh forgets the outcome of the last flight.
func (o *op) fresh() *op {
	o.done, o.last = false, result{}
	return o
}

func tryWouldWait(d *driver, a, b int) {
	for _, o := range []*op{d.recv(a, 10), d.recvmsg(a, 10), d.recv(a, 0), d.poll(a, unix.POLLIN), d.multi(d.recv(a, 0))} {
		if r, ok := d.try(o); ok {
			d.t.Errorf("Try of %s did something: %+v", o, r)
		}
	}
	d.feed(b, []byte("x"))
	d.wantN(d.submit(d.recv(a, 10)), 1)
}

func tryRecv(d *driver, a, b int) {
	for i := range 50 {
		msg := bytesOf(1+i, int64(i))
		d.feed(b, msg)
		o := d.recv(a, 100*(i%2))
		if r := d.attempt(o); r.Errno != 0 || string(o.bytes()) != string(msg) {
			d.t.Fatalf("%s: errno %v, %q; want %q", o, r.Errno, o.bytes(), msg)
		}
	}
	d.settle()
}

func trySend(d *driver, a, b int) {
	for i := range 50 {
		o := d.send(a, bytesOf(10, int64(i)))
		if i%2 == 1 {
			o = d.whole(d.sendmsg(a, bytesOf(4, int64(i)), bytesOf(6, int64(i)+4)))
		}
		if r := d.attempt(o); r.Errno != 0 || r.N != 10 {
			d.t.Fatalf("%s: N %d, errno %v", o, r.N, r.Errno)
		}
		if !follows(d.take(b, 10), int64(i)) {
			d.t.Fatal("wrong bytes")
		}
	}
}

func tryFull(d *driver, a, b int) {
	filled := int64(d.fill(a))
	if r, ok := d.try(d.send(a, []byte("x"))); ok {
		d.t.Fatalf("Try sent into a full connection: %+v", r)
	}
	if r, ok := d.try(d.whole(d.sendmsg(a, []byte("x")))); ok {
		d.t.Fatalf("Try sent into a full connection: %+v", r)
	}
	d.spawn("reading", func() error { return d.getPattern(b, filled) })
	d.join()
	// Of a large send a part may be done at once, which is then reported.
	const size = 16 << 20
	o := d.whole(d.send(a, bytesOf(size, 0)))
	if r, ok := d.try(o); ok {
		if r.Errno != 0 || r.N == 0 || r.N == size {
			d.t.Fatalf("N %d, errno %v; want a part", r.N, r.Errno)
		}
		o.Buf = o.Buf[r.N:]
	}
	d.submit(o)
	d.spawn("reading", func() error { return d.getPattern(b, size) })
	d.wantN(o, len(o.Buf))
	d.join()
	d.drained(a, b, 0)
}

func tryEnd(d *driver, a, b int) {
	d.closeFD(b)
	for range 3 {
		if r := d.attempt(d.recv(a, 10)); r.Errno != 0 || r.N != 0 {
			d.t.Errorf("N %d, errno %v", r.N, r.Errno)
		}
	}
}

func tryBehind(d *driver, a, b int) {
	d.fill(a)
	recv, send := d.submit(d.recv(a, 4)), d.submit(d.whole(d.send(a, []byte("x"))))
	d.pending(recv, send)
	d.feed(b, []byte("abcdefgh"))
	for _, o := range []*op{d.recv(a, 4), d.recv(a, 0), d.recvmsg(a, 4), d.read(a, 4), d.send(a, []byte("y")), d.sendmsg(a, []byte("y")), d.write(a, []byte("y"))} {
		if r, ok := d.try(o); ok {
			d.t.Errorf("Try of %s overtook the queue: %+v", o, r)
		}
	}
	d.wantBytes(recv, []byte("abcd"))
	next := d.recv(a, 4)
	if d.attempt(next); string(next.bytes()) != "efgh" {
		d.t.Errorf("then came %q", next.bytes())
	}
	d.cancel(send)
	d.outcome(send)
}

func tryMixed(d *driver, a, b int) {
	const n = 1 << 20
	d.spawn("writing", func() error { return d.putPattern(b, n) })
	for i, pos := 0, int64(0); pos < n; i++ {
		o := d.recv(a, 5000*(i%3))
		var r result
		if i%2 == 0 {
			r = d.attempt(o)
		} else {
			r = d.do(o)
		}
		if r.Errno != 0 || r.N == 0 || !follows(o.bytes(), pos) {
			d.t.Fatalf("after %d bytes: N %d, errno %v, or wrong bytes", pos, r.N, r.Errno)
		}
		pos += int64(r.N)
	}
}

func tryErrors(d *driver) {
	bad := d.badFD()
	r, w := d.pipe()
	file := d.file(bytesOf(10, 0))
	tcp := d.socket(unix.AF_INET, unix.SOCK_STREAM)
	gone, peer := d.socketpair(unix.SOCK_STREAM)
	d.closeFD(peer)
	for _, tc := range []struct {
		o     *op
		errno unix.Errno
	}{
		{d.recv(bad, 8), unix.EBADF}, {d.send(bad, []byte("x")), unix.EBADF}, {d.read(bad, 8), unix.EBADF},
		{d.readAt(bad, 8, 0), unix.EBADF}, {d.accept(bad), unix.EBADF}, {d.shutdown(bad, unix.SHUT_WR), unix.EBADF},
		{d.recv(file, 8), unix.ENOTSOCK}, {d.send(file, []byte("x")), unix.ENOTSOCK}, {d.recvmsg(r, 8), unix.ENOTSOCK},
		{d.sendmsg(w, []byte("x")), unix.ENOTSOCK}, {d.recv(tcp, 8), unix.ENOTCONN}, {d.accept(tcp), unix.EINVAL},
		{d.send(gone, []byte("x")), unix.EPIPE}, {d.whole(d.sendmsg(gone, []byte("x"))), unix.EPIPE},
		{d.write(r, []byte("x")), unix.EBADF}, {d.poll(file, unix.POLLIN), unix.EPERM},
	} {
		if got := d.attempt(tc.o); got.Errno != tc.errno || got.N != 0 {
			d.t.Errorf("%s: N %d, errno %v; want %v", tc.o, got.N, got.Errno, tc.errno)
		}
	}
}

func tryAccept(d *driver) {
	for _, k := range listenKinds() {
		if k.domain == unix.AF_INET6 {
			continue // not everywhere available
		}
		l := k.listen(d)
		if r, ok := d.try(d.accept(l)); ok {
			d.t.Errorf("Try accepted nothing: %+v", r)
		}
		c := d.connectTo(k, l)
		o := stale(d.accept(l))
		r := d.attempt(o)
		if r.Errno != 0 {
			d.t.Fatalf("%s: %v", o, r.Errno)
		}
		d.own(r.N)
		d.wantConnected(r.N, c)
		d.wantAddr(o, c)
		fl, err := unix.FcntlInt(uintptr(r.N), unix.F_GETFL, 0)
		d.ok(err, "F_GETFL")
		fdfl, err := unix.FcntlInt(uintptr(r.N), unix.F_GETFD, 0)
		d.ok(err, "F_GETFD")
		if fl&unix.O_NONBLOCK == 0 || fdfl&unix.FD_CLOEXEC == 0 {
			d.t.Errorf("%s: flags %#x and %#x", o, fl, fdfl)
		}
	}
}

func tryDatagram(d *driver) {
	a, b := d.bound(inet4, unix.SOCK_DGRAM), d.bound(inet4, unix.SOCK_DGRAM)
	if r, ok := d.try(d.recvmsg(a, 10)); ok {
		d.t.Errorf("Try received nothing: %+v", r)
	}
	d.sendTo(b, a, []byte("0123456789"))
	d.ok(d.ready(a, unix.POLLIN), "waiting for the datagram")
	o := stale(d.recvmsg(a, 4))
	if r := d.attempt(o); r.Errno != 0 || r.N != 4 || string(o.Buf) != "0123" {
		d.t.Errorf("N %d, errno %v, %q", r.N, r.Errno, o.Buf)
	}
	d.wantAddr(o, b)
	msg := d.sendmsg(a, nil)
	msg.Ext.Addr = d.addr(b)
	if r := d.attempt(msg); r.Errno != 0 || r.N != 0 {
		d.t.Errorf("an empty datagram: N %d, errno %v", r.N, r.Errno)
	}
	if n, err := d.get(b, make([]byte, 10)); n != 0 || err != nil {
		d.t.Errorf("the peer got %d bytes, %v", n, err)
	}
}

func tryFile(d *driver) {
	f := d.file(bytesOf(1000, 0))
	for i := range 20 {
		o := d.readAt(f, 100, int64(i*50))
		r := d.attempt(o)
		if want := min(100, 1000-i*50); r.Errno != 0 || r.N != want || !follows(o.bytes(), int64(i*50)) {
			d.t.Errorf("at %d: N %d, errno %v", i*50, r.N, r.Errno)
		}
	}
	for i := range 5 {
		o := d.read(f, 10)
		if r := d.attempt(o); r.Errno != 0 || r.N != 10 || !follows(o.bytes(), int64(i*10)) {
			d.t.Errorf("read %d: N %d, errno %v", i, r.N, r.Errno)
		}
	}
	if r := d.attempt(d.writeAt(f, []byte("x"), 0)); r.Errno != 0 || r.N != 1 {
		d.t.Errorf("write: N %d, errno %v", r.N, r.Errno)
	}
	a, b := d.socketpair(unix.SOCK_STREAM)
	if r := d.attempt(d.sendfile(a, f, 100, 50)); r.Errno != 0 || r.N != 50 {
		d.t.Errorf("sendfile: N %d, errno %v", r.N, r.Errno)
	}
	if !follows(d.take(b, 50), 100) {
		d.t.Error("wrong bytes")
	}
}

func tryConnect(d *driver) {
	for _, k := range listenKinds() {
		if k.domain == unix.AF_INET6 {
			continue // not everywhere available
		}
		l := k.listen(d)
		c := d.socket(k.domain, unix.SOCK_STREAM)
		if r := d.attempt(d.connect(c, d.addr(l))); r.Errno != 0 {
			d.t.Fatalf("connect: %v", r.Errno)
		}
		d.wantConnected(c, d.accepted(l))
	}
}

func tryEveryKind(d *driver) {
	ops := d.everyKind(1)
	d.pending(ops...)
	for _, o := range ops {
		d.cancel(o)
	}
	d.all(ops...)
	for _, o := range ops {
		r, ok := d.try(o.fresh())
		if ok {
			d.t.Errorf("Try of %s did what has to wait: %+v", o, r)
		}
		if o.done {
			d.t.Errorf("Try of %s called the Receiver", o)
		}
	}
}
