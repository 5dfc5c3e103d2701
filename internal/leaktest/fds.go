package leaktest

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// FDs returns the open descriptors of the process and what /proc says each of
// them is, as in "socket:[1234]".
func FDs() (map[int]string, error) {
	const dir = "/proc/self/fd"
	names, err := readNames(dir)
	if err != nil {
		return nil, fmt.Errorf("cannot list the open descriptors, is /proc mounted? %w", err)
	}
	fds := make(map[int]string, len(names))
	for _, name := range names {
		fd, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		// The descriptor of the listing itself is gone by now.
		if what, err := os.Readlink(dir + "/" + name); err == nil {
			fds[fd] = what
		}
	}
	return fds, nil
}

func readNames(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(-1)
	if cerr := d.Close(); err == nil {
		err = cerr
	}
	return names, err
}

// describe adds to what the link says that which is known of a socket.
func describe(fd int, what string) string {
	if !strings.HasPrefix(what, "socket:") {
		return what
	}
	var b strings.Builder
	b.WriteString(what)
	if typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err == nil {
		b.WriteString(" " + typeName(typ))
	}
	if listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err == nil && listening != 0 {
		b.WriteString(" listening")
	}
	if sa, err := unix.Getsockname(fd); err == nil {
		b.WriteString(" local " + addrString(sa))
	}
	if sa, err := unix.Getpeername(fd); err == nil {
		b.WriteString(" peer " + addrString(sa))
	}
	return b.String()
}

func typeName(typ int) string {
	switch typ {
	case unix.SOCK_STREAM:
		return "stream"
	case unix.SOCK_DGRAM:
		return "datagram"
	case unix.SOCK_SEQPACKET:
		return "seqpacket"
	}
	return "type " + strconv.Itoa(typ)
}

func addrString(sa unix.Sockaddr) string {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return fmt.Sprintf("%d.%d.%d.%d:%d", sa.Addr[0], sa.Addr[1], sa.Addr[2], sa.Addr[3], sa.Port)
	case *unix.SockaddrInet6:
		return fmt.Sprintf("[%x]:%d", sa.Addr, sa.Port)
	case *unix.SockaddrUnix:
		return strconv.Quote(sa.Name)
	}
	return fmt.Sprintf("%T", sa)
}
