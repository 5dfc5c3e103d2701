package epoll

import (
	"fmt"
	"math"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/internal/nowait"
)

const (
	// maxSkips is how many turns with completions of their own may go by
	// without a look at the descriptors, if nobody polls them.
	maxSkips = 2
	// proveAfter is how long nothing must happen before suspects are proven,
	// and proveTurns after how many busy turns they are proven anyway.
	proveAfter = time.Millisecond
	proveTurns = 1024
	// maxEvents bounds the array of events.
	maxEvents = 4096
)

// Wait collects completed operations and ready descriptors for Dispatch. See
// backend.Backend.
func (b *Backend) Wait(timeout time.Duration) error {
	if b.closed {
		return fmt.Errorf("epoll: wait: %w", backend.ErrClosed)
	}
	b.turnNo++
	b.closeIdle()
	if len(b.unpolled) > 0 {
		b.dropPolls()
	}
	b.dropStale()
	done := b.done.head != nil || b.batch.head != nil
	if done && b.polling == 0 && b.skipped < maxSkips {
		b.skipped++
		b.wakeState.CompareAndSwap(woken, awake)
	} else {
		b.skipped = 0
		if done || len(b.next) > 0 || b.at < len(b.turn) || b.cur != nil {
			timeout = 0
		}
		if err := b.collect(timeout); err != nil {
			return err
		}
	}
	b.batch.append(&b.done)
	b.beginTurn()
	return nil
}

// dropStale looks again at what an earlier Wait has noted for polls and no
// Dispatch has told them, as between two runs of a loop: the data may have been
// read since.
func (b *Backend) dropStale() {
	if b.cur != nil {
		b.cur.stillReady()
	}
	for _, e := range b.turn[b.at:] {
		e.stillReady()
	}
}

// stillReady keeps only those of the noted events that are still there. A
// multishot is to be told of all.
func (e *entry) stillReady() {
	if e.polls == nil || e.revents == 0 {
		return
	}
	for op := e.polls; ; {
		if op.Flags&backend.Multishot != 0 {
			return
		}
		if op = op.State.Next; op == e.polls {
			break
		}
	}
	e.revents &= uint16(nowait.Poll(e.fd, int16(e.revents)))
}

// collect waits for events and notes them. If there are suspects and nothing
// happens, it proves them and goes on waiting.
func (b *Backend) collect(timeout time.Duration) error {
	if len(b.suspects) == 0 {
		_, err := b.sleep(timeout)
		return err
	}
	if b.quiet++; b.quiet >= proveTurns {
		b.proveSuspects()
	}
	first := timeout
	if first < 0 || first > proveAfter {
		first = proveAfter
	}
	quiet, err := b.sleep(first)
	if err != nil || !quiet {
		return err
	}
	b.proveSuspects()
	switch {
	case len(b.next) > 0:
		timeout = 0
	case timeout > 0:
		timeout -= first
	}
	_, err = b.sleep(timeout)
	return err
}

// sleep waits for at most timeout, for ever if it is negative, and notes the
// events. It looks out for them for a moment before it really sleeps, with calls
// that do not involve the runtime. quiet says that the timeout passed and
// nothing happened.
func (b *Backend) sleep(timeout time.Duration) (quiet bool, err error) {
	var n int
	var errno syscall.Errno
	left, arrived := b.lookout.For(timeout, func() bool {
		n, errno = b.epollWait(0)
		return n > 0 || errno != 0 || b.wakeState.Load() != awake
	})
	if !arrived {
		if left != 0 && !b.wakeState.CompareAndSwap(awake, sleeping) {
			left = 0
		}
		n, errno = b.epollWait(left)
	}
	woke := b.wakeState.Load() != awake && b.wakeState.Swap(awake) == woken
	if errno != 0 {
		if errno == syscall.EINTR {
			return false, nil
		}
		return false, fmt.Errorf("epoll_wait: %w", errno)
	}
	for i := range n {
		b.note(&b.events[i])
	}
	if n == len(b.events) && n < maxEvents {
		b.events = make([]unix.EpollEvent, 2*n)
	}
	return n == 0 && !woke && timeout != 0, nil
}

// epollWait makes the system call: raw if it cannot wait, so that the runtime
// is not bothered, and else in the way that lets it use the processor.
func (b *Backend) epollWait(timeout time.Duration) (int, syscall.Errno) {
	ev, max := uintptr(unsafe.Pointer(&b.events[0])), uintptr(len(b.events))
	if timeout == 0 {
		n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(b.epfd), ev, max, 0, 0, 0)
		return int(n), errno
	}
	if timeout > 0 && b.noPwait2.Load() == nil {
		b.scratch.ts = unix.NsecToTimespec(int64(timeout))
		n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(b.epfd), ev, max,
			uintptr(unsafe.Pointer(&b.scratch.ts)), 0, 0)
		if errno != syscall.ENOSYS && errno != syscall.EPERM {
			return int(n), errno
		}
		// A filter was installed since New.
		err := fmt.Errorf("epoll_pwait2: %w", errno)
		b.noPwait2.Store(&err)
	}
	ms := -1
	if timeout > 0 {
		ms = int(min((timeout-1)/time.Millisecond+1, math.MaxInt32))
	}
	n, _, errno := unix.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(b.epfd), ev, max, uintptr(ms), 0, 0)
	return int(n), errno
}

// note turns an event into bits of its entry, and lists the entry if something
// waits for them.
func (b *Backend) note(ev *unix.EpollEvent) {
	if ev.Pad == wakeTag {
		return
	}
	e := b.find(ev.Fd)
	if e == nil || e.gen != ev.Pad {
		return // of a descriptor that was closed meanwhile
	}
	got := ev.Events
	if got&(unix.EPOLLIN|unix.EPOLLPRI|endEvents) != 0 {
		e.bits |= readable
	}
	if got&(unix.EPOLLOUT|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		e.bits |= writable
	}
	if got&endEvents != 0 {
		e.bits |= hungUp
	}
	if got&unix.EPOLLPRI != 0 {
		e.kind = kindOther // urgent data cuts reads short
	}
	if e.polls != nil {
		e.revents |= uint16(got & pollEvents)
		e.noted = uint8(b.turnNo)
		b.list(e)
		return
	}
	if e.workable() {
		b.list(e)
		return
	}
	if got&unix.EPOLLOUT != 0 && e.out == nil && e.mask&inEvents != 0 && e.kindNow() != kindTCP {
		// Unlike TCP, these report room after every read of the peer. What is
		// not registered is not reported; the next full buffer registers it.
		b.register(e, e.mask&^unix.EPOLLOUT)
	}
}
