// Command net is an echo server on package net: a goroutine per connection.
package main

import (
	"log"
	"net"
	"os"

	"github.com/seed-80cfe818/ringloop/bench/servers/internal/stats"
)

func main() {
	stats.OnSignal()
	l, err := net.Listen("tcp4", "127.0.0.1:"+os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	for {
		c, err := l.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go echo(c)
	}
}

func echo(c net.Conn) {
	defer c.Close()
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		if _, err := c.Write(buf[:n]); err != nil {
			return
		}
	}
}
