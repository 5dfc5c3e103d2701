package transport

import (
	"fmt"

	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
)

// tlsBelow is the side of a TLS connection that the raw transport sees.
type tlsBelow struct{ s *tlsStream }

func (b *tlsBelow) transport() Transport { return b.s }

// ConnectionMade begins the handshake.
func (b *tlsBelow) ConnectionMade(raw Transport) {
	b.s.connect(raw)
	b.s.shake.connected.wake()
}

// DataReceived takes ciphertext.
func (b *tlsBelow) DataReceived(data []byte) {
	s := b.s
	switch s.state {
	case tlsHandshake:
		s.take(data)
		s.shakeOn()
		s.keep()
	case tlsOpen:
		s.take(data)
		s.pump()
		s.keep()
		s.limitReading()
	case tlsNew, tlsSettled:
		s.held = append(s.held, data...)
	}
}

// EOFReceived takes the end of the raw stream. The raw transport stays open: it
// is closed when everything is delivered.
func (b *tlsBelow) EOFReceived() bool {
	s := b.s
	s.rawEOF = true
	switch s.state {
	case tlsHandshake:
		s.shakeOn()
	case tlsOpen:
		s.pump()
	}
	return true
}

// ConnectionLost ends the connection.
func (b *tlsBelow) ConnectionLost(err error) {
	s := b.s
	s.rawLost = true
	switch s.state {
	case tlsHandshake, tlsSettled:
		if err == nil {
			err = ErrClosing
		}
		s.interrupt(err)
	default:
		if s.early {
			s.soon(func() { s.over(err) }) // behind started, and what that delivers
			return
		}
		s.over(err)
	}
}

// PauseWriting says that too much ciphertext is buffered.
func (b *tlsBelow) PauseWriting() {
	b.s.rawFull = true
	b.s.tellFlow()
}

// ResumeWriting says that there is room again.
func (b *tlsBelow) ResumeWriting() {
	b.s.rawFull = false
	b.s.tellFlow()
}

// opError returns an error of the handshake that names the peer.
func (s *tlsStream) opError(err error) error {
	return &sockapi.OpError{Op: "TLS handshake with", Addr: s.peerAddr(), FD: -1, Err: err}
}

func (s *tlsStream) peerAddr() Addr {
	if s.raw == nil {
		return Addr{}
	}
	v, _ := s.raw.ExtraInfo(ExtraPeerName)
	a, _ := v.(Addr)
	return a
}

// over calls ConnectionLost of the application, if it has had ConnectionMade,
// and lets go of everything. When the kernel has taken all data before Close, it
// is no error if the peer does not take our close_notify.
func (s *tlsStream) over(err error) {
	if s.state == tlsOver {
		return
	}
	s.timer.Cancel()
	if s.err == nil && !s.allSent {
		s.err = err
	}
	s.closing = true
	if s.made {
		s.callLost(s.err)
	}
	s.state = tlsOver
	s.proto, s.data, s.buffers, s.sendfile = nil, discard{}, nil, false
	s.in, s.held, s.shake = nil, nil, nil
}

// expired is called when the handshake, or the end, takes too long.
func (s *tlsStream) expired() {
	switch s.state {
	case tlsHandshake:
		s.interrupt(s.opError(&handshakeTimeout{s.params.handshakeTimeout}))
	case tlsOpen:
		if s.err == nil {
			s.err = ErrShutdownTimeout
		}
		s.raw.Abort()
	case tlsSettled, tlsFailed:
		if s.state == tlsSettled && s.shake.stop == nil {
			return // it was successful just in time
		}
		if s.err == nil { // the handshake was cancelled
			s.err = s.opError(&handshakeTimeout{s.params.handshakeTimeout})
		}
		s.raw.Abort()
	}
}

// Callbacks of the application. Each leaves the context in which it found the
// loop, and survives a panic.

func (s *tlsStream) callMade() {
	before := s.loop.EnterContext(s.ctx)
	defer s.returned(before, "protocol.ConnectionMade() failed", false)
	s.proto.ConnectionMade(s)
}

func (s *tlsStream) callLost(err error) {
	before := s.loop.EnterContext(s.ctx)
	defer s.returned(before, "protocol.ConnectionLost() failed", false)
	s.proto.ConnectionLost(err)
}

func (s *tlsStream) callData(data []byte) {
	before := s.loop.EnterContext(s.ctx)
	defer s.returned(before, "Fatal error: protocol.DataReceived() call failed", true)
	s.data.DataReceived(data)
}

func (s *tlsStream) callGetBuffer() []byte {
	before := s.loop.EnterContext(s.ctx)
	defer s.returned(before, "Fatal error: protocol.GetBuffer() call failed", true)
	buf := s.buffers.GetBuffer(-1)
	if len(buf) == 0 {
		err := fmt.Errorf("%w: GetBuffer() returned an empty buffer", loop.ErrInvalidState)
		s.loop.CallExceptionHandler(&loop.ExceptionContext{
			Message: "Fatal error: protocol.GetBuffer() call failed", Exception: err, Transport: s, Protocol: s.proto,
		})
		s.broken(err)
	}
	return buf
}

func (s *tlsStream) callBufferUpdated(n int) {
	before := s.loop.EnterContext(s.ctx)
	defer s.returned(before, "Fatal error: protocol.BufferUpdated() call failed", true)
	s.buffers.BufferUpdated(n)
}

func (s *tlsStream) callEOF() (keepOpen bool) {
	p, ok := s.proto.(EOFReceiver)
	if !ok {
		return false
	}
	before := s.loop.EnterContext(s.ctx)
	defer s.returned(before, "Fatal error: protocol.EOFReceived() call failed", true)
	return p.EOFReceived()
}

func (s *tlsStream) callFlow(full bool) {
	p, ok := s.proto.(FlowController)
	if !ok {
		return
	}
	before := s.loop.EnterContext(s.ctx)
	if full {
		defer s.returned(before, "protocol.PauseWriting() failed", false)
		p.PauseWriting()
		return
	}
	defer s.returned(before, "protocol.ResumeWriting() failed", false)
	p.ResumeWriting()
}
