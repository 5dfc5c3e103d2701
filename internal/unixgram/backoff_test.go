package unixgram

import (
	"path/filepath"
	"syscall"
	"testing"
	"time"

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
		n, errno := Send(from, []byte("four"), addr)
		if errno == syscall.EAGAIN {
			break
		}
		if n != 4 || errno != 0 {
			t.Fatalf("Send = %d, %v", n, errno)
		}
		sent++
	}
	p := make([]byte, 8)
	for i := range sent {
		if n, err := unix.Read(int(to), p); n != 4 || err != nil {
			t.Fatalf("packet %d of %d: %d bytes, %v", i, sent, n, err)
		}
	}
	if n, errno := Send(from, nil, addr); n != 0 || errno != 0 {
		t.Errorf("an empty packet: %d, %v", n, errno)
	}
	if n, err := unix.Read(int(to), p); n != 0 || err != nil {
		t.Errorf("the empty packet: %d, %v", n, err)
	}
}

func TestSendReportsThatNobodyIsThere(t *testing.T) {
	from, _ := bound(t, filepath.Join(t.TempDir(), "from"))
	var nobody backend.Addr
	if err := nobody.SetUnix("/nonexistent/socket"); err != nil {
		t.Fatal(err)
	}
	if n, errno := Send(from, []byte("x"), &nobody); n != 0 || errno != syscall.ENOENT {
		t.Errorf("Send = %d, %v, want ENOENT", n, errno)
	}
}

func TestPausesGrowUpToABoundAndStartAnewAfterASuccess(t *testing.T) {
	var b Backoff
	last := time.Duration(-1)
	for range 32 {
		pause := b.Next()
		if pause <= last && last != maxPause || pause > maxPause {
			t.Fatalf("%v after %v", pause, last)
		}
		last = pause
	}
	if last != maxPause {
		t.Errorf("the longest pause is %v, want %v", last, maxPause)
	}
	if b.Reset(); b.Next() != 0 {
		t.Error("a pause after a success")
	}
}
