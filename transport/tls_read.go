package transport

import (
	"errors"
	"io"

	"github.com/seed-80cfe818/ringloop/loop"
)

// tlsBlock is how much plaintext is encrypted or decrypted at a time, in bytes:
// few enough to stay in the processor's cache.
const tlsBlock = 64 << 10

// tlsAnswers is how much crypto/tls may write by itself, in bytes, while the peer
// does not read. It answers every request for new keys, which on a connection that
// blocks would make it wait: here a peer could have all memory filled with answers.
const tlsAnswers = 64 << 10

var errAnswers = errors.New("tls: too many requests for new keys whose answers are not read")

// tlsScratch is memory for plaintext and ciphertext on its way, shared by the
// connections of a loop. There are several pieces because connections can be
// inside each other, and because callbacks can write.
type tlsScratch struct{ free [][]byte }

type tlsScratchKey struct{}

func tlsScratchOf(l *loop.Loop) *tlsScratch {
	return l.Attached(tlsScratchKey{}, func() loop.Attachment { return &tlsScratch{} }).(*tlsScratch)
}

// LoopClosed lets go of the memory.
func (m *tlsScratch) LoopClosed() { m.free = nil }

// take returns memory of at least tlsBlock bytes.
func (m *tlsScratch) take() []byte {
	if n := len(m.free); n > 0 {
		b := m.free[n-1]
		m.free = m.free[:n-1]
		return b
	}
	return make([]byte, tlsBlock+tlsBlock/8)
}

// give takes memory back.
func (m *tlsScratch) give(b []byte) { m.free = append(m.free, b[:cap(b)]) }

// take makes ciphertext the next to be read. It is borrowed until keep is
// called.
func (s *tlsStream) take(data []byte) {
	if len(s.held) > 0 {
		s.held = append(s.held, data...)
		return
	}
	s.in = data
}

// keep copies what is left of the ciphertext that was taken.
func (s *tlsStream) keep() {
	if len(s.in) > 0 {
		s.held = append(s.held, s.in...)
	}
	s.in = nil
}

// ciphertext moves ciphertext into p.
func (s *tlsStream) ciphertext(p []byte) int {
	if len(s.in) > 0 {
		n := copy(p, s.in)
		s.in = s.in[n:]
		return n
	}
	n := copy(p, s.held)
	if s.held = s.held[n:]; len(s.held) == 0 {
		s.held = nil
	}
	return n
}

// pump decrypts and delivers until no record is complete or reading is paused,
// also what had arrived before the raw transport was broken. When the transport is
// closing, it drops the data and looks for the peer's close_notify only.
func (s *tlsStream) pump() {
	exited := true
	defer func() {
		if exited { // by a runtime.Goexit in a callback
			s.keep()
			s.soon(s.goOn)
		}
	}()
	s.deliverAll()
	exited = false
}

func (s *tlsStream) deliverAll() {
	for s.state == tlsOpen && !(s.closing && s.raw.IsClosing()) {
		if s.early || s.paused && !s.closing {
			return
		}
		err := s.deliver()
		if err == nil {
			continue
		}
		// While paused, the end waits too. The next read finds it again, but not
		// every error.
		if !s.paused || s.closing || err != errWouldBlock && err != io.EOF {
			s.stopped(err)
		}
		s.tellFlow()
		return
	}
	s.in, s.held = nil, nil
}

// deliver gives the application as much as there is, but no more than fits into
// one buffer. The error is what comes after it, if that is not data.
func (s *tlsStream) deliver() error {
	if s.buffers != nil && !s.closing {
		protos := s.protos
		buf := s.callGetBuffer()
		// GetBuffer may have done anything.
		if len(buf) == 0 || s.closing || s.paused || s.protos != protos {
			return nil
		}
		n, err := s.decrypt(buf)
		if n > 0 {
			s.callBufferUpdated(n)
		}
		return err
	}
	buf := s.scratch.take()
	n, err := s.decrypt(buf[:tlsBlock])
	if n > 0 && !s.closing {
		s.callData(buf[:n])
	}
	s.scratch.give(buf)
	return err
}

// decrypt fills buf.
func (s *tlsStream) decrypt(buf []byte) (n int, err error) {
	unsent := s.raw.WriteBufferSize()
	s.answers = min(s.answers, unsent)
	for n < len(buf) && err == nil {
		var m int
		m, err = s.conn.Read(buf[n:])
		n += m
	}
	s.answers += max(s.raw.WriteBufferSize()-unsent, 0)
	if s.answers > tlsAnswers {
		err = errAnswers
	}
	return n, err
}

// stopped is called when there is no more data: for now, or for ever.
func (s *tlsStream) stopped(err error) {
	switch {
	case err == errWouldBlock && !s.rawEOF:
	case err != errWouldBlock && err != io.EOF:
		s.broke(err)
	case s.closing:
		s.raw.Close()
	case !s.eof:
		s.receivedEOF()
	}
}

// receivedEOF tells the application that the peer has sent everything, and
// closes. A connection inside this one closes it by itself.
func (s *tlsStream) receivedEOF() {
	s.eof = true
	debugLog(s.loop, "the peer has sent everything", s)
	_, inside := s.proto.(*tlsBelow)
	keepOpen := false
	defer func() { // also after a runtime.Goexit in the callback
		if !inside || !keepOpen {
			s.Close()
		}
	}()
	keepOpen = s.callEOF()
	if keepOpen && !inside {
		s.loop.Logger().Warn("returning true from EOFReceived() has no effect when using TLS", "transport", s.String())
	}
}

// PauseReading stops the delivery.
func (s *tlsStream) PauseReading() error {
	if !s.paused {
		debugLog(s.loop, "reading is paused", s)
	}
	s.paused, s.readLater = true, false
	return nil
}

// ResumeReading delivers what has arrived meanwhile, on the next turn.
func (s *tlsStream) ResumeReading() error {
	if err := s.loop.CheckThread("ResumeReading"); err != nil {
		return err
	}
	if !s.paused || s.IsClosing() {
		return nil
	}
	if s.readHeld {
		s.readLater = true
		return nil
	}
	s.paused = false
	debugLog(s.loop, "reading is resumed", s)
	if s.state == tlsOpen {
		s.soon(s.goOn)
	}
	return nil
}

// goOn delivers what was held.
func (s *tlsStream) goOn() {
	s.tellFlow()
	s.pump()
	s.limitReading()
}

// IsReading reports whether data may be delivered.
func (s *tlsStream) IsReading() bool { return !s.paused && !s.eof && !s.IsClosing() }

// limitReading pauses and resumes the raw transport as ciphertext piles up.
func (s *tlsStream) limitReading() {
	n := s.ReadBufferSize()
	switch {
	case s.raw == nil:
	case !s.rawPaused && n > s.reading.high:
		s.rawPaused = true
		_ = s.raw.PauseReading() // it never fails on streams
	case s.rawPaused && n <= s.reading.low:
		s.rawPaused = false
		_ = s.raw.ResumeReading() // it fails only when the loop is closed
	}
}

// SetReadBufferLimits sets the marks and acts on them at once.
func (s *tlsStream) SetReadBufferLimits(high, low int) error {
	m, err := makeMarks(high, low, tlsReadHigh)
	if err != nil {
		return err
	}
	s.reading = m
	s.limitReading()
	return nil
}

// ReadBufferLimits returns the marks, low first.
func (s *tlsStream) ReadBufferLimits() (low, high int) { return s.reading.low, s.reading.high }

// ReadBufferSize returns how much ciphertext waits.
func (s *tlsStream) ReadBufferSize() int { return len(s.in) + len(s.held) }
