package uring

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"

	sys "github.com/iceber/iouring-go/syscall"
	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
)

// Available reports whether io_uring can be used in this process: nil, or a
// *backend.UnavailableError that says why not. It tries the thing itself the
// first time and remembers the answer, unless the cause was a shortage that
// may pass. It may be called from any goroutine.
func Available() error {
	_, err := probed()
	return err
}

// probeCache keeps what a probe found.
var probeCache struct {
	mu      sync.Mutex
	done    bool
	missing map[string]error
	err     error
}

// probed returns for each optional feature that does not work here, why, or
// why nothing works.
func probed() (missing map[string]error, err error) {
	c := &probeCache
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.done {
		done := make(chan struct{})
		go func() {
			defer close(done)
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			c.missing, c.err = probe()
		}()
		<-done
		if c.err != nil {
			c.err = explain(c.err)
		}
		c.done = !passing(c.err)
		for _, why := range c.missing {
			c.done = c.done && !passing(why)
		}
	}
	return c.missing, c.err
}

// passing reports whether an error may be gone the next time.
func passing(err error) bool {
	return errors.Is(err, syscall.ENOMEM) || errors.Is(err, syscall.EAGAIN) ||
		errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// probe creates a small ring and exercises each feature that is not a flag of
// its setup.
func probe() (map[string]error, error) {
	if release := kernelRelease(); tooOld(release) {
		return nil, fmt.Errorf("kernel %s: %w", release, errTooOld)
	}
	s, err := setup(8, 32, nil)
	if err != nil {
		return nil, err
	}
	return exercise(s)
}

// exercise probes with a ring, which it closes.
func exercise(s setupResult) (map[string]error, error) {
	p := &prober{}
	var err error
	p.ring, err = newRing(s)
	defer p.close()
	if err != nil {
		return nil, err
	}
	if err := p.ring.enable(); err != nil {
		return nil, err
	}
	if err := p.needed(); err != nil {
		return nil, err
	}
	missing := map[string]error{}
	for _, t := range []struct {
		feature string
		try     func() error
	}{
		{ProvidedBuffers, p.providedBuffers},
		{MultishotRecv, p.multishotRecv},
		{MultishotAccept, p.multishotAccept},
		{WaitID, p.waitID},
		{RegisteredRing, p.registeredRing}, // last, for all calls are made so from then on
	} {
		if err := t.try(); err != nil {
			missing[t.feature] = err
		}
	}
	return missing, nil
}

// prober tries features on a ring of its own.
type prober struct {
	ring *ring
	bufs *buffers
}

// probeTimeout is how long a probe waits for a completion that is due at once.
const probeTimeout = 5 * time.Second

// await submits and returns the next completion.
func (p *prober) await() (cqe, error) {
	for end := time.Now().Add(probeTimeout); ; {
		if p.ring.ready() {
			c := *p.ring.at(p.ring.head)
			p.ring.head++
			return c, nil
		}
		left := time.Until(end)
		if left <= 0 {
			return cqe{}, fmt.Errorf("no completion: %w", syscall.ETIMEDOUT)
		}
		if errno := p.ring.wait(left); errno != 0 && errno != syscall.EINTR && errno != syscall.ETIME {
			return cqe{}, os.NewSyscallError("io_uring_enter", errno)
		}
	}
}

// result is await for a completion that must have succeeded.
func (p *prober) result() (cqe, error) {
	c, err := p.await()
	if err == nil && c.Result() < 0 {
		err = syscall.Errno(-c.Result())
	}
	return c, err
}

// neededOps are the operations that nothing takes the place of.
var neededOps = []struct {
	code uint8
	name string
}{
	{sys.IORING_OP_NOP, "IORING_OP_NOP"},
	{sys.IORING_OP_POLL_ADD, "IORING_OP_POLL_ADD"},
	{sys.IORING_OP_ASYNC_CANCEL, "IORING_OP_ASYNC_CANCEL"},
	{sys.IORING_OP_ACCEPT, "IORING_OP_ACCEPT"},
	{sys.IORING_OP_CONNECT, "IORING_OP_CONNECT"},
	{sys.IORING_OP_RECV, "IORING_OP_RECV"},
	{sys.IORING_OP_RECVMSG, "IORING_OP_RECVMSG"},
	{sys.IORING_OP_SEND, "IORING_OP_SEND"},
	{sys.IORING_OP_SENDMSG, "IORING_OP_SENDMSG"},
	{sys.IORING_OP_READ, "IORING_OP_READ"},
	{sys.IORING_OP_WRITE, "IORING_OP_WRITE"},
	{sys.IORING_OP_SHUTDOWN, "IORING_OP_SHUTDOWN"},
	{sys.IORING_OP_CLOSE, "IORING_OP_CLOSE"},
}

// needed tries each of them without a descriptor: the kernel says so only where it
// has and allows the operation.
func (p *prober) needed() error {
	for _, op := range neededOps {
		p.ring.next().PrepOperation(op.code, -1, 0, 0, 0)
		c, err := p.await()
		if err != nil {
			return err
		}
		switch errno := syscall.Errno(-c.Result()); errno {
		case syscall.EACCES, syscall.EPERM, syscall.EINVAL, syscall.EOPNOTSUPP, syscall.ENOSYS:
			return os.NewSyscallError(op.name, errno)
		}
	}
	return nil
}

func (p *prober) nop() error {
	p.ring.next().PrepOperation(sys.IORING_OP_NOP, -1, 0, 0, 0)
	_, err := p.result()
	return err
}

func (p *prober) registeredRing() error {
	if err := p.ring.registerFD(); err != nil {
		return err
	}
	return p.nop()
}

func (p *prober) providedBuffers() (err error) {
	if p.bufs, err = newBuffers(p.ring, 4, 64); err != nil {
		return err
	}
	return p.recv(0)
}

func (p *prober) multishotRecv() error {
	if p.bufs == nil {
		return fmt.Errorf("it needs %s", ProvidedBuffers)
	}
	return p.recv(recvMultishot)
}

// recv receives twice on a socket pair and checks what arrives.
func (p *prober) recv(flags uint16) error {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fds[0])
	e := p.ring.next()
	e.PrepOperation(sys.IORING_OP_RECV, int32(fds[0]), 0, 0, 0)
	e.SetFlags(sys.IOSQE_FLAGS_BUFFER_SELECT)
	e.SetBufGroup(bufGroup)
	e.SetIoprio(flags)
	p.ring.flush()
	for _, text := range []string{"first", "second"} {
		if _, err := unix.Write(fds[1], []byte(text)); err != nil {
			unix.Close(fds[1])
			return err
		}
		c, err := p.result()
		if err != nil {
			unix.Close(fds[1])
			return err
		}
		if err := p.check(c, text, flags != 0); err != nil || flags == 0 {
			unix.Close(fds[1])
			return err
		}
	}
	unix.Close(fds[1])
	for {
		if c, err := p.result(); err != nil || c.Flags()&cqeMore == 0 {
			return err
		}
	}
}

// check compares a completion's buffer with what was sent.
func (p *prober) check(c cqe, text string, more bool) error {
	switch {
	case c.Flags()&cqeBuffer == 0:
		return errors.New("a recv completed without a provided buffer")
	case more && c.Flags()&cqeMore == 0:
		return errors.New("the kernel ended a multishot recv after one message")
	}
	bid := uint16(c.Flags() >> cqeBufferShift)
	if got := p.bufs.data(bid, int(c.Result())); !bytes.Equal(got, []byte(text)) {
		return fmt.Errorf("a provided buffer held %q instead of %q", got, text)
	}
	p.bufs.put(bid)
	return nil
}

func (p *prober) multishotAccept() error {
	const typ = unix.SOCK_STREAM | unix.SOCK_CLOEXEC | unix.SOCK_NONBLOCK
	l, err := unix.Socket(unix.AF_UNIX, typ, 0)
	if err != nil {
		return err
	}
	defer unix.Close(l)
	if err := unix.Bind(l, &unix.SockaddrUnix{}); err != nil {
		return err
	}
	if err := unix.Listen(l, 1); err != nil {
		return err
	}
	c, err := unix.Socket(unix.AF_UNIX, typ, 0)
	if err != nil {
		return err
	}
	defer unix.Close(c)
	name, err := unix.Getsockname(l)
	if err != nil {
		return err
	}
	if err := unix.Connect(c, name); err != nil {
		return err
	}
	e := p.ring.next()
	e.PrepOperation(sys.IORING_OP_ACCEPT, int32(l), 0, 0, 0)
	e.SetOpFlags(unix.SOCK_CLOEXEC)
	e.SetIoprio(acceptMultishot)
	got, err := p.result()
	if err != nil {
		return err
	}
	unix.Close(int(got.Result()))
	if got.Flags()&cqeMore == 0 {
		return errors.New("the kernel ended a multishot accept after one connection")
	}
	return p.cancel()
}

// cancel ends the one operation in flight on the ring.
func (p *prober) cancel() error {
	const cancelAny = 1 << 2
	e := p.ring.next()
	e.PrepOperation(sys.IORING_OP_ASYNC_CANCEL, -1, 0, 0, 0)
	e.SetOpFlags(cancelAny)
	for range 2 { // the answers of both, in any order
		if _, err := p.await(); err != nil {
			return err
		}
	}
	return nil
}

// waitID waits for this process itself, which is nobody's child here.
func (p *prober) waitID() error {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	info := new(auxSiginfo)
	var pin runtime.Pinner
	pin.Pin(info)
	defer pin.Unpin()
	e := p.ring.next()
	e.PrepOperation(opWaitID, int32(fd), 0, unix.P_PIDFD, uint64(uintptr(unsafe.Pointer(info))))
	e.SetSpliceFdIn(unix.WEXITED)
	switch _, err := p.result(); err {
	case syscall.ECHILD:
		return nil
	case nil:
		return errors.New("waitid found a child that is none")
	default:
		return err
	}
}

func (p *prober) close() {
	p.ring.close()
	if p.bufs != nil {
		p.bufs.close()
	}
}

var errTooOld = fmt.Errorf("older than 6.1: %w", errors.ErrUnsupported)

func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// tooOld reports whether a kernel release is before 6.1. One that cannot be
// read is left to the probes.
func tooOld(release string) bool {
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return false
	}
	return major < 6 || major == 6 && minor < 1
}

// explain wraps an error of the setup with what usually causes it.
func explain(err error) error {
	return &backend.UnavailableError{Backend: "io_uring", Err: err, Hint: hint(err, readSysctl(), memlockLimit())}
}

func hint(err error, sysctl, memlock string) string {
	switch {
	case errors.Is(err, errTooOld):
		return "Linux 6.1 or newer is needed"
	case errors.Is(err, syscall.EPERM) && sysctl == "2":
		return "the sysctl kernel.io_uring_disabled is 2, which forbids it to everybody; 0 allows it"
	case errors.Is(err, syscall.EPERM) && sysctl == "1":
		return "the sysctl kernel.io_uring_disabled is 1, which forbids it to processes without CAP_SYS_ADMIN that are not in the group kernel.io_uring_group"
	case errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EACCES):
		return "a seccomp profile or a security module forbids it, as the default profiles of Docker and containerd do; " +
			"a profile that allows io_uring_setup, io_uring_enter and io_uring_register helps"
	case errors.Is(err, syscall.ENOSYS):
		return "the kernel was built without it, or a seccomp profile or sandbox hides it"
	case errors.Is(err, syscall.ENOMEM):
		return "out of memory, or of the limit on locked memory: RLIMIT_MEMLOCK (ulimit -l) is " + memlock
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return "the limit on open files is reached (ulimit -n)"
	}
	return ""
}

// readSysctl returns kernel.io_uring_disabled, "" before Linux 6.6.
func readSysctl() string {
	b, err := os.ReadFile("/proc/sys/kernel/io_uring_disabled")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

func memlockLimit() string {
	var l unix.Rlimit
	switch err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &l); {
	case err != nil:
		return "unknown"
	case l.Cur == unix.RLIM_INFINITY:
		return "unlimited"
	}
	return fmt.Sprintf("%d KiB", l.Cur>>10)
}
