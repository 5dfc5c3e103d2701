// Command nbio is an echo server on nbio.
package main

import (
	"log"
	"os"
	"runtime"

	"github.com/lesismal/nbio"
	"github.com/lesismal/nbio/logging"
	"github.com/seed-80cfe818/ringloop/bench/servers/internal/stats"
)

func main() {
	stats.OnSignal()
	logging.SetLevel(logging.LevelError)
	e := nbio.NewEngine(nbio.Config{
		Network: "tcp", Addrs: []string{"127.0.0.1:" + os.Args[1]},
		NPoller: runtime.GOMAXPROCS(0), MaxWriteBufferSize: 64 << 20,
	})
	e.OnData(func(c *nbio.Conn, data []byte) { _, _ = c.Write(data) })
	if err := e.Start(); err != nil {
		log.Fatal(err)
	}
	select {}
}
