package main

import (
	"fmt"

	"github.com/seed-80cfe818/ringloop/transport"
)

// header is the line that tells a server who its client is (PROXY protocol,
// version 1).
func header(client *side) []byte {
	from, ok := address(client, transport.ExtraPeerName)
	to, ok2 := address(client, transport.ExtraSockName)
	if !ok || !ok2 {
		return []byte("PROXY UNKNOWN\r\n")
	}
	source, target := from.AddrPort().Addr().Unmap(), to.AddrPort().Addr().Unmap()
	family := "TCP6"
	if source.Is4() {
		family = "TCP4"
	}
	return fmt.Appendf(nil, "PROXY %s %s %s %d %d\r\n", family, source.WithZone(""), target.WithZone(""), from.Port(), to.Port())
}

// address returns an address of a connection, if it is known.
func address(s *side, name string) (transport.Addr, bool) {
	value, _ := s.t.ExtraInfo(name)
	addr, ok := value.(transport.Addr)
	return addr, ok
}

// addrString is an address for the log.
func addrString(s *side, name string) string {
	if addr, ok := address(s, name); ok {
		return addr.String()
	}
	return "unknown"
}
