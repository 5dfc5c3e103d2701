package transport

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
)

// identities are an authority and what it has signed.
type identities struct {
	pool           *x509.CertPool
	server, client tls.Certificate
}

// testIDs are the identities of all tests.
var testIDs = sync.OnceValue(func() *identities {
	ca := signed(&x509.Certificate{
		Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil)
	ids := &identities{pool: x509.NewCertPool()}
	ids.pool.AddCert(ca.Leaf)
	ids.server = signed(&x509.Certificate{
		Subject: pkix.Name{CommonName: "server"}, DNSNames: []string{"localhost", "other.test"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, &ca)
	ids.client = signed(&x509.Certificate{
		Subject: pkix.Name{CommonName: "client"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, &ca)
	return ids
})

// signed makes a certificate; without a parent it signs itself.
func signed(template *x509.Certificate, parent *tls.Certificate) tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	issuer, by := template, any(key)
	if parent != nil {
		issuer, by = parent.Leaf, parent.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, &key.PublicKey, by)
	if err != nil {
		panic(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func serverTLS() *tls.Config { return &tls.Config{Certificates: []tls.Certificate{testIDs().server}} }

// trusting is the configuration of a client.
func trusting() *tls.Config {
	return &tls.Config{RootCAs: testIDs().pool, ServerName: "localhost"}
}

// blockingPair returns a socket and the other end of it as a connection that
// blocks, for goroutines.
func blockingPair(t *testing.T) (*sockapi.Socket, *net.UnixConn) {
	t.Helper()
	ours, theirs, err := sockapi.Pair(unix.SOCK_STREAM)
	check(t, err)
	fd, _, err := theirs.Detach()
	check(t, err)
	f := os.NewFile(uintptr(fd), "peer")
	defer func() { check(t, f.Close()) }()
	conn, err := net.FileConn(f)
	check(t, err)
	check(t, conn.SetDeadline(time.Now().Add(patience)))
	t.Cleanup(func() { _ = conn.Close() })
	return ours, conn.(*net.UnixConn)
}

// elsewhere begins to run fn on another goroutine. The result fails the test if
// it is an error.
func elsewhere(t *testing.T, co *loop.Coro, fn func() error) (wait func()) {
	t.Helper()
	f := loop.RunInExecutor(co.Loop(), nil, func() (struct{}, error) { return struct{}{}, fn() })
	return func() {
		t.Helper()
		if _, err := f.Await(co); err != nil {
			t.Fatal(err)
		}
	}
}

// secured connects protocol p, as a client, with a blocking server.
func secured(t *testing.T, co *loop.Coro, p Protocol, server *tls.Config, opts *ConnectOptions) (TLSTransport, *tls.Conn) {
	t.Helper()
	ours, raw := blockingPair(t)
	peer := tls.Server(raw, server)
	wait := elsewhere(t, co, peer.Handshake)
	var o ConnectOptions
	if opts != nil {
		o = *opts
	}
	o.Sock = ours
	if o.TLS == nil {
		o.TLS = trusting()
	}
	tr, got, err := CreateConnection(co, protocolOf(p), "", "", &o)
	check(t, err)
	if got != p {
		t.Error("CreateConnection returned another protocol")
	}
	wait()
	return tr.(TLSTransport), peer
}

// tlsPeers makes a TLS server on the loop and connects p to it. It returns the
// server's protocol as well.
func tlsPeers(t *testing.T, co *loop.Coro, p Protocol, server *recorder, config *tls.Config) (TLSTransport, *Server) {
	t.Helper()
	srv, port := localServer(t, co, protocolOf(server), &ServerOptions{TLS: config})
	tr, _, err := CreateConnection(co, protocolOf(p), "127.0.0.1", port, &ConnectOptions{TLS: trusting()})
	check(t, err)
	until(t, co, "the server has the connection", func() bool { return server.t != nil })
	return tr.(TLSTransport), srv
}
