package uring

import (
	"sync"
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

// maxSlab is how many bytes are added at once at most, unless one buffer is
// larger: the collector's memory counts before anything is in it.
const maxSlab = 16 << 20

// keepFrom is the share of a provided buffer that has to be full for it to be
// kept: less is copied, or small messages would hold much memory.
const keepFrom = 4

// maxSpare is how many buffers that were kept are held for the next use.
const maxSpare = 64

// bufStagger is added to the distance of two buffers, so that they do not all
// begin in the same set of the processor's caches.
const bufStagger = 320

// buffers is a ring of buffers that the kernel fills in the order in which
// they were given to it. Their memory is the garbage collector's, so that who
// keeps one may have it for longer than the backend lives; nothing moves it.
type buffers struct {
	ring  []byte   // what munmap gets
	mem   [][]byte // by number, those that were ever given
	spare [][]byte // the last one was used last
	kept  int      // how many were kept and not given back
	size  int
	count int
	mask  uint32
	tail  uint32 // one past the last buffer that was put
	shown uint32 // the tail that the kernel sees
	first uint16 // the buffer in the ring's first entry
	eager bool   // the kernel may take buffers at any time, not only when it is entered
}

// registered refers to the buffers of all rings: the kernel goes on filling
// those of a backend that was dropped without Close.
var registered sync.Map

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
	s := &buffers{ring: q, size: size, count: count, mask: uint32(count - 1), eager: r.setup&setupDeferTaskrun == 0}
	reg := pbufReg{addr: uint64(uintptr(unsafe.Pointer(&q[0]))), entries: uint32(count), group: bufGroup}
	if err := register(r.fd, registerPbufRing, unsafe.Pointer(&reg), 1); err != nil {
		s.close()
		return nil, err
	}
	s.grow(min(firstBuffers, count))
	r.bufs = s
	registered.Store(s, nil)
	return s, nil
}

// grow gives the kernel buffers until there are n, or as many as there may be,
// or as fit in a slab.
func (s *buffers) grow(n int) {
	stride := s.size + bufStagger
	more := min(n, s.count) - len(s.mem)
	more = min(more, max(1, maxSlab/stride))
	if more <= 0 {
		return
	}
	for slab := make([]byte, more*stride); len(slab) > 0; slab = slab[stride:] {
		s.mem = append(s.mem, slab[:s.size:s.size])
		s.put(uint16(len(s.mem) - 1))
	}
}

// put gives a buffer to the kernel, which sees it after the next publish, unless
// it may look at any time.
func (s *buffers) put(bid uint16) {
	i := s.tail & s.mask
	e := (*bufEntry)(unsafe.Pointer(&s.ring[uintptr(i)*unsafe.Sizeof(bufEntry{})]))
	e.addr = uint64(uintptr(unsafe.Pointer(&s.mem[bid][0])))
	e.len = uint32(s.size)
	if i == 0 {
		s.first = bid
	} else {
		e.bid = bid
	}
	s.tail++
	if s.eager {
		s.publish()
	}
}

// publish shows the kernel the buffers that were put. The tail shares its word
// with the number of the ring's first buffer, and both are stored at once; to do
// so for every buffer would wait each time for all that was written before.
func (s *buffers) publish() {
	if s.shown == s.tail {
		return
	}
	s.shown = s.tail
	e := (*bufEntry)(unsafe.Pointer(&s.ring[0]))
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&e.bid)), uint32(s.first)|s.tail<<16)
}

// data returns the first n bytes of a buffer.
func (s *buffers) data(bid uint16, n int) []byte { return s.mem[bid][:n:n] }

// keep takes a buffer away and gives the kernel another one in its place.
func (s *buffers) keep(bid uint16) []byte {
	whole := s.mem[bid]
	if n := len(s.spare); n > 0 {
		s.mem[bid], s.spare[n-1] = s.spare[n-1], nil
		s.spare = s.spare[:n-1]
	} else {
		s.mem[bid] = make([]byte, s.size)
	}
	s.put(bid)
	s.kept++
	return whole
}

// giveBack takes a buffer that was kept. It reports false for memory of another
// size, and for more memory than was kept: its owner has a use for it.
func (s *buffers) giveBack(whole []byte) bool {
	if s.kept == 0 || len(whole) != s.size {
		return false
	}
	s.kept--
	if len(s.spare) < maxSpare {
		s.spare = append(s.spare, whole)
	}
	return true
}

// close releases the ring; the kernel must not use it any more.
func (s *buffers) close() {
	registered.Delete(s)
	unix.Munmap(s.ring)
}
