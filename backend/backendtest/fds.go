package backendtest

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"
	"unsafe"

	"github.com/seed-80cfe818/ringloop/backend"
	"golang.org/x/sys/unix"
)

// own notes that fd is closed at the end of the test.
func (d *driver) own(fd int) int {
	d.fds[fd] = true
	return fd
}

// disown notes that someone else closed fd.
func (d *driver) disown(fd int) { delete(d.fds, fd) }

// closeFD closes fd with a plain close(2).
func (d *driver) closeFD(fd int) {
	d.t.Helper()
	d.disown(fd)
	if err := unix.Close(fd); err != nil {
		d.t.Errorf("close of fd %d: %v", fd, err)
	}
}

func (d *driver) closeAll() {
	for fd := range d.fds {
		d.closeFD(fd)
	}
}

// ok fails the test if a system call of its own failed.
func (d *driver) ok(err error, what string) {
	d.t.Helper()
	if err != nil {
		d.t.Fatalf("%s: %v", what, err)
	}
}

func (d *driver) setBlocking(fd int) int {
	d.t.Helper()
	d.ok(unix.SetNonblock(fd, false), "making a descriptor blocking")
	return fd
}

// socketpair returns two connected non-blocking unix sockets.
func (d *driver) socketpair(typ int) (a, b int) {
	d.t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, typ|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	d.ok(err, "socketpair")
	return d.own(p[0]), d.own(p[1])
}

// pipe returns the two ends of a non-blocking pipe.
func (d *driver) pipe() (r, w int) {
	d.t.Helper()
	var p [2]int
	d.ok(unix.Pipe2(p[:], unix.O_NONBLOCK|unix.O_CLOEXEC), "pipe2")
	return d.own(p[0]), d.own(p[1])
}

// fifo returns the two ends of a named pipe.
func (d *driver) fifo() (r, w int) {
	d.t.Helper()
	path := filepath.Join(d.dir(), "fifo")
	d.ok(unix.Mkfifo(path, 0o600), "mkfifo")
	r, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	d.ok(err, "opening the fifo for reading")
	d.own(r)
	w, err = unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	d.ok(err, "opening the fifo for writing")
	return r, d.own(w)
}

// pty returns the two ends of a pseudo terminal in raw mode.
func (d *driver) pty() (master, slave int) {
	d.t.Helper()
	master, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		d.t.Fatalf("opening /dev/ptmx: %v; the suite needs devpts mounted on /dev/pts", err)
	}
	d.own(master)
	d.ok(unix.IoctlSetPointerInt(master, unix.TIOCSPTLCK, 0), "unlocking the terminal")
	n, err := unix.IoctlGetInt(master, unix.TIOCGPTN)
	d.ok(err, "TIOCGPTN")
	path := fmt.Sprintf("/dev/pts/%d", n)
	slave, err = unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		d.t.Fatalf("opening %s: %v; the suite needs devpts mounted on /dev/pts", path, err)
	}
	d.own(slave)
	tio, err := unix.IoctlGetTermios(slave, unix.TCGETS)
	d.ok(err, "TCGETS")
	tio.Iflag, tio.Oflag, tio.Lflag = 0, 0, 0
	tio.Cc[unix.VMIN], tio.Cc[unix.VTIME] = 1, 0
	d.ok(unix.IoctlSetTermios(slave, unix.TCSETS, tio), "TCSETS")
	return master, slave
}

// eventfd returns an eventfd with the value 0.
func (d *driver) eventfd() int {
	d.t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	d.ok(err, "eventfd")
	return d.own(fd)
}

// dir returns a new directory that is removed at the end of the test.
func (d *driver) dir() string {
	d.t.Helper()
	d.ok(os.MkdirAll(os.TempDir(), 0o700), "making the directory for temporary files")
	dir, err := os.MkdirTemp("", "ringloop")
	d.ok(err, "the suite needs a writable directory for temporary files, set TMPDIR")
	d.dirs = append(d.dirs, dir)
	return dir
}

func (d *driver) removeDirs() {
	for _, dir := range d.dirs {
		if err := os.RemoveAll(dir); err != nil {
			d.t.Error(err)
		}
	}
}

// file returns a regular file open for reading and writing with the content b
// and the position 0.
func (d *driver) file(b []byte) int {
	d.t.Helper()
	path := filepath.Join(d.dir(), "file")
	d.ok(os.WriteFile(path, b, 0o600), "writing a file")
	return d.open(path, unix.O_RDWR)
}

func (d *driver) open(path string, mode int) int {
	d.t.Helper()
	fd, err := unix.Open(path, mode|unix.O_CLOEXEC, 0)
	d.ok(err, "opening "+path)
	return d.own(fd)
}

// inet is one of the two IP families on the loopback interface.
type inet struct {
	name   string
	domain int
	ip     string
}

var (
	inet4 = inet{"4", unix.AF_INET, "127.0.0.1"}
	inet6 = inet{"6", unix.AF_INET6, "::1"}
)

// socket returns a non-blocking socket. The test is skipped if the machine has
// no IPv6.
func (d *driver) socket(domain, typ int) int {
	d.t.Helper()
	fd, err := unix.Socket(domain, typ|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if domain == unix.AF_INET6 && err == unix.EAFNOSUPPORT {
		d.t.Skip("the kernel has no IPv6")
	}
	d.ok(err, "socket")
	return d.own(fd)
}

// bound returns a socket bound to a free port.
func (d *driver) bound(in inet, typ int) int {
	d.t.Helper()
	fd := d.socket(in.domain, typ)
	var sa unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	if in.domain == unix.AF_INET6 {
		sa = &unix.SockaddrInet6{Addr: netip.IPv6Loopback().As16()}
	}
	err := unix.Bind(fd, sa)
	if in.domain == unix.AF_INET6 && err == unix.EADDRNOTAVAIL {
		d.t.Skip("the loopback interface has no IPv6 address")
	}
	d.ok(err, "binding to "+in.ip)
	return fd
}

// listener returns a listening TCP socket.
func (d *driver) listener(in inet, backlog int) int {
	d.t.Helper()
	fd := d.bound(in, unix.SOCK_STREAM)
	d.ok(unix.Listen(fd, backlog), "listen")
	return fd
}

// unixListener returns a listening unix socket and its path.
func (d *driver) unixListener(backlog int) (fd int, path string) {
	d.t.Helper()
	path = filepath.Join(d.dir(), "sock")
	fd = d.unixBound(unix.SOCK_STREAM, path)
	d.ok(unix.Listen(fd, backlog), "listen")
	return fd, path
}

func (d *driver) unixBound(typ int, path string) int {
	d.t.Helper()
	fd := d.socket(unix.AF_UNIX, typ)
	d.ok(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), "binding to "+path)
	return fd
}

// name returns the address that fd is bound to.
func (d *driver) name(fd int) unix.Sockaddr {
	d.t.Helper()
	sa, err := unix.Getsockname(fd)
	d.ok(err, "getsockname")
	return sa
}

// addr returns the address that fd is bound to, as the kernel writes it.
func (d *driver) addr(fd int) backend.Addr {
	d.t.Helper()
	a := backend.Addr{Len: backend.AddrCap}
	_, _, errno := unix.Syscall(unix.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&a.Raw)), uintptr(unsafe.Pointer(&a.Len)))
	if errno != 0 {
		d.t.Fatalf("getsockname of fd %d: %v", fd, errno)
	}
	return a
}

// dial connects a new socket to the address of the listener and waits for the
// connection.
func (d *driver) dial(domain int, to unix.Sockaddr) int {
	d.t.Helper()
	fd := d.socket(domain, unix.SOCK_STREAM)
	err := unix.Connect(fd, to)
	if errors.Is(err, unix.EINPROGRESS) {
		d.ok(d.ready(fd, unix.POLLOUT), "connecting")
		var n int
		n, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && n != 0 {
			err = unix.Errno(n)
		}
	}
	d.ok(err, "connecting")
	return fd
}

// accepted returns the next connection of the listener.
func (d *driver) accepted(listener int) int {
	d.t.Helper()
	d.ok(d.ready(listener, unix.POLLIN), "waiting for a connection")
	fd, _, err := unix.Accept4(listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	d.ok(err, "accept4")
	return d.own(fd)
}

// tcpBuffer is the size of socket buffers. With a size of its own a receive
// buffer does not grow by itself, so that a connection that is full remains so.
const tcpBuffer = 256 << 10

// tcp returns two ends of a TCP connection.
func (d *driver) tcp(in inet) (a, b int) {
	d.t.Helper()
	l := d.listener(in, 16)
	a = d.dial(in.domain, d.name(l))
	b = d.accepted(l)
	for _, fd := range []int{a, b} {
		d.ok(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, tcpBuffer), "SO_RCVBUF")
		d.ok(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, tcpBuffer), "SO_SNDBUF")
		d.ok(unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1), "TCP_NODELAY")
	}
	d.closeFD(l)
	return a, b
}

// stuck is after which time without room nothing is taken to be underway any more.
// What the peer has no memory for, TCP sends again, is told so, and sends again.
const stuck = 5 * time.Second

// fill writes to fd until nothing more fits, also after the kernel had time to
// move what it has to the peer, and returns the number of bytes.
func (d *driver) fill(fd int) int {
	d.t.Helper()
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	d.ok(err, "F_GETFL")
	d.ok(unix.SetNonblock(fd, true), "making a descriptor non-blocking")
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 64<<10); err != unix.ENOTSOCK {
		d.ok(err, "SO_SNDBUF")
	}
	total, full, moved := 0, 0, time.Now()
	for size := 64 << 10; full < 3; {
		n, err := unix.Write(fd, bytesOf(size, int64(total)))
		switch {
		case err == unix.EAGAIN && size > 1:
			size /= 4
		case err == unix.EAGAIN:
			if !underway(fd) || time.Since(moved) > stuck {
				full++
			}
			if _, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 2); err != nil && err != unix.EINTR {
				d.t.Fatalf("poll: %v", err)
			}
		case err != nil:
			d.t.Fatalf("filling fd %d: %v", fd, err)
		default:
			total, full, moved, size = total+n, 0, time.Now(), min(4*size, 64<<10)
		}
	}
	_, err = unix.FcntlInt(uintptr(fd), unix.F_SETFL, flags)
	d.ok(err, "F_SETFL")
	return total
}

// underway reports whether something is on its way to the peer's machine or may
// still go there, which would make room again: a window that is too small for
// the next segment is used up by a probe some 200 ms later.
func underway(fd int) bool {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	return err == nil && (info.Unacked > 0 || info.Notsent_bytes > 0 && info.Snd_wnd > 0)
}

// reset closes fd so that the peer gets a reset.
func (d *driver) reset(fd int) {
	d.t.Helper()
	d.ok(unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}), "SO_LINGER")
	d.closeFD(fd)
}

// isOpen reports whether fd is an open descriptor.
func isOpen(fd int) bool {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil
}

// badFD returns a number that is no open descriptor, and will not become one
// soon.
func (d *driver) badFD() int {
	d.t.Helper()
	fd, err := unix.FcntlInt(uintptr(d.eventfd()), unix.F_DUPFD_CLOEXEC, 700)
	d.ok(err, "dup")
	d.ok(unix.Close(fd), "close")
	return fd
}

// mustExist fails with a clear text if the suite lacks something.
func (d *driver) mustExist(path string) {
	d.t.Helper()
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		d.t.Fatalf("the suite needs %s", path)
	}
}
