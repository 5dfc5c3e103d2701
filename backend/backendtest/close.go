package backendtest

import (
	"slices"

	"github.com/seed-80cfe818/ringloop/backend"
	"golang.org/x/sys/unix"
)

func closeTests() []test {
	return slices.Concat(over("close", streams, []pairTest{
		{"the descriptor is closed and the peer sees the end", closePlain},
		{"submitting on a closing descriptor is refused", closeRefuses},
		{"bytes that were sent before arrive", closeAfterSend},
		{"the number can be used at once by another connection", closeReuse},
		{"the number can be used from inside the completion", closeReuseInside},
		{"a duplicate stays usable", closeDup},
		{"it cannot be cancelled", closeUncancelled},
	}), single("close", []test{
		{name: "a hundred operations of every kind end first", fn: closeMany},
		{name: "a descriptor that is not open is EBADF", fn: closeBadFD},
		{name: "a listener refuses connections after it", fn: closeListener},
		{name: "positioned reads of a file end first", fn: closeFile},
		{name: "events of the old owner never reach the new one", fn: closeStale},
		{name: "a number that was closed without the backend can be reused", fn: closePlainReuse},
		{name: "five hundred descriptors at once", fn: closeHundreds},
		{name: "bytes that had come are reported and not lost", fn: closeKeepsBytes},
	}), over("close", fillable, []pairTest{
		{"operations in flight end first", closeInFlight},
	}))
}

// closed closes fd through the backend.
func (d *driver) closedByOp(fd int) {
	d.t.Helper()
	d.disown(fd)
	d.wantN(d.submit(d.closeOp(fd)), 0)
	if isOpen(fd) {
		d.t.Errorf("fd %d is open after its close", fd)
	}
}

func closePlain(d *driver, a, b int) {
	d.closedByOp(a)
	d.atEnd(b)
}

func closeInFlight(d *driver, a, b int) {
	d.fill(a)
	ops := []*op{
		d.recv(a, 10), d.recv(a, 0), d.recvmsg(a, 10), d.multi(d.recv(a, 0)),
		d.whole(d.send(a, []byte("x"))), d.sendmsg(a, []byte("x")),
		d.poll(a, unix.POLLIN), d.multi(d.poll(a, unix.POLLIN)),
	}
	for _, o := range ops {
		d.submit(o)
	}
	d.pending(ops...)
	c := d.submit(d.closeOp(a))
	d.disown(a)
	d.wantN(c, 0)
	for _, o := range ops {
		if !o.done || o.seq > c.seq {
			d.t.Fatalf("%s: done %v, after the close: %v", o, o.done, o.seq > c.seq)
		}
		d.wantErr(o, unix.ECANCELED)
	}
	if isOpen(a) {
		d.t.Errorf("fd %d is open after its close", a)
	}
}

func closeRefuses(d *driver, a, b int) {
	recv := d.submit(d.recv(a, 10))
	d.pending(recv)
	c := d.submit(d.closeOp(a))
	d.disown(a)
	for code := range backend.NumCodes {
		if backend.Code(code) == backend.OpNop {
			continue
		}
		o := d.operands(backend.Code(code), a)
		d.refuse(o, backend.ErrBadFD)
		d.refuse(o, unix.EBADF)
		if r, ok := d.try(o); ok {
			d.t.Errorf("Try of %s: %+v", o, r)
		}
	}
	inside := false
	recv.on = func(result) {
		d.refuse(d.recv(a, 10), backend.ErrBadFD)
		inside = true
	}
	d.wantN(c, 0)
	if !inside {
		d.t.Error("the recv had no completion before the close")
	}
}

func closeAfterSend(d *driver, a, b int) {
	const n = 10000
	d.wantN(d.submit(d.whole(d.send(a, bytesOf(n, 0)))), n)
	d.closedByOp(a)
	if !follows(d.take(b, n), 0) {
		d.t.Error("wrong bytes")
	}
	d.atEnd(b)
}

// reuse returns a socket that has the number fd, and its peer. The number must
// be free.
func (d *driver) reuse(fd int) (peer int) {
	d.t.Helper()
	a, b := d.socketpair(unix.SOCK_STREAM)
	if a == fd {
		return b
	}
	if b == fd {
		return a
	}
	d.ok(unix.Dup3(a, fd, unix.O_CLOEXEC), "dup3")
	d.own(fd)
	d.closeFD(a)
	return b
}

func closeReuse(d *driver, a, b int) {
	for range 20 {
		old := []*op{d.recv(a, 10), d.recv(a, 0), d.poll(a, unix.POLLIN), d.multi(d.recv(a, 0))}
		for _, o := range old {
			d.submit(o)
		}
		d.pending(old...)
		d.closedByOp(a)
		nb := d.reuse(a)
		d.newOwner(a, nb, b)
		b = nb
	}
}

// newOwner checks that a is connected to peer and hears nothing of the old peer.
func (d *driver) newOwner(a, peer, old int) {
	d.t.Helper()
	recv, poll := d.submit(d.recv(a, 100)), d.submit(d.poll(a, unix.POLLIN))
	// The old connection is closed, so this may fail.
	if _, err := unix.Write(old, []byte("stale")); err != nil && err != unix.EPIPE && err != unix.ECONNRESET {
		d.t.Errorf("writing to the old peer: %v", err)
	}
	d.pending(recv, poll)
	d.closeFD(old)
	d.pending(recv, poll)
	d.feed(peer, []byte("new"))
	d.wantBytes(recv, []byte("new"))
	if !poll.done {
		d.feed(peer, []byte("x"))
	}
	d.wantEvents(poll, unix.POLLIN, unix.POLLHUP|unix.POLLERR)
	d.wantN(d.submit(d.send(a, []byte("back"))), 4)
	if got := string(d.take(peer, 4)); got != "back" {
		d.t.Errorf("the peer got %q", got)
	}
	// Leave nothing behind for the next owner.
	for {
		if _, err := unix.Read(a, make([]byte, 10)); err != nil {
			return
		}
	}
}

func closeReuseInside(d *driver, a, b int) {
	recv := d.submit(d.recv(a, 10))
	d.pending(recv)
	var peer int
	var next *op
	c := d.closeOp(a)
	c.on = func(result) {
		peer = d.reuse(a)
		next = d.submit(d.recv(a, 10))
		d.feed(peer, []byte("new"))
	}
	d.disown(a)
	d.wantN(d.submit(c), 0)
	d.wantBytes(next, []byte("new"))
	d.atEnd(b)
}

func closeDup(d *driver, a, b int) {
	dup, err := unix.FcntlInt(uintptr(a), unix.F_DUPFD_CLOEXEC, 0)
	d.ok(err, "dup")
	d.own(dup)
	gone, stays := d.submit(d.poll(a, unix.POLLIN)), d.submit(d.poll(dup, unix.POLLIN))
	recv := d.submit(d.recv(a, 10))
	d.pending(gone, stays, recv)
	d.closedByOp(a)
	d.wantErr(recv, unix.ECANCELED)
	d.wantErr(gone, unix.ECANCELED)
	d.pending(stays)
	d.feed(b, []byte("hello"))
	d.wantEvents(stays, unix.POLLIN, unix.POLLHUP)
	d.wantBytes(d.submit(d.recv(dup, 10)), []byte("hello"))
	d.wantN(d.submit(d.send(dup, []byte("still open"))), 10)
	d.take(b, 10)
}

func closeUncancelled(d *driver, a, b int) {
	recv := d.submit(d.recv(a, 10))
	d.pending(recv)
	c := d.submit(d.closeOp(a))
	d.disown(a)
	d.cancel(c)
	d.wantN(c, 0)
	d.wantErr(recv, unix.ECANCELED)
	if isOpen(a) {
		d.t.Errorf("fd %d is open after its close", a)
	}
	d.atEnd(b)
}

func closeMany(d *driver) {
	ops := d.everyKind(100)
	d.pending(ops...)
	closes := make(map[int32]*op)
	for _, o := range ops {
		if closes[o.FD] == nil {
			closes[o.FD] = d.submit(d.closeOp(int(o.FD)))
			d.disown(int(o.FD))
		}
	}
	for _, c := range closes {
		d.wantN(c, 0)
	}
	for _, o := range ops {
		if !o.done || o.seq > closes[o.FD].seq {
			d.t.Fatalf("%s: done %v; it must end before the close", o, o.done)
		}
		d.wantErr(o, unix.ECANCELED)
	}
}

func closeBadFD(d *driver) {
	bad := d.badFD()
	d.wantErr(d.submit(d.closeOp(bad)), unix.EBADF)
	d.wantErr(d.submit(d.recv(bad, 10)), unix.EBADF)
}

func closeListener(d *driver) {
	l := d.listener(inet4, 16)
	to := d.addr(l)
	accept, multi := d.submit(d.accept(l)), d.submit(d.multi(d.op(backend.OpAccept, l)))
	d.pending(accept, multi)
	d.closedByOp(l)
	d.wantErr(accept, unix.ECANCELED)
	d.wantErr(multi, unix.ECANCELED)
	d.wantErr(d.submit(d.connect(d.socket(unix.AF_INET, unix.SOCK_STREAM), to)), unix.ECONNREFUSED)
}

func closeFile(d *driver) {
	f := d.file(bytesOf(1<<20, 0))
	ops := make([]*op, 64)
	for i := range ops {
		ops[i] = d.submit(d.readAt(f, 16<<10, int64(i)*16<<10))
	}
	c := d.submit(d.closeOp(f))
	d.disown(f)
	d.wantN(c, 0)
	for i, o := range ops {
		if o.seq > c.seq {
			d.t.Errorf("read %d came after the close", i)
		}
		if d.outcome(o).Errno == 0 {
			d.wantBytes(o, bytesOf(16<<10, int64(i)*16<<10))
		} else {
			d.wantErr(o, unix.ECANCELED)
		}
	}
}

// closeStale keeps the old file alive by a duplicate, so that the kernel goes
// on to report its events if the backend does not see to it.
func closeStale(d *driver) {
	a, b := d.socketpair(unix.SOCK_STREAM)
	dup, err := unix.FcntlInt(uintptr(a), unix.F_DUPFD_CLOEXEC, 0)
	d.ok(err, "dup")
	d.own(dup)
	old := []*op{d.recv(a, 10), d.poll(a, unix.POLLIN), d.multi(d.poll(a, unix.POLLIN|unix.POLLOUT))}
	for _, o := range old {
		d.submit(o)
	}
	d.settle()
	d.closedByOp(a)
	peer := d.reuse(a)
	multi := d.submit(d.multi(d.poll(a, unix.POLLIN)))
	recv := d.submit(d.recv(a, 10))
	for range 10 {
		d.feed(b, []byte("stale"))
		d.pending(recv, multi)
		d.take(dup, 5)
		d.pending(recv, multi)
	}
	d.closeFD(b)
	d.pending(recv, multi)
	if len(multi.more) != 0 {
		d.t.Errorf("the poll of the new owner saw %d events of the old one", len(multi.more))
	}
	d.feed(peer, []byte("new"))
	d.wantBytes(recv, []byte("new"))
	d.cancel(multi)
	d.outcome(multi)
}

func closePlainReuse(d *driver) {
	a, b := d.socketpair(unix.SOCK_STREAM)
	for range 20 {
		recv, poll := d.submit(d.recv(a, 10)), d.submit(d.multi(d.poll(a, unix.POLLIN)))
		d.pending(recv, poll)
		d.cancel(recv)
		d.cancel(poll)
		d.wantErr(recv, unix.ECANCELED)
		d.wantErr(poll, unix.ECANCELED)
		d.closeFD(a)
		nb := d.reuse(a)
		d.newOwner(a, nb, b)
		b = nb
	}
}

func closeHundreds(d *driver) {
	n := d.budget(500)
	var closes, recvs []*op
	for range n {
		a, _ := d.socketpair(unix.SOCK_STREAM)
		recvs = append(recvs, d.submit(d.recv(a, 10)), d.submit(d.multi(d.recv(a, 0))))
		closes = append(closes, d.closeOp(a))
	}
	d.turn(0)
	for _, c := range closes {
		d.submit(c)
		d.disown(int(c.FD))
	}
	for _, c := range closes {
		d.wantN(c, 0)
	}
	for _, o := range recvs {
		d.wantErr(o, unix.ECANCELED)
	}
}

func closeKeepsBytes(d *driver) {
	for range 50 {
		a, b := d.socketpair(unix.SOCK_STREAM)
		recv := d.submit(d.recv(a, 10))
		d.turn(0)
		d.feed(b, []byte("hello"))
		d.wait(safety)
		c := d.submit(d.closeOp(a))
		d.disown(a)
		d.wantN(c, 0)
		if recv.seq > c.seq {
			d.t.Error("the recv came after the close")
		}
		if d.outcome(recv).Errno == 0 {
			d.wantBytes(recv, []byte("hello"))
		} else {
			d.wantErr(recv, unix.ECANCELED)
		}
		d.closeFD(b)
	}
}
