package sockapi

import (
	"errors"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-80cfe818/ringloop/backend"
)

func TestAddressesSurviveTheKernelsForm(t *testing.T) {
	for _, c := range []struct {
		addr   Addr
		family int
		text   string
	}{
		{IPAddr(netip.MustParseAddrPort("192.0.2.1:80")), syscall.AF_INET, "192.0.2.1:80"},
		{IPAddr(netip.MustParseAddrPort("[2001:db8::1]:443")), syscall.AF_INET6, "[2001:db8::1]:443"},
		{IPv6Addr(netip.MustParseAddrPort("[fe80::1]:1"), 5, 7), syscall.AF_INET6, "[fe80::1%7]:1"},
		{UnixAddr("/run/a.sock"), syscall.AF_UNIX, "/run/a.sock"},
		{UnixAddr("\x00abstract"), syscall.AF_UNIX, "@abstract"},
		{UnixAddr(""), syscall.AF_UNIX, "(unnamed)"},
	} {
		var raw backend.Addr
		if err := c.addr.raw(c.family, &raw); err != nil {
			t.Errorf("%s: %v", c.text, err)
		}
		if got := addrOf(&raw); got != c.addr {
			t.Errorf("%s came back as %#v", c.text, got)
		}
		if c.addr.String() != c.text || c.addr.Family() != c.family || !c.addr.IsValid() {
			t.Errorf("%s: String %s, Family %d", c.text, c.addr, c.addr.Family())
		}
	}
}

func TestAnAddressOfTheOtherIPFamilyIsMapped(t *testing.T) {
	var raw backend.Addr
	four := IPAddr(netip.MustParseAddrPort("192.0.2.1:80"))
	if err := four.raw(syscall.AF_INET6, &raw); err != nil {
		t.Fatal(err)
	}
	if got := addrOf(&raw).String(); got != "[::ffff:192.0.2.1]:80" {
		t.Errorf("IPv4 for an IPv6 socket is %s", got)
	}
	six := IPAddr(netip.MustParseAddrPort("[::ffff:192.0.2.1]:80"))
	if err := six.raw(syscall.AF_INET, &raw); err != nil {
		t.Fatal(err)
	}
	if got := addrOf(&raw); got != four {
		t.Errorf("a mapped address for an IPv4 socket is %s", got)
	}
}

func TestZonesAreNumbersOrInterfaces(t *testing.T) {
	var raw backend.Addr
	for zone, want := range map[string]uint32{"7": 7, "lo": 1} {
		a := IPAddr(netip.MustParseAddrPort("[fe80::1%" + zone + "]:1"))
		if err := a.raw(syscall.AF_INET6, &raw); err != nil || addrOf(&raw).ScopeID() != want {
			t.Errorf("zone %s is number %d, %v; want %d", zone, addrOf(&raw).ScopeID(), err, want)
		}
	}
	a := IPAddr(netip.MustParseAddrPort("[fe80::1%nosuchif]:1"))
	if err := a.raw(syscall.AF_INET6, &raw); err == nil || !strings.Contains(err.Error(), "nosuchif") {
		t.Errorf("an unknown zone: %v", err)
	}
}

func TestHostNames(t *testing.T) {
	a := HostAddr("example.com", 80)
	if a.String() != "example.com:80" || a.Host() != "example.com" || a.Port() != 80 || a.Path() != "" || a.Family() != syscall.AF_UNSPEC {
		t.Errorf("HostAddr is %#v", a)
	}
	if HostAddr("::1", 80) != IPAddr(netip.MustParseAddrPort("[::1]:80")) {
		t.Error("a literal is not taken as such")
	}
	var raw backend.Addr
	for _, bad := range []Addr{a, {}, IPAddr(netip.AddrPort{}), UnixAddr("a\x00b")} {
		if err := bad.raw(syscall.AF_INET, &raw); err == nil {
			t.Errorf("%v became a socket address", bad)
		}
	}
	if err := (Addr{}).raw(syscall.AF_INET, &raw); !errors.Is(err, syscall.EDESTADDRREQ) {
		t.Errorf("no address: %v", err)
	}
}

func TestAddressesForPackageNet(t *testing.T) {
	ip := IPv6Addr(netip.MustParseAddrPort("[fe80::1]:1"), 0, 7)
	for _, c := range []struct {
		addr          Addr
		typ           int
		network, text string
	}{
		{ip, syscall.SOCK_STREAM, "tcp", "[fe80::1%7]:1"},
		{ip, syscall.SOCK_DGRAM, "udp", "[fe80::1%7]:1"},
		{UnixAddr("\x00x"), syscall.SOCK_STREAM, "unix", "@x"},
		{UnixAddr("/x"), syscall.SOCK_DGRAM, "unixgram", "/x"},
		{UnixAddr("/x"), syscall.SOCK_SEQPACKET, "unixpacket", "/x"},
	} {
		a := c.addr.netAddr(c.typ)
		if a.Network() != c.network || a.String() != c.text {
			t.Errorf("%v became %s %s", c.addr, a.Network(), a)
		}
	}
	if a := (Addr{}).netAddr(syscall.SOCK_STREAM); a != nil {
		t.Errorf("no address became %v", a)
	}
}
