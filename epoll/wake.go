package epoll

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Where the thread of the backend is, as far as Wake is concerned.
const (
	awake    uint32 = iota // not waiting
	sleeping               // in, or on the way into, a system call that waits
	woken                  // Wake was called; the next or this wait must return
	gone                   // closed
)

// wakeTag is the generation under which the eventfd is registered; entries
// never have it.
const wakeTag = -1 << 31

// openWake makes the eventfd. It is edge-triggered, so it needs never be read:
// every write is an edge.
func (b *Backend) openWake() (err error) {
	b.wakeFD, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return unavailable("eventfd", err)
	}
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(b.wakeFD), Pad: wakeTag}
	if err = unix.EpollCtl(b.epfd, unix.EPOLL_CTL_ADD, b.wakeFD, &ev); err != nil {
		unix.Close(b.wakeFD)
		return unavailable("epoll_ctl", err)
	}
	return nil
}

// Wake makes a running or the next Wait return. Any goroutine may call it. It
// makes a system call only if the thread sleeps, and only the first time.
func (b *Backend) Wake() {
	for {
		s := b.wakeState.Load()
		if s >= woken {
			return
		}
		if b.wakeState.CompareAndSwap(s, woken) {
			if s == sleeping {
				b.ring()
			}
			return
		}
	}
}

// ring writes to the eventfd. The lock keeps Close from giving the number away
// between the look and the write.
func (b *Backend) ring() {
	b.wakeMu.Lock()
	defer b.wakeMu.Unlock()
	if b.wakeFD < 0 {
		return
	}
	one := uint64(1)
	unix.RawSyscall(unix.SYS_WRITE, uintptr(b.wakeFD), uintptr(unsafe.Pointer(&one)), 8)
}

func (b *Backend) closeWake() {
	b.wakeState.Store(gone)
	b.wakeMu.Lock()
	defer b.wakeMu.Unlock()
	unix.Close(b.wakeFD)
	b.wakeFD = -1
}
