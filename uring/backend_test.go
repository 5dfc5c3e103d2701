package uring

import (
	"bytes"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
)

func TestNopCompletesOnce(t *testing.T) {
	b := open(t, nil)
	op := newOp(backend.Op{})
	submit(t, b, op)
	run(t, b, op.ended)
	if len(op.got) != 1 || op.got[0].Errno != 0 || b.InFlight() != 0 {
		t.Fatalf("got %+v, %d in flight", op.got, b.InFlight())
	}
}

func TestMultishotRecvDeliversUntilEndOfStream(t *testing.T) {
	for _, off := range [][]string{nil, {MultishotRecv}, {ProvidedBuffers}} {
		b := open(t, &Options{Disable: off})
		r, w := pair(t)
		op := newOp(backend.Op{Code: backend.OpRecv, FD: r, Flags: backend.Multishot})
		submit(t, b, op)
		var want []byte
		for i := range 100 {
			p := bytes.Repeat([]byte{byte(i)}, 1+i*7)
			want = append(want, p...)
			write(t, w, p)
			run(t, b, func() bool { return len(op.data) == len(want) })
		}
		unix.Shutdown(int(w), unix.SHUT_WR)
		run(t, b, op.ended)
		if !bytes.Equal(op.data, want) || op.last().N != 0 || op.last().Errno != 0 {
			t.Fatalf("without %v: wrong data or end %+v", off, op.last())
		}
	}
}

func TestFullQueuesLoseNothing(t *testing.T) {
	for _, off := range [][]string{nil, {DeferTaskrun}, {SubmitAll, NoSQArray}} {
		b := open(t, &Options{SQEntries: 4, CQEntries: 4, Disable: off})
		const n = 1000
		total := 0
		ops := make([]*probeOp, n)
		for i := range ops {
			ops[i] = newOp(backend.Op{})
			ops[i].hook = func(backend.Result) { total++ }
		}
		submit(t, b, ops...)
		run(t, b, func() bool { return b.InFlight() == 0 })
		for i, op := range ops {
			if len(op.got) != 1 {
				t.Fatalf("without %v: nop %d completed %d times", off, i, len(op.got))
			}
		}
	}
}

func TestMultishotSurvivesCompletionQueueOverflow(t *testing.T) {
	b := open(t, &Options{SQEntries: 4, CQEntries: 4, Buffers: 64, BufferSize: 64})
	type conn struct {
		op *probeOp
		w  int32
	}
	conns := make([]conn, 50)
	for i := range conns {
		r, w := pair(t)
		conns[i] = conn{newOp(backend.Op{Code: backend.OpRecv, FD: r, Flags: backend.Multishot}), w}
		submit(t, b, conns[i].op)
	}
	var want []byte
	for i := range 100 {
		p := bytes.Repeat([]byte{byte(i)}, 100)
		want = append(want, p...)
		for _, c := range conns {
			write(t, c.w, p)
		}
		if i%10 == 9 {
			run(t, b, func() bool {
				for _, c := range conns {
					if len(c.op.data) < len(want) {
						return false
					}
				}
				return true
			})
		}
	}
	for i, c := range conns {
		if !bytes.Equal(c.op.data, want) {
			t.Fatalf("connection %d: wrong data", i)
		}
		b.Cancel(&c.op.Op)
	}
	run(t, b, func() bool { return b.InFlight() == 0 })
	for i, c := range conns {
		if !c.op.last().Cancelled() {
			t.Fatalf("connection %d ended with %+v", i, c.op.last())
		}
	}
}

func TestRecvGoesOnAfterTheBuffersRanOut(t *testing.T) {
	for _, n := range []int{1, 2, 64} {
		b := open(t, &Options{Buffers: n, BufferSize: 16})
		ops := make([]*probeOp, 200)
		for i := range ops {
			r, w := pair(t)
			ops[i] = newOp(backend.Op{Code: backend.OpRecv, FD: r})
			if i%2 == 0 {
				ops[i].Flags = backend.Multishot
			}
			write(t, w, []byte("sixteen bytes ok"))
			submit(t, b, ops[i])
		}
		run(t, b, func() bool {
			for _, op := range ops {
				if len(op.data) < 16 {
					return false
				}
			}
			return true
		})
		for i, op := range ops {
			if string(op.data) != "sixteen bytes ok" || op.ended() != (i%2 != 0) {
				t.Fatalf("%d buffers, socket %d: %q, %+v", n, i, op.data, op.got)
			}
		}
	}
}

func TestBufferComesBackAfterAPanic(t *testing.T) {
	b := open(t, &Options{Buffers: 1, BufferSize: 16})
	r, w := pair(t)
	op := newOp(backend.Op{Code: backend.OpRecv, FD: r, Flags: backend.Multishot})
	op.hook = func(backend.Result) { panic("receiver") }
	submit(t, b, op)
	turn := func() (panicked bool) {
		defer func() { panicked = recover() != nil }()
		if err := b.Wait(-1); err != nil {
			t.Errorf("Wait: %v", err)
			return true
		}
		b.Dispatch()
		return false
	}
	for i := range 5 {
		write(t, w, []byte{byte(i)})
		for !turn() {
		}
	}
	op.hook = nil
	if !bytes.Equal(op.data, []byte{0, 1, 2, 3, 4}) {
		t.Fatalf("got %v", op.data)
	}
}

func TestSignalsDoNotEndAWait(t *testing.T) {
	b := open(t, nil)
	tid := unix.Gettid()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				unix.Tgkill(unix.Getpid(), tid, unix.SIGURG)
			}
			if i == 2000 {
				b.Wake()
			}
		}
	}()
	if err := b.Wait(-1); err != nil {
		t.Errorf("Wait: %v", err)
	}
	r, w := pair(t)
	op := newOp(backend.Op{Code: backend.OpRecv, FD: r, Flags: backend.Multishot})
	submit(t, b, op)
	for range 200 {
		write(t, w, []byte("ping"))
		n := len(op.data)
		run(t, b, func() bool { return len(op.data) == n+4 })
	}
	close(stop)
	<-stopped
}

func TestWakeWritesOnlyToASleeper(t *testing.T) {
	b := open(t, nil)
	for range 10 {
		b.Wake()
	}
	var count [8]byte
	if _, err := unix.Read(b.waker.fd, count[:]); err != unix.EAGAIN {
		t.Fatalf("Wake wrote to the eventfd of a thread that is awake: %v", err)
	}
	if err := b.Wait(-1); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		go b.Wake()
		if err := b.Wait(-1); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWakeAfterCloseTouchesNoDescriptor(t *testing.T) {
	b := open(t, nil)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b.waker.state.Store(asleep)
	b.Wake()
	if b.waker.fd != -1 {
		t.Fatalf("the eventfd is still %d", b.waker.fd)
	}
}

func TestCloseWithoutEnableReleasesTheRing(t *testing.T) {
	before := len(openFDs(t))
	for range 10 {
		b, err := New(nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if after := len(openFDs(t)); after != before {
		t.Fatalf("%d descriptors before, %d after", before, after)
	}
}

func TestWaitMakesNoSystemCallWhenThereIsNothingToDo(t *testing.T) {
	b := open(t, nil)
	if err := b.Wait(0); err != nil {
		t.Fatal(err)
	}
	fd := b.ring.enterFD
	b.ring.enterFD = 1 << 20 // a call would fail
	err := b.Wait(0)
	b.ring.enterFD = fd
	if err != nil {
		t.Fatalf("Wait entered the kernel: %v", err)
	}
}

func TestADescriptorFarOutOfRangeCostsNoTable(t *testing.T) {
	b := open(t, nil)
	for _, code := range []backend.Code{backend.OpRecv, backend.OpClose} {
		op := newOp(backend.Op{Code: code, FD: 1 << 30})
		submit(t, b, op)
		run(t, b, op.ended)
		if op.last().Errno != unix.EBADF || len(b.fds.pages) > 1<<16 {
			t.Fatalf("%+v, table of %d", op.last(), len(b.fds.pages))
		}
	}
}

func TestAHighDescriptorCostsAPageOfTheTable(t *testing.T) {
	b := open(t, nil)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	r, w := pair(t)
	high, err := unix.FcntlInt(uintptr(r), unix.F_DUPFD_CLOEXEC, int(min(limit.Cur-1, 1_000_000)))
	if err != nil {
		t.Fatal(err)
	}
	op := newOp(backend.Op{Code: backend.OpRecv, FD: int32(high), Buf: make([]byte, 8)})
	submit(t, b, op)
	if _, err := unix.Write(int(w), []byte("x")); err != nil {
		t.Fatal(err)
	}
	run(t, b, op.ended)
	closing := newOp(backend.Op{Code: backend.OpClose, FD: int32(high)})
	submit(t, b, closing)
	run(t, b, closing.ended)
	if op.last().N != 1 || closing.last().Errno != 0 {
		t.Errorf("recv %+v, close %+v", op.got, closing.got)
	}
	used := 0
	for _, p := range b.fds.pages {
		if p != nil {
			used++
		}
	}
	if used != 1 {
		t.Errorf("%d pages are in use for one descriptor", used)
	}
}

func TestAClosedDescriptorCanBeUsedAgainAtOnce(t *testing.T) {
	b := open(t, nil)
	r, _ := pair(t)
	fd, err := unix.Dup(int(r))
	if err != nil {
		t.Fatal(err)
	}
	closing := newOp(backend.Op{Code: backend.OpClose, FD: int32(fd)})
	submit(t, b, closing)
	if err := b.Wait(-1); err != nil {
		t.Fatal(err)
	}
	if err := unix.Dup3(int(r), fd, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	op := newOp(backend.Op{Code: backend.OpRecv, FD: int32(fd)})
	submit(t, b, op)
	run(t, b, closing.ended)
	if op.ended() || closing.last().Errno != 0 {
		t.Fatalf("recv %+v, close %+v", op.got, closing.got)
	}
	closing = newOp(backend.Op{Code: backend.OpClose, FD: int32(fd)})
	submit(t, b, closing)
	run(t, b, closing.ended)
	if !op.last().Cancelled() {
		t.Fatalf("recv ended with %+v", op.last())
	}
}

// TestACloseThatIsDoneIsForgotten lets entries that the kernel refuses end its
// batches, so that there are always some that it has not taken.
func TestACloseThatIsDoneIsForgotten(t *testing.T) {
	b := open(t, &Options{Disable: []string{SubmitAll}})
	r, w := pair(t)
	refused := func() *probeOp {
		op := newOp(backend.Op{Code: backend.OpConnect, FD: r, Ext: new(backend.Ext)})
		op.Ext.Addr.Len = backend.AddrCap + 1
		return op
	}
	dup := func() int32 {
		fd, err := unix.FcntlInt(uintptr(r), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return int32(fd)
	}
	turn := func() {
		if err := b.Wait(-1); err != nil {
			t.Fatal(err)
		}
		b.Dispatch()
	}
	first := newOp(backend.Op{Code: backend.OpClose, FD: dup()})
	submit(t, b, refused(), first)
	turn()
	submit(t, b, refused(), newOp(backend.Op{}))
	for !first.ended() {
		turn()
	}
	// Another close has the slot now, and waits for a receive.
	other := dup()
	if other != first.FD {
		t.Fatalf("descriptor %d instead of %d", other, first.FD)
	}
	recv := newOp(backend.Op{Code: backend.OpRecv, FD: other, Buf: make([]byte, 8)})
	submit(t, b, recv)
	turn()
	second := newOp(backend.Op{Code: backend.OpClose, FD: other})
	submit(t, b, second)
	run(t, b, second.ended)
	if !recv.ended() || !recv.last().Cancelled() || second.last().Errno != 0 {
		t.Errorf("recv %+v, close %+v", recv.got, second.got)
	}
	write(t, w, []byte("still open"))
	run(t, b, func() bool { return b.InFlight() == 0 })
}
