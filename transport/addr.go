package transport

import (
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/sockapi"
)

// Addr is the address of a socket, a value that can be compared with ==.
type Addr = sockapi.Addr

// addrOf returns the address that the kernel has written.
func addrOf(raw *backend.Addr) Addr {
	if ap, flow, scope, ok := raw.IP(); ok {
		if ap.Addr().Is4() {
			return sockapi.IPAddr(ap)
		}
		return sockapi.IPv6Addr(ap, flow, scope)
	}
	if path, ok := raw.Unix(); ok {
		return sockapi.UnixAddr(path)
	}
	return Addr{}
}

// socketName asks the kernel for the name of a socket: call is SYS_GETSOCKNAME
// or SYS_GETPEERNAME. On an error raw is no address.
func socketName(call uintptr, fd int32, raw *backend.Addr) syscall.Errno {
	raw.Len = backend.AddrCap
	_, _, errno := unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(&raw.Raw)), uintptr(unsafe.Pointer(&raw.Len)))
	if errno != 0 {
		raw.Len = 0
	}
	return errno
}

// name is an address in a third of the space of an Addr, because every idle
// connection keeps two of them.
type name struct {
	ip    [16]byte
	scope uint32
	port  uint16
	kind  nameKind
}

type nameKind uint8

const (
	nameUnknown nameKind = iota // not asked for yet
	nameNone                    // there is none
	nameIP4
	nameIP6
	nameOther // does not fit, and is in cold
)

// set keeps an address; it reports false if that does not fit.
func (n *name) set(raw *backend.Addr) bool {
	ap, flow, scope, ok := raw.IP()
	switch {
	case !ok:
		n.kind = nameNone
		return raw.Len == 0
	case ap.Addr().Is4():
		n.kind = nameIP4
	default:
		n.kind = nameIP6
	}
	n.ip, n.port, n.scope = ap.Addr().As16(), ap.Port(), scope
	return flow == 0
}

// addr returns the address of a name that fits.
func (n *name) addr() Addr {
	ip := netip.AddrFrom16(n.ip)
	switch n.kind {
	case nameIP4:
		return sockapi.IPAddr(netip.AddrPortFrom(ip.Unmap(), n.port))
	case nameIP6:
		return sockapi.IPv6Addr(netip.AddrPortFrom(ip, n.port), 0, n.scope)
	}
	return Addr{}
}
