// Command gnet is an echo server on gnet v2.
package main

import (
	"log"
	"os"
	"runtime"

	"github.com/panjf2000/gnet/v2"
	"github.com/seed-80cfe818/ringloop/bench/servers/internal/stats"
)

type echo struct{ gnet.BuiltinEventEngine }

func (echo) OnTraffic(c gnet.Conn) gnet.Action {
	buf, _ := c.Next(-1)
	if _, err := c.Write(buf); err != nil {
		return gnet.Close
	}
	return gnet.None
}

func main() {
	stats.OnSignal()
	log.Fatal(gnet.Run(&echo{}, "tcp://127.0.0.1:"+os.Args[1],
		gnet.WithNumEventLoop(runtime.GOMAXPROCS(0)), gnet.WithReuseAddr(true), gnet.WithTCPNoDelay(gnet.TCPNoDelay)))
}
