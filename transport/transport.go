package transport

import (
	"syscall"

	"github.com/seed-80cfe818/ringloop/loop"
)

// Conn is what all transports but those of subprocesses have in common
// (asyncio.BaseTransport). A
// transport belongs to the thread of its loop, and all its methods must be
// called there. They are total: they may be called at any time, also after the
// connection is lost.
type Conn interface {
	// Close stops reading at once, sends what is buffered, and then loses the
	// connection with a nil error, or with that of the sending. There is no time
	// limit: a peer that does not read is what Abort is for. It is idempotent and
	// calls nothing back before it has returned.
	Close()
	// Abort drops what is buffered and loses the connection with a nil error on
	// the next turn, also while a Close waits. It is idempotent. The peer may take
	// it for the end of the stream; one that must not is reset if SO_LINGER was set
	// to 0 before, as by syscall.SetsockoptLinger with TransportSocket.Fd.
	Abort()
	// IsClosing reports whether the transport is closed or about to be: since
	// Close, Abort or an error.
	IsClosing() bool
	// ExtraInfo returns an optional fact; ok is false if the transport does not
	// know the name (get_extra_info with its default). See ExtraPeerName and the
	// other names. Of pipes it knows "pipe", the *os.File that they were made of.
	ExtraInfo(name string) (value any, ok bool)
	// PauseReading stops the delivery of data and of the end of the stream, also
	// of what has been received already, until ResumeReading. It is idempotent
	// and does nothing on a closed transport. A pipe for writing returns
	// ErrUnsupported, and in debug mode, from another goroutine, one for reading
	// loop.ErrWrongThread.
	PauseReading() error
	// ResumeReading undoes PauseReading. It calls nothing back before it has
	// returned, is idempotent, and does nothing on a closed transport. A pipe for
	// writing returns ErrUnsupported, a closed loop loop.ErrLoopClosed, and in
	// debug mode another goroutine gets loop.ErrWrongThread.
	ResumeReading() error
	// IsReading reports whether data may be delivered: not while paused, after
	// the end of the stream, or when closing.
	IsReading() bool
	// SetWriteBufferLimits sets the water marks in bytes, high first; Default
	// stands for one that is not given: four times low, or a quarter of high, or
	// the kind's own. The protocol is paused when the buffer grows above high,
	// and resumed when it shrinks to low or below; both are checked at once. The
	// error is loop.ErrInvalidArgument unless high >= low >= 0, or ErrUnsupported
	// of a pipe for reading.
	SetWriteBufferLimits(high, low int) error
	// WriteBufferLimits returns the water marks, low first as in asyncio.
	WriteBufferLimits() (low, high int)
	// WriteBufferSize returns the number of bytes that were written and that the
	// kernel has not taken yet: of TLS those that are sent, encrypted; each
	// packet counts 8 more.
	WriteBufferSize() int
	// Loop returns the loop that the transport belongs to.
	Loop() *loop.Loop
}

// Default stands for a water mark that is not given.
const Default = -1

// Transport is a stream of bytes in both directions, or in one: TCP, Unix, TLS
// and pipes (asyncio.Transport). What a kind cannot do returns ErrUnsupported.
type Transport interface {
	Conn
	// Write queues p for sending, in order, and never blocks. p stays the
	// caller's: its bytes are copied or sent before Write returns. Small writes
	// of one turn leave with one send, at the end of the turn; for large ones see
	// the package's Buffers section, for packets ConnectWritePipe.
	//
	// The error is ErrUnsupported, ErrWriteEOF after WriteEOF, or ErrSendfile
	// while Sendfile runs, or, in debug mode, loop.ErrWrongThread, and then
	// nothing was queued. An error of the
	// connection is not returned, it comes with ConnectionLost; what is written
	// after that is dropped and, from the fifth time on, warned about. What is
	// written after Close is dropped as well.
	Write(p []byte) error
	// Writelines writes the concatenation of bufs; see Write.
	Writelines(bufs [][]byte) error
	// WriteEOF shuts the sending side when everything is sent; reading goes on.
	// It is idempotent and does nothing on a closing transport. On a pipe it is
	// Close. TLS returns ErrUnsupported; while Sendfile runs it is ErrSendfile.
	WriteEOF() error
	// CanWriteEOF reports whether WriteEOF is supported.
	CanWriteEOF() bool
	// SetProtocol gives the next event to p; no callback is made up for the
	// change. p must not be nil.
	SetProtocol(p Protocol)
	// Protocol returns the current protocol, nil when the connection is gone.
	Protocol() Protocol
}

// DatagramTransport sends and receives packets (asyncio.DatagramTransport).
type DatagramTransport interface {
	Conn
	// SendTo queues a packet, which may be empty, and never blocks. What is sent in one
	// turn of the loop leaves at its end, if not before. p stays the caller's. The zero addr stands for the peer of a connected transport; any
	// other must be that of the peer, or the one that was connected to. The error
	// is loop.ErrInvalidArgument or, in debug mode, loop.ErrWrongThread; errors of
	// the kernel come with ErrorReceived.
	SendTo(p []byte, addr Addr) error
	// SetProtocol gives the next event to p, which must not be nil.
	SetProtocol(p DatagramProtocol)
	// Protocol returns the current protocol, nil when the transport is gone.
	Protocol() DatagramProtocol
}

// SubprocessTransport is a running or ended child process
// (asyncio.SubprocessTransport). It belongs to the thread of its loop, and all its
// methods must be called there, at any time, also when everything is over.
type SubprocessTransport interface {
	// PID returns the number of the process, also after its end (get_pid).
	PID() int
	// PipeTransport returns the transport of a stream that was asked for as a
	// pipe, 0 for writing, 1 and 2 for reading, and nil for any other
	// (get_pipe_transport).
	PipeTransport(fd int) Transport
	// ReturnCode returns the exit status, or the negated number of the signal
	// that killed the process; ok is false while it runs (get_returncode).
	ReturnCode() (code int, ok bool)
	// Wait suspends the task until the process has ended and returns what
	// ReturnCode does then. It does not wait for pipes that others keep open. The
	// error is a CancelledError, or ErrLoopClosed.
	Wait(co *loop.Coro) (code int, err error)
	// SendSignal sends a signal through the pidfd, so that it never hits another
	// process. When the process has ended, nothing is sent, and after
	// ConnectionLost the error is os.ErrProcessDone. Otherwise it is that of the
	// kernel: EPERM, or EINVAL for what is no signal (send_signal).
	SendSignal(sig syscall.Signal) error
	// Terminate sends SIGTERM.
	Terminate() error
	// Kill sends SIGKILL.
	Kill() error
	// Close kills the process if it runs and closes all pipes. The callbacks
	// still come. It is idempotent.
	Close()
	// IsClosing reports whether Close was called or the process is gone.
	IsClosing() bool
	// ExtraInfo returns an optional fact: "subprocess", the *Process; see Conn.
	ExtraInfo(name string) (value any, ok bool)
	// SetProtocol gives the next event to p, which must not be nil.
	SetProtocol(p SubprocessProtocol)
	// Protocol returns the current protocol, nil when everything is over.
	Protocol() SubprocessProtocol
	// Loop returns the loop that the transport belongs to.
	Loop() *loop.Loop
}
