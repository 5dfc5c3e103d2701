//go:build integration

package integration

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
	"github.com/seed-80cfe818/ringloop/transport"
)

// client is a protocol that sends data, as fast as the peer takes it, and
// collects what comes back.
type client struct {
	transport.BaseStreamProtocol
	t    transport.Transport
	left []byte // to send
	full bool
	got  bytes.Buffer
	want int // bytes after which TLS closes
	over *loop.Future[struct{}]
}

func (c *client) ConnectionMade(t transport.Transport) {
	c.t = t
	c.send()
}

func (c *client) send() {
	for !c.full && len(c.left) > 0 {
		n := min(len(c.left), 50_000)
		if err := c.t.Write(c.left[:n]); err != nil {
			_ = c.over.SetException(err)
			c.t.Abort()
			return
		}
		c.left = c.left[n:]
	}
	if len(c.left) == 0 && c.t.CanWriteEOF() {
		if err := c.t.WriteEOF(); err != nil {
			_ = c.over.SetException(err)
		}
	}
}

func (c *client) PauseWriting() { c.full = true }

func (c *client) ResumeWriting() {
	c.full = false
	c.send()
}

func (c *client) DataReceived(data []byte) {
	c.got.Write(data)
	if c.got.Len() >= c.want && !c.t.CanWriteEOF() {
		c.t.Close()
	}
}

func (c *client) ConnectionLost(err error) {
	if err != nil {
		_ = c.over.SetException(err)
		return
	}
	_ = c.over.SetResult(struct{}{})
}

// inTask runs fn as a task of a loop on the backend.
func (p *peers) inTask(t *testing.T, fn func(co *loop.Coro) error) {
	t.Helper()
	err := loop.Run(func(co *loop.Coro) error {
		return loop.Timeout(co, patience, func() error { return fn(co) })
	}, loop.WithBackend(p.backend))
	if err != nil {
		t.Error(err)
	}
}

// exchange sends data to a peer and returns what comes back until the peer
// closes the connection or, with TLS, until want bytes have come. kind is tcp,
// tls or unix.
func (p *peers) exchange(t *testing.T, kind, addr string, data []byte, want int) []byte {
	t.Helper()
	var c *client
	p.inTask(t, func(co *loop.Coro) error {
		c = &client{left: data, want: want, over: loop.CreateFuture[struct{}](co.Loop())}
		if err := p.connect(co, c, kind, addr); err != nil {
			return err
		}
		_, err := c.over.Await(co)
		return err
	})
	if c == nil {
		return nil
	}
	return c.got.Bytes()
}

func (p *peers) connect(co *loop.Coro, c *client, kind, addr string) error {
	factory := func() transport.Protocol { return c }
	if kind == "unix" {
		_, _, err := transport.CreateUnixConnection(co, factory, addr, nil)
		return err
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	opts := &transport.ConnectOptions{}
	if kind == "tls" {
		pem, err := os.ReadFile(p.cert)
		if err != nil {
			return err
		}
		opts.TLS = &tls.Config{RootCAs: x509.NewCertPool()}
		opts.TLS.RootCAs.AppendCertsFromPEM(pem)
		opts.ServerHostname = "localhost"
	}
	_, _, err = transport.CreateConnection(co, factory, host, port, opts)
	return err
}

// pinger is a protocol of datagrams that waits for one reply at a time.
type pinger struct {
	transport.BaseDatagramProtocol
	reply *loop.Future[[]byte]
}

func (p *pinger) DatagramReceived(data []byte, _ transport.Addr) {
	// A reply to a packet that was sent twice may come twice.
	_ = p.reply.SetResult(bytes.Clone(data))
}

// exchangeDatagrams sends packets of several sizes to an echo server.
func (p *peers) exchangeDatagrams(t *testing.T, addr string) {
	t.Helper()
	p.inTask(t, func(co *loop.Coro) error {
		remote, err := netip.ParseAddrPort(addr)
		if err != nil {
			return err
		}
		ping := &pinger{}
		tr, _, err := transport.CreateDatagramEndpoint(co, func() transport.DatagramProtocol { return ping },
			&transport.DatagramOptions{RemoteAddr: sockapi.IPAddr(remote)})
		if err != nil {
			return err
		}
		defer tr.Close()
		// asyncio sends empty packets only since Python 3.13.
		for _, size := range []int{1, 100, 1472, 1473, 9000, 65507} {
			if err := ping.echo(co, tr, noise(size)); err != nil {
				return fmt.Errorf("a packet of %d bytes: %w", size, err)
			}
		}
		return nil
	})
}

// echo sends a packet until a reply comes: packets may be lost.
func (p *pinger) echo(co *loop.Coro, tr transport.DatagramTransport, packet []byte) error {
	for range 10 {
		p.reply = loop.CreateFuture[[]byte](co.Loop())
		if err := tr.SendTo(packet, transport.Addr{}); err != nil {
			return err
		}
		var got []byte
		err := loop.Timeout(co, 5*time.Second, func() (err error) {
			got, err = p.reply.Await(co)
			return err
		})
		switch {
		case errors.Is(err, loop.ErrTimeout):
			continue
		case err != nil:
			return err
		case !bytes.Equal(got, packet):
			return fmt.Errorf("%d other bytes came back", len(got))
		}
		return nil
	}
	return errors.New("no reply")
}
