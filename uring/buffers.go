package uring

import (
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// bufGroup is the number of the one group of provided buffers.
const bufGroup = 0

// firstBuffers is how many buffers are given to the kernel at first. It uses
// them in turn, so every buffer more is memory that is cold when its turn
// comes; more are added when the kernel has run out.
const firstBuffers = 32

// bufStagger is added to the distance of two buffers, so that they do not all
// begin in the same set of the processor's caches.
const bufStagger = 320

// buffers is a ring of buffers that the kernel fills in the order in which
// they were given to it.
type buffers struct {
	ring   []byte // what munmap gets
	mem    []byte
	size   int
	stride int
	count  int
	given  int // how many of count were ever given
	mask   uint32
	tail   uint32
}

// bufEntry is struct io_uring_buf. In the first entry of the ring the last
// field is the ring's tail.
type bufEntry struct {
	addr uint64
	len  uint32
	bid  uint16
	tail uint16
}

// pbufReg is struct io_uring_buf_reg.
type pbufReg struct {
	addr    uint64
	entries uint32
	group   uint16
	flags   uint16
	resv    [3]uint64
}

// newBuffers registers count buffers, a power of two, of size bytes.
func newBuffers(r *ring, count, size int) (*buffers, error) {
	n := count * int(unsafe.Sizeof(bufEntry{}))
	q, err := mmapAnon(n)
	if err != nil {
		return nil, err
	}
	stride := size + bufStagger
	m, err := mmapAnon(count * stride)
	if err != nil {
		unix.Munmap(q)
		return nil, err
	}
	s := &buffers{ring: q, mem: m, size: size, stride: stride, count: count, mask: uint32(count - 1)}
	reg := pbufReg{addr: uint64(uintptr(unsafe.Pointer(&q[0]))), entries: uint32(count), group: bufGroup}
	if _, err := register(r.fd, registerPbufRing, unsafe.Pointer(&reg), 1); err != nil {
		s.close()
		return nil, err
	}
	s.grow(min(firstBuffers, count))
	return s, nil
}

// grow gives the kernel buffers until it has been given n.
func (s *buffers) grow(n int) {
	for ; s.given < min(n, s.count); s.given++ {
		s.put(uint16(s.given))
	}
}

// put gives a buffer to the kernel. The tail shares its word with the number
// of the ring's first buffer, and both are stored at once.
func (s *buffers) put(bid uint16) {
	first := (*bufEntry)(unsafe.Pointer(&s.ring[0]))
	i := s.tail & s.mask
	e := (*bufEntry)(unsafe.Add(unsafe.Pointer(first), uintptr(i)*unsafe.Sizeof(bufEntry{})))
	e.addr = uint64(uintptr(unsafe.Pointer(&s.mem[int(bid)*s.stride])))
	e.len = uint32(s.size)
	s.tail++
	word := (*uint32)(unsafe.Pointer(&first.bid))
	if i == 0 {
		atomic.StoreUint32(word, uint32(bid)|s.tail<<16)
		return
	}
	e.bid = bid
	atomic.StoreUint32(word, *word&0xffff|s.tail<<16)
}

// data returns the first n bytes of a buffer.
func (s *buffers) data(bid uint16, n int) []byte {
	off := int(bid) * s.stride
	return s.mem[off : off+n : off+n]
}

// close releases the memory; the kernel must not use it any more.
func (s *buffers) close() {
	unix.Munmap(s.ring)
	unix.Munmap(s.mem)
}
