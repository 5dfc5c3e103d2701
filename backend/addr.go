package backend

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"syscall"
	"unsafe"
)

// AddrCap is the size of the largest socket address, that of
// sockaddr_storage.
const AddrCap = 128

// Addr is a socket address as the kernel writes it. The zero Addr is no
// address.
type Addr struct {
	// Raw holds the sockaddr, in the byte order of the kernel.
	Raw [AddrCap]byte
	// Len is how many bytes of Raw the address has.
	Len uint32
}

// Family returns the address family, AF_UNSPEC for no address.
func (a *Addr) Family() int {
	if a.Len < 2 {
		return syscall.AF_UNSPEC
	}
	return int(binary.NativeEndian.Uint16(a.Raw[:2]))
}

// SetIP makes a an AF_INET or AF_INET6 address, by the kind of ap. scope is the
// sin6_scope_id and flow the sin6_flowinfo of an IPv6 address.
func (a *Addr) SetIP(ap netip.AddrPort, flow, scope uint32) {
	*a = Addr{}
	ip := ap.Addr()
	binary.BigEndian.PutUint16(a.Raw[2:], ap.Port())
	if ip.Is4() {
		binary.NativeEndian.PutUint16(a.Raw[:], syscall.AF_INET)
		b := ip.As4()
		copy(a.Raw[4:], b[:])
		a.Len = syscall.SizeofSockaddrInet4
		return
	}
	binary.NativeEndian.PutUint16(a.Raw[:], syscall.AF_INET6)
	binary.BigEndian.PutUint32(a.Raw[4:], flow)
	b := ip.As16()
	copy(a.Raw[8:], b[:])
	binary.NativeEndian.PutUint32(a.Raw[24:], scope)
	a.Len = syscall.SizeofSockaddrInet6
}

// IP returns an AF_INET or AF_INET6 address; ok is false for any other. The
// address carries no zone; scope has its number.
func (a *Addr) IP() (ap netip.AddrPort, flow, scope uint32, ok bool) {
	port := binary.BigEndian.Uint16(a.Raw[2:])
	switch {
	case a.Family() == syscall.AF_INET && a.Len >= 8:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(a.Raw[4:8])), port), 0, 0, true
	case a.Family() == syscall.AF_INET6 && a.Len >= 24:
		if a.Len >= 28 {
			scope = binary.NativeEndian.Uint32(a.Raw[24:])
		}
		flow = binary.BigEndian.Uint32(a.Raw[4:])
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(a.Raw[8:24])), port), flow, scope, true
	}
	return netip.AddrPort{}, 0, 0, false
}

// SetUnix makes a an AF_UNIX address. A name that starts with a NUL byte is in
// the abstract namespace (unix(7)); an empty one is the unnamed address. The
// error says that the path is too long or holds a NUL byte.
func (a *Addr) SetUnix(path string) error {
	const maxPath = len(syscall.RawSockaddrUnix{}.Path)
	*a = Addr{}
	abstract := path != "" && path[0] == 0
	limit := maxPath - 1
	if abstract {
		limit = maxPath
	}
	if len(path) > limit {
		return fmt.Errorf("unix socket path %q is %d bytes long, more than %d: %w", path, len(path), limit, syscall.ENAMETOOLONG)
	}
	if !abstract {
		for i := range len(path) {
			if path[i] == 0 {
				return fmt.Errorf("unix socket path %q holds a NUL byte: %w", path, syscall.EINVAL)
			}
		}
	}
	binary.NativeEndian.PutUint16(a.Raw[:], syscall.AF_UNIX)
	copy(a.Raw[2:], path)
	a.Len = uint32(2 + len(path))
	if path != "" && !abstract {
		a.Len++ // the terminating NUL
	}
	return nil
}

// Unix returns the path of an AF_UNIX address: with a leading NUL byte if it
// is abstract, empty if it is unnamed. ok is false for any other family.
func (a *Addr) Unix() (path string, ok bool) {
	if a.Family() != syscall.AF_UNIX {
		return "", false
	}
	b := a.Raw[2:min(int(a.Len), AddrCap)]
	if len(b) > 0 && b[0] != 0 {
		for i, c := range b {
			if c == 0 {
				b = b[:i]
				break
			}
		}
	}
	return string(b), true
}

// Pointer returns the address of the raw bytes and their number, for a system
// call made while a is kept alive.
func (a *Addr) Pointer() (unsafe.Pointer, uint32) {
	return unsafe.Pointer(&a.Raw[0]), a.Len
}
