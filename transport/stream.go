package transport

import (
	"fmt"
	"runtime/debug"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
)

// stream is the transport of a stream socket: TCP or Unix. Every idle
// connection has one, so it is small: what is needed only while data waits to
// be sent is in its outbox, and what few streams need at all in cold.
//
// The life of a stream: begin calls ConnectionMade and starts to read; then
// closing is set, by Close, the end of the stream, or an error; when nothing is
// left to be sent, or at once after an error, lose schedules ended, which calls
// ConnectionLost and gives the descriptor away.
type stream struct {
	op     backend.Op // receives
	sh     *shared
	ctx    *loop.Context
	proto  Protocol
	data   DataReceiver // what of proto takes data, never nil
	out    *outbox      // nil if nothing is to be sent
	server *Server      // nil for clients
	next   *stream      // in the list of server or shared
	prev   *stream
	cold   *cold
	peer   name
	local  name
	fd     int32 // -1 when the descriptor was given away
	flags  flags
	writes uint8 // writes after the connection was lost, up to warnWrites
	sentIn uint8 // the turn, modulo 256, in which a write was last sent at once
}

// cold is the part of a stream that few streams need.
type cold struct {
	peer, local Addr            // those that do not fit into a name
	sock        *sockapi.Socket // the owner of the descriptor, if it is one
	view        *TransportSocket
	marks       marks
	parked      parked
	err         error  // for ConnectionLost
	readLater   bool   // reading goes on after Sendfile
	wake        func() // called when the buffer is empty or the connection lost
}

type flags uint16

const (
	flagClosing  flags = 1 << iota // no more reading, and no more writing
	flagLost                       // ConnectionLost is scheduled or was called
	flagPaused                     // by PauseReading
	flagParked                     // something was received but not delivered
	flagEOF                        // the peer's last byte was delivered
	flagWriteEOF                   // by WriteEOF
	flagShut                       // the sending side is shut
	flagFull                       // PauseWriting was called
	flagBuffered                   // data is a *buffered
	flagForeign                    // op.Buf came from a protocol that was replaced
	flagSendfile                   // Sendfile is running
	flagMarks                      // cold.marks was set
	flagLate                       // ConnectionLost waits for the end of a receive
	flagPort                       // others may wait for its local address
)

// warnWrites is from which write after the loss of the connection on each one
// is warned about.
const warnWrites = 5

// newStream makes the stream of a connected descriptor, which it owns from now
// on. It belongs to srv, if that is not nil.
func newStream(sh *shared, fd int32, p Protocol, ctx *loop.Context, srv *Server) *stream {
	s := &stream{sh: sh, ctx: ctx, fd: fd, server: srv}
	s.op.Receiver = s
	s.SetProtocol(p)
	s.list().add(s)
	// It fails only for a descriptor that has an owner, and sockets that have one are
	// not adopted.
	_ = sh.loop.ClaimFD(int(fd), s)
	return s
}

func (s *stream) list() *streamList {
	if s.server != nil {
		return &s.server.streams
	}
	return &s.sh.clients
}

// rarely returns the cold part.
func (s *stream) rarely() *cold {
	if s.cold == nil {
		s.cold = &cold{}
	}
	return s.cold
}

// begin calls ConnectionMade and starts to read, unless that has paused or
// closed the stream.
func (s *stream) begin() {
	defer s.unpark() // also after a runtime.Goexit in the callback
	s.callMade()
}

// Close sends what is buffered and then loses the connection.
func (s *stream) Close() {
	if s.flags&flagClosing != 0 || s.sh.loop.Refuses("Transport.Close") {
		return
	}
	s.flags |= flagClosing
	s.sh.loop.ReleaseFD(int(s.fd))
	s.stopReading()
	if s.out == nil && s.flags&flagSendfile == 0 {
		s.lose(nil)
	}
}

// Abort loses the connection without sending what is buffered.
func (s *stream) Abort() {
	if !s.sh.loop.Refuses("Transport.Abort") {
		s.lose(nil)
	}
}

// IsClosing reports whether the connection is lost or about to be.
func (s *stream) IsClosing() bool { return s.flags&flagClosing != 0 }

// Loop returns the stream's loop.
func (s *stream) Loop() *loop.Loop { return s.sh.loop }

// Protocol returns the current protocol, nil after ConnectionLost.
func (s *stream) Protocol() Protocol { return application(s.proto) }

// SetProtocol gives the next event to p.
func (s *stream) SetProtocol(p Protocol) {
	if p == nil {
		panic("transport: SetProtocol(nil)")
	}
	if s.flags&flagLost != 0 && s.fd < 0 || replaceBehind(s.proto, p) {
		return
	}
	s.proto = p
	s.setReceiver(p)
}

// fail ends the connection because of an error: what is buffered is dropped.
func (s *stream) fail(err error) {
	if s.flags&flagLost == 0 && s.sh.loop.Debug() {
		s.sh.loop.Logger().Debug("connection failed", "transport", s.String(), "error", err)
	}
	s.lose(err)
}

// lose schedules ConnectionLost for the next turn.
func (s *stream) lose(err error) {
	if s.flags&flagLost != 0 {
		return
	}
	if s.flags&flagClosing == 0 {
		s.sh.loop.ReleaseFD(int(s.fd))
	}
	s.flags |= flagClosing | flagLost
	s.flags &^= flagParked
	s.dropOutput()
	if s.lent() {
		s.stopReading()
	}
	if err != nil {
		s.rarely().err = err
	}
	callSoon(s.sh.loop, s.ctx, s.ended) // if the loop is closed, orphan closes the descriptor
}

// lent reports whether the kernel may receive into the protocol's memory.
func (s *stream) lent() bool { return s.op.Buf != nil && s.op.InFlight() }

// ended calls ConnectionLost and lets go of everything. While the kernel has the
// protocol's memory, it waits.
func (s *stream) ended() {
	if s.lent() {
		s.flags |= flagLate
		return
	}
	defer s.release()
	var err error
	if s.cold != nil {
		err = s.cold.err
	}
	s.callLost(err)
}

// release gives the descriptor away and drops the references.
func (s *stream) release() {
	s.keepNames()
	s.closeSocket()
	s.proto, s.data = nil, discard{}
	if s.cold != nil {
		s.cold.parked = parked{}
		s.wakeWaiter()
	}
	s.list().remove(s)
	if s.server != nil {
		s.server.detached()
	}
}

// closeSocket closes the descriptor when the kernel has let go of it.
func (s *stream) closeSocket() {
	switch {
	case s.fd < 0:
	case s.flags&flagPort != 0:
		s.sh.closePort(s.forget())
	default:
		s.sh.close(s.forget())
	}
}

// forget returns the descriptor, which nobody sees any more.
func (s *stream) forget() int32 {
	fd := s.fd
	s.fd = -1
	if s.cold == nil {
		return fd
	}
	if s.cold.view != nil {
		s.cold.view.fd = -1
	}
	if s.cold.sock != nil {
		s.cold.sock.Surrender()
		s.cold.sock = nil
	}
	return fd
}

// orphan closes the descriptor of a stream whose loop is closed.
func (s *stream) orphan() {
	if s.fd < 0 {
		return
	}
	warnUnclosed(s.sh.loop, s)
	s.keepNames()
	s.flags |= flagClosing | flagLost
	s.dropOutput()
	closeFD(s.forget())
}

func closeFD(fd int32) {
	// Linux closes the descriptor whatever it answers.
	_ = unix.Close(int(fd))
}

// String describes the stream.
func (s *stream) String() string {
	state := "open"
	switch {
	case s.fd < 0:
		state = "closed"
	case s.flags&flagClosing != 0:
		state = "closing"
	}
	return fmt.Sprintf("<Stream %s fd=%d read=%v write=%d peer=%v>", state, s.fd, s.IsReading(), s.WriteBufferSize(), s.peerAddr())
}

// callMade calls ConnectionMade. Its panic does not end the connection.
func (s *stream) callMade() {
	before := s.sh.loop.EnterContext(s.ctx)
	defer s.returned(before, "protocol.ConnectionMade() failed", false)
	s.proto.ConnectionMade(s)
}

func (s *stream) callLost(err error) {
	before := s.sh.loop.EnterContext(s.ctx)
	defer s.returned(before, "protocol.ConnectionLost() failed", false)
	s.proto.ConnectionLost(err)
}

// returned is deferred around every call of a protocol: it leaves the context
// and deals with a panic.
func (s *stream) returned(before loop.Entered, message string, fatal bool) {
	s.sh.loop.LeaveContext(before)
	s.sh.loop.LogSlow(before, s.proto, s)
	r := recover()
	if r == nil {
		return
	}
	stack := debug.Stack()
	if fatal {
		s.lose(&loop.PanicError{Value: r, Stack: stack})
	}
	s.sh.loop.HandlePanic(r, stack, &loop.ExceptionContext{Message: message, Transport: s, Protocol: s.proto})
}
