package sockapi

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/loop"
)

// Connect connects the socket to addr (loop.sock_connect, connect(2)). A host
// name is resolved with the socket's own family, type and protocol, and the
// first address is taken. After a cancellation the connect may go on in the
// kernel; calling Connect again with the same address picks it up.
func Connect(co *loop.Coro, s *Socket, addr Addr) error {
	if err := s.enter(co, "connect"); err != nil {
		return err
	}
	if addr.kind == kindHost {
		found, err := resolve(co, addr, s.Family(), s.Type(), s.Proto())
		if err != nil {
			return s.failTo("connect", addr, err)
		}
		addr = found[0]
		if err := s.enter(co, "connect"); err != nil {
			return err // it was closed meanwhile
		}
	}
	ln := &s.out
	if err := ln.acquire(co); err != nil {
		return s.failTo("connect", addr, err)
	}
	err := s.connect(co, addr)
	ln.op.Ext = nil // a stream will not need it again
	ln.release()
	if err != nil {
		return s.failTo("connect", addr, err)
	}
	return nil
}

// connect connects while the call has the lane.
func (s *Socket) connect(co *loop.Coro, addr Addr) error {
	ln := &s.out
	ext := ln.ext()
	if err := addr.raw(s.Family(), &ext.Addr); err != nil {
		return err
	}
	cancelled := s.connecting
	for {
		ln.op.Code, ln.op.FD = backend.OpConnect, s.fd
		if err := ln.perform(co); err != nil {
			if cancelled == nil && ln.begun && (ln.errno == syscall.ECANCELED || ln.errno == 0 && s.typ != unix.SOCK_DGRAM) {
				s.connecting = new(backend.Addr)
				*s.connecting = ext.Addr
			}
			return err
		}
		if cancelled == nil || ln.errno == 0 || ln.errno == syscall.EISCONN {
			break
		}
		s.connecting = nil
		if *cancelled == ext.Addr {
			break
		}
		cancelled = nil // that is how the other one has ended
	}
	errno := ln.errno
	if cancelled == nil {
		return errorOf(errno)
	}
	// It was the end of the connect that was cancelled.
	s.connecting = nil
	if (errno == 0 || errno == syscall.EISCONN) && *cancelled != ext.Addr {
		// Unless that had ended, and this call has connected.
		if peer, err := s.PeerAddr(); errno == 0 && err == nil && peer == addrOf(&ext.Addr) {
			return nil
		}
		return syscall.EISCONN
	}
	if errno == syscall.EISCONN {
		return nil
	}
	return errorOf(errno)
}

// Dial makes a socket and connects it. The network is tcp, tcp4, tcp6, udp,
// udp4, udp6, unix, unixgram or unixpacket; the address is host:port, where the
// port may be a service's name, or a path, where a leading @ stands for the
// abstract namespace. The addresses of a host are tried one after the other;
// the error is that of the first. TCP_NODELAY is set.
func Dial(co *loop.Coro, network, address string) (*Socket, error) {
	family, typ, err := parseNetwork(network)
	if err != nil {
		return nil, badAddress("dial", network, address, err)
	}
	addrs, err := lookup(co, network, address, family, typ)
	if err != nil {
		return nil, err
	}
	var first error
	for _, addr := range addrs {
		s, err := dial(co, addr, typ)
		if err == nil {
			return s, nil
		}
		if first == nil {
			first = err
		}
		if isCancelled(err) {
			return nil, err
		}
	}
	return nil, first
}

// dial makes a socket and connects it to addr.
func dial(co *loop.Coro, addr Addr, typ int) (*Socket, error) {
	s, err := New(addr.Family(), typ, 0)
	if err != nil {
		return nil, err
	}
	if typ == unix.SOCK_STREAM && addr.Family() != unix.AF_UNIX {
		err = s.SetNoDelay(true)
	}
	if err == nil {
		err = Connect(co, s, addr)
	}
	if err != nil {
		_ = s.Close() // err tells more
		return nil, err
	}
	return s, nil
}

func isCancelled(err error) bool {
	_, ok := err.(*loop.CancelledError)
	return ok
}

// parseNetwork returns the family and type that the name of a network means;
// the family is AF_UNSPEC if it depends on the address.
func parseNetwork(network string) (family, typ int, err error) {
	switch network {
	case "tcp":
		return unix.AF_UNSPEC, unix.SOCK_STREAM, nil
	case "tcp4":
		return unix.AF_INET, unix.SOCK_STREAM, nil
	case "tcp6":
		return unix.AF_INET6, unix.SOCK_STREAM, nil
	case "udp":
		return unix.AF_UNSPEC, unix.SOCK_DGRAM, nil
	case "udp4":
		return unix.AF_INET, unix.SOCK_DGRAM, nil
	case "udp6":
		return unix.AF_INET6, unix.SOCK_DGRAM, nil
	case "unix":
		return unix.AF_UNIX, unix.SOCK_STREAM, nil
	case "unixgram":
		return unix.AF_UNIX, unix.SOCK_DGRAM, nil
	case "unixpacket":
		return unix.AF_UNIX, unix.SOCK_SEQPACKET, nil
	}
	return 0, 0, fmt.Errorf("%w: unknown network %q", loop.ErrInvalidArgument, network)
}
