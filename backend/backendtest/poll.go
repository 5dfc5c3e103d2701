package backendtest

import (
	"slices"

	"golang.org/x/sys/unix"
)

func pollTests() []test {
	return slices.Concat(over("poll", only(streams, "tcp4", "socketpair", "blocking tcp4"), []pairTest{
		{"readiness that already existed is seen", pollThere},
		{"readiness that comes later is seen", pollLater},
		{"readiness that somebody has used up before the turn is none", pollStale},
		{"so is room behind the half-close of the peer", pollStaleRoom},
		{"an event that is over is not told together with one that is not", pollStaleEvent},
		{"only the events that were asked for complete", pollEvents},
		{"the half-close of the peer is POLLRDHUP", pollHalfClosed},
		{"the close of the peer is POLLHUP without asking", pollClosed},
		{"a half-close does not complete a poll for other events", pollUnaffected},
		{"a second poll sees what the first has seen", pollSecond},
		{"a poll sees the rest that a recv left", pollRest},
		{"many polls of one descriptor all complete", pollMany},
		{"polls of different events are independent", pollDifferent},
		{"a poll does not wait for operations nor they for it", pollIndependent},
		{"a multishot completes for every new readiness", pollMulti},
		{"two multishots both see every new readiness", pollMultiTwo},
		{"a multishot sees both directions", pollMultiBoth},
	}), single("poll", []test{
		{name: "the closed writer of a pipe is POLLHUP", fn: pollPipeHup},
		{name: "the closed reader of a pipe is POLLERR", fn: pollPipeErr},
		{name: "a listener is readable when a connection waits", fn: pollListener},
		{name: "a reset is POLLERR and POLLHUP", fn: pollReset},
		{name: "an eventfd, a terminal and an epoll instance can be polled", fn: pollOther},
		{name: "a file of /proc that can be polled is", fn: pollProc},
		{name: "a multishot on a hung up descriptor can be cancelled", fn: pollMultiHup},
		{name: "a duplicate descriptor is polled for itself", fn: pollDup},
	}))
}

// wantEvents turns until o has completed and checks the events: all of want
// and nothing that is in not.
func (d *driver) wantEvents(o *op, want, not int) {
	d.t.Helper()
	r := d.outcome(o)
	if r.Errno != 0 || r.N&want != want || r.N&not != 0 {
		d.t.Fatalf("%s for %#x: events %#x, errno %v; want %#x without %#x", o, o.Arg, r.N, r.Errno, want, not)
	}
}

func pollThere(d *driver, a, b int) {
	d.feed(b, []byte("x"))
	for range 3 {
		d.wantEvents(d.submit(d.poll(a, unix.POLLIN)), unix.POLLIN, unix.POLLOUT|unix.POLLHUP|unix.POLLERR)
		d.wantEvents(d.submit(d.poll(a, unix.POLLOUT)), unix.POLLOUT, unix.POLLIN|unix.POLLHUP|unix.POLLERR)
		d.wantEvents(d.submit(d.poll(a, unix.POLLIN|unix.POLLOUT)), unix.POLLIN|unix.POLLOUT, unix.POLLHUP|unix.POLLERR)
	}
}

func pollLater(d *driver, a, b int) {
	poll := d.poll(a, unix.POLLIN)
	for range 20 {
		d.submit(poll)
		d.pending(poll)
		d.feed(b, []byte("x"))
		d.wantEvents(poll, unix.POLLIN, unix.POLLOUT)
		d.take(a, 1)
	}
}

func pollStale(d *driver, a, b int) {
	in, rdhup := d.submit(d.poll(a, unix.POLLIN)), d.submit(d.poll(a, unix.POLLIN|unix.POLLRDHUP))
	d.pending(in, rdhup)
	for i := range 4 {
		d.feed(b, []byte("x"))
		if i%2 == 1 {
			d.wait(0) // as at the end of a run, without a Dispatch
		}
		d.take(a, 1)
		d.pending(in, rdhup)
	}
	d.cancel(in)
	d.wantErr(in, unix.ECANCELED)
	d.feed(b, []byte("x"))
	d.wantEvents(rdhup, unix.POLLIN, unix.POLLRDHUP)
}

func pollStaleRoom(d *driver, a, b int) {
	d.ok(unix.Shutdown(b, unix.SHUT_WR), "shutdown")
	n := d.fill(a)
	out := d.submit(d.poll(a, unix.POLLOUT))
	d.pending(out)
	d.take(b, n)
	n = d.fill(a)
	d.pending(out)
	d.take(b, n)
	d.wantEvents(out, unix.POLLOUT, unix.POLLERR)
}

func pollStaleEvent(d *driver, a, b int) {
	n := d.fill(a)
	both := d.submit(d.poll(a, unix.POLLIN|unix.POLLOUT))
	d.pending(both)
	d.take(b, n)
	d.fill(a)
	d.feed(b, []byte("x"))
	d.wantEvents(both, unix.POLLIN, unix.POLLOUT)
}

func pollEvents(d *driver, a, b int) {
	in := d.submit(d.poll(a, unix.POLLIN))
	pri := d.submit(d.poll(a, unix.POLLPRI))
	d.pending(in, pri)
	d.wantEvents(d.submit(d.poll(a, unix.POLLIN|unix.POLLOUT)), unix.POLLOUT, unix.POLLIN)
	d.feed(b, []byte("x"))
	d.wantEvents(in, unix.POLLIN, unix.POLLOUT)
	d.pending(pri)
	d.cancel(pri)
	d.wantErr(pri, unix.ECANCELED)
}

func pollHalfClosed(d *driver, a, b int) {
	rdhup, in := d.submit(d.poll(a, unix.POLLRDHUP)), d.submit(d.poll(a, unix.POLLIN))
	d.pending(rdhup, in)
	d.ok(unix.Shutdown(b, unix.SHUT_WR), "shutdown")
	d.wantEvents(rdhup, unix.POLLRDHUP, unix.POLLIN|unix.POLLERR)
	d.wantEvents(in, unix.POLLIN, unix.POLLRDHUP|unix.POLLERR)
	d.wantEvents(d.submit(d.poll(a, unix.POLLRDHUP|unix.POLLOUT)), unix.POLLRDHUP|unix.POLLOUT, unix.POLLIN)
}

func pollClosed(d *driver, a, b int) {
	poll := d.submit(d.poll(a, unix.POLLPRI))
	d.pending(poll)
	d.ok(unix.Shutdown(a, unix.SHUT_WR), "shutdown")
	d.closeFD(b)
	d.wantEvents(poll, unix.POLLHUP, unix.POLLIN|unix.POLLOUT|unix.POLLRDHUP)
	d.wantEvents(d.submit(d.poll(a, unix.POLLPRI)), unix.POLLHUP, unix.POLLIN)
}

func pollUnaffected(d *driver, a, b int) {
	early := d.submit(d.poll(a, unix.POLLPRI))
	d.pending(early)
	d.ok(unix.Shutdown(b, unix.SHUT_WR), "shutdown")
	late := d.submit(d.poll(a, unix.POLLPRI))
	d.pending(early, late)
	for _, o := range []*op{early, late} {
		d.cancel(o)
		d.wantErr(o, unix.ECANCELED)
	}
}

func pollSecond(d *driver, a, b int) {
	multi := d.submit(d.multi(d.poll(a, unix.POLLIN)))
	first := d.submit(d.poll(a, unix.POLLIN))
	d.pending(multi, first)
	d.feed(b, []byte("x"))
	d.wantEvents(first, unix.POLLIN, 0)
	d.until("multishot", func() bool { return len(multi.more) > 0 })
	// There is no new edge now, but the descriptor is ready.
	d.wantEvents(d.submit(d.poll(a, unix.POLLIN)), unix.POLLIN, 0)
	another := d.submit(d.multi(d.poll(a, unix.POLLIN)))
	d.until("second multishot", func() bool { return len(another.more) > 0 })
	d.cancel(multi)
	d.cancel(another)
	d.wantErr(multi, unix.ECANCELED)
	d.wantErr(another, unix.ECANCELED)
}

func pollRest(d *driver, a, b int) {
	recv := d.submit(d.recv(a, 1))
	d.pending(recv)
	d.feed(b, []byte("xyz"))
	d.wantBytes(recv, []byte("x"))
	d.wantEvents(d.submit(d.poll(a, unix.POLLIN)), unix.POLLIN, 0)
	d.wantBytes(d.submit(d.recv(a, 10)), []byte("yz"))
	poll := d.submit(d.poll(a, unix.POLLIN))
	d.pending(poll)
	d.feed(b, []byte("x"))
	d.wantEvents(poll, unix.POLLIN, 0)
}

func pollMany(d *driver, a, b int) {
	ops := make([]*op, 100)
	for i := range ops {
		ops[i] = d.submit(d.poll(a, unix.POLLIN))
	}
	d.pending(ops...)
	for i := 0; i < len(ops); i += 3 {
		d.cancel(ops[i])
	}
	d.feed(b, []byte("x"))
	for i, o := range ops {
		if i%3 == 0 && d.outcome(o).Errno == unix.ECANCELED {
			continue
		}
		d.wantEvents(o, unix.POLLIN, 0)
	}
}

func pollDifferent(d *driver, a, b int) {
	d.fill(a)
	in, out := d.submit(d.poll(a, unix.POLLIN)), d.submit(d.poll(a, unix.POLLOUT))
	d.pending(in, out)
	d.feed(b, []byte("x"))
	d.wantEvents(in, unix.POLLIN, unix.POLLOUT)
	if out.done {
		d.t.Errorf("the poll for output completed with %#x, %v", out.last.N, out.last.Errno)
	}
	d.submit(in)
	d.wantEvents(in, unix.POLLIN, 0)
	d.empty(b)
	d.wantEvents(out, unix.POLLOUT, unix.POLLIN)
}

func pollIndependent(d *driver, a, b int) {
	recv := d.submit(d.recv(a, 10))
	poll := d.submit(d.poll(a, unix.POLLOUT))
	d.wantEvents(poll, unix.POLLOUT, 0)
	d.pending(recv)
	in := d.submit(d.poll(a, unix.POLLIN))
	d.pending(in)
	d.feed(b, []byte("hello"))
	d.wantBytes(recv, []byte("hello"))
	// The recv may have taken the bytes before the poll looked.
	if !in.done {
		d.feed(b, []byte("again"))
	}
	d.wantEvents(in, unix.POLLIN, unix.POLLOUT)
}

// pollMulti makes a new readiness only after the one before was seen.
func pollMulti(d *driver, a, b int) {
	multi := d.submit(d.multi(d.poll(a, unix.POLLIN)))
	d.pending(multi)
	for range 50 {
		seen := len(multi.more)
		d.feed(b, []byte("x"))
		d.until("new readiness", func() bool { return len(multi.more) > seen })
		d.take(a, 1)
	}
	for _, r := range multi.more {
		if r.N&unix.POLLIN == 0 || r.N&unix.POLLOUT != 0 {
			d.t.Errorf("events %#x", r.N)
		}
	}
	d.pending(multi)
	d.cancel(multi)
	d.wantErr(multi, unix.ECANCELED)
}

func pollMultiTwo(d *driver, a, b int) {
	first, second := d.submit(d.multi(d.poll(a, unix.POLLIN))), d.submit(d.multi(d.poll(a, unix.POLLIN)))
	for range 20 {
		m, n := len(first.more), len(second.more)
		d.feed(b, []byte("x"))
		d.until("new readiness for both", func() bool { return len(first.more) > m && len(second.more) > n })
		d.take(a, 1)
	}
	d.cancel(first)
	d.wantErr(first, unix.ECANCELED)
	n := len(second.more)
	d.feed(b, []byte("x"))
	d.until("new readiness for the second", func() bool { return len(second.more) > n })
	d.cancel(second)
	d.wantErr(second, unix.ECANCELED)
}

func pollMultiBoth(d *driver, a, b int) {
	multi := d.submit(d.multi(d.poll(a, unix.POLLIN|unix.POLLOUT)))
	seen := func(event, since int) bool {
		for _, r := range multi.more[since:] {
			if r.N&event != 0 {
				return true
			}
		}
		return false
	}
	d.until("writability at once", func() bool { return seen(unix.POLLOUT, 0) })
	n := len(multi.more)
	d.feed(b, []byte("x"))
	d.until("readability", func() bool { return seen(unix.POLLIN, n) })
	d.cancel(multi)
	d.wantErr(multi, unix.ECANCELED)
}

func pollPipeHup(d *driver) {
	r, w := d.pipe()
	poll := d.submit(d.poll(r, unix.POLLIN))
	d.pending(poll)
	d.closeFD(w)
	d.wantEvents(poll, unix.POLLHUP, unix.POLLIN|unix.POLLERR)
	d.wantEvents(d.submit(d.poll(r, unix.POLLIN)), unix.POLLHUP, unix.POLLIN)
}

func pollPipeErr(d *driver) {
	r, w := d.pipe()
	d.fill(w)
	poll := d.submit(d.poll(w, unix.POLLOUT))
	d.pending(poll)
	d.closeFD(r)
	d.wantEvents(poll, unix.POLLERR, unix.POLLIN)
	d.wantEvents(d.submit(d.poll(w, unix.POLLIN)), unix.POLLERR, unix.POLLOUT)
}

func pollListener(d *driver) {
	l := d.listener(inet4, 16)
	poll := d.submit(d.poll(l, unix.POLLIN))
	d.pending(poll)
	c := d.dial(unix.AF_INET, d.name(l))
	d.wantEvents(poll, unix.POLLIN, unix.POLLOUT)
	d.wantAccepted(d.submit(d.accept(l)), c)
}

func pollReset(d *driver) {
	a, b := d.tcp(inet4)
	poll := d.submit(d.poll(a, unix.POLLPRI))
	d.pending(poll)
	d.reset(b)
	d.wantEvents(poll, unix.POLLERR|unix.POLLHUP, unix.POLLIN)
}

func pollOther(d *driver) {
	e := d.eventfd()
	master, slave := d.pty()
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	d.ok(err, "epoll_create1")
	d.own(ep)
	r, w := d.pipe()
	d.ok(unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, r, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(r)}), "epoll_ctl")
	ops := []*op{d.poll(e, unix.POLLIN), d.poll(master, unix.POLLIN), d.poll(ep, unix.POLLIN)}
	for _, o := range ops {
		d.submit(o)
	}
	d.pending(ops...)
	d.feed(e, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	d.feed(slave, []byte("x"))
	d.feed(w, []byte("x"))
	for _, o := range ops {
		d.wantEvents(o, unix.POLLIN, unix.POLLOUT)
	}
}

// pollProc polls a file that is a regular one by its type only.
func pollProc(d *driver) {
	fd, err := unix.Open("/proc/self/mounts", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	d.ok(err, "open")
	d.own(fd)
	d.wantEvents(d.submit(d.poll(fd, unix.POLLIN)), unix.POLLIN, unix.POLLOUT)
}

func pollMultiHup(d *driver) {
	r, w := d.pipe()
	multi := d.submit(d.multi(d.poll(r, unix.POLLIN)))
	d.pending(multi)
	d.closeFD(w)
	d.until("hangup", func() bool { return multi.done || len(multi.more) > 0 })
	if !multi.done {
		d.cancel(multi)
		d.wantErr(multi, unix.ECANCELED)
	}
	saw := multi.last.N
	for _, r := range multi.more {
		saw |= r.N
	}
	if saw&unix.POLLHUP == 0 {
		d.t.Errorf("events %#x without POLLHUP", saw)
	}
}

func pollDup(d *driver) {
	a, b := d.socketpair(unix.SOCK_STREAM)
	dup, err := unix.FcntlInt(uintptr(a), unix.F_DUPFD_CLOEXEC, 0)
	d.ok(err, "dup")
	d.own(dup)
	one, two := d.submit(d.poll(a, unix.POLLIN)), d.submit(d.poll(dup, unix.POLLIN))
	d.pending(one, two)
	d.cancel(one)
	d.wantErr(one, unix.ECANCELED)
	d.feed(b, []byte("x"))
	d.wantEvents(two, unix.POLLIN, 0)
	d.wantEvents(d.submit(one), unix.POLLIN, 0)
}
