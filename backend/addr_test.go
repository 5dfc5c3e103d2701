package backend_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/seed-80cfe818/ringloop/backend"
)

func TestTheZeroAddrIsNoAddress(t *testing.T) {
	var a backend.Addr
	if a.Family() != syscall.AF_UNSPEC {
		t.Errorf("family %d", a.Family())
	}
	if _, _, _, ok := a.IP(); ok {
		t.Error("it is an IP address")
	}
	if _, ok := a.Unix(); ok {
		t.Error("it is a unix address")
	}
}

func TestAddrKeepsAnIPAddress(t *testing.T) {
	for _, tc := range []struct {
		ap          string
		flow, scope uint32
		family      int
		len         uint32
	}{
		{"127.0.0.1:80", 0, 0, syscall.AF_INET, 16},
		{"0.0.0.0:0", 0, 0, syscall.AF_INET, 16},
		{"255.255.255.255:65535", 0, 0, syscall.AF_INET, 16},
		{"[::1]:8080", 0, 0, syscall.AF_INET6, 28},
		{"[fe80::1]:443", 0xabcde, 7, syscall.AF_INET6, 28},
		{"[::ffff:10.0.0.1]:1", 0, 0, syscall.AF_INET6, 28},
	} {
		ap := netip.MustParseAddrPort(tc.ap)
		a := backend.Addr{Len: 100}
		a.SetIP(ap, tc.flow, tc.scope)
		if a.Family() != tc.family || a.Len != tc.len {
			t.Errorf("%s: family %d, %d bytes", tc.ap, a.Family(), a.Len)
		}
		got, flow, scope, ok := a.IP()
		if !ok || got != ap || flow != tc.flow || scope != tc.scope {
			t.Errorf("%s: got %v, flow %#x, scope %d, %v", tc.ap, got, flow, scope, ok)
		}
		if _, ok := a.Unix(); ok {
			t.Errorf("%s is a unix address", tc.ap)
		}
	}
}

func TestAddrIsLaidOutAsTheKernelHasIt(t *testing.T) {
	var a backend.Addr
	a.SetIP(netip.MustParseAddrPort("[2001:db8::5]:258"), 9, 3)
	p, n := a.Pointer()
	if n != syscall.SizeofSockaddrInet6 {
		t.Fatalf("%d bytes", n)
	}
	sa := (*syscall.RawSockaddrInet6)(p)
	port := (*[2]byte)(unsafe.Pointer(&sa.Port))
	if sa.Family != syscall.AF_INET6 || *port != [2]byte{1, 2} || sa.Scope_id != 3 || sa.Addr[15] != 5 {
		t.Errorf("got %+v", sa)
	}
	a.SetIP(netip.MustParseAddrPort("192.0.2.7:258"), 0, 0)
	p, _ = a.Pointer()
	sa4 := (*syscall.RawSockaddrInet4)(p)
	port = (*[2]byte)(unsafe.Pointer(&sa4.Port))
	if sa4.Family != syscall.AF_INET || *port != [2]byte{1, 2} || sa4.Addr != [4]byte{192, 0, 2, 7} {
		t.Errorf("got %+v", sa4)
	}
}

func TestAddrKeepsAUnixPath(t *testing.T) {
	for _, tc := range []struct {
		path string
		len  uint32
	}{
		{"", 2},
		{"/run/x", 2 + 6 + 1},
		{"\x00abstract", 2 + 9},
		{"\x00with\x00nul", 2 + 9},
		{strings.Repeat("p", 107), 2 + 108},
		{"\x00" + strings.Repeat("a", 107), 2 + 108},
	} {
		a := backend.Addr{Len: 77}
		if err := a.SetUnix(tc.path); err != nil {
			t.Errorf("%q: %v", tc.path, err)
			continue
		}
		if got, ok := a.Unix(); !ok || got != tc.path || a.Len != tc.len {
			t.Errorf("%q: got %q, %v, %d bytes, want %d", tc.path, got, ok, a.Len, tc.len)
		}
		if _, _, _, ok := a.IP(); ok {
			t.Errorf("%q is an IP address", tc.path)
		}
	}
}

func TestSetUnixRefusesAPathAndLeavesNoAddress(t *testing.T) {
	for _, tc := range []struct {
		path string
		want error
	}{
		{strings.Repeat("p", 108), syscall.ENAMETOOLONG},
		{"\x00" + strings.Repeat("a", 108), syscall.ENAMETOOLONG},
		{"a\x00b", syscall.EINVAL},
	} {
		a := backend.Addr{Len: 5}
		err := a.SetUnix(tc.path)
		if !errors.Is(err, tc.want) {
			t.Errorf("%q: %v, want %v", tc.path, err, tc.want)
		}
		if a.Len != 0 {
			t.Errorf("%q: %d bytes are left", tc.path, a.Len)
		}
	}
}

// The kernel may report a length without the terminating NUL, or one that is
// larger than the buffer it was given (unix(7)).
func TestUnixReadsEveryLengthTheKernelReports(t *testing.T) {
	var a backend.Addr
	if err := a.SetUnix("/tmp/s"); err != nil {
		t.Fatal(err)
	}
	for _, n := range []uint32{8, 9, 20, backend.AddrCap, backend.AddrCap + 1} {
		a.Len = n
		if got, ok := a.Unix(); !ok || got != "/tmp/s" {
			t.Errorf("length %d: %q, %v", n, got, ok)
		}
	}
}

func TestIPNeedsTheWholeAddress(t *testing.T) {
	var a backend.Addr
	a.SetIP(netip.MustParseAddrPort("127.0.0.1:1"), 0, 0)
	a.Len = 7
	if _, _, _, ok := a.IP(); ok {
		t.Error("7 bytes are an IPv4 address")
	}
	a.SetIP(netip.MustParseAddrPort("[::1]:1"), 0, 5)
	a.Len = 23
	if _, _, _, ok := a.IP(); ok {
		t.Error("23 bytes are an IPv6 address")
	}
	a.Len = 24 // the old form of RFC 2133, without a scope
	if _, _, scope, ok := a.IP(); !ok || scope != 0 {
		t.Errorf("24 bytes: scope %d, %v", scope, ok)
	}
}

// FuzzAddr reads arbitrary bytes as an address, writes what it read, and
// expects to read the same again.
func FuzzAddr(f *testing.F) {
	f.Add([]byte{}, uint32(0))
	f.Add([]byte{1, 0, '/', 'x'}, uint32(5))
	f.Add([]byte{1, 0, 0, 'x'}, uint32(200))
	f.Add(binary.NativeEndian.AppendUint16(nil, syscall.AF_INET), uint32(16))
	f.Add(binary.NativeEndian.AppendUint16(nil, syscall.AF_INET6), uint32(28))
	f.Fuzz(func(t *testing.T, raw []byte, n uint32) {
		a := backend.Addr{Len: n}
		copy(a.Raw[:], raw)
		var b backend.Addr
		if ap, flow, scope, ok := a.IP(); ok {
			b.SetIP(ap, flow, scope)
			ap2, flow2, scope2, ok := b.IP()
			if !ok || ap2 != ap || flow2 != flow || scope2 != scope {
				t.Errorf("%v %d %d became %v %d %d %v", ap, flow, scope, ap2, flow2, scope2, ok)
			}
		}
		path, ok := a.Unix()
		if !ok {
			return
		}
		err := b.SetUnix(path)
		if err != nil {
			// Only what does not fit into sockaddr_un may be refused.
			if !errors.Is(err, syscall.ENAMETOOLONG) || len(path) < 108 {
				t.Errorf("%q is refused: %v", path, err)
			}
			return
		}
		if again, ok := b.Unix(); !ok || again != path {
			t.Errorf("%q became %q, %v", path, again, ok)
		}
		if path != "" && !bytes.HasPrefix(a.Raw[2:], []byte(path)) {
			t.Errorf("%q is not in the raw bytes", path)
		}
	})
}
