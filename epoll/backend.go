package epoll

import (
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/internal/hot"
	"github.com/seed-80cfe818/ringloop/internal/linger"
)

// Options configures a Backend. The zero value is a good choice.
type Options struct {
	// BufferSize is the size in bytes of the one buffer that receives without
	// memory of their own (multishot recv) use in turn: the most that one
	// completion of theirs delivers. 0 means 64 KiB, or 256 KiB where system
	// calls are dear. Small messages only ever touch its beginning, so that its
	// size costs them nothing.
	BufferSize int
}

// Backend implements backend.Backend with epoll(7) and non-blocking system
// calls. See backend.Backend for who may call what.
type Backend struct {
	epfd   int
	closed bool // Close was called: nothing is taken any more

	pages []*page // the descriptors' entries, see fds.go

	// Operations that have completed: done grows by Submit and Cancel, and Wait
	// moves it to batch, which Dispatch delivers.
	done, batch queue
	inFlight    int

	// Entries with work to do: next is for the coming turn, turn is what this
	// Dispatch works through, from at onwards. cur is the entry in hand, with
	// what is left of its share. See ready.go.
	next, turn []*entry
	at         int
	cur        *entry
	stage      stage
	share      int
	turnNo     uint32
	halted     bool // a receiver has asked the running Dispatch to return

	hot hot.Buffer // receives what shall be received into the backend's memory

	scratch scratch

	// See wait.go.
	events   []unix.EpollEvent
	noPwait2 atomic.Pointer[error] // why epoll_pwait2(2) is not used
	skipped  int
	polling  int // polls that are armed
	lookout  linger.Lookout
	suspects []*entry
	quiet    int // turns since the suspects were last looked at
	unpolled []*entry
	closes   []*backend.Op // for closeIdle

	// See wake.go.
	wakeState atomic.Uint32
	wakeMu    sync.Mutex
	wakeFD    int
}

var _ backend.Backend = (*Backend)(nil)

// New makes a backend; a nil o means defaults. It may be called on any thread:
// Enable decides which one the backend belongs to. The error is
// syscall.EINVAL for a negative BufferSize, or a *backend.UnavailableError that
// unwraps to what the kernel answered (EMFILE, ENFILE, ENOMEM).
func New(o *Options) (*Backend, error) {
	if o == nil {
		o = &Options{}
	}
	if o.BufferSize < 0 {
		return nil, fmt.Errorf("epoll: Options.BufferSize is %d: %w", o.BufferSize, syscall.EINVAL)
	}
	size := o.BufferSize
	if size == 0 {
		size = hot.DefaultSize()
	}
	b := &Backend{hot: hot.New(size), lookout: linger.New(), events: make([]unix.EpollEvent, 256)}
	var err error
	if b.epfd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, unavailable("epoll_create1", err)
	}
	if err = b.openWake(); err != nil {
		unix.Close(b.epfd)
		return nil, err
	}
	if err := probePwait2(); err != nil {
		b.noPwait2.Store(&err)
	}
	return b, nil
}

func unavailable(call string, err error) error {
	return &backend.UnavailableError{Backend: "epoll", Err: fmt.Errorf("%s: %w", call, err)}
}

// Name returns "epoll".
func (b *Backend) Name() string { return "epoll" }

// Enable binds the backend to the calling thread. Nothing in epoll depends on
// the thread, so it never fails on an open backend.
func (b *Backend) Enable() error {
	if b.closed {
		return backend.ErrClosed
	}
	return nil
}

// InFlight returns the number of operations whose terminal completion has not
// been delivered.
func (b *Backend) InFlight() int { return b.inFlight }

// Submit takes over op and performs it at once if it needs not wait; its
// completion is delivered by the next Dispatch all the same.
func (b *Backend) Submit(op *backend.Op) error {
	if b.closed {
		return &backend.OpError{Op: op.String(), Err: backend.ErrClosed}
	}
	if err := backend.Check(op); err != nil {
		return err
	}
	if op.Code == backend.OpNop {
		b.take(op)
		b.finish(op, 0, 0)
		return nil
	}
	e := b.find(op.FD)
	if e == nil { // a number that no open descriptor has
		b.take(op)
		b.finish(op, 0, syscall.EBADF)
		return nil
	}
	if e.bits&closing != 0 {
		return &backend.OpError{Op: op.String(), Err: backend.ErrBadFD}
	}
	b.take(op)
	switch {
	case op.Input():
		b.submitInput(e, op)
	case op.Output():
		b.submitOutput(e, op)
	case op.Code == backend.OpPoll:
		b.armPoll(e, op)
	case op.Code == backend.OpWaitID:
		b.submitWaitID(e, op)
	case op.Code == backend.OpClose:
		b.submitClose(e, op)
	default:
		n, errno, _ := b.attempt(e, op)
		b.finish(op, n, errno)
	}
	return nil
}

func (b *Backend) take(op *backend.Op) {
	op.State = backend.State{Phase: backend.Armed}
	b.inFlight++
}

func (b *Backend) submitInput(e *entry, op *backend.Op) {
	e.learnMode(op)
	if (op.Code == backend.OpAccept) != (e.bits&listens != 0) {
		e.bits |= readable // the wrong kind of socket says so without being ready
	}
	if e.in == nil && e.bits&readable != 0 && ownMemory(op) && op.Flags&backend.AtDelivery == 0 {
		if n, errno, ok := b.attempt(e, op); ok {
			b.finish(op, n, errno)
			return
		}
	}
	b.park(e, op, inEvents)
}

func (b *Backend) submitOutput(e *entry, op *backend.Op) {
	e.learnMode(op)
	if e.out == nil && (e.bits&writable != 0 || op.Code == backend.OpConnect) {
		if n, errno, ok := b.attempt(e, op); ok {
			b.finish(op, n, errno)
			return
		}
	}
	b.park(e, op, unix.EPOLLOUT)
}

// ownMemory reports whether an input operation can be performed outside of
// Dispatch: not if its outcome is lent memory or a series of completions.
func ownMemory(op *backend.Op) bool {
	return op.Flags&backend.Multishot == 0 && (op.Code != backend.OpRecv || op.Buf != nil)
}

// submitClose ends what waits on e and queues the close(2) behind the
// completions of it all: the list of completions is first in, first out. What
// nothing waits on is closed by the next Wait, even if no Dispatch follows.
func (b *Backend) submitClose(e *entry, op *backend.Op) {
	e.bits |= closing
	if e.idle() {
		b.closes = append(b.closes, op)
	}
	b.cancelAll(e)
	b.finish(op, 0, 0)
}

// closeIdle closes what nothing waits on, and of which no completion is still to be
// delivered.
func (b *Backend) closeIdle() {
	if len(b.closes) == 0 {
		return
	}
	b.markOwed(owed)
	for _, op := range b.closes {
		if e := b.find(op.FD); e != nil && e.bits&owed == 0 {
			op.State.Mark = alreadyClosed
			keep(op, 0, b.closeFD(op.FD))
		}
	}
	b.markOwed(0)
	clear(b.closes)
	b.closes = b.closes[:0]
}

// markOwed sets the bit owed, or none, of all that have completions to be delivered,
// other than that of a close.
func (b *Backend) markOwed(bit bits) {
	for _, q := range []*queue{&b.batch, &b.done} {
		for op := q.head; op != nil; op = op.State.Next {
			if op.Code == backend.OpClose || op.Code == backend.OpNop { // which has no descriptor
				continue
			}
			if e := b.find(op.FD); e != nil {
				e.bits = e.bits&^owed | bit
			}
		}
	}
}

// alreadyClosed is the Mark of an OpClose whose descriptor is closed before its
// completion is delivered.
const alreadyClosed = 1

func (b *Backend) cancelAll(e *entry) {
	for _, head := range []**backend.Op{&e.in, &e.out, &e.polls} {
		for *head != nil {
			b.abort(e, head, *head)
		}
	}
}

// Try performs op if nothing is queued before it and it needs no waiting. It
// skips the call when the descriptor is known not to be ready. Receives into
// the backend's memory, polls, closes and waits for processes always report
// false. A WaitAll send that would have to wait after a part reports that part.
func (b *Backend) Try(op *backend.Op) (backend.Result, bool) {
	if b.closed || op.Code == backend.OpNop || backend.Check(op) != nil {
		return backend.Result{}, false
	}
	e := b.find(op.FD)
	if e == nil || e.bits&closing != 0 {
		return backend.Result{}, false
	}
	switch {
	case op.Input():
		if e.in != nil || e.bits&readable == 0 || !ownMemory(op) {
			return backend.Result{}, false
		}
	case op.Output():
		if e.out != nil || e.bits&writable == 0 || op.Code == backend.OpConnect {
			return backend.Result{}, false
		}
	case op.Code == backend.OpPoll, op.Code == backend.OpClose, op.Code == backend.OpWaitID:
		return backend.Result{}, false
	}
	e.learnMode(op)
	op.State = backend.State{}
	n, errno, ok := b.attempt(e, op)
	if !ok {
		if n = progress(op); n == 0 {
			return backend.Result{}, false
		}
	}
	return backend.Result{N: n, Errno: errno}, true
}

// DirectSend returns 1: every send is a system call of its own.
func (b *Backend) DirectSend() int { return 1 }

// Keep hands over the receive buffer if data is in it.
func (b *Backend) Keep(data []byte) []byte { return b.hot.Keep(data) }

// GiveBack takes a receive buffer back.
func (b *Backend) GiveBack(kept []byte) bool { return b.hot.GiveBack(kept) }

// Cancel ends op with ECANCELED, or with what a WaitAll send had already sent.
func (b *Backend) Cancel(op *backend.Op) {
	if op.State.Phase == backend.Idle || op.Code == backend.OpClose {
		return
	}
	op.State.CancelRequested = true
	if op.State.Phase == backend.Done {
		return
	}
	e := b.find(op.FD)
	head := e.listOf(op)
	b.abort(e, head, op)
	switch {
	case head == &e.polls:
		b.unpoll(e)
	case e.workable():
		b.list(e) // the operation behind may go ahead
	}
}

// abort takes a waiting op out of its list and completes it as cancelled.
func (b *Backend) abort(e *entry, head **backend.Op, op *backend.Op) {
	unlink(head, op)
	if head == &e.polls {
		b.polling--
	}
	if op.Code == backend.OpSend || op.Code == backend.OpSendMsg {
		if n := progress(op); n > 0 {
			b.finish(op, n, 0)
			return
		}
	}
	b.finish(op, 0, syscall.ECANCELED)
}

// Close delivers what the last Wait found, cancels every operation, delivers
// their completions and closes the epoll descriptor. See backend.Backend.
func (b *Backend) Close() error {
	if b.epfd < 0 {
		return nil
	}
	b.closed = true
	b.hot.Leave() // to the Receiver that may have called this
	b.Dispatch()
	for _, p := range b.pages {
		if p == nil {
			continue
		}
		for i := range p {
			b.cancelAll(&p[i])
		}
	}
	for b.batch.append(&b.done); b.batch.head != nil; b.batch.append(&b.done) {
		b.deliverDone()
	}
	b.closeWake()
	fd := b.epfd
	b.epfd = -1
	b.pages, b.next, b.turn, b.at, b.cur = nil, nil, nil, 0, nil
	b.suspects, b.unpolled, b.closes = nil, nil, nil
	if err := unix.Close(fd); err != nil {
		return fmt.Errorf("close epoll descriptor %d: %w", fd, err)
	}
	return nil
}
