package uring

import (
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
)

// arena hands out blocks of memory outside the Go heap for what the kernel
// reads and writes besides the caller's buffers: message headers, vectors,
// addresses, siginfo. Freed blocks are kept for the next operation.
type arena struct {
	free [len(auxSizes)]unsafe.Pointer
	maps [][]byte
}

// auxSizes are the sizes of blocks: an address or a message of a few pieces, a
// message of about a hundred, and one of backend.MaxBufs.
var auxSizes = [...]int{256, 2048, 20480}

const arenaChunk = 64 << 10

// take returns a block of at least n bytes and its size class.
func (a *arena) take(n int) (unsafe.Pointer, uint8, error) {
	c := 0
	for auxSizes[c] < n {
		c++
	}
	if a.free[c] == nil {
		if err := a.grow(c); err != nil {
			return nil, 0, err
		}
	}
	p := a.free[c]
	a.free[c] = *(*unsafe.Pointer)(p)
	return p, uint8(c), nil
}

func (a *arena) grow(c int) error {
	m, err := mmapAnon(arenaChunk)
	if err != nil {
		return err
	}
	a.maps = append(a.maps, m)
	for off := 0; off+auxSizes[c] <= len(m); off += auxSizes[c] {
		a.put(unsafe.Pointer(&m[off]), uint8(c))
	}
	return nil
}

// put takes a block back.
func (a *arena) put(p unsafe.Pointer, class uint8) {
	*(*uintptr)(p) = uintptr(a.free[class]) // no write barrier, see iovec
	a.free[class] = p
}

// close releases all blocks.
func (a *arena) close() {
	for _, m := range a.maps {
		unix.Munmap(m)
	}
	*a = arena{}
}

// auxAddr is the block of accept and connect.
type auxAddr struct {
	raw [backend.AddrCap]byte
	len uint32
}

// auxMsg is the head of the block of recvmsg and sendmsg; the vector follows.
type auxMsg struct {
	hdr msghdr
	raw [backend.AddrCap]byte
	iov [1]iovec
}

// iovec is struct iovec, and msghdr struct msghdr. Their pointers are integers:
// a store of a Go pointer has a write barrier, which shows the collector what
// was there before, and in a block that was used before that is an address
// which is free by now.
type iovec struct {
	base uintptr
	len  uint64
}

type msghdr struct {
	name       uintptr
	namelen    uint32
	_          uint32
	iov        uintptr
	iovlen     uint64
	control    uintptr
	controllen uint64
	flags      int32
	_          int32
}

// auxSiginfo is the block of waitid: siginfo_t as SIGCHLD fills it on 64-bit
// machines.
type auxSiginfo struct {
	signo, errno, code, _ int32
	pid, uid, status      int32
	_                     [100]byte
}

// auxMsgSize is the size of an auxMsg with n pieces.
func auxMsgSize(n int) int {
	return int(unsafe.Offsetof(auxMsg{}.iov)) + n*int(unsafe.Sizeof(iovec{}))
}
