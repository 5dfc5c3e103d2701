package sockapi

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/internal/peername"
	"github.com/seed-80cfe818/ringloop/loop"
)

// The conditions of this package. They come wrapped in an [OpError].
var (
	// ErrSocketClosed: the socket was closed, perhaps while the call waited. It
	// is net.ErrClosed to errors.Is.
	ErrSocketClosed = fmt.Errorf("socket is closed: %w", net.ErrClosed)
	// ErrTransportFD: a transport owns the socket, so that nobody else may use
	// it.
	ErrTransportFD = loop.ErrTransportFD
	// ErrOtherLoop: the socket has operations in flight on another loop.
	ErrOtherLoop = errors.New("socket is in use on another event loop")
	// ErrSendfileNotAvailable: the kernel cannot send this file on this socket
	// by itself (asyncio.SendfileNotAvailableError).
	ErrSendfileNotAvailable = errors.New("sendfile is not available")
	// ErrConnection is every error of a broken or refused connection to
	// errors.Is (Python's ConnectionError): EPIPE, ESHUTDOWN, ECONNABORTED,
	// ECONNREFUSED, ECONNRESET and ENOTCONN.
	ErrConnection = errors.New("connection error")
)

// OpError says what failed, on which socket or address, and why.
type OpError struct {
	// Op is the operation, as in "recv", or "send to" before an address.
	Op string
	// Addr is the address that was tried, or the socket's peer, or where it
	// listens, if known.
	Addr Addr
	// FD is the descriptor, -1 if there was none.
	FD int
	// Err is the reason, which is or unwraps to a syscall.Errno if the kernel
	// gave it.
	Err error
}

// Error names the operation, the address or else the descriptor, and the
// reason.
func (e *OpError) Error() string {
	if e.Addr.IsValid() {
		return e.Op + " " + e.Addr.String() + ": " + e.Err.Error()
	}
	s := strings.TrimSuffix(strings.TrimSuffix(e.Op, " from"), " to")
	if e.FD >= 0 {
		s += " on fd " + strconv.Itoa(e.FD)
	}
	return s + ": " + e.Err.Error()
}

// Unwrap returns the reason.
func (e *OpError) Unwrap() error { return e.Err }

// Is reports whether target is ErrConnection and the reason is one of its
// errors.
func (e *OpError) Is(target error) bool {
	if target != ErrConnection {
		return false
	}
	switch e.Err {
	case syscall.EPIPE, syscall.ESHUTDOWN, syscall.ECONNABORTED, syscall.ECONNREFUSED,
		syscall.ECONNRESET, syscall.ENOTCONN:
		return true
	}
	return false
}

// Timeout reports whether a deadline passed or the kernel gave up waiting.
func (e *OpError) Timeout() bool {
	return errors.Is(e.Err, os.ErrDeadlineExceeded) || e.Err == syscall.ETIMEDOUT
}

// Temporary is part of net.Error: true if a deadline passed, after which one may
// go on, which crypto/tls would not otherwise.
func (e *OpError) Temporary() bool { return errors.Is(e.Err, os.ErrDeadlineExceeded) }

// fail returns err as an OpError about the socket and its peer.
func (s *Socket) fail(op string, err error) error {
	e := &OpError{Op: op, FD: s.Fd(), Err: err}
	if e.Addr = s.formerPeer(); !e.Addr.IsValid() && op == "accept" {
		if local, lerr := s.LocalAddr(); lerr == nil && local != UnixAddr("") {
			e.Addr = local
		}
	}
	return e
}

// formerPeer returns the peer, also of a TCP connection that is broken, and no
// address if there is none.
func (s *Socket) formerPeer() Addr {
	if s.Fd() < 0 {
		return Addr{}
	}
	switch peer, err := s.PeerAddr(); {
	case err != nil:
		var raw backend.Addr
		peername.Former(s.fd, &raw)
		return addrOf(&raw)
	case peer != UnixAddr(""):
		return peer
	}
	return Addr{}
}

// wrap returns err as an OpError about the socket. A CancelledError stays as it
// is, because it is not about the socket.
func (s *Socket) wrap(op string, err error) error {
	if err == nil {
		return nil
	}
	if _, cancelled := err.(*loop.CancelledError); cancelled {
		return err
	}
	return s.fail(op, err)
}

// failTo returns err as an OpError about an address.
func (s *Socket) failTo(op string, addr Addr, err error) error {
	if _, cancelled := err.(*loop.CancelledError); cancelled {
		return err
	}
	if !addr.IsValid() {
		return s.fail(op, err)
	}
	return &OpError{Op: op, Addr: addr, FD: s.Fd(), Err: err}
}
