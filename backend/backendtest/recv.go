package backendtest

import (
	"bytes"

	"github.com/seed-80cfe818/ringloop/backend"
	"golang.org/x/sys/unix"
)

func recvTests() []test {
	tcp := only(streams, "tcp4", "tcp6", "blocking tcp4")
	return append(over("recv", streams, []pairTest{
		{"takes what is already there", recvThere},
		{"waits for what comes later", recvLater},
		{"a small buffer leaves the rest for the next", recvPiecewise},
		{"memory of the backend is lent when no buffer is given", recvLent},
		{"large amounts arrive whole, into own memory", func(d *driver, a, b int) { recvLarge(d, a, b, 16<<10) }},
		{"large amounts arrive whole, into lent memory", func(d *driver, a, b int) { recvLarge(d, a, b, 0) }},
		{"the end of the stream is 0, again and again", recvEnd},
		{"the end of the stream comes after the last bytes", recvBytesThenEnd},
		{"a half-closed peer can still be sent to", recvHalfClosed},
		{"recvmsg works on a connected stream and has no address", recvmsgStream},
		{"the end of the stream is 0 for recvmsg", recvmsgEnd},
	}), over("recv", tcp, []pairTest{
		{"a reset is ECONNRESET for what waits", recvReset},
		{"a reset is ECONNRESET for what comes after it", recvAfterReset},
	})...)
}

func recvThere(d *driver, a, b int) {
	d.feed(b, []byte("hello"))
	d.wantBytes(d.submit(d.recv(a, 100)), []byte("hello"))
	d.feed(b, []byte("again"))
	d.wantBytes(d.submit(d.recv(a, 5)), []byte("again"))
}

func recvLater(d *driver, a, b int) {
	recv := d.recv(a, 100)
	for i := range 50 {
		d.submit(recv)
		if i%10 == 0 {
			d.pending(recv)
		}
		msg := bytesOf(1+i, int64(i))
		d.feed(b, msg)
		d.wantBytes(recv, msg)
	}
}

func recvPiecewise(d *driver, a, b int) {
	msg := bytesOf(100, 7)
	d.feed(b, msg)
	var got []byte
	for len(got) < len(msg) {
		recv := d.recv(a, 7)
		r := d.do(recv)
		if r.Errno != 0 || r.N == 0 {
			d.t.Fatalf("after %d bytes: N %d, errno %v", len(got), r.N, r.Errno)
		}
		got = append(got, recv.bytes()...)
	}
	if !bytes.Equal(got, msg) {
		d.t.Errorf("got %q, want %q", got, msg)
	}
}

func recvLent(d *driver, a, b int) {
	recv := d.recv(a, 0)
	for i := range 50 {
		msg := bytesOf(1+i, int64(i))
		if i%2 == 0 {
			d.feed(b, msg)
			d.submit(recv)
		} else {
			d.submit(recv)
			d.turn(0)
			d.feed(b, msg)
		}
		d.wantBytes(recv, msg)
	}
	d.ok(unix.Shutdown(b, unix.SHUT_WR), "shutdown")
	d.wantN(d.submit(recv), 0)
}

func recvLarge(d *driver, a, b, size int) {
	const n = 2 << 20
	d.spawn("writing", func() error { return d.putPattern(b, n) })
	recv := d.recv(a, size)
	for pos := int64(0); pos < n; {
		d.submit(recv)
		r := d.outcome(recv)
		if r.Errno != 0 || r.N == 0 || !follows(recv.bytes(), pos) {
			d.t.Fatalf("after %d bytes: N %d, errno %v, or wrong bytes", pos, r.N, r.Errno)
		}
		pos += int64(r.N)
	}
}

func recvEnd(d *driver, a, b int) {
	waiting := d.submit(d.recv(a, 10))
	d.pending(waiting)
	d.ok(unix.Shutdown(b, unix.SHUT_WR), "shutdown")
	d.wantN(waiting, 0)
	for range 3 {
		d.wantN(d.submit(d.recv(a, 10)), 0)
		d.wantN(d.submit(d.recv(a, 0)), 0)
	}
	d.closeFD(b)
	d.wantN(d.submit(d.recv(a, 10)), 0)
}

func recvBytesThenEnd(d *driver, a, b int) {
	first, second, third := d.submit(d.recv(a, 10)), d.submit(d.recv(a, 10)), d.submit(d.recv(a, 10))
	d.feed(b, []byte("last words"))
	d.closeFD(b)
	d.wantBytes(first, []byte("last words"))
	d.wantN(second, 0)
	d.wantN(third, 0)
}

func recvHalfClosed(d *driver, a, b int) {
	d.ok(unix.Shutdown(b, unix.SHUT_WR), "shutdown")
	d.wantN(d.submit(d.recv(a, 10)), 0)
	d.wantN(d.submit(d.send(a, []byte("still open"))), 10)
	if got := string(d.take(b, 10)); got != "still open" {
		d.t.Errorf("the peer got %q", got)
	}
}

// stale fills an address with what must not survive.
func stale(o *op) *op {
	for i := range o.Ext.Addr.Raw {
		o.Ext.Addr.Raw[i] = 0xee
	}
	o.Ext.Addr.Len = 99
	return o
}

func recvmsgStream(d *driver, a, b int) {
	waiting := d.submit(stale(d.recvmsg(a, 10)))
	d.pending(waiting)
	d.feed(b, []byte("hello"))
	d.wantBytes(waiting, []byte("hello"))
	d.feed(b, []byte("world"))
	there := d.submit(stale(d.recvmsg(a, 10)))
	d.wantBytes(there, []byte("world"))
	for _, o := range []*op{waiting, there} {
		// A unix stream has a sender: the unnamed or named peer.
		if f := o.Ext.Addr.Family(); f != unix.AF_UNSPEC && f != unix.AF_UNIX || o.Ext.Addr.Len == 99 {
			d.t.Errorf("%s: the address has family %#x and %d bytes", o, f, o.Ext.Addr.Len)
		}
	}
}

func recvmsgEnd(d *driver, a, b int) {
	waiting := d.submit(d.recvmsg(a, 10))
	d.pending(waiting)
	d.closeFD(b)
	d.wantN(waiting, 0)
	d.wantN(d.submit(d.recvmsg(a, 10)), 0)
}

func recvReset(d *driver, a, b int) {
	waiting := d.submit(d.recv(a, 10))
	d.pending(waiting)
	d.reset(b)
	d.wantErr(waiting, unix.ECONNRESET)
	d.wantN(d.submit(d.recv(a, 10)), 0) // the error is reported once, as by recv(2)
}

func recvAfterReset(d *driver, a, b int) {
	d.reset(b)
	d.wantErr(d.submit(d.recv(a, 0)), unix.ECONNRESET)
	d.wantErr(d.submit(d.op(backend.OpSend, a)), unix.EPIPE)
}
