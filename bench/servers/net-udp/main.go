// Command net-udp is an echo server for packets on package net.
package main

import (
	"log"
	"net"
	"net/netip"
	"os"
)

func main() {
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:"+os.Args[1])))
	if err != nil {
		log.Fatal(err)
	}
	p := make([]byte, 64<<10)
	for {
		n, from, err := c.ReadFromUDPAddrPort(p)
		if err != nil {
			log.Fatal(err)
		}
		if _, err := c.WriteToUDPAddrPort(p[:n], from); err != nil {
			log.Fatal(err)
		}
	}
}
