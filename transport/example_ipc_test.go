package transport_test

import (
	"fmt"
	"log"
	"net/netip"
	"os"

	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
	"github.com/seed-80cfe818/ringloop/transport"
)

// runTask runs fn as the only task of a new loop.
func runTask(fn func(co *loop.Coro) error) {
	l, err := loop.NewEventLoop()
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	if _, err := loop.RunUntilComplete(l, l.Go(fn)); err != nil {
		log.Fatal(err)
	}
}

// printer prints the output of a process.
type printer struct {
	transport.BaseSubprocessProtocol
}

func (printer) PipeDataReceived(fd int, data []byte) { fmt.Printf("%d: %s", fd, data) }

func ExampleSubprocessShell() {
	runTask(func(co *loop.Coro) error {
		lost := loop.CreateFuture[struct{}](co.Loop())
		factory := func() transport.SubprocessProtocol { return &waiting{lost: lost} }
		t, _, err := transport.SubprocessShell(co, factory, "echo hello; exit 3", nil)
		if err != nil {
			return err
		}
		if _, err := lost.Await(co); err != nil { // all output has come
			return err
		}
		code, err := t.Wait(co)
		fmt.Println("exit status", code)
		return err
	})
	// Output:
	// 1: hello
	// exit status 3
}

// waiting is a printer that tells when everything is over.
type waiting struct {
	printer
	lost *loop.Future[struct{}]
}

func (w *waiting) ConnectionLost(error) { _ = w.lost.SetResult(struct{}{}) }

// echo sends every packet back.
type echo struct {
	transport.BaseDatagramProtocol
	t transport.DatagramTransport
}

func (e *echo) ConnectionMade(t transport.DatagramTransport) { e.t = t }

func (e *echo) DatagramReceived(data []byte, from transport.Addr) { _ = e.t.SendTo(data, from) }

// answer keeps the first packet.
type answer struct {
	transport.BaseDatagramProtocol
	text *loop.Future[string]
}

func (a *answer) DatagramReceived(data []byte, _ transport.Addr) { _ = a.text.SetResult(string(data)) }

func ExampleCreateDatagramEndpoint() {
	runTask(func(co *loop.Coro) error {
		server, _, err := transport.CreateDatagramEndpoint(co, func() transport.DatagramProtocol { return &echo{} },
			&transport.DatagramOptions{LocalAddr: sockapi.IPAddr(netip.MustParseAddrPort("127.0.0.1:0"))})
		if err != nil {
			return err
		}
		defer server.Close()
		addr, _ := server.ExtraInfo(transport.ExtraSockName)
		text := loop.CreateFuture[string](co.Loop())
		client, _, err := transport.CreateDatagramEndpoint(co, func() transport.DatagramProtocol { return &answer{text: text} },
			&transport.DatagramOptions{RemoteAddr: addr.(transport.Addr)})
		if err != nil {
			return err
		}
		defer client.Close()
		if err := client.SendTo([]byte("hello"), transport.Addr{}); err != nil {
			return err
		}
		s, err := text.Await(co)
		fmt.Println(s)
		return err
	})
	// Output: hello
}

// collector prints what comes through a pipe, and tells when it has ended.
type collector struct {
	transport.BaseStreamProtocol
	end *loop.Future[struct{}]
}

func (c *collector) DataReceived(data []byte) { fmt.Printf("%s", data) }
func (c *collector) ConnectionLost(error)     { _ = c.end.SetResult(struct{}{}) }

func ExampleConnectReadPipe() {
	runTask(func(co *loop.Coro) error {
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		end := loop.CreateFuture[struct{}](co.Loop())
		if _, _, err := transport.ConnectReadPipe(co, func() transport.Protocol { return &collector{end: end} }, r); err != nil {
			return err
		}
		out, _, err := transport.ConnectWritePipe(co, func() transport.Protocol { return &transport.BaseProtocol{} }, w)
		if err != nil {
			return err
		}
		if err := out.Write([]byte("through the pipe\n")); err != nil {
			return err
		}
		out.Close() // after what was written
		_, err = end.Await(co)
		return err
	})
	// Output: through the pipe
}
