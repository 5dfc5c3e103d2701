package nowait

import (
	"path/filepath"
	"syscall"
	"testing"

	"github.com/seed-80cfe818/ringloop/backend"
)

func TestABatchIsSentAndReceivedWithAddressesAndSizes(t *testing.T) {
	dir := t.TempDir()
	from, fromAddr := bound(t, filepath.Join(dir, "from"))
	to, toAddr := bound(t, filepath.Join(dir, "to"))
	var b Batch
	want := []string{"one", "", "three"}
	for i, p := range want {
		b.Set(i, []byte(p), toAddr)
	}
	if n, errno := b.Send(from, len(want)); n != len(want) || errno != 0 {
		t.Fatalf("Send = %d, %v", n, errno)
	}
	var addrs [BatchSize]backend.Addr
	var mem [BatchSize][8]byte
	for i := range addrs {
		b.Set(i, mem[i][:], &addrs[i])
	}
	n, errno := b.Recv(to, BatchSize)
	if n != len(want) || errno != 0 {
		t.Fatalf("Recv = %d, %v", n, errno)
	}
	sender, _ := fromAddr.Unix()
	for i, p := range want {
		if got := string(mem[i][:b.Len(i)]); got != p {
			t.Errorf("packet %d is %q, want %q", i, got, p)
		}
		if path, ok := addrs[i].Unix(); !ok || path != sender {
			t.Errorf("packet %d is from %q, %v", i, path, ok)
		}
	}
	if n, errno := b.Recv(to, BatchSize); n != 0 || errno != syscall.EAGAIN {
		t.Errorf("with nothing there: %d, %v", n, errno)
	}
}

func TestABatchStopsBeforeWhatCannotBeSentAndFailsWithItAlone(t *testing.T) {
	dir := t.TempDir()
	from, _ := bound(t, filepath.Join(dir, "from"))
	_, toAddr := bound(t, filepath.Join(dir, "to"))
	var nobody backend.Addr
	if err := nobody.SetUnix(filepath.Join(dir, "nobody")); err != nil {
		t.Fatal(err)
	}
	var b Batch
	b.Set(0, []byte("x"), toAddr)
	b.Set(1, []byte("x"), &nobody)
	b.Set(2, []byte("x"), toAddr)
	if n, errno := b.Send(from, 3); n != 1 || errno != 0 {
		t.Errorf("Send = %d, %v, want the one before", n, errno)
	}
	b.Set(0, []byte("x"), &nobody)
	if n, errno := b.Send(from, 1); n != 0 || errno != syscall.ENOENT {
		t.Errorf("Send = %d, %v, want ENOENT", n, errno)
	}
}
