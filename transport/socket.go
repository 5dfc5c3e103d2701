package transport

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
)

// TransportSocket lets one look at the socket of a transport or server and set
// its options, without the means to disturb it (asyncio.TransportSocket). It
// belongs to the loop's thread. When the transport is closed, Fd is -1 and the
// rest fails with sockapi.ErrSocketClosed.
type TransportSocket struct {
	fd     int32
	shared bool // Dup was called
}

// Fd returns the descriptor, -1 when the transport is closed. It must not be
// closed, read or written.
func (v *TransportSocket) Fd() int { return int(v.fd) }

// check reports whether the socket is gone.
func (v *TransportSocket) check(op string) error {
	if v.fd < 0 {
		return &sockapi.OpError{Op: op, FD: -1, Err: sockapi.ErrSocketClosed}
	}
	return nil
}

// Family returns the address family, as unix.AF_INET.
func (v *TransportSocket) Family() (int, error) {
	return v.GetOption(unix.SOL_SOCKET, unix.SO_DOMAIN)
}

// Type returns the socket type, as unix.SOCK_STREAM.
func (v *TransportSocket) Type() (int, error) { return v.GetOption(unix.SOL_SOCKET, unix.SO_TYPE) }

// Proto returns the protocol, as unix.IPPROTO_TCP.
func (v *TransportSocket) Proto() (int, error) {
	return v.GetOption(unix.SOL_SOCKET, unix.SO_PROTOCOL)
}

// GetOption returns an option that is an int (getsockopt(2)).
func (v *TransportSocket) GetOption(level, name int) (int, error) {
	if err := v.check("getsockopt"); err != nil {
		return 0, err
	}
	value, err := unix.GetsockoptInt(int(v.fd), level, name)
	if err != nil {
		return 0, &sockapi.OpError{Op: fmt.Sprintf("getsockopt %d of level %d", name, level), FD: int(v.fd), Err: err}
	}
	return value, nil
}

// SetOption sets an option that is an int (setsockopt(2)).
func (v *TransportSocket) SetOption(level, name, value int) error {
	if err := v.check("setsockopt"); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(int(v.fd), level, name, value); err != nil {
		return &sockapi.OpError{Op: fmt.Sprintf("setsockopt %d of level %d", name, level), FD: int(v.fd), Err: err}
	}
	return nil
}

// LocalAddr returns the local address (getsockname(2)).
func (v *TransportSocket) LocalAddr() (Addr, error) {
	return v.name("getsockname", unix.SYS_GETSOCKNAME)
}

// PeerAddr returns the address of the peer (getpeername(2)).
func (v *TransportSocket) PeerAddr() (Addr, error) {
	return v.name("getpeername", unix.SYS_GETPEERNAME)
}

func (v *TransportSocket) name(op string, call uintptr) (Addr, error) {
	if err := v.check(op); err != nil {
		return Addr{}, err
	}
	var raw backend.Addr
	if errno := socketName(call, v.fd, &raw); errno != 0 {
		return Addr{}, &sockapi.OpError{Op: op, FD: int(v.fd), Err: errno}
	}
	return addrOf(&raw), nil
}

// Shutdown ends one or both directions (shutdown(2)); how is unix.SHUT_RD,
// SHUT_WR or SHUT_RDWR. What waits for room in a full Unix stream hears of SHUT_WR
// only when the peer reads: the kernel does not tell before.
func (v *TransportSocket) Shutdown(how int) error {
	if err := v.check("shutdown"); err != nil {
		return err
	}
	if err := unix.Shutdown(int(v.fd), how); err != nil {
		return &sockapi.OpError{Op: "shutdown", FD: int(v.fd), Err: err}
	}
	return nil
}

// SetBlocking refuses to make the socket blocking, with
// loop.ErrInvalidArgument; it is non-blocking.
func (v *TransportSocket) SetBlocking(blocking bool) error {
	if blocking {
		return fmt.Errorf("%w: the socket of a transport cannot be blocking", loop.ErrInvalidArgument)
	}
	return nil
}

// SetTimeout refuses any timeout but 0, with loop.ErrInvalidArgument.
func (v *TransportSocket) SetTimeout(d time.Duration) error {
	if d != 0 {
		return fmt.Errorf("%w: the socket of a transport cannot have a timeout of %v", loop.ErrInvalidArgument, d)
	}
	return nil
}

// Inheritable reports whether child processes inherit the descriptor: false.
func (v *TransportSocket) Inheritable() (bool, error) {
	if err := v.check("fcntl"); err != nil {
		return false, err
	}
	flags, err := unix.FcntlInt(uintptr(v.fd), unix.F_GETFD, 0)
	if err != nil {
		return false, &sockapi.OpError{Op: "fcntl", FD: int(v.fd), Err: err}
	}
	return flags&unix.FD_CLOEXEC == 0, nil
}

// Dup returns a socket of its own for the same connection, which the caller must
// close.
func (v *TransportSocket) Dup() (*sockapi.Socket, error) {
	if err := v.check("dup"); err != nil {
		return nil, err
	}
	fd, err := unix.FcntlInt(uintptr(v.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, &sockapi.OpError{Op: "dup", FD: int(v.fd), Err: err}
	}
	s, err := sockapi.FromFD(fd)
	if err != nil {
		closeFD(int32(fd))
	}
	v.shared = true
	return s, err
}

// String describes the socket.
func (v *TransportSocket) String() string {
	s := fmt.Sprintf("<TransportSocket fd=%d", v.fd)
	if local, err := v.LocalAddr(); err == nil {
		s += " local=" + local.String()
	}
	if peer, err := v.PeerAddr(); err == nil {
		s += " peer=" + peer.String()
	}
	return s + ">"
}
