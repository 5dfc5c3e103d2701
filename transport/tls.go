package transport

import (
	"crypto/tls"
	"fmt"
	"time"

	"github.com/seed-80cfe818/ringloop/loop"
)

// TLSTransport is what the transports of TLS connections are: those of
// CreateConnection, CreateServer and the others with a TLS configuration, and
// that of StartTLS. WriteEOF returns ErrUnsupported.
//
// Close sends what is buffered and TLS's close_notify, waits for the peer's, and
// loses the connection with an ErrShutdownTimeout if that takes longer than the
// shutdown timeout. Data that arrives meanwhile is dropped. A peer that ends the
// stream without close_notify is taken for one that has sent it; so a protocol
// in which truncation matters must mark the end of its messages itself. If the
// connection breaks while reading is paused, what waits to be decrypted is dropped.
//
// ExtraInfo knows more names than that of the raw transport; see ExtraPeerCert
// and those next to it. The callbacks of the configuration are called on the
// loop's thread, in the task that makes the connection or in one of the
// connection's own, and must not wait. Renegotiation is not supported. A peer that
// asks for new keys thousands of times and reads no answer loses the connection.
type TLSTransport interface {
	Transport
	// ConnectionState describes the connection: version, cipher suite, ALPN,
	// certificates. It is the zero value until the handshake is over.
	ConnectionState() tls.ConnectionState
	// SetReadBufferLimits sets how many bytes may be received and wait to be
	// decrypted while reading is paused: above high nothing is received any more,
	// until low or less is left. Default stands for a mark that is not given; the
	// defaults are 256 and 64 KiB. The error is loop.ErrInvalidArgument unless
	// high >= low >= 0.
	SetReadBufferLimits(high, low int) error
	// ReadBufferLimits returns these marks, low first.
	ReadBufferLimits() (low, high int)
	// ReadBufferSize returns how many bytes were received and wait to be
	// decrypted.
	ReadBufferSize() int
}

// The water marks of TLS, in bytes.
const (
	tlsWriteHigh = 512 << 10
	tlsWriteLow  = 128 << 10
	tlsReadHigh  = 256 << 10
	tlsReadLow   = 64 << 10
)

// tlsParams says how to put TLS on a connection.
type tlsParams struct {
	config           *tls.Config
	serverSide       bool
	serverHostname   string // for clients
	anyHostname      bool   // check the chain of certificates only
	handshakeTimeout time.Duration
	shutdownTimeout  time.Duration
}

// tlsLayer is the protocol of the raw transport that speaks TLS for the
// application's protocol.
type tlsLayer interface {
	Protocol
	// transport returns the transport of the application's protocol.
	transport() Transport
	// handshake suspends the task until the handshake is over. If it returns an
	// error, the raw transport is closed or about to be.
	handshake(co *loop.Coro) error
}

// wrapTLS puts TLS between the application's protocol and the raw transport
// that will be made for the layer.
func wrapTLS(l *loop.Loop, app Protocol, p *tlsParams) tlsLayer {
	return &newTLSStream(l, app, p).below
}

// tlsStream is the transport of a TLS connection. It is between the
// application's protocol and the raw transport, to which it is a protocol, below.
//
// crypto/tls reads and writes the raw transport through wire. While it shakes
// hands, a read suspends the task that does so; only the handshake keeps its
// state on a stack. Afterwards a read that finds nothing returns an error that
// crypto/tls does not keep, so that no connection needs a stack.
type tlsStream struct {
	loop    *loop.Loop
	ctx     *loop.Context // that of the raw transport
	params  *tlsParams
	conn    *tls.Conn
	raw     Transport // nil until it is made
	proto   Protocol  // nil after ConnectionLost
	data    DataReceiver
	buffers BufferReceiver // wins over data, or nil
	below   tlsBelow
	wire    tlsWire
	scratch *tlsScratch
	shake   *tlsShake // nil when the handshake is over
	timer   loop.TimerHandle
	in      []byte // ciphertext to be read, of the raw transport
	held    []byte // ciphertext to be read, kept
	out     []byte // ciphertext to be written, from scratch
	err     error  // of the handshake, later for ConnectionLost
	answers int    // bytes that crypto/tls has written by itself and that may be unsent
	marks   marks  // of the raw transport's write buffer
	reading marks  // of held

	protos    int // calls of SetProtocol
	state     tlsState
	writes    uint8 // writes after the end, up to warnWrites
	made      bool  // ConnectionMade was called, of this or the raw transport
	ready     bool  // the handshake was successful
	closing   bool  // close_notify was sent, or the connection broken
	paused    bool  // by PauseReading
	rawEOF    bool  // the raw transport has ended
	rawLost   bool  // the raw transport is gone
	rawPaused bool  // the raw transport must not read, because of held
	rawFull   bool  // the raw transport has called PauseWriting
	full      bool  // the application was told so
	eof       bool  // EOFReceived was called
	allSent   bool  // the kernel had everything before close_notify was written
	early     bool  // the task of StartTLS has not gone on yet
	gather    bool  // records are kept in out until flush
	busy      bool  // writing, so that the application must not be told of marks
	sendfile  bool  // the protocol is that of Sendfile
	readHeld  bool  // Sendfile is running
	readLater bool  // reading goes on after Sendfile
}

type tlsState uint8

const (
	tlsNew       tlsState = iota // without a raw transport
	tlsHandshake                 // until the handshake has an end
	tlsSettled                   // finish is going to be called
	tlsOpen                      // data flows, until closing
	tlsFailed                    // the raw transport is to be lost without having been open
	tlsOver                      // the raw transport is lost
)

func newTLSStream(l *loop.Loop, app Protocol, p *tlsParams) *tlsStream {
	s := &tlsStream{
		loop: l, params: p, scratch: tlsScratchOf(l), shake: newTLSShake(),
		marks:   marks{low: tlsWriteLow, high: tlsWriteHigh},
		reading: marks{low: tlsReadLow, high: tlsReadHigh},
	}
	s.below.s, s.wire.s = s, s
	if p.serverSide {
		s.conn = tls.Server(&s.wire, p.config)
	} else {
		s.conn = tls.Client(&s.wire, p.clientConfig())
	}
	s.SetProtocol(app)
	return s
}

// connect puts the stream on its raw transport.
func (s *tlsStream) connect(raw Transport) {
	s.raw, s.ctx = raw, contextOf(raw)
	s.state = tlsHandshake
	s.timer, _ = s.loop.CallLaterContext(s.ctx, s.params.handshakeTimeout, s.expired)
	// It cannot fail: the marks are in order.
	_ = raw.SetWriteBufferLimits(s.marks.high, s.marks.low)
}

// contextOf returns the context in which a raw transport calls its protocol.
func contextOf(raw Transport) *loop.Context {
	switch raw := raw.(type) {
	case *stream:
		return raw.ctx
	case *tlsStream:
		return raw.ctx
	}
	return raw.Loop().CurrentContext()
}

// soon queues fn for the next turn.
func (s *tlsStream) soon(fn func()) { callSoon(s.loop, s.ctx, fn) }

// Loop returns the transport's loop.
func (s *tlsStream) Loop() *loop.Loop { return s.loop }

// Protocol returns the current protocol, nil after ConnectionLost.
func (s *tlsStream) Protocol() Protocol { return application(s.proto) }

// SetProtocol gives the next event to p.
func (s *tlsStream) SetProtocol(p Protocol) {
	if p == nil {
		panic("transport: SetProtocol(nil)")
	}
	if s.state == tlsOver || replaceBehind(s.proto, p) {
		return
	}
	s.protos++
	s.proto = p
	_, s.sendfile = p.(*fileProtocol)
	s.buffers, _ = p.(BufferReceiver)
	s.data, _ = p.(DataReceiver)
	if s.data == nil {
		s.data = discard{}
	}
}

// String describes the transport.
func (s *tlsStream) String() string {
	state := "open"
	switch {
	case s.state == tlsOver:
		state = "closed"
	case s.IsClosing():
		state = "closing"
	case s.state < tlsOpen:
		state = "in handshake"
	}
	return fmt.Sprintf("<TLS %s on %v>", state, s.raw)
}
