package transport

import "fmt"

// tlsRecord is how much plaintext a record can have, in bytes.
const tlsRecord = 16 << 10

// Write encrypts p and writes it to the raw transport.
func (s *tlsStream) Write(p []byte) error {
	if drop, err := s.mayWrite(len(p)); drop || err != nil {
		return err
	}
	s.encrypt(p)
	return nil
}

// Writelines gathers the pieces into as few records as Write would make.
func (s *tlsStream) Writelines(bufs [][]byte) error {
	n := 0
	for _, p := range bufs {
		n += len(p)
	}
	if drop, err := s.mayWrite(n); drop || err != nil {
		return err
	}
	block := s.scratch.take()
	at := 0
	for _, p := range bufs {
		for len(p) > 0 {
			m := copy(block[at:tlsBlock], p)
			at, p = at+m, p[m:]
			if at == tlsBlock {
				s.encryptBlock(block[:at])
				at = 0
			}
		}
	}
	s.encryptBlock(block[:at])
	s.scratch.give(block)
	s.tellFlow()
	return nil
}

// mayWrite reports whether n bytes may be written, or are to be dropped.
func (s *tlsStream) mayWrite(n int) (drop bool, err error) {
	if err := s.Loop().CheckThread("write"); err != nil {
		return true, err
	}
	switch {
	case s.sendfile:
		return true, fmt.Errorf("write to %v: %w", s.peerAddr(), ErrSendfile)
	case s.state == tlsOpen && !s.closing && !s.raw.IsClosing():
		return n == 0, nil
	case n > 0:
		s.writes = min(s.writes+1, warnWrites)
		if s.writes == warnWrites {
			s.loop.Logger().Warn("SSL connection is closed", "transport", s.String())
		}
	}
	return true, nil
}

// encrypt writes p, block by block.
func (s *tlsStream) encrypt(p []byte) {
	for len(p) > tlsBlock {
		s.encryptBlock(p[:tlsBlock])
		p = p[tlsBlock:]
	}
	s.encryptBlock(p)
	s.tellFlow()
}

// encryptBlock writes at most tlsBlock bytes. Several records are written to the
// raw transport at once.
func (s *tlsStream) encryptBlock(p []byte) {
	if len(p) == 0 || s.closing || s.raw.IsClosing() {
		return
	}
	s.gather = len(p) > tlsRecord
	_, err := s.conn.Write(p)
	s.gather = false
	s.flush()
	if err != nil {
		s.broke(err)
	}
}

// flush writes the records that were gathered to the raw transport.
func (s *tlsStream) flush() {
	if b := s.out; b != nil {
		s.out = nil
		s.writeRaw(b)
		s.scratch.give(b)
	}
}

// writeRaw writes to the raw transport, often from inside crypto/tls. The
// application is not told meanwhile that the buffer is full, but afterwards, by
// tellFlow: crypto/tls could not take what it writes then, and that must come
// after the other blocks of a Write.
func (s *tlsStream) writeRaw(p []byte) {
	s.busy = true
	// An error means that the application has ended the raw stream, and the peer
	// will notice.
	_ = s.raw.Write(p)
	s.busy = false
}

// tellFlow tells the application when the raw transport is full, or not any
// more.
func (s *tlsStream) tellFlow() {
	for !s.busy && s.state == tlsOpen && s.full != s.rawFull {
		s.full = s.rawFull
		s.callFlow(s.full)
	}
}

// CanWriteEOF reports false: a TLS connection ends in both directions.
func (s *tlsStream) CanWriteEOF() bool { return false }

// WriteEOF is not supported.
func (s *tlsStream) WriteEOF() error {
	return fmt.Errorf("write EOF to %v with TLS: %w", s.peerAddr(), ErrUnsupported)
}

// SetWriteBufferLimits sets the water marks and acts on them at once.
func (s *tlsStream) SetWriteBufferLimits(high, low int) error {
	m, err := makeMarks(high, low, tlsWriteHigh)
	if err != nil {
		return err
	}
	s.marks = m
	if s.raw == nil {
		return nil
	}
	return s.raw.SetWriteBufferLimits(m.high, m.low)
}

// WriteBufferLimits returns the water marks.
func (s *tlsStream) WriteBufferLimits() (low, high int) { return s.marks.low, s.marks.high }

// WriteBufferSize returns how much ciphertext the kernel has not taken.
func (s *tlsStream) WriteBufferSize() int {
	if s.raw == nil {
		return 0
	}
	return s.raw.WriteBufferSize()
}

func (s *tlsStream) writingPaused() bool { return s.full }

// lostError returns the error of TLS, or else that of the raw transport.
func (s *tlsStream) lostError() error {
	if s.err != nil {
		return s.err
	}
	return s.raw.(fileSender).lostError()
}

func (s *tlsStream) beginSendfile() (end func()) {
	s.readHeld, s.readLater = true, !s.paused
	s.paused = true
	return func() {
		s.readHeld = false
		if s.readLater {
			// It does nothing but schedule, unless the loop is closed.
			_ = s.ResumeReading()
		}
	}
}

func (s *tlsStream) writeFile(p []byte) {
	if s.state == tlsOpen && !s.closing {
		s.encrypt(p)
	}
}
