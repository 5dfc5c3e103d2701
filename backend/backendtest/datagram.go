package backendtest

import (
	"path/filepath"

	"github.com/seed-80cfe818/ringloop/backend"
	"golang.org/x/sys/unix"
)

// dgramKind makes two datagram sockets with addresses, not connected.
type dgramKind struct {
	name string
	pair func(d *driver) (a, b int)
}

func dgramKinds() []dgramKind {
	return []dgramKind{
		{"udp4", func(d *driver) (int, int) { return d.bound(inet4, unix.SOCK_DGRAM), d.bound(inet4, unix.SOCK_DGRAM) }},
		{"udp6", func(d *driver) (int, int) { return d.bound(inet6, unix.SOCK_DGRAM), d.bound(inet6, unix.SOCK_DGRAM) }},
		{"unix", func(d *driver) (int, int) {
			dir := d.dir()
			return d.unixBound(unix.SOCK_DGRAM, filepath.Join(dir, "a")), d.unixBound(unix.SOCK_DGRAM, filepath.Join(dir, "b"))
		}},
		{"abstract unix", func(d *driver) (int, int) {
			// An empty name lets the kernel choose one in the abstract namespace.
			return d.autobound(), d.autobound()
		}},
		{"blocking udp4", func(d *driver) (int, int) {
			return d.setBlocking(d.bound(inet4, unix.SOCK_DGRAM)), d.bound(inet4, unix.SOCK_DGRAM)
		}},
	}
}

func (d *driver) autobound() int {
	d.t.Helper()
	fd := d.socket(unix.AF_UNIX, unix.SOCK_DGRAM)
	d.ok(unix.Bind(fd, &unix.SockaddrUnix{}), "binding to an abstract name")
	return fd
}

func datagramTests() []test {
	var all []test
	for _, p := range []pairTest{
		{"recvmsg tells the sender", dgramSender},
		{"sendmsg goes to the address", dgramAddressed},
		{"an exchange keeps the borders of messages", dgramBorders},
		{"an empty datagram is sent and received", dgramEmpty},
		{"recvmsg without memory takes a datagram", dgramNoMemory},
		{"what does not fit is cut off", dgramTruncated},
		{"many queued recvmsg take one datagram each, in order", dgramQueue},
		{"send and recv work when connected", dgramConnected},
		{"pieces become one datagram", dgramPieces},
		{"the order of sends is kept", dgramOrder},
	} {
		for _, k := range dgramKinds() {
			all = append(all, test{name: "datagram/" + p.name + "/" + k.name, fn: func(d *driver) {
				a, b := k.pair(d)
				p.fn(d, a, b)
			}})
		}
	}
	return append(all, single("datagram", []test{
		{name: "a datagram that is too large is EMSGSIZE", fn: dgramTooLarge},
		{name: "a closed port is ECONNREFUSED for the next operation", fn: dgramRefused},
		{name: "a waiting recv hears of a closed port", fn: dgramRefusedWaiting},
		{name: "a missing unix path is ENOENT", fn: dgramNoPath},
		{name: "an unnamed unix sender has an empty address", fn: dgramUnnamed},
		{name: "a send waits for room in the peer's queue", fn: dgramFull},
	})...)
}

// sendTo sends b as one datagram with a plain system call.
func (d *driver) sendTo(from, to int, b []byte) {
	d.t.Helper()
	d.ok(unix.Sendto(from, b, 0, d.name(to)), "sendto")
}

func (d *driver) wantAddr(o *op, of int) {
	d.t.Helper()
	want := d.addr(of)
	if got := o.Ext.Addr; got.Len != want.Len || got.Raw != want.Raw {
		// Bytes after Len do not count.
		if got.Len > backend.AddrCap || got.Len != want.Len || string(got.Raw[:got.Len]) != string(want.Raw[:want.Len]) {
			d.t.Errorf("%s: address %q (%d), want %q (%d)", o, got.Raw[:min(got.Len, 64)], got.Len, want.Raw[:want.Len], want.Len)
		}
	}
}

func dgramSender(d *driver, a, b int) {
	waiting := d.submit(stale(d.recvmsg(a, 100)))
	d.pending(waiting)
	d.sendTo(b, a, []byte("hello"))
	d.wantBytes(waiting, []byte("hello"))
	d.wantAddr(waiting, b)
	d.sendTo(a, a, []byte("myself"))
	there := d.submit(stale(d.recvmsg(a, 100)))
	d.wantBytes(there, []byte("myself"))
	d.wantAddr(there, a)
}

func dgramAddressed(d *driver, a, b int) {
	msg := d.sendmsg(a, []byte("to "), []byte("you"))
	msg.Ext.Addr = d.addr(b)
	d.wantN(d.submit(msg), 6)
	buf := make([]byte, 100)
	d.ok(d.ready(b, unix.POLLIN), "waiting for the datagram")
	n, _, err := unix.Recvfrom(b, buf, 0)
	if err != nil || string(buf[:n]) != "to you" {
		d.t.Errorf("the peer got %q, %v", buf[:max(n, 0)], err)
	}
	if want := d.addr(b); msg.Ext.Addr != want {
		d.t.Error("the address was changed")
	}
}

func dgramBorders(d *driver, a, b int) {
	recv, answer := d.recvmsg(a, 2000), d.sendmsg(a, nil)
	for i := range 100 {
		msg := bytesOf(1+i*10, int64(i))
		d.submit(recv)
		d.sendTo(b, a, msg)
		d.wantBytes(recv, msg)
		answer.Ext.Bufs[0], answer.Ext.Addr = recv.bytes(), recv.Ext.Addr
		d.wantN(d.submit(answer), len(msg))
		if got := d.take(b, len(msg)); string(got) != string(msg) {
			d.t.Fatalf("message %d came back changed", i)
		}
	}
}

func dgramEmpty(d *driver, a, b int) {
	waiting := d.submit(d.recvmsg(a, 10))
	d.pending(waiting)
	d.sendTo(b, a, nil)
	d.wantN(waiting, 0)
	d.wantAddr(waiting, b)
	d.ok(unix.Connect(a, d.name(b)), "connect")
	d.wantN(d.submit(d.send(a, nil)), 0)
	d.wantN(d.submit(d.send(a, []byte{})), 0)
	d.wantN(d.submit(d.sendmsg(a)), 0)
	d.wantN(d.submit(d.sendmsg(a, nil, []byte{})), 0)
	d.wantN(d.submit(d.send(a, []byte("end"))), 3)
	for _, want := range []int{0, 0, 0, 0, 3} {
		if n, err := d.get(b, make([]byte, 10)); n != want || err != nil {
			d.t.Errorf("the peer got %d bytes, %v; want %d", n, err, want)
		}
	}
}

func dgramNoMemory(d *driver, a, b int) {
	o := d.recvmsg(a, 0)
	o.Buf = nil
	d.submit(o)
	d.sendTo(b, a, []byte("lost"))
	d.sendTo(b, a, []byte("kept"))
	d.wantN(o, 0)
	d.wantAddr(o, b)
	d.wantBytes(d.submit(d.recvmsg(a, 10)), []byte("kept"))
}

func dgramTruncated(d *driver, a, b int) {
	d.sendTo(b, a, []byte("0123456789"))
	d.sendTo(b, a, []byte("next"))
	d.wantBytes(d.submit(d.recvmsg(a, 4)), []byte("0123"))
	d.wantBytes(d.submit(d.recvmsg(a, 4)), []byte("next"))
	d.sendTo(b, a, []byte("0123456789"))
	d.wantBytes(d.submit(d.recv(a, 3)), []byte("012"))
}

func dgramQueue(d *driver, a, b int) {
	ops := make([]*op, 10)
	for i := range ops {
		ops[i] = d.submit(d.recvmsg(a, 10))
	}
	d.pending(ops...)
	for i := range ops {
		d.sendTo(b, a, []byte{byte(i)})
	}
	for i, o := range ops {
		d.wantBytes(o, []byte{byte(i)})
		d.wantAddr(o, b)
	}
}

func dgramConnected(d *driver, a, b int) {
	d.ok(unix.Connect(a, d.name(b)), "connect")
	d.ok(unix.Connect(b, d.name(a)), "connect")
	recv, lent := d.submit(d.recv(a, 10)), d.submit(d.recv(a, 0))
	d.pending(recv, lent)
	d.feed(b, []byte("one"))
	d.feed(b, []byte("two"))
	d.wantBytes(recv, []byte("one"))
	d.wantBytes(lent, []byte("two"))
	d.wantN(d.submit(d.send(a, []byte("back"))), 4)
	if got := string(d.take(b, 4)); got != "back" {
		d.t.Errorf("the peer got %q", got)
	}
}

func dgramPieces(d *driver, a, b int) {
	pieces := make([][]byte, backend.MaxBufs)
	for i := range pieces {
		pieces[i] = bytesOf(i%3, int64(3*i))
	}
	msg := d.sendmsg(a, pieces...)
	msg.Ext.Addr = d.addr(b)
	var want []byte
	for _, p := range pieces {
		want = append(want, p...)
	}
	d.wantN(d.submit(msg), len(want))
	buf := make([]byte, len(want)+1)
	n, err := d.get(b, buf)
	if err != nil || string(buf[:n]) != string(want) {
		d.t.Errorf("the peer got %d bytes, %v; want %d", n, err, len(want))
	}
}

func dgramOrder(d *driver, a, b int) {
	ops := make([]*op, 8)
	for i := range ops {
		ops[i] = d.sendmsg(a, []byte{byte(i)})
		ops[i].Ext.Addr = d.addr(b)
		d.submit(ops[i])
	}
	d.all(ops...)
	for i := range ops {
		if got := d.take(b, 1); got[0] != byte(i) {
			d.t.Errorf("datagram %d came as number %d", got[0], i)
		}
	}
}

func dgramTooLarge(d *driver) {
	a, b := d.bound(inet4, unix.SOCK_DGRAM), d.bound(inet4, unix.SOCK_DGRAM)
	msg := d.sendmsg(a, make([]byte, 70000))
	msg.Ext.Addr = d.addr(b)
	d.submit(msg)
	d.wantErr(msg, unix.EMSGSIZE)
	d.ok(unix.Connect(a, d.name(b)), "connect")
	d.wantErr(d.submit(d.send(a, make([]byte, 70000))), unix.EMSGSIZE)
}

func dgramRefused(d *driver) {
	a, b := d.bound(inet4, unix.SOCK_DGRAM), d.bound(inet4, unix.SOCK_DGRAM)
	d.ok(unix.Connect(a, d.name(b)), "connect")
	d.closeFD(b)
	d.wantN(d.submit(d.send(a, []byte("x"))), 1)
	d.wantErr(d.submit(d.recv(a, 10)), unix.ECONNREFUSED)
	d.wantN(d.submit(d.send(a, []byte("x"))), 1)
	d.ok(d.ready(a, 0), "the answer that nobody listens") // as an error, which is always reported
	d.wantErr(d.submit(d.send(a, []byte("x"))), unix.ECONNREFUSED)
}

func dgramRefusedWaiting(d *driver) {
	a, b := d.bound(inet4, unix.SOCK_DGRAM), d.bound(inet4, unix.SOCK_DGRAM)
	d.ok(unix.Connect(a, d.name(b)), "connect")
	d.closeFD(b)
	recv := d.submit(d.recvmsg(a, 10))
	d.pending(recv)
	d.wantN(d.submit(d.send(a, []byte("x"))), 1)
	d.wantErr(recv, unix.ECONNREFUSED)
}

func dgramNoPath(d *driver) {
	dir := d.dir()
	a := d.unixBound(unix.SOCK_DGRAM, filepath.Join(dir, "a"))
	msg := d.sendmsg(a, []byte("x"))
	d.ok(msg.Ext.Addr.SetUnix(filepath.Join(dir, "missing")), "making the address")
	d.submit(msg)
	d.wantErr(msg, unix.ENOENT)
}

func dgramUnnamed(d *driver) {
	a := d.unixBound(unix.SOCK_DGRAM, filepath.Join(d.dir(), "a"))
	b := d.socket(unix.AF_UNIX, unix.SOCK_DGRAM)
	waiting := d.submit(stale(d.recvmsg(a, 10)))
	d.sendTo(b, a, []byte("x"))
	d.wantBytes(waiting, []byte("x"))
	if path, ok := waiting.Ext.Addr.Unix(); waiting.Ext.Addr.Len != 0 && (!ok || path != "") {
		d.t.Errorf("the sender is %q, %v, %d bytes", path, ok, waiting.Ext.Addr.Len)
	}
}

func dgramFull(d *driver) {
	a, b := d.socketpair(unix.SOCK_DGRAM)
	n := 0
	for ; ; n++ {
		err := unix.Send(a, []byte{byte(n)}, 0)
		if err == unix.EAGAIN {
			break
		}
		d.ok(err, "filling the queue")
	}
	waiting, msg := d.submit(d.send(a, []byte("s"))), d.submit(d.sendmsg(a, []byte("m")))
	d.pending(waiting, msg)
	for i := range n {
		if got := d.take(b, 1); got[0] != byte(i) {
			d.t.Fatalf("datagram %d is %d", i, got[0])
		}
	}
	d.wantN(waiting, 1)
	d.wantN(msg, 1)
	if got := string(d.take(b, 1)) + string(d.take(b, 1)); got != "sm" {
		d.t.Errorf("the peer got %q", got)
	}
}
