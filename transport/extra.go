package transport

import (
	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/internal/peername"
)

// The names that ExtraInfo of sockets knows. TLS adds its own.
const (
	// ExtraPeerName is the address of the peer, an Addr, or nil if it had none
	// when the connection was made.
	ExtraPeerName = "peername"
	// ExtraSockName is the local address, an Addr, or nil.
	ExtraSockName = "sockname"
	// ExtraSocket is the *TransportSocket, always the same one.
	ExtraSocket = "socket"
)

// ExtraInfo returns what is known under a name.
func (s *stream) ExtraInfo(name string) (value any, ok bool) {
	switch name {
	case ExtraPeerName:
		return orNil(s.peerAddr()), true
	case ExtraSockName:
		return orNil(s.localAddr()), true
	case ExtraSocket:
		return s.socketView(), true
	}
	return nil, false
}

func orNil(a Addr) any {
	if !a.IsValid() {
		return nil
	}
	return a
}

// peerAddr returns the address of the peer. The kernel forgets it when the
// connection breaks, so for TCP it is asked when the connection is made.
func (s *stream) peerAddr() Addr {
	if s.peer.kind == nameUnknown {
		s.askName(unix.SYS_GETPEERNAME, &s.peer)
	}
	if s.peer.kind == nameOther {
		return s.cold.peer
	}
	return s.peer.addr()
}

// localAddr returns the local address, which the kernel knows for as long as
// the descriptor is open.
func (s *stream) localAddr() Addr {
	if s.local.kind == nameUnknown {
		s.askName(unix.SYS_GETSOCKNAME, &s.local)
	}
	if s.local.kind == nameOther {
		return s.cold.local
	}
	return s.local.addr()
}

// askName asks the kernel and keeps the answer.
func (s *stream) askName(call uintptr, n *name) {
	var raw backend.Addr
	if s.fd >= 0 && socketName(call, s.fd, &raw) == unix.ENOTCONN {
		peername.Former(s.fd, &raw)
	}
	if n.set(&raw) {
		return
	}
	n.kind = nameOther
	if n == &s.peer {
		s.rarely().peer = addrOf(&raw)
	} else {
		s.rarely().local = addrOf(&raw)
	}
}

// keepNames asks for the names that nobody has asked for, before the
// descriptor is gone.
func (s *stream) keepNames() {
	s.peerAddr()
	s.localAddr()
}

// socketView returns the stream's socket for looking at.
func (s *stream) socketView() *TransportSocket {
	c := s.rarely()
	if c.view == nil {
		c.view = &TransportSocket{fd: s.fd}
	}
	return c.view
}
