package uring

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	sys "github.com/iceber/iouring-go/syscall"
	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
)

func TestHintNamesTheUsualCause(t *testing.T) {
	for _, c := range []struct {
		err    error
		sysctl string
		want   string
	}{
		{syscall.EPERM, "0", "seccomp"},
		{syscall.EPERM, "", "seccomp"},
		{syscall.EPERM, "1", "io_uring_group"},
		{syscall.EPERM, "2", "io_uring_disabled is 2"},
		{syscall.ENOSYS, "0", "built without"},
		{syscall.ENOMEM, "0", "64 KiB"},
		{syscall.EMFILE, "0", "ulimit -n"},
		{fmt.Errorf("kernel 5.15: %w", errTooOld), "", "6.1"},
	} {
		if got := hint(c.err, c.sysctl, "64 KiB"); !strings.Contains(got, c.want) {
			t.Errorf("hint for %v with sysctl %q: %q does not mention %q", c.err, c.sysctl, got, c.want)
		}
	}
}

func TestExplainKeepsTheKernelsAnswer(t *testing.T) {
	err := explain(syscall.ENOSYS)
	var u *backend.UnavailableError
	if !errors.As(err, &u) || u.Backend != "io_uring" || !errors.Is(err, syscall.ENOSYS) {
		t.Fatalf("%#v", err)
	}
}

func TestOnlyKernelsBefore61AreTooOld(t *testing.T) {
	for release, want := range map[string]bool{
		"5.15.0-91-generic": true, "6.0.19": true, "4.19": true,
		"6.1.0-18-cloud-amd64": false, "6.12.9": false, "7.0.0": false, "": false, "odd": false,
	} {
		if got := tooOld(release); got != want {
			t.Errorf("tooOld(%q) = %v", release, got)
		}
	}
}

func TestOnlyShortagesAreProbedAgain(t *testing.T) {
	for err, want := range map[error]bool{
		explain(syscall.ENOMEM): true, explain(syscall.EMFILE): true,
		explain(syscall.EPERM): false, explain(syscall.ENOSYS): false, nil: false,
	} {
		if got := passing(err); got != want {
			t.Errorf("passing(%v) = %v", err, got)
		}
	}
}

// restriction is struct io_uring_restriction.
type restriction struct {
	kind uint16
	what uint8
	_    [13]uint8
}

// restrict makes the kernel refuse operation code on a ring that is not enabled
// yet, and nothing else.
func restrict(t *testing.T, fd int, code uint8) {
	t.Helper()
	const registerRestrictions, registers, operations, flags = 11, 0, 1, 2
	all := []restriction{{kind: flags, what: 0xff}}
	for _, n := range []uint8{sys.IORING_REGISTER_ENABLE_RINGS, registerRingFDs, unregisterRingFDs, registerPbufRing} {
		all = append(all, restriction{kind: registers, what: n})
	}
	for n := range uint8(64) {
		if n != code {
			all = append(all, restriction{kind: operations, what: n})
		}
	}
	for ; len(all) > 0; all = all[:len(all)-1] { // an older kernel knows fewer numbers
		if err := register(fd, registerRestrictions, unsafe.Pointer(&all[0]), uintptr(len(all))); err == nil {
			return
		} else if !errors.Is(err, syscall.EINVAL) {
			t.Fatal(err)
		}
	}
	t.Fatal("the kernel takes no restriction at all")
}

func TestIoUringIsUnavailableWhereAnOperationIsRefused(t *testing.T) {
	for _, op := range neededOps {
		t.Run(op.name, func(t *testing.T) {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			s, err := setup(8, 32, nil)
			if err != nil {
				t.Fatal(err)
			}
			restrict(t, s.fd, op.code)
			if _, err = exercise(s); !errors.Is(err, syscall.EACCES) || !strings.Contains(err.Error(), op.name) {
				t.Errorf("it says %v", err)
			}
		})
	}
}

func TestFeaturesThatFoundNoDescriptorAreProbedAgain(t *testing.T) {
	if err := Available(); err != nil {
		t.Skipf("io_uring: %v", err)
	}
	before, err := probed()
	if err != nil {
		t.Fatal(err)
	}
	probeCache.done = false
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	free, err := unix.Dup(0) // the lowest number that is free
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(free)
	few := limit
	few.Cur = uint64(free) + 1 // the ring, and nothing else
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	short, shortErr := probed()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if shortErr == nil && len(short) <= len(before) {
		t.Fatalf("nothing was missing without descriptors: %v", short)
	}
	after, err := probed()
	if err != nil || len(after) != len(before) {
		t.Errorf("then %v is missing, before %v; %v", after, before, err)
	}
}

func TestDisabledFeaturesAreReportedWithTheirReason(t *testing.T) {
	for _, f := range featureList {
		b, err := New(&Options{Disable: []string{f.Name}})
		if err != nil {
			t.Fatal(err)
		}
		got, ok := b.Features().Lookup(f.Name)
		if !ok || got.InUse || !errors.Is(got.Reason, errDisabled) {
			t.Errorf("%s: %+v", f.Name, got)
		}
		for _, g := range b.Features().List {
			if g.InUse == (g.Reason != nil) {
				t.Errorf("without %s: %+v", f.Name, g)
			}
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestOptionsThatMakeNoSenseAreRefused(t *testing.T) {
	for _, o := range []Options{
		{Buffers: 3}, {Buffers: 1 << 16}, {Buffers: -1}, {BufferSize: -1},
		{SQEntries: 64, CQEntries: 32}, {Disable: []string{"no-such-thing"}},
	} {
		if b, err := New(&o); !errors.Is(err, backend.ErrInvalid) {
			t.Errorf("New(%+v): %v, %v", o, b, err)
		}
	}
}
