package epoll

import (
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
)

// shareOfTurn is how many operations of a direction an entry may perform in
// one turn. A multishot recv performs as many as fill the buffer, up to about
// recvOfTurn bytes.
const (
	shareOfTurn = 128
	recvOfTurn  = 256 << 10
)

// stage is what is being worked on for the entry in hand.
type stage uint8

const (
	stageIn stage = iota
	stageOut
	stagePolls
)

// list puts e on the list of entries with work for the next turn.
func (b *Backend) list(e *entry) {
	if e.bits&listed == 0 {
		e.bits |= listed
		b.next = append(b.next, e)
	}
}

// beginTurn hands the listed entries to Dispatch, behind what a Dispatch that
// panicked or was halted has left.
func (b *Backend) beginTurn() {
	if b.at == len(b.turn) {
		b.turn, b.next, b.at = b.next, b.turn[:0], 0
		return
	}
	b.turn = append(b.turn, b.next...)
	b.next = b.next[:0]
}

// Dispatch delivers the completions that Wait found: first those that were
// complete by themselves, then those of the ready descriptors, whose calls are
// made here one by one. All progress is kept in b, because a Receiver may
// panic, close, cancel and submit.
func (b *Backend) Dispatch() {
	b.halted = false
	for b.batch.head != nil && !b.halted {
		b.deliverDone()
	}
	for !b.halted {
		if b.cur == nil {
			if b.at == len(b.turn) {
				return
			}
			e := b.turn[b.at]
			b.turn[b.at] = nil
			b.at++
			e.bits &^= listed
			b.cur, b.stage, b.share = e, stageIn, shareOfTurn
		}
		b.work(b.cur)
	}
}

// Halt makes the running Dispatch return.
func (b *Backend) Halt() { b.halted = true }

// work performs and delivers at most one completion of e, or goes on to the
// next stage.
func (b *Backend) work(e *entry) {
	switch b.stage {
	case stageIn:
		if b.may(e.in) && e.bits&readable != 0 {
			b.recheckMode(e, e.in)
			b.share--
			b.workInput(e, e.in)
			return
		}
		b.stage, b.share = stageOut, shareOfTurn
	case stageOut:
		if b.may(e.out) && e.bits&writable != 0 {
			b.recheckMode(e, e.out)
			b.share--
			b.workOutput(e, e.out)
			return
		}
		b.stage = stagePolls
	case stagePolls:
		if e.polls != nil && e.revents != 0 && b.workPolls(e) {
			return
		}
		e.revents = 0
		b.cur = nil
		if e.workable() {
			b.list(e)
		}
	}
}

// may reports whether op can be performed in this turn: not if it was submitted
// since the Wait, for its completion belongs to the next Dispatch.
func (b *Backend) may(op *backend.Op) bool {
	return op != nil && b.share > 0 && op.State.Mark != uint8(b.turnNo)
}

// recheckMode learns the mode anew, once per turn and direction: somebody may have
// made the file blocking while op waited.
func (b *Backend) recheckMode(e *entry, op *backend.Op) {
	if b.share == shareOfTurn {
		e.learnMode(op)
	}
}

func (b *Backend) workInput(e *entry, op *backend.Op) {
	if op.Code == backend.OpRecv && op.Buf == nil {
		b.workRecv(e, op)
		return
	}
	n, errno, ok := b.attempt(e, op)
	if !ok {
		return
	}
	if errno == 0 && op.Flags&backend.Multishot != 0 {
		op.Receiver.Complete(op, backend.Result{N: n, More: true})
		return
	}
	unlink(&e.in, op)
	b.deliverLast(op, backend.Result{N: n, Errno: errno})
}

// workRecv receives into the shared buffer. A multishot recv goes on only if
// that was filled: whoever sends so much is still sending; and only if the
// receiver does not keep it: then it is busy. It has a small share all the same,
// so that a fast peer cannot keep the others waiting.
func (b *Backend) workRecv(e *entry, op *backend.Op) {
	buf := b.hot.Bytes()
	n, errno, ok := b.recv(e, buf)
	if !ok {
		return
	}
	if op.Flags&backend.Multishot != 0 {
		if n > 0 {
			share, kept := b.share-n*shareOfTurn/recvOfTurn, b.hot.Kept()
			b.share = 0 // should the receiver panic
			op.Receiver.Complete(op, backend.Result{Data: buf[:n:n], N: n, More: true})
			if n == len(buf) && b.hot.Kept() == kept && !op.Enough {
				b.share = share
			}
			return
		}
	}
	unlink(&e.in, op)
	r := backend.Result{N: n, Errno: errno}
	if n > 0 {
		r.Data = buf[:n:n]
	}
	b.deliverLast(op, r)
}

func (b *Backend) workOutput(e *entry, op *backend.Op) {
	n, errno, ok := b.attempt(e, op)
	if !ok {
		if e.kindNow() == kindOther {
			// A datagram socket may be writable and yet its peer be full, and
			// nobody reports when that changes: look again after a while.
			b.suspect(e)
		}
		return
	}
	unlink(&e.out, op)
	b.deliverLast(op, backend.Result{N: n, Errno: errno})
}

// workPolls tells one poll of e what is ready, and reports whether there was
// one. Slot keeps a multishot poll from being told twice in a turn.
func (b *Backend) workPolls(e *entry) bool {
	age := uint32(uint8(b.turnNo) - e.noted) // more than 0 after a Dispatch that was cut short
	for op := e.polls; ; {
		if b.turnNo-op.State.Slot > age { // armed, or told, before the events were noted
			op.State.Slot = b.turnNo
			if b.workPoll(e, op) {
				return true
			}
		}
		if op = op.State.Next; op == e.polls {
			return false
		}
	}
}

func (b *Backend) workPoll(e *entry, op *backend.Op) bool {
	r := backend.Result{}
	if op.Code == backend.OpWaitID {
		var ok bool
		if r.Errno, ok = reap(op); !ok {
			return false
		}
	} else {
		r.N = int(uint32(e.revents) & (op.Arg | unix.EPOLLERR | unix.EPOLLHUP))
		if r.N == 0 {
			return false
		}
		r.More = op.Flags&backend.Multishot != 0
	}
	if r.More {
		op.Receiver.Complete(op, r)
		return true
	}
	unlink(&e.polls, op)
	b.polling--
	if e.idle() && e.bits&stream == 0 {
		b.unpolled = append(b.unpolled, e)
	}
	b.deliverLast(op, r)
	return true
}

// armPoll registers what op waits for. The kernel is asked every time: it then
// reports what is ready already, and notices a number that was used before.
func (b *Backend) armPoll(e *entry, op *backend.Op) {
	mask := e.mask | uint16(op.Arg&pollEvents)
	if op.Code == backend.OpWaitID {
		mask |= unix.EPOLLIN
	}
	if mask == 0 {
		mask = unix.EPOLLERR // always reported
	}
	if errno := b.register(e, mask); errno != 0 {
		b.finish(op, 0, errno)
		return
	}
	op.State.Slot = b.turnNo
	push(&e.polls, op)
	b.polling++
}

func (b *Backend) submitWaitID(e *entry, op *backend.Op) {
	if errno, ok := reap(op); ok {
		b.finish(op, 0, errno)
		return
	}
	b.armPoll(e, op)
}

// unpoll removes the registration that only polls needed, so that after the
// last one nothing of the descriptor is left in the kernel: it belongs to
// somebody else, who may close it with close(2).
func (b *Backend) unpoll(e *entry) {
	if e.idle() && e.bits&(stream|closing) == 0 {
		b.unregister(e)
	}
}

// dropPolls does so for polls that have completed and were not armed anew.
func (b *Backend) dropPolls() {
	for _, e := range b.unpolled {
		b.unpoll(e)
	}
	clear(b.unpolled)
	b.unpolled = b.unpolled[:0]
}

// reap asks for the outcome of the child process of op; ok is false while it
// runs.
func reap(op *backend.Op) (errno syscall.Errno, ok bool) {
	var info siginfo
	if errno = waitPidfd(op.FD, &info); errno != 0 {
		return errno, true
	}
	if info.pid == 0 {
		return 0, false
	}
	op.Ext.Child = backend.Child{PID: int(info.pid), Code: int(info.code), Status: int(info.status)}
	return 0, true
}
