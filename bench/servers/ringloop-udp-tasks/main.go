// Command ringloop-udp-tasks is an echo server for packets by a task.
package main

import (
	"log"
	"os"

	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
)

func main() {
	log.Fatal(loop.Run(func(co *loop.Coro) error {
		s, err := sockapi.ListenPacket("udp", "127.0.0.1:"+os.Args[1], nil)
		if err != nil {
			return err
		}
		p := make([]byte, 64<<10)
		for {
			n, from, err := sockapi.RecvFromInto(co, s, p)
			if err != nil {
				return err
			}
			if _, err := sockapi.SendTo(co, s, p[:n], from); err != nil {
				return err
			}
		}
	}, loop.WithBackend(os.Args[2])))
}
