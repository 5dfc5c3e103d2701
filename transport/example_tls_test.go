package transport_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net"
	"strconv"
	"time"

	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/transport"
)

// selfSigned returns a configuration for a server at 127.0.0.1, and one for
// clients that trust it.
func selfSigned() (server, client *tls.Config, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	server = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	return server, &tls.Config{RootCAs: roots}, nil
}

// A client that speaks TLS with an echo server. The same protocols serve with
// and without it.
func ExampleCreateConnection() {
	serverConfig, clientConfig, err := selfSigned()
	if err != nil {
		fmt.Println(err)
		return
	}
	runTask(func(co *loop.Coro) error {
		srv, err := transport.CreateServer(co, newMirror, []string{"127.0.0.1"}, "0",
			&transport.ServerOptions{TLS: serverConfig})
		if err != nil {
			return err
		}
		addr, err := srv.Sockets()[0].LocalAddr()
		if err != nil {
			return err
		}
		p := &asker{}
		t, _, err := transport.CreateConnection(co, func() transport.Protocol { return p },
			"127.0.0.1", strconv.Itoa(int(addr.Port())), &transport.ConnectOptions{TLS: clientConfig})
		if err != nil {
			return err
		}
		cipher, _ := t.ExtraInfo(transport.ExtraCipher)
		fmt.Println(cipher.(transport.TLSCipher).Version)
		answer, err := p.ask(t, "hello").Await(co)
		fmt.Println(answer)
		t.Close()
		if err != nil {
			return err
		}
		srv.Close()
		return srv.WaitClosed(co)
	})
	// Output:
	// TLS 1.3
	// hello
}

// A protocol of plain text goes over to TLS in the middle of a connection.
func ExampleStartTLS() {
	serverConfig, clientConfig, err := selfSigned()
	if err != nil {
		fmt.Println(err)
		return
	}
	runTask(func(co *loop.Coro) error {
		srv, err := transport.CreateServer(co, func() transport.Protocol { return &upgrader{config: serverConfig} },
			[]string{"127.0.0.1"}, "0", nil)
		if err != nil {
			return err
		}
		addr, err := srv.Sockets()[0].LocalAddr()
		if err != nil {
			return err
		}
		p := &asker{}
		t, _, err := transport.CreateConnection(co, func() transport.Protocol { return p },
			"127.0.0.1", strconv.Itoa(int(addr.Port())), nil)
		if err != nil {
			return err
		}
		ready, err := p.ask(t, "STARTTLS").Await(co)
		if err != nil {
			return err
		}
		fmt.Println(ready)
		t, err = transport.StartTLS(co, t, p, clientConfig, &transport.StartTLSOptions{ServerHostname: "127.0.0.1"})
		if err != nil {
			return err
		}
		echo, err := p.ask(t, "a secret").Await(co)
		fmt.Println(echo)
		t.Close()
		srv.Close()
		if err != nil {
			return err
		}
		return srv.WaitClosed(co)
	})
	// Output:
	// ready
	// a secret
}

// upgrader is the server: it starts TLS when it is asked to, and sends back
// what comes through it.
type upgrader struct {
	mirror
	config *tls.Config
	secure bool
}

func (u *upgrader) DataReceived(data []byte) {
	if u.secure {
		u.mirror.DataReceived(data)
		return
	}
	plain := u.t
	_ = plain.Write([]byte("ready"))
	_ = plain.PauseReading() // what comes next is for TLS
	plain.Loop().Go(func(co *loop.Coro) (err error) {
		u.secure = true
		u.t, err = transport.StartTLS(co, plain, u, u.config, &transport.StartTLSOptions{ServerSide: true})
		return err
	})
}
