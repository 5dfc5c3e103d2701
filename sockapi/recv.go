package sockapi

import (
	"fmt"
	"io"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/loop"
)

// ownBuffer is the largest size for which Recv waits with a buffer of its own;
// for larger ones it waits with none and receives into memory of the backend.
const ownBuffer = 2048

// RecvInto receives into p and returns how many bytes it received
// (loop.sock_recv_into, recv(2)). It returns io.EOF at the end of a stream, and
// 0 at once if p is empty. What does not fit of a packet is cut off. It
// allocates nothing. p belongs to the kernel until RecvInto returns.
func RecvInto(co *loop.Coro, s *Socket, p []byte) (int, error) {
	if err := s.enter(co, "recv"); err != nil {
		return 0, err
	}
	if len(p) == 0 {
		return 0, nil
	}
	ln := &s.in
	if err := s.acquireInput(co); err != nil {
		return 0, s.wrap("recv", err)
	}
	n, err := s.recvInto(co, p)
	ln.release()
	return n, err
}

// recvInto receives while the call has the lane.
func (s *Socket) recvInto(co *loop.Coro, p []byte) (int, error) {
	if s.hasKept() {
		n, _, err := s.receiveKept(p)
		return n, s.wrap("recv", err)
	}
	ln := &s.in
	ln.op.Code, ln.op.FD, ln.op.Buf, ln.op.Flags = backend.OpRecv, s.fd, p, s.receiving()
	err := ln.receive(co)
	ln.op.Flags = 0
	if err != nil || ln.errno != 0 {
		return 0, ln.failed("recv", err)
	}
	ln.op.Buf = nil
	if ln.n == 0 && s.ends() {
		return 0, io.EOF
	}
	return ln.n, nil
}

// receiving returns how to receive into a buffer: of a packet nothing is left in
// the kernel, so that a cancelled call must not have taken it.
func (s *Socket) receiving() backend.Flags {
	if s.stream() {
		return 0
	}
	return backend.AtDelivery
}

// Recv receives up to n bytes (loop.sock_recv, recv(2)) into new memory, which
// is the caller's. While it waits it needs no memory of the size n on a stream.
// It returns io.EOF at the end of a stream. n must be positive. What does not
// fit of a packet is cut off. More than n bytes of a stream may leave the kernel:
// the next call on s gets the rest, which the descriptor does not show any more,
// neither to a watcher nor to a copy of it.
func Recv(co *loop.Coro, s *Socket, n int) ([]byte, error) {
	if err := s.enter(co, "recv"); err != nil {
		return nil, err
	}
	if n <= 0 {
		return nil, s.fail("recv", notPositive(n))
	}
	if n <= ownBuffer || !s.stream() {
		p := make([]byte, n)
		n, err := RecvInto(co, s, p)
		return p[:n:n], err
	}
	ln := &s.in
	if err := s.acquireInput(co); err != nil {
		return nil, s.wrap("recv", err)
	}
	data, err := s.recvMuch(co, n)
	ln.release()
	return data, err
}

func notPositive(n int) error {
	return fmt.Errorf("%w: %d bytes are asked for", loop.ErrInvalidArgument, n)
}

// recvMuch receives from a stream, without memory for n bytes, while the call has
// the lane.
func (s *Socket) recvMuch(co *loop.Coro, n int) ([]byte, error) {
	if s.hasKept() {
		p := make([]byte, min(n, len(s.kept.data)))
		n, err := s.recvInto(co, p)
		return p[:n:n], err
	}
	ln := &s.in
	ln.op.Code, ln.op.FD, ln.op.Buf, ln.op.Len = backend.OpRecv, s.fd, nil, n
	err := ln.perform(co)
	if err != nil || ln.errno != 0 {
		return nil, ln.failed("recv", err)
	}
	data := ln.op.Buf[:ln.n:ln.n]
	ln.op.Buf = nil
	if len(data) == 0 {
		return nil, io.EOF
	}
	if len(data) > n {
		s.kept = &kept{data: data[n:]}
		data = data[:n:n]
	}
	return data, nil
}

// RecvFrom receives one message of up to n bytes and the address of its sender
// (loop.sock_recvfrom, recvfrom(2)). On a stream the address is not valid, and
// the end is io.EOF. n must be positive. What does not fit is cut off. An ICMP
// error for what was sent before is the error of this call.
func RecvFrom(co *loop.Coro, s *Socket, n int) ([]byte, Addr, error) {
	if n <= 0 {
		if err := s.enter(co, "recvfrom"); err != nil {
			return nil, Addr{}, err
		}
		return nil, Addr{}, s.fail("recvfrom", notPositive(n))
	}
	p := make([]byte, n)
	n, from, err := RecvFromInto(co, s, p)
	return p[:n:n], from, err
}

// RecvFromInto receives one message into p and returns its size and the address
// of its sender (loop.sock_recvfrom_into). It returns 0 at once if p is empty.
// It allocates nothing, but for the path of a Unix socket. See RecvFrom, and
// RecvInto for who owns p.
func RecvFromInto(co *loop.Coro, s *Socket, p []byte) (int, Addr, error) {
	if err := s.enter(co, "recvfrom"); err != nil {
		return 0, Addr{}, err
	}
	if len(p) == 0 {
		return 0, Addr{}, nil
	}
	ln := &s.in
	if err := s.acquireInput(co); err != nil {
		return 0, Addr{}, s.wrap("recvfrom", err)
	}
	n, from, err := s.recvFrom(co, p)
	ln.release()
	return n, from, err
}

// recvFrom receives while the call has the lane.
func (s *Socket) recvFrom(co *loop.Coro, p []byte) (int, Addr, error) {
	if s.hasKept() {
		n, from, err := s.receiveKept(p)
		return n, from, s.wrap("recvfrom", err)
	}
	ln := &s.in
	ext := ln.ext()
	ext.Addr.Len = 0
	ln.op.Code, ln.op.FD, ln.op.Buf, ln.op.Flags = backend.OpRecvMsg, s.fd, p, s.receiving()
	err := ln.receive(co)
	ln.op.Flags = 0
	if err != nil || ln.errno != 0 {
		return 0, Addr{}, ln.failed("recvfrom", err)
	}
	ln.op.Buf = nil
	from := addrOf(&ext.Addr)
	if ln.n == 0 && s.ends() {
		return 0, from, io.EOF
	}
	return ln.n, from, nil
}

// ext returns the lane's room for an address, which stays with it.
func (ln *lane) ext() *backend.Ext {
	if ln.op.Ext == nil {
		ln.op.Ext = new(backend.Ext)
	}
	return ln.op.Ext
}

// failed ends a call on the input whose operation has failed or whose wait was
// interrupted, and keeps for the next call what the operation brought.
func (ln *lane) failed(what string, err error) error {
	if err == nil {
		err = ln.errno
	} else {
		ln.keep()
	}
	ln.op.Buf = nil
	return ln.sock.wrap(what, err)
}
