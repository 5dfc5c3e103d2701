package sockapi

import (
	"bytes"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/internal/nowait"
	"github.com/seed-80cfe818/ringloop/loop"
)

// kept is what an operation brought although its call was cancelled, or more
// than its call wanted. The next call in the direction gets it.
type kept struct {
	data  []byte
	mem   []byte        // the memory of data if it may be lent, see borrow.go
	addr  Addr          // the sender of data
	from  bool          // addr was asked for
	conn  *Socket       // an accepted connection, and addr its peer
	errno syscall.Errno // an error that the kernel reports only once
}

// keep puts the outcome of the input operation aside, if there is one.
func (ln *lane) keep() {
	s, op := ln.sock, &ln.op
	if ln.errno == syscall.ECANCELED {
		return
	}
	if ln.errno != 0 {
		if s.kept == nil && toldOnce(op, ln.errno) {
			s.kept = &kept{errno: ln.errno}
		}
		return
	}
	switch op.Code {
	case backend.OpAccept:
		s.kept = &kept{conn: s.accepted(ln.n), addr: addrOf(&op.Ext.Addr)}
		if s.state == stateClosed { // after the loop, in which it waited
			s.dropKept()
		}
	case backend.OpRecv, backend.OpRecvMsg:
		if ln.n == 0 && s.ends() {
			return // the end of a stream is reported again
		}
		k := &kept{data: bytes.Clone(op.Buf[:ln.n])}
		if k.from = op.Code == backend.OpRecvMsg; k.from {
			k.addr = addrOf(&op.Ext.Addr)
		}
		s.kept = k
	}
}

// toldOnce reports whether the kernel tells an error of an input operation only
// once: one of the connection, not one of the moment. An Accept's is about a
// connection that is gone.
func toldOnce(op *backend.Op, errno syscall.Errno) bool {
	switch errno {
	case syscall.ENOTCONN, syscall.ENOMEM, syscall.ENOBUFS, syscall.EINVAL, syscall.EOPNOTSUPP:
		return false
	}
	return op.Code != backend.OpAccept
}

// hasKept reports whether something was put aside for a call that receives. A
// connection is for Accept.
func (s *Socket) hasKept() bool { return s.kept != nil && s.kept.conn == nil }

// receiveKept gives p what was put aside; the rest of a packet is dropped.
func (s *Socket) receiveKept(p []byte) (int, Addr, error) {
	k := s.kept
	if len(k.data) == 0 && k.errno != 0 {
		s.kept = nil
		return 0, Addr{}, k.errno
	}
	n := copy(p, k.data)
	k.data = k.data[n:]
	if (len(k.data) == 0 || !s.stream()) && k.errno == 0 {
		s.kept = nil
	}
	return n, s.sender(k), nil
}

// sender returns who has sent what was put aside.
func (s *Socket) sender(k *kept) Addr {
	if !k.from && (s.family == unix.AF_UNIX || !s.stream()) { // TCP names no sender
		// Nobody has asked: a connected peer, if anybody.
		k.addr, _ = s.PeerAddr()
	}
	return k.addr
}

// mayLeave reports why the socket may not be taken away from its callers.
func (s *Socket) mayLeave() error {
	switch {
	case s.busy():
		return s.inUse()
	case s.kept != nil && s.kept.conn != nil:
		return fmt.Errorf("%w: it has a connection that a cancelled Accept had taken: call Accept or DetachListener", loop.ErrInvalidState)
	}
	return nil
}

// Received is what a cancelled call had taken from the kernel, which does not
// give it again: it is for whoever takes over the socket.
type Received struct {
	Data []byte // nil if there is none; an empty packet is not nil
	From Addr   // the sender of Data
	// Err is an error that the kernel reports only once, as ECONNRESET, after
	// Data: an *OpError, or nil.
	Err error
}

// takeKept returns what was put aside.
func (s *Socket) takeKept() Received {
	k := s.kept
	if k == nil {
		return Received{}
	}
	s.dropKept()
	r := Received{Data: k.data, From: s.sender(k)}
	if k.errno != 0 {
		r.Err = s.fail("recv", k.errno)
	}
	return r
}

// dropKept gives up what was put aside.
func (s *Socket) dropKept() {
	if s.kept != nil && s.kept.conn != nil {
		// A connection that nobody will accept: there is nobody to be told.
		_ = s.kept.conn.Close()
	}
	s.kept = nil
}

// maxDrain is how much a call without a buffer of its own receives at the close.
const maxDrain = 256 << 10

// drain receives once more, without waiting, for a call that is about to end
// because the socket is closed: what had arrived before is still delivered.
func (ln *lane) drain() {
	op := &ln.op
	if op.Code != backend.OpRecv && op.Code != backend.OpRecvMsg {
		return
	}
	if op.Buf == nil {
		op.Buf = make([]byte, min(op.Len, maxDrain))
	}
	if len(op.Buf) == 0 {
		return
	}
	if n, errno := nowait.Receive(op); errno == 0 && n > 0 {
		ln.n, ln.errno = n, 0
	}
}
