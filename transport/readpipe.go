package transport

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/loop"
)

// The size of the buffer of a read pipe in bytes: what a pipe holds, so that one
// read empties it; for packets, of which the kernel drops what does not fit, the
// size that asyncio has.
const (
	readPipeBuffer = 64 << 10
	readPackets    = 256 << 10
)

// readPipe is the transport of the reading end of a pipe. One read is in flight
// while reading is wanted; when reading is paused it is cancelled, and what it has
// brought all the same is kept.
type readPipe struct {
	pipe
	data   DataReceiver
	buffer BufferReceiver
	own    []byte // the buffer for a DataReceiver
	size   int    // of own in bytes
	protos int    // how many protocols there have been
	lentBy int    // whose memory the last read went to, as protos, 0 for own
	read   backend.Op
	first  backend.Op // polls for the first writer of a FIFO
	kept   backend.Result
	// started is set when reading may begin, after ConnectionMade; polling until
	// a FIFO has had a writer; keeping when kept is to be delivered; late when
	// ConnectionLost waits for the read.
	started, polling, paused, keeping, eof, late bool
	lateErr                                      error
}

// newReadPipe makes the transport of a descriptor. A FIFO that nobody may have
// opened for writing yet looks as if it had ended: polling waits for a writer.
func newReadPipe(l *loop.Loop, fd int, file *os.File, p Protocol, polling bool) *readPipe {
	t := &readPipe{polling: polling, size: readPipeBuffer}
	t.init(l, t, fd, file)
	t.read = backend.Op{Code: backend.OpRead, FD: t.fd, Off: -1, Receiver: t}
	t.first = backend.Op{Code: backend.OpPoll, FD: t.fd, Arg: unix.POLLIN, Receiver: t}
	t.SetProtocol(p)
	return t
}

// SetProtocol gives the next event to p.
func (t *readPipe) SetProtocol(p Protocol) {
	if !t.replace(p) {
		return
	}
	t.protos++ // protocols need not be comparable
	t.buffer, _ = p.(BufferReceiver)
	t.data, _ = p.(DataReceiver)
	t.takeBack()
	if t.read.InFlight() && t.foreign() {
		t.loop.CancelOp(&t.read)
	}
}

// start begins to read, after ConnectionMade.
func (t *readPipe) start() {
	t.started = true
	t.next()
}

// next submits a read if one is wanted and none is in flight.
func (t *readPipe) next() {
	if !t.mayRead() {
		return
	}
	op := &t.first
	if !t.polling {
		if t.prepare(); !t.mayRead() {
			return // GetBuffer may have done anything
		}
		op = &t.read
	}
	t.submit(op)
}

// readNow is next for what a poll has told of: that is delivered in the same turn,
// in front of timers.
func (t *readPipe) readNow() {
	if !t.mayRead() {
		return
	}
	if t.prepare(); !t.mayRead() {
		return // as in next
	}
	// Somebody may have made the file blocking.
	if flags, err := unix.FcntlInt(uintptr(t.fd), unix.F_GETFL, 0); err == nil && flags&unix.O_NONBLOCK != 0 {
		if n, err := unix.Read(int(t.fd), t.read.Buf); err == nil {
			t.handle(backend.Result{N: n})
			return
		}
	}
	t.submit(&t.read)
}

func (t *readPipe) submit(op *backend.Op) {
	if err := t.loop.Submit(op); err != nil {
		t.end(err)
	}
}

// mayRead reports whether a read is wanted and none is in flight.
func (t *readPipe) mayRead() bool {
	return t.IsReading() && t.started && !t.keeping && !t.read.InFlight() && !t.first.InFlight()
}

// prepare chooses the memory for the next read.
func (t *readPipe) prepare() {
	for t.buffer != nil {
		asked := t.protos
		buf := t.getBuffer(Default)
		if !t.mayRead() {
			return
		}
		if t.protos == asked {
			t.lentBy, t.read.Buf = asked, buf
			return
		}
	}
	if t.own == nil {
		t.own = make([]byte, t.size)
	}
	t.lentBy, t.read.Buf = 0, t.own
}

// getBuffer asks the protocol for memory, which must not be empty, or else the
// connection ends.
func (t *readPipe) getBuffer(sizehint int) (buf []byte) {
	asked := false
	defer func() {
		if !asked { // GetBuffer has ended its goroutine
			t.soon(t.next)
		}
	}()
	ok := t.callOrEnd(t.end, "GetBuffer", t, t.proto, func() { buf = t.buffer.GetBuffer(sizehint) })
	asked = true
	if ok && len(buf) == 0 {
		err := fmt.Errorf("%w: GetBuffer returned an empty buffer", loop.ErrInvalidArgument)
		t.end(err)
		t.report(err)
	}
	return buf
}

// Complete is called when the read has ended, or the poll before it; it
// implements backend.Receiver.
func (t *readPipe) Complete(op *backend.Op, r backend.Result) {
	switch {
	case t.loop.IsClosed():
	case op == &t.first:
		t.polling = false
		t.readNow()
	case t.late:
		t.late = false
		t.pipe.lose(t.lateErr)
	case t.closing:
	case t.paused:
		t.kept, t.keeping = r, true
		t.takeBack()
	default:
		t.handle(r)
	}
}

// handle delivers the result of a read.
func (t *readPipe) handle(r backend.Result) {
	defer t.next() // also after a runtime.Goexit in a callback
	switch {
	case r.Errno == syscall.EINTR || r.Errno == syscall.EAGAIN:
	case r.Errno == syscall.ECANCELED: // by SetProtocol or PauseReading
	case r.Errno != 0:
		t.failed(r.Errno)
	case r.N == 0:
		t.atEOF()
	default:
		t.deliver(t.read.Buf[:r.N])
	}
}

// deliver hands data, which is where the last read put it, to the protocol.
func (t *readPipe) deliver(data []byte) {
	switch {
	case t.buffer == nil:
		t.callData(data)
	case t.lentBy == t.protos:
		t.callUpdated(len(data))
	default:
		t.copyOut(data)
	}
}

func (t *readPipe) callData(data []byte) {
	if t.data != nil {
		t.callOrEnd(t.end, "DataReceived", t, t.proto, func() { t.data.DataReceived(data) })
	}
}

func (t *readPipe) callUpdated(n int) {
	t.callOrEnd(t.end, "BufferUpdated", t, t.proto, func() { t.buffer.BufferUpdated(n) })
}

// copyOut hands data that was read before the protocol was changed to a
// protocol with memory of its own. GetBuffer and BufferUpdated may do anything.
func (t *readPipe) copyOut(data []byte) {
	defer func() {
		if len(data) > 0 && !t.closing { // after a runtime.Goexit in a callback
			t.keep(data)
			t.soon(t.resume)
		}
	}()
	for len(data) > 0 && !t.closing {
		if t.paused || t.buffer == nil {
			rest := data
			data = nil
			t.copyRest(rest)
			return
		}
		asked := t.protos
		buf := t.getBuffer(len(data))
		if t.closing || t.paused || t.protos != asked {
			continue
		}
		n := copy(buf, data)
		data = data[n:]
		t.callUpdated(n)
	}
}

// copyRest deals with data that is not to be copied into a protocol's memory now.
func (t *readPipe) copyRest(data []byte) {
	if t.paused {
		t.keep(data)
		return
	}
	t.callData(data)
}

// keep keeps a copy of data, to be delivered when reading is resumed.
func (t *readPipe) keep(data []byte) {
	t.lentBy, t.read.Buf = 0, append([]byte(nil), data...)
	t.kept, t.keeping = backend.Result{N: len(data)}, true
}

// takeBack copies what is kept out of the memory of a protocol that was
// replaced, which may use it again.
func (t *readPipe) takeBack() {
	if t.keeping && t.kept.N > 0 && t.foreign() {
		t.keep(t.read.Buf[:t.kept.N])
	}
}

// foreign reports whether the last read went to the memory of a protocol that
// was replaced.
func (t *readPipe) foreign() bool { return t.lentBy != 0 && t.lentBy != t.protos }

// atEOF tells the protocol of the end, whatever it answers, and ends.
func (t *readPipe) atEOF() {
	t.eof = true
	debugLog(t.loop, "the peer has sent everything", t)
	defer t.end(nil) // also after a runtime.Goexit in the callback
	if r, ok := t.proto.(EOFReceiver); ok {
		t.callOrEnd(t.end, "EOFReceived", t, t.proto, func() { r.EOFReceived() })
	}
}

// failed ends the connection with an error of the kernel. EIO is how a
// pseudo-terminal says that its other side is closed; anything else is
// reported, because nothing that a peer does can cause it.
func (t *readPipe) failed(errno syscall.Errno) {
	err := fmt.Errorf("read from pipe %s: %w", t.name(), errno)
	t.end(err)
	if errno != syscall.EIO {
		t.report(err)
	}
}

func (t *readPipe) report(err error) {
	t.loop.CallExceptionHandler(&loop.ExceptionContext{
		Message: "Fatal read error on pipe transport", Exception: err, Transport: t, Protocol: t.proto,
	})
}

// end stops reading and loses the connection. The protocol's own memory is the
// kernel's until the read has ended, so then ConnectionLost waits for that.
func (t *readPipe) end(err error) {
	t.closing = true
	if t.ended || t.late {
		return
	}
	t.keeping = false
	if t.read.InFlight() && t.lentBy != 0 {
		t.late, t.lateErr = true, err
		t.loop.CancelOp(&t.read)
		return
	}
	t.lose(err)
}

// Close stops reading; what was received and not delivered is dropped.
func (t *readPipe) Close() {
	if !t.loop.Refuses("close of a pipe") {
		t.end(nil)
	}
}

// Abort is Close: nothing is to be sent.
func (t *readPipe) Abort() { t.Close() }

// IsReading reports whether data may be delivered.
func (t *readPipe) IsReading() bool { return !t.paused && !t.closing && !t.eof }

// PauseReading stops the delivery of data and of the end. What comes from now on is
// for who else reads the file, such as a child that has the same standard input.
func (t *readPipe) PauseReading() error {
	if err := t.loop.CheckThread("PauseReading"); err != nil {
		return err
	}
	if !t.paused {
		debugLog(t.loop, "reading is paused", t)
	}
	t.paused = t.paused || !t.closing
	if t.paused {
		t.loop.CancelOp(&t.read)
	}
	return nil
}

// ResumeReading undoes PauseReading. It reads on in the next turn: the caller
// may be the protocol, which has not done with what it was given.
func (t *readPipe) ResumeReading() error {
	if err := t.loop.CheckThread("ResumeReading"); err != nil {
		return err
	}
	if t.paused && !t.closing {
		debugLog(t.loop, "reading is resumed", t)
		t.paused = false
		t.soon(t.resume)
	}
	return nil
}

// resume delivers what came while reading was paused, and reads on.
func (t *readPipe) resume() {
	if t.keeping && t.IsReading() {
		t.keeping = false
		t.handle(t.kept)
		return
	}
	t.next()
}

// SetWriteBufferLimits is for transports that write.
func (t *readPipe) SetWriteBufferLimits(int, int) error { return t.readOnly("SetWriteBufferLimits") }

// WriteBufferLimits returns 0, 0.
func (t *readPipe) WriteBufferLimits() (low, high int) { return 0, 0 }

// WriteBufferSize returns 0.
func (t *readPipe) WriteBufferSize() int { return 0 }

// Write is for transports that write.
func (t *readPipe) Write([]byte) error { return t.readOnly("Write") }

// Writelines is for transports that write.
func (t *readPipe) Writelines([][]byte) error { return t.readOnly("Writelines") }

// WriteEOF is for transports that write.
func (t *readPipe) WriteEOF() error { return t.readOnly("WriteEOF") }

// CanWriteEOF returns false.
func (t *readPipe) CanWriteEOF() bool { return false }

func (t *readPipe) readOnly(what string) error {
	return fmt.Errorf("%s on read pipe %s: %w", what, t.name(), ErrUnsupported)
}

// String describes the transport.
func (t *readPipe) String() string {
	state := "polling"
	switch {
	case t.ended:
		state = "closed"
	case t.closing:
		state = "closing"
	case t.paused:
		state = "paused"
	}
	return fmt.Sprintf("<ReadPipeTransport %s %s>", t.name(), state)
}
