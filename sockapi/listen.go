package sockapi

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/loop"
)

// DefaultBacklog is how many connections may wait to be accepted, as in
// asyncio.
const DefaultBacklog = 100

// ListenOptions are the optional arguments of Listen and ListenPacket.
type ListenOptions struct {
	// Backlog is how many connections may wait to be accepted, DefaultBacklog
	// if 0. The kernel limits it to net.core.somaxconn.
	Backlog int
	// ReusePort sets SO_REUSEPORT: several sockets share the address, and the
	// kernel spreads what arrives among them.
	ReusePort bool
	// NoReuseAddr leaves SO_REUSEADDR off. Otherwise Listen sets it, so that a
	// server can take the port of its predecessor at once.
	NoReuseAddr bool
	// V6Only keeps IPv4 clients off an IPv6 socket, as tcp6 and udp6 do.
	V6Only bool
}

// Listen makes a socket that listens on an address. The network is tcp, tcp4,
// tcp6, unix or unixpacket. The address is host:port, where an empty host means
// every address of the machine and port 0 a free one, or a path, where a
// leading @ stands for the abstract namespace, and the empty one for a name
// there that the kernel chooses. A host name is looked up while
// the caller waits. The file of a Unix socket must not exist, and is not
// removed when the socket is closed. TCP_NODELAY is set, and connections inherit
// it. It may be called from any goroutine.
//
// The error is an OpError that names the address, loop.ErrInvalidArgument for the
// network, or a *net.AddrError or *net.DNSError.
func Listen(network, address string, opts *ListenOptions) (*Socket, error) {
	var o ListenOptions
	if opts != nil {
		o = *opts
	}
	if o.Backlog == 0 {
		o.Backlog = DefaultBacklog
	}
	s, err := bound(network, address, &o, false)
	if err != nil {
		return nil, err
	}
	if err := s.Listen(o.Backlog); err != nil {
		_ = s.Close() // the error of listen tells more
		return nil, err
	}
	return s, nil
}

// ListenPacket makes a datagram socket that is bound to an address. The network
// is udp, udp4, udp6 or unixgram. SO_REUSEADDR stays off, because it would let
// two sockets have one port. Otherwise it is Listen.
func ListenPacket(network, address string, opts *ListenOptions) (*Socket, error) {
	var o ListenOptions
	if opts != nil {
		o = *opts
	}
	o.NoReuseAddr = true
	return bound(network, address, &o, true)
}

// bound makes a socket that is bound to an address.
func bound(network, address string, o *ListenOptions, packet bool) (*Socket, error) {
	family, typ, err := parseNetwork(network)
	if err == nil && packet != (typ == unix.SOCK_DGRAM) {
		err = fmt.Errorf("%w: Listen is for streams and ListenPacket for datagrams, unlike network %q", loop.ErrInvalidArgument, network)
	}
	if err != nil {
		return nil, badAddress("listen", network, address, err)
	}
	o.V6Only = o.V6Only || family == unix.AF_INET6
	addr, err := listenAddr(network, address, family)
	if err != nil {
		return nil, badAddress("listen", network, address, err)
	}
	s, err := boundTo(addr, typ, o)
	if errors.Is(err, unix.EAFNOSUPPORT) && family == unix.AF_UNSPEC && addr.AddrPort().Addr() == netip.IPv6Unspecified() {
		// A machine without IPv6: every address is every IPv4 address.
		addr = IPAddr(netip.AddrPortFrom(netip.IPv4Unspecified(), addr.Port()))
		s, err = boundTo(addr, typ, o)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

func boundTo(addr Addr, typ int, o *ListenOptions) (*Socket, error) {
	s, err := New(addr.Family(), typ, 0)
	if err != nil {
		return nil, err
	}
	if err = s.prepare(o); err == nil {
		err = s.Bind(addr)
	}
	if err != nil {
		_ = s.Close() // err tells more
		return nil, err
	}
	return s, nil
}

// prepare sets the options of a socket to be bound.
func (s *Socket) prepare(o *ListenOptions) error {
	if s.family == unix.AF_UNIX {
		return nil
	}
	if !o.NoReuseAddr {
		if err := s.SetReuseAddr(true); err != nil {
			return err
		}
	}
	if o.ReusePort {
		if err := s.SetOption(unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return err
		}
	}
	if s.typ == unix.SOCK_STREAM {
		if err := s.SetNoDelay(true); err != nil { // inherited by what it accepts
			return err
		}
	}
	if s.family == unix.AF_INET6 {
		return s.SetOption(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, flag(o.V6Only))
	}
	return nil
}

// listenAddr returns the address that a text stands for.
func listenAddr(network, address string, family int) (Addr, error) {
	if family == unix.AF_UNIX {
		return unixAddr(address), nil
	}
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return Addr{}, err
	}
	port, err := net.LookupPort(network, service)
	if err != nil {
		return Addr{}, err
	}
	if host == "" {
		ip := netip.IPv6Unspecified()
		if family == unix.AF_INET {
			ip = netip.IPv4Unspecified()
		}
		return IPAddr(netip.AddrPortFrom(ip, uint16(port))), nil
	}
	// "ip", "ip4" or "ip6"
	ip, err := net.ResolveIPAddr("ip"+network[3:], host)
	if err != nil {
		return Addr{}, err
	}
	a, ok := netip.AddrFromSlice(ip.IP)
	if !ok {
		return Addr{}, fmt.Errorf("host %q has no address", host)
	}
	if a = a.Unmap(); family == unix.AF_INET6 && a.Is4() {
		a = netip.AddrFrom16(a.As16())
	}
	return IPAddr(netip.AddrPortFrom(a.WithZone(ip.Zone), uint16(port))), nil
}
