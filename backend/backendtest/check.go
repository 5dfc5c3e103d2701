package backendtest

import (
	"github.com/seed-80cfe818/ringloop/backend"
	"golang.org/x/sys/unix"
)

func checkTests() []test {
	return single("check", []test{
		{name: "operands that do not fit are refused and nothing happens", fn: refusesMisfits},
		{name: "a negative descriptor is refused with EBADF", fn: refusesNegativeFD},
		{name: "an operation in flight is refused and goes on", fn: refusesInFlight},
		{name: "a descriptor that is not open completes with EBADF", fn: badFDCompletes},
		{name: "the wrong kind of descriptor completes with the kernel's error", fn: wrongKindCompletes},
		{name: "so does one that is blocking", fn: wrongBlockingKindCompletes},
	})
}

// misfit is an operation that Submit has to refuse.
type misfit struct {
	why    string
	code   backend.Code
	change func(o *op)
}

func misfits() []misfit {
	list := []misfit{
		{"no Receiver", backend.OpNop, func(o *op) { o.Receiver = nil }},
		{"unknown code", backend.Code(backend.NumCodes), func(*op) {}},
		{"connect without Ext", backend.OpConnect, func(o *op) { o.Ext = nil }},
		{"connect without address", backend.OpConnect, func(o *op) { o.Ext.Addr.Len = 0 }},
		{"recv into an empty buffer", backend.OpRecv, func(o *op) { o.Buf = o.Buf[:0] }},
		{"multishot recv into a buffer", backend.OpRecv, func(o *op) { o.Flags = backend.Multishot }},
		{"recvmsg without Ext", backend.OpRecvMsg, func(o *op) { o.Ext = nil }},
		{"sendmsg without Ext", backend.OpSendMsg, func(o *op) { o.Ext = nil }},
		{"sendmsg of too many pieces", backend.OpSendMsg, func(o *op) { o.Ext.Bufs = make([][]byte, backend.MaxBufs+1) }},
		{"read into no buffer", backend.OpRead, func(o *op) { o.Buf = nil }},
		{"read into an empty buffer", backend.OpRead, func(o *op) { o.Buf = o.Buf[:0] }},
		{"read before the file", backend.OpRead, func(o *op) { o.Off = -2 }},
		{"write before the file", backend.OpWrite, func(o *op) { o.Off = -1 << 63 }},
		{"poll for nothing", backend.OpPoll, func(o *op) { o.Arg = 0 }},
		{"sendfile from a negative descriptor", backend.OpSendfile, func(o *op) { o.FD2 = -1 }},
		{"sendfile from a negative offset", backend.OpSendfile, func(o *op) { o.Off = -1 }},
		{"sendfile of nothing", backend.OpSendfile, func(o *op) { o.Len = 0 }},
		{"sendfile of a negative length", backend.OpSendfile, func(o *op) { o.Len = -1 }},
		{"waitid without Ext", backend.OpWaitID, func(o *op) { o.Ext = nil }},
	}
	for code := range backend.NumCodes {
		switch c := backend.Code(code); c {
		case backend.OpAccept, backend.OpRecv, backend.OpPoll:
		default:
			list = append(list, misfit{"multishot " + c.String(), c, func(o *op) { o.Flags = backend.Multishot }})
		}
	}
	return list
}

func refusesMisfits(d *driver) {
	a, b := d.socketpair(unix.SOCK_STREAM)
	d.feed(b, []byte("x"))
	for _, m := range misfits() {
		o := d.operands(m.code, a)
		m.change(o)
		d.refuse(o, backend.ErrInvalid)
		d.refuse(o, unix.EINVAL)
		if r, ok := d.try(o); ok {
			d.t.Errorf("%s: Try did it: %+v", m.why, r)
		}
		if o.Op.InFlight() {
			d.t.Errorf("%s: it is in flight", m.why)
		}
	}
	d.wantBytes(d.submit(d.recv(a, 8)), []byte("x"))
}

func refusesNegativeFD(d *driver) {
	for code := range backend.NumCodes {
		if backend.Code(code) == backend.OpNop {
			continue
		}
		for _, fd := range []int{-1, -100} {
			o := d.operands(backend.Code(code), fd)
			o.FD2 = 0
			d.refuse(o, backend.ErrBadFD)
			d.refuse(o, unix.EBADF)
			if r, ok := d.try(o); ok {
				d.t.Errorf("Try of %s: %+v", o, r)
			}
		}
	}
}

func refusesInFlight(d *driver) {
	a, b := d.socketpair(unix.SOCK_STREAM)
	armed, queued := d.submit(d.recv(a, 4)), d.submit(d.recv(a, 4))
	for range 2 {
		for _, o := range []*op{armed, queued} {
			d.refuse(o, backend.ErrInFlight)
			if r, ok := d.be.Try(&o.Op); ok {
				d.t.Errorf("Try of %s in flight: %+v", o, r)
			}
		}
		d.pending(armed, queued)
	}
	d.feed(b, []byte("abcdefgh"))
	d.wait(safety) // the completion is there, but not delivered
	d.refuse(armed, backend.ErrInFlight)
	d.wantBytes(armed, []byte("abcd"))
	d.wantBytes(queued, []byte("efgh"))
}

func badFDCompletes(d *driver) {
	bad := d.badFD()
	file := d.file(bytesOf(10, 0))
	for code := range backend.NumCodes {
		o := d.operands(backend.Code(code), bad)
		switch o.Code {
		case backend.OpNop:
			continue
		case backend.OpSendfile:
			o.FD2 = int32(file)
		}
		d.submit(o)
		d.wantErr(o, unix.EBADF)
	}
	for _, o := range []*op{
		d.readAt(bad, 8, 0), d.writeAt(bad, []byte("x"), 0), d.recv(bad, 0),
		d.multi(d.recv(bad, 0)), d.multi(d.op(backend.OpAccept, bad)), d.multi(d.poll(bad, unix.POLLIN)),
	} {
		d.submit(o)
		d.wantErr(o, unix.EBADF)
	}
}

func wrongBlockingKindCompletes(d *driver) {
	r, w := d.pipe()
	tcp := d.setBlocking(d.socket(unix.AF_INET, unix.SOCK_STREAM))
	l := d.setBlocking(d.listener(inet4, 1))
	a, _ := d.socketpair(unix.SOCK_STREAM)
	dgram, _ := d.socketpair(unix.SOCK_DGRAM)
	for _, fd := range []int{r, w, a, dgram} {
		d.setBlocking(fd)
	}
	for _, tc := range []struct {
		o     *op
		errno unix.Errno
	}{
		{d.read(w, 8), unix.EBADF},
		{d.write(r, []byte("x")), unix.EBADF},
		{d.read(l, 8), unix.ENOTCONN},
		{d.accept(r), unix.ENOTSOCK},
		{d.accept(a), unix.EINVAL},
		{d.multi(d.op(backend.OpAccept, a)), unix.EINVAL},
		{d.accept(tcp), unix.EINVAL},
		{d.accept(dgram), unix.EOPNOTSUPP},
	} {
		d.wantErr(d.submit(tc.o), tc.errno)
	}
}

func wrongKindCompletes(d *driver) {
	r, w := d.pipe()
	d.feed(w, []byte("x"))
	file := d.file(bytesOf(10, 0))
	tcp := d.socket(unix.AF_INET, unix.SOCK_STREAM)
	l := d.listener(inet4, 1)
	dir := d.open(d.dir(), unix.O_RDONLY)
	dgram, _ := d.socketpair(unix.SOCK_DGRAM)
	a, _ := d.socketpair(unix.SOCK_STREAM)
	var addr backend.Addr
	d.ok(addr.SetUnix("/nowhere"), "making the address")
	for _, tc := range []struct {
		o     *op
		errno unix.Errno
	}{
		{d.recv(r, 8), unix.ENOTSOCK},
		{d.recv(file, 8), unix.ENOTSOCK},
		{d.recv(file, 0), unix.ENOTSOCK},
		{d.multi(d.recv(file, 0)), unix.ENOTSOCK},
		{d.recvmsg(file, 8), unix.ENOTSOCK},
		{d.send(w, []byte("x")), unix.ENOTSOCK},
		{d.sendmsg(file, []byte("x")), unix.ENOTSOCK},
		{d.accept(file), unix.ENOTSOCK},
		{d.multi(d.op(backend.OpAccept, file)), unix.ENOTSOCK},
		{d.connect(file, addr), unix.ENOTSOCK},
		{d.shutdown(file, unix.SHUT_RD), unix.ENOTSOCK},
		{d.accept(tcp), unix.EINVAL},
		{d.multi(d.op(backend.OpAccept, tcp)), unix.EINVAL},
		{d.accept(dgram), unix.EOPNOTSUPP},
		{d.recv(tcp, 8), unix.ENOTCONN},
		{d.recv(l, 8), unix.ENOTCONN},
		{d.recv(l, 0), unix.ENOTCONN},
		{d.multi(d.recv(l, 0)), unix.ENOTCONN},
		{d.multi(d.op(backend.OpAccept, a)), unix.EINVAL},
		{d.readAt(dir, 8, 0), unix.EISDIR},
		{d.read(dir, 8), unix.EISDIR},
		{d.read(w, 8), unix.EBADF},
		{d.write(r, []byte("x")), unix.EBADF},
		{d.waitid(r), unix.EBADF},
		{d.sendfile(a, w, 0, 1), unix.EBADF},
		{d.sendfile(a, d.badFD(), 0, 1), unix.EBADF},
		{d.shutdown(a, 77), unix.EINVAL},
		{d.poll(file, unix.POLLIN), unix.EPERM},
		{d.multi(d.poll(file, unix.POLLIN)), unix.EPERM},
		{d.poll(dir, unix.POLLIN|unix.POLLOUT), unix.EPERM},
	} {
		d.submit(tc.o)
		if r := d.outcome(tc.o); r.Errno != tc.errno {
			d.t.Errorf("%s (fd2 %d): N %d, errno %v; want %v", tc.o, tc.o.FD2, r.N, r.Errno, tc.errno)
		}
	}
}
