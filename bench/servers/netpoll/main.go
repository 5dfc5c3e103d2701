// Command netpoll is an echo server on CloudWeGo's netpoll.
package main

import (
	"context"
	"log"
	"os"

	"github.com/cloudwego/netpoll"
	"github.com/seed-80cfe818/ringloop/bench/servers/internal/stats"
)

func main() {
	stats.OnSignal()
	l, err := netpoll.CreateListener("tcp", "127.0.0.1:"+os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	loop, err := netpoll.NewEventLoop(echo)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(loop.Serve(l))
}

func echo(_ context.Context, c netpoll.Connection) error {
	r, w := c.Reader(), c.Writer()
	buf, err := r.Next(r.Len())
	if err != nil {
		return err
	}
	if _, err := w.WriteBinary(buf); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return r.Release()
}
