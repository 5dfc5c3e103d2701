// Command gnet-udp is an echo server for packets on gnet v2.
package main

import (
	"log"
	"os"

	"github.com/panjf2000/gnet/v2"
)

type echo struct{ gnet.BuiltinEventEngine }

func (echo) OnTraffic(c gnet.Conn) gnet.Action {
	p, _ := c.Next(-1)
	if _, err := c.Write(p); err != nil {
		log.Print(err)
	}
	return gnet.None
}

func main() {
	log.Fatal(gnet.Run(&echo{}, "udp://127.0.0.1:"+os.Args[1], gnet.WithNumEventLoop(1)))
}
