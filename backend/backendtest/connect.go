package backendtest

import (
	"path/filepath"
	"slices"

	"github.com/seed-80cfe818/ringloop/backend"
	"golang.org/x/sys/unix"
)

func connectTests() []test {
	return slices.Concat(overListeners("connect", []acceptTest{
		{"a listener is reached and data flows", connectReaches},
		{"sends queued behind a connect go out after it", connectThenSend},
		{"a second connect is EISCONN", connectTwice},
		{"a hundred connects at once all succeed", connectMany},
	}), single("connect", []test{
		{name: "a closed port is ECONNREFUSED", fn: func(d *driver) { connectRefused(d, inet4) }},
		{name: "a closed IPv6 port is ECONNREFUSED", fn: func(d *driver) { connectRefused(d, inet6) }},
		{name: "a missing unix path is ENOENT", fn: connectNoPath},
		{name: "a unix path without listener is ECONNREFUSED", fn: connectDeadPath},
		{name: "a full unix backlog is EAGAIN", fn: func(d *driver) { connectUnixFull(d, false) }},
		{name: "a full unix backlog is EAGAIN for a blocking socket too", fn: func(d *driver) { connectUnixFull(d, true) }},
		{name: "an unanswered connect waits until it is cancelled", fn: connectUnanswered},
		{name: "a connect that was cancelled is picked up by the next", slow: true, fn: connectAgain},
		{name: "an unanswered connect of a blocking socket does not block the thread", fn: connectBlocking},
		{name: "an unanswered connect ends with the close of its descriptor", fn: connectUnansweredClose},
		{name: "an address of the wrong family fails", fn: connectWrongFamily},
		{name: "a datagram socket is connected at once", fn: connectDatagram},
	}))
}

func connectReaches(d *driver, k listenKind, l int) {
	for i := range 10 {
		c := d.socket(k.domain, unix.SOCK_STREAM)
		if i%2 == 1 && k.domain == unix.AF_INET {
			d.setBlocking(c)
		}
		connect := d.connect(c, d.addr(l))
		d.wantN(d.submit(connect), 0)
		if want := d.addr(l); connect.Ext.Addr != want {
			d.t.Error("the address was changed")
		}
		s := d.accepted(l)
		d.wantConnected(c, s)
		d.feed(s, []byte("x"))
		d.wantBytes(d.submit(d.recv(c, 10)), []byte("x"))
	}
}

func connectThenSend(d *driver, k listenKind, l int) {
	c := d.socket(k.domain, unix.SOCK_STREAM)
	ops := []*op{
		d.connect(c, d.addr(l)), d.send(c, []byte("one ")), d.sendmsg(c, []byte("two "), []byte("three ")), d.write(c, []byte("four")),
	}
	for _, o := range ops {
		d.submit(o)
	}
	d.all(ops...)
	for i, n := range []int{0, 4, 10, 4} {
		d.wantN(ops[i], n)
		if i > 0 && ops[i].seq < ops[i-1].seq {
			d.t.Errorf("%s completed before %s", ops[i], ops[i-1])
		}
	}
	if got := string(d.take(d.accepted(l), 18)); got != "one two three four" {
		d.t.Errorf("the peer got %q", got)
	}
}

func connectTwice(d *driver, k listenKind, l int) {
	c := d.socket(k.domain, unix.SOCK_STREAM)
	connect := d.connect(c, d.addr(l))
	d.wantN(d.submit(connect), 0)
	d.wantErr(d.submit(connect), unix.EISCONN)
	d.wantConnected(c, d.accepted(l))
}

func connectMany(d *driver, k listenKind, l int) {
	ops := make([]*op, 100)
	for i := range ops {
		ops[i] = d.submit(d.connect(d.socket(k.domain, unix.SOCK_STREAM), d.addr(l)))
	}
	multi := d.submit(d.multi(d.op(backend.OpAccept, l)))
	for _, o := range ops {
		d.wantN(o, 0)
	}
	d.until("all connections", func() bool { return len(multi.more) == len(ops) })
	d.cancel(multi)
	d.wantErr(multi, unix.ECANCELED)
	d.ownAll(multi)
}

func connectRefused(d *driver, in inet) {
	l := d.bound(in, unix.SOCK_STREAM) // the port is taken and nobody listens
	for range 10 {
		c, other := d.socket(in.domain, unix.SOCK_STREAM), d.socket(in.domain, unix.SOCK_STREAM)
		d.submit(d.connect(c, d.addr(l)))
		d.wantErr(d.submit(d.connect(other, d.addr(l))), unix.ECONNREFUSED)
		d.wantN(d.submit(d.recv(other, 1)), 0) // as after any other reset that was told
	}
	d.until("the other connects", func() bool { return d.flying == 0 })
}

func connectNoPath(d *driver) {
	var to backend.Addr
	d.ok(to.SetUnix(filepath.Join(d.dir(), "missing")), "making the address")
	c := d.socket(unix.AF_UNIX, unix.SOCK_STREAM)
	d.wantErr(d.submit(d.connect(c, to)), unix.ENOENT)
	// The socket can be used for another attempt.
	l, _ := d.unixListener(1)
	d.wantN(d.submit(d.connect(c, d.addr(l))), 0)
}

func connectDeadPath(d *driver) {
	b := d.unixBound(unix.SOCK_STREAM, filepath.Join(d.dir(), "dead"))
	c := d.socket(unix.AF_UNIX, unix.SOCK_STREAM)
	d.wantErr(d.submit(d.connect(c, d.addr(b))), unix.ECONNREFUSED)
}

func connectUnixFull(d *driver, blocking bool) {
	l, path := d.unixListener(0)
	for {
		err := unix.Connect(d.socket(unix.AF_UNIX, unix.SOCK_STREAM), &unix.SockaddrUnix{Name: path})
		if err == unix.EAGAIN {
			break
		}
		d.ok(err, "filling the backlog")
	}
	c := d.socket(unix.AF_UNIX, unix.SOCK_STREAM)
	if blocking {
		d.setBlocking(c)
	}
	d.wantErr(d.submit(d.connect(c, d.addr(l))), unix.EAGAIN)
	flags, err := unix.FcntlInt(uintptr(c), unix.F_GETFL, 0)
	d.ok(err, "F_GETFL")
	if (flags&unix.O_NONBLOCK == 0) != blocking {
		d.t.Error("the connect changed the mode of the socket")
	}
	d.accepted(l) // makes room
	d.wantN(d.submit(d.connect(c, d.addr(l))), 0)
}

// unanswered returns an address of which SYNs are dropped.
func (d *driver) unanswered() backend.Addr {
	d.t.Helper()
	return d.addr(d.deaf())
}

// deaf returns a listener with a full backlog.
func (d *driver) deaf() int {
	d.t.Helper()
	l := d.listener(inet4, 0)
	for {
		c := d.socket(unix.AF_INET, unix.SOCK_STREAM)
		if err := unix.Connect(c, d.name(l)); err != unix.EINPROGRESS {
			d.ok(err, "filling the backlog")
			continue
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(c), Events: unix.POLLOUT}}, 50)
		if err != unix.EINTR {
			d.ok(err, "poll")
		}
		if n == 0 && err == nil {
			return l
		}
	}
}

func connectUnanswered(d *driver) {
	to := d.unanswered()
	c := d.socket(unix.AF_INET, unix.SOCK_STREAM)
	connect, send := d.submit(d.connect(c, to)), d.submit(d.send(c, []byte("x")))
	d.pending(connect, send)
	d.cancel(send)
	d.wantErr(send, unix.ECANCELED)
	d.pending(connect)
	d.cancel(connect)
	d.wantErr(connect, unix.ECANCELED)
}

// connectAgain makes room for the connection while connects wait for one that was
// cancelled before, or leaves nobody to make it with.
func connectAgain(d *driver) {
	for _, prepare := range []func(int) int{func(c int) int { return c }, d.setBlocking} {
		l := d.deaf()
		connect := d.connect(prepare(d.socket(unix.AF_INET, unix.SOCK_STREAM)), d.addr(l))
		for range 2 {
			d.pending(d.submit(connect))
			d.cancel(connect)
			d.wantErr(connect, unix.ECANCELED)
		}
		dup, err := unix.FcntlInt(uintptr(connect.FD), unix.F_DUPFD_CLOEXEC, 0)
		d.ok(err, "dup")
		other := d.connect(d.own(dup), d.addr(l))
		d.pending(d.submit(connect), d.submit(other))
		multi := d.submit(d.multi(d.op(backend.OpAccept, l)))
		d.wantN(connect, 0)
		d.wantN(other, 0)
		d.wantErr(d.submit(connect), unix.EISCONN)
		d.cancel(multi)
		d.wantErr(multi, unix.ECANCELED)
		d.ownAll(multi)

		l = d.deaf()
		connect = d.connect(prepare(d.socket(unix.AF_INET, unix.SOCK_STREAM)), d.addr(l))
		d.pending(d.submit(connect))
		d.cancel(connect)
		d.wantErr(connect, unix.ECANCELED)
		d.pending(d.submit(connect))
		d.closeFD(l)
		d.wantErr(connect, unix.ECONNREFUSED)
	}
}

func connectBlocking(d *driver) {
	connect := d.submit(d.connect(d.setBlocking(d.socket(unix.AF_INET, unix.SOCK_STREAM)), d.unanswered()))
	d.pending(connect)
	d.cancel(connect)
	d.wantErr(connect, unix.ECANCELED)
}

func connectUnansweredClose(d *driver) {
	to := d.unanswered()
	c := d.socket(unix.AF_INET, unix.SOCK_STREAM)
	connect := d.submit(d.connect(c, to))
	d.pending(connect)
	d.disown(c)
	d.wantN(d.submit(d.closeOp(c)), 0)
	d.wantErr(connect, unix.ECANCELED)
}

func connectWrongFamily(d *driver) {
	var to backend.Addr
	d.ok(to.SetUnix("/nowhere"), "making the address")
	c := d.socket(unix.AF_INET, unix.SOCK_STREAM)
	d.wantErr(d.submit(d.connect(c, to)), unix.EAFNOSUPPORT, unix.EINVAL)
}

func connectDatagram(d *driver) {
	a, b := d.bound(inet4, unix.SOCK_DGRAM), d.bound(inet4, unix.SOCK_DGRAM)
	d.wantN(d.submit(d.connect(a, d.addr(b))), 0)
	d.wantN(d.submit(d.send(a, []byte("x"))), 1)
	d.take(b, 1)
}
