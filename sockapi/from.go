package sockapi

import (
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/loop"
)

// FromConn returns a socket of its own for a connection of package net, by
// duplicating the descriptor. The original remains the caller's, who should
// close it and must not use it meanwhile: both are the same connection, and
// Close of one of them does not end it. It may be called from any goroutine.
func FromConn(c net.Conn) (*Socket, error) { return fromAny("FromConn", c) }

// FromListener is FromConn for a listener. Closing the original of a
// *net.UnixListener removes the file by which clients find both, unless its
// SetUnlinkOnClose(false) was called before.
func FromListener(l net.Listener) (*Socket, error) { return fromAny("FromListener", l) }

// FromPacketConn is FromConn for a packet connection.
func FromPacketConn(c net.PacketConn) (*Socket, error) { return fromAny("FromPacketConn", c) }

// FromFile is FromConn for a file that is a socket. It makes the file
// non-blocking.
func FromFile(f *os.File) (*Socket, error) {
	if f == nil {
		return fromAny("FromFile", nil)
	}
	return fromAny("FromFile", f)
}

func fromAny(op string, c any) (*Socket, error) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("%s: %w: a %T has no descriptor", op, loop.ErrInvalidArgument, c)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	fd := -1
	var dupErr error
	if err := raw.Control(func(orig uintptr) {
		fd, dupErr = unix.FcntlInt(orig, unix.F_DUPFD_CLOEXEC, 0)
	}); err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	if dupErr != nil {
		return nil, &OpError{Op: op + ": duplicate", FD: -1, Err: dupErr}
	}
	s, err := FromFD(fd)
	if err != nil {
		_ = unix.Close(fd) // the error of FromFD tells more
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	return s, nil
}

// FromFD takes over a descriptor, which must be that of a socket, and makes it
// non-blocking and close-on-exec. If it fails, the descriptor remains the
// caller's. It may be called from any goroutine.
func FromFD(fd int) (*Socket, error) {
	if fd < 0 {
		return nil, &OpError{Op: fmt.Sprintf("socket from fd %d", fd), FD: -1, Err: unix.EBADF}
	}
	var of [3]int
	for i, opt := range [...]int{unix.SO_DOMAIN, unix.SO_TYPE, unix.SO_PROTOCOL} {
		v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, opt)
		if err != nil {
			return nil, &OpError{Op: "make a socket", FD: fd, Err: err}
		}
		of[i] = v
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, &OpError{Op: "make a socket", FD: fd, Err: err}
	}
	unix.CloseOnExec(fd)
	return newSocket(fd, of[0], of[1], of[2]), nil
}
