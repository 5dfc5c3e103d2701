package transport_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"

	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/transport"
)

// upper answers in capital letters.
type upper struct {
	transport.BaseStreamProtocol
	t transport.Transport
}

func (u *upper) ConnectionMade(t transport.Transport) { u.t = t }
func (u *upper) DataReceived(data []byte)             { _ = u.t.Write(bytes.ToUpper(data)) }

// client prints what it got, and tells when the connection is lost.
type client struct {
	transport.BaseStreamProtocol
	got  bytes.Buffer
	lost *loop.Future[struct{}]
}

func (p *client) DataReceived(data []byte) { p.got.Write(data) }

func (p *client) ConnectionLost(err error) {
	fmt.Printf("%s (lost: %v)\n", p.got.String(), err)
	_ = p.lost.SetResult(struct{}{})
}

func ExampleCreateServer() {
	err := loop.Run(func(co *loop.Coro) error {
		srv, err := transport.CreateServer(co, func() transport.Protocol { return &upper{} }, []string{"127.0.0.1"}, "0", nil)
		if err != nil {
			return err
		}
		addr, err := srv.Sockets()[0].LocalAddr()
		if err != nil {
			return err
		}
		p := &client{lost: loop.CreateFuture[struct{}](co.Loop())}
		t, _, err := transport.CreateConnection(co, func() transport.Protocol { return p }, "127.0.0.1", fmt.Sprint(addr.Port()), nil)
		if err != nil {
			return err
		}
		_ = t.Write([]byte("hello, "))
		_ = t.Write([]byte("transports"))
		_ = t.WriteEOF()
		if _, err := p.lost.Await(co); err != nil {
			return err
		}
		srv.Close()
		return srv.WaitClosed(co)
	})
	fmt.Println("error:", err)
	// Output:
	// HELLO, TRANSPORTS (lost: <nil>)
	// error: <nil>
}

func ExampleSendfile() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path, name := filepath.Join(dir, "socket"), filepath.Join(dir, "file")
	if err := os.WriteFile(name, []byte("the contents of the file"), 0o600); err != nil {
		fmt.Println(err)
		return
	}
	err = loop.Run(func(co *loop.Coro) error {
		srv, err := transport.CreateUnixServer(co, func() transport.Protocol { return &upper{} }, path, nil)
		if err != nil {
			return err
		}
		p := &client{lost: loop.CreateFuture[struct{}](co.Loop())}
		t, _, err := transport.CreateUnixConnection(co, func() transport.Protocol { return p }, path, nil)
		if err != nil {
			return err
		}
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		n, err := transport.Sendfile(co, t, f, 4, 8, nil)
		if err != nil {
			return err
		}
		fmt.Println("sent", n, "bytes")
		_ = t.WriteEOF()
		if _, err := p.lost.Await(co); err != nil {
			return err
		}
		srv.Close()
		return srv.WaitClosed(co)
	})
	fmt.Println("error:", err)
	// Output:
	// sent 8 bytes
	// CONTENTS (lost: <nil>)
	// error: <nil>
}
