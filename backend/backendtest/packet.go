package backendtest

import (
	"github.com/seed-80cfe818/ringloop/backend"
	"golang.org/x/sys/unix"
)

// packetKinds are the sockets of which a packet that does not fit is cut off.
func packetKinds() []dgramKind {
	return append(dgramKinds(), dgramKind{"seqpacket", func(d *driver) (int, int) { return d.socketpair(unix.SOCK_SEQPACKET) }})
}

func packetTests() []test {
	var all []test
	for _, p := range []pairTest{
		{"one that waits gets what arrives, and its sender", packetWaiting},
		{"what is there can be tried", packetTried},
		{"several take one packet each, in order", packetQueue},
		{"what does not fit is cut off", packetTruncated},
		{"one that is cancelled has taken nothing", packetCancelled},
		{"one that was taken by somebody else is waited for", packetStolen},
	} {
		for _, k := range packetKinds() {
			all = append(all, test{name: "packet at delivery/" + p.name + "/" + k.name, fn: func(d *driver) {
				a, b := k.pair(d)
				p.fn(d, a, b)
			}})
		}
	}
	return append(all, single("packet at delivery", []test{
		{name: "errors are told", fn: packetErrors},
		{name: "an error is told after one that somebody else has taken", fn: packetErrorStolen},
		{name: "the end of a seqpacket is told", fn: packetEnd},
		{name: "a close ends the wait", fn: packetClosed},
	})...)
}

// atDelivery makes both kinds of operation, with n bytes.
func (d *driver) atDelivery(fd, n int) []*op {
	ops := []*op{d.recv(fd, n), d.recvmsg(fd, n)}
	for _, o := range ops {
		o.Flags |= backend.AtDelivery
	}
	return ops
}

// waitingAtDelivery submits both, which have to wait.
func (d *driver) waitingAtDelivery(fd int) []*op {
	d.t.Helper()
	ops := d.atDelivery(fd, 10)
	for _, o := range ops {
		d.submit(o)
	}
	d.pending(ops...)
	return ops
}

// passPacket sends a packet with a plain system call.
func (d *driver) passPacket(from, to int, p []byte) {
	d.t.Helper()
	if typ, err := unix.GetsockoptInt(from, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || typ == unix.SOCK_SEQPACKET {
		d.ok(err, "the type of a socket")
		d.feed(from, p)
		return
	}
	d.sendTo(from, to, p)
}

// wantSender expects the address of a sender that has one.
func (d *driver) wantSender(o *op, of int) {
	d.t.Helper()
	if o.Ext != nil && d.addr(of).Len > 2 { // more than the family
		d.wantAddr(o, of)
	}
}

func packetWaiting(d *driver, a, b int) {
	for _, o := range d.atDelivery(a, 100) {
		if o.Ext != nil {
			stale(o)
		}
		d.pending(d.submit(o))
		d.passPacket(b, a, []byte("hello"))
		d.wantBytes(o, []byte("hello"))
		d.wantSender(o, b)
	}
}

func packetTried(d *driver, a, b int) {
	for _, o := range d.atDelivery(a, 100) {
		if r, ok := d.try(o); ok {
			d.t.Errorf("Try of %s did something: %+v", o, r)
		}
		d.passPacket(b, a, []byte("hello"))
		d.ok(d.ready(a, unix.POLLIN), "waiting for the packet")
		if r := d.attempt(o); r.N != 5 || string(o.Buf[:5]) != "hello" {
			d.t.Errorf("%s: %+v", o, r)
		}
	}
}

func packetQueue(d *driver, a, b int) {
	var ops []*op
	for range 5 {
		ops = append(ops, d.atDelivery(a, 10)...)
	}
	for _, o := range ops {
		d.submit(o)
	}
	d.pending(ops...)
	for i := range ops {
		d.passPacket(b, a, []byte{byte(i)})
	}
	for i, o := range ops {
		d.wantBytes(o, []byte{byte(i)})
	}
}

func packetTruncated(d *driver, a, b int) {
	for _, o := range d.atDelivery(a, 4) {
		d.passPacket(b, a, []byte("0123456789"))
		d.passPacket(b, a, []byte("next"))
		d.wantBytes(d.submit(o), []byte("0123"))
		d.wantBytes(d.submit(o.fresh()), []byte("next"))
	}
}

func packetCancelled(d *driver, a, b int) {
	want := []byte("0123456789")
	for range 20 {
		for _, o := range d.atDelivery(a, 4) {
			d.submit(o)
			d.turn(0)
			d.passPacket(b, a, want)
			d.wait(safety) // it is there but not delivered
			d.cancel(o)
			d.wantErr(o, unix.ECANCELED)
			whole := d.recvmsg(a, 100)
			d.wantBytes(d.submit(whole), want)
			d.wantSender(whole, b)
		}
	}
}

func packetStolen(d *driver, a, b int) {
	for _, o := range d.atDelivery(a, 100) {
		d.submit(o)
		d.turn(0)
		d.passPacket(b, a, []byte("stolen"))
		d.wait(safety)
		if got := d.take(a, 6); string(got) != "stolen" {
			d.t.Fatalf("took %q", got)
		}
		d.pending(o)
		d.passPacket(b, a, []byte("mine"))
		d.wantBytes(o, []byte("mine"))
	}
}

func packetErrors(d *driver) {
	listener := d.socket(unix.AF_UNIX, unix.SOCK_SEQPACKET)
	for _, o := range d.atDelivery(listener, 10) { // which nothing ever arrives at
		d.wantErr(d.submit(o), unix.ENOTCONN)
	}
	udp := d.refused()
	for _, o := range d.atDelivery(udp, 10) {
		d.pending(d.submit(o))
		d.feed(udp, []byte("x"))
		d.wantErr(o, unix.ECONNREFUSED)
	}
}

// refused returns a UDP socket whose peer's port is closed.
func (d *driver) refused() int {
	d.t.Helper()
	udp, closed := d.bound(inet4, unix.SOCK_DGRAM), d.bound(inet4, unix.SOCK_DGRAM)
	d.ok(unix.Connect(udp, d.name(closed)), "connect")
	d.closeFD(closed)
	return udp
}

func packetErrorStolen(d *driver) {
	udp := d.refused()
	for _, o := range d.atDelivery(udp, 10) {
		d.pending(d.submit(o))
		d.feed(udp, []byte("x"))
		d.wait(safety)
		if errno, err := unix.GetsockoptInt(udp, unix.SOL_SOCKET, unix.SO_ERROR); errno != int(unix.ECONNREFUSED) {
			d.t.Fatalf("took the error %d, %v", errno, err)
		}
		d.pending(o)
		d.feed(udp, []byte("x"))
		d.wantErr(o, unix.ECONNREFUSED)
	}
}

func packetEnd(d *driver) {
	a, b := d.socketpair(unix.SOCK_SEQPACKET)
	ops := d.waitingAtDelivery(a)
	d.closeFD(b)
	for _, o := range ops {
		d.wantN(o, 0)
	}
}

func packetClosed(d *driver) {
	a, _ := d.socketpair(unix.SOCK_DGRAM)
	ops := d.waitingAtDelivery(a)
	d.closedByOp(a)
	for _, o := range ops {
		d.wantErr(o, unix.ECANCELED)
	}
}
