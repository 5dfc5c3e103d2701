// Package nowait sends, receives and polls with plain system calls that never wait,
// also on a blocking descriptor: EAGAIN says that nothing is there, or that the
// socket, or the peer of a Unix socket, has no room. No signal is raised if the peer
// is gone. The calls allocate nothing and need little of a stack, and a signal does
// not interrupt them.
package nowait

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
)

const flags = unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL

// Send sends what there is room for (send(2)), and returns how many bytes that was.
func Send(fd int32, p []byte) (int, syscall.Errno) { return sendto(fd, p, nil, 0) }

// SendTo sends p as one packet to an address, or to the peer if that is empty
// (sendto(2)).
func SendTo(fd int32, p []byte, to *backend.Addr) (int, syscall.Errno) {
	name, size := to.Pointer()
	if size == 0 {
		name = nil
	}
	return sendto(fd, p, name, size)
}

func sendto(fd int32, p []byte, name unsafe.Pointer, size uint32) (int, syscall.Errno) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd),
			uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), flags, uintptr(name), uintptr(size))
		switch errno {
		case 0:
			return int(n), 0
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}

// SendMsg is SendTo, or on a stream Send, for the concatenation of the message's
// pieces (sendmsg(2)).
func SendMsg(fd int32, msg *unix.Msghdr) (int, syscall.Errno) {
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(msg)), flags)
		switch errno {
		case 0:
			return int(n), 0
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}
