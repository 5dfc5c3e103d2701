// Command ringloop-tasks is an echo server with a task per connection and a
// loop per processor.
package main

import (
	"log"
	"os"
	"runtime"

	"github.com/seed-80cfe818/ringloop/bench/servers/internal/stats"
	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
)

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
		ln, err := sockapi.Listen("tcp", "127.0.0.1:"+os.Args[1], &sockapi.ListenOptions{Backlog: 4096, ReusePort: true})
		if err != nil {
			return err
		}
		for {
			s, _, err := sockapi.Accept(co, ln)
			if err != nil {
				return err
			}
			co.Loop().Go(func(co *loop.Coro) error {
				echo(co, s)
				return s.Close()
			})
		}
	}, loop.WithBackend(os.Args[2])))
}

// echo sends back what comes until the connection ends.
func echo(co *loop.Coro, s *sockapi.Socket) {
	for {
		data, err := sockapi.RecvBorrowed(co, s)
		if err != nil {
			return
		}
		if err := sockapi.SendAll(co, s, data); err != nil {
			return
		}
	}
}
