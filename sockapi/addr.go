package sockapi

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"syscall"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/internal/zone"
	"github.com/seed-80cfe818/ringloop/loop"
)

// Addr is the address of a socket: an IP address with a port, a Unix path, or
// a host name that Connect has to resolve. It is a value that can be compared
// with ==. The zero Addr is no address.
type Addr struct {
	ip    netip.AddrPort // for a host name only the port
	name  string         // a path or a host name
	flow  uint32
	scope uint32
	kind  addrKind
}

type addrKind uint8

const (
	kindNone addrKind = iota
	kindIP
	kindUnix
	kindHost
)

// IPAddr returns the address of an IP endpoint. A zone of an IPv6 address may
// be the name or the number of an interface.
func IPAddr(ap netip.AddrPort) Addr { return Addr{ip: ap, kind: kindIP} }

// IPv6Addr returns an IPv6 endpoint with its flow information and scope, the
// address of four elements of asyncio.
func IPv6Addr(ap netip.AddrPort, flowInfo, scopeID uint32) Addr {
	return Addr{ip: ap, flow: flowInfo, scope: scopeID, kind: kindIP}
}

// UnixAddr returns the address of a Unix socket. A path that starts with a NUL
// byte is in the abstract namespace (unix(7)).
func UnixAddr(path string) Addr { return Addr{name: path, kind: kindUnix} }

// HostAddr returns the address of a host by name. Only Connect and Dial resolve
// it. A name that is an IP address is taken as such.
func HostAddr(host string, port uint16) Addr {
	if ip, err := netip.ParseAddr(host); err == nil {
		return IPAddr(netip.AddrPortFrom(ip, port))
	}
	return Addr{ip: netip.AddrPortFrom(netip.Addr{}, port), name: host, kind: kindHost}
}

// IsValid reports whether a is an address.
func (a Addr) IsValid() bool { return a.kind != kindNone }

// AddrPort returns the IP address and the port. For a host name the address is
// not valid, for other kinds nothing is.
func (a Addr) AddrPort() netip.AddrPort { return a.ip }

// Port returns the port, 0 if the kind of address has none.
func (a Addr) Port() uint16 { return a.ip.Port() }

// FlowInfo returns sin6_flowinfo of an IPv6 address.
func (a Addr) FlowInfo() uint32 { return a.flow }

// ScopeID returns sin6_scope_id of an IPv6 address: the number of the interface
// of a link-local one.
func (a Addr) ScopeID() uint32 { return a.scope }

// Path returns the path of a Unix address: with a leading NUL byte if it is
// abstract, empty if the socket has no name.
func (a Addr) Path() string {
	if a.kind != kindUnix {
		return ""
	}
	return a.name
}

// Host returns the host name of an address that is not resolved.
func (a Addr) Host() string {
	if a.kind != kindHost {
		return ""
	}
	return a.name
}

// Family returns AF_INET, AF_INET6, AF_UNIX, or AF_UNSPEC for a host name and
// for no address.
func (a Addr) Family() int {
	switch {
	case a.kind == kindUnix:
		return syscall.AF_UNIX
	case a.kind != kindIP:
		return syscall.AF_UNSPEC
	case a.ip.Addr().Is4():
		return syscall.AF_INET
	}
	return syscall.AF_INET6
}

// String formats the address as netip does: "192.0.2.1:80", "[fe80::1%2]:80",
// "/run/a.sock", "@abstract".
func (a Addr) String() string {
	switch a.kind {
	case kindIP:
		if a.scope != 0 && a.ip.Addr().Zone() == "" {
			ip := a.ip.Addr().WithZone(strconv.FormatUint(uint64(a.scope), 10))
			return netip.AddrPortFrom(ip, a.ip.Port()).String()
		}
		return a.ip.String()
	case kindUnix:
		if a.name == "" {
			return "(unnamed)"
		}
		if a.name[0] == 0 {
			return "@" + a.name[1:]
		}
		return a.name
	case kindHost:
		return net.JoinHostPort(a.name, strconv.Itoa(int(a.ip.Port())))
	}
	return "(no address)"
}

// raw writes the address for a socket of the given family: an IPv4 address for
// an IPv6 socket becomes an IPv4-mapped one, and the reverse.
func (a Addr) raw(family int, to *backend.Addr) error {
	switch a.kind {
	case kindUnix:
		return to.SetUnix(a.name)
	case kindIP:
		ip, scope := a.ip.Addr(), a.scope
		switch {
		case !ip.IsValid():
			return fmt.Errorf("%w: the IP address is not set", loop.ErrInvalidArgument)
		case family == syscall.AF_INET:
			ip = ip.Unmap()
		case family == syscall.AF_INET6 && ip.Is4():
			ip = netip.AddrFrom16(ip.As16())
		}
		if name := ip.Zone(); name != "" {
			n, err := zone.Index(name)
			if err != nil {
				return err
			}
			ip, scope = ip.WithZone(""), n
		}
		to.SetIP(netip.AddrPortFrom(ip, a.ip.Port()), a.flow, scope)
		return nil
	case kindHost:
		return fmt.Errorf("%w: the host name %q is not resolved", loop.ErrInvalidArgument, a.name)
	}
	return fmt.Errorf("no address is given: %w", syscall.EDESTADDRREQ)
}

// addrOf returns the address that the kernel wrote.
func addrOf(from *backend.Addr) Addr {
	if ap, flow, scope, ok := from.IP(); ok {
		return Addr{ip: ap, flow: flow, scope: scope, kind: kindIP}
	}
	if path, ok := from.Unix(); ok {
		return UnixAddr(path)
	}
	return Addr{}
}

// netAddr returns the address in the type that package net uses for a socket
// of the given type.
func (a Addr) netAddr(typ int) net.Addr {
	ip := a.ip.Addr()
	switch {
	case a.kind == kindUnix:
		return &net.UnixAddr{Name: a.netPath(), Net: unixNetwork(typ)}
	case a.kind != kindIP:
		return nil
	}
	if a.scope != 0 {
		ip = ip.WithZone(strconv.FormatUint(uint64(a.scope), 10))
	}
	ap := netip.AddrPortFrom(ip, a.ip.Port())
	if typ == syscall.SOCK_DGRAM {
		return net.UDPAddrFromAddrPort(ap)
	}
	return net.TCPAddrFromAddrPort(ap)
}

// netPath writes an abstract name with @, as package net does.
func (a Addr) netPath() string {
	if a.name != "" && a.name[0] == 0 {
		return "@" + a.name[1:]
	}
	return a.name
}

func unixNetwork(typ int) string {
	switch typ {
	case syscall.SOCK_DGRAM:
		return "unixgram"
	case syscall.SOCK_SEQPACKET:
		return "unixpacket"
	}
	return "unix"
}
