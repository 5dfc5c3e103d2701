package sockapi

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/internal/unixgram"
	"github.com/seed-80cfe818/ringloop/loop"
)

// sendsAtOnce reports whether a call that has the lane is to try to send n bytes
// before it suspends its task: mostly the kernel takes them, and the two switches
// of a suspension cost more than a system call that is cheap.
func (s *Socket) sendsAtOnce(co *loop.Coro, n int) bool {
	return s.home != nil && n >= s.home.direct && s.tries < maxTries && !s.out.expired && co.Unhindered()
}

// sendNow sends what the kernel takes at once, if that is worth it. It needs
// little of the task's stack. Of an error the kernel tells only once.
func (s *Socket) sendNow(co *loop.Coro, p []byte) (int, syscall.Errno) {
	if !s.sendsAtOnce(co, len(p)) {
		return 0, 0
	}
	n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)),
		unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	switch errno {
	case 0:
		s.tries++
		return int(n), 0
	case syscall.EAGAIN, syscall.EINTR:
		return 0, 0
	}
	return 0, errno
}

// sendToNow is sendNow for a message to an address. It returns EAGAIN if nothing
// was sent.
func (s *Socket) sendToNow(co *loop.Coro, p []byte, to *backend.Addr) (int, syscall.Errno) {
	if !s.sendsAtOnce(co, len(p)) {
		return 0, syscall.EAGAIN
	}
	s.tries++
	return unixgram.Send(s.fd, p, to)
}
