package transport

import (
	"net"
	"syscall"
	"time"

	"github.com/seed-80cfe818/ringloop/loop"
)

// tlsWire is the connection that crypto/tls reads and writes ciphertext on.
type tlsWire struct {
	s  *tlsStream
	co *loop.Coro // of the task that shakes hands, nil afterwards
}

// wouldBlock is what a read returns that finds nothing. crypto/tls keeps what it
// has read of a record, and forgets the error because it is temporary.
type wouldBlock struct{}

func (wouldBlock) Error() string   { return "no ciphertext has arrived" }
func (wouldBlock) Timeout() bool   { return true }
func (wouldBlock) Temporary() bool { return true }

var errWouldBlock net.Error = wouldBlock{}

// Read takes ciphertext that has arrived. In the handshake it waits for it.
func (w *tlsWire) Read(p []byte) (int, error) {
	s := w.s
	for {
		if n := s.ciphertext(p); n > 0 {
			return n, nil
		}
		if w.co == nil {
			return 0, errWouldBlock
		}
		if err := w.wait(); err != nil {
			return 0, err
		}
	}
}

// wait suspends the task until something has arrived or the handshake is to
// end.
func (w *tlsWire) wait() error {
	s, h := w.s, w.s.shake
	if s.rawEOF && h.stop == nil {
		h.stop = s.opError(syscall.ECONNRESET)
	}
	if h.stop == nil {
		h.co = w.co
		err := w.co.Suspend(w)
		h.co = nil
		switch {
		case err == nil:
		case h.stop == nil:
			h.stop = err
		default: // something else ended the handshake before the task has gone on
			h.cancelled = err
		}
	}
	return h.stop
}

// CancelWait wakes the task; Suspend tells it why.
func (w *tlsWire) CancelWait(co *loop.Coro) bool {
	co.Wake()
	return false
}

// String says what the task waits for.
func (w *tlsWire) String() string { return "the peer's part of a TLS handshake" }

// Write takes a record. If there are more to come, it only adds it to what flush
// will write.
func (w *tlsWire) Write(p []byte) (int, error) {
	s := w.s
	if !s.gather {
		s.writeRaw(p)
		return len(p), nil
	}
	if s.out == nil {
		s.out = s.scratch.take()[:0]
	}
	s.out = append(s.out, p...)
	return len(p), nil
}

// Close does nothing: crypto/tls does not own the connection.
func (w *tlsWire) Close() error { return nil }

// LocalAddr returns the local address, for callbacks of the configuration.
func (w *tlsWire) LocalAddr() net.Addr { return w.addr(ExtraSockName) }

// RemoteAddr returns the peer's address.
func (w *tlsWire) RemoteAddr() net.Addr { return w.addr(ExtraPeerName) }

func (w *tlsWire) addr(name string) net.Addr {
	if w.s.raw == nil {
		return &net.TCPAddr{}
	}
	v, _ := w.s.raw.ExtraInfo(name)
	a, _ := v.(Addr)
	if a.AddrPort().IsValid() {
		return net.TCPAddrFromAddrPort(a.AddrPort())
	}
	return &net.UnixAddr{Name: a.Path(), Net: "unix"}
}

// SetDeadline does nothing; the loop's timers limit the time.
func (w *tlsWire) SetDeadline(time.Time) error { return nil }

// SetReadDeadline does nothing.
func (w *tlsWire) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline does nothing.
func (w *tlsWire) SetWriteDeadline(time.Time) error { return nil }
