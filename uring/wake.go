package uring

import (
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	sys "github.com/iceber/iouring-go/syscall"
	"golang.org/x/sys/unix"
)

// The states of a waker.
const (
	awake  = iota // the thread is not in a waiting system call
	asleep        // it is, or is about to be
	woken         // the running or next Wait has to return
)

// waker ends a wait from other threads. Only the one that finds the thread
// asleep writes to the eventfd, so a busy loop costs its wakers nothing. The
// ring watches the eventfd with a multishot poll, which reports every write;
// nobody needs to read it.
type waker struct {
	state atomic.Uint32
	mu    sync.Mutex // keeps fd open during the write
	fd    int        // -1 when closed
}

func newWaker() (*waker, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("eventfd", err)
	}
	return &waker{fd: fd}, nil
}

func (w *waker) wake() {
	if w.state.Swap(woken) != asleep {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fd >= 0 {
		one := uint64(1)
		syscall.RawSyscall(syscall.SYS_WRITE, uintptr(w.fd), uintptr(unsafe.Pointer(&one)), 8)
	}
}

// rest notes that the thread waits no more and reports whether it was woken.
func (w *waker) rest() bool {
	return w.state.Load() != awake && w.state.Swap(awake) == woken
}

func (w *waker) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.fd >= 0 {
		unix.Close(w.fd)
		w.fd = -1
	}
}

// watchWaker makes the ring report writes to the eventfd.
func (b *Backend) watchWaker() {
	e := b.ring.next()
	e.PrepOperation(sys.IORING_OP_POLL_ADD, int32(b.waker.fd), 0, pollMultishot, 0)
	e.SetOpFlags(unix.POLLIN)
	e.SetUserData(kindWake << 56)
}
