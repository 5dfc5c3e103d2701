package backendtest

import (
	"math/rand/v2"
	"slices"

	"golang.org/x/sys/unix"
)

func sendfileTests() []test {
	return slices.Concat(over("sendfile", only(streams, "tcp4", "tcp6", "unix", "blocking tcp4", "blocking socketpair"), []pairTest{
		{"a range of the file arrives", sendfileRange},
		{"the end of the file is 0", sendfileEnd},
		{"a large file arrives through a slow reader", sendfileLarge},
		{"the position of the file is not used and not moved", sendfilePosition},
		{"it keeps its place among sends", sendfileOrder},
	}), single("sendfile", []test{
		{name: "many at once from one file arrive", fn: sendfileMany},
		{name: "a reset peer ends it", fn: sendfileReset},
		{name: "what cannot be sent from fails", fn: sendfileWrongSource},
		{name: "a file that shrank ends early", fn: sendfileShrunk},
	}), over("sendfile", fillable, []pairTest{
		{"a closed peer ends it", sendfileClosed},
		{"it is cancelled while it waits, and nothing is lost", sendfileCancel},
	}))
}

func sendfileRange(d *driver, a, b int) {
	const size = 100000
	f := d.file(bytesOf(size, 0))
	for range 20 {
		off := rand.IntN(size)
		n := 1 + rand.IntN(3000)
		want := min(n, size-off)
		for sent := 0; sent < want; {
			r := d.do(d.sendfile(a, f, int64(off+sent), n-sent))
			if r.Errno != 0 || r.N == 0 {
				d.t.Fatalf("at %d: N %d, errno %v", off+sent, r.N, r.Errno)
			}
			sent += r.N
			if sent > want {
				d.t.Fatalf("%d bytes were sent of %d", sent, want)
			}
		}
		if !follows(d.take(b, want), int64(off)) {
			d.t.Fatalf("wrong bytes from %d", off)
		}
	}
}

func sendfileEnd(d *driver, a, b int) {
	f := d.file(bytesOf(1000, 0))
	d.wantN(d.submit(d.sendfile(a, f, 1000, 10)), 0)
	d.wantN(d.submit(d.sendfile(a, f, 5000, 10)), 0)
	d.wantN(d.submit(d.sendfile(a, f, 990, 1<<30)), 10)
	d.wantN(d.submit(d.sendfile(a, d.file(nil), 0, 10)), 0)
	if !follows(d.take(b, 10), 990) {
		d.t.Error("wrong bytes")
	}
	d.closeFD(a)
	d.atEnd(b)
}

func sendfileLarge(d *driver, a, b int) {
	const size = 8 << 20
	f := d.file(bytesOf(size, 0))
	d.spawn("reading", func() error { return d.getPattern(b, size) })
	for pos := int64(0); pos < size; {
		r := d.do(d.sendfile(a, f, pos, int(size-pos)))
		if r.Errno != 0 || r.N == 0 {
			d.t.Fatalf("at %d: N %d, errno %v", pos, r.N, r.Errno)
		}
		pos += int64(r.N)
	}
}

func sendfilePosition(d *driver, a, b int) {
	f := d.file(bytesOf(1000, 0))
	_, err := unix.Seek(f, 123, unix.SEEK_SET)
	d.ok(err, "seek")
	d.wantN(d.submit(d.sendfile(a, f, 0, 100)), 100)
	if !follows(d.take(b, 100), 0) {
		d.t.Error("wrong bytes")
	}
	if pos, err := unix.Seek(f, 0, unix.SEEK_CUR); pos != 123 || err != nil {
		d.t.Errorf("the position became %d, %v", pos, err)
	}
}

func sendfileOrder(d *driver, a, b int) {
	f := d.file([]byte("the file"))
	for range 10 {
		ops := []*op{
			d.send(a, []byte("before ")), d.sendfile(a, f, 0, 8), d.sendmsg(a, []byte(" between ")),
			d.sendfile(a, f, 4, 4), d.send(a, []byte(" after")),
		}
		for _, o := range ops {
			d.submit(o)
		}
		const want = "before the file between file after"
		if got := string(d.takeWhile(b, len(want))); got != want {
			d.t.Fatalf("got %q, want %q", got, want)
		}
		d.all(ops...)
	}
}

// takeWhile reads n bytes from fd on another goroutine while the backend turns.
func (d *driver) takeWhile(fd, n int) []byte {
	d.t.Helper()
	got := make([]byte, 0, n)
	d.spawn("reading", func() error {
		for len(got) < n {
			k, err := d.get(fd, got[len(got):n])
			if err != nil || k == 0 {
				return err
			}
			got = got[:len(got)+k]
		}
		return nil
	})
	d.join()
	return got
}

// fillWithFile is fill for sendfile: before 6.5 the kernel lets it add some
// pages to the last message in a unix socket that is full for anything else.
func (d *driver) fillWithFile(fd int) int {
	d.t.Helper()
	total := d.fill(fd)
	f := d.file(bytesOf(1<<20, int64(total)))
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	d.ok(err, "F_GETFL")
	d.ok(unix.SetNonblock(fd, true), "making a descriptor non-blocking")
	var off int64
	for err = nil; (err == nil || err == unix.EINTR) && off < 1<<20; {
		_, err = unix.Sendfile(fd, f, &off, 1<<20)
	}
	if err != unix.EAGAIN {
		d.t.Fatalf("sendfile: %v", err)
	}
	_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags)
	d.ok(err, "F_SETFL")
	return total + int(off)
}

func sendfileClosed(d *driver, a, b int) {
	f := d.file(bytesOf(1<<20, 0))
	d.fillWithFile(a)
	waiting := d.submit(d.sendfile(a, f, 0, 1<<20))
	d.pending(waiting)
	d.closeFD(b)
	d.wantErr(waiting, unix.EPIPE, unix.ECONNRESET)
	d.wantErr(d.submit(waiting), unix.EPIPE)
}

func sendfileCancel(d *driver, a, b int) {
	f := d.file(bytesOf(1<<20, 0))
	filled := d.fillWithFile(a)
	armed, queued := d.submit(d.sendfile(a, f, 0, 1<<20)), d.submit(d.sendfile(a, f, 0, 10))
	d.pending(armed, queued)
	d.cancel(queued)
	d.wantErr(queued, unix.ECANCELED)
	d.cancel(armed)
	d.wantErr(armed, unix.ECANCELED)
	d.ok(unix.Shutdown(a, unix.SHUT_WR), "shutdown")
	d.spawn("reading", func() error { return d.getPattern(b, int64(filled)) })
	d.join()
	d.atEnd(b)
}

func sendfileMany(d *driver) {
	const size, n = 256 << 10, 24
	f := d.file(bytesOf(size, 0))
	left := n
	for range n {
		a, b := d.tcp(inet4)
		d.spawn("reading", func() error { return d.getPattern(b, size) })
		o := d.sendfile(a, f, 0, size)
		o.on = func(r result) {
			if r.Errno != 0 || r.N == 0 {
				d.t.Errorf("at %d: N %d, errno %v", o.Off, r.N, r.Errno)
				left--
				return
			}
			o.Off += int64(r.N)
			o.Len -= r.N
			if o.Len == 0 {
				left--
				return
			}
			d.submit(o)
		}
		d.submit(o)
	}
	d.until("all files", func() bool { return left == 0 })
}

func sendfileReset(d *driver) {
	a, b := d.tcp(inet4)
	f := d.file(bytesOf(1<<20, 0))
	d.fill(a)
	waiting := d.submit(d.sendfile(a, f, 0, 1<<20))
	d.pending(waiting)
	d.reset(b)
	d.wantErr(waiting, unix.ECONNRESET, unix.EPIPE)
}

func sendfileWrongSource(d *driver) {
	a, _ := d.tcp(inet4)
	s, _ := d.socketpair(unix.SOCK_STREAM)
	for _, fd2 := range []int{d.open(d.dir(), unix.O_RDONLY), s} {
		d.wantErr(d.submit(d.sendfile(a, fd2, 0, 10)), unix.EINVAL, unix.ESPIPE, unix.EISDIR)
	}
}

func sendfileShrunk(d *driver) {
	a, b := d.tcp(inet4)
	f := d.file(bytesOf(10000, 0))
	d.wantN(d.submit(d.sendfile(a, f, 0, 100)), 100)
	d.ok(unix.Ftruncate(f, 150), "ftruncate")
	d.wantN(d.submit(d.sendfile(a, f, 100, 9900)), 50)
	d.wantN(d.submit(d.sendfile(a, f, 150, 9850)), 0)
	if !follows(d.take(b, 150), 0) {
		d.t.Error("wrong bytes")
	}
}
