package uring

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/internal/nowait"
)

// connectUnix connects with connect(2): to a unix socket that never takes time,
// unless the backlog is full and the socket blocking, when the ring would wait
// and the contract says EAGAIN.
func (b *Backend) connectUnix(idx uint32) {
	op := b.slots.at(idx).op
	flags, _, errno := syscall.RawSyscall(unix.SYS_FCNTL, uintptr(op.FD), unix.F_GETFL, 0)
	if errno == 0 && flags&unix.O_NONBLOCK == 0 {
		_, _, errno = syscall.RawSyscall(unix.SYS_FCNTL, uintptr(op.FD), unix.F_SETFL, flags|unix.O_NONBLOCK)
		defer syscall.RawSyscall(unix.SYS_FCNTL, uintptr(op.FD), unix.F_SETFL, flags)
	}
	if errno == 0 {
		p, n := op.Ext.Addr.Pointer()
		for errno = syscall.EINTR; errno == syscall.EINTR; {
			_, _, errno = syscall.Syscall(unix.SYS_CONNECT, uintptr(op.FD), uintptr(p), uintptr(n))
		}
	}
	b.later(idx, -int32(errno))
}

// tryAccept accepts with accept4(2), which must not wait. If it fails, the ring
// will find out why, or wait.
func tryAccept(op *backend.Op) (backend.Result, bool) {
	flags, _, errno := syscall.RawSyscall(unix.SYS_FCNTL, uintptr(op.FD), unix.F_GETFL, 0)
	if errno != 0 || flags&unix.O_NONBLOCK == 0 {
		return backend.Result{}, false
	}
	var addr, size unsafe.Pointer
	if op.Ext != nil {
		op.Ext.Addr.Len = backend.AddrCap
		addr, size = unsafe.Pointer(&op.Ext.Addr.Raw), unsafe.Pointer(&op.Ext.Addr.Len)
	}
	fd, _, errno := syscall.RawSyscall6(unix.SYS_ACCEPT4, uintptr(op.FD), uintptr(addr), uintptr(size),
		unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	if errno != 0 {
		return backend.Result{}, false
	}
	if op.Ext != nil {
		op.Ext.Addr.Len = min(op.Ext.Addr.Len, backend.AddrCap)
	}
	return backend.Result{N: int(fd)}, true
}

// isUnix reports whether fd is a unix socket. Its multishot accept would not end
// when the listener is shut down.
func isUnix(fd int32) bool {
	domain, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN)
	return err == nil && domain == unix.AF_UNIX
}

// maxSendfile bounds what one completion of OpSendfile reports, so that one
// fast connection does not hold up the others.
const maxSendfile = 1 << 20

// sendfile sends with sendfile(2), for io_uring has no such operation, and
// lets the ring wait for room when the socket is full.
func (b *Backend) sendfile(idx uint32) {
	op := b.slots.at(idx).op
	for {
		n, errno := b.trySendfile(op)
		switch errno {
		case 0:
			b.later(idx, int32(n))
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			b.prepReady(idx)
		default:
			b.later(idx, -int32(errno))
		}
		return
	}
}

// trySendfile sends what the socket takes at once. sendfile(2) cannot be told
// not to wait for a socket that is blocking itself, so such a one gets a copy.
func (b *Backend) trySendfile(op *backend.Op) (int, syscall.Errno) {
	flags, _, errno := syscall.RawSyscall(unix.SYS_FCNTL, uintptr(op.FD), unix.F_GETFL, 0)
	if errno != 0 {
		return 0, errno
	}
	if flags&unix.O_NONBLOCK == 0 {
		return b.sendCopy(op)
	}
	off := op.Off
	n, err := unix.Sendfile(int(op.FD), int(op.FD2), &off, min(op.Len, maxSendfile))
	if err != nil {
		return 0, err.(syscall.Errno)
	}
	return n, 0
}

// copySize is how much of a file one copy holds.
const copySize = 64 << 10

// sendCopy reads a piece of the file and sends it without waiting.
func (b *Backend) sendCopy(op *backend.Op) (int, syscall.Errno) {
	if b.copied == nil {
		m, err := mmapAnon(copySize)
		if err != nil {
			return 0, syscall.ENOMEM
		}
		b.copied = m
	}
	n, err := unix.Pread(int(op.FD2), b.copied[:min(op.Len, copySize)], op.Off)
	if err != nil {
		return 0, err.(syscall.Errno)
	}
	if n == 0 {
		return 0, 0
	}
	return nowait.Send(op.FD, b.copied[:n])
}

// reap reaps the child of a pidfd with waitid(2), or lets the ring wait until
// it has ended.
func (b *Backend) reap(idx uint32) {
	op := b.slots.at(idx).op
	for {
		var info auxSiginfo
		_, _, errno := syscall.RawSyscall6(unix.SYS_WAITID, unix.P_PIDFD, uintptr(op.FD),
			uintptr(unsafe.Pointer(&info)), unix.WEXITED|unix.WNOHANG, 0, 0)
		switch {
		case errno == syscall.EINTR:
			continue
		case errno == syscall.EAGAIN || errno == 0 && info.pid == 0:
			b.prepReady(idx)
		default:
			op.Ext.Child = info.child()
			b.later(idx, -int32(errno))
		}
		return
	}
}

func (i *auxSiginfo) child() backend.Child {
	return backend.Child{PID: int(i.pid), Code: int(i.code), Status: int(i.status)}
}

// pollable reports how epoll_ctl(2) would refuse a descriptor: EPERM for files
// that are always ready. The kernel's own poll calls those ready.
func pollable(fd int32) syscall.Errno {
	var st unix.Stat_t
	if err := unix.Fstat(int(fd), &st); err != nil {
		return err.(syscall.Errno)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR, unix.S_IFBLK:
		return syscall.EPERM
	case unix.S_IFCHR, unix.S_IFREG:
		return pollableFile(fd)
	}
	return 0
}

// pollableFile asks epoll itself: terminals and some files of /proc can be polled,
// /dev/null and files on a disk cannot.
func pollableFile(fd int32) syscall.Errno {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return 0
	}
	defer unix.Close(ep)
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, int(fd), &unix.EpollEvent{}); err == syscall.EPERM {
		return syscall.EPERM
	}
	return 0
}

// takeError returns why nothing can be received from a socket, 0 if only time
// will tell. It receives nothing, and leaves the buffer alone, which a receiver may
// have on loan just now.
func takeError(fd int32) syscall.Errno {
	_, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), 0, 0, unix.MSG_PEEK|unix.MSG_DONTWAIT, 0, 0)
	switch errno {
	case syscall.EAGAIN, syscall.EINTR:
		return 0
	}
	return errno
}
