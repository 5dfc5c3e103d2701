package transport

import (
	"crypto/tls"
	"strings"
)

// The names that ExtraInfo of TLS knows besides those of the raw transport. All
// but the first are known when the handshake is over.
const (
	// ExtraSSLContext is the *tls.Config that the connection was made with.
	ExtraSSLContext = "sslcontext"
	// ExtraPeerCert is the *x509.Certificate of the peer, or nil.
	ExtraPeerCert = "peercert"
	// ExtraCipher is the TLSCipher in use.
	ExtraCipher = "cipher"
	// ExtraCompression is always nil: TLS connections are not compressed.
	ExtraCompression = "compression"
	// ExtraSSLObject is the tls.ConnectionState.
	ExtraSSLObject = "ssl_object"
)

// TLSCipher describes the cipher of a TLS connection.
type TLSCipher struct {
	// Name is that of the cipher suite, as in "TLS_AES_128_GCM_SHA256".
	Name string
	// Version is that of TLS, as in "TLS 1.3".
	Version string
	// Bits is the length of the secret key.
	Bits int
}

// ExtraInfo returns what is known under a name.
func (s *tlsStream) ExtraInfo(name string) (value any, ok bool) {
	switch name {
	case ExtraSSLContext:
		return s.params.config, true
	case ExtraPeerCert, ExtraCipher, ExtraCompression, ExtraSSLObject:
		if !s.ready {
			return nil, false
		}
		return s.tlsInfo(name), true
	}
	if s.raw == nil {
		return nil, false
	}
	return s.raw.ExtraInfo(name)
}

func (s *tlsStream) tlsInfo(name string) any {
	state := s.conn.ConnectionState()
	switch name {
	case ExtraPeerCert:
		if len(state.PeerCertificates) > 0 {
			return state.PeerCertificates[0]
		}
	case ExtraCipher:
		suite := tls.CipherSuiteName(state.CipherSuite)
		return TLSCipher{Name: suite, Version: tls.VersionName(state.Version), Bits: keyBits(suite)}
	case ExtraSSLObject:
		return state
	}
	return nil
}

// keyBits returns the length of the key of a cipher suite.
func keyBits(suite string) int {
	switch {
	case strings.Contains(suite, "_3DES_"):
		return 168
	case strings.Contains(suite, "AES_256"), strings.Contains(suite, "CHACHA20"):
		return 256
	}
	return 128
}

// ConnectionState describes the connection.
func (s *tlsStream) ConnectionState() tls.ConnectionState {
	if !s.ready {
		return tls.ConnectionState{}
	}
	return s.conn.ConnectionState()
}
