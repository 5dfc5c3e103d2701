package transport

import (
	"fmt"
	"syscall"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
)

// parked is what was received while nothing may be delivered, in order.
type parked struct {
	chunks [][]byte
	err    error // after the chunks, the error that ended the reading
	eof    bool  // after the chunks, the end of the stream
}

// discard is the receiver of a protocol that takes no data.
type discard struct{}

func (discard) DataReceived([]byte) {}

// buffered lets a BufferReceiver take data that is already in memory.
type buffered struct {
	BufferReceiver
	s *stream
}

// DataReceived copies data into the protocol's buffers, for as long as the
// protocol stays the stream's.
func (b *buffered) DataReceived(data []byte) {
	defer func() {
		if len(data) > 0 { // after a runtime.Goexit in a callback
			b.s.unread(data)
			callSoon(b.s.sh.loop, b.s.ctx, b.s.unpark)
		}
	}()
	for len(data) > 0 {
		buf := b.buffer(len(data))
		if buf == nil {
			data = nil
			return
		}
		if b.interrupted(&data) {
			return
		}
		n := copy(buf, data)
		data = data[n:]
		b.BufferUpdated(n)
		if b.interrupted(&data) {
			return
		}
	}
}

// interrupted reports whether the last callback has ended the delivery to b. If
// so, what is left of it goes where it belongs.
func (b *buffered) interrupted(left *[]byte) bool {
	data := *left
	*left = nil
	switch {
	case b.s.flags&flagClosing != 0:
	case b.s.flags&flagPaused != 0:
		b.s.unread(data)
	case b.s.data != DataReceiver(b):
		if len(data) > 0 {
			b.s.data.DataReceived(data)
		}
	default:
		*left = data
		return false
	}
	return true
}

// buffer asks the protocol for memory. If it has none, the connection fails,
// and the result is nil.
func (b *buffered) buffer(sizehint int) []byte {
	buf := b.GetBuffer(sizehint)
	if len(buf) == 0 {
		err := fmt.Errorf("%w: GetBuffer() returned an empty buffer", loop.ErrInvalidState)
		b.s.report(err, "Fatal error: protocol.GetBuffer() call failed")
		b.s.lose(err)
		return nil
	}
	return buf
}

// setReceiver finds out how p takes data.
func (s *stream) setReceiver(p Protocol) {
	was := s.flags & flagBuffered
	if was != 0 && s.op.InFlight() {
		s.flags |= flagForeign
	}
	s.flags &^= flagBuffered
	switch p := p.(type) {
	case BufferReceiver:
		s.data = &buffered{p, s}
		s.flags |= flagBuffered
	case DataReceiver:
		s.data = p
	default:
		s.data = discard{}
	}
	if s.op.InFlight() && (was|s.flags&flagBuffered) != 0 {
		// It receives in the other way, or into the other protocol's memory.
		s.sh.loop.CancelOp(&s.op)
	}
}

// read lets the kernel receive, unless it does already or must not.
func (s *stream) read() {
	if !s.mayRead() {
		return
	}
	s.op.Code, s.op.FD = backend.OpRecv, s.fd
	s.op.Flags, s.op.Buf = backend.Multishot, nil
	for s.flags&flagBuffered != 0 {
		asked := s.data
		buf := s.askBuffer()
		// GetBuffer may have done anything.
		if buf == nil || !s.mayRead() {
			return
		}
		if s.data == asked {
			s.op.Flags, s.op.Buf = 0, buf
			break
		}
	}
	s.flags &^= flagForeign
	if err := s.sh.loop.Submit(&s.op); err != nil {
		s.fail(err)
	}
}

// mayRead reports whether the kernel is to receive and does not yet.
func (s *stream) mayRead() bool {
	return s.flags&(flagClosing|flagPaused|flagParked|flagEOF) == 0 && !s.op.InFlight()
}

// askBuffer asks a BufferReceiver for memory; nil means that the connection
// failed.
func (s *stream) askBuffer() (buf []byte) {
	asked := false
	before := s.sh.loop.EnterContext(s.ctx)
	defer s.returned(before, "Fatal error: protocol.GetBuffer() call failed", true)
	defer func() {
		if !asked { // GetBuffer has ended its goroutine
			callSoon(s.sh.loop, s.ctx, s.unpark)
		}
	}()
	buf = s.data.(*buffered).buffer(-1)
	asked = true
	return buf
}

// stopReading makes the kernel receive no more.
func (s *stream) stopReading() {
	if s.op.InFlight() && !s.op.CancelRequested() {
		s.sh.loop.CancelOp(&s.op)
	}
}

// Complete takes what was received.
func (s *stream) Complete(op *backend.Op, r backend.Result) {
	switch {
	case s.sh.loop.IsClosed():
		return
	case s.flags&flagLate != 0:
		s.ended()
		return
	case s.flags&flagClosing != 0:
		return
	case r.N > 0 && !r.More:
		s.receivedLast(op, r)
		return
	case r.N > 0:
		s.received(op, r)
	case r.Errno == 0:
		s.receivedEOF()
		return
	case r.Errno == syscall.ECANCELED:
		if !op.CancelRequested() {
			return // the loop or the descriptor is being closed
		}
	default:
		s.receiveFailed(r.Errno)
		return
	}
	if !r.More {
		s.read()
	}
}

// receivedLast is received for what ends the receive, so that another has to
// begin.
func (s *stream) receivedLast(op *backend.Op, r backend.Result) {
	defer s.read() // also after a runtime.Goexit in the callback
	s.received(op, r)
}

// received delivers data, or parks it.
func (s *stream) received(op *backend.Op, r backend.Result) {
	switch {
	case op.Buf == nil:
		s.deliver(r.Data)
	case s.flags&flagForeign != 0 || s.flags&(flagPaused|flagParked) != 0:
		s.deliver(op.Buf[:r.N])
	default:
		s.callBufferUpdated(r.N)
	}
}

// deliver gives data to the protocol, or keeps a copy of it.
func (s *stream) deliver(data []byte) {
	switch {
	case s.flags&flagClosing != 0 || len(data) == 0:
	case s.flags&(flagPaused|flagParked) != 0:
		c := s.rarely()
		c.parked.chunks = append(c.parked.chunks, append([]byte(nil), data...))
		s.flags |= flagParked
		s.stopReading()
	default:
		s.callData(data)
	}
}

// unread parks data that comes before everything else that is parked.
func (s *stream) unread(data []byte) {
	if len(data) == 0 {
		return
	}
	p := &s.rarely().parked
	p.chunks = append([][]byte{append([]byte(nil), data...)}, p.chunks...)
	s.flags |= flagParked
	s.stopReading()
}

func (s *stream) callData(data []byte) {
	before := s.sh.loop.EnterContext(s.ctx)
	defer s.returned(before, "Fatal error: protocol.DataReceived() call failed", true)
	s.data.DataReceived(data)
}

func (s *stream) callBufferUpdated(n int) {
	before := s.sh.loop.EnterContext(s.ctx)
	defer s.returned(before, "Fatal error: protocol.BufferUpdated() call failed", true)
	s.data.(*buffered).BufferUpdated(n)
}

// receivedEOF tells the protocol that nothing more will come, and closes the
// stream unless the protocol wants to go on writing.
func (s *stream) receivedEOF() {
	if s.flags&(flagPaused|flagParked) != 0 {
		s.rarely().parked.eof = true
		s.flags |= flagParked
		return
	}
	s.flags |= flagEOF
	debugLog(s.sh.loop, "the peer has sent everything", s)
	keepOpen := false
	defer func() { // also after a runtime.Goexit in the callback
		if !keepOpen {
			s.Close()
		}
	}()
	keepOpen = s.callEOF()
}

func (s *stream) callEOF() (keepOpen bool) {
	p, ok := s.proto.(EOFReceiver)
	if !ok {
		return false
	}
	before := s.sh.loop.EnterContext(s.ctx)
	defer s.returned(before, "Fatal error: protocol.EOFReceived() call failed", true)
	return p.EOFReceived()
}

// receiveFailed ends the connection with an error of the kernel.
func (s *stream) receiveFailed(errno syscall.Errno) {
	err := &sockapi.OpError{Op: "recv from", Addr: s.peerAddr(), FD: int(s.fd), Err: errno}
	if s.flags&(flagPaused|flagParked) != 0 {
		s.park(err)
		return
	}
	s.fail(err)
}

// park parks an error that ends the reading.
func (s *stream) park(err error) {
	s.rarely().parked.err = err
	s.flags |= flagParked
}

// PauseReading stops the delivery. The kernel goes on until something arrives:
// most pauses are over before.
func (s *stream) PauseReading() error {
	if s.flags&flagSendfile != 0 {
		s.cold.readLater = false
		return nil
	}
	if s.flags&flagPaused == 0 {
		debugLog(s.sh.loop, "reading is paused", s)
	}
	s.flags |= flagPaused
	s.op.Enough = true
	return nil
}

// ResumeReading delivers what is parked and reads on: on the next turn, if that
// calls the protocol.
func (s *stream) ResumeReading() error {
	if err := s.sh.loop.CheckThread("ResumeReading"); err != nil {
		return err
	}
	if s.flags&flagPaused == 0 || s.flags&flagClosing != 0 {
		return nil
	}
	if s.flags&flagSendfile != 0 {
		s.cold.readLater = true
		return nil
	}
	debugLog(s.sh.loop, "reading is resumed", s)
	s.flags &^= flagPaused
	s.op.Enough = false
	if s.flags&(flagParked|flagBuffered) == 0 {
		s.read()
		return nil
	}
	_, err := s.sh.loop.CallSoonContext(s.ctx, s.unpark)
	return err
}

// unpark delivers what is parked, in order, until the stream is paused again.
func (s *stream) unpark() {
	defer func() {
		if s.flags&(flagPaused|flagParked|flagClosing) == flagParked { // after a runtime.Goexit in a callback
			callSoon(s.sh.loop, s.ctx, s.unpark)
		}
	}()
	for s.flags&(flagPaused|flagParked|flagClosing) == flagParked {
		p := &s.cold.parked
		if len(p.chunks) > 0 {
			data := p.chunks[0]
			p.chunks[0] = nil
			p.chunks = p.chunks[1:]
			s.callData(data)
			continue
		}
		eof, err := p.eof, p.err
		*p = parked{}
		s.flags &^= flagParked
		switch {
		case err != nil:
			s.fail(err)
		case eof:
			s.receivedEOF()
		}
	}
	s.read()
}

// IsReading reports whether data may be delivered.
func (s *stream) IsReading() bool { return s.flags&(flagPaused|flagClosing|flagEOF) == 0 }

// report tells the exception handler about an error of the protocol.
func (s *stream) report(err error, message string) {
	s.sh.loop.CallExceptionHandler(&loop.ExceptionContext{Message: message, Exception: err, Transport: s, Protocol: s.proto})
}
