package transport

import (
	"crypto/tls"
	"time"

	"github.com/seed-80cfe818/ringloop/loop"
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
func wrapTLS(l *loop.Loop, app Protocol, p *tlsParams) tlsLayer { panic("no TLS") }
