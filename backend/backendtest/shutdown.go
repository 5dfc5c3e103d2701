package backendtest

import (
	"slices"

	"golang.org/x/sys/unix"
)

func shutdownTests() []test {
	return slices.Concat(over("shutdown", streams, []pairTest{
		{"of writing is the end of the stream for the peer", shutdownWrite},
		{"of reading ends a waiting recv with 0", shutdownRead},
		{"of both directions ends everything", shutdownBoth},
	}), single("shutdown", []test{
		{name: "of a socket without connection is ENOTCONN", fn: func(d *driver) {
			d.wantErr(d.submit(d.shutdown(d.socket(unix.AF_INET, unix.SOCK_STREAM), unix.SHUT_WR)), unix.ENOTCONN)
		}},
		{name: "of reading ends everything that waits for packets with 0", fn: shutdownPackets},
		{name: "of a waiting listener ends its accepts with EINVAL", fn: shutdownListener},
		{name: "of a listener leaves what had connected to accept", fn: shutdownListenerBacklog},
	}), over("shutdown", fillable, []pairTest{
		{"does not wait for a send that waits", shutdownPasses},
		{"ends a sendfile that waits", shutdownSendfile},
	}))
}

func shutdownWrite(d *driver, a, b int) {
	d.wantN(d.submit(d.send(a, []byte("end"))), 3)
	d.wantN(d.submit(d.shutdown(a, unix.SHUT_WR)), 0)
	d.take(b, 3)
	d.atEnd(b)
	d.feed(b, []byte("answer"))
	d.wantBytes(d.submit(d.recv(a, 10)), []byte("answer"))
	d.wantErr(d.submit(d.send(a, []byte("x"))), unix.EPIPE)
}

func shutdownRead(d *driver, a, b int) {
	recv := d.submit(d.recv(a, 10))
	d.pending(recv)
	d.wantN(d.submit(d.shutdown(a, unix.SHUT_RD)), 0)
	d.wantN(recv, 0)
}

func shutdownBoth(d *driver, a, b int) {
	recv, multi := d.submit(d.recv(a, 10)), d.submit(d.multi(d.recv(a, 0)))
	d.pending(recv, multi)
	d.wantN(d.submit(d.shutdown(a, unix.SHUT_RDWR)), 0)
	d.wantN(recv, 0)
	d.wantN(multi, 0)
	d.atEnd(b)
}

func shutdownPasses(d *driver, a, b int) {
	d.fill(a)
	send, queued := d.submit(d.whole(d.send(a, bytesOf(1<<20, 0)))), d.submit(d.send(a, []byte("x")))
	d.pending(send, queued)
	d.wantN(d.submit(d.shutdown(a, unix.SHUT_WR)), 0)
	d.wantErr(send, unix.EPIPE)
	d.wantErr(queued, unix.EPIPE)
}

func shutdownSendfile(d *driver, a, b int) {
	d.fillWithFile(a)
	o := d.submit(d.sendfile(a, d.file(bytesOf(100, 0)), 0, 100))
	d.pending(o)
	d.wantN(d.submit(d.shutdown(a, unix.SHUT_WR)), 0)
	d.wantErr(o, unix.EPIPE)
}

// shutdownPackets shuts down sockets without a stream, of which recv(2) tells the end
// only to those who can wait, before an operation is submitted and while it waits.
func shutdownPackets(d *driver) {
	for _, k := range dgramKinds() {
		if k.name == "udp6" {
			continue // not everywhere available
		}
		for _, early := range [...]bool{false, true} {
			a, b := k.pair(d)
			d.ok(unix.Connect(a, d.name(b)), "connect")
			ops := append(d.atDelivery(a, 10), d.recv(a, 10), d.recv(a, 0), d.recvmsg(a, 10), d.read(a, 10))
			if early {
				d.wantN(d.submit(d.shutdown(a, unix.SHUT_RD)), 0)
			}
			for _, o := range ops {
				d.submit(o)
			}
			if !early {
				d.pending(ops...)
				d.wantN(d.submit(d.shutdown(a, unix.SHUT_RD)), 0)
			}
			for _, o := range ops {
				d.wantN(o, 0)
			}
			d.closeFD(a)
			d.closeFD(b)
		}
	}
}

// shutListeners calls fn with listeners of every kind, non-blocking and blocking.
func shutListeners(d *driver, fn func(l int, multi bool)) {
	for _, blocking := range [...]bool{false, true} {
		for _, multi := range [...]bool{false, true} {
			u, path := d.unixListener(5)
			for _, l := range [...]int{u, d.listener(inet4, 5)} {
				if blocking {
					d.setBlocking(l)
				}
				fn(l, multi)
			}
			d.ok(unix.Unlink(path), "removing the socket")
		}
	}
}

func (d *driver) acceptBy(l int, multi bool) *op {
	if multi {
		return d.multi(d.accept(l))
	}
	return d.accept(l)
}

func shutdownListener(d *driver) {
	shutListeners(d, func(l int, multi bool) {
		accept := d.submit(d.acceptBy(l, multi))
		d.pending(accept)
		d.wantN(d.submit(d.shutdown(l, unix.SHUT_RD)), 0)
		d.wantErr(accept, unix.EINVAL)
		d.wantErr(d.submit(d.acceptBy(l, multi)), unix.EINVAL)
		d.wantErr(d.submit(d.accept(l)), unix.EINVAL)
	})
}

func shutdownListenerBacklog(d *driver) {
	l, path := d.unixListener(5)
	for range 2 {
		d.dial(unix.AF_UNIX, &unix.SockaddrUnix{Name: path})
	}
	d.ok(unix.Shutdown(l, unix.SHUT_RD), "shutdown")
	for range 2 {
		accept := d.submit(d.accept(l))
		d.own(d.outcome(accept).N)
	}
	d.wantErr(d.submit(d.accept(l)), unix.EINVAL)
}
