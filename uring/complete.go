package uring

import (
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
)

// complete acts on one completion of the kernel.
func (b *Backend) complete(c cqe) {
	ud, res, flags := c.UserData(), c.Result(), c.Flags()
	if ud>>56 != kindOp {
		b.internal(ud, res, flags)
		return
	}
	idx := b.slots.find(ud)
	if flags&cqeBuffer != 0 && (idx == 0 || res < 0) { // nothing is in it: a thread of the kernel takes one before it waits
		b.bufs.put(uint16(flags >> cqeBufferShift))
	}
	switch {
	case idx == 0:
	case b.slots.at(idx).stage != stageOp:
		b.polled(idx, res, flags)
	case res < 0:
		b.failed(idx, -res)
	default:
		b.succeeded(idx, res, flags)
	}
}

// internal acts on a completion that no receiver hears of.
func (b *Backend) internal(ud uint64, res int32, flags uint32) {
	switch ud >> 56 {
	case kindWake:
		if flags&cqeMore == 0 {
			b.watchWaker()
		}
	case kindCancel:
		// Not found, yet still in flight: the kernel had it in its hands just
		// then. If it has completed meanwhile, the next answer finds it gone.
		if idx := b.slots.find(ud); idx != 0 && res == -int32(syscall.ENOENT) && b.ending(idx) {
			b.prepCancel(idx)
		}
	}
}

// ending reports whether the kernel is to end what it does for a slot.
func (b *Backend) ending(idx uint32) bool {
	s := b.slots.at(idx)
	return s.op.State.Phase == backend.Armed && (s.cancelled || s.stage == stageFound || s.op.State.Mark&markLeaving != 0)
}

// polled acts on a completion of a poll. io_uring reports POLLRDHUP also to
// those who did not ask for it. A poll that ended with nothing else is made
// anew as a multishot, which stays silent until something happens, and which
// is cancelled when what is wanted has come.
func (b *Backend) polled(idx uint32, res int32, flags uint32) {
	s := b.slots.at(idx)
	more := flags&cqeMore != 0
	got := wanted(s.op, res)
	if s.erred && s.stage == stageEdge && got == unix.POLLERR {
		got = nextError(s.op.FD)
	}
	switch {
	case s.stage == stageFound && more:
	case s.stage == stageFound && s.op.State.Res == 0: // see findStale
		b.rearm(idx)
	case s.stage == stageFound:
		b.ready(idx, s.op.State.Res)
	case got == 0 && s.cancelled && !more:
		b.finish(idx, failure(syscall.ECANCELED))
	case got == 0 && !more:
		b.prepEdge(idx)
	case got == 0:
	case more:
		s.stage, s.op.State.Res = stageFound, got
		b.prepCancel(idx)
	default:
		b.ready(idx, got)
	}
}

// wanted returns the events of a poll's result that op has asked for, and
// those that come unasked; an error remains as it is.
func wanted(op *backend.Op, res int32) int32 {
	if res < 0 {
		return res
	}
	return res & int32(events(op)|unix.POLLERR|unix.POLLHUP|unix.POLLNVAL)
}

// nextError looks for an error of a socket behind a POLLERR, after one that was
// none. It returns 0 if this is none either.
func nextError(fd int32) int32 {
	errno := takeError(fd)
	if errno == syscall.ENOTSOCK {
		return 0
	}
	return -int32(errno)
}

// ready goes on with an operation that waited for its descriptor.
func (b *Backend) ready(idx uint32, res int32) {
	s := b.slots.at(idx)
	s.erred, s.shut = res == unix.POLLERR, res > 0 && res&unix.POLLRDHUP != 0
	switch {
	case res < 0:
		b.finish(idx, failure(syscall.Errno(-res)))
	case s.op.Code == backend.OpPoll:
		b.finish(idx, backend.Result{N: int(res)})
	case s.op.Code == backend.OpAccept && !s.cancelled:
		b.prep(idx)
	case s.cancelled:
		b.finish(idx, failure(syscall.ECANCELED))
	case s.op.Code == backend.OpSendfile:
		b.sendfile(idx)
	case s.op.Code == backend.OpWaitID:
		b.reap(idx)
	case s.op.Flags&backend.AtDelivery != 0:
		b.recvPacket(idx)
	case b.readyFirst(s.op):
		b.recvBulk(idx)
	default:
		b.prep(idx)
	}
}

// maxDropped is how often in a row an operation that the kernel drops is tried
// again.
const maxDropped = 16

// dropped acts on an operation that the kernel has cancelled though nobody
// asked. It does so when it can make no thread for an operation that needs one,
// because the process may have no more of them or a signal came every time.
func (b *Backend) dropped(idx uint32) {
	s := b.slots.at(idx)
	switch s.dropped++; {
	case s.op.Code == backend.OpClose:
		_, _, errno := syscall.RawSyscall(unix.SYS_CLOSE, uintptr(s.op.FD), 0, 0)
		b.finish(idx, failure(errno))
	case s.dropped > maxDropped:
		b.finish(idx, failure(syscall.EAGAIN))
	default:
		b.rearm(idx)
	}
}

// failed acts on an error: most end the operation, some only mean to try
// again.
func (b *Backend) failed(idx uint32, res int32) {
	s := b.slots.at(idx)
	op := s.op
	errno := syscall.Errno(res)
	switch {
	case errno == syscall.EINTR && s.cancelled:
		errno = syscall.ECANCELED
	case errno == syscall.EINTR && op.Code != backend.OpClose:
		b.rearm(idx)
		return
	case errno == syscall.ECONNABORTED && op.Code == backend.OpAccept:
		b.rearm(idx) // that one is gone; the next may not be
		return
	case errno == syscall.ECANCELED && op.State.Mark&markLeaving != 0:
		b.rearm(idx)
		return
	case errno == syscall.ECANCELED && !s.cancelled:
		b.dropped(idx)
		return
	case errno == syscall.ENOBUFS && op.Code == backend.OpRecv && op.Buf == nil:
		if !s.cancelled {
			b.bufs.grow(2 * len(b.bufs.mem))
			b.recvBulk(idx)
			return
		}
		errno = syscall.ECANCELED
	case errno == syscall.EALREADY && op.Code == backend.OpConnect:
		if !s.cancelled {
			s.begun = true
			b.prepReady(idx)
			return
		}
		errno = syscall.ECANCELED
	case errno == syscall.EISCONN && s.begun:
		errno = 0
	case errno == syscall.EAGAIN && (op.Input() || op.Output() && op.Code != backend.OpConnect ||
		op.Code == backend.OpRead || op.Code == backend.OpWrite || op.Code == backend.OpWaitID):
		if s.cancelled {
			errno = syscall.ECANCELED
			break
		}
		if s.shut {
			b.shut(idx)
			return
		}
		b.prepReady(idx)
		return
	}
	b.finish(idx, failure(errno))
}

// shut ends an operation that finds nothing though there is an end: a unix listener
// and a datagram socket that were shut down say so only to those who can wait, and
// are ready for ever.
func (b *Backend) shut(idx uint32) {
	switch op := b.slots.at(idx).op; op.Code {
	case backend.OpAccept:
		b.finish(idx, failure(syscall.EINVAL))
		return
	case backend.OpRecvMsg:
		op.Ext.Addr.Len = 0
	}
	b.finish(idx, backend.Result{})
}

// succeeded acts on a result.
func (b *Backend) succeeded(idx uint32, res int32, flags uint32) {
	s := b.slots.at(idx)
	s.dropped = 0
	op := s.op
	r := backend.Result{N: int(res)}
	switch op.Code {
	case backend.OpRecv:
		if op.Buf == nil {
			b.recvProvided(idx, int(res), flags)
			return
		}
	case backend.OpAccept, backend.OpPoll:
		if op.Flags&backend.Multishot != 0 {
			b.goesOn(idx, r, flags)
			return
		}
		if s.aux != nil {
			a := (*auxAddr)(s.aux)
			op.Ext.Addr.Raw, op.Ext.Addr.Len = a.raw, min(a.len, backend.AddrCap)
		}
	case backend.OpSend, backend.OpSendMsg:
		if op.Flags&backend.WaitAll != 0 && b.sentPart(idx, int(res)) {
			return
		}
	case backend.OpShutdown:
		b.lookAgain(op.FD)
	case backend.OpRecvMsg:
		m := (*auxMsg)(s.aux)
		op.Ext.Addr.Raw, op.Ext.Addr.Len = m.raw, min(m.hdr.namelen, backend.AddrCap)
	case backend.OpWaitID:
		op.Ext.Child = (*auxSiginfo)(s.aux).child()
	}
	b.finish(idx, r)
}

// sentPart notes that n more bytes of a WaitAll send are out, and reports whether
// the rest is to follow as soon as there is room.
func (b *Backend) sentPart(idx uint32, n int) bool {
	s := b.slots.at(idx)
	size := len(s.op.Buf)
	if s.op.Code == backend.OpSendMsg {
		size = 0
		for _, p := range s.op.Ext.Bufs {
			size += len(p)
		}
	}
	if n == 0 || s.sent+n >= size || s.cancelled {
		return false
	}
	s.sent += n
	b.prepReady(idx)
	return true
}

// lookAgain lets output that waits on a descriptor find that it was shut down: a
// poll does not tell of a unix socket that is full. The kernel may have found it
// full before, and say so only now.
func (b *Backend) lookAgain(fd int32) {
	op := b.fds.at(fd).out.head
	if op == nil || op.State.Phase != backend.Armed {
		return
	}
	switch s := b.slots.at(op.State.Slot); s.stage {
	case stageOp:
		s.again = true
	case stagePoll, stageEdge:
		s.stage, op.State.Res = stageFound, unix.POLLOUT
		b.prepCancel(op.State.Slot)
	}
}

// goesOn delivers a result of a multishot accept or poll.
func (b *Backend) goesOn(idx uint32, r backend.Result, flags uint32) {
	if flags&cqeMore == 0 {
		b.rearm(idx)
	}
	op := b.slots.at(idx).op
	if op.Code == backend.OpPoll {
		if r.N = int(wanted(op, int32(r.N))); r.N == 0 {
			return
		}
	}
	r.More = true
	op.Receiver.Complete(op, r)
}

// recvProvided delivers what a recv put into a provided buffer.
func (b *Backend) recvProvided(idx uint32, n int, flags uint32) {
	op := b.slots.at(idx).op
	r := backend.Result{N: n}
	if flags&cqeBuffer != 0 {
		b.lent = int32(flags>>cqeBufferShift) + 1
		r.Data = b.bufs.data(uint16(flags>>cqeBufferShift), n)
	}
	b.learn(idx, n)
	if op.Flags&backend.Multishot != 0 && n > 0 {
		if flags&cqeMore == 0 {
			b.rearm(idx)
		}
		b.received(op, r.Data)
	} else {
		b.finish(idx, r)
	}
	b.takeBack()
}

// received delivers data of a multishot recv that goes on.
func (b *Backend) received(op *backend.Op, data []byte) {
	op.Receiver.Complete(op, backend.Result{Data: data, N: len(data), More: true})
}

// takeBack gives the buffer that was lent to a receiver to the kernel again.
func (b *Backend) takeBack() {
	if b.lent != 0 {
		bid := uint16(b.lent - 1)
		b.lent = 0
		b.bufs.put(bid)
	}
}

// rearm starts an operation anew that the kernel ended of its own accord, or
// ends it if it was cancelled meanwhile.
func (b *Backend) rearm(idx uint32) {
	s := b.slots.at(idx)
	s.op.State.Mark &^= markLeaving
	switch {
	case s.cancelled:
		b.later(idx, -int32(syscall.ECANCELED))
	case b.readyFirst(s.op):
		b.prepReady(idx)
	default:
		b.prep(idx)
	}
}

// later keeps a result that is known without the kernel for the next Dispatch.
func (b *Backend) later(idx uint32, res int32) {
	op := b.slots.at(idx).op
	op.State.Phase, op.State.Res = backend.Done, res
	b.done = append(b.done, idx)
}

// finish delivers the terminal completion of a slot and frees it. Everything
// is in order before the receiver is called, so that its panic may pass.
func (b *Backend) finish(idx uint32, r backend.Result) {
	s := b.slots.at(idx)
	op := s.op
	if s.sent > 0 {
		r.N += s.sent
		if r.Cancelled() {
			r.Errno = 0
		}
	}
	b.pins.drop(s.pins)
	if s.aux != nil {
		b.arena.put(s.aux, s.auxClass)
	}
	if op.Code == backend.OpClose {
		b.closed(idx)
	}
	if isPoll(op) {
		b.polls--
	}
	b.unlink(idx)
	b.slots.release(idx)
	op.State.Phase = backend.Idle
	op.Receiver.Complete(op, r)
}

func failure(errno syscall.Errno) backend.Result { return backend.Result{Errno: errno} }
