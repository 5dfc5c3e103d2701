package transport

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/internal/nowait"
	"github.com/seed-80cfe818/ringloop/sockapi"
)

// maxOutboxes is how many outboxes of a loop are kept for the next use.
const maxOutboxes = 4096

// outbox is what a stream has to send. It is taken from a pool with the first
// byte and given back with the last.
type outbox struct {
	op     backend.Op // sends from chunks[0]
	s      *stream    // nil if the stream has dropped the outbox
	sh     *shared
	chunks []chunk
	size   int  // bytes that the kernel has not taken
	queued bool // EndTurn will be called
}

// outbox returns the stream's outbox.
func (s *stream) outbox() *outbox {
	o := s.out
	if o != nil {
		return o
	}
	if n := len(s.sh.outboxes); n > 0 {
		o = s.sh.outboxes[n-1]
		s.sh.outboxes = s.sh.outboxes[:n-1]
	} else {
		o = &outbox{sh: s.sh}
		o.op.Receiver, o.op.Code, o.op.Flags = o, backend.OpSend, backend.WaitAll|backend.Pinned
	}
	o.s, o.op.FD = s, s.fd
	s.out = o
	return o
}

// add appends a copy of p.
func (o *outbox) add(p []byte) {
	o.size += len(p)
	for len(p) > 0 {
		c := o.room(len(p))
		n := copy(c.mem[c.end:], p)
		c.end += n
		p = p[n:]
	}
}

// room returns the last chunk if it has room for n bytes or can grow to have
// it, else a new one.
func (o *outbox) room(n int) *chunk {
	if len(o.chunks) > 0 {
		c := &o.chunks[len(o.chunks)-1]
		if len(c.mem)-c.end >= n {
			return c
		}
		inKernel := len(o.chunks) == 1 && o.op.InFlight()
		if held := len(c.rest()); !inKernel && held+n <= maxChunk {
			mem := o.sh.chunks.take(held + n)
			copy(mem, c.rest())
			o.sh.chunks.put(c.mem)
			*c = chunk{mem: mem, end: held}
			return c
		}
		if len(c.mem) > c.end {
			return c
		}
	}
	o.chunks = append(o.chunks, chunk{})
	c := &o.chunks[len(o.chunks)-1]
	c.mem = o.sh.chunks.take(n)
	return c
}

// advance notes that the kernel has taken n bytes from the beginning.
func (o *outbox) advance(n int) {
	o.size -= n
	done := 0
	for n > 0 {
		c := &o.chunks[done]
		m := min(n, c.end-c.taken)
		c.taken += m
		n -= m
		if c.taken < c.end {
			break
		}
		o.sh.chunks.put(c.mem)
		done++
	}
	if done > 0 {
		left := copy(o.chunks, o.chunks[done:])
		clear(o.chunks[left:])
		o.chunks = o.chunks[:left]
	}
}

// free gives the outbox and its memory back to the pool.
func (o *outbox) free() {
	for i := range o.chunks {
		o.sh.chunks.put(o.chunks[i].mem)
		o.chunks[i] = chunk{}
	}
	o.chunks, o.size, o.s = o.chunks[:0], 0, nil
	if len(o.sh.outboxes) < maxOutboxes {
		o.sh.outboxes = append(o.sh.outboxes, o)
	}
}

// send hands the first chunk to the kernel, and the next ones for as long as
// that is better done at once, and can be.
func (o *outbox) send() {
	for o.size > 0 {
		o.op.Buf = o.chunks[0].rest()
		if len(o.op.Buf) < o.sh.directSend {
			o.submit()
			return
		}
		r, done := o.sh.loop.Try(&o.op)
		if !done {
			o.submit()
			return
		}
		if r.Errno != 0 {
			o.s.sendFailed(r.Errno)
			return
		}
		o.advance(r.N)
	}
	o.s.sent(o)
}

func (o *outbox) submit() {
	if err := o.sh.loop.Submit(&o.op); err != nil {
		o.s.fail(err)
	}
}

// EndTurn sends what was written during the turn.
func (o *outbox) EndTurn() {
	o.queued = false
	if o.s != nil && !o.op.InFlight() {
		o.send()
	}
}

// Complete goes on with the next chunk.
func (o *outbox) Complete(_ *backend.Op, r backend.Result) {
	s := o.s
	switch {
	case s == nil:
		o.free()
	case r.Errno == syscall.ECANCELED && s.sh.loop.IsClosed():
	case r.Errno != 0:
		s.sendFailed(r.Errno)
	default:
		o.advance(r.N)
		if o.size > 0 {
			o.send()
		}
		if s.out == o {
			s.sent(o)
		}
	}
}

// sent is called when the kernel has taken some bytes of the stream's outbox.
func (s *stream) sent(o *outbox) {
	if o.size == 0 {
		s.out = nil
		o.free()
	}
	if s.flags&flagFull != 0 {
		s.sentAndTell()
		return
	}
	if s.out == nil {
		s.emptied()
	}
}

// sentAndTell is sent for a protocol that is paused.
func (s *stream) sentAndTell() {
	defer func() { // also after a runtime.Goexit in the callback
		if s.out == nil {
			s.emptied()
		}
	}()
	s.checkMarks()
}

// emptied does what waited for the last byte.
func (s *stream) emptied() {
	if s.flags&(flagWriteEOF|flagShut|flagLost) == flagWriteEOF {
		s.shutdown()
	}
	if s.flags&(flagClosing|flagLost|flagSendfile) == flagClosing {
		s.lose(nil)
	}
	s.wakeWaiter()
}

// wakeWaiter wakes who waits until everything is sent or lost.
func (s *stream) wakeWaiter() {
	if s.cold != nil && s.cold.wake != nil {
		wake := s.cold.wake
		s.cold.wake = nil
		wake()
	}
}

// dropOutput drops what is buffered. What the kernel has in its hands is freed
// when it lets go of it.
func (s *stream) dropOutput() {
	o := s.out
	if o == nil {
		return
	}
	s.out = nil
	if o.op.InFlight() {
		o.s, o.size = nil, 0
		s.sh.loop.CancelOp(&o.op)
		return
	}
	o.free()
}

// sendFailed ends the connection with an error of the kernel, or with what has
// broken it, if that was received before and waits because reading is paused.
func (s *stream) sendFailed(errno syscall.Errno) {
	if s.flags&flagParked != 0 && s.cold.parked.err != nil {
		s.fail(s.cold.parked.err)
		return
	}
	s.fail(&sockapi.OpError{Op: "send to", Addr: s.peerAddr(), FD: int(s.fd), Err: errno})
}

// Write queues p for sending.
func (s *stream) Write(p []byte) error {
	if drop, err := s.mayWrite(len(p)); drop || err != nil {
		return err
	}
	if s.sendsAtOnce(len(p)) {
		p = p[s.sendNow(p):]
		if len(p) == 0 || s.flags&flagClosing != 0 {
			return nil
		}
	}
	s.outbox().add(p)
	s.wrote()
	return nil
}

const (
	// directOnce is the size in bytes from which on the first write in a turn may
	// be sent at once. Smaller ones are collected until the turn ends.
	directOnce = 2 << 10
	// directAgain is that size for a second write: to copy it would cost more
	// than to send it by itself.
	directAgain = 16 << 10
)

// sendsAtOnce reports whether a write of n bytes is to be sent from the caller's
// memory: if it is large enough, and the first in the turn. Who writes twice is
// likely to write more often, and that is to go out together.
func (s *stream) sendsAtOnce(n int) bool {
	if s.out != nil || n < max(s.sh.directSend, directOnce) {
		return false
	}
	turn := uint8(s.sh.loop.Turn())
	again := s.sentIn == turn
	s.sentIn = turn
	return !again || n >= directAgain
}

// Writelines queues the concatenation of bufs for sending.
func (s *stream) Writelines(bufs [][]byte) error {
	n := 0
	for _, p := range bufs {
		n += len(p)
	}
	if drop, err := s.mayWrite(n); drop || err != nil {
		return err
	}
	o := s.outbox()
	for _, p := range bufs {
		o.add(p)
	}
	s.wrote()
	return nil
}

// mayWrite reports whether n bytes may be written, or are to be dropped.
func (s *stream) mayWrite(n int) (drop bool, err error) {
	if err := s.sh.loop.CheckThread("write"); err != nil {
		return true, err
	}
	if s.flags&(flagWriteEOF|flagSendfile|flagClosing) == 0 {
		return n == 0, nil
	}
	switch {
	case s.flags&flagWriteEOF != 0:
		return true, fmt.Errorf("write to %v: %w", s.peerAddr(), ErrWriteEOF)
	case s.flags&flagSendfile != 0:
		return true, fmt.Errorf("write to %v: %w", s.peerAddr(), ErrSendfile)
	case n > 0:
		s.writes = min(s.writes+1, warnWrites)
		if s.writes == warnWrites {
			s.sh.loop.Logger().Warn("write on a closing transport is dropped", "transport", s.String())
		}
	}
	return true, nil
}

// sendNow sends as much of p as the kernel takes at once, straight from the
// caller's memory.
func (s *stream) sendNow(p []byte) int {
	n, errno := nowait.Send(s.fd, p)
	if errno != 0 && errno != syscall.EAGAIN {
		s.sendFailed(errno)
	}
	return n
}

// wrote sees to it that what was added to the outbox is sent: at once if it is
// more than the high water mark, so that the protocol is paused only for what
// the kernel does not take, else at the end of the turn. A protocol that is paused
// already is not resumed from inside its own call.
func (s *stream) wrote() {
	o := s.out
	_, high := s.WriteBufferLimits()
	if o.size > high && s.flags&flagFull == 0 && !o.op.InFlight() && !s.sendAllNow(o) {
		return
	}
	if !o.queued && !o.op.InFlight() {
		o.queued = true
		s.sh.loop.AtTurnEnd(o)
	}
	if o.size > high && s.flags&flagFull == 0 {
		s.callPause()
	}
}

// sendAllNow sends what the kernel takes at once. It reports whether something
// is left.
func (s *stream) sendAllNow(o *outbox) bool {
	for o.size > 0 {
		p := o.chunks[0].rest()
		n := s.sendNow(p)
		if s.out != o {
			return false
		}
		o.advance(n)
		if n < len(p) {
			return true
		}
	}
	s.sent(o)
	return false
}

// CanWriteEOF reports true: sockets can be half closed.
func (s *stream) CanWriteEOF() bool { return true }

// WriteEOF shuts the sending side when everything is sent.
func (s *stream) WriteEOF() error {
	if s.flags&(flagClosing|flagWriteEOF) != 0 {
		return nil
	}
	if s.flags&flagSendfile != 0 {
		return fmt.Errorf("write EOF to %v: %w", s.peerAddr(), ErrSendfile)
	}
	s.flags |= flagWriteEOF
	if s.out == nil {
		s.shutdown()
	}
	return nil
}

// shutdown ends the sending side. If it fails, the connection is broken, and
// reading will say so.
func (s *stream) shutdown() {
	s.flags |= flagShut
	_ = unix.Shutdown(int(s.fd), unix.SHUT_WR)
}

// WriteBufferSize returns the number of bytes that the kernel has not taken.
func (s *stream) WriteBufferSize() int {
	if s.out == nil {
		return 0
	}
	return s.out.size
}
