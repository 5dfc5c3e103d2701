// Command ringloop-udp is an echo server for packets by a callback protocol.
package main

import (
	"log"
	"net/netip"
	"os"

	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
	"github.com/seed-80cfe818/ringloop/transport"
)

type echo struct {
	transport.BaseDatagramProtocol
	t transport.DatagramTransport
}

func (e *echo) ConnectionMade(t transport.DatagramTransport) { e.t = t }

// DatagramReceived sends back what came. It cannot fail: the address is one that the
// kernel has told.
func (e *echo) DatagramReceived(p []byte, from transport.Addr) { _ = e.t.SendTo(p, from) }

func main() {
	local := sockapi.IPAddr(netip.MustParseAddrPort("127.0.0.1:" + os.Args[1]))
	log.Fatal(loop.Run(func(co *loop.Coro) error {
		factory := func() transport.DatagramProtocol { return &echo{} }
		if _, _, err := transport.CreateDatagramEndpoint(co, factory, &transport.DatagramOptions{LocalAddr: local}); err != nil {
			return err
		}
		_, err := loop.CreateFuture[struct{}](co.Loop()).Await(co)
		return err
	}, loop.WithBackend(os.Args[2])))
}
