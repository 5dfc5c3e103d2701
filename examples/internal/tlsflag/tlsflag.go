// Package tlsflag gives a program the flags -cert, -key and -tls, which make
// its server speak TLS.
package tlsflag

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"flag"
	"fmt"
	"math/big"
	"net"
	"time"
)

// lifetime is how long a generated certificate is valid.
const lifetime = 30 * 24 * time.Hour

// Flags are the values of the flags. The zero value is ready for use.
type Flags struct {
	cert, key string
	generate  bool
}

// Register defines the flags in fs.
func (f *Flags) Register(fs *flag.FlagSet) {
	fs.StringVar(&f.cert, "cert", "", "speak TLS with the certificate chain in a PEM `file`; needs -key")
	fs.StringVar(&f.key, "key", "", "PEM `file` with the key of -cert")
	fs.BoolVar(&f.generate, "tls", false, "speak TLS; without -cert, with a generated certificate that no client trusts by itself")
}

// Config returns the configuration that the flags ask for, nil without TLS. The
// error names the flag or file.
func (f *Flags) Config() (*tls.Config, error) {
	switch {
	case (f.cert == "") != (f.key == ""):
		return nil, errors.New("-cert and -key go together")
	case f.cert != "":
		pair, err := tls.LoadX509KeyPair(f.cert, f.key)
		if err != nil {
			return nil, fmt.Errorf("-cert %s -key %s: %w", f.cert, f.key, err)
		}
		return &tls.Config{Certificates: []tls.Certificate{pair}}, nil
	case f.generate:
		pair, err := Generate()
		if err != nil {
			return nil, fmt.Errorf("-tls: %w", err)
		}
		return &tls.Config{Certificates: []tls.Certificate{pair}}, nil
	}
	return nil, nil
}

// Generate makes a self-signed certificate for localhost and its addresses.
func Generate() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: "localhost"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(lifetime),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true, // so that a client can be told to trust it
		DNSNames:              []string{"localhost"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}
