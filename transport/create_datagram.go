package transport

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/internal/zone"
	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
)

// Broadcast as the host of an address, as in sockapi.HostAddr(Broadcast, port),
// is the address to which everybody in the local network listens,
// 255.255.255.255.
const Broadcast = "<broadcast>"

// DatagramOptions are the optional arguments of CreateDatagramEndpoint. The
// zero value is asyncio's default. SO_REUSEADDR is never set.
type DatagramOptions struct {
	// LocalAddr is the address to bind to, an IP address, a path, or a host name
	// that is resolved; sockapi.HostAddr("", port) is every local address.
	LocalAddr Addr
	// RemoteAddr is the address to connect to. Packets from others are not
	// received then.
	RemoteAddr Addr
	// Family is unix.AF_INET, AF_INET6 or AF_UNIX, or 0 for that of the
	// addresses. It must be given if no address is.
	Family int
	// Proto is a protocol number, or 0 for UDP.
	Proto int
	// Flags are those of Getaddrinfo.
	Flags int
	// ReusePort lets several sockets bind to one address; each gets a part of the
	// packets (SO_REUSEPORT).
	ReusePort bool
	// AllowBroadcast allows to send to broadcast addresses (SO_BROADCAST).
	// RemoteAddr is then where packets go, but is not connected to.
	AllowBroadcast bool
	// Sock is a datagram socket, instead of all other options. It belongs to the
	// transport as soon as the arguments are accepted.
	Sock *sockapi.Socket
}

// CreateDatagramEndpoint makes a UDP or Unix datagram endpoint
// (loop.create_datagram_endpoint). Of the addresses that a name stands for, the first
// of each family counts. The pairs of one family are tried in order; if none can be
// had, the error is the first one. A socket file that is in the way of a local path
// is replaced.
// ConnectionMade has been called when it returns. opts may be nil.
//
// The error is loop.ErrInvalidArgument, that of the resolver, a sockapi.OpError
// that names the address, or a CancelledError; nothing is left open then.
func CreateDatagramEndpoint(co *loop.Coro, factory func() DatagramProtocol, opts *DatagramOptions) (DatagramTransport, DatagramProtocol, error) {
	var o DatagramOptions
	if opts != nil {
		o = *opts
	}
	t, p, err := o.create(co, factory)
	if err != nil {
		return nil, nil, fmt.Errorf("create datagram endpoint: %w", err)
	}
	return t, p, nil
}

func (o *DatagramOptions) create(co *loop.Coro, factory func() DatagramProtocol) (*datagram, DatagramProtocol, error) {
	if err := o.check(factory); err != nil {
		return nil, nil, err
	}
	s, err := o.socket(co)
	if err != nil {
		return nil, nil, err
	}
	if co.Loop().IsClosed() {
		s.close(co)
		return nil, nil, closedError(co)
	}
	p := s.protocol(co, factory)
	if p == nil {
		return nil, nil, invalid("the protocol factory returned nil")
	}
	t := newDatagram(co.Loop(), s.fd, s.family, s.remote, p)
	t.asked, t.target = s.asked, s.target
	t.sock, t.early = s.sock, s.early
	t.soon(t.begin)
	if err := loop.Sleep(co, 0); err != nil {
		t.Abort() // Close would wait until everything was sent
		return nil, nil, err
	}
	return t, p, nil
}

// check checks the arguments.
func (o *DatagramOptions) check(factory func() DatagramProtocol) error {
	if factory == nil {
		return invalid("the protocol factory is nil")
	}
	if o.Sock != nil {
		rest := *o
		rest.Sock = nil
		if rest != (DatagramOptions{}) {
			return invalid("the options of a new socket cannot be given with Sock")
		}
		if o.Sock.Type() != unix.SOCK_DGRAM {
			return invalid("a datagram socket was expected, got %v", o.Sock)
		}
		return nil
	}
	if !o.LocalAddr.IsValid() && !o.RemoteAddr.IsValid() && o.Family == unix.AF_UNSPEC {
		return invalid("neither an address nor a family was given")
	}
	return o.checkFamilies()
}

// checkFamilies derives the family from addresses that have one, and checks
// that it is one.
func (o *DatagramOptions) checkFamilies() error {
	switch o.Family {
	case unix.AF_UNSPEC, unix.AF_INET, unix.AF_INET6, unix.AF_UNIX:
	default:
		return invalid("the family %d is not that of datagrams", o.Family)
	}
	for _, a := range []Addr{o.LocalAddr, o.RemoteAddr} {
		if !a.IsValid() {
			continue
		}
		family := a.Family()
		if family == unix.AF_UNSPEC && o.Family != unix.AF_UNIX {
			continue // a name, which may stand for several
		}
		if o.Family == unix.AF_UNSPEC {
			o.Family = family
		}
		if o.Family != family {
			return invalid("%v is not an address of the family %s", a, familyName(o.Family))
		}
	}
	return nil
}

// datagramSocket is a socket that is ready for its transport.
type datagramSocket struct {
	fd, family int
	sock       *sockapi.Socket // the owner of the descriptor, or nil
	remote     Addr
	asked      Addr // what it was connected to, which may be another name of remote
	target     Addr
	early      sockapi.Received
}

// protocol calls the factory. If that panics or returns nil, the socket is
// closed.
func (s *datagramSocket) protocol(co *loop.Coro, factory func() DatagramProtocol) (p DatagramProtocol) {
	defer func() {
		if p == nil {
			s.close(co)
		}
	}()
	return factory()
}

func (s *datagramSocket) close(co *loop.Coro) {
	if s.sock != nil {
		s.sock.Surrender()
	}
	sharedOf(co.Loop()).closePort(int32(s.fd))
}

// socket returns the socket of the caller or a new one.
func (o *DatagramOptions) socket(co *loop.Coro) (*datagramSocket, error) {
	if o.Sock == nil {
		return o.newSocket(co)
	}
	if err := sockapi.Settle(co, o.Sock); err != nil {
		return nil, err
	}
	early, err := o.Sock.Adopt("a datagram transport")
	if err != nil {
		return nil, err
	}
	s := &datagramSocket{fd: o.Sock.Fd(), family: o.Sock.Family(), sock: o.Sock, early: early}
	s.askRemote()
	return s, nil
}

// askRemote asks the kernel for the peer: it has given an unspecified address up for
// that of this machine.
func (s *datagramSocket) askRemote() {
	var raw backend.Addr
	if socketName(unix.SYS_GETPEERNAME, int32(s.fd), &raw) == 0 {
		s.remote = addrOf(&raw)
	}
}

// newSocket makes a socket for the first pair of addresses that can be had.
func (o *DatagramOptions) newSocket(co *loop.Coro) (*datagramSocket, error) {
	pairs, err := o.pairs(co)
	if err != nil {
		return nil, err
	}
	if o.LocalAddr.IsValid() {
		if err := sharedOf(co.Loop()).ports.wait(co); err != nil {
			return nil, err
		}
	}
	var first error
	for i := range pairs {
		s, err := o.open(co, &pairs[i])
		if err == nil {
			return s, nil
		}
		if first == nil {
			first = err
		}
		if errors.Is(err, loop.ErrCancelled) || co.Loop().IsClosed() {
			return nil, err
		}
	}
	return nil, first
}

// addrPair is a candidate: the two addresses of a socket, as far as they are
// given.
type addrPair struct {
	family, proto int
	addr          [2]*backend.Addr
}

// pairs joins what the local and the remote address stand for.
func (o *DatagramOptions) pairs(co *loop.Coro) ([]addrPair, error) {
	var pairs []addrPair
	given := [2]Addr{o.LocalAddr, o.RemoteAddr}
	for side, a := range given {
		if !a.IsValid() {
			continue
		}
		infos, err := o.resolve(co, a)
		if err != nil {
			return nil, err
		}
		for i := range infos {
			pairs = join(pairs, side, &infos[i])
		}
	}
	if !o.LocalAddr.IsValid() && !o.RemoteAddr.IsValid() {
		return []addrPair{{family: o.Family, proto: o.Proto}}, nil
	}
	var whole []addrPair
	for _, p := range pairs {
		if (p.addr[0] != nil) == o.LocalAddr.IsValid() && (p.addr[1] != nil) == o.RemoteAddr.IsValid() {
			whole = append(whole, p)
		}
	}
	if len(whole) == 0 {
		return nil, invalid("%v and %v have no family in common", o.LocalAddr, o.RemoteAddr)
	}
	return whole, nil
}

// join adds an address to the pair of its family and protocol.
func join(pairs []addrPair, side int, info *loop.AddrInfo) []addrPair {
	for i := range pairs {
		if p := &pairs[i]; p.family == info.Family && p.proto == info.Proto {
			if p.addr[side] == nil {
				p.addr[side] = &info.Addr
			}
			return pairs
		}
	}
	p := addrPair{family: info.Family, proto: info.Proto}
	p.addr[side] = &info.Addr
	return append(pairs, p)
}

// resolve returns what an address stands for.
func (o *DatagramOptions) resolve(co *loop.Coro, a Addr) ([]loop.AddrInfo, error) {
	host := a.Host()
	if zoned := a.AddrPort().Addr(); zoned.Zone() != "" {
		host = zoned.String()
	} else if host == Broadcast || a.Family() != unix.AF_UNSPEC {
		return o.literal(a)
	}
	hints := loop.AddrInfoHints{Family: o.Family, Type: unix.SOCK_DGRAM, Proto: o.Proto, Flags: o.Flags}
	if host == "" {
		hints.Flags |= loop.AIPassive
	}
	return resolve(co, host, strconv.Itoa(int(a.Port())), &hints)
}

// literal returns the one thing that an address stands for which is no name.
func (o *DatagramOptions) literal(a Addr) ([]loop.AddrInfo, error) {
	info := loop.AddrInfo{Family: a.Family(), Type: unix.SOCK_DGRAM, Proto: o.Proto}
	if a.Host() == Broadcast {
		info.Family = unix.AF_INET
	}
	if info.Family != unix.AF_UNIX && info.Proto == 0 {
		info.Proto = unix.IPPROTO_UDP // as the resolver says
	}
	if err := rawAddr(&info.Addr, a, info.Family); err != nil {
		return nil, err
	}
	return []loop.AddrInfo{info}, nil
}

// open makes a socket for a pair of addresses.
func (o *DatagramOptions) open(co *loop.Coro, p *addrPair) (*datagramSocket, error) {
	info := loop.AddrInfo{Family: p.family, Type: unix.SOCK_DGRAM, Proto: p.proto}
	if first := cmp.Or(p.addr[0], p.addr[1]); first != nil {
		info.Addr = *first // for the error
	}
	fd, err := newSocket(&info)
	if err != nil {
		return nil, err
	}
	s := &datagramSocket{fd: fd, family: p.family}
	if err := o.setUp(co, s, p); err != nil {
		closeFD(int32(fd)) // at once, so that its local address is free
		return nil, err
	}
	return s, nil
}

// setUp sets the options of a socket, binds and connects it.
func (o *DatagramOptions) setUp(co *loop.Coro, s *datagramSocket, p *addrPair) error {
	if o.ReusePort {
		if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return &sockapi.OpError{Op: "set SO_REUSEPORT", FD: s.fd, Err: err}
		}
	}
	if o.AllowBroadcast {
		if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_BROADCAST, 1); err != nil {
			return &sockapi.OpError{Op: "set SO_BROADCAST", FD: s.fd, Err: err}
		}
	}
	if p.addr[0] != nil {
		if path := o.LocalAddr.Path(); path != "" && path[0] != 0 {
			removeStale(co.Loop(), path)
		}
		if err := bindRaw(s.fd, p.addr[0]); err != nil {
			return err
		}
	}
	switch {
	case p.addr[1] == nil:
		return nil
	case o.AllowBroadcast:
		s.target = addrOf(p.addr[1])
		return nil
	}
	if err := connectRaw(co, s.fd, p.addr[1]); err != nil {
		return err
	}
	s.asked = addrOf(p.addr[1])
	s.remote = s.asked
	s.askRemote()
	return nil
}

// rawAddr writes an address as the kernel reads it, for a socket of a family.
// It looks no name up but that of an interface.
func rawAddr(to *backend.Addr, a Addr, family int) error {
	ip := a.AddrPort()
	switch {
	case a.Host() == Broadcast && family == unix.AF_INET:
		to.SetIP(netip.AddrPortFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), a.Port()), 0, 0)
	case a.Host() != "":
		return invalid("the host name %q is not resolved", a.Host())
	case a.Family() != family:
		return invalid("%v is not an address of the family %s", a, familyName(family))
	case family == unix.AF_UNIX:
		return to.SetUnix(a.Path())
	case ip.Addr().Zone() != "":
		scope, err := zone.Index(ip.Addr().Zone())
		if err != nil {
			return invalid("%v: %v", a, err)
		}
		to.SetIP(ip, a.FlowInfo(), scope)
	default:
		to.SetIP(ip, a.FlowInfo(), a.ScopeID())
	}
	return nil
}

// familyName is the name of an address family, for messages.
func familyName(family int) string {
	switch family {
	case unix.AF_INET:
		return "AF_INET"
	case unix.AF_INET6:
		return "AF_INET6"
	case unix.AF_UNIX:
		return "AF_UNIX"
	}
	return strconv.Itoa(family)
}
