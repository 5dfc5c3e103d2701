// Package backend is the contract between the event loop and the kernel.
//
// An operation is data: an [Op] says what to do, with which descriptor and
// which memory, and who is told. A [Backend] interprets it. Package uring does
// so with io_uring, package epoll with readiness and plain system calls, and
// both behave alike: package backendtest is the proof, one suite that every
// backend passes.
//
// # The life of an operation
//
// Submit hands an Op to the backend. From then until its terminal completion
// the backend owns the Op and every byte it refers to: nobody else may read or
// change them, also not after Cancel. Completions are delivered by Dispatch,
// never from inside Submit, Cancel or Wait, and in the order in which they
// were reaped:
//
//   - a single-shot operation completes exactly once;
//   - a multishot operation (accept, recv, poll) completes any number of times
//     with Result.More set and exactly once, last, without it.
//
// After the terminal completion has been handed to the Receiver, the Op is the
// submitter's again; it may submit it anew from inside Complete.
//
// # Order
//
// Operations that consume the input of one descriptor (accept, recv, recvmsg,
// and read at the stream position) are performed first in, first out; so are
// those that produce output (connect, send, sendmsg, sendfile, and write at
// the stream position). The two directions are independent of each other.
// Polls, positioned reads and writes, shutdown and waitid wait for nobody.
//
// # Descriptors
//
// A descriptor may be in non-blocking mode or not: only Wait blocks the thread.
// Non-blocking ones are cheaper. Between its operations the owner of a
// descriptor may close it with close(2) as well as with OpClose.
//
// # Cancellation
//
// Cancel asks; the operation's own completion answers. The answer may be
// ECANCELED, and then nothing was consumed or produced. It may also be a
// success or any other error, because the operation had come first: bytes that
// were received and sockets that were accepted are then reported like any
// other, and it is for the receiver to pass them on. Op.CancelRequested tells
// the two situations apart.
//
// # Threads
//
// A backend belongs to one thread, the one that calls Enable. Everything but Name,
// Features and Wake must be called there, and Close too unless Enable never was.
package backend
