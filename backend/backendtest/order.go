package backendtest

import (
	"math/rand/v2"
	"slices"

	"golang.org/x/sys/unix"
)

func orderTests() []test {
	return slices.Concat(over("order", only(streams, "tcp4", "unix", "socketpair", "blocking tcp4"), []pairTest{
		{"queued receives of all sorts take the bytes in order", orderReceives},
		{"queued sends of all sorts go out in order through a slow reader", orderSends},
		{"sends do not wait for blocked receives", orderOutDespiteIn},
		{"an echo with queues in both directions is exact", orderEcho},
	}), single("order", []test{
		{name: "a failed operation lets the next one pass", fn: orderAfterFailure},
		{name: "a blocked descriptor does not hold up another", fn: orderOtherFD},
		{name: "a duplicate descriptor has a queue of its own", fn: orderDup},
	}), over("order", fillable, []pairTest{
		{"receives do not wait for blocked sends", orderInDespiteOut},
	}))
}

func orderReceives(d *driver, a, b int) {
	const n, size = 400, 7
	rng := rand.New(rand.NewPCG(1, 2))
	ops := make([]*op, n)
	var pos int64
	last := 0
	for i := range ops {
		switch i % 4 {
		case 0:
			ops[i] = d.recv(a, size)
		case 1:
			ops[i] = d.recvmsg(a, size)
		case 2:
			ops[i] = d.read(a, size)
		case 3:
			ops[i] = d.recv(a, 0)
		}
		o := ops[i]
		o.on = func(r result) {
			got := r.Data
			if got == nil {
				got = o.Buf[:r.N]
			}
			if r.Errno != 0 || i != last || !follows(got, pos) {
				d.t.Errorf("operation %d is number %d: errno %v, %d bytes at %d", i, last, r.Errno, len(got), pos)
			}
			last++
			pos += int64(len(got))
		}
		d.submit(o)
	}
	var fed int64
	for d.flying > 0 {
		// Every operation needs at least one byte, and at the end there may be
		// too few for all.
		k := 1 + rng.IntN(40)
		d.feed(b, bytesOf(k, fed))
		fed += int64(k)
		d.until("arrival", func() bool { return pos == fed || d.flying == 0 })
	}
	if d.t.Failed() {
		return
	}
	if rest := int(fed - pos); rest > 0 && !follows(d.take(a, rest), pos) {
		d.t.Error("the rest is wrong")
	}
}

func orderSends(d *driver, a, b int) {
	const n, size = 300, 20000
	ops := make([]*op, n)
	last := 0
	for i := range ops {
		pos := int64(i) * size
		if i%2 == 0 {
			ops[i] = d.whole(d.send(a, bytesOf(size, pos)))
		} else {
			ops[i] = d.whole(d.sendmsg(a, bytesOf(size-100, pos), bytesOf(100, pos+size-100)))
		}
		ops[i].on = func(r result) {
			if r.Errno != 0 || r.N != size || i != last {
				d.t.Errorf("send %d is number %d: N %d, errno %v", i, last, r.N, r.Errno)
			}
			last++
		}
		d.submit(ops[i])
	}
	d.settle()
	d.spawn("reading", func() error { return d.getPattern(b, n*size) })
	d.all(ops...)
}

func orderInDespiteOut(d *driver, a, b int) {
	d.fill(a)
	send, queued := d.submit(d.whole(d.send(a, bytesOf(1<<20, 0)))), d.submit(d.send(a, []byte("x")))
	d.pending(send, queued)
	recv := d.recv(a, 10)
	for range 10 {
		d.submit(recv)
		d.pending(recv)
		d.feed(b, []byte("hello"))
		d.wantBytes(recv, []byte("hello"))
	}
	d.pending(send, queued)
	d.cancel(queued)
	d.cancel(send)
	d.all(send, queued)
}

func orderOutDespiteIn(d *driver, a, b int) {
	recv, queued := d.submit(d.recv(a, 10)), d.submit(d.recv(a, 10))
	d.pending(recv, queued)
	for range 10 {
		d.wantN(d.submit(d.send(a, []byte("hello"))), 5)
		d.take(b, 5)
	}
	d.pending(recv, queued)
	d.feed(b, []byte("end"))
	d.wantBytes(recv, []byte("end"))
	d.ok(unix.Shutdown(b, unix.SHUT_WR), "shutdown")
	d.wantN(queued, 0)
}

// orderEcho keeps several receives and sends queued and echoes what comes.
func orderEcho(d *driver, a, b int) {
	const total = 2 << 20
	d.spawn("writing", func() error { return d.putPattern(b, total) })
	d.spawn("reading", func() error { return d.getPattern(b, total) })
	var got, sent int64
	back := func(p []byte) {
		o := d.whole(d.send(a, p))
		o.on = func(r result) {
			if r.Errno != 0 || r.N != len(p) {
				d.t.Errorf("send: N %d of %d, errno %v", r.N, len(p), r.Errno)
			}
			sent += int64(r.N)
		}
		d.submit(o)
	}
	recvs := make([]*op, 4)
	for i := range recvs {
		o := d.recv(a, 10000)
		o.on = func(r result) {
			if r.Errno != 0 {
				return
			}
			got += int64(r.N)
			if r.N > 0 {
				back(append([]byte(nil), o.Buf[:r.N]...))
			}
			if got < total && r.N > 0 {
				d.submit(o)
			}
		}
		recvs[i] = d.submit(o)
	}
	d.until("the echo", func() bool { return sent == total || d.t.Failed() })
	for _, o := range recvs {
		d.cancel(o)
	}
	d.all(recvs...)
}

func orderAfterFailure(d *driver) {
	a, b := d.bound(inet4, unix.SOCK_DGRAM), d.bound(inet4, unix.SOCK_DGRAM)
	d.ok(unix.Connect(a, d.name(b)), "connect")
	ops := []*op{d.send(a, make([]byte, 70000)), d.send(a, []byte("x")), d.send(a, make([]byte, 70000)), d.send(a, []byte("y"))}
	for _, o := range ops {
		d.submit(o)
	}
	d.wantErr(ops[0], unix.EMSGSIZE)
	d.wantN(ops[1], 1)
	d.wantErr(ops[2], unix.EMSGSIZE)
	d.wantN(ops[3], 1)
	if got := string(d.take(b, 1)) + string(d.take(b, 1)); got != "xy" {
		d.t.Errorf("the peer got %q", got)
	}
}

func orderOtherFD(d *driver) {
	blocked, _ := d.socketpair(unix.SOCK_STREAM)
	d.fill(blocked)
	ops := []*op{d.recv(blocked, 1), d.send(blocked, []byte("x")), d.recv(blocked, 1), d.send(blocked, []byte("x"))}
	for _, o := range ops {
		d.submit(o)
	}
	a, b := d.socketpair(unix.SOCK_STREAM)
	for range 10 {
		d.wantN(d.submit(d.send(a, []byte("x"))), 1)
		d.wantN(d.submit(d.recv(b, 1)), 1)
	}
	d.pending(ops...)
	for _, o := range ops {
		d.cancel(o)
	}
	for _, o := range ops {
		d.wantErr(o, unix.ECANCELED)
	}
}

func orderDup(d *driver) {
	a, b := d.socketpair(unix.SOCK_STREAM)
	dup, err := unix.FcntlInt(uintptr(a), unix.F_DUPFD_CLOEXEC, 0)
	d.ok(err, "dup")
	d.own(dup)
	one, two := d.submit(d.recv(a, 1)), d.submit(d.recv(dup, 1))
	d.pending(one, two)
	d.feed(b, []byte("xy"))
	d.wantN(one, 1)
	d.wantN(two, 1)
	if got := string(one.bytes()) + string(two.bytes()); got != "xy" && got != "yx" {
		d.t.Errorf("got %q", got)
	}
}
