// Package sockapi is asyncio's sock_* family: sockets on which a task waits as
// if they blocked.
//
// A [Socket] owns a non-blocking descriptor. The functions that may wait take
// the coroutine of the running task first, suspend that task alone, and return
// when the operation has ended:
//
//	func echo(co *loop.Coro, s *sockapi.Socket) error {
//		defer s.Close()
//		buf := make([]byte, 4096)
//		for {
//			n, err := sockapi.RecvInto(co, s, buf)
//			if err == io.EOF {
//				return nil
//			}
//			if err != nil {
//				return err
//			}
//			if err := sockapi.SendAll(co, s, buf[:n]); err != nil {
//				return err
//			}
//		}
//	}
//
// Where asyncio answers with empty bytes or 0 at the end of a stream, these
// functions return io.EOF, as blocking code in Go does.
//
// # Buffers
//
// A buffer given to one of the functions belongs to the kernel until the
// function returns, and it returns only then: also a cancelled task goes on
// after the kernel has let go of the buffer.
//
// # Order
//
// The two directions of a socket are independent. Within one, calls are served
// in the order in which they were made, however many tasks make them; a SendAll
// or a Sendfile is never mixed with the bytes of another.
//
// # Cancellation
//
// A task that is cancelled while it waits gets a loop.CancelledError, and the
// socket stays usable. Nothing is lost: bytes that had been received, errors
// and accepted connections go to the next call in that direction. How much of a
// cancelled SendAll was sent is not known.
//
// # Errors
//
// An error is an [OpError], which names the operation, the address or descriptor
// and the reason: one of the kernel, one of the conditions below, or one of
// package loop, such as loop.ErrInvalidArgument. Two come as they are: io.EOF,
// and the *loop.CancelledError of a cancelled task. Others than an OpError are
// those of Listen, ListenPacket, Dial and the From functions, for a network,
// name, port or argument that is refused before there is a socket.
//
// # Threads
//
// A Socket is bound to the loop that uses it first, and its methods belong to
// that loop's thread. When nothing is in flight another loop may use it, which
// moves it there.
package sockapi
