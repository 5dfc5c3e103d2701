package epoll

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
)

// Features reports the optional parts of the kernel that are used. Any
// goroutine may call it.
func (b *Backend) Features() backend.Features {
	feature := func(name, since, instead string, err error) backend.Feature {
		return backend.Feature{Name: name, Since: since, InUse: err == nil, Reason: err, Instead: instead}
	}
	var noPwait2 error
	if p := b.noPwait2.Load(); p != nil {
		noPwait2 = *p
	}
	return backend.Features{Backend: b.Name(), List: []backend.Feature{
		feature("epoll-pwait2", "5.11", "timeouts are rounded up to milliseconds", noPwait2),
		feature("waitid-pidfd", "5.4", "waitid operations fail with this error", probePidfd()),
	}}
}

// remembered calls a probe once, and again after a shortage, which may pass.
func remembered(probe func() error) func() error {
	var mu sync.Mutex
	done, result := false, error(nil)
	return func() error {
		mu.Lock()
		defer mu.Unlock()
		if !done {
			result = probe()
			done = !errors.Is(result, syscall.EMFILE) && !errors.Is(result, syscall.ENFILE) && !errors.Is(result, syscall.ENOMEM)
		}
		return result
	}
}

// probePwait2 makes an epoll_pwait2 that returns at once.
var probePwait2 = remembered(func() error {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("epoll_create1: %w", err)
	}
	defer unix.Close(fd)
	var ev [1]unix.EpollEvent
	var ts unix.Timespec
	_, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(fd), uintptr(unsafe.Pointer(&ev[0])), 1,
		uintptr(unsafe.Pointer(&ts)), 0, 0)
	if errno != 0 {
		return fmt.Errorf("epoll_pwait2: %w", errno)
	}
	return nil
})

// probePidfd waits for this process itself, which is not a child of its own:
// a kernel that understands the question answers ECHILD.
var probePidfd = remembered(func() error {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return fmt.Errorf("pidfd_open: %w", err)
	}
	defer unix.Close(fd)
	var info siginfo
	if errno := waitPidfd(int32(fd), &info); errno != syscall.ECHILD {
		return fmt.Errorf("waitid with P_PIDFD: %w", errno)
	}
	return nil
})
