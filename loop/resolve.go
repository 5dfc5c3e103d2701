package loop

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// query is one call of Getaddrinfo. It runs on a goroutine of the executor.
type query struct {
	AddrInfoHints
	host, service string
	canonName     string
}

// kind is a socket type with its protocol and the port that the service has
// there.
type kind struct {
	typ, proto int
	network    string // for looking services up, "" if it has none
	port       uint16
}

var kinds = [...]kind{
	{typ: unix.SOCK_STREAM, proto: unix.IPPROTO_TCP, network: "tcp"},
	{typ: unix.SOCK_DGRAM, proto: unix.IPPROTO_UDP, network: "udp"},
	{typ: unix.SOCK_RAW},
}

func (q *query) fail(code EAI, cause error) error {
	return &AddrInfoError{Call: "getaddrinfo", Host: q.host, Service: q.service, Code: code, Err: cause}
}

// resolve returns every address with every socket type.
func (q *query) resolve(ctx context.Context) ([]AddrInfo, error) {
	switch {
	case q.host == "" && q.service == "":
		return nil, q.fail(EAINoName, nil)
	case q.Flags&^allAIFlags != 0, q.Flags&AICanonName != 0 && q.host == "":
		return nil, q.fail(EAIBadFlags, nil)
	case q.Family != unix.AF_UNSPEC && q.Family != unix.AF_INET && q.Family != unix.AF_INET6:
		return nil, q.fail(EAIFamily, nil)
	}
	kinds, err := q.kinds(ctx)
	if err != nil {
		return nil, err
	}
	ips, err := q.addresses(ctx)
	if err != nil {
		return nil, err
	}
	var all []AddrInfo
	for _, ip := range ips {
		scope, ok := scopeOf(ip)
		if !ok {
			return nil, q.fail(EAINoName, nil)
		}
		for _, k := range kinds {
			ai := AddrInfo{Family: familyOf(ip), Type: k.typ, Proto: k.proto}
			ai.Addr.SetIP(netip.AddrPortFrom(ip, k.port), 0, scope)
			all = append(all, ai)
		}
	}
	all[0].CanonName = q.canonName
	return all, nil
}

// kinds returns the socket types that fit the hints and have the service.
func (q *query) kinds(ctx context.Context) ([]kind, error) {
	port, numeric := uint16(0), true
	if q.service != "" {
		n, err := strconv.ParseUint(q.service, 10, 16)
		if errors.Is(err, strconv.ErrRange) {
			return nil, q.fail(EAIService, errors.New("port numbers are 0 to 65535"))
		}
		port, numeric = uint16(n), err == nil
	}
	switch {
	case !numeric && q.Flags&AINumericServ != 0:
		return nil, q.fail(EAINoName, nil)
	case strings.ToLower(q.service) != q.service:
		return nil, q.fail(EAIService, nil) // package net would not mind
	}
	var found []kind
	matched, cause := false, error(nil)
	for _, k := range kinds {
		if !q.fits(k) {
			continue
		}
		matched = true
		if k.typ == unix.SOCK_RAW {
			k.proto = q.Proto
			if q.service != "" && (!numeric || q.Type != 0) {
				continue // a raw socket has no ports
			}
		}
		k.port = port
		if !numeric {
			n, err := net.DefaultResolver.LookupPort(ctx, k.network, q.service)
			if err != nil {
				cause = err
				continue
			}
			k.port = uint16(n)
		}
		found = append(found, k)
		if q.Proto != 0 {
			break // a protocol is of one type
		}
	}
	switch {
	case len(found) > 0:
		return found, nil
	case !matched && q.Type != 0:
		return nil, q.fail(EAISockType, nil)
	}
	return nil, q.fail(EAIService, cause)
}

// fits reports whether a socket type is one that was asked for. A raw socket has
// any protocol, but must be asked for by its type if a service is given as well.
func (q *query) fits(k kind) bool {
	if q.Type != 0 && q.Type != k.typ {
		return false
	}
	return q.Proto == 0 || q.Proto == k.proto || k.typ == unix.SOCK_RAW && (q.Type != 0 || q.service == "")
}

// addresses returns the addresses of the host.
func (q *query) addresses(ctx context.Context) ([]netip.Addr, error) {
	if q.host == "" {
		return q.ownAddresses()
	}
	if ip, ok := parseLiteral(q.host); ok {
		if q.Flags&AICanonName != 0 {
			q.canonName = q.host
		}
		return q.literal(ip)
	}
	if q.Flags&AINumericHost != 0 || strings.ContainsAny(q.host, "%\x00") {
		return nil, q.fail(EAINoName, nil)
	}
	family, err := q.configuredFamily()
	if err != nil {
		return nil, err
	}
	ips, err := q.lookup(ctx, family)
	if err != nil {
		return nil, err
	}
	if q.Flags&AICanonName != 0 {
		q.canonName = q.host
		if name, err := net.DefaultResolver.LookupCNAME(ctx, q.host); err == nil {
			q.canonName = strings.TrimSuffix(name, ".")
		}
	}
	return ips, nil
}

// ownAddresses returns the loopback or wildcard addresses, in the order in
// which getaddrinfo(3) gives them.
func (q *query) ownAddresses() ([]netip.Addr, error) {
	family, err := q.configuredFamily()
	if err != nil {
		return nil, err
	}
	all := []netip.Addr{netip.IPv6Loopback(), netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	if q.Flags&AIPassive != 0 {
		all = []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	}
	var ips []netip.Addr
	for _, ip := range all {
		if family == unix.AF_UNSPEC || family == familyOf(ip) {
			ips = append(ips, ip)
		}
	}
	return ips, nil
}

// literal converts a literal address to the family that was asked for.
func (q *query) literal(ip netip.Addr) ([]netip.Addr, error) {
	switch {
	case q.Family == unix.AF_INET6 && ip.Is4() && q.Flags&AIV4Mapped != 0:
		ip = netip.AddrFrom16(ip.As16())
	case q.Family == unix.AF_INET && ip.Is4In6():
		ip = ip.Unmap()
	case q.Family != unix.AF_UNSPEC && q.Family != familyOf(ip):
		return nil, q.fail(EAIAddrFamily, nil)
	}
	return []netip.Addr{ip}, nil
}

// configuredFamily returns the family to look for, narrowed down by
// AIAddrConfig.
func (q *query) configuredFamily() (int, error) {
	if q.Flags&AIAddrConfig == 0 {
		return q.Family, nil
	}
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return 0, q.fail(EAIFail, err)
	}
	family, ok := narrow(q.Family, addrs)
	if !ok {
		return 0, q.fail(EAINoName, nil)
	}
	return family, nil
}

// narrow returns the family to look for on a machine with the given addresses;
// ok is false if it has none of the family that was asked for. Loopback
// addresses do not count, and a machine without any other has both families.
func narrow(family int, addrs []net.Addr) (narrowed int, ok bool) {
	has := map[int]bool{}
	for _, a := range addrs {
		if n, ok := a.(*net.IPNet); ok && !n.IP.IsLoopback() {
			if ip, ok := netip.AddrFromSlice(n.IP); ok {
				has[familyOf(ip.Unmap())] = true
			}
		}
	}
	switch {
	case family != unix.AF_UNSPEC:
		return family, has[family]
	case has[unix.AF_INET] && !has[unix.AF_INET6]:
		return unix.AF_INET, true
	case has[unix.AF_INET6] && !has[unix.AF_INET]:
		return unix.AF_INET6, true
	}
	return family, true
}

// lookup asks the resolver for a name.
func (q *query) lookup(ctx context.Context, family int) ([]netip.Addr, error) {
	network := map[int]string{unix.AF_INET: "ip4", unix.AF_INET6: "ip6"}[family]
	mapped := family == unix.AF_INET6 && q.Flags&AIV4Mapped != 0
	if network == "" || mapped {
		network = "ip"
	}
	ips, err := net.DefaultResolver.LookupNetIP(ctx, network, q.host)
	if err != nil {
		if short := shortOfFiles(); short != nil {
			return nil, q.fail(EAIAgain, short)
		}
		return nil, q.fail(lookupCode(err), err)
	}
	for i, ip := range ips {
		ips[i] = ip.Unmap() // the resolver returns IPv4 addresses in either form
	}
	if mapped {
		return mapToV6(ips, q.Flags&AIAll != 0), nil
	}
	return ips, nil
}

// shortOfFiles reports that no file can be opened, if so. The resolver takes those
// that it cannot open for empty, asks nobody then, and calls every name unknown.
func shortOfFiles() error {
	fd, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0)
	switch err {
	case nil:
		_ = unix.Close(fd)
	case unix.EMFILE, unix.ENFILE:
		return err
	}
	return nil
}

// mapToV6 returns the IPv6 addresses and, if there are none or all are wanted,
// behind them the IPv4 addresses, mapped into IPv6.
func mapToV6(ips []netip.Addr, all bool) []netip.Addr {
	var v4, v6 []netip.Addr
	for _, ip := range ips {
		if ip.Is4() {
			v4 = append(v4, netip.AddrFrom16(ip.As16()))
		} else {
			v6 = append(v6, ip)
		}
	}
	if len(v6) == 0 || all {
		return append(v6, v4...)
	}
	return v6
}

// lookupCode translates an error of the net package.
func lookupCode(err error) EAI {
	var dns *net.DNSError
	switch {
	case !errors.As(err, &dns):
		return EAINoName // not even the form of a name
	case dns.IsNotFound:
		return EAINoName
	case dns.IsTemporary || dns.IsTimeout:
		return EAIAgain
	}
	return EAIFail
}

// parseLiteral parses an address, also in the short and numeric forms of
// inet_aton(3).
func parseLiteral(s string) (netip.Addr, bool) {
	if ip, err := netip.ParseAddr(s); err == nil {
		return ip, true
	}
	parts := strings.Split(s, ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var value uint64
	for i, part := range parts {
		bits := 8
		if i == len(parts)-1 {
			bits = 8 * (5 - len(parts)) // the last part fills what is left
		}
		n, err := strconv.ParseUint(part, 0, bits)
		if err != nil || strings.ContainsAny(part, "_oO") || strings.HasPrefix(strings.ToLower(part), "0b") {
			return netip.Addr{}, false
		}
		value = value<<bits | n
	}
	return netip.AddrFrom4([4]byte{byte(value >> 24), byte(value >> 16), byte(value >> 8), byte(value)}), true
}

// scopeOf returns the number of an address's zone: of an interface, for the
// addresses of a link, or the zone itself if it is a number.
func scopeOf(ip netip.Addr) (scope uint32, ok bool) {
	zone := ip.Zone()
	if zone == "" {
		return 0, true
	}
	if n, err := strconv.ParseUint(zone, 10, 32); err == nil {
		return uint32(n), true
	}
	if !linkScoped(ip) {
		return 0, false
	}
	ifi, err := net.InterfaceByName(zone)
	if err != nil {
		return 0, false
	}
	return uint32(ifi.Index), true
}

func linkScoped(ip netip.Addr) bool {
	return ip.IsLinkLocalUnicast() || ip.IsLinkLocalMulticast() || ip.IsInterfaceLocalMulticast()
}
