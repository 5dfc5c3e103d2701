package uring

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	sys "github.com/iceber/iouring-go/syscall"
	"golang.org/x/sys/unix"
)

// setupFlag is a flag of io_uring_setup(2) that the backend can do without.
type setupFlag struct {
	feature string
	bit     uint32
	// with holds the flags that make no sense once this one is missing.
	with uint32
}

// setupLadder lists the optional flags, newest first: the order in which they
// are given up when the kernel knows one of them not.
var setupLadder = []setupFlag{
	{NoSQArray, setupNoSQArray, 0},
	{DeferTaskrun, setupDeferTaskrun, 0},
	{SingleIssuer, setupSingleIssuer, setupDeferTaskrun},
	{TaskrunFlag, sys.IORING_SETUP_TASKRUN_FLAG, 0},
	{CoopTaskrun, sys.IORING_SETUP_COOP_TASKRUN, 0},
	{SubmitAll, sys.IORING_SETUP_SUBMIT_ALL, 0},
}

// setupResult is what the ladder reached.
type setupResult struct {
	fd     int
	params sys.IOURingParams
	// missing says for each feature of the ladder that is not in use, why.
	missing map[string]error
}

// The smallest queues that are worth having.
const (
	leastSQ = 32
	leastCQ = 512
)

// How often, and after which pause, a ring is tried again when even the
// smallest one found no memory.
const (
	lockTries = 10
	lockPause = 10 * time.Millisecond
)

// began is when the process began, and lastClose how long after that it closed a
// ring, 0 before: the process that was there before may have closed one just then.
var (
	began     = time.Now()
	lastClose atomic.Int64
)

// awaitClosed pauses if a ring was closed a short while ago, and reports whether
// one was: what others hold they do not give back because somebody waits.
func awaitClosed() bool {
	if time.Since(began)-time.Duration(lastClose.Load()) > lockTries*lockPause {
		return false
	}
	time.Sleep(lockPause)
	return true
}

// setup creates a disabled ring with as many of the optional flags as the
// kernel takes; those that refused names are not even asked for.
func setup(sq, cq uint32, refused map[string]error) (setupResult, error) {
	return withinLimit(sq, cq, awaitClosed, func(sq, cq uint32) (setupResult, error) {
		return climbDown(sq, cq, refused, ioUringSetup)
	})
}

// withinLimit creates a ring that may be smaller than asked for. Without
// CAP_IPC_LOCK the queues count against RLIMIT_MEMLOCK, and those of a ring that
// was closed for some milliseconds longer; pause waits for such a one.
func withinLimit(sq, cq uint32, pause func() bool, create func(sq, cq uint32) (setupResult, error)) (setupResult, error) {
	for tries := 0; ; {
		r, err := create(sq, cq)
		switch {
		case !errors.Is(err, syscall.ENOMEM):
			return r, err
		case sq > leastSQ || cq > leastCQ:
			sq, cq = max(sq/2, min(sq, leastSQ)), max(cq/2, min(cq, leastCQ))
		case tries == lockTries || !pause():
			return r, err
		default:
			tries++
		}
	}
}

// climbDown is setup with the system call as an argument.
func climbDown(sq, cq uint32, refused map[string]error, create func(uint32, *sys.IOURingParams) (int, syscall.Errno)) (setupResult, error) {
	r := setupResult{missing: map[string]error{}}
	flags := uint32(sys.IORING_SETUP_R_DISABLED | sys.IORING_SETUP_CQSIZE | sys.IORING_SETUP_CLAMP)
	for _, f := range setupLadder {
		flags |= f.bit
	}
	for _, f := range setupLadder {
		if err := refused[f.feature]; err != nil {
			flags = r.giveUp(flags, f, err)
		}
	}
	for next := 0; ; {
		r.params = sys.IOURingParams{Flags: consistent(flags, r.missing), CQEntries: cq}
		fd, errno := create(sq, &r.params)
		if errno == 0 {
			r.fd = fd
			return r, nil
		}
		for next < len(setupLadder) && flags&setupLadder[next].bit == 0 {
			next++
		}
		if errno != syscall.EINVAL || next == len(setupLadder) {
			return r, os.NewSyscallError("io_uring_setup", errno)
		}
		flags = r.giveUp(flags, setupLadder[next], os.NewSyscallError("io_uring_setup", errno))
	}
}

// giveUp returns flags without f and what depends on it, and keeps the reason.
func (r *setupResult) giveUp(flags uint32, f setupFlag, why error) uint32 {
	for _, g := range setupLadder {
		if g.bit == f.bit && flags&g.bit != 0 {
			r.missing[g.feature] = why
		} else if g.bit&f.with != 0 && flags&g.bit != 0 {
			r.missing[g.feature] = fmt.Errorf("it needs %s: %w", f.feature, why)
		}
	}
	return flags &^ (f.bit | f.with)
}

// consistent drops TASKRUN_FLAG if nothing is left that it could report on.
func consistent(flags uint32, missing map[string]error) uint32 {
	if flags&(setupDeferTaskrun|sys.IORING_SETUP_COOP_TASKRUN) == 0 && flags&sys.IORING_SETUP_TASKRUN_FLAG != 0 {
		flags &^= sys.IORING_SETUP_TASKRUN_FLAG
		missing[TaskrunFlag] = fmt.Errorf("it needs %s or %s", DeferTaskrun, CoopTaskrun)
	}
	return flags
}

func ioUringSetup(entries uint32, p *sys.IOURingParams) (int, syscall.Errno) {
	fd, _, errno := syscall.Syscall(sys.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(p)), 0)
	return int(fd), errno
}

// register calls io_uring_register(2).
func register(fd int, op uintptr, arg unsafe.Pointer, n uintptr) error {
	for {
		_, _, errno := syscall.Syscall6(sys.SYS_IO_URING_REGISTER, uintptr(fd), op, uintptr(arg), n, 0, 0)
		switch errno {
		case 0:
			return nil
		case syscall.EINTR:
		default:
			return os.NewSyscallError("io_uring_register", errno)
		}
	}
}

// mmapAnon returns n bytes of zeroed memory outside the Go heap. Pages that
// are never touched cost nothing.
func mmapAnon(n int) ([]byte, error) {
	b, err := unix.Mmap(-1, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("mmap of %d bytes: %w", n, err)
	}
	return b, nil
}
