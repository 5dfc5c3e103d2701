package nowait

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
)

// Recv receives what is there into p (recv(2)), and returns how many bytes that was.
func Recv(fd int32, p []byte) (int, syscall.Errno) { return recvfrom(fd, p, nil, nil) }

// RecvFrom is Recv, and tells the address of the sender (recvfrom(2)), which is
// empty if there is none.
func RecvFrom(fd int32, p []byte, from *backend.Addr) (int, syscall.Errno) {
	from.Len = backend.AddrCap
	n, errno := recvfrom(fd, p, unsafe.Pointer(&from.Raw), unsafe.Pointer(&from.Len))
	from.Len = min(from.Len, backend.AddrCap)
	if errno != 0 {
		from.Len = 0
	}
	return n, errno
}

// Receive does an OpRecv or an OpRecvMsg that has a buffer, as far as that is there.
func Receive(op *backend.Op) (int, syscall.Errno) {
	if op.Code == backend.OpRecvMsg {
		return RecvFrom(op.FD, op.Buf, &op.Ext.Addr)
	}
	return Recv(op.FD, op.Buf)
}

func recvfrom(fd int32, p []byte, name, size unsafe.Pointer) (int, syscall.Errno) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd),
			uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), unix.MSG_DONTWAIT, uintptr(name), uintptr(size))
		switch errno {
		case 0:
			return int(n), 0
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}
