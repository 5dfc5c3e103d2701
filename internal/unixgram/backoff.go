// Package unixgram sends datagrams from Unix sockets to a named peer.
//
// If the peer's queue is full, poll(2) and epoll(7) call the sender writable
// all the same, unless it is connected to that peer: whoever waits for
// writability tries again and again. So the packet is sent with a plain system
// call, which never waits, and tried again after a while.
package unixgram

import (
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
)

// Send sends p as one packet from the socket fd to an address, or to its peer if
// that is empty (sendto(2)). It serves all families. EAGAIN says that the peer,
// or the socket's own send buffer, has no room.
func Send(fd int32, p []byte, to *backend.Addr) (int, syscall.Errno) {
	name, size := to.Pointer()
	if size == 0 {
		name = nil
	}
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd),
			uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)),
			unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, uintptr(name), uintptr(size))
		switch errno {
		case 0:
			return int(n), 0
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}

const (
	firstPause = 32 * time.Microsecond
	// maxPause bounds how late it is noticed that the peer has room again.
	maxPause = 4096 * time.Microsecond
)

// Backoff says how long to wait before the next attempt. The zero value is for
// the first one.
type Backoff time.Duration

// Next returns the pause: none at first, because a peer on the same loop gets
// its turn before the next attempt, and then ever longer ones.
func (b *Backoff) Next() time.Duration {
	pause := time.Duration(*b)
	*b = Backoff(min(max(2*pause, firstPause), maxPause))
	return pause
}

// Reset says that an attempt has succeeded.
func (b *Backoff) Reset() { *b = 0 }
