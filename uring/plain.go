package uring

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
)

// maxSendfile bounds what one completion of OpSendfile reports, so that one
// fast connection does not hold up the others.
const maxSendfile = 1 << 20

// sendfile sends with sendfile(2), for io_uring has no such operation, and
// lets the ring wait for room when the socket is full.
func (b *Backend) sendfile(idx uint32) {
	op := b.slots.tab[idx].op
	off := op.Off
	for {
		n, err := unix.Sendfile(int(op.FD), int(op.FD2), &off, min(op.Len, maxSendfile))
		switch err {
		case nil:
			b.later(idx, int32(n))
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			b.prepReady(idx)
		default:
			b.later(idx, -int32(err.(syscall.Errno)))
		}
		return
	}
}

// recvReady receives with recv(2) into the backend's one buffer: the way to
// receive into memory of the backend without provided buffers.
func (b *Backend) recvReady(idx uint32) {
	s := &b.slots.tab[idx]
	n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(s.op.FD),
		uintptr(unsafe.Pointer(&b.own[0])), uintptr(len(b.own)), unix.MSG_DONTWAIT, 0, 0)
	switch {
	case errno == syscall.EAGAIN || errno == syscall.EINTR:
		b.rearm(idx)
	case errno != 0:
		b.finish(idx, failure(errno))
	case s.op.Flags&backend.Multishot != 0 && n > 0:
		b.rearm(idx)
		b.received(s.op, b.own[:n:n])
	default:
		b.finish(idx, backend.Result{Data: b.own[:n:n], N: int(n)})
	}
}

// waitReady reaps the child of a pidfd that has become readable.
func (b *Backend) waitReady(idx uint32) {
	s := &b.slots.tab[idx]
	var info auxSiginfo
	_, _, errno := syscall.RawSyscall6(unix.SYS_WAITID, unix.P_PIDFD, uintptr(s.op.FD),
		uintptr(unsafe.Pointer(&info)), unix.WEXITED|unix.WNOHANG, 0, 0)
	switch {
	case errno == syscall.EINTR || errno == syscall.EAGAIN || errno == 0 && info.pid == 0:
		b.rearm(idx)
	case errno != 0:
		b.finish(idx, failure(errno))
	default:
		s.op.Ext.Child = info.child()
		b.finish(idx, backend.Result{})
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
	case unix.S_IFREG, unix.S_IFDIR, unix.S_IFBLK:
		return syscall.EPERM
	case unix.S_IFCHR:
		return pollableDevice(fd)
	}
	return 0
}

// pollableDevice asks epoll itself: terminals can be polled, /dev/null cannot.
func pollableDevice(fd int32) syscall.Errno {
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
