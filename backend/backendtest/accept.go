package backendtest

import (
	"path/filepath"
	"slices"

	"github.com/seed-80cfe818/ringloop/backend"
	"golang.org/x/sys/unix"
)

// listenKind makes a listener and connects to it.
type listenKind struct {
	name   string
	domain int
	listen func(d *driver) int
}

func listenKinds() []listenKind {
	return []listenKind{
		{"tcp4", unix.AF_INET, func(d *driver) int { return d.listener(inet4, 256) }},
		{"tcp6", unix.AF_INET6, func(d *driver) int { return d.listener(inet6, 256) }},
		{"unix", unix.AF_UNIX, func(d *driver) int {
			l, _ := d.unixListener(256)
			return l
		}},
		{"blocking tcp4", unix.AF_INET, func(d *driver) int { return d.setBlocking(d.listener(inet4, 256)) }},
	}
}

// acceptTest is a behaviour of every kind of listener.
type acceptTest struct {
	name string
	fn   func(d *driver, k listenKind, l int)
}

func overListeners(subject string, list []acceptTest) []test {
	var all []test
	for _, p := range list {
		for _, k := range listenKinds() {
			all = append(all, test{name: subject + "/" + p.name + "/" + k.name, fn: func(d *driver) {
				p.fn(d, k, k.listen(d))
			}})
		}
	}
	return all
}

func acceptTests() []test {
	return slices.Concat(overListeners("accept", []acceptTest{
		{"a connection that is there is taken, with its address", acceptThere},
		{"a connection that comes later is taken, with its address", acceptLater},
		{"without Ext no address is asked for", acceptNoExt},
		{"many queued accepts take the connections in order", acceptQueue},
		{"the new descriptor is non-blocking and close-on-exec", acceptFlags},
		{"a multishot takes every connection and ends when cancelled", acceptMulti},
		{"a multishot takes what was there before", acceptMultiThere},
		{"a listener made blocking while a multishot waits does not block the thread", acceptMadeBlocking},
	}), single("accept", []test{
		{name: "a shut down listener ends its accepts", fn: acceptShutdown},
		{name: "a connection that waits for bytes is no listener", fn: acceptConnected},
		{name: "a listener that waits for connections is no connection", fn: acceptRecv},
		{name: "a named unix peer has its path as address", fn: acceptNamedUnix},
		{name: "no free descriptor is EMFILE and the connection stays", fn: acceptNoFD},
	}))
}

// connectTo connects a new socket to the listener.
func (d *driver) connectTo(k listenKind, l int) int {
	d.t.Helper()
	return d.dial(k.domain, d.name(l))
}

// wantAccepted checks that o accepted the connection of c, whose descriptor it
// returns.
func (d *driver) wantAccepted(o *op, c int) int {
	d.t.Helper()
	r := d.outcome(o)
	if r.Errno != 0 {
		d.t.Fatalf("%s: %v", o, r.Errno)
	}
	fd := d.own(r.N)
	d.wantConnected(fd, c)
	if o.Ext != nil {
		d.wantAddr(o, c)
	}
	return fd
}

func (d *driver) wantConnected(a, b int) {
	d.t.Helper()
	d.feed(a, []byte{byte(a)})
	if got := d.take(b, 1); got[0] != byte(a) {
		d.t.Fatalf("fd %d is not connected to fd %d", a, b)
	}
}

func acceptThere(d *driver, k listenKind, l int) {
	c := d.connectTo(k, l)
	d.wantAccepted(d.submit(stale(d.accept(l))), c)
}

func acceptLater(d *driver, k listenKind, l int) {
	accept := d.accept(l)
	for range 10 {
		d.submit(stale(accept))
		d.pending(accept)
		d.wantAccepted(accept, d.connectTo(k, l))
	}
}

func acceptNoExt(d *driver, k listenKind, l int) {
	accept := d.op(backend.OpAccept, l)
	d.submit(accept)
	d.wantAccepted(accept, d.connectTo(k, l))
	c := d.connectTo(k, l)
	d.submit(accept)
	d.wantAccepted(accept, c)
}

func acceptQueue(d *driver, k listenKind, l int) {
	ops := make([]*op, 20)
	for i := range ops {
		ops[i] = d.submit(d.accept(l))
	}
	d.pending(ops...)
	clients := make([]int, len(ops))
	for i := range clients {
		clients[i] = d.connectTo(k, l)
		if i%3 == 0 {
			d.turn(0)
		}
	}
	for i, o := range ops {
		d.wantAccepted(o, clients[i])
		if i > 0 && o.seq < ops[i-1].seq {
			d.t.Errorf("accept %d completed before the one before it", i)
		}
	}
}

func acceptFlags(d *driver, k listenKind, l int) {
	there := d.connectTo(k, l)
	fds := []int{d.wantAccepted(d.submit(d.accept(l)), there)}
	later := d.submit(d.accept(l))
	d.pending(later)
	fds = append(fds, d.wantAccepted(later, d.connectTo(k, l)))
	multi := d.submit(d.multi(d.op(backend.OpAccept, l)))
	d.connectTo(k, l)
	d.until("multishot accept", func() bool { return len(multi.more) == 1 })
	fds = append(fds, d.own(multi.more[0].N))
	d.cancel(multi)
	d.outcome(multi)
	for _, fd := range fds {
		fl, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		d.ok(err, "F_GETFL")
		fdfl, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		d.ok(err, "F_GETFD")
		if fl&unix.O_NONBLOCK == 0 || fdfl&unix.FD_CLOEXEC == 0 {
			d.t.Errorf("fd %d: non-blocking %v, close-on-exec %v", fd, fl&unix.O_NONBLOCK != 0, fdfl&unix.FD_CLOEXEC != 0)
		}
	}
}

// ownAll owns the descriptors that a multishot accept has reported from index
// from on.
func (d *driver) ownAll(o *op) []int {
	var fds []int
	for _, r := range o.more {
		fds = append(fds, d.own(r.N))
	}
	if o.done && o.last.Errno == 0 {
		fds = append(fds, d.own(o.last.N))
	}
	return fds
}

func acceptMulti(d *driver, k listenKind, l int) {
	const n = 100
	multi := d.submit(d.multi(d.op(backend.OpAccept, l)))
	d.pending(multi)
	clients := make([]int, n)
	for i := range clients {
		clients[i] = d.connectTo(k, l)
		if i%10 == 0 {
			d.turn(0)
		}
	}
	d.until("all connections", func() bool { return len(multi.more) == n })
	for i, fd := range d.ownAll(multi) {
		d.wantConnected(fd, clients[i])
	}
	d.pending(multi)
	d.cancel(multi)
	d.wantErr(multi, unix.ECANCELED)
	// The listener goes on without it.
	c := d.connectTo(k, l)
	d.wantAccepted(d.submit(d.accept(l)), c)
}

func acceptMultiThere(d *driver, k listenKind, l int) {
	const n = 50
	for range n {
		d.connectTo(k, l)
	}
	multi := d.submit(d.multi(d.op(backend.OpAccept, l)))
	d.until("all connections", func() bool { return len(multi.more) == n })
	d.cancel(multi)
	d.wantErr(multi, unix.ECANCELED)
	d.ownAll(multi)
}

func acceptShutdown(d *driver) {
	l := d.listener(inet4, 16)
	single, queued := d.submit(d.accept(l)), d.submit(d.multi(d.op(backend.OpAccept, l)))
	d.pending(single, queued)
	d.ok(unix.Shutdown(l, unix.SHUT_RDWR), "shutdown")
	d.wantErr(single, unix.EINVAL)
	d.wantErr(queued, unix.EINVAL)
}

func acceptNamedUnix(d *driver) {
	l, path := d.unixListener(16)
	c := d.unixBound(unix.SOCK_STREAM, filepath.Join(d.dir(), "client"))
	waiting := d.submit(stale(d.accept(l)))
	d.pending(waiting)
	d.ok(unix.Connect(c, &unix.SockaddrUnix{Name: path}), "connect")
	d.wantAccepted(waiting, c)
}

func acceptNoFD(d *driver) {
	l := d.listener(inet4, 16)
	c := d.dial(unix.AF_INET, d.name(l))
	warm := d.submit(d.op(backend.OpNop, -1))
	d.wantN(warm, 0)
	// The limit is on numbers, so fill the gaps below the highest one as well.
	var old unix.Rlimit
	d.ok(unix.Getrlimit(unix.RLIMIT_NOFILE, &old), "getrlimit")
	limit := d.eventfd() + 64
	tight := unix.Rlimit{Cur: uint64(limit), Max: old.Max}
	d.ok(unix.Prlimit(0, unix.RLIMIT_NOFILE, &tight, nil), "prlimit")
	defer func() { d.ok(unix.Prlimit(0, unix.RLIMIT_NOFILE, &old, nil), "prlimit") }()
	var fillers []int
	for {
		fd, err := unix.FcntlInt(uintptr(l), unix.F_DUPFD_CLOEXEC, 0)
		if err == unix.EMFILE {
			break
		}
		d.ok(err, "dup")
		fillers = append(fillers, d.own(fd))
	}
	accept := d.submit(d.accept(l))
	d.wantErr(accept, unix.EMFILE)
	multi := d.submit(d.multi(d.op(backend.OpAccept, l)))
	d.wantErr(multi, unix.EMFILE)
	for _, fd := range fillers {
		d.closeFD(fd)
	}
	d.wantAccepted(d.submit(accept), c)
}

func acceptConnected(d *driver) {
	a, b := d.tcp(inet4)
	recv := d.submit(d.recv(a, 8))
	d.pending(recv)
	d.feed(b, []byte("x"))
	d.wantN(recv, 1)
	d.wantErr(d.submit(d.accept(a)), unix.EINVAL)
	d.wantErr(d.submit(d.multi(d.op(backend.OpAccept, a))), unix.EINVAL)
}

func acceptRecv(d *driver) {
	l := d.listener(inet4, 16)
	accept := d.submit(d.accept(l))
	d.pending(accept)
	d.cancel(accept)
	d.wantErr(accept, unix.ECANCELED)
	for _, o := range []*op{d.recv(l, 8), d.recv(l, 0), d.multi(d.recv(l, 0))} {
		d.submit(o)
		d.wantErr(o, unix.ENOTCONN)
	}
	l = d.listener(inet4, 16)
	c := d.dial(unix.AF_INET, d.name(l))
	d.wantAccepted(d.submit(d.accept(l)), c) // which did not have to wait
	for _, o := range []*op{d.recv(l, 0), d.multi(d.recv(l, 0))} {
		d.submit(o)
		d.wantErr(o, unix.ENOTCONN)
	}
}

func acceptMadeBlocking(d *driver, k listenKind, l int) {
	multi := d.submit(d.multi(d.op(backend.OpAccept, l)))
	d.pending(multi)
	d.setBlocking(l)
	for n := range 3 {
		c := d.connectTo(k, l)
		d.until("multishot accept", func() bool { return len(multi.more) > n })
		d.wantConnected(d.own(multi.more[n].N), c)
	}
	d.cancel(multi)
	d.outcome(multi)
}
