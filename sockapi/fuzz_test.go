package sockapi

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
)

// FuzzAddresses makes every kind of address of a text, and expects that it
// survives the kernel's form and its own text, or is refused with a reason.
func FuzzAddresses(f *testing.F) {
	for _, s := range []string{
		"", "@", "@name", "\x00name", "/run/a.sock", "a\x00b", "localhost:80", ":0", "1.2.3.4:80", "[::1]:80",
		"[::ffff:1.2.3.4]:1", "[fe80::1%lo]:1", "[fe80::1%4294967296]:1", "1.2.3.4:65536", "[::1]", "::1:80",
	} {
		f.Add(s, uint16(80))
	}
	f.Fuzz(func(t *testing.T, s string, port uint16) {
		addrs := []Addr{UnixAddr(s), unixAddr(s), HostAddr(s, port)}
		if ap, err := netip.ParseAddrPort(s); err == nil {
			addrs = append(addrs, IPAddr(ap))
		}
		for _, a := range addrs {
			checkAddr(t, a)
		}
	})
}

// checkAddr checks that an address comes back from the kernel's form.
func checkAddr(t *testing.T, a Addr) {
	var raw backend.Addr
	for _, family := range []int{syscall.AF_INET, syscall.AF_INET6, syscall.AF_UNIX} {
		err := a.raw(family, &raw)
		if family != a.Family() {
			continue // it may be mapped; that must only not panic
		}
		if err != nil {
			if a.Family() == syscall.AF_UNIX && !errors.Is(err, syscall.ENAMETOOLONG) && !errors.Is(err, syscall.EINVAL) {
				t.Errorf("%v is refused: %v", a, err)
			}
			continue
		}
		back := addrOf(&raw)
		if zone := a.ip.Addr().Zone(); zone != "" {
			a.ip = netip.AddrPortFrom(a.ip.Addr().WithZone(""), a.Port())
			a.scope = back.scope
		}
		if back != a {
			t.Errorf("%#v came back as %#v", a, back)
		}
	}
	if a.String() == "" {
		t.Errorf("%#v has no text", a)
	}
	for _, typ := range []int{syscall.SOCK_STREAM, syscall.SOCK_DGRAM, syscall.SOCK_SEQPACKET} {
		if na := a.netAddr(typ); (na == nil) != (a.Family() == syscall.AF_UNSPEC) {
			t.Errorf("%#v is %v for package net", a, na)
		}
	}
}

// FuzzListenAddresses reads what Listen takes, as far as nobody has to be asked
// for a name.
func FuzzListenAddresses(f *testing.F) {
	for _, s := range []string{"", ":", ":0", ":http", "1.2.3.4:80", "[::1]:80", "[::ffff:1.2.3.4]:1", "[fe80::1%lo]:1", "[::1", "1.2.3.4:-1", "a:b:c", "@x"} {
		for network := range uint8(4) {
			f.Add(network, s)
		}
	}
	networks := []struct {
		name   string
		family int
	}{{"tcp", unix.AF_UNSPEC}, {"tcp4", unix.AF_INET}, {"udp6", unix.AF_INET6}, {"unix", unix.AF_UNIX}}
	f.Fuzz(func(t *testing.T, network uint8, address string) {
		n := networks[int(network)%len(networks)]
		if host, _, err := net.SplitHostPort(address); err == nil && host != "" && n.family != unix.AF_UNIX {
			if _, err := netip.ParseAddr(host); err != nil {
				return // a name
			}
		}
		a, err := listenAddr(n.name, address, n.family)
		if err == nil && n.family != unix.AF_UNSPEC && a.Family() != n.family {
			t.Errorf("%s %q is %v, of family %d", n.name, address, a, a.Family())
		}
		if err == nil {
			checkAddr(t, a)
		}
	})
}
