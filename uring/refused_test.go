package uring

import (
	"errors"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/internal/forbid"
)

func TestCloseLetsGoOfEverythingThoughTheKernelRefusesToBeEntered(t *testing.T) {
	b := open(t, &Options{Disable: []string{RegisteredRing}})
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[1])
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	dup, err := unix.Dup(int(null.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	received := newOp(backend.Op{Code: backend.OpRecv, FD: int32(fds[0]), Buf: make([]byte, 8)})
	closed := newOp(backend.Op{Code: backend.OpClose, FD: int32(dup)})
	never := newOp(backend.Op{Code: backend.OpClose, FD: 1 << 20}) // no such descriptor
	submit(t, b, received)
	if err := b.Wait(0); err != nil {
		t.Fatal(err)
	}
	submit(t, b, closed, never)
	ring, waker := b.ring.fd, b.waker.fd
	b.ring.enterFD = -1 // refused, as by a seccomp filter that was installed meanwhile
	if err := b.Close(); !errors.Is(err, syscall.EBADF) {
		t.Errorf("Close: %v, want what the kernel says", err)
	}
	for what, fd := range map[string]int{"ring": ring, "eventfd": waker, "descriptor to be closed": dup} {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != unix.EBADF {
			t.Errorf("the %s is left open", what)
		}
	}
	if !closed.ended() || closed.last().Errno != 0 {
		t.Errorf("the close was told %v", closed.got)
	}
	unix.Close(fds[0])
	if n, err := unix.Read(fds[1], make([]byte, 1)); n != 0 || err != nil {
		t.Errorf("the peer of what was received from: %d, %v, want the end", n, err)
	}
}

func TestAReceiverClosesThoughTheKernelRefusesToBeEntered(t *testing.T) {
	for name, early := range map[string]bool{"at what the kernel has done": false, "at what was cancelled before": true} {
		t.Run(name, func(t *testing.T) {
			b := open(t, &Options{Disable: []string{RegisteredRing}})
			r, _ := pair(t)
			var ops []*probeOp
			for range 4 { // the first waits, the others behind it
				ops = append(ops, newOp(backend.Op{Code: backend.OpRecv, FD: r, Buf: make([]byte, 8)}))
			}
			submit(t, b, ops...)
			ops = ops[1:]
			if early {
				for _, op := range ops {
					b.Cancel(&op.Op)
				}
			} else {
				ops = []*probeOp{newOp(backend.Op{}), newOp(backend.Op{}), newOp(backend.Op{})}
				submit(t, b, ops...)
			}
			told := 0
			for _, op := range ops {
				op.hook = func(backend.Result) {
					told++
					b.ring.enterFD = -1 // as above
					if err := b.Close(); !errors.Is(err, syscall.EBADF) {
						t.Errorf("Close: %v, want what the kernel says", err)
					}
				}
			}
			if err := b.Wait(-1); err != nil {
				t.Fatal(err)
			}
			b.Dispatch()
			b.Dispatch()
			if told != 1 {
				t.Errorf("%d completions were delivered, %d of them by a closed backend", told, told-1)
			}
		})
	}
}

func TestABackendOfWhichTheKernelHasDroppedACompletionWorksNoMore(t *testing.T) {
	forbid.Alone(t, func(t *testing.T) {
		b, err := New(nil)
		if err != nil {
			t.Fatal(err)
		}
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if err := b.Enable(); err != nil {
			t.Fatal(err)
		}
		run(t, b, func() bool { return !b.ring.ready() && b.ring.pending() == 0 })
		op := newOp(backend.Op{Code: backend.OpNop})
		submit(t, b, op)
		if errno := b.ring.poll(); errno != 0 || !b.ring.ready() {
			t.Fatalf("no completion: %v", errno)
		}
		b.ring.head++ // as if there had been no memory for it
		forbid.Flags(t, syscall.EBADR, unix.SYS_IO_URING_ENTER, 3, enterExtArg)
		if err := b.Wait(time.Minute); !errors.Is(err, syscall.EBADR) {
			t.Errorf("the first Wait: %v, want EBADR", err)
		}
		if err := b.Wait(0); !errors.Is(err, syscall.EBADR) {
			t.Fatalf("the second Wait: %v, want EBADR", err) // and Close would wait for ever
		}
		if err := b.Close(); !errors.Is(err, syscall.EBADR) {
			t.Errorf("Close: %v, want EBADR", err)
		}
	})
}

func TestEnableSaysThatTheKernelRefusesToBeEntered(t *testing.T) {
	b, err := New(nil)
	if err != nil {
		t.Fatal(err)
	}
	b.ring.enterFD = -1 // as above
	for range 2 {       // as every run of a loop that was told to use io_uring
		if err := b.Enable(); !errors.Is(err, syscall.EBADF) {
			t.Errorf("Enable: %v", err)
		}
	}
	if err := b.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func TestNewNamesTheEventfdThatItCannotHave(t *testing.T) {
	forbid.Alone(t, func(t *testing.T) {
		forbid.Calls(t, unix.EMFILE, unix.SYS_EVENTFD2)
		_, err := New(nil)
		if !errors.Is(err, unix.EMFILE) || !strings.Contains(err.Error(), "eventfd") {
			t.Errorf("New: %v", err)
		}
	})
}

func TestARegisteredRingThatCannotBeEnteredIsAllThatIsMissing(t *testing.T) {
	forbid.Alone(t, func(t *testing.T) {
		before, err := probed()
		if err != nil {
			t.Fatal(err)
		}
		forbid.Flags(t, unix.EINVAL, unix.SYS_IO_URING_ENTER, 3, enterRegisteredRing)
		probeCache.done = false
		missing, err := probed()
		if err != nil {
			t.Fatal(err)
		}
		for name, why := range missing {
			if before[name] == nil && name != RegisteredRing {
				t.Errorf("%s is missing: %v", name, why)
			}
		}
		if why := missing[RegisteredRing]; !errors.Is(why, unix.EINVAL) {
			t.Errorf("why it does without: %v", why)
		}
		b := open(t, nil)
		op := newOp(backend.Op{Code: backend.OpNop})
		submit(t, b, op)
		run(t, b, op.ended)
	})
}
