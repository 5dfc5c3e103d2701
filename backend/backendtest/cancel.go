package backendtest

import (
	"math/rand/v2"
	"slices"

	"github.com/seed-80cfe818/ringloop/backend"
	"golang.org/x/sys/unix"
)

func cancelTests() []test {
	return slices.Concat(over("cancel", only(streams, "tcp4", "unix", "socketpair", "blocking tcp4"), []pairTest{
		{"a waiting recv ends and consumes nothing", cancelRecv},
		{"a recv that was not handed over yet ends", cancelUnwaited},
		{"bytes that were received are reported in spite of a cancel", cancelAfterArrival},
		{"queued receives leave the queue at any place", cancelQueued},
		{"the head of the queue lets the next one pass", cancelHead},
		{"a WaitAll send that sent a part says how much", cancelPartSend},
		{"a WaitAll sendmsg that sent a part says how much", cancelPartSendmsg},
		{"bytes are neither lost nor doubled by racing cancels", cancelRaceBytes},
	}), single("cancel", []test{
		{name: "every kind of operation ends", fn: cancelEveryKind},
		{name: "twice is as good as once", fn: cancelTwice},
		{name: "an operation that is not in flight is left alone", fn: cancelIdle},
		{name: "CancelRequested tells of the last flight only", fn: cancelRequested},
		{name: "a nop completes either way", fn: cancelNop},
		{name: "a waiting read of a pipe consumes nothing", fn: cancelRead},
		{name: "a positioned read of a file completes either way", fn: cancelFile},
		{name: "a waiting accept leaves the connection to the next", fn: cancelAccept},
		{name: "connections are neither lost nor doubled by racing cancels", fn: cancelRaceAccept},
		{name: "datagrams are neither lost nor doubled by racing cancels", fn: cancelRaceDatagram},
		{name: "one of many on one descriptor spares the others", fn: cancelSparesOthers},
	}), over("cancel", fillable, []pairTest{
		{"a blocked send ends and produces nothing", cancelSend},
		{"queued sends that are cancelled leave no gap", cancelQueuedSends},
		{"a thousand queued operations end in one turn", cancelThousand},
	}))
}

func cancelRecv(d *driver, a, b int) {
	for _, o := range []*op{d.recv(a, 10), d.recv(a, 0), d.recvmsg(a, 10), d.read(a, 10)} {
		d.pending(d.submit(o))
		d.cancel(o)
		d.wantErr(o, unix.ECANCELED)
		d.feed(b, []byte("hello"))
		d.wantBytes(d.submit(d.recv(a, 10)), []byte("hello"))
	}
}

func cancelUnwaited(d *driver, a, b int) {
	recv, queued := d.submit(d.recv(a, 10)), d.submit(d.recv(a, 10))
	d.cancel(queued)
	d.cancel(recv)
	d.wantErr(recv, unix.ECANCELED)
	d.wantErr(queued, unix.ECANCELED)
	d.feed(b, []byte("hello"))
	d.wantBytes(d.submit(recv), []byte("hello"))
}

func cancelAfterArrival(d *driver, a, b int) {
	for range 20 {
		recv := d.submit(d.recv(a, 10))
		d.turn(0)
		d.feed(b, []byte("hello"))
		d.wait(safety) // the completion is there but not delivered
		d.cancel(recv)
		switch r := d.outcome(recv); r.Errno {
		case 0:
			d.wantBytes(recv, []byte("hello"))
		case unix.ECANCELED:
			d.wantBytes(d.submit(d.recv(a, 10)), []byte("hello"))
		default:
			d.t.Fatalf("errno %v", r.Errno)
		}
	}
}

func cancelQueued(d *driver, a, b int) {
	ops := make([]*op, 30)
	for i := range ops {
		ops[i] = d.submit(d.recv(a, 4))
	}
	d.pending(ops...)
	gone := func(i int) bool { return i%3 == 1 || i == len(ops)-1 }
	for i, o := range ops {
		if gone(i) {
			d.cancel(o)
		}
	}
	for i, o := range ops {
		if gone(i) {
			d.wantErr(o, unix.ECANCELED)
		}
	}
	var pos int64
	for i, o := range ops {
		if gone(i) {
			continue
		}
		d.feed(b, bytesOf(4, pos))
		d.wantBytes(o, bytesOf(4, pos))
		pos += 4
	}
}

func cancelHead(d *driver, a, b int) {
	head, next := d.submit(d.recv(a, 4)), d.submit(d.recvmsg(a, 4))
	d.pending(head, next)
	d.cancel(head)
	d.feed(b, []byte("abcd"))
	if d.outcome(head).Errno == 0 {
		d.wantBytes(head, []byte("abcd"))
		d.feed(b, []byte("efgh"))
		d.wantBytes(next, []byte("efgh"))
		return
	}
	d.wantErr(head, unix.ECANCELED)
	d.wantBytes(next, []byte("abcd"))
}

func cancelSend(d *driver, a, b int) {
	filled := d.fill(a)
	for _, o := range []*op{
		d.send(a, []byte("x")), d.whole(d.send(a, []byte("x"))),
		d.sendmsg(a, []byte("x")), d.whole(d.sendmsg(a, []byte("x"))), d.write(a, []byte("x")),
	} {
		d.pending(d.submit(o))
		d.cancel(o)
		d.wantErr(o, unix.ECANCELED)
	}
	d.drained(a, b, int64(filled))
}

// drained ends the stream of a and checks that b gets the pattern of n bytes
// and no more.
func (d *driver) drained(a, b int, n int64) {
	d.t.Helper()
	d.ok(unix.Shutdown(a, unix.SHUT_WR), "shutdown")
	d.spawn("reading", func() error { return d.getPattern(b, n) })
	d.join()
	d.atEnd(b)
}

const partSize = 32 << 20

func cancelPartSend(d *driver, a, b int) {
	cancelPart(d, a, b, d.whole(d.send(a, bytesOf(partSize, 0))))
}

func cancelPartSendmsg(d *driver, a, b int) {
	cancelPart(d, a, b, d.whole(d.sendmsg(a, bytesOf(partSize/2, 0), bytesOf(partSize/2, partSize/2))))
}

func cancelPart(d *driver, a, b int, o *op) {
	d.pending(d.submit(o))
	d.cancel(o)
	r := d.outcome(o)
	if r.Errno != 0 || r.N == 0 || r.N == partSize {
		d.t.Fatalf("%s: N %d, errno %v; want a part", o, r.N, r.Errno)
	}
	d.drained(a, b, int64(r.N))
}

func cancelQueuedSends(d *driver, a, b int) {
	pos := int64(d.fill(a))
	ops := make([]*op, 30)
	for i := range ops {
		if i%3 == 1 {
			ops[i] = d.submit(d.whole(d.send(a, []byte("never to be seen"))))
			continue
		}
		ops[i] = d.submit(d.whole(d.send(a, bytesOf(100, pos))))
		pos += 100
	}
	d.pending(ops...)
	for i, o := range ops {
		if i%3 == 1 {
			d.cancel(o)
			d.wantErr(o, unix.ECANCELED)
		}
	}
	d.spawn("reading", func() error { return d.getPattern(b, pos) })
	for i, o := range ops {
		if i%3 != 1 {
			d.wantN(o, 100)
		}
	}
	d.join()
	d.drained(a, b, 0)
}

func cancelThousand(d *driver, a, b int) {
	d.fill(a)
	var ops []*op
	for range 1000 {
		ops = append(ops, d.submit(d.recv(a, 4)), d.submit(d.whole(d.send(a, []byte("x")))), d.submit(d.poll(a, unix.POLLIN)))
	}
	d.pending(ops...)
	rand.New(rand.NewPCG(3, 4)).Shuffle(len(ops), func(i, j int) { ops[i], ops[j] = ops[j], ops[i] })
	for _, o := range ops {
		d.cancel(o)
	}
	for _, o := range ops {
		d.wantErr(o, unix.ECANCELED)
	}
}

// cancelRaceBytes cancels receives at random while another thread writes, and
// accounts for every byte.
func cancelRaceBytes(d *driver, a, b int) {
	const total = 200000
	rng := rand.New(rand.NewPCG(5, 6))
	d.spawn("writing", func() error {
		rng := rand.New(rand.NewPCG(7, 8))
		for pos := int64(0); pos < total; {
			k := min(int64(1+rng.IntN(300)), total-pos)
			if err := d.put(b, bytesOf(int(k), pos)); err != nil {
				return err
			}
			pos += k
		}
		return nil
	})
	var pos int64
	for pos < total {
		ops := make([]*op, 1+rng.IntN(5))
		for i := range ops {
			o := d.recv(a, rng.IntN(2)*500)
			o.on = func(r result) {
				got := r.Data
				if got == nil {
					got = o.Buf[:r.N]
				}
				if r.Errno != 0 && r.Errno != unix.ECANCELED || !follows(got, pos) {
					d.t.Errorf("at %d: errno %v, or wrong bytes", pos, r.Errno)
				}
				pos += int64(len(got))
			}
			ops[i] = d.submit(o)
		}
		if rng.IntN(2) == 0 {
			d.turn(0)
		}
		for _, o := range ops {
			// The first may wait for bytes, the others must not stay.
			if rng.IntN(3) > 0 || o != ops[0] || pos == total {
				d.cancel(o)
			}
		}
		d.until("end of the round", func() bool {
			if pos == total {
				for _, o := range ops {
					d.cancel(o)
				}
			}
			return d.flying == 0
		})
		if d.t.Failed() {
			return
		}
	}
}

func cancelEveryKind(d *driver) {
	ops := d.everyKind(3)
	to := d.unanswered()
	_, pidfd := d.child("wait")
	ops = append(ops,
		d.submit(d.connect(d.socket(unix.AF_INET, unix.SOCK_STREAM), to)),
		d.submit(d.multi(d.op(backend.OpAccept, d.listener(inet4, 1)))),
		d.submit(d.waitid(pidfd)))
	d.pending(ops...)
	for _, o := range ops {
		d.cancel(o)
	}
	for _, o := range ops {
		d.wantErr(o, unix.ECANCELED)
	}
	d.kill(pidfd)
	d.reap(pidfd, 0)
}

func cancelTwice(d *driver) {
	ops := d.everyKind(1)
	d.pending(ops...)
	for range 3 {
		for _, o := range ops {
			d.cancel(o)
		}
	}
	d.turn(0)
	for _, o := range ops {
		d.cancel(o)
	}
	for _, o := range ops {
		d.wantErr(o, unix.ECANCELED)
		d.cancel(o)
	}
	d.settle()
}

func cancelIdle(d *driver) {
	a, b := d.socketpair(unix.SOCK_STREAM)
	recv := d.recv(a, 10)
	d.cancel(recv)
	d.feed(b, []byte("one"))
	d.wantBytes(d.submit(recv), []byte("one"))
	d.cancel(recv)
	d.settle()
	d.feed(b, []byte("two"))
	d.wantBytes(d.submit(recv), []byte("two"))
	if recv.CancelRequested() {
		d.t.Error("CancelRequested without a cancel in flight")
	}
}

func cancelRequested(d *driver) {
	a, b := d.socketpair(unix.SOCK_STREAM)
	recv := d.recv(a, 10)
	var told bool
	recv.on = func(result) { told = recv.CancelRequested() }
	d.submit(recv)
	d.cancel(recv)
	d.outcome(recv)
	if !told || !recv.CancelRequested() {
		d.t.Errorf("CancelRequested is %v in Complete and %v after it", told, recv.CancelRequested())
	}
	d.submit(recv)
	d.feed(b, []byte("x"))
	d.wantN(recv, 1)
	if told || recv.CancelRequested() {
		d.t.Errorf("in the next flight CancelRequested is %v in Complete and %v after it", told, recv.CancelRequested())
	}
}

func cancelNop(d *driver) {
	for range 100 {
		nop := d.submit(d.op(backend.OpNop, -1))
		d.cancel(nop)
		if d.outcome(nop).Errno != 0 {
			d.wantErr(nop, unix.ECANCELED)
		}
	}
}

func cancelRead(d *driver) {
	for _, k := range readable {
		a, b := k.pair(d)
		read, queued := d.submit(d.read(a, 10)), d.submit(d.read(a, 10))
		d.pending(read, queued)
		d.cancel(read)
		d.cancel(queued)
		d.wantErr(read, unix.ECANCELED)
		d.wantErr(queued, unix.ECANCELED)
		d.feed(b, []byte("hello"))
		d.wantBytes(d.submit(read), []byte("hello"))
	}
}

func cancelFile(d *driver) {
	f := d.file(bytesOf(100000, 0))
	for i := range 200 {
		read := d.submit(d.readAt(f, 1000, int64(i*100)))
		if i%2 == 0 {
			d.turn(0)
		}
		d.cancel(read)
		if d.outcome(read).Errno == 0 {
			d.wantBytes(read, bytesOf(1000, int64(i*100)))
		} else {
			d.wantErr(read, unix.ECANCELED)
		}
	}
}

func cancelAccept(d *driver) {
	for _, k := range listenKinds() {
		if k.domain == unix.AF_INET6 {
			continue // not everywhere available
		}
		l := k.listen(d)
		accept, queued := d.submit(d.accept(l)), d.submit(d.accept(l))
		d.pending(accept, queued)
		d.cancel(accept)
		d.wantErr(accept, unix.ECANCELED)
		d.wantAccepted(queued, d.connectTo(k, l))
		d.wantAccepted(d.submit(accept), d.connectTo(k, l))
	}
}

// cancelRaceAccept connects from another thread while accepts are cancelled at
// random, and accounts for every connection.
func cancelRaceAccept(d *driver) {
	const total = 300
	l := d.listener(inet4, 1024)
	to := d.name(l)
	clients := make([]int, total)
	for i := range clients {
		clients[i] = d.socket(unix.AF_INET, unix.SOCK_STREAM)
	}
	d.spawn("connecting", func() error {
		for _, c := range clients {
			if err := unix.Connect(c, to); err != nil && err != unix.EINPROGRESS {
				return err
			}
		}
		return nil
	})
	rng := rand.New(rand.NewPCG(9, 10))
	took := 0
	for took < total {
		o := d.accept(l)
		if rng.IntN(4) == 0 {
			o = d.multi(d.op(backend.OpAccept, l))
		}
		o.on = func(r result) {
			switch r.Errno {
			case 0:
				took++
				d.own(r.N)
			case unix.ECANCELED:
			default:
				d.t.Errorf("accept: %v", r.Errno)
			}
		}
		d.submit(o)
		for range rng.IntN(3) {
			d.turn(0)
		}
		if rng.IntN(3) > 0 || o.Flags != 0 {
			d.cancel(o)
		}
		d.outcome(o)
	}
	d.join()
	again := d.submit(d.accept(l))
	d.pending(again)
	d.cancel(again)
	d.wantErr(again, unix.ECANCELED)
	d.wantAllConnected(clients)
}

// wantAllConnected checks that none of the accepted connections was closed.
func (d *driver) wantAllConnected(clients []int) {
	d.t.Helper()
	for _, c := range clients {
		if n, err := unix.Read(c, make([]byte, 1)); err != unix.EAGAIN {
			d.t.Errorf("a connection was closed: %d, %v", n, err)
		}
	}
}

func cancelRaceDatagram(d *driver) {
	const total = 2000
	a, b := d.socketpair(unix.SOCK_DGRAM)
	d.spawn("writing", func() error {
		for i := range total {
			if err := d.put(b, []byte{byte(i), byte(i >> 8)}); err != nil {
				return err
			}
		}
		return nil
	})
	rng := rand.New(rand.NewPCG(11, 12))
	next := 0
	for next < total {
		o := d.recvmsg(a, 10)
		o.on = func(r result) {
			if r.Errno == unix.ECANCELED {
				return
			}
			if r.Errno != 0 || r.N != 2 || int(o.Buf[0])|int(o.Buf[1])<<8 != next {
				d.t.Errorf("datagram %d: N %d, errno %v, %v", next, r.N, r.Errno, o.Buf[:2])
			}
			next++
		}
		d.submit(o)
		if rng.IntN(2) == 0 {
			d.turn(0)
		}
		if rng.IntN(3) > 0 {
			d.cancel(o)
		}
		d.outcome(o)
		if d.t.Failed() {
			return
		}
	}
}

func cancelSparesOthers(d *driver) {
	a, b := d.socketpair(unix.SOCK_STREAM)
	d.fill(a)
	recv, send := d.submit(d.recv(a, 10)), d.submit(d.whole(d.send(a, []byte("x"))))
	in, out := d.submit(d.poll(a, unix.POLLIN)), d.submit(d.poll(a, unix.POLLOUT))
	d.pending(recv, send, in, out)
	d.cancel(in)
	d.wantErr(in, unix.ECANCELED)
	d.pending(recv, send, out)
	d.cancel(send)
	d.wantErr(send, unix.ECANCELED)
	d.pending(recv, out)
	d.feed(b, []byte("hello"))
	d.wantBytes(recv, []byte("hello"))
	d.empty(b)
	d.wantEvents(out, unix.POLLOUT, 0)
}
