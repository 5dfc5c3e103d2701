// Package peername asks the kernel who the peer of a connection was.
package peername

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
)

// Former asks for the peer of a TCP connection that is broken, perhaps since
// before it was accepted: the kernel tells it, but not by getpeername(2). If there
// never was one, raw is no address.
func Former(fd int32, raw *backend.Addr) {
	// The kernel wants to know the exact size.
	for _, size := range [...]uint32{unix.SizeofSockaddrInet6, unix.SizeofSockaddrInet4} {
		raw.Len = size
		_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERNAME,
			uintptr(unsafe.Pointer(&raw.Raw)), uintptr(unsafe.Pointer(&raw.Len)), 0)
		if errno == 0 {
			return
		}
	}
	raw.Len = 0
}
