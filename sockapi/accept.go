package sockapi

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/loop"
)

// Accept accepts one connection (loop.sock_accept, accept4(2)) and returns its
// socket, which the caller must close and which is not bound to a loop yet, and
// the address of the peer. A connection that a cancelled call had accepted goes
// to the next one. The error is syscall.EINVAL if the socket is not listening, and
// EMFILE, ENFILE, ENOBUFS or ENOMEM while there is no room for one more connection:
// a server pauses then and tries again.
func Accept(co *loop.Coro, s *Socket) (*Socket, Addr, error) {
	if err := s.enter(co, "accept"); err != nil {
		return nil, Addr{}, err
	}
	if err := s.acquireInput(co); err != nil {
		return nil, Addr{}, s.wrap("accept", err)
	}
	conn, peer, err := s.accept(co)
	s.in.release()
	return conn, peer, err
}

// accept accepts while the call has the lane.
func (s *Socket) accept(co *loop.Coro) (*Socket, Addr, error) {
	if k := s.kept; k != nil && k.data == nil {
		s.kept = nil
		if k.conn == nil {
			return nil, Addr{}, s.fail("accept", s.whyNotAccepted(k.errno))
		}
		return k.conn, k.addr, nil
	}
	ln := &s.in
	ext := ln.ext()
	ext.Addr.Len = 0
	ln.op.Code, ln.op.FD, ln.op.Buf = backend.OpAccept, s.fd, nil
	err := ln.perform(co)
	switch {
	case err != nil:
		return nil, Addr{}, ln.failed("accept", err)
	case ln.errno != 0:
		return nil, Addr{}, s.fail("accept", s.whyNotAccepted(ln.errno))
	}
	return s.accepted(ln.n), addrOf(&ext.Addr), nil
}

// whyNotAccepted returns errno with what the kernel means by it: accept4(2) has
// one number for all sockets that do not, or no more, listen.
func (s *Socket) whyNotAccepted(errno syscall.Errno) error {
	if errno != syscall.EINVAL {
		return errno
	}
	if on, err := unix.GetsockoptInt(int(s.fd), unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err == nil && on != 0 {
		return fmt.Errorf("the listening socket was shut down: %w", errno)
	}
	return fmt.Errorf("the socket is not listening: %w", errno)
}

// accepted wraps a descriptor that the listener s has accepted.
func (s *Socket) accepted(fd int) *Socket {
	return newSocket(fd, s.Family(), s.Type(), s.Proto())
}
