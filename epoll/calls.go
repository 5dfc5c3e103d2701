package epoll

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/internal/nowait"
)

// The system calls. Those that cannot wait are made raw, so that the runtime
// is not told; every one is repeated when a signal interrupts it.

// scratch is memory for the arguments of one call, so that none allocates.
type scratch struct {
	msg  unix.Msghdr
	iov  unix.Iovec
	iovs []unix.Iovec
	off  int64
	len  uint32
	ts   unix.Timespec
}

func outcome(n uintptr, errno syscall.Errno) (int, syscall.Errno) {
	if errno != 0 {
		return 0, errno
	}
	return int(n), 0
}

func (b *Backend) message(call uintptr, fd int32, flags uintptr) (int, syscall.Errno) {
	for {
		n, _, errno := unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(&b.scratch.msg)), flags)
		if errno != syscall.EINTR {
			return outcome(n, errno)
		}
	}
}

// onePiece prepares the message header for one buffer.
func (b *Backend) onePiece(p []byte) *unix.Msghdr {
	s := &b.scratch
	s.iov.Base = unsafe.SliceData(p)
	s.iov.SetLen(len(p))
	s.msg = unix.Msghdr{Iov: &s.iov}
	s.msg.SetIovlen(1)
	return &s.msg
}

// letGo drops the references to the caller's memory.
func (b *Backend) letGo() {
	b.scratch.msg = unix.Msghdr{}
	b.scratch.iov = unix.Iovec{}
}

// recvUnix receives from a unix stream socket. cut says that the kernel may
// have stopped early, because descriptors or credentials came with the bytes.
func (b *Backend) recvUnix(fd int32, p []byte) (n int, cut bool, errno syscall.Errno) {
	m := b.onePiece(p)
	n, errno = b.message(unix.SYS_RECVMSG, fd, unix.MSG_DONTWAIT)
	cut = m.Flags&unix.MSG_CTRUNC != 0
	b.letGo()
	return n, cut, errno
}

// sendmsg sends the pieces of op but for those bytes that were sent before.
func (b *Backend) sendmsg(e *entry, op *backend.Op) (int, syscall.Errno, bool) {
	s := &b.scratch
	iovs, size, skip := s.iovs[:0], 0, progress(op)
	for _, p := range op.Ext.Bufs {
		if skip >= len(p) {
			skip -= len(p)
			continue
		}
		p, skip = p[skip:], 0
		v := unix.Iovec{Base: &p[0]}
		v.SetLen(len(p))
		iovs = append(iovs, v)
		size += len(p)
	}
	s.iovs = iovs
	s.msg = unix.Msghdr{Iov: unsafe.SliceData(iovs)}
	s.msg.SetIovlen(len(iovs))
	if a := &op.Ext.Addr; a.Len > 0 {
		s.msg.Name, s.msg.Namelen = &a.Raw[0], a.Len
	}
	n, errno := b.message(unix.SYS_SENDMSG, op.FD, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	b.letGo()
	clear(iovs)
	return b.sent(e, op, n, size, errno)
}

// accept4 accepts a connection; to, if not nil, gets the peer's address.
// Connections that went away before they could be accepted are passed over.
func (b *Backend) accept4(fd int32, to *backend.Addr) (int, syscall.Errno) {
	for {
		var name, size uintptr
		if to != nil {
			b.scratch.len = backend.AddrCap
			name, size = uintptr(unsafe.Pointer(&to.Raw[0])), uintptr(unsafe.Pointer(&b.scratch.len))
		}
		n, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), name, size,
			unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
		if errno == syscall.EINTR || errno == syscall.ECONNABORTED {
			continue
		}
		if errno == 0 && to != nil {
			to.Len = min(b.scratch.len, backend.AddrCap)
		}
		return outcome(n, errno)
	}
}

func connect(fd int32, a *backend.Addr) syscall.Errno {
	p, n := a.Pointer()
	for {
		_, _, errno := unix.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(p), uintptr(n))
		if errno != syscall.EINTR {
			return errno
		}
	}
}

// pendingError returns the error that a socket keeps for the next who asks.
func pendingError(fd int32) syscall.Errno {
	n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return err.(syscall.Errno)
	}
	return syscall.Errno(n)
}

// isListener reports whether accept4(2) may wait for a connection to fd. What is none
// says so at once, and is perhaps never readable.
func isListener(fd int32) bool {
	n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	return err == nil && n != 0
}

func shutdown(fd int32, how uint32) syscall.Errno {
	_, _, errno := unix.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), uintptr(how), 0)
	return errno
}

// Reads and writes of files may wait for the disk, so the runtime is told.

func file(call uintptr, fd int32, p []byte, off int64) (int, syscall.Errno) {
	for {
		n, _, errno := unix.Syscall6(call, uintptr(fd),
			uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), uintptr(off), 0, 0)
		if errno != syscall.EINTR {
			return outcome(n, errno)
		}
	}
}

func read(fd int32, p []byte) (int, syscall.Errno)  { return file(unix.SYS_READ, fd, p, 0) }
func write(fd int32, p []byte) (int, syscall.Errno) { return file(unix.SYS_WRITE, fd, p, 0) }

func pread(fd int32, p []byte, off int64) (int, syscall.Errno) {
	return file(unix.SYS_PREAD64, fd, p, off)
}

func pwrite(fd int32, p []byte, off int64) (int, syscall.Errno) {
	return file(unix.SYS_PWRITE64, fd, p, off)
}

func (b *Backend) sendfileOnce(out, in int32, off int64, size int) (int, syscall.Errno) {
	for {
		b.scratch.off = off
		n, _, errno := unix.Syscall6(unix.SYS_SENDFILE, uintptr(out), uintptr(in),
			uintptr(unsafe.Pointer(&b.scratch.off)), uintptr(size), 0, 0)
		if errno != syscall.EINTR {
			return outcome(n, errno)
		}
	}
}

func epollCtl(epfd, op int, fd int32, ev *unix.EpollEvent) syscall.Errno {
	_, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(epfd), uintptr(op), uintptr(fd),
		uintptr(unsafe.Pointer(ev)), 0, 0)
	return errno
}

func fcntl(fd int32, cmd int) (int, syscall.Errno) {
	n, _, errno := unix.RawSyscall(unix.SYS_FCNTL, uintptr(fd), uintptr(cmd), 0)
	return outcome(n, errno)
}

// pollNow reports whether fd has events, or an error that a call would return.
func pollNow(fd int32, events int16) bool { return nowait.Poll(fd, events) != 0 }

// siginfo is siginfo_t as waitid(2) fills it for a child.
type siginfo struct {
	signo, errno, code int32
	_                  int32
	pid, uid           int32
	status             int32
	_                  [100]byte
}

func waitPidfd(fd int32, info *siginfo) syscall.Errno {
	for {
		*info = siginfo{}
		_, _, errno := unix.RawSyscall6(unix.SYS_WAITID, unix.P_PIDFD, uintptr(fd),
			uintptr(unsafe.Pointer(info)), unix.WEXITED|unix.WNOHANG, 0, 0)
		if errno != syscall.EINTR {
			return errno
		}
	}
}
