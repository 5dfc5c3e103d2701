package epoll

import (
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/internal/nowait"
)

const (
	// sendfileChunk bounds one sendfile, so that a big file does not hold up
	// everybody else.
	sendfileChunk = 1 << 20
	// blockingWrite is what a pipe that polls as writable takes without
	// blocking (PIPE_BUF).
	blockingWrite = 4096
)

// attempt performs op once. ok is false if it has to wait; the entry then knows
// that it is not ready, and op how far it has come.
func (b *Backend) attempt(e *entry, op *backend.Op) (n int, errno syscall.Errno, ok bool) {
	switch op.Code {
	case backend.OpRecv:
		return b.recv(e, op.Buf)
	case backend.OpSend:
		return b.send(e, op)
	case backend.OpAccept:
		return b.accept(e, op)
	case backend.OpConnect:
		return b.connect(e, op)
	case backend.OpRecvMsg:
		n, errno = nowait.RecvFrom(op.FD, op.Buf, &op.Ext.Addr)
		return b.received(e, n, errno)
	case backend.OpSendMsg:
		return b.sendmsg(e, op)
	case backend.OpRead:
		return b.read(e, op)
	case backend.OpWrite:
		return b.write(e, op)
	case backend.OpSendfile:
		return b.sendfile(e, op)
	case backend.OpShutdown:
		return 0, b.shutdown(e, op.Arg), true
	}
	panic("epoll: attempt: " + op.String())
}

// input and output turn EAGAIN into waiting.
func (b *Backend) input(e *entry, n int, errno syscall.Errno) (int, syscall.Errno, bool) {
	if errno == syscall.EAGAIN {
		errno = b.notReadable(e)
		return 0, errno, errno != 0
	}
	return n, errno, true
}

// received is input for what a socket was asked for. A datagram socket that was shut
// down says so only to those who can wait: to them it is the end.
func (b *Backend) received(e *entry, n int, errno syscall.Errno) (int, syscall.Errno, bool) {
	if errno == syscall.EAGAIN && e.bits&hungUp != 0 && nowait.Poll(e.fd, unix.POLLRDHUP)&unix.POLLRDHUP != 0 {
		return 0, 0, true
	}
	return b.input(e, n, errno)
}

func (b *Backend) output(e *entry, n int, errno syscall.Errno) (int, syscall.Errno, bool) {
	if errno == syscall.EAGAIN {
		errno = b.notWritable(e)
		return 0, errno, errno != 0
	}
	return n, errno, true
}

func (b *Backend) recv(e *entry, buf []byte) (int, syscall.Errno, bool) {
	var n int
	var errno syscall.Errno
	cut := false
	if e.kind == kindUnix {
		n, cut, errno = b.recvUnix(e.fd, buf)
	} else {
		n, errno = nowait.Recv(e.fd, buf)
	}
	if n > 0 {
		if n < len(buf) {
			e.shortRead(cut)
		}
		return n, 0, true
	}
	return b.received(e, n, errno)
}

// sent notes that n more of size bytes went out, and decides whether op is
// complete. It is shared by send and sendmsg.
func (b *Backend) sent(e *entry, op *backend.Op, n, size int, errno syscall.Errno) (int, syscall.Errno, bool) {
	before := progress(op)
	if errno != 0 && errno != syscall.EAGAIN {
		return before, errno, true
	}
	total := before + n
	if errno == 0 && n >= size {
		return total, 0, true
	}
	errno = b.notWritable(e)
	if total > 0 && (errno != 0 || op.Flags&backend.WaitAll == 0) {
		return total, 0, true
	}
	if errno != 0 {
		return 0, errno, true
	}
	keep(op, total, 0)
	return 0, 0, false
}

func (b *Backend) send(e *entry, op *backend.Op) (int, syscall.Errno, bool) {
	rest := op.Buf[progress(op):]
	n, errno := nowait.Send(e.fd, rest)
	if errno == 0 && n == len(rest) {
		return len(op.Buf), 0, true
	}
	return b.sent(e, op, n, len(rest), errno)
}

func (b *Backend) accept(e *entry, op *backend.Op) (int, syscall.Errno, bool) {
	if e.bits&blocking != 0 && isListener(e.fd) && !pollNow(e.fd, unix.POLLIN) {
		return b.input(e, 0, syscall.EAGAIN)
	}
	var to *backend.Addr
	if op.Flags&backend.Multishot == 0 && op.Ext != nil {
		to = &op.Ext.Addr
	}
	fd, errno := b.accept4(e.fd, to)
	if errno == syscall.EAGAIN && e.bits&hungUp != 0 && pollNow(e.fd, unix.POLLRDHUP) {
		// A unix listener that was shut down says so only to those who can wait.
		return 0, syscall.EINVAL, true
	}
	if errno == 0 || errno == syscall.EAGAIN {
		e.bits |= listens
	}
	if errno != 0 {
		return b.input(e, 0, errno)
	}
	if c := b.find(int32(fd)); c != nil {
		if c.mask != 0 || !c.idle() {
			c.forget() // closed behind our back
			if !c.idle() {
				b.list(c)
			}
		}
		c.bits |= unknown
		c.bits &^= hungUp
		c.kind = e.kindNow()
	}
	return fd, 0, true
}

// connect starts to connect, and when the socket has become writable, asks for
// an error, and without one for the outcome by the same call. That, and not
// SO_ERROR alone, makes the socket one that refuses to be connected again; after
// a failure it would undo what reading tells of it, the end.
func (b *Backend) connect(e *entry, op *backend.Op) (int, syscall.Errno, bool) {
	started := op.State.Res != 0
	if started {
		if errno := pendingError(e.fd); errno != 0 {
			return 0, errno, true
		}
	}
	e.bits &^= hungUp // an unconnected socket had hung up
	e.bits |= unknown
	restore := e.unblock()
	errno := connect(e.fd, &op.Ext.Addr)
	if restore {
		e.reblock()
	}
	switch errno {
	case syscall.EISCONN:
		if started {
			errno = 0
		}
	case syscall.EINPROGRESS, syscall.EALREADY:
		op.State.Res = 1
		if errno = b.notWritable(e); errno != 0 {
			return 0, errno, true
		}
		return 0, 0, false
	}
	return 0, errno, true // also EAGAIN: the backlog of a unix socket is full
}

// shutdown lets the operations that wait on e look again, because epoll does
// not report every end: a unix socket that is full stays so for it.
func (b *Backend) shutdown(e *entry, how uint32) syscall.Errno {
	errno := shutdown(e.fd, how)
	if errno == 0 && !e.idle() {
		e.bits |= unknown
		b.list(e)
	}
	return errno
}

func (b *Backend) read(e *entry, op *backend.Op) (int, syscall.Errno, bool) {
	if op.Off >= 0 {
		n, errno := pread(e.fd, op.Buf, op.Off)
		return n, errno, true
	}
	if e.bits&(blocking|regular) == blocking {
		// A socket polls as ready also for what recv(2) does not tell, as errors in
		// the queue that MSG_ERRQUEUE reads.
		if n, errno := nowait.Recv(e.fd, op.Buf); errno != syscall.ENOTSOCK {
			return b.received(e, n, errno)
		}
		if !pollNow(e.fd, unix.POLLIN) {
			return b.input(e, 0, syscall.EAGAIN)
		}
	}
	n, errno := read(e.fd, op.Buf)
	return b.received(e, n, errno)
}

func (b *Backend) write(e *entry, op *backend.Op) (int, syscall.Errno, bool) {
	if op.Off >= 0 {
		n, errno := pwrite(e.fd, op.Buf, op.Off)
		return n, errno, true
	}
	buf := op.Buf
	if e.bits&(blocking|regular) == blocking {
		// Not a part of buf: the socket may keep packets apart.
		if n, errno := nowait.Send(e.fd, buf); errno != syscall.ENOTSOCK {
			return b.output(e, n, errno)
		}
		if !pollNow(e.fd, unix.POLLOUT) {
			return b.output(e, 0, syscall.EAGAIN)
		}
		// A pipe may be shared with processes that take it for blocking. Of others
		// nobody knows how much they have room for.
		if e.bits&fifo != 0 {
			buf = buf[:min(len(buf), blockingWrite)]
		} else if e.unblock() {
			defer e.reblock()
		}
	}
	n, errno := write(e.fd, buf)
	return b.output(e, n, errno)
}

func (b *Backend) sendfile(e *entry, op *backend.Op) (int, syscall.Errno, bool) {
	restore := e.unblock()
	n, errno := b.sendfileOnce(e.fd, op.FD2, op.Off, min(op.Len, sendfileChunk))
	if restore {
		e.reblock()
	}
	return b.output(e, n, errno)
}

// unblock makes a blocking file non-blocking for the length of one call that
// has no flag for it.
func (e *entry) unblock() bool {
	if e.bits&blocking == 0 {
		return false
	}
	return unix.SetNonblock(int(e.fd), true) == nil
}

func (e *entry) reblock() { unix.SetNonblock(int(e.fd), false) }
