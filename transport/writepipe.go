package transport

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/loop"
)

// maxIdleWriteBuffer is the largest empty buffer that a write pipe keeps, in
// bytes.
const maxIdleWriteBuffer = 4 * defaultHigh

// writePipe is the transport of the writing end of a pipe. What is written in
// one turn is collected in queued; what the kernel is writing is in flying. The
// two change places, so that nothing is copied twice or allocated again.
type writePipe struct {
	pipe
	flow    FlowController
	marks   waterMarks
	queued  []byte
	flying  []byte // the rest of what is being written, a part of memory
	memory  []byte
	packets bool  // whether the file tells what one call writes from the next
	sizes   []int // of what is left of each packet, if it does
	write   backend.Op
	watch   backend.Op
	watches bool // whether the end of the reader can be seen
	atEnd   bool // EndTurn will be called
	drops   int
}

func newWritePipe(l *loop.Loop, fd int, file *os.File, p Protocol, watches bool) *writePipe {
	t := &writePipe{marks: newWaterMarks(), watches: watches}
	t.init(l, t, fd, file)
	t.write = backend.Op{Code: backend.OpWrite, FD: t.fd, Off: -1, Receiver: t}
	// POLLERR: no process can read the pipe any more. POLLHUP, which is always
	// reported, says so of a socket.
	t.watch = backend.Op{Code: backend.OpPoll, FD: t.fd, Arg: unix.POLLERR, Receiver: t}
	t.SetProtocol(p)
	return t
}

// SetProtocol gives the next event to p.
func (t *writePipe) SetProtocol(p Protocol) {
	if t.replace(p) {
		t.flow, _ = p.(FlowController)
	}
}

// start begins to watch for the end of the reader, after ConnectionMade.
func (t *writePipe) start() {
	if t.closing || !t.watches {
		return
	}
	if err := t.loop.Submit(&t.watch); err != nil {
		t.end(err)
	}
}

// Write queues p.
func (t *writePipe) Write(p []byte) error {
	if drop, err := t.mayWrite(len(p)); drop || err != nil {
		return err
	}
	t.queued = append(t.queued, p...)
	t.packed(len(p))
	t.wrote()
	return nil
}

// Writelines queues the concatenation of bufs.
func (t *writePipe) Writelines(bufs [][]byte) error {
	n := 0
	for _, p := range bufs {
		n += len(p)
	}
	if drop, err := t.mayWrite(n); drop || err != nil {
		return err
	}
	for _, p := range bufs {
		t.queued = append(t.queued, p...)
	}
	t.packed(n)
	t.wrote()
	return nil
}

// mayWrite reports whether n bytes may be written, or are to be dropped. It
// warns about the fifth and every later time that they go nowhere.
func (t *writePipe) mayWrite(n int) (drop bool, err error) {
	if err := t.loop.CheckThread("write"); err != nil {
		return true, err
	}
	if n == 0 || !t.closing {
		return n == 0, nil
	}
	if t.drops++; t.drops >= warnWrites {
		t.loop.Logger().Warn("pipe closed by peer or Close was called, dropping what is written", "transport", t.String())
	}
	return true, nil
}

// packed notes that the last n bytes of the queue belong together.
func (t *writePipe) packed(n int) {
	if t.packets {
		t.sizes = append(t.sizes, n)
	}
}

// wrote arranges for the queue to be written: at once if it is more than the high
// water mark, so that the protocol is paused only for what the kernel does not
// take, or if it cannot be written with what follows, else at the end of the turn.
// A protocol that is paused already is not resumed from inside its own call.
func (t *writePipe) wrote() {
	if t.ended {
		return
	}
	if !t.write.InFlight() && !t.marks.paused && (t.packets || t.WriteBufferSize() > t.marks.high) {
		t.writeNow()
	}
	if !t.write.InFlight() && !t.atEnd {
		t.atEnd = true
		t.loop.AtTurnEnd(t)
	}
	t.checkMarks()
}

// EndTurn writes what was queued in this turn; it implements loop.TurnEnder.
func (t *writePipe) EndTurn() {
	t.atEnd = false
	t.written()
}

// next submits a write if there is something to write and none is in flight.
func (t *writePipe) next() {
	if t.ended || t.write.InFlight() || !t.load() {
		return
	}
	if !t.watches {
		// A terminal in blocking mode, which somebody else may have chosen since,
		// is ready for one byte and then waits for all.
		_ = unix.SetNonblock(int(t.fd), true)
	}
	t.write.Buf = t.piece()
	if err := t.loop.Submit(&t.write); err != nil {
		t.end(err)
	}
}

// load makes what is queued the next to be written, when all before it is
// written. It reports whether there is something to write.
func (t *writePipe) load() bool {
	if len(t.flying) == 0 {
		t.memory, t.queued = t.queued, t.memory[:0]
		t.flying = t.memory
		if cap(t.queued) > maxIdleWriteBuffer {
			t.queued = nil
		}
	}
	return len(t.flying) > 0
}

// piece returns what the next call is to write.
func (t *writePipe) piece() []byte {
	if t.packets {
		return t.flying[:t.sizes[0]]
	}
	return t.flying
}

// took notes that the kernel has n bytes of the piece.
func (t *writePipe) took(n int) {
	t.flying = t.flying[n:]
	if !t.packets {
		return
	}
	if t.sizes[0] -= n; t.sizes[0] == 0 {
		t.sizes = t.sizes[1:]
	}
}

// writeNow writes what the kernel takes at once. Somebody else may have made the
// file blocking; then nothing is written, for that might take for ever.
func (t *writePipe) writeNow() {
	flags, err := unix.FcntlInt(uintptr(t.fd), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_NONBLOCK == 0 {
		return
	}
	for t.load() {
		n, err := unix.Write(int(t.fd), t.piece())
		if errno, failed := err.(syscall.Errno); failed && errno != syscall.EAGAIN && errno != syscall.EINTR {
			t.end(t.failure(errno))
		}
		if n <= 0 {
			return
		}
		t.took(n)
	}
}

// Complete is called when a write has ended or the reader has; it implements
// backend.Receiver.
func (t *writePipe) Complete(op *backend.Op, r backend.Result) {
	switch {
	case t.ended || t.loop.IsClosed():
	case op == &t.watch:
		t.watched(r)
	case r.Errno == 0:
		t.took(r.N)
		defer t.written() // also after a runtime.Goexit in the callback
		t.checkMarks()
	case r.Errno == syscall.EINTR || r.Errno == syscall.EAGAIN:
		t.next()
	default:
		t.end(t.failure(r.Errno))
	}
}

// written goes on after a write, or with the first.
func (t *writePipe) written() {
	t.next()
	t.loseIfWritten()
}

// loseIfWritten ends what Close began when everything is written.
func (t *writePipe) loseIfWritten() {
	if t.closing && t.WriteBufferSize() == 0 {
		t.lose(nil)
	}
}

// watched ends the connection because nobody reads any more. That is an error
// only if something is left to be read.
func (t *writePipe) watched(r backend.Result) {
	switch {
	case r.Errno == syscall.EPERM:
		// A device that cannot be polled.
	case r.Errno != 0:
		t.end(t.failure(r.Errno))
	case t.WriteBufferSize() > 0:
		t.end(t.failure(syscall.EPIPE))
	default:
		t.end(nil)
	}
}

func (t *writePipe) failure(errno syscall.Errno) error {
	return fmt.Errorf("write to pipe %s: %w", t.name(), errno)
}

// checkMarks tells the protocol to write less, or more again.
func (t *writePipe) checkMarks() {
	if t.flow == nil || t.ended {
		return
	}
	switch pause, resume := t.marks.turn(t.WriteBufferSize()); {
	case pause:
		t.call("PauseWriting", t, t.proto, t.flow.PauseWriting)
	case resume:
		t.call("ResumeWriting", t, t.proto, t.flow.ResumeWriting)
	}
}

// end drops what is buffered and loses the connection.
func (t *writePipe) end(err error) {
	if t.ended {
		return
	}
	var errno syscall.Errno
	if err != nil && !errors.As(err, &errno) {
		t.loop.CallExceptionHandler(&loop.ExceptionContext{
			Message: "Fatal write error on pipe transport", Exception: err, Transport: t, Protocol: t.proto,
		})
	}
	t.queued, t.flying, t.memory, t.sizes = nil, nil, nil, nil
	t.lose(err)
}

// Close loses the connection when everything is written.
func (t *writePipe) Close() {
	if t.closing || t.loop.Refuses("close of a pipe") {
		return
	}
	t.closing = true
	t.loseIfWritten()
}

// WriteEOF is Close: a pipe has no other way to tell its end.
func (t *writePipe) WriteEOF() error {
	t.Close()
	return nil
}

// CanWriteEOF returns true.
func (t *writePipe) CanWriteEOF() bool { return true }

// Abort drops what is buffered.
func (t *writePipe) Abort() {
	if !t.loop.Refuses("abort of a pipe") {
		t.end(nil)
	}
}

// SetWriteBufferLimits sets the water marks.
func (t *writePipe) SetWriteBufferLimits(high, low int) error {
	if err := t.marks.set(high, low); err != nil {
		return err
	}
	t.wrote()
	return nil
}

// WriteBufferLimits returns the water marks.
func (t *writePipe) WriteBufferLimits() (low, high int) { return t.marks.low, t.marks.high }

// WriteBufferSize returns the number of bytes that the kernel has not taken.
func (t *writePipe) WriteBufferSize() int { return len(t.queued) + len(t.flying) }

// IsReading returns false.
func (t *writePipe) IsReading() bool { return false }

// PauseReading is for transports that read.
func (t *writePipe) PauseReading() error { return t.writeOnly("PauseReading") }

// ResumeReading is for transports that read.
func (t *writePipe) ResumeReading() error { return t.writeOnly("ResumeReading") }

func (t *writePipe) writeOnly(what string) error {
	return fmt.Errorf("%s on write pipe %s: %w", what, t.name(), ErrUnsupported)
}

// String describes the transport.
func (t *writePipe) String() string {
	state := "open"
	switch {
	case t.ended:
		state = "closed"
	case t.closing:
		state = "closing"
	}
	return fmt.Sprintf("<WritePipeTransport %s %s bufsize=%d>", t.name(), state, t.WriteBufferSize())
}
