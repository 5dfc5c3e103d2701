package backendtest

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"

	"github.com/seed-80cfe818/ringloop/backend"
	"golang.org/x/sys/unix"
)

func readTests() []test {
	return slices.Concat(over("read", readable, []pairTest{
		{"takes what is already there", readThere},
		{"waits for what comes later", readLater},
		{"many queued reads take the bytes in order", readQueue},
	}), over("read", only(readable, "pipe", "fifo", "socketpair", "tcp4", "blocking pipe"), []pairTest{
		{"the end of the stream is 0 for what waits and what comes", readEnd},
		{"large amounts arrive whole", readLarge},
	}), single("read", []test{
		{name: "a file is read at its offsets", fn: readFile},
		{name: "a file is read on from its position, in order", fn: readFilePosition},
		{name: "reads at offsets do not move the position", fn: readKeepsPosition},
		{name: "reads at offsets do not wait for each other", fn: readManyOffsets},
		{name: "an eventfd gives its counter", fn: readEventfd},
		{name: "the hangup of a terminal is EIO", fn: readHangup},
		{name: "of a blocking socket with queued errors does not block the thread", fn: readQueuedErrors},
	}))
}

func writeTests() []test {
	return slices.Concat(over("write", writable, []pairTest{
		{"what is written arrives", writeArrives},
		{"an empty write is 0", func(d *driver, a, _ int) { d.wantN(d.submit(d.write(a, nil)), 0) }},
	}), over("write", only(writable, "pipe", "fifo", "socketpair", "tcp4", "blocking pipe", "blocking socketpair"), []pairTest{
		{"waits for room", writeWaits},
		{"a closed reader is EPIPE for what waits and what comes", writeEPIPE},
		{"queued writes keep their order", writeQueue},
	}), single("write", []test{
		{name: "a file is written at its offsets", fn: writeFile},
		{name: "a file is written on from its position, in order", fn: writeFilePosition},
		{name: "a large write and read of a file are exact", fn: writeFileLarge},
		{name: "to a blocking pipe more than it holds does not block the thread", fn: writeBlockingPipe},
		{name: "to a pipe made blocking while it waits does not block the thread", fn: writeMadeBlocking},
		{name: "to a blocking terminal more than it holds does not block the thread", fn: writeBlockingTerminal},
		{name: "to a blocking eventfd more than it holds does not block the thread", fn: writeBlockingEventfd},
		{name: "to a blocking packet socket does not cut the packet", fn: writeBlockingPackets},
		{name: "a read-only file is EBADF", fn: writeReadOnly},
	}))
}

func readThere(d *driver, a, b int) {
	d.feed(b, []byte("hello"))
	d.wantBytes(d.submit(d.read(a, 100)), []byte("hello"))
}

func readLater(d *driver, a, b int) {
	read := d.read(a, 100)
	for i := range 20 {
		d.submit(read)
		if i%5 == 0 {
			d.pending(read)
		}
		msg := bytesOf(1+i, int64(i))
		d.feed(b, msg)
		d.wantBytes(read, msg)
	}
}

func readQueue(d *driver, a, b int) {
	ops := make([]*op, 20)
	for i := range ops {
		ops[i] = d.submit(d.read(a, 5))
	}
	d.pending(ops...)
	d.feed(b, bytesOf(100, 0))
	for i, o := range ops {
		d.wantBytes(o, bytesOf(5, int64(5*i)))
	}
}

func readEnd(d *driver, a, b int) {
	waiting, queued := d.submit(d.read(a, 10)), d.submit(d.read(a, 10))
	d.pending(waiting, queued)
	d.closeFD(b)
	d.wantN(waiting, 0)
	d.wantN(queued, 0)
	d.wantN(d.submit(d.read(a, 10)), 0)
}

func readLarge(d *driver, a, b int) {
	const n = 2 << 20
	d.spawn("writing", func() error { return d.putPattern(b, n) })
	read := d.read(a, 32<<10)
	for pos := int64(0); pos < n; {
		r := d.do(read)
		if r.Errno != 0 || r.N == 0 || !follows(read.bytes(), pos) {
			d.t.Fatalf("after %d bytes: N %d, errno %v, or wrong bytes", pos, r.N, r.Errno)
		}
		pos += int64(r.N)
	}
}

func readFile(d *driver) {
	const size = 10000
	f := d.file(bytesOf(size, 0))
	for _, tc := range []struct{ off, n, want int }{
		{0, 100, 100}, {5000, 100, 100}, {size - 50, 100, 50}, {size, 100, 0}, {size + 100, 100, 0}, {0, 2 * size, size}, {1, 1, 1},
	} {
		read := d.submit(d.readAt(f, tc.n, int64(tc.off)))
		d.wantN(read, tc.want)
		if !follows(read.bytes(), int64(tc.off)) {
			d.t.Errorf("wrong bytes at %d", tc.off)
		}
	}
}

func readFilePosition(d *driver) {
	f := d.file(bytesOf(1000, 0))
	ops := make([]*op, 12)
	for i := range ops {
		ops[i] = d.submit(d.read(f, 100))
	}
	for i, o := range ops {
		want := 100
		if i >= 10 {
			want = 0
		}
		d.wantN(o, want)
		if !follows(o.bytes(), int64(100*i)) {
			d.t.Errorf("read %d got bytes from elsewhere", i)
		}
	}
}

func readKeepsPosition(d *driver) {
	f := d.file(bytesOf(1000, 0))
	d.wantBytes(d.submit(d.read(f, 10)), bytesOf(10, 0))
	d.wantBytes(d.submit(d.readAt(f, 10, 500)), bytesOf(10, 500))
	d.wantBytes(d.submit(d.read(f, 10)), bytesOf(10, 10))
}

func readManyOffsets(d *driver) {
	f := d.file(bytesOf(64<<10, 0))
	ops := make([]*op, 256)
	for i := range ops {
		ops[i] = d.submit(d.readAt(f, 256, int64(i*256)))
	}
	for i, o := range ops {
		d.wantBytes(o, bytesOf(256, int64(i*256)))
	}
}

func readEventfd(d *driver) {
	e := d.eventfd()
	read := d.submit(d.read(e, 8))
	d.pending(read)
	d.wantN(d.submit(d.write(e, []byte{5, 0, 0, 0, 0, 0, 0, 0})), 8)
	d.wantBytes(read, []byte{5, 0, 0, 0, 0, 0, 0, 0})
	d.pending(d.submit(read))
	d.cancel(read)
	d.wantErr(read, unix.ECANCELED)
}

func readHangup(d *driver) {
	master, slave := d.pty()
	read := d.submit(d.read(master, 10))
	d.pending(read)
	d.closeFD(slave)
	d.wantErr(read, unix.EIO)
}

// readQueuedErrors reads from a socket that polls as ready for errors of which only
// recvmsg(2) with MSG_ERRQUEUE tells.
func readQueuedErrors(d *driver) {
	a := d.setBlocking(d.refused())
	d.ok(unix.SetsockoptInt(a, unix.IPPROTO_IP, unix.IP_RECVERR, 1), "IP_RECVERR")
	d.feed(a, []byte("x"))
	d.ok(d.ready(a, 0), "the answer that nobody listens") // as an error, which is always reported
	read := d.read(a, 10)
	d.wantErr(d.submit(read), unix.ECONNREFUSED)
	d.pending(d.submit(read))
	d.cancel(read)
	d.wantErr(read, unix.ECANCELED)
}

func writeArrives(d *driver, a, b int) {
	for i := range 20 {
		msg := bytesOf(1+i, int64(i))
		d.wantN(d.submit(d.write(a, msg)), len(msg))
		if got := d.take(b, len(msg)); !bytes.Equal(got, msg) {
			d.t.Fatalf("got %q, want %q", got, msg)
		}
	}
}

func writeWaits(d *driver, a, b int) {
	filled := d.fill(a)
	// A write of more than PIPE_BUF bytes may complete with a part.
	write := d.submit(d.write(a, bytesOf(4096, int64(filled))))
	d.pending(write)
	d.spawn("reading", func() error { return d.getPattern(b, int64(filled)+1) })
	if r := d.outcome(write); r.Errno != 0 || r.N == 0 {
		d.t.Errorf("N %d, errno %v", r.N, r.Errno)
	}
}

func writeEPIPE(d *driver, a, b int) {
	d.fill(a)
	waiting, queued := d.submit(d.write(a, bytesOf(1<<20, 0))), d.submit(d.write(a, []byte("x")))
	d.pending(waiting, queued)
	d.closeFD(b)
	d.wantErr(waiting, unix.EPIPE, unix.ECONNRESET)
	d.wantErr(queued, unix.EPIPE, unix.ECONNRESET)
	d.wantErr(d.submit(d.write(a, []byte("x"))), unix.EPIPE)
}

func writeQueue(d *driver, a, b int) {
	const n, size = 200, 1000
	ops := make([]*op, n)
	for i := range ops {
		ops[i] = d.submit(d.write(a, bytesOf(size, int64(i)*size)))
	}
	// Up to PIPE_BUF bytes a write to a pipe is whole, on sockets so many bytes
	// fit that each is.
	d.spawn("reading", func() error { return d.getPattern(b, n*size) })
	for _, o := range ops {
		d.wantN(o, size)
	}
}

func writeFile(d *driver) {
	f := d.file(bytesOf(100, 0))
	d.wantN(d.submit(d.writeAt(f, []byte("middle"), 50)), 6)
	d.wantN(d.submit(d.writeAt(f, []byte("end"), 100)), 3)
	d.wantN(d.submit(d.writeAt(f, nil, 3)), 0)
	want := bytesOf(100, 0)
	copy(want[50:], "middle")
	want = append(want, "end"...)
	d.wantBytes(d.submit(d.readAt(f, 200, 0)), want)
	if pos, err := unix.Seek(f, 0, unix.SEEK_CUR); pos != 0 || err != nil {
		d.t.Errorf("the position is %d, %v", pos, err)
	}
}

func writeFilePosition(d *driver) {
	f := d.file(nil)
	ops := make([]*op, 100)
	for i := range ops {
		ops[i] = d.submit(d.write(f, bytesOf(64, int64(i)*64)))
	}
	for _, o := range ops {
		d.wantN(o, 64)
	}
	d.wantBytes(d.submit(d.readAt(f, 10000, 0)), bytesOf(6400, 0))
}

func writeFileLarge(d *driver) {
	const size = 4 << 20
	f := d.file(nil)
	for pos := int64(0); pos < size; {
		r := d.do(d.writeAt(f, bytesOf(int(size-pos), pos), pos))
		if r.Errno != 0 || r.N == 0 {
			d.t.Fatalf("write at %d: N %d, errno %v", pos, r.N, r.Errno)
		}
		pos += int64(r.N)
	}
	for pos := int64(0); pos < size; {
		read := d.readAt(f, 1<<20, pos)
		r := d.do(read)
		if r.Errno != 0 || r.N == 0 || !follows(read.bytes(), pos) {
			d.t.Fatalf("read at %d: N %d, errno %v, or wrong bytes", pos, r.N, r.Errno)
		}
		pos += int64(r.N)
	}
}

func writeMadeBlocking(d *driver) {
	r, w := d.pipe()
	size := d.fill(w)
	o := d.submit(d.write(w, bytesOf(size, 0)))
	d.pending(o)
	d.setBlocking(w)
	d.take(r, os.Getpagesize())
	if res := d.outcome(o); res.Errno != 0 || res.N == 0 || res.N == size {
		d.t.Errorf("N %d, errno %v", res.N, res.Errno)
	}
}

func writeBlockingPipe(d *driver) {
	const size = 1 << 20
	r, w := d.pipe()
	d.setBlocking(w)
	d.spawn("reading", func() error { return d.getPattern(r, size) })
	for pos := int64(0); pos < size; {
		o := d.submit(d.write(w, bytesOf(int(size-pos), pos)))
		res := d.outcome(o)
		if res.Errno != 0 || res.N == 0 {
			d.t.Fatalf("after %d bytes: N %d, errno %v", pos, res.N, res.Errno)
		}
		pos += int64(res.N)
	}
	d.join()
	o := d.submit(d.write(w, bytesOf(size, 0)))
	d.settle()
	rest := make([]byte, 64<<10)
	d.until("the end of the write", func() bool {
		unix.Read(r, rest) // there may be nothing at the moment
		d.be.Wake()
		return o.done
	})
	if res := d.outcome(o); res.Errno != 0 || res.N == 0 {
		d.t.Errorf("N %d, errno %v", res.N, res.Errno)
	}
}

// writeBlockingTerminal writes until there is room, but not for all.
func writeBlockingTerminal(d *driver) {
	const size = 3000
	master, slave := d.pty()
	tio, err := unix.IoctlGetTermios(slave, unix.TCGETS)
	d.ok(err, "TCGETS")
	tio.Oflag = unix.OPOST // without it, much more than there is room for is taken
	d.ok(unix.IoctlSetTermios(slave, unix.TCSETS, tio), "TCSETS")
	d.setBlocking(slave)
	write := d.write(slave, make([]byte, size))
	for d.submit(write); ; d.submit(write) {
		if d.settle(); !write.done {
			break
		}
		if write.last.Errno != 0 || write.last.N == 0 {
			d.t.Fatalf("N %d, errno %v", write.last.N, write.last.Errno)
		}
	}
	d.empty(master)
	if r := d.outcome(write); r.Errno != 0 || r.N == 0 {
		d.t.Errorf("N %d, errno %v", r.N, r.Errno)
	}
	d.wantBlocking(slave)
}

func writeBlockingEventfd(d *driver) {
	e := d.setBlocking(d.eventfd())
	write := d.write(e, bytes.Repeat([]byte{0x77}, 8))
	d.wantN(d.submit(write), 8)
	d.wantN(d.submit(write), 8)
	d.pending(d.submit(write)) // there is room for less
	d.take(e, 8)
	d.wantN(write, 8)
	d.wantBlocking(e)
}

func (d *driver) wantBlocking(fd int) {
	d.t.Helper()
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	d.ok(err, "F_GETFL")
	if flags&unix.O_NONBLOCK != 0 {
		d.t.Errorf("fd %d is non-blocking now", fd)
	}
}

func writeBlockingPackets(d *driver) {
	const size = 10_000
	a, b := d.socketpair(unix.SOCK_SEQPACKET)
	d.setBlocking(a)
	for queued, waited := 0, false; !waited; queued++ {
		o := d.submit(d.write(a, bytesOf(size, 0)))
		for d.settle(); !o.done && queued > 0; queued-- {
			waited = true
			d.take(b, size)
			d.settle()
		}
		d.wantN(o, size)
	}
}

func writeReadOnly(d *driver) {
	path := filepath.Join(d.dir(), "file")
	fd, err := unix.Open(path, unix.O_CREAT|unix.O_RDONLY|unix.O_CLOEXEC, 0o600)
	d.ok(err, "open")
	d.own(fd)
	for _, off := range []int64{-1, 0} {
		o := d.op(backend.OpWrite, fd)
		o.Buf, o.Off = []byte("x"), off
		d.submit(o)
		d.wantErr(o, unix.EBADF)
	}
}
