// Command ringloop-callbacks is an echo server by a callback protocol, with
// a loop per processor.
package main

import (
	"log"
	"os"
	"runtime"

	"github.com/seed-80cfe818/ringloop/bench/servers/internal/stats"
	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/transport"
)

type echo struct {
	transport.BaseStreamProtocol
	t transport.Transport
}

func (e *echo) ConnectionMade(t transport.Transport) { e.t = t }

// DataReceived sends back what came. After an error the connection ends anyway.
func (e *echo) DataReceived(data []byte) { _ = e.t.Write(data) }

func main() {
	stats.OnSignal()
	for range runtime.GOMAXPROCS(0) - 1 {
		go serve()
	}
	serve()
}

// serve runs one loop; the kernel spreads the connections over the listening
// sockets of all.
func serve() {
	log.Fatal(loop.Run(func(co *loop.Coro) error {
		opts := &transport.ServerOptions{Backlog: 4096, ReusePort: true}
		s, err := transport.CreateServer(co, func() transport.Protocol { return &echo{} }, []string{"127.0.0.1"}, os.Args[1], opts)
		if err != nil {
			return err
		}
		return s.ServeForever(co)
	}, loop.WithBackend(os.Args[2])))
}
