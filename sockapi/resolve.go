package sockapi

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/loop"
)

// resolve finds the addresses of a host. It returns at least one.
func resolve(co *loop.Coro, addr Addr, family, typ, proto int) ([]Addr, error) {
	return getaddrinfo(co, addr.name, strconv.Itoa(int(addr.Port())), family, typ, proto)
}

func getaddrinfo(co *loop.Coro, host, service string, family, typ, proto int) ([]Addr, error) {
	hints := &loop.AddrInfoHints{Family: family, Type: typ, Proto: proto}
	infos, err := co.Loop().Getaddrinfo(host, service, hints).Await(co)
	if err != nil {
		return nil, err
	}
	if len(infos) == 0 {
		return nil, fmt.Errorf("host %q has no address of family %d", host, family)
	}
	addrs := make([]Addr, len(infos))
	for i := range infos {
		addrs[i] = addrOf(&infos[i].Addr)
	}
	return addrs, nil
}

// lookup returns the addresses that the text of an address stands for; those of
// an IP address without asking anybody.
func lookup(co *loop.Coro, network, address string, family, typ int) ([]Addr, error) {
	if family == unix.AF_UNIX {
		return []Addr{unixAddr(address)}, nil
	}
	if ap, err := netip.ParseAddrPort(address); err == nil {
		a := IPAddr(ap)
		if family == unix.AF_UNSPEC || family == a.Family() {
			return []Addr{a}, nil
		}
	}
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil, badAddress("dial", network, address, err)
	}
	addrs, err := getaddrinfo(co, host, service, family, typ, 0)
	if err != nil && !isCancelled(err) {
		return nil, badAddress("dial", network, address, err)
	}
	return addrs, err
}

func badAddress(op, network, address string, err error) error {
	return fmt.Errorf("%s %s %q: %w", op, network, address, err)
}

// unixAddr returns the address of a path, with @ for the abstract namespace.
func unixAddr(path string) Addr {
	if path != "" && path[0] == '@' {
		path = "\x00" + path[1:]
	}
	return UnixAddr(path)
}
