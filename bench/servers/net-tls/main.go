// Command net-tls is an echo server on package net and crypto/tls: a goroutine
// per connection.
package main

import (
	"crypto/tls"
	"log"
	"net"
	"os"

	"github.com/seed-80cfe818/ringloop/bench/servers/internal/certificate"
	"github.com/seed-80cfe818/ringloop/bench/servers/internal/stats"
)

func main() {
	stats.OnSignal()
	cfg, err := certificate.Config()
	if err != nil {
		log.Fatal(err)
	}
	l, err := tls.Listen("tcp4", "127.0.0.1:"+os.Args[1], cfg)
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
