package uring

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/internal/hot"
	"github.com/seed-80cfe818/ringloop/internal/linger"
)

// Backend performs operations with one ring. See backend.Backend for which
// goroutine may call what.
type Backend struct {
	ring  *ring
	waker *waker
	slots slots
	fds   fdTable
	pins  pins
	arena arena

	bufs   *buffers   // nil without provided buffers
	own    hot.Buffer // receives for connections that are better off without them, see bulk.go
	direct int        // the size in bytes from which on a send is tried at once
	copied []byte     // a piece of a file on its way to a blocking socket
	lent   int32      // a provided buffer's number plus 1 while a receiver has it

	lookout linger.Lookout

	// done holds the slots whose result is known without the kernel; those
	// before doneHead are delivered.
	done     []uint32
	doneHead int
	// doneEnd and cqEnd are how far Dispatch delivers: what the last Wait found.
	doneEnd int
	cqEnd   uint32
	halted  bool // a receiver has asked the running Dispatch to return
	bulks   int  // how many receives in bulk there were since the last Wait
	polls   int  // how many operations are polls; see stale.go

	closable []uint32 // slots of OpClose that nothing holds back any more
	closing  []uint32 // those whose entry is written but not yet taken

	use      abilities
	features atomic.Pointer[backend.Features]
	phase    phase
	broken   error // the kernel has dropped a completion, and says so once
}

// phase is where a backend is in its life.
type phase uint8

const (
	created phase = iota
	enabled
	draining
	closed
)

// Bits of State.Mark. The bits from markHabit on are those of bulk.go; they
// outlive the operation, for the next one with the same Op.
const (
	markQueued  = 1 << iota // in a queue of its descriptor
	markLeaving             // a multishot recv that is cancelled to receive in bulk
	markBulk                // receives in bulk
	markHabit               // and above: counts what speaks for a change
)

var _ backend.Backend = (*Backend)(nil)

// New creates a backend that is not yet bound to a thread; nil options are the
// defaults. It may be called from any goroutine. The error is backend.ErrInvalid
// for options that make no sense, or a *backend.UnavailableError if io_uring cannot
// be used here.
func New(o *Options) (*Backend, error) {
	opt, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	known, err := probed()
	if err != nil {
		return nil, err
	}
	b, err := build(opt, known)
	if err != nil {
		return nil, explain(err)
	}
	return b, nil
}

// build creates the ring and what belongs to it.
func build(opt Options, known map[string]error) (*Backend, error) {
	refused := opt.refused()
	s, err := setup(opt.SQEntries, opt.CQEntries, refused)
	if err != nil {
		return nil, err
	}
	missing := s.missing
	for f, why := range known {
		if _, ok := missing[f]; !ok {
			missing[f] = why
		}
	}
	for f, why := range refused {
		missing[f] = why
	}
	b := &Backend{own: hot.New(max(opt.BufferSize, hot.DefaultSize())), direct: directSend(), lookout: linger.New()}
	if b.ring, err = newRing(s); err != nil {
		b.ring.close()
		return nil, err
	}
	if b.waker, err = newWaker(); err != nil {
		b.release()
		return nil, err
	}
	if missing[ProvidedBuffers] == nil {
		if b.bufs, err = newBuffers(b.ring, opt.Buffers, opt.BufferSize); err != nil {
			missing[ProvidedBuffers] = err
		}
	}
	b.setFeatures(missing)
	return b, nil
}

// Name returns "io_uring".
func (b *Backend) Name() string { return "io_uring" }

// Features reports what of the kernel's abilities is in use.
func (b *Backend) Features() backend.Features { return *b.features.Load() }

// Enable binds the ring to the calling thread.
func (b *Backend) Enable() error {
	if b.phase != created {
		return fmt.Errorf("io_uring backend: Enable called twice or after Close: %w", backend.ErrInvalid)
	}
	if err := b.ring.enable(); err != nil && !errors.Is(err, syscall.EBADFD) { // EBADFD: an Enable that failed has done it
		return fmt.Errorf("io_uring backend: enabling the ring: %w", err)
	}
	// A filter that was installed since New shows while there still is a choice.
	if errno := b.ring.flush(); errno != 0 && !isTransient(errno) {
		return fmt.Errorf("io_uring backend: using the ring: %w", os.NewSyscallError("io_uring_enter", errno))
	}
	if b.use.registeredRing {
		if err := b.ring.registerFD(); err != nil {
			b.lose(RegisteredRing, err)
		}
	}
	b.phase = enabled
	b.watchWaker()
	return nil
}

// Submit takes over op.
func (b *Backend) Submit(op *backend.Op) error {
	if b.phase != enabled {
		return &backend.OpError{Op: op.String(), Err: backend.ErrClosed}
	}
	if err := backend.Check(op); err != nil {
		return err
	}
	var e *fdEntry
	if op.Code != backend.OpNop {
		if e = b.fds.find(op.FD); e != nil && e.closing != 0 {
			return &backend.OpError{Op: op.String(), Err: backend.ErrBadFD}
		}
	}
	op.State.CancelRequested = false
	op.State.Mark &^= markQueued | markLeaving
	idx := b.slots.take(op)
	b.pin(b.slots.at(idx))
	if isPoll(op) {
		b.polls++
	}
	switch {
	case op.Code == backend.OpNop:
		b.start(idx)
	case e == nil:
		b.later(idx, -int32(syscall.EBADF))
	case op.Code == backend.OpClose:
		b.beginClose(e, idx)
	default:
		b.enqueue(e, idx)
	}
	return nil
}

// enqueue starts an operation or puts it behind those of its direction.
func (b *Backend) enqueue(e *fdEntry, idx uint32) {
	b.link(e, idx)
	op := b.slots.at(idx).op
	if q := e.queueOf(op); q != nil {
		q.push(op)
		op.State.Mark |= markQueued
		if q.head != op {
			op.State.Phase = backend.Queued
			return
		}
	}
	b.start(idx)
}

// beginClose cancels everything on a descriptor. startCloses goes on once the
// last completion was delivered.
func (b *Backend) beginClose(e *fdEntry, idx uint32) {
	b.slots.at(idx).op.State.Phase = backend.Armed
	e.closing = idx
	if e.all == 0 {
		b.closable = append(b.closable, idx)
		return
	}
	for i := e.all; i != 0; i = b.slots.at(i).next {
		b.cancel(i)
	}
}

// Try performs only large sends and single accepts, of which there would be no
// more than one in a turn, and receives at delivery, which are a system call of
// their own in any case. Anything else that could be done at once is done by
// the next Wait, together with all others, for less than a system call.
func (b *Backend) Try(op *backend.Op) (backend.Result, bool) {
	switch {
	case op.Code == backend.OpSend && len(op.Buf) >= b.direct && b.wouldBeFirst(op):
		return trySend(op)
	case op.Code == backend.OpAccept && op.Flags&backend.Multishot == 0 && b.wouldBeFirst(op):
		return tryAccept(op)
	case op.Flags&backend.AtDelivery != 0 && b.wouldBeFirst(op):
		return tryPacket(op)
	}
	return backend.Result{}, false
}

// wouldBeFirst reports whether op, if it were submitted, would not have to wait
// for another operation.
func (b *Backend) wouldBeFirst(op *backend.Op) bool {
	if b.phase != enabled || op.InFlight() || backend.Check(op) != nil {
		return false
	}
	e := b.fds.find(op.FD)
	return e != nil && e.closing == 0 && e.queueOf(op).head == nil
}

// DirectSend returns the size in bytes below which the ring's sends are cheaper,
// copy included: 2 KiB where a system call is cheap, 16 KiB elsewhere.
func (b *Backend) DirectSend() int { return b.direct }

// Keep hands over the buffer that data is in, unless there is only a little.
func (b *Backend) Keep(data []byte) []byte {
	if b.lent == 0 {
		return b.own.Keep(data)
	}
	bid := uint16(b.lent - 1)
	if len(data) < b.bufs.size/keepFrom || &data[0] != &b.bufs.mem[bid][0] {
		return nil
	}
	b.lent = 0
	return b.bufs.keep(bid)
}

// GiveBack takes a buffer back.
func (b *Backend) GiveBack(kept []byte) bool {
	if b.bufs != nil && b.bufs.giveBack(kept) {
		return true
	}
	return b.own.GiveBack(kept)
}

// Cancel asks for op to end soon.
func (b *Backend) Cancel(op *backend.Op) {
	if !op.InFlight() || b.phase != enabled {
		return
	}
	op.State.CancelRequested = true
	if op.Code != backend.OpClose {
		b.cancel(op.State.Slot)
	}
}

func (b *Backend) cancel(idx uint32) {
	s := b.slots.at(idx)
	if s.cancelled {
		return
	}
	s.cancelled = true
	switch s.op.State.Phase {
	case backend.Queued:
		b.dequeue(b.fds.at(s.op.FD), s.op)
		b.later(idx, -int32(syscall.ECANCELED))
	case backend.Armed:
		b.prepCancel(idx)
	}
}

// Wait submits with one system call, and sleeps in another if nothing has
// completed by then, nor shortly after if that is to be expected. It makes none
// if there is nothing to submit, nothing to wait for and nothing that the kernel
// holds back.
func (b *Backend) Wait(timeout time.Duration) error {
	if b.phase != enabled && b.phase != draining {
		return fmt.Errorf("io_uring backend: Wait: %w", backend.ErrClosed)
	}
	if b.broken != nil { // of an operation that nobody would ever hear of
		return b.broken
	}
	b.takeBack()
	b.startCloses()
	if b.doneHead > 0 {
		b.done = b.done[:copy(b.done, b.done[b.doneHead:])]
		b.doneHead = 0
	}
	var start time.Time
	if timeout > 0 {
		start = time.Now()
	}
	for left := timeout; ; {
		woken, err := b.enter(left)
		b.skipInternal()
		if err != nil {
			b.doneEnd, b.cqEnd = b.doneHead, b.ring.head // both have moved, and Close may release the ring now
			return err
		}
		if woken || left == 0 || b.doneHead < len(b.done) || b.ring.ready() {
			break
		}
		if timeout > 0 {
			left = max(0, timeout-time.Since(start))
		}
	}
	b.doneEnd, b.cqEnd = len(b.done), atomic.LoadUint32(b.ring.cqTail)
	b.newestFirst()
	b.findStale()
	return nil
}

// enter makes at most one system call, one that sleeps only if nothing is
// there, nothing is to submit, and nobody has called Wake. Submitting without
// sleeping costs no second call when something completes at once, as sends do;
// and the scheduler, which takes the processor away from a thread that seems to
// sleep for 20 us, is not told of a call that does work.
func (b *Backend) enter(timeout time.Duration) (woken bool, err error) {
	if len(b.ring.stash) > 0 {
		b.ring.unstash()
	}
	sleep := timeout != 0 && b.doneHead == len(b.done) && len(b.ring.stash) == 0 && !b.ring.ready() && b.ring.pending() == 0
	if sleep {
		var arrived bool
		timeout, arrived = b.lookout.For(timeout, b.arrived)
		sleep = !arrived && timeout != 0 && b.waker.state.CompareAndSwap(awake, asleep)
	}
	var errno syscall.Errno
	if sleep {
		errno = b.ring.wait(timeout)
	} else {
		errno = b.ring.poll()
	}
	woken = b.waker.rest()
	b.forgetCloses()
	if errno == 0 || isTransient(errno) {
		return woken, nil
	}
	err = os.NewSyscallError("io_uring_enter", errno)
	if errno == syscall.EBADR {
		b.broken = err
	}
	return woken, err
}

// isTransient reports whether an error of io_uring_enter(2) only means that the
// next call has to go on.
func isTransient(errno syscall.Errno) bool {
	switch errno {
	case syscall.EINTR, syscall.ETIME, syscall.EAGAIN, syscall.EBUSY:
		return true
	}
	return false
}

// arrived reports whether there is something to do, without a system call.
func (b *Backend) arrived() bool {
	return b.ring.ready() || b.ring.holdsBack() || b.waker.state.Load() != awake
}

// skipInternal acts on the completions at the head of the queue that no
// receiver hears of, so that they do not end a Wait. What it submits may complete
// at once, in the same way, again and again: that is for the next Wait, which lets
// the kernel go on with what it has to do meanwhile.
func (b *Backend) skipInternal() {
	for end := atomic.LoadUint32(b.ring.cqTail); b.ring.head != end; {
		c := *b.ring.at(b.ring.head)
		if c.UserData()>>56 == kindOp {
			return
		}
		b.ring.head++
		b.internal(c.UserData(), c.Result(), c.Flags())
	}
}

// Dispatch delivers the completions that the last Wait found.
func (b *Backend) Dispatch() {
	b.takeBack()
	b.halted = false
	for b.doneHead < b.doneEnd && !b.halted {
		idx := b.done[b.doneHead]
		b.doneHead++
		res := b.slots.at(idx).op.State.Res
		if res < 0 {
			b.finish(idx, failure(syscall.Errno(-res)))
		} else {
			b.finish(idx, backend.Result{N: int(res)})
		}
	}
	for b.ring.head != b.cqEnd && !b.halted {
		c := *b.ring.at(b.ring.head)
		b.ring.head++
		b.complete(c)
	}
}

// Halt makes the running Dispatch return.
func (b *Backend) Halt() { b.halted = true }

// Wake makes the running or the next Wait return.
func (b *Backend) Wake() { b.waker.wake() }

// InFlight returns the number of operations in flight.
func (b *Backend) InFlight() int { return b.slots.inUse }

// Close cancels every operation, delivers the completions and releases the
// ring. It waits for operations that cannot be interrupted. If the kernel refuses
// to be asked for completions, that is the error, and the ring is closed without.
func (b *Backend) Close() error {
	switch b.phase {
	case closed:
		return nil
	case enabled:
		b.phase = draining
		for i := range b.slots.n {
			if op := b.slots.at(i).op; op != nil && op.Code != backend.OpClose {
				b.cancel(i)
			}
		}
	}
	b.lent = 0 // not taken back: a receiver that closes has it until it returns
	for b.phase == draining && b.InFlight() > 0 {
		if err := b.Wait(-1); err != nil {
			return errors.Join(err, b.abandon())
		}
		b.Dispatch()
	}
	b.phase, b.lent = closed, 0
	return b.release()
}

// abandoned holds backends that ended with operations in flight.
var abandoned sync.Map

// abandon closes the ring of which no completion can be had any more, and the
// descriptors that were to be closed. The kernel ends what is in flight after that,
// nobody hears when, so that the memory that it may still touch stays where it is.
func (b *Backend) abandon() error {
	abandoned.Store(b, nil)
	b.phase = closed
	b.waker.close()
	err := b.ring.close()
	for i := range b.slots.n {
		op := b.slots.at(i).op
		if op == nil || op.Code != backend.OpClose || op.State.Phase != backend.Armed { // Done: of what was not open
			continue
		}
		if b.fds.at(op.FD).closing == i {
			_, _, errno := syscall.RawSyscall(unix.SYS_CLOSE, uintptr(op.FD), 0, 0)
			b.finish(i, failure(errno))
		}
	}
	return err
}

// release gives everything back to the kernel, the ring first, because it
// uses the memory.
func (b *Backend) release() error {
	if b.waker != nil {
		b.waker.close()
	}
	err := b.ring.close()
	b.arena.close()
	if b.bufs != nil {
		b.bufs.close()
	}
	if b.copied != nil {
		unix.Munmap(b.copied)
	}
	return err
}
