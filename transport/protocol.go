package transport

// Protocol is the base of every protocol (asyncio.BaseProtocol). What else a
// protocol can do is found out once, when it is given to a transport, by the
// small interfaces of this file; all of them are optional. The callbacks are
// called on the loop's thread, one at a time, in the context that was current
// when the connection was made or, for a server, when it began to listen.
//
// A callback whose parameters or results are wrong is none, and not called:
//
//	var _ transport.StreamProtocol = (*myProtocol)(nil)
//
// has the compiler look at them.
//
// ConnectionMade comes first and exactly once, ConnectionLost last and exactly
// once, and nothing at all if there never was a connection.
//
// A panic of ConnectionMade, PauseWriting, ResumeWriting or ConnectionLost is
// reported to the loop's exception handler, and the connection goes on. One of
// any other callback is reported too, and closes the connection with the
// *loop.PanicError.
type Protocol interface {
	// ConnectionMade is called when the connection is there, before anything is
	// read. It may write, pause, close or abort t at once.
	ConnectionMade(t Transport)
	// ConnectionLost is called when the connection is over: with nil after
	// EOFReceived, Close or Abort, else with the error that ended it. The
	// descriptor is still open, and ExtraInfo still answers. It is never called
	// from inside the call that caused it.
	ConnectionLost(err error)
}

// DataReceiver is a protocol that is handed what has arrived
// (asyncio.Protocol.data_received).
type DataReceiver interface {
	// DataReceived is called with at least one byte. data is borrowed: it is
	// valid until DataReceived returns, and must not be changed.
	DataReceived(data []byte)
}

// BufferReceiver is a protocol that receives into memory of its own
// (asyncio.BufferedProtocol). It wins over DataReceiver.
type BufferReceiver interface {
	// GetBuffer returns the memory for the next receive, which must not be empty.
	// The transport owns it until BufferUpdated is called, GetBuffer is called
	// again or the connection is lost; if the protocol is replaced meanwhile, it
	// may still be written to until the loop has cancelled the receive. sizehint
	// is a good size for it, in bytes, or -1 for any.
	GetBuffer(sizehint int) []byte
	// BufferUpdated says that the first n bytes of the buffer were filled. n is at
	// least 1.
	BufferUpdated(n int)
}

// EOFReceiver is a protocol that wants to know when the peer has sent its last
// byte (asyncio.Protocol.eof_received).
type EOFReceiver interface {
	// EOFReceived is called at most once, never after Close or Abort, and no data
	// follows. If it returns false, as it is for protocols without it, the
	// transport closes itself after sending what is buffered. If it returns true,
	// the connection stays open for writing. TLS and pipes close in any case.
	EOFReceived() (keepOpen bool)
}

// FlowController is a protocol that is told when to write less
// (asyncio.BaseProtocol.pause_writing). The two calls alternate. It has both
// methods: one that needs but one of them embeds a base type for the other.
type FlowController interface {
	// PauseWriting is called, from inside the call that writes, when more bytes
	// are buffered than the high water mark. Writing stays allowed.
	PauseWriting()
	// ResumeWriting is called when the buffer has drained to the low water mark
	// or below: from the loop, never from inside a call that writes, but from
	// SetWriteBufferLimits if that raises the mark. It is not called when the
	// connection is lost meanwhile.
	ResumeWriting()
}

// StreamProtocol is the usual protocol of a stream (asyncio.Protocol).
type StreamProtocol interface {
	Protocol
	DataReceiver
	EOFReceiver
}

// BufferedProtocol is the protocol of a stream that receives straight into its
// own memory (asyncio.BufferedProtocol).
type BufferedProtocol interface {
	Protocol
	BufferReceiver
	EOFReceiver
}

// DatagramProtocol is the protocol of datagrams (asyncio.DatagramProtocol). It
// may be a FlowController too. A panic of DatagramReceived or ErrorReceived is
// reported to the exception handler, and closes the endpoint.
type DatagramProtocol interface {
	// ConnectionMade is called once, first.
	ConnectionMade(t DatagramTransport)
	// ConnectionLost is called once, last: with nil after Close or Abort.
	ConnectionLost(err error)
	// DatagramReceived is called for every packet, also for empty ones. data is
	// borrowed until it returns. addr is the sender, the zero Addr if it has no
	// name.
	DatagramReceived(data []byte, addr Addr)
	// ErrorReceived is called with the error of an earlier send or receive. The
	// transport goes on.
	ErrorReceived(err error)
}

// SubprocessProtocol is the protocol of a child process
// (asyncio.SubprocessProtocol).
type SubprocessProtocol interface {
	// ConnectionMade is called once, first, when the process runs and its pipes
	// are connected.
	ConnectionMade(t SubprocessTransport)
	// PipeDataReceived is called with what the process has written to fd, 1 or 2.
	// data is borrowed until it returns.
	PipeDataReceived(fd int, data []byte)
	// PipeConnectionLost is called once for each pipe: 0, 1 or 2. err is nil at the
	// end of the output and after Close, else what broke the pipe, such as EPIPE if
	// the child does not read the rest of its input.
	PipeConnectionLost(fd int, err error)
	// ProcessExited is called when the process has ended; output may still follow.
	ProcessExited()
	// ConnectionLost is called once, last, when the process has ended and every
	// pipe is closed. err is nil; see SubprocessTransport.ReturnCode.
	ConnectionLost(err error)
}

// BaseProtocol has the callbacks of Protocol and FlowController that do nothing,
// for embedding.
type BaseProtocol struct{}

// ConnectionMade does nothing.
func (BaseProtocol) ConnectionMade(Transport) {}

// ConnectionLost does nothing.
func (BaseProtocol) ConnectionLost(error) {}

// PauseWriting does nothing.
func (BaseProtocol) PauseWriting() {}

// ResumeWriting does nothing.
func (BaseProtocol) ResumeWriting() {}

// BaseStreamProtocol has the callbacks of StreamProtocol and FlowController that
// do nothing, for embedding.
type BaseStreamProtocol struct{ BaseProtocol }

// DataReceived drops the data.
func (BaseStreamProtocol) DataReceived([]byte) {}

// EOFReceived lets the transport close itself.
func (BaseStreamProtocol) EOFReceived() bool { return false }

// BaseDatagramProtocol has the callbacks of DatagramProtocol and FlowController
// that do nothing, for embedding.
type BaseDatagramProtocol struct{}

// ConnectionMade does nothing.
func (BaseDatagramProtocol) ConnectionMade(DatagramTransport) {}

// ConnectionLost does nothing.
func (BaseDatagramProtocol) ConnectionLost(error) {}

// DatagramReceived drops the packet.
func (BaseDatagramProtocol) DatagramReceived([]byte, Addr) {}

// ErrorReceived ignores the error.
func (BaseDatagramProtocol) ErrorReceived(error) {}

// PauseWriting does nothing.
func (BaseDatagramProtocol) PauseWriting() {}

// ResumeWriting does nothing.
func (BaseDatagramProtocol) ResumeWriting() {}

// BaseSubprocessProtocol has the callbacks of SubprocessProtocol and
// FlowController that do nothing, for embedding.
type BaseSubprocessProtocol struct{}

// ConnectionMade does nothing.
func (BaseSubprocessProtocol) ConnectionMade(SubprocessTransport) {}

// PipeDataReceived drops the output.
func (BaseSubprocessProtocol) PipeDataReceived(int, []byte) {}

// PipeConnectionLost does nothing.
func (BaseSubprocessProtocol) PipeConnectionLost(int, error) {}

// ProcessExited does nothing.
func (BaseSubprocessProtocol) ProcessExited() {}

// ConnectionLost does nothing.
func (BaseSubprocessProtocol) ConnectionLost(error) {}

// PauseWriting does nothing.
func (BaseSubprocessProtocol) PauseWriting() {}

// ResumeWriting does nothing.
func (BaseSubprocessProtocol) ResumeWriting() {}
