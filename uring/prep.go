package uring

import (
	"syscall"
	"unsafe"

	sys "github.com/iceber/iouring-go/syscall"
	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
)

// sendFlags keep the kernel from waiting for room itself. It would do so until
// the end of what the peer sends as well, after that without sleeping, and then
// in a thread for each.
const sendFlags = unix.MSG_NOSIGNAL | unix.MSG_DONTWAIT

// start performs or hands to the kernel the operation of a slot whose turn has
// come.
func (b *Backend) start(idx uint32) {
	op := b.slots.at(idx).op
	op.State.Phase = backend.Armed
	switch {
	case op.Code == backend.OpSendfile:
		b.sendfile(idx)
	case op.Code == backend.OpWaitID && !b.use.waitID:
		b.reap(idx)
	case op.Code == backend.OpConnect && op.Ext.Addr.Family() == unix.AF_UNIX:
		b.connectUnix(idx)
	case op.Code == backend.OpPoll:
		if errno := pollable(op.FD); errno != 0 {
			b.later(idx, -int32(errno))
		} else {
			b.rearm(idx)
		}
	case op.Code == backend.OpRecv && op.Buf == nil && b.bufs == nil:
		b.startBulk(idx)
	case b.readyFirst(op):
		b.prepReady(idx)
	default:
		b.prep(idx)
	}
}

// readyFirst reports whether op begins by waiting until its descriptor is
// ready: because that is all it does, or because it is done with a plain system
// call then, for want of a better way or in order to take nothing before.
func (b *Backend) readyFirst(op *backend.Op) bool {
	return isPoll(op) || op.Flags&backend.AtDelivery != 0 || b.bulk(op)
}

// prep writes the submission queue entry of a slot's operation.
func (b *Backend) prep(idx uint32) {
	s := b.slots.at(idx)
	op := s.op
	if !b.prepAux(s) {
		b.later(idx, -int32(syscall.ENOMEM))
		return
	}
	s.stage = stageOp
	e := b.ring.next()
	e.SetUserData(b.slots.userData(kindOp, idx))
	buf, n := bufAddr(op.Buf)
	aux := uint64(uintptr(s.aux))
	switch op.Code {
	case backend.OpNop:
		e.PrepOperation(sys.IORING_OP_NOP, -1, 0, 0, 0)
	case backend.OpAccept:
		b.prepAccept(e, s)
	case backend.OpConnect:
		e.PrepOperation(sys.IORING_OP_CONNECT, op.FD, aux, 0, uint64(op.Ext.Addr.Len))
	case backend.OpRecv:
		b.prepRecv(e, op)
	case backend.OpRecvMsg:
		e.PrepOperation(sys.IORING_OP_RECVMSG, op.FD, aux, 1, 0)
	case backend.OpSend:
		buf, n = bufAddr(op.Buf[s.sent:])
		e.PrepOperation(sys.IORING_OP_SEND, op.FD, buf, n, 0)
		e.SetOpFlags(sendFlags)
	case backend.OpSendMsg:
		e.PrepOperation(sys.IORING_OP_SENDMSG, op.FD, aux, 1, 0)
		e.SetOpFlags(sendFlags)
	case backend.OpRead:
		e.PrepOperation(sys.IORING_OP_READ, op.FD, buf, n, uint64(op.Off))
	case backend.OpWrite:
		e.PrepOperation(sys.IORING_OP_WRITE, op.FD, buf, n, uint64(op.Off))
	case backend.OpPoll:
		e.PrepOperation(sys.IORING_OP_POLL_ADD, op.FD, 0, pollMultishot, 0)
		e.SetOpFlags(op.Arg)
	case backend.OpShutdown:
		e.PrepOperation(sys.IORING_OP_SHUTDOWN, op.FD, 0, op.Arg, 0)
	case backend.OpClose:
		e.PrepOperation(sys.IORING_OP_CLOSE, op.FD, 0, 0, 0)
	case backend.OpWaitID:
		e.PrepOperation(opWaitID, op.FD, 0, unix.P_PIDFD, aux)
		e.SetSpliceFdIn(unix.WEXITED)
	}
}

func (b *Backend) prepAccept(e *sqe, s *slot) {
	op := s.op
	var addrLen uint64
	if s.aux != nil {
		addrLen = uint64(uintptr(unsafe.Pointer(&(*auxAddr)(s.aux).len)))
	}
	e.PrepOperation(sys.IORING_OP_ACCEPT, op.FD, uint64(uintptr(s.aux)), 0, addrLen)
	e.SetOpFlags(unix.SOCK_NONBLOCK | unix.SOCK_CLOEXEC)
	if op.Flags&backend.Multishot != 0 && b.use.multishotAccept && !isUnix(op.FD) {
		e.SetIoprio(acceptMultishot)
	}
}

func (b *Backend) prepRecv(e *sqe, op *backend.Op) {
	if op.Buf != nil {
		buf, n := bufAddr(op.Buf)
		e.PrepOperation(sys.IORING_OP_RECV, op.FD, buf, n, 0)
		return
	}
	e.PrepOperation(sys.IORING_OP_RECV, op.FD, 0, 0, 0)
	e.SetFlags(sys.IOSQE_FLAGS_BUFFER_SELECT)
	e.SetBufGroup(bufGroup)
	if op.Flags&backend.Multishot != 0 && b.use.multishotRecv {
		e.SetIoprio(recvMultishot)
	}
}

// prepReady asks when the descriptor of a slot is ready for its operation. What
// was called ready for an error that then was none, one in the queue that
// MSG_ERRQUEUE reads, would be so at once, and for ever.
func (b *Backend) prepReady(idx uint32) {
	switch s := b.slots.at(idx); {
	case s.again:
		s.again = false
		b.prep(idx)
	case s.erred:
		b.prepEdge(idx)
	default:
		b.prepPoll(idx, stagePoll, 0)
	}
}

// prepEdge asks for new readiness only, again and again. See polled.
func (b *Backend) prepEdge(idx uint32) { b.prepPoll(idx, stageEdge, pollMultishot) }

func (b *Backend) prepPoll(idx uint32, st stage, flags uint32) {
	s := b.slots.at(idx)
	s.stage = st
	e := b.ring.next()
	e.PrepOperation(sys.IORING_OP_POLL_ADD, s.op.FD, 0, flags, 0)
	e.SetOpFlags(events(s.op))
	e.SetUserData(b.slots.userData(kindOp, idx))
}

// events returns what an operation that waits for readiness waits for.
func events(op *backend.Op) uint32 {
	switch op.Code {
	case backend.OpPoll:
		return op.Arg
	case backend.OpConnect, backend.OpSend, backend.OpSendMsg, backend.OpWrite, backend.OpSendfile:
		return unix.POLLOUT
	case backend.OpWaitID:
		return unix.POLLIN
	}
	return unix.POLLIN | unix.POLLRDHUP // see slot.shut
}

// prepCancel asks the kernel to end what it does for a slot.
func (b *Backend) prepCancel(idx uint32) {
	e := b.ring.next()
	e.PrepOperation(sys.IORING_OP_ASYNC_CANCEL, -1, b.slots.userData(kindOp, idx), 0, 0)
	e.SetUserData(b.slots.userData(kindCancel, idx))
}

// prepAux fills the memory outside the heap that the operation of s needs. It
// reports false if there is no memory.
func (b *Backend) prepAux(s *slot) bool {
	op := s.op
	var n int
	switch op.Code {
	case backend.OpAccept:
		if op.Ext != nil && op.Flags&backend.Multishot == 0 {
			n = int(unsafe.Sizeof(auxAddr{}))
		}
	case backend.OpConnect:
		n = int(unsafe.Sizeof(auxAddr{}))
	case backend.OpRecvMsg:
		n = auxMsgSize(1)
	case backend.OpSendMsg:
		n = auxMsgSize(len(op.Ext.Bufs))
	case backend.OpWaitID:
		n = int(unsafe.Sizeof(auxSiginfo{}))
	}
	if n == 0 {
		return true
	}
	if s.aux == nil {
		p, class, err := b.arena.take(n)
		if err != nil {
			return false
		}
		s.aux, s.auxClass = p, class
	}
	b.fillAux(s)
	return true
}

func (b *Backend) fillAux(s *slot) {
	op := s.op
	switch op.Code {
	case backend.OpAccept:
		(*auxAddr)(s.aux).len = backend.AddrCap
	case backend.OpConnect:
		(*auxAddr)(s.aux).raw = op.Ext.Addr.Raw
	case backend.OpRecvMsg:
		m := (*auxMsg)(s.aux)
		m.hdr = msghdr{name: m.nameAddr(), namelen: backend.AddrCap, iov: m.iovAddr(), iovlen: 1}
		m.iov[0] = vector(op.Buf)
	case backend.OpSendMsg:
		m := (*auxMsg)(s.aux)
		m.hdr = msghdr{iov: m.iovAddr(), iovlen: uint64(len(op.Ext.Bufs))}
		if op.Ext.Addr.Len > 0 {
			m.raw = op.Ext.Addr.Raw
			m.hdr.name, m.hdr.namelen = m.nameAddr(), op.Ext.Addr.Len
		}
		iov, skip := unsafe.Slice(&m.iov[0], len(op.Ext.Bufs)), s.sent
		for i, p := range op.Ext.Bufs {
			out := min(skip, len(p))
			iov[i], skip = vector(p[out:]), skip-out
		}
	case backend.OpWaitID:
		*(*auxSiginfo)(s.aux) = auxSiginfo{}
	}
}

// pin keeps the caller's memory of a slot's operation where it is.
func (b *Backend) pin(s *slot) {
	op := s.op
	switch op.Code {
	case backend.OpRecv, backend.OpRecvMsg, backend.OpSend, backend.OpRead, backend.OpWrite:
		if op.Flags&(backend.Pinned|backend.AtDelivery) == 0 { // the kernel sees it during a call only
			s.pins = b.pins.add(0, op.Buf)
		}
	case backend.OpSendMsg:
		for _, p := range op.Ext.Bufs {
			s.pins = b.pins.add(s.pins, p)
		}
	}
}

func bufAddr(p []byte) (uint64, uint32) {
	if len(p) == 0 {
		return 0, 0
	}
	return uint64(uintptr(unsafe.Pointer(&p[0]))), uint32(min(len(p), maxTransfer))
}

func (m *auxMsg) nameAddr() uintptr { return uintptr(unsafe.Pointer(&m.raw)) }

func (m *auxMsg) iovAddr() uintptr { return uintptr(unsafe.Pointer(&m.iov)) }

func vector(p []byte) iovec {
	if len(p) == 0 {
		return iovec{}
	}
	return iovec{base: uintptr(unsafe.Pointer(&p[0])), len: uint64(len(p))}
}
