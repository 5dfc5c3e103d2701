package transport

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
)

// birth makes the transport of a connected descriptor for a task.
type birth struct {
	what     string // the call, for errors
	fd       int
	sock     *sockapi.Socket // the owner of the descriptor, or nil
	received sockapi.Received
	tls      *tlsParams // nil without TLS
	tcp      bool
	port     bool // its local address was asked for
}

// make makes the protocol and its transport, and returns when ConnectionMade
// was called or, with TLS, the handshake is over. If it fails, the descriptor is
// closed.
func (b *birth) make(co *loop.Coro, factory func() Protocol) (Transport, Protocol, error) {
	sh := sharedOf(co.Loop())
	if co.Loop().IsClosed() {
		b.close(sh)
		return nil, nil, fmt.Errorf("%s: %w", b.what, closedError(co))
	}
	p := b.protocol(sh, factory)
	if p == nil {
		return nil, nil, fmt.Errorf("%s: %w", b.what, invalid("the protocol factory returned nil"))
	}
	raw, layer := p, tlsLayer(nil)
	if b.tls != nil {
		layer = wrapTLS(co.Loop(), p, b.tls)
		raw = layer
	}
	ctx := co.Loop().CurrentContext().Copy()
	s := newStream(sh, int32(b.fd), raw, ctx, nil)
	if b.sock != nil {
		s.rarely().sock = b.sock
	}
	if b.port {
		s.flags |= flagPort
	}
	if b.tcp {
		s.askName(unix.SYS_GETPEERNAME, &s.peer)
		// A socket that is broken already says so when it is read.
		_ = unix.SetsockoptInt(b.fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	s.unread(b.received.Data)
	if err := b.received.Err; err != nil {
		s.park(err)
	}
	if _, err := co.Loop().CallSoonContext(ctx, s.begin); err != nil {
		return nil, nil, err
	}
	if layer != nil {
		if err := layer.handshake(co); err != nil {
			s.Abort()
			return nil, nil, b.failed(s, err)
		}
		debugLog(co.Loop(), "connected", s)
		return layer.transport(), p, nil
	}
	if err := loop.Sleep(co, 0); err != nil {
		s.Abort() // Close would wait until everything was sent
		return nil, nil, err
	}
	debugLog(co.Loop(), "connected", s)
	return s, p, nil
}

// failed is the error of a handshake.
func (b *birth) failed(s *stream, err error) error {
	direction := "to"
	if b.tls.serverSide {
		direction = "from"
	}
	return fmt.Errorf("%s %s %v: %w", b.what, direction, s.peerAddr(), err)
}

// protocol calls the factory. If that panics or returns nil, the descriptor is
// closed.
func (b *birth) protocol(sh *shared, factory func() Protocol) (p Protocol) {
	defer func() {
		if p == nil {
			b.close(sh)
		}
	}()
	return factory()
}

func (b *birth) close(sh *shared) {
	if b.sock != nil {
		b.sock.Surrender()
	}
	if b.port {
		sh.closePort(int32(b.fd))
		return
	}
	sh.close(int32(b.fd))
}

// adopt makes the transport of a socket of the caller of what. A socket that is
// in use, or another transport's, is refused and stays the caller's; otherwise it
// is closed if the call fails.
func adopt(co *loop.Coro, what string, factory func() Protocol, sock *sockapi.Socket, params *tlsParams) (Transport, Protocol, error) {
	if err := sockapi.Settle(co, sock); err != nil {
		if errors.Is(err, loop.ErrCancelled) || errors.Is(err, loop.ErrLoopClosed) {
			// It was not refused, so it is the transport's that will not be. If it
			// is another's by now, Close leaves it alone.
			_ = sock.Close()
		}
		return nil, nil, fmt.Errorf("%s: %w", what, err)
	}
	received, err := sock.Adopt("a stream transport")
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", what, err)
	}
	b := &birth{what: what, fd: sock.Fd(), sock: sock, received: received, tls: params, tcp: sock.Family() != unix.AF_UNIX}
	return b.make(co, factory)
}
