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
	}), over("shutdown", fillable, []pairTest{
		{"does not wait for a send that waits", shutdownPasses},
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
