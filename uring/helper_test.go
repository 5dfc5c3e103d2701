package uring

import (
	"flag"
	"os"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
)

// open returns an enabled backend on this goroutine's locked thread.
func open(t testing.TB, o *Options) *Backend {
	t.Helper()
	runtime.LockOSThread()
	t.Cleanup(runtime.UnlockOSThread)
	b, err := New(o)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	if err := b.Enable(); err != nil {
		t.Fatalf("Enable: %v", err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return b
}

// run waits and dispatches until done reports true.
func run(t testing.TB, b *Backend, done func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !done(); {
		if time.Now().After(end) {
			t.Fatal("nothing more happened for a minute")
		}
		if err := b.Wait(time.Second); err != nil {
			t.Fatalf("Wait: %v", err)
		}
		b.Dispatch()
	}
}

// probeOp is an operation that keeps what it was told.
type probeOp struct {
	backend.Op
	got  []backend.Result
	data []byte
	hook func(r backend.Result)
}

func (p *probeOp) Complete(_ *backend.Op, r backend.Result) {
	p.data = append(p.data, r.Data...)
	r.Data = nil
	p.got = append(p.got, r)
	if p.hook != nil {
		p.hook(r)
	}
}

func newOp(op backend.Op) *probeOp {
	p := &probeOp{Op: op}
	p.Receiver = p
	return p
}

// ended reports whether the terminal completion has come.
func (p *probeOp) ended() bool { return len(p.got) > 0 && !p.got[len(p.got)-1].More }

// last is the newest completion.
func (p *probeOp) last() backend.Result { return p.got[len(p.got)-1] }

func submit(t testing.TB, b *Backend, ops ...*probeOp) {
	t.Helper()
	for _, op := range ops {
		if err := b.Submit(&op.Op); err != nil {
			t.Fatalf("Submit: %v", err)
		}
	}
}

// pair returns a connected pair of non-blocking stream sockets.
func pair(t testing.TB) (int32, int32) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		unix.Close(fds[0])
		unix.Close(fds[1])
	})
	return int32(fds[0]), int32(fds[1])
}

func write(t testing.TB, fd int32, p []byte) {
	t.Helper()
	if n, err := unix.Write(int(fd), p); n != len(p) || err != nil {
		t.Fatalf("write of %d bytes: %d, %v", len(p), n, err)
	}
}

func TestMain(m *testing.M) {
	flag.Parse()
	if Available() != nil {
		// One test says why all the others cannot run.
		if err := flag.Set("test.run", "^TestIoUringIsAvailable$"); err != nil {
			panic(err)
		}
	}
	os.Exit(m.Run())
}

func TestIoUringIsAvailable(t *testing.T) {
	if err := Available(); err != nil {
		t.Skipf("the tests of package uring need io_uring: %v", err)
	}
}

// completion makes what the kernel would have posted, without flags.
func completion(userData uint64, res int32) cqe {
	raw := struct {
		userData uint64
		res      int32
		flags    uint32
	}{userData: userData, res: res}
	return *(*cqe)(unsafe.Pointer(&raw))
}

// openFDs lists the process's descriptors.
func openFDs(t testing.TB) []os.DirEntry {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return list
}
