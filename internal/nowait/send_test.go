package nowait

import (
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
)

// bound returns a Unix datagram socket and its address.
func bound(t *testing.T, path string) (int32, *backend.Addr) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	addr := new(backend.Addr)
	if err := addr.SetUnix(path); err != nil {
		t.Fatal(err)
	}
	return int32(fd), addr
}

func TestAFullPeerIsEAGAINAlsoOnABlockingSocket(t *testing.T) {
	dir := t.TempDir()
	from, _ := bound(t, filepath.Join(dir, "from"))
	to, addr := bound(t, filepath.Join(dir, "to"))
	sent := 0
	for {
		n, errno := SendTo(from, []byte("four"), addr)
		if errno == syscall.EAGAIN {
			break
		}
		if n != 4 || errno != 0 {
			t.Fatalf("SendTo = %d, %v", n, errno)
		}
		sent++
	}
	p := make([]byte, 8)
	for i := range sent {
		if n, err := unix.Read(int(to), p); n != 4 || err != nil {
			t.Fatalf("packet %d of %d: %d bytes, %v", i, sent, n, err)
		}
	}
	if n, errno := SendTo(from, nil, addr); n != 0 || errno != 0 {
		t.Errorf("an empty packet: %d, %v", n, errno)
	}
	if n, err := unix.Read(int(to), p); n != 0 || err != nil {
		t.Errorf("the empty packet: %d, %v", n, err)
	}
}

func TestSendToReportsThatNobodyIsThere(t *testing.T) {
	from, _ := bound(t, filepath.Join(t.TempDir(), "from"))
	var nobody backend.Addr
	if err := nobody.SetUnix("/nonexistent/socket"); err != nil {
		t.Fatal(err)
	}
	if n, errno := SendTo(from, []byte("x"), &nobody); n != 0 || errno != syscall.ENOENT {
		t.Errorf("SendTo = %d, %v, want ENOENT", n, errno)
	}
}

// pair returns two connected stream sockets, of which the first is blocking.
func pair(t *testing.T) (from int32, to int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fds[0]) })
	return int32(fds[0]), fds[1]
}

func TestAFullStreamTakesAPartAndThenNothing(t *testing.T) {
	p := make([]byte, 1<<20)
	for name, send := range map[string]func(fd int32) (int, syscall.Errno){
		"Send": func(fd int32) (int, syscall.Errno) { return Send(fd, p) },
		"SendMsg": func(fd int32) (int, syscall.Errno) {
			piece := unix.Iovec{Base: &p[0]}
			piece.SetLen(len(p))
			msg := unix.Msghdr{Iov: &piece}
			msg.SetIovlen(1)
			return SendMsg(fd, &msg)
		},
	} {
		t.Run(name, func(t *testing.T) {
			from, to := pair(t)
			n, errno := send(from)
			for total := 0; errno == 0; n, errno = send(from) {
				if total += n; n == 0 || total > len(p) {
					t.Fatalf("%d bytes, %d in all", n, total)
				}
			}
			if n != 0 || errno != syscall.EAGAIN {
				t.Errorf("a full socket: %d, %v, want EAGAIN", n, errno)
			}
			_ = unix.Close(to)
			if n, errno := send(from); n != 0 || errno != syscall.EPIPE {
				t.Errorf("the peer is gone: %d, %v, want EPIPE and no signal", n, errno)
			}
		})
	}
}
