package transport

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"

	"github.com/seed-80cfe818/ringloop/loop"
)

// ErrHandshakeTimeout: the TLS handshake took longer than the handshake timeout.
// It is syscall.ECONNABORTED to errors.Is.
var ErrHandshakeTimeout = fmt.Errorf("SSL handshake is taking too long: %w", syscall.ECONNABORTED)

// handshakeTimeout is an ErrHandshakeTimeout that says how long.
type handshakeTimeout struct{ after time.Duration }

func (e *handshakeTimeout) Error() string {
	return "SSL handshake is taking longer than " + strconv.FormatFloat(e.after.Seconds(), 'g', -1, 64) +
		" seconds: aborting the connection"
}

func (e *handshakeTimeout) Unwrap() error { return ErrHandshakeTimeout }

// tlsShake is what a TLS connection needs only until the handshake is over.
type tlsShake struct {
	co        *loop.Coro // the task that shakes hands, while it is suspended
	stop      error      // ends the handshake
	cancelled error      // tells the task that it was cancelled, if stop has another reason
	connected waitList   // for the raw transport
	settled   waitList   // for the end
	running   bool
	awaited   bool // by the task that makes the connection
	alert     bool // it was ended by crypto/tls, which has told the peer
}

func newTLSShake() *tlsShake {
	return &tlsShake{
		connected: waitList{what: "a connection for TLS"},
		settled:   waitList{what: "the end of a TLS handshake"},
	}
}

// handshake shakes hands in the task of the caller.
func (b *tlsBelow) handshake(co *loop.Coro) error {
	s, h := b.s, b.s.shake
	h.awaited = true
	for s.state == tlsNew {
		if err := h.connected.wait(co); err != nil {
			s.state, s.closing = tlsFailed, true
			return err // and the caller aborts the raw transport
		}
	}
	if s.state == tlsHandshake {
		s.shakeHands(co)
	}
	for s.state == tlsSettled {
		if err := h.settled.wait(co); err != nil {
			if h.stop == nil {
				h.stop = err
				s.Abort()
			}
			return err // also if the handshake has failed: the task must learn that it was cancelled
		}
	}
	if h.cancelled != nil {
		return h.cancelled
	}
	return h.stop
}

// shakeOn lets the handshake go on with what has arrived, or with the end. The
// task of a server's connection begins with its first bytes.
func (s *tlsStream) shakeOn() {
	h := s.shake
	switch {
	case h.co != nil:
		h.co.Resume()
	case !h.awaited && !h.running:
		h.running = true
		s.loop.GoInner("TLS handshake", s.ctx, func(co *loop.Coro) error {
			s.shakeHands(co)
			return nil
		})
	}
}

// shakeHands runs the handshake, and queues finish. The callbacks of the
// configuration may panic, which is then the task's panic.
func (s *tlsStream) shakeHands(co *loop.Coro) {
	h := s.shake
	h.running = true
	err := ErrClosing
	defer func() {
		if s.state == tlsHandshake {
			s.settle(err)
		}
	}()
	s.wire.co = co
	herr := s.conn.HandshakeContext(context.Background())
	s.wire.co = nil
	if err = h.stop; err == nil && herr != nil {
		err, h.alert = fmt.Errorf("TLS handshake with %v: %w", s.peerAddr(), herr), true
	}
}

// interrupt ends the handshake with an error.
func (s *tlsStream) interrupt(err error) {
	h := s.shake
	if h.stop == nil {
		h.stop = err
	}
	switch {
	case s.state != tlsHandshake:
	case h.co != nil:
		h.co.Resume()
	case !h.awaited && !h.running:
		s.settle(h.stop)
	}
}

// settle notes how the handshake ended.
func (s *tlsStream) settle(err error) {
	s.state = tlsSettled
	if s.shake.stop == nil {
		s.shake.stop = err
	}
	s.soon(s.finish)
}

// finish tells the application how the handshake ended: it lets the task go on
// that waits, calls ConnectionMade, and delivers what is there already.
func (s *tlsStream) finish() {
	if s.state != tlsSettled {
		return
	}
	h := s.shake
	if h.stop == nil && s.closing { // since it was settled
		h.stop = ErrClosing
	}
	h.settled.wake()
	if h.stop != nil {
		s.failed(h)
		return
	}
	s.shake = nil
	s.timer.Cancel()
	s.state, s.ready = tlsOpen, true
	if s.made {
		// The protocol has to be told first which transport it has now.
		s.early = true
		s.soon(s.started)
		return
	}
	s.made = true
	defer s.goOn() // also after a runtime.Goexit in the callback
	s.callMade()
}

// started is called when the task of StartTLS has gone on.
func (s *tlsStream) started() {
	s.early = false
	s.goOn()
}

// failed closes the raw transport after a handshake without success. If an
// alert is on its way, it is sent before, and so is, if nothing is wrong with the
// connection, what StartTLS found queued: until the handshake would have timed out.
func (s *tlsStream) failed(h *tlsShake) {
	s.state, s.closing = tlsFailed, true
	cancelled := errors.Is(h.stop, loop.ErrCancelled)
	if !cancelled {
		s.err = h.stop
	}
	if !h.awaited && s.loop.Debug() {
		s.loop.CallExceptionHandler(&loop.ExceptionContext{
			Message: "Error on transport creation for incoming connection", Exception: h.stop, Transport: s, Protocol: s.proto,
		})
	}
	switch {
	case s.rawLost:
		s.over(nil)
	case h.alert || cancelled:
		s.raw.Close()
	default:
		s.raw.Abort()
	}
}

// returned is deferred around every call of the protocol: it leaves the context
// and deals with a panic.
func (s *tlsStream) returned(before loop.Entered, message string, fatal bool) {
	s.loop.LeaveContext(before)
	s.loop.LogSlow(before, s.proto, s)
	r := recover()
	if r == nil {
		return
	}
	stack := debug.Stack()
	if fatal {
		s.broken(&loop.PanicError{Value: r, Stack: stack})
	}
	s.loop.HandlePanic(r, stack, &loop.ExceptionContext{Message: message, Transport: s, Protocol: s.proto})
}
