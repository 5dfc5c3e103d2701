package uring

import (
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
)

// drop makes the kernel end what it does for op though nobody asked.
func drop(t *testing.T, b *Backend, op *probeOp) {
	t.Helper()
	if err := b.Wait(0); err != nil {
		t.Fatal(err)
	}
	before := b.slots.at(op.State.Slot).dropped
	b.prepCancel(op.State.Slot)
	run(t, b, func() bool { return op.ended() || b.slots.at(op.State.Slot).dropped != before })
}

func TestAnOperationThatTheKernelDropsIsTriedAgain(t *testing.T) {
	b := open(t, nil)
	r, w := pair(t)
	op := newOp(backend.Op{Code: backend.OpRecv, FD: r, Buf: make([]byte, 8)})
	submit(t, b, op)
	for range maxDropped {
		drop(t, b, op)
	}
	write(t, w, []byte("x"))
	run(t, b, op.ended)
	if res := op.last(); res.N != 1 || res.Errno != 0 {
		t.Errorf("it ended with N %d, errno %v; want the byte", res.N, res.Errno)
	}
}

func TestAMultishotThatGoesOnMayBeDroppedAnyNumberOfTimes(t *testing.T) {
	b := open(t, nil)
	r, w := pair(t)
	op := newOp(backend.Op{Code: backend.OpRecv, FD: r, Flags: backend.Multishot})
	submit(t, b, op)
	for n := range 2 * maxDropped {
		drop(t, b, op)
		write(t, w, []byte("x"))
		run(t, b, func() bool { return op.ended() || len(op.data) > n })
	}
	if op.ended() {
		t.Errorf("it ended with %+v", op.last())
	}
}

func TestAnOperationThatTheKernelDropsForEverFails(t *testing.T) {
	b := open(t, nil)
	r, _ := pair(t)
	op := newOp(backend.Op{Code: backend.OpRecv, FD: r, Buf: make([]byte, 8)})
	submit(t, b, op)
	for range maxDropped + 1 {
		drop(t, b, op)
	}
	if !op.ended() || op.last().Errno != syscall.EAGAIN {
		t.Errorf("it was told %v, want EAGAIN", op.got)
	}
}

func TestACloseThatTheKernelDropsClosesNevertheless(t *testing.T) {
	b := open(t, nil)
	f, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, err := unix.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	op := newOp(backend.Op{Code: backend.OpClose, FD: int32(fd)})
	submit(t, b, op)
	b.fds.at(op.FD).closing, b.closable = 0, nil // as if the kernel had taken it
	b.failed(op.State.Slot, int32(syscall.ECANCELED))
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != unix.EBADF {
		t.Errorf("the descriptor: %v, want it closed", err)
	}
	if !op.ended() || op.last().Errno != 0 {
		t.Errorf("it was told %v, want success", op.got)
	}
}
