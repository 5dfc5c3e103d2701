package uring

import (
	"bytes"
	"net"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/internal/hot"
)

func TestAConnectionReceivesInBulkWhileItFillsBuffers(t *testing.T) {
	const size = 256
	for _, flags := range []backend.Flags{backend.Multishot, 0} {
		b := open(t, &Options{BufferSize: size})
		r, w := pair(t)
		op := newOp(backend.Op{Code: backend.OpRecv, FD: r, Flags: flags})
		var want []byte
		feed := func(n int) {
			p := bytes.Repeat([]byte{byte(len(want))}, n)
			want = append(want, p...)
			write(t, w, p)
			for len(op.data) < len(want) {
				before := len(op.data)
				if !op.InFlight() {
					submit(t, b, op)
				}
				run(t, b, func() bool { return len(op.data) > before })
			}
		}
		feed(size - 1)
		if b.bulk(&op.Op) {
			t.Fatal("a small message made it receive in bulk")
		}
		feed(8 * size)
		feed(8 * size)
		if !b.bulk(&op.Op) {
			t.Fatal("it does not receive in bulk")
		}
		feed(8 * size)
		if n := op.last().N; n != 8*size {
			t.Errorf("%d bytes came at once, want all %d", n, 8*size)
		}
		for range bulkUntil {
			feed(size - 1)
		}
		if b.bulk(&op.Op) {
			t.Fatal("small messages are still received in bulk")
		}
		if !bytes.Equal(op.data, want) {
			t.Fatal("wrong bytes")
		}
	}
}

func TestAReceiveThatFindsNoBufferIsNotPutOff(t *testing.T) {
	b := open(t, &Options{Buffers: 1, BufferSize: 64})
	ops := make([]*probeOp, 20)
	for i := range ops {
		r, w := pair(t)
		write(t, w, bytes.Repeat([]byte{byte(i)}, 1+i))
		ops[i] = newOp(backend.Op{Code: backend.OpRecv, FD: r, Flags: backend.Flags(i % 2)})
	}
	submit(t, b, ops...)
	if err := b.Wait(-1); err != nil {
		t.Fatal(err)
	}
	b.Dispatch()
	for i, op := range ops {
		if !bytes.Equal(op.data, bytes.Repeat([]byte{byte(i)}, 1+i)) {
			t.Errorf("receive %d got %v in the first turn", i, op.data)
		}
	}
}

// bulkPair returns an operation that receives in bulk, through a buffer of size
// bytes, and the other end of its connection, which takes 300 KiB at once.
func bulkPair(t *testing.T, b *Backend, size int) (*probeOp, int32) {
	t.Helper()
	b.own = hot.New(size)
	r, w := pair(t)
	if err := unix.SetsockoptInt(int(w), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 1<<20); err != nil {
		if err = unix.SetsockoptInt(int(w), unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<20); err != nil {
			t.Fatal(err)
		}
	}
	op := newOp(backend.Op{Code: backend.OpRecv, FD: r, Flags: backend.Multishot})
	op.State.Mark = markBulk
	submit(t, b, op)
	return op, w
}

// runUntilMore waits until op has received something, in one Dispatch.
func runUntilMore(t *testing.T, b *Backend, op *probeOp) {
	t.Helper()
	before := len(op.got)
	run(t, b, func() bool { return len(op.got) > before })
}

func TestBulkGoesOnWhileTheBufferIsFilled(t *testing.T) {
	b := open(t, nil)
	op, w := bulkPair(t, b, 4096)
	want := bytes.Repeat([]byte("0123456789abcdef"), 10_000/16)
	write(t, w, want)
	runUntilMore(t, b, op)
	if !bytes.Equal(op.data, want) || len(op.got) != 3 {
		t.Errorf("%d bytes in %d pieces came in one turn, want %d in 3", len(op.data), len(op.got), len(want))
	}
	unix.Shutdown(int(w), unix.SHUT_WR)
	run(t, b, op.ended)
	if r := op.last(); r.N != 0 || r.Errno != 0 {
		t.Errorf("ended with %+v, want the end of the stream", r)
	}
}

func TestBulkLeavesOthersTheirTurn(t *testing.T) {
	b := open(t, nil)
	op, w := bulkPair(t, b, 64<<10)
	want := bytes.Repeat([]byte("0123456789abcdef"), 300<<10/16)
	write(t, w, want)
	runUntilMore(t, b, op)
	if n := len(op.data); n != bulkTurn {
		t.Errorf("%d bytes came in one turn, want %d", n, bulkTurn)
	}
	run(t, b, func() bool { return len(op.data) == len(want) })
	if !bytes.Equal(op.data, want) {
		t.Error("wrong bytes")
	}
}

func TestBulkStopsForAReceiverThat(t *testing.T) {
	const size = 4096
	for name, hook := range map[string]func(b *Backend, op *probeOp){
		"cancels":          func(b *Backend, op *probeOp) { b.Cancel(&op.Op) },
		"halts":            func(b *Backend, _ *probeOp) { b.Halt() },
		"has enough":       func(_ *Backend, op *probeOp) { op.Enough = true },
		"keeps the buffer": func(b *Backend, _ *probeOp) { b.Keep(b.own.Bytes()) },
	} {
		t.Run(name, func(t *testing.T) {
			b := open(t, nil)
			op, w := bulkPair(t, b, size)
			op.hook = func(r backend.Result) {
				if r.More {
					hook(b, op)
				}
			}
			write(t, w, make([]byte, 3*size))
			runUntilMore(t, b, op)
			if n := len(op.data); n != size {
				t.Errorf("%d bytes came, want no more than the first %d", n, size)
			}
		})
	}
}

func TestOfSeveralInBulkTheNewestHasTheFirstTurn(t *testing.T) {
	b := open(t, nil)
	var order []int
	writers := make([]int32, 4)
	for i := range writers {
		op, w := bulkPair(t, b, 4096)
		op.hook = func(r backend.Result) {
			if r.More {
				order = append(order, i)
			}
		}
		writers[i] = w
	}
	for _, want := range [][]int{{0, 1, 2, 3}, {3, 2, 1, 0}} { // at first it is not known that there are several
		order = nil
		for _, w := range writers {
			write(t, w, []byte("x"))
		}
		run(t, b, func() bool { return len(order) == len(writers) })
		if !slices.Equal(order, want) {
			t.Errorf("the turns came in the order %v, want %v", order, want)
		}
	}
}

func TestAnErrorThatEndsADrainIsToldAndNotTheEnd(t *testing.T) {
	const size = 4096
	b := open(t, nil)
	b.own = hot.New(size)
	r, w := tcpPair(t)
	op := newOp(backend.Op{Code: backend.OpRecv, FD: r, Flags: backend.Multishot})
	op.State.Mark = markBulk
	op.hook = func(res backend.Result) {
		if res.More && len(op.data) == 2*size { // all of it
			reset(t, w)
		}
	}
	write(t, w, make([]byte, 2*size))
	submit(t, b, op)
	run(t, b, op.ended)
	if res := op.last(); len(op.data) != 2*size || res.Errno != syscall.ECONNRESET {
		t.Errorf("%d bytes came, and then %+v; want %d and ECONNRESET", len(op.data), res, 2*size)
	}
}

// reset ends a TCP connection with a reset.
func reset(t *testing.T, fd int32) {
	t.Helper()
	if err := unix.SetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		t.Error(err)
	}
	unix.Close(int(fd))
}

// tcpPair returns a connected pair of non-blocking TCP sockets. The second is to
// be closed by the caller.
func tcpPair(t *testing.T) (int32, int32) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	w, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	if err := unix.Connect(w, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	f, err := c.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	fd := int(f.Fd())
	for _, fd := range []int{fd, w} {
		if err := unix.SetNonblock(fd, true); err != nil {
			t.Fatal(err)
		}
	}
	return int32(fd), int32(w)
}

// A receive that found no buffer goes on as a multishot of the kernel, which a
// short queue hands over as soon as the receiver submits something. What that
// brings comes after what is being told.
func TestWhatIsReceivedWithoutABufferIsNotOvertaken(t *testing.T) {
	const size = 4096
	b := open(t, &Options{Buffers: 1, BufferSize: 64, SQEntries: 2})
	b.own = hot.New(size)
	r, w := pair(t)
	var want []byte
	for i := range 4 {
		want = append(want, bytes.Repeat([]byte{'a' + byte(i)}, size)...)
	}
	write(t, w, want)
	first, firstW := pair(t)
	write(t, firstW, []byte("takes the buffer"))
	op := newOp(backend.Op{Code: backend.OpRecv, FD: r, Flags: backend.Multishot})
	op.hook = func(res backend.Result) {
		for range 4 {
			if res.More {
				submit(t, b, newOp(backend.Op{}))
			}
		}
	}
	submit(t, b, newOp(backend.Op{Code: backend.OpRecv, FD: first}), op)
	run(t, b, func() bool { return len(op.data) >= len(want) })
	if !bytes.Equal(op.data, want) {
		t.Error("the bytes came in another order")
	}
}
