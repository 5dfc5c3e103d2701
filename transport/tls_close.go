package transport

import (
	"fmt"

	"github.com/seed-80cfe818/ringloop/loop"
)

// ErrShutdownTimeout: the peer did not answer the end of a TLS connection within
// the shutdown timeout. It is loop.ErrTimeout to errors.Is.
var ErrShutdownTimeout = fmt.Errorf("SSL shutdown %w", loop.ErrTimeout)

// Close sends close_notify and waits for the peer's.
func (s *tlsStream) Close() {
	if s.closing || s.loop.Refuses("Transport.Close") {
		return
	}
	if s.state != tlsOpen {
		s.Abort()
		return
	}
	s.closing, s.allSent = true, !s.raw.IsClosing() && s.raw.WriteBufferSize() == 0
	if err := s.conn.CloseWrite(); err != nil {
		s.raw.Abort() // the stream was broken before
		return
	}
	s.lastCall()
	switch {
	case s.eof:
		s.raw.Close()
	case s.paused || len(s.held) > 0:
		s.soon(s.goOn)
	}
}

// lastCall limits the time that the end may take. On a closed loop there is none.
func (s *tlsStream) lastCall() {
	s.timer, _ = s.loop.CallLaterContext(s.ctx, s.params.shutdownTimeout, s.expired)
}

// Abort loses the connection without sending what is buffered.
func (s *tlsStream) Abort() {
	if s.loop.Refuses("Transport.Abort") {
		return
	}
	s.closing = true
	if s.raw != nil {
		s.raw.Abort()
	}
}

// IsClosing reports whether the connection is lost or about to be.
func (s *tlsStream) IsClosing() bool { return s.closing || s.raw != nil && s.raw.IsClosing() }

// broke ends the connection because of an error of TLS. The alert that crypto/tls
// has made of it is sent before. After our close_notify, errors do not count.
func (s *tlsStream) broke(err error) {
	if s.closing {
		s.raw.Close()
		return
	}
	if s.loop.Debug() {
		s.loop.Logger().Debug("connection failed", "transport", s.String(), "error", err)
	}
	s.err, s.closing = fmt.Errorf("TLS connection with %v: %w", s.peerAddr(), err), true
	s.raw.Close()
	s.lastCall()
}

// broken ends the connection at once because of an error of the protocol.
func (s *tlsStream) broken(err error) {
	if s.err == nil && !s.closing {
		s.err = err
	}
	s.closing = true
	s.raw.Abort()
}
