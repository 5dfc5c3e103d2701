package backendtest

import (
	"fmt"
	"slices"

	"github.com/seed-80cfe818/ringloop/backend"
	"golang.org/x/sys/unix"
)

func sendTests() []test {
	return slices.Concat(over("send", streams, []pairTest{
		{"a small message arrives", sendSmall},
		{"an empty send is 0 and sends nothing", sendEmpty},
		{"a large send takes a part and says how much", sendPartial},
		{"a large sendmsg takes a part and says how much", sendmsgPartial},
		{"WaitAll sends everything through a slow reader", sendWaitAll},
		{"WaitAll sends every piece through a slow reader", sendmsgWaitAll},
		{"WaitAll sends everything to a peer that has ended its output", func(d *driver, a, b int) {
			sendToHalfClosed(d, b, d.whole(d.send(a, bytesOf(waitAllSize, 0))))
		}},
		{"WaitAll sends every piece to a peer that has ended its output", func(d *driver, a, b int) {
			sendToHalfClosed(d, b, d.whole(d.sendmsg(a, bytesOf(1, 0), bytesOf(waitAllSize-1, 1))))
		}},
		{"WaitAll says how much was sent before the connection broke", func(d *driver, a, b int) {
			sendBroken(d, b, d.whole(d.send(a, bytesOf(waitAllSize, 0))))
		}},
		{"WaitAll says how much of the pieces was sent before the connection broke", func(d *driver, a, b int) {
			sendBroken(d, b, d.whole(d.sendmsg(a, bytesOf(1, 0), bytesOf(waitAllSize-1, 1))))
		}},
		{"1024 pieces with empty ones between arrive in order", sendPieces},
		{"a closed peer is EPIPE", sendClosed},
		{"the send buffer of the caller is not changed", sendKeepsBuffer},
	}), over("send", only(streams, "tcp4", "unix"), []pairTest{
		{"64 MiB arrive through a slow reader", send64MiB},
	}), over("send", fillable, []pairTest{
		{"a send that waits hears that the peer is closed", sendWaitingClosed},
	}))
}

func sendSmall(d *driver, a, b int) {
	send := d.send(a, nil)
	for i := range 50 {
		send.Buf = bytesOf(1+i, int64(i))
		d.wantN(d.submit(send), 1+i)
		if got := d.take(b, 1+i); !follows(got, int64(i)) {
			d.t.Fatalf("message %d arrived as %q", i, got)
		}
	}
	d.wantN(d.submit(d.sendmsg(a, []byte("he"), []byte("llo"))), 5)
	if got := string(d.take(b, 5)); got != "hello" {
		d.t.Errorf("the peer got %q", got)
	}
}

func sendEmpty(d *driver, a, b int) {
	for _, o := range []*op{
		d.send(a, nil), d.send(a, []byte{}), d.whole(d.send(a, nil)),
		d.sendmsg(a), d.sendmsg(a, nil), d.whole(d.sendmsg(a, nil, []byte{})), d.write(a, nil),
	} {
		d.wantN(d.submit(o), 0)
	}
	d.wantN(d.submit(d.send(a, []byte("x"))), 1)
	d.take(b, 1)
	d.closeFD(a)
	d.atEnd(b)
}

// sendPartial sends until the connection is full, then reads everything.
func sendPartial(d *driver, a, b int) {
	const size = 16 << 20
	sendParts(d, a, b, d.send(a, bytesOf(size, 0)))
}

func sendmsgPartial(d *driver, a, b int) {
	pieces := make([][]byte, 64)
	for i := range pieces {
		pieces[i] = bytesOf(256<<10, int64(i)*256<<10)
	}
	sendParts(d, a, b, d.sendmsg(a, pieces...))
}

func sendParts(d *driver, a, b int, o *op) {
	first := d.do(o)
	if first.Errno != 0 || first.N == 0 {
		d.t.Fatalf("%s: N %d, errno %v", o, first.N, first.Errno)
	}
	// What was reported is what arrives, neither more nor less.
	d.spawn("reading", func() error {
		if err := d.getPattern(b, int64(first.N)); err != nil {
			return err
		}
		if n, err := d.get(b, make([]byte, 1)); n != 0 || err != nil {
			return fmt.Errorf("after %d bytes there is one more: %d, %v", first.N, n, err)
		}
		return nil
	})
	d.ok(unix.Shutdown(a, unix.SHUT_WR), "shutdown")
	d.join()
}

// waitAllSize is more than any of the connections holds.
const waitAllSize = 4 << 20

func sendWaitAll(d *driver, a, b int) {
	send := d.submit(d.whole(d.send(a, bytesOf(waitAllSize, 0))))
	d.pending(send)
	d.spawn("reading", func() error { return d.getPattern(b, waitAllSize) })
	d.wantN(send, waitAllSize)
}

func sendmsgWaitAll(d *driver, a, b int) {
	const piece = 5000
	pieces := make([][]byte, backend.MaxBufs)
	for i := range pieces {
		pieces[i] = bytesOf(piece, int64(i)*piece)
	}
	send := d.submit(d.whole(d.sendmsg(a, pieces...)))
	d.pending(send)
	d.spawn("reading", func() error { return d.getPattern(b, piece*backend.MaxBufs) })
	d.wantN(send, piece*backend.MaxBufs)
	for i, p := range send.Ext.Bufs {
		if len(p) != piece || !follows(p, int64(i)*piece) {
			d.t.Fatalf("piece %d was changed", i)
		}
	}
}

// sendToHalfClosed lets the end of the peer's output come while the send waits.
func sendToHalfClosed(d *driver, peer int, o *op) {
	d.pending(d.submit(o))
	d.ok(unix.Shutdown(peer, unix.SHUT_WR), "shutdown")
	d.pending(o)
	d.spawn("reading", func() error { return d.getPattern(peer, waitAllSize) })
	d.wantN(o, waitAllSize)
}

func sendBroken(d *driver, peer int, o *op) {
	d.pending(d.submit(o))
	d.closeFD(peer)
	d.wantErr(o, unix.ECONNRESET, unix.EPIPE)
	if n := o.last.N; n == 0 || n >= waitAllSize {
		d.t.Fatalf("%s: N %d, errno %v; want a part, too", o, n, o.last.Errno)
	}
}

func sendPieces(d *driver, a, b int) {
	pieces := make([][]byte, backend.MaxBufs)
	total := 0
	for i := range pieces {
		pieces[i] = bytesOf(i%4, int64(total))
		total += i % 4
	}
	d.wantN(d.submit(d.whole(d.sendmsg(a, pieces...))), total)
	if !follows(d.take(b, total), 0) {
		d.t.Error("the pieces arrived changed")
	}
}

func sendClosed(d *driver, a, b int) {
	d.closeFD(b)
	for _, o := range []*op{d.send(a, []byte("x")), d.sendmsg(a, []byte("x")), d.whole(d.send(a, bytesOf(1<<20, 0)))} {
		// The first on TCP is only answered by a reset.
		for i := 0; i < 10000 && d.do(o).Errno == 0; i++ {
		}
		d.wantErr(o, unix.EPIPE, unix.ECONNRESET)
	}
	d.wantErr(d.submit(d.send(a, []byte("x"))), unix.EPIPE)
}

func sendWaitingClosed(d *driver, a, b int) {
	d.fill(a)
	send, msg := d.submit(d.whole(d.send(a, bytesOf(1<<20, 0)))), d.submit(d.whole(d.sendmsg(a, bytesOf(1<<20, 0))))
	d.pending(send, msg)
	d.closeFD(b)
	d.wantErr(send, unix.EPIPE, unix.ECONNRESET)
	d.wantErr(msg, unix.EPIPE, unix.ECONNRESET)
}

func sendKeepsBuffer(d *driver, a, b int) {
	const size = 1 << 20
	send := d.submit(d.whole(d.send(a, bytesOf(size, 0))))
	d.spawn("reading", func() error { return d.getPattern(b, size) })
	d.wantN(send, size)
	if len(send.Buf) != size || !follows(send.Buf, 0) {
		d.t.Error("the buffer was changed")
	}
}

func send64MiB(d *driver, a, b int) {
	const size = 64 << 20
	send := d.submit(d.whole(d.send(a, bytesOf(size, 0))))
	d.spawn("reading", func() error { return d.getPattern(b, size) })
	d.wantN(send, size)
}
