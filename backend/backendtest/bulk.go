package backendtest

import (
	"github.com/seed-80cfe818/ringloop/backend"
	"golang.org/x/sys/unix"
)

func bulkTests() []test {
	return single("bulk", []test{
		{name: "twenty thousand operations submitted in one turn all complete", fn: bulkNops},
		{name: "thousands of operations on one full queue of the kernel", fn: bulkReads},
		{name: "thousands of completions in one turn all arrive", fn: bulkCompletions},
		{name: "a thousand connections with waiting receives", fn: bulkConnections},
		{name: "thousands of operations submitted by Receivers", fn: bulkReceivers},
		{name: "the backend can be filled again and again", fn: bulkAgain},
	})
}

// budget returns n, or less if so many pairs of descriptors may not be open.
func (d *driver) budget(n int) int {
	d.t.Helper()
	var limit unix.Rlimit
	d.ok(unix.Getrlimit(unix.RLIMIT_NOFILE, &limit), "getrlimit")
	return min(n, int(limit.Cur)/4)
}

func bulkNops(d *driver) {
	nops := make([]*op, 20000)
	for i := range nops {
		nops[i] = d.submit(d.op(backend.OpNop, -1))
	}
	for _, o := range nops {
		d.wantN(o, 0)
	}
}

func bulkReads(d *driver) {
	f := d.file(bytesOf(64<<10, 0))
	ops := make([]*op, 4096)
	for i := range ops {
		ops[i] = d.submit(d.readAt(f, 16, int64(i*16)))
	}
	for i, o := range ops {
		d.wantBytes(o, bytesOf(16, int64(i*16)))
	}
}

func bulkCompletions(d *driver) {
	e := d.eventfd()
	ops := make([]*op, 6000)
	for i := range ops {
		o := d.poll(e, unix.POLLIN)
		if i%2 == 0 {
			d.multi(o)
		}
		ops[i] = d.submit(o)
	}
	d.pending(ops...)
	d.feed(e, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	for i, o := range ops {
		if i%2 == 1 {
			d.wantEvents(o, unix.POLLIN, 0)
			continue
		}
		d.until("multishot poll", func() bool { return len(o.more) > 0 })
		d.cancel(o)
	}
	for i, o := range ops {
		if i%2 == 0 {
			d.wantErr(o, unix.ECANCELED)
		}
	}
}

func bulkConnections(d *driver) {
	n := d.budget(1000)
	recvs, peers := make([]*op, n), make([]int, n)
	for i := range recvs {
		var a int
		a, peers[i] = d.socketpair(unix.SOCK_STREAM)
		recvs[i] = d.submit(d.recv(a, (i%2)*16))
	}
	for round := range 5 {
		if round == 0 {
			d.pending(recvs...)
		}
		for i, b := range peers {
			d.feed(b, bytesOf(8, int64(i+round)))
		}
		for i, o := range recvs {
			d.wantBytes(o, bytesOf(8, int64(i+round)))
		}
		for _, o := range recvs {
			d.submit(o)
		}
	}
	for _, b := range peers {
		d.closeFD(b)
	}
	for _, o := range recvs {
		d.wantN(o, 0)
	}
}

func bulkReceivers(d *driver) {
	const width, depth = 3, 8
	count := 0
	var grow func(level int)
	grow = func(level int) {
		o := d.op(backend.OpNop, -1)
		o.on = func(result) {
			count++
			if level < depth {
				for range width {
					grow(level + 1)
				}
			}
		}
		d.submit(o)
	}
	grow(0)
	want := 0
	for level, n := 0, 1; level <= depth; level, n = level+1, n*width {
		want += n
	}
	d.until("the whole tree", func() bool { return d.flying == 0 })
	if count != want {
		d.t.Errorf("%d completions, want %d", count, want)
	}
}

func bulkAgain(d *driver) {
	a, b := d.socketpair(unix.SOCK_STREAM)
	for range 10 {
		ops := make([]*op, 2000)
		for i := range ops {
			ops[i] = d.submit(d.recv(a, 1))
		}
		d.turn(0)
		for i := 0; i < len(ops); i += 2 {
			d.cancel(ops[i])
		}
		for i := 0; i < len(ops); i += 2 {
			d.wantErr(ops[i], unix.ECANCELED)
		}
		d.feed(b, bytesOf(1000, 0))
		for i := 1; i < len(ops); i += 2 {
			d.wantBytes(ops[i], bytesOf(1, int64(i/2)))
		}
	}
}
