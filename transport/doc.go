// Package transport offers transports and protocols: connections as objects
// that call back (asyncio's transports, protocols and servers).
//
// A protocol says what to do when a connection is made, when data arrives and
// when the connection is lost; a transport sends, pauses and closes. Clients
// are made by [CreateConnection] and [CreateUnixConnection], servers by
// [CreateServer] and [CreateUnixServer]. They take the running coroutine, so
// they are called from a task; everything after that is callbacks on the
// loop's thread:
//
//	type echo struct {
//		transport.BaseStreamProtocol
//		t transport.Transport
//	}
//
//	func (e *echo) ConnectionMade(t transport.Transport) { e.t = t }
//	func (e *echo) DataReceived(data []byte)             { _ = e.t.Write(data) }
//	func (e *echo) PauseWriting()                        { _ = e.t.PauseReading() }
//	func (e *echo) ResumeWriting()                       { _ = e.t.ResumeReading() }
//
//	func serve(co *loop.Coro) error {
//		factory := func() transport.Protocol { return &echo{} }
//		srv, err := transport.CreateServer(co, factory, []string{"127.0.0.1"}, "7777", nil)
//		if err != nil {
//			return err
//		}
//		return srv.ServeForever(co)
//	}
//
// # Buffers
//
// What DataReceived gets is borrowed from the backend until it returns; what
// Write gets is copied, or sent, before it returns. Neither allocates. What is
// written in one turn of the loop is sent at the end of the turn, with one
// operation; what exceeds the high water mark is sent at once, and so is, on a
// socket with nothing buffered, a Write of 16 KiB or more, and the first one in the
// turn already from 2 KiB on, unless io_uring does it for less.
//
// # Flow control
//
// A transport never blocks and never refuses data. It calls PauseWriting when
// strictly more than the high water mark is buffered, and ResumeWriting when
// the low water mark or less is left. In the other direction, PauseReading
// makes the peer wait.
//
// # TLS
//
// With a [crypto/tls.Config], connections and servers speak TLS: the protocol is
// the same, the transport is a [TLSTransport]. [StartTLS] puts TLS on a
// connection that is open, also on one that speaks TLS already. An idle TLS
// connection has no goroutine, no task and no stack; only the handshake takes a
// task.
package transport
