package transport

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"time"
)

// clientTLS checks the options of a client's TLS; nil means none. The name of
// the server is the option's, or the configuration's, or the host.
func clientTLS(config *tls.Config, host, serverHostname string, anyHostname bool, handshake, shutdown time.Duration) (*tlsParams, error) {
	p, err := makeTLSParams(config, handshake, shutdown)
	if err != nil {
		return nil, err
	}
	if p == nil {
		if serverHostname != "" || anyHostname {
			return nil, invalid("ServerHostname is only meaningful with TLS")
		}
		return nil, nil
	}
	if config.Renegotiation != tls.RenegotiateNever {
		return nil, invalid("renegotiation is not supported")
	}
	if serverHostname == "" && !anyHostname {
		if serverHostname = config.ServerName; serverHostname == "" {
			serverHostname = host
		}
		if serverHostname == "" && !config.InsecureSkipVerify {
			return nil, invalid("ServerHostname must be given when using TLS without a host")
		}
	}
	p.serverHostname, p.anyHostname = serverHostname, anyHostname
	return p, nil
}

// clientConfig returns the configuration for one connection of a client.
func (p *tlsParams) clientConfig() *tls.Config {
	config := p.config
	if p.serverHostname != "" && p.serverHostname != config.ServerName {
		config = config.Clone()
		config.ServerName = p.serverHostname
	}
	if p.anyHostname && !config.InsecureSkipVerify {
		config = config.Clone()
		config.InsecureSkipVerify, config.VerifyPeerCertificate = true, nil
		config.VerifyConnection = verifyChain(p.config)
	}
	return config
}

// verifyChain returns the check of a configuration without that of the name.
func verifyChain(config *tls.Config) func(tls.ConnectionState) error {
	return func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) == 0 {
			return errors.New("tls: the server has sent no certificate")
		}
		opts := x509.VerifyOptions{Roots: config.RootCAs, Intermediates: x509.NewCertPool()}
		if config.Time != nil {
			opts.CurrentTime = config.Time()
		}
		for _, cert := range state.PeerCertificates[1:] {
			opts.Intermediates.AddCert(cert)
		}
		chains, err := state.PeerCertificates[0].Verify(opts)
		if err != nil {
			return &tls.CertificateVerificationError{UnverifiedCertificates: state.PeerCertificates, Err: err}
		}
		if config.VerifyPeerCertificate != nil && !state.DidResume {
			if err := config.VerifyPeerCertificate(rawCertificates(state.PeerCertificates), chains); err != nil {
				return err
			}
		}
		if config.VerifyConnection == nil {
			return nil
		}
		state.VerifiedChains = chains
		return config.VerifyConnection(state)
	}
}

func rawCertificates(certs []*x509.Certificate) [][]byte {
	raw := make([][]byte, len(certs))
	for i, c := range certs {
		raw[i] = c.Raw
	}
	return raw
}
