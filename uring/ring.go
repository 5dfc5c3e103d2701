package uring

import (
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	sys "github.com/iceber/iouring-go/syscall"
	"golang.org/x/sys/unix"
)

type (
	sqe = sys.SubmissionQueueEntry64
	cqe = sys.CompletionQueueEvent16
)

// ring is the pair of queues shared with the kernel. tail and head are the
// queues' ends as this side knows them; they are published before the kernel
// is entered.
type ring struct {
	fd      int // the ring's descriptor
	enterFD int // what io_uring_enter is given: fd or the registered index
	flags   uint32
	setup   uint32

	sqHead, sqTail, sqFlags *uint32
	sqMask, sqEntries       uint32
	sqes                    unsafe.Pointer
	tail                    uint32 // one past the last entry written
	taken                   uint32 // the kernel's head when it was last read

	cqHead, cqTail *uint32
	cqMask         uint32
	cqes           unsafe.Pointer
	head           uint32 // the next completion to read

	bufs *buffers // published together with the queues; nil if there are none

	// stash holds entries that found the queue full and the kernel unwilling.
	stash []sqe

	maps [][]byte // what munmap gets, exactly as mmap returned it
	arg  *waitArg // outside the heap, since the kernel follows its pointer
}

// waitArg is struct io_uring_getevents_arg and the timespec it points to.
type waitArg struct {
	sigmask   uint64
	sigmaskSz uint32
	minWait   uint32
	ts        uint64
	timeout   unix.Timespec
}

const waitArgSize = 24

// newRing maps the queues of a ring that setup created.
func newRing(s setupResult) (*ring, error) {
	r := &ring{fd: s.fd, enterFD: s.fd, setup: s.params.Flags}
	p := &s.params
	if p.Features&sys.IORING_FEAT_SINGLE_MMAP == 0 || p.Features&sys.IORING_FEAT_NODROP == 0 || p.Features&featExtArg == 0 {
		return r, fmt.Errorf("io_uring lacks single mmap, no-drop or timed wait (features %#x): %w", p.Features, syscall.EOPNOTSUPP)
	}
	n := max(p.SQOffset.Array+p.SQEntries*4, p.CQOffset.Cqes+p.CQEntries*uint32(unsafe.Sizeof(cqe{})))
	q, err := r.mmap(int64(sys.IORING_OFF_SQ_RING), int(n))
	if err != nil {
		return r, err
	}
	e, err := r.mmap(int64(sys.IORING_OFF_SQES), int(p.SQEntries)*int(unsafe.Sizeof(sqe{})))
	if err != nil {
		return r, err
	}
	a, err := mmapAnon(os.Getpagesize())
	if err != nil {
		return r, err
	}
	r.maps = append(r.maps, a)
	r.arg = (*waitArg)(unsafe.Pointer(&a[0]))
	u32 := func(off uint32) *uint32 { return (*uint32)(unsafe.Pointer(&q[off])) }
	r.sqHead, r.sqTail, r.sqFlags = u32(p.SQOffset.Head), u32(p.SQOffset.Tail), u32(p.SQOffset.Flags)
	r.sqMask, r.sqEntries = *u32(p.SQOffset.RingMask), *u32(p.SQOffset.RingEntries)
	r.cqHead, r.cqTail, r.cqMask = u32(p.CQOffset.Head), u32(p.CQOffset.Tail), *u32(p.CQOffset.RingMask)
	r.sqes, r.cqes = unsafe.Pointer(&e[0]), unsafe.Pointer(&q[p.CQOffset.Cqes])
	if r.setup&setupNoSQArray == 0 {
		for i := range r.sqEntries {
			*u32(p.SQOffset.Array + 4*i) = i
		}
	}
	return r, nil
}

func (r *ring) mmap(off int64, n int) ([]byte, error) {
	b, err := unix.Mmap(r.fd, off, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		return nil, fmt.Errorf("mmap of %d bytes of the ring: %w", n, err)
	}
	r.maps = append(r.maps, b)
	return b, nil
}

// enable binds the ring to the calling thread.
func (r *ring) enable() error {
	return register(r.fd, uintptr(sys.IORING_REGISTER_ENABLE_RINGS), nil, 0)
}

// ringFDUpdate is struct io_uring_rsrc_update.
type ringFDUpdate struct {
	offset uint32
	resv   uint32
	data   uint64
}

// registerFD lets the calling thread name the ring by an index of its own,
// which spares the kernel the look-up of the descriptor on every call.
func (r *ring) registerFD() error {
	u := ringFDUpdate{offset: ^uint32(0), data: uint64(r.fd)}
	if err := register(r.fd, registerRingFDs, unsafe.Pointer(&u), 1); err != nil {
		return err
	}
	r.enterFD, r.flags = int(u.offset), enterRegisteredRing
	return nil
}

// close releases the ring and all its memory.
func (r *ring) close() error {
	if r.flags&enterRegisteredRing != 0 {
		u := ringFDUpdate{offset: uint32(r.enterFD)}
		_ = register(r.fd, unregisterRingFDs, unsafe.Pointer(&u), 1)
	}
	err := unix.Close(r.fd)
	lastClose.Store(int64(time.Since(began)))
	for _, m := range r.maps {
		if e := unix.Munmap(m); err == nil {
			err = e
		}
	}
	r.maps = nil
	return err
}

// next returns a zeroed submission queue entry, to be filled before the next
// call of any method. A full queue is handed to the kernel first.
func (r *ring) next() *sqe {
	if r.tail-r.taken == r.sqEntries {
		if len(r.stash) == 0 {
			r.flush()
		}
		if r.tail-r.taken == r.sqEntries || len(r.stash) > 0 {
			r.stash = append(r.stash, sqe{})
			return &r.stash[len(r.stash)-1]
		}
	}
	e := (*sqe)(unsafe.Add(r.sqes, uintptr(r.tail&r.sqMask)*unsafe.Sizeof(sqe{})))
	r.tail++
	e.Reset()
	return e
}

// unstash moves entries from the stash into the queue.
func (r *ring) unstash() {
	n := min(uint32(len(r.stash)), r.sqEntries-(r.tail-r.taken))
	for i := range n {
		*(*sqe)(unsafe.Add(r.sqes, uintptr(r.tail&r.sqMask)*unsafe.Sizeof(sqe{}))) = r.stash[i]
		r.tail++
	}
	r.stash = r.stash[:copy(r.stash, r.stash[n:])]
}

// pending is the number of entries that the kernel has not taken.
func (r *ring) pending() uint32 { return r.tail - r.taken }

// ready reports whether a completion can be read.
func (r *ring) ready() bool { return r.head != atomic.LoadUint32(r.cqTail) }

// at returns the completion at index i. It is valid until the head passes it.
func (r *ring) at(i uint32) *cqe {
	return (*cqe)(unsafe.Add(r.cqes, uintptr(i&r.cqMask)*unsafe.Sizeof(cqe{})))
}

// publish shows the kernel both ends of the queues, and the buffers.
func (r *ring) publish() {
	if r.bufs != nil {
		r.bufs.publish()
	}
	atomic.StoreUint32(r.sqTail, r.tail)
	atomic.StoreUint32(r.cqHead, r.head)
}

// flush hands the queue to the kernel without looking for completions.
func (r *ring) flush() syscall.Errno {
	r.publish()
	_, _, errno := syscall.RawSyscall6(sys.SYS_IO_URING_ENTER, uintptr(r.enterFD), uintptr(r.pending()), 0, uintptr(r.flags), 0, 0)
	r.taken = atomic.LoadUint32(r.sqHead)
	return errno
}

// holdsBack reports whether the kernel says that it has something to post.
func (r *ring) holdsBack() bool {
	return atomic.LoadUint32(r.sqFlags)&(sqTaskrun|sys.IORING_SQ_CQ_OVERFLOW) != 0
}

// poll submits and makes the kernel post what it has, without waiting. It
// makes no system call if there is nothing to submit and the kernel says that
// it has nothing to post.
func (r *ring) poll() syscall.Errno {
	if r.pending() == 0 && r.setup&sys.IORING_SETUP_TASKRUN_FLAG != 0 && !r.holdsBack() {
		return 0
	}
	r.publish()
	flags := r.flags | sys.IORING_ENTER_FLAGS_GETEVENTS
	_, _, errno := syscall.RawSyscall6(sys.SYS_IO_URING_ENTER, uintptr(r.enterFD), uintptr(r.pending()), 0, uintptr(flags), 0, 0)
	r.taken = atomic.LoadUint32(r.sqHead)
	return errno
}

// wait submits and waits for a completion, for ever if timeout is negative.
func (r *ring) wait(timeout time.Duration) syscall.Errno {
	r.publish()
	flags := r.flags | sys.IORING_ENTER_FLAGS_GETEVENTS
	var arg, size uintptr
	if timeout >= 0 {
		r.arg.timeout = unix.NsecToTimespec(int64(timeout))
		r.arg.ts = uint64(uintptr(unsafe.Pointer(&r.arg.timeout)))
		flags |= enterExtArg
		arg, size = uintptr(unsafe.Pointer(r.arg)), waitArgSize
	}
	_, _, errno := syscall.Syscall6(sys.SYS_IO_URING_ENTER, uintptr(r.enterFD), uintptr(r.pending()), 1, uintptr(flags), arg, size)
	r.taken = atomic.LoadUint32(r.sqHead)
	return errno
}
