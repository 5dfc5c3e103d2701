package nowait

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
)

// BatchSize is how many packets a Batch has room for.
const BatchSize = 16

// Batch holds the arguments of a call that sends or receives several packets. It
// refers to the memory that it was given until Clear.
type Batch struct {
	headers [BatchSize]messageHeader
	pieces  [BatchSize]unix.Iovec
	addrs   [BatchSize]*backend.Addr
}

// messageHeader is struct mmsghdr.
type messageHeader struct {
	msg unix.Msghdr
	n   uint32
	_   [4]byte
}

// Set lets packet i be p, or be received into p. addr is where it goes, nil or
// empty for the peer, or gets the address of its sender.
func (b *Batch) Set(i int, p []byte, addr *backend.Addr) {
	b.pieces[i].Base = unsafe.SliceData(p)
	b.pieces[i].SetLen(len(p))
	b.addrs[i] = addr
	msg := &b.headers[i].msg
	msg.Iov = &b.pieces[i]
	msg.SetIovlen(1)
	msg.Name, msg.Namelen = nil, 0
	if addr != nil {
		msg.Name, msg.Namelen = &addr.Raw[0], addr.Len
	}
}

// Clear forgets the memory of the first n packets.
func (b *Batch) Clear(n int) {
	for i := range n {
		b.Set(i, nil, nil)
	}
}

// Len is how many bytes packet i has that was received.
func (b *Batch) Len(i int) int { return int(b.headers[i].n) }

// Send sends the first n packets (sendmmsg(2)), and returns how many the socket has
// taken. There is an error only if that is none. Why one behind the first was not sent
// is not told: an error that the kernel tells once, as those of what was sent before to
// a connected peer or with IP_RECVERR, is lost then.
func (b *Batch) Send(fd int32, n int) (int, syscall.Errno) {
	return b.call(unix.SYS_SENDMMSG, fd, n, flags)
}

// Recv receives up to n packets (recvmmsg(2)), and returns how many there were.
func (b *Batch) Recv(fd int32, n int) (int, syscall.Errno) {
	for i := range n {
		b.headers[i].msg.Namelen = backend.AddrCap
	}
	got, errno := b.call(unix.SYS_RECVMMSG, fd, n, unix.MSG_DONTWAIT)
	for i := range got {
		b.addrs[i].Len = min(b.headers[i].msg.Namelen, backend.AddrCap)
	}
	return got, errno
}

func (b *Batch) call(number uintptr, fd int32, n int, flags uintptr) (int, syscall.Errno) {
	for {
		done, _, errno := unix.RawSyscall6(number, uintptr(fd), uintptr(unsafe.Pointer(&b.headers)), uintptr(n), flags, 0, 0)
		switch errno {
		case 0:
			return int(done), 0
		case syscall.EINTR:
		default:
			return 0, errno
		}
	}
}
