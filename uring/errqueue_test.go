package uring

import (
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
)

// What is in the queue of errors makes a socket ready for as long as nobody reads
// it with MSG_ERRQUEUE, which only its user can do.

func TestQueuedErrorsDoNotKeepAPacketReceiveBusy(t *testing.T) {
	b := open(t, nil)
	s, here := udp(t)
	peer, there := udp(t)
	taken, refuses := udp(t)
	if err := unix.Connect(taken, there); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptInt(s, unix.IPPROTO_IP, unix.IP_RECVERR, 1); err != nil {
		t.Fatal(err)
	}
	op := newOp(backend.Op{
		Code: backend.OpRecvMsg, FD: int32(s), Buf: make([]byte, 10), Ext: &backend.Ext{}, Flags: backend.AtDelivery,
	})
	submit(t, b, op)
	for refused := 1; refused <= 2; refused++ { // the first error is in the queue when the second comes
		if err := unix.Sendto(s, []byte("x"), 0, refuses); err != nil {
			t.Fatal(err)
		}
		run(t, b, func() bool { return len(op.got) == refused })
		if got := op.last(); got.Errno != unix.ECONNREFUSED {
			t.Fatalf("got %+v, want ECONNREFUSED", got)
		}
		submit(t, b, op)
		wantQuiet(t, b)
	}
	if err := unix.Sendto(peer, []byte("data"), 0, here); err != nil {
		t.Fatal(err)
	}
	run(t, b, func() bool { return len(op.got) == 3 })
	if got := op.last(); got.N != 4 {
		t.Errorf("got %+v, want 4 bytes", got)
	}
}

func TestQueuedErrorsDoNotKeepASendBusy(t *testing.T) {
	b := open(t, nil)
	r, w := tcpPair(t)
	stamps := unix.SOF_TIMESTAMPING_TX_SOFTWARE | unix.SOF_TIMESTAMPING_SOFTWARE | unix.SOF_TIMESTAMPING_OPT_TSONLY
	if err := unix.SetsockoptInt(int(w), unix.SOL_SOCKET, unix.SO_TIMESTAMPING, stamps); err != nil {
		t.Fatal(err)
	}
	write(t, w, []byte("stamped"))
	const size = 16 << 20
	op := newOp(backend.Op{Code: backend.OpSend, FD: w, Buf: make([]byte, size), Flags: backend.WaitAll})
	submit(t, b, op)
	wantQuiet(t, b)
	recv := newOp(backend.Op{Code: backend.OpRecv, FD: r, Flags: backend.Multishot})
	submit(t, b, recv)
	run(t, b, op.ended)
	if got := op.last(); got.N != size {
		t.Errorf("got %+v, want all", got)
	}
	b.Cancel(&recv.Op)
	run(t, b, recv.ended)
}

// The kernel leaves a receive that is called ready again and again to a thread of
// its own, which takes a buffer and then waits with it.
func TestAReceiveThatFailsGivesItsBufferBack(t *testing.T) {
	b := open(t, &Options{Buffers: 1})
	s, _ := udp(t)
	_, there := udp(t)
	taken, refuses := udp(t)
	if err := unix.Connect(taken, there); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptInt(s, unix.IPPROTO_IP, unix.IP_RECVERR, 1); err != nil {
		t.Fatal(err)
	}
	if err := unix.Sendto(s, []byte("x"), 0, refuses); err != nil {
		t.Fatal(err)
	}
	op := newOp(backend.Op{Code: backend.OpRecv, FD: int32(s)})
	submit(t, b, op)
	run(t, b, op.ended)
	if got := op.last(); got.Errno != unix.ECONNREFUSED {
		t.Fatalf("got %+v, want ECONNREFUSED", got)
	}
	for range 20 {
		op.got = nil
		submit(t, b, op)
		if err := b.Wait(0); err != nil {
			t.Fatal(err)
		}
		for b.ring.holdsBack() {
			if err := b.Wait(0); err != nil {
				t.Fatal(err)
			}
			b.Dispatch()
		}
		b.Cancel(&op.Op)
		run(t, b, op.ended)
	}
	r, w := pair(t)
	write(t, w, []byte("data"))
	other := newOp(backend.Op{Code: backend.OpRecv, FD: r})
	submit(t, b, other)
	run(t, b, other.ended)
	if string(other.data) != "data" || b.bulks > 0 {
		t.Errorf("it received %q, without a buffer of the ring: %v", other.data, b.bulks > 0)
	}
}

// wantQuiet waits until the kernel is left nothing to do turn after turn.
func wantQuiet(t *testing.T, b *Backend) {
	t.Helper()
	quiet := 0
	for range 1000 {
		if err := b.Wait(0); err != nil {
			t.Fatal(err)
		}
		b.Dispatch()
		quiet++
		if b.ring.pending() > 0 {
			quiet = 0
		}
		if quiet == 100 {
			return
		}
	}
	t.Fatal("the backend does not come to rest")
}

// udp returns a bound socket and its address.
func udp(t *testing.T) (int, unix.Sockaddr) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	at, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fd, at
}
