package sockapi

import (
	"bytes"
	"syscall"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/loop"
)

// SendAll sends all of p (loop.sock_sendall, send(2)) and returns when the
// kernel has taken it; at once if p is empty. After an error or a cancellation
// it is not known how much was sent. A datagram socket sends p as one datagram.
// It allocates nothing. p belongs to the kernel until SendAll returns.
func SendAll(co *loop.Coro, s *Socket, p []byte) error {
	if err := s.enter(co, "send"); err != nil {
		return err
	}
	if len(p) == 0 {
		return nil
	}
	ln := &s.out
	if err := ln.acquire(co); err != nil {
		return s.wrap("send", err)
	}
	_, err := s.sendAll(co, p)
	ln.release()
	return err
}

// sendAll sends while the call has the lane, and returns how much it sent.
func (s *Socket) sendAll(co *loop.Coro, p []byte) (sent int, err error) {
	sent, errno := s.sendNow(co, p)
	switch {
	case errno != 0:
		return 0, s.wrap("send", errno)
	case sent == len(p):
		return sent, nil
	}
	ln := &s.out
	ln.op.Code, ln.op.FD, ln.op.Flags = backend.OpSend, s.fd, backend.WaitAll
	for {
		ln.op.Buf = p[sent:]
		err := ln.perform(co)
		sent += ln.n
		if err == nil && ln.errno == 0 && sent < len(p) {
			continue
		}
		ln.op.Buf, ln.op.Flags = nil, 0
		if err != nil || sent < len(p) {
			return sent, ln.unsent("send", err)
		}
		return sent, nil
	}
}

// unsent ends a call that could not send everything.
func (ln *lane) unsent(what string, err error) error {
	if err == nil {
		err = ln.errno
	}
	return ln.sock.wrap(what, err)
}

// SendAllV sends all of bufs, in this order, as if they were one (writev(2)), and
// in one packet if the socket sends packets. Otherwise it is SendAll. The slices,
// and bufs itself, must not be changed until it returns; it does not change them.
func SendAllV(co *loop.Coro, s *Socket, bufs [][]byte) error {
	if err := s.enter(co, "send"); err != nil {
		return err
	}
	ln := &s.out
	if err := ln.acquire(co); err != nil {
		return s.wrap("send", err)
	}
	err := s.sendAllV(co, bufs)
	ln.release()
	return err
}

// sendAllV sends while the call has the lane.
func (s *Socket) sendAllV(co *loop.Coro, bufs [][]byte) error {
	if len(bufs) > backend.MaxBufs && !s.stream() {
		bufs = [][]byte{bytes.Join(bufs, nil)} // it is one packet
	}
	skip, errno := s.sendNowV(co, bufs)
	if errno != 0 {
		return s.wrap("send", errno)
	}
	ln := &s.out
	ext := ln.ext()
	ext.Addr.Len = 0
	ln.op.Code, ln.op.FD, ln.op.Flags = backend.OpSendMsg, s.fd, backend.WaitAll
	var err error
	for {
		bufs, skip = advance(bufs, skip)
		if len(bufs) == 0 {
			break
		}
		ext.Bufs = append(ext.Bufs[:0], bufs[:min(len(bufs), backend.MaxBufs)]...)
		ext.Bufs[0] = ext.Bufs[0][skip:]
		if err = ln.perform(co); err != nil || ln.errno != 0 {
			err = ln.unsent("send", err)
			break
		}
		skip += ln.n
	}
	clear(ext.Bufs)
	ext.Bufs, ln.op.Flags = ext.Bufs[:0], 0
	return err
}

// advance drops from bufs what lies within the first n bytes, and pieces that
// are empty, and returns how much of the first piece left is to be skipped.
func advance(bufs [][]byte, n int) ([][]byte, int) {
	for len(bufs) > 0 && n >= len(bufs[0]) {
		n -= len(bufs[0])
		bufs = bufs[1:]
	}
	return bufs, n
}

// SendTo sends p as one message to addr and returns how many bytes were sent
// (loop.sock_sendto, sendto(2)). The address must not be a host name; the zero
// Addr is the connected peer. An empty p is an empty datagram. It allocates
// nothing. p belongs to the kernel until SendTo returns.
//
// While the queue of a Unix socket is full, the kernel does not report when
// there is room again to a sender that names it in addr. SendTo then tries again
// every few milliseconds. A connected socket, and the zero Addr, waits better.
func SendTo(co *loop.Coro, s *Socket, p []byte, addr Addr) (int, error) {
	if err := s.enter(co, "sendto"); err != nil {
		return 0, err
	}
	ln := &s.out
	if err := ln.acquire(co); err != nil {
		return 0, s.wrap("sendto", err)
	}
	n, err := s.sendTo(co, p, addr)
	ln.release()
	return n, err
}

// sendTo sends while the call has the lane.
func (s *Socket) sendTo(co *loop.Coro, p []byte, addr Addr) (int, error) {
	ln := &s.out
	ext := ln.ext()
	ext.Addr.Len = 0
	if addr.IsValid() {
		if err := addr.raw(s.Family(), &ext.Addr); err != nil {
			return 0, s.failTo("sendto", addr, err)
		}
	}
	if n, errno := s.sendToNow(co, p, &ext.Addr); errno != syscall.EAGAIN {
		if errno != 0 {
			return 0, s.failTo("sendto", addr, errno)
		}
		return n, nil
	}
	if s.sendsToNamed(addr) {
		n, err := s.sendToNamed(co, p, &ext.Addr)
		if err != nil {
			return 0, s.failTo("sendto", addr, err)
		}
		return n, nil
	}
	ext.Bufs = append(ext.Bufs[:0], p)
	ln.op.Code, ln.op.FD = backend.OpSendMsg, s.fd
	err := ln.perform(co)
	ext.Bufs[0] = nil
	ext.Bufs = ext.Bufs[:0]
	if err == nil && ln.errno != 0 {
		err = ln.errno
	}
	if err != nil {
		return 0, s.failTo("sendto", addr, err)
	}
	return ln.n, nil
}
