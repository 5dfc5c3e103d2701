package transport

import (
	"crypto/tls"
	"fmt"
	"reflect"
	"time"

	"github.com/seed-80cfe818/ringloop/loop"
)

// StartTLSOptions are the optional arguments of StartTLS. The zero value is
// asyncio's default.
type StartTLSOptions struct {
	// ServerSide makes this end the TLS server; what the configuration needs then
	// is said at ServerOptions.
	ServerSide bool
	// ServerHostname is the name that the server's certificate must be for; that
	// of the configuration if it is empty. A client needs one of the two,
	// AnyHostname, or InsecureSkipVerify in the configuration.
	ServerHostname string
	// AnyHostname checks the chain of the certificate, but not its name.
	AnyHostname bool
	// HandshakeTimeout limits the TLS handshake, 60 s if it is 0.
	HandshakeTimeout time.Duration
	// ShutdownTimeout limits the end of the TLS connection, 30 s if it is 0.
	ShutdownTimeout time.Duration
	// Received is what the protocol was given by DataReceived and what belongs to
	// TLS already: the rest of a segment that began with plain text. It comes
	// before everything that t has not delivered yet, and is copied.
	Received []byte
}

// StartTLS puts TLS on a connection that is open, which may speak TLS already,
// and returns the transport to be used from now on when the handshake is over
// (loop.start_tls). opts may be nil.
//
// p gets the events of the new transport; it is usually the protocol of t. It
// gets no second ConnectionMade, and no data before the task has gone on after
// StartTLS, so that it can be told of its new transport. From this call on, t belongs to the new
// transport, and must not be used any more. Nothing that t has received and not
// delivered is lost, whether t is paused or not: it belongs to TLS. A protocol
// that reads a line of plain text, and finds that TLS begins behind it, calls
// PauseReading of t from inside DataReceived, and gives what it has left over to
// StartTLS as StartTLSOptions.Received.
//
// The errors are those of CreateConnection with TLS, ErrUnsupported for pipes,
// ErrClosing, ErrWriteEOF and ErrSendfile. If the arguments are accepted and the
// handshake fails, t is closed, and p gets ConnectionLost. If the task is cancelled,
// what was written to t before is sent first; that may take until the handshake
// would have timed out.
func StartTLS(co *loop.Coro, t Transport, p Protocol, config *tls.Config, opts *StartTLSOptions) (Transport, error) {
	var o StartTLSOptions
	if opts != nil {
		o = *opts
	}
	params, err := o.check(p, config)
	if err == nil {
		err = mayStartTLS(t)
	}
	if err != nil {
		return nil, fmt.Errorf("start TLS: %w", err)
	}
	s := newTLSStream(co.Loop(), p, params)
	s.made = true
	s.begin(t, o.Received)
	if err := s.below.handshake(co); err != nil {
		return nil, fmt.Errorf("start TLS: %w", err)
	}
	return s, nil
}

// check checks the arguments.
func (o *StartTLSOptions) check(p Protocol, config *tls.Config) (*tlsParams, error) {
	switch {
	case config == nil:
		return nil, invalid("the TLS configuration is nil")
	case p == nil:
		return nil, invalid("the protocol is nil")
	case o.ServerSide && (o.ServerHostname != "" || o.AnyHostname):
		return nil, invalid("ServerHostname is only meaningful for clients")
	case o.ServerSide:
		return serverParams(config, o.HandshakeTimeout, o.ShutdownTimeout)
	}
	return clientTLS(config, "", o.ServerHostname, o.AnyHostname, o.HandshakeTimeout, o.ShutdownTimeout)
}

// mayStartTLS reports why a transport cannot be put under TLS.
func mayStartTLS(t Transport) error {
	switch t := t.(type) {
	case *stream:
		switch {
		case t.IsClosing():
			return ErrClosing
		case t.flags&flagSendfile != 0:
			return ErrSendfile
		case t.flags&flagWriteEOF != 0:
			return ErrWriteEOF
		}
	case *tlsStream:
		switch {
		case t.IsClosing():
			return ErrClosing
		case t.sendfile:
			return ErrSendfile
		}
	default:
		return ErrUnsupported
	}
	return nil
}

// begin takes over a transport that is open.
func (s *tlsStream) begin(t Transport, received []byte) {
	_ = t.PauseReading() // it never fails on streams
	if f, ok := t.(fileSender); ok {
		s.rawFull = f.writingPaused()
		s.full = s.rawFull && sameProtocol(s.proto, t.Protocol()) // which was told so
	}
	s.held = append(s.held, received...)
	t.SetProtocol(&s.below)
	s.connect(t)
	_ = t.ResumeReading() // it fails only when the loop is closed
	// A stream that has ended already will not say so again.
	if !t.IsReading() {
		s.rawEOF = true
	}
}

// sameProtocol reports whether a and b are the same, as far as they can be
// compared.
func sameProtocol(a, b Protocol) bool {
	v, w := reflect.ValueOf(a), reflect.ValueOf(b)
	return v.Type() == w.Type() && (!v.Comparable() || v.Equal(w))
}
