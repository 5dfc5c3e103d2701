package backend

import (
	"fmt"
	"syscall"
)

// Code says what an [Op] does. The table names the operands that each code
// reads and what Result.N means when it succeeds.
//
//	Code        operands                     N
//	OpNop       -                            0
//	OpAccept    FD, Ext.Addr (filled)        the new descriptor
//	OpConnect   FD, Ext.Addr                 0
//	OpRecv      FD, Buf                      bytes received, 0 at end of stream
//	OpRecvMsg   FD, Buf, Ext.Addr (filled)   bytes received
//	OpSend      FD, Buf                      bytes sent
//	OpSendMsg   FD, Ext.Bufs, Ext.Addr       bytes sent
//	OpRead      FD, Buf, Off                 bytes read, 0 at end of file
//	OpWrite     FD, Buf, Off                 bytes written
//	OpPoll      FD, Arg (events)             the events that are ready
//	OpSendfile  FD, FD2, Off, Len            bytes sent, 0 at end of file
//	OpShutdown  FD, Arg (SHUT_RD, ...)       0
//	OpClose     FD                           0
//	OpWaitID    FD (a pidfd), Ext.Child      0, and Ext.Child is filled
type Code uint8

// The operations of the contract.
const (
	// OpNop completes on the next turn; it measures and tests the machinery.
	OpNop Code = iota
	// OpAccept accepts a connection on the listening socket FD (accept4(2)).
	// The new descriptor is non-blocking and close-on-exec. A single-shot
	// accept fills Ext.Addr with the peer's address if Ext is not nil. It may
	// be Multishot, and then Ext is not used. A connection that was aborted before
	// is skipped. After a shutdown of the listener's input it fails with EINVAL.
	OpAccept
	// OpConnect connects FD to Ext.Addr (connect(2)) and completes with the
	// final outcome. That is EAGAIN if the backlog of a unix socket is full.
	OpConnect
	// OpRecv receives from the socket FD (recv(2)) into Buf. With a nil Buf it
	// receives into memory of the backend, delivered as Result.Data. It may be
	// Multishot, which needs a nil Buf.
	OpRecv
	// OpRecvMsg receives one message into Buf and its sender into Ext.Addr
	// (recvmsg(2)). What does not fit into Buf is cut off.
	OpRecvMsg
	// OpSend sends Buf on the socket FD (send(2) with MSG_NOSIGNAL). An empty
	// Buf sends an empty datagram on a datagram socket. See WaitAll.
	OpSend
	// OpSendMsg sends the concatenation of Ext.Bufs, at most MaxBufs pieces, to
	// Ext.Addr, or to the connected peer if Ext.Addr is empty (sendmsg(2) with
	// MSG_NOSIGNAL). See WaitAll.
	OpSendMsg
	// OpRead reads from FD into Buf at the file offset Off, or at the stream's
	// position if Off is -1 (read(2), pread(2)). Off must be -1 for a file that
	// cannot seek.
	OpRead
	// OpWrite writes Buf to FD at the file offset Off, or at the stream's
	// position if Off is -1 (write(2), pwrite(2)). Off must be -1 for a file that
	// cannot seek.
	OpWrite
	// OpPoll waits until one of the events in Arg (POLLIN, POLLOUT, POLLRDHUP,
	// ...) is ready on FD, or POLLERR or POLLHUP (poll(2)), and reports only
	// those, also if others are ready. Readiness that is over when Wait returns
	// does not count. It fails with EPERM for files that cannot be polled,
	// regular files and directories, as epoll_ctl(2) does. With Multishot it
	// completes at least once for every new readiness (edge-triggered), also if
	// that is over.
	OpPoll
	// OpSendfile sends up to Len bytes of the file FD2 from its offset Off to
	// the socket FD (sendfile(2)). It completes as soon as some bytes were sent,
	// with 0 if Off is at or past the end of the file. It does not use or move
	// the position of FD2. It may raise SIGPIPE, which a Go program ignores
	// unless it asked for it.
	OpSendfile
	// OpShutdown shuts down FD (shutdown(2)); Arg is SHUT_RD, SHUT_WR or
	// SHUT_RDWR. What waits for input ends with 0 then, also on a datagram socket,
	// but for a multishot recv there.
	OpShutdown
	// OpClose closes FD (close(2)): it cancels every operation in flight on FD,
	// lets each of them complete, and closes the descriptor after the last.
	// Submitting on FD meanwhile fails with ErrBadFD. It cannot be cancelled.
	OpClose
	// OpWaitID waits until the child process of the pidfd FD has ended, reaps
	// it, and reports how it ended in Ext.Child (waitid(2) with P_PIDFD and
	// WEXITED).
	OpWaitID
	numCodes
)

// NumCodes is the number of operation codes.
const NumCodes = int(numCodes)

var codeNames = [...]string{
	OpNop: "nop", OpAccept: "accept", OpConnect: "connect", OpRecv: "recv",
	OpRecvMsg: "recvmsg", OpSend: "send", OpSendMsg: "sendmsg", OpRead: "read",
	OpWrite: "write", OpPoll: "poll", OpSendfile: "sendfile",
	OpShutdown: "shutdown", OpClose: "close", OpWaitID: "waitid",
}

// String returns the code's name, as in "recvmsg".
func (c Code) String() string {
	if int(c) < len(codeNames) {
		return codeNames[c]
	}
	return fmt.Sprintf("Code(%d)", uint8(c))
}

// Flags modify an operation.
type Flags uint8

const (
	// Multishot lets an accept, recv or poll complete many times. It ends with
	// a terminal completion when it is cancelled, at end of stream, or on an
	// error; a backend re-arms it by itself whenever the kernel ends it for any
	// other reason (no buffers, overflow, a limit of fairness).
	Multishot Flags = 1 << iota
	// WaitAll lets a send or sendmsg on a stream complete only when everything
	// was sent. One that is cancelled after a part has success with that part. One
	// that fails after a part has both, for the kernel tells only once why a
	// connection broke.
	WaitAll
	// Pinned says that the memory of Buf cannot move before the terminal
	// completion, because it is outside the heap or pinned by the submitter, so
	// that the backend need not pin it.
	Pinned
	// AtDelivery lets a recv into Buf, or a recvmsg, take what it receives only
	// when its completion is delivered: one that is cancelled before has taken
	// nothing. It is for packets, of which the kernel drops what does not fit.
	AtDelivery
)

// MaxBufs is the largest number of pieces in Ext.Bufs (IOV_MAX on Linux).
const MaxBufs = 1024

// Op is one operation, meant to be embedded in the object that submits it. It
// must not be copied or changed while it is in flight, but for Enough. The zero
// Op, with a Receiver, is a valid OpNop.
type Op struct {
	// Receiver is told of every completion.
	Receiver Receiver
	// Buf is the caller's memory. The backend pins it until the terminal
	// completion, unless Flags has Pinned.
	Buf []byte
	// Ext holds the operands that only some codes need.
	Ext *Ext
	// Off is a file offset in bytes, or -1 for the stream's position.
	Off int64
	// Len is a count of bytes (OpSendfile).
	Len int
	// FD is the descriptor to operate on; FD2 is a second one (OpSendfile).
	FD, FD2 int32
	// Arg is the events of OpPoll or the direction of OpShutdown.
	Arg uint32
	// Code says what to do.
	Code Code
	// Flags say how.
	Flags Flags
	// Enough asks the backend not to receive more in a turn than has come
	// anyway. The submitter of a multishot recv may change it at any time, also
	// while it is told of a completion.
	Enough bool

	// State belongs to the backend while the operation is in flight.
	State State
}

// Ext holds the operands that only some operations need, so that an Op stays
// small. It is owned by the backend while its Op is in flight.
type Ext struct {
	// Bufs are the pieces of OpSendMsg.
	Bufs [][]byte
	// Addr is the address of OpConnect and OpSendMsg, and receives the one of
	// OpAccept and OpRecvMsg.
	Addr Addr
	// Child receives the outcome of OpWaitID.
	Child Child
}

// Child says how a process ended (the fields of siginfo_t that waitid(2) sets).
type Child struct {
	// PID is the process.
	PID int
	// Code is CLD_EXITED (1), CLD_KILLED (2) or CLD_DUMPED (3).
	Code int
	// Status is the exit status or, for the other codes, the signal's number.
	Status int
}

// InFlight reports whether the operation was submitted and its terminal
// completion has not been delivered yet.
func (op *Op) InFlight() bool { return op.State.Phase != Idle }

// CancelRequested reports whether Cancel was called for the operation in its
// current or, until it is submitted again, its last flight.
func (op *Op) CancelRequested() bool { return op.State.CancelRequested }

// String describes the operation for messages, as in "recv on fd 7".
func (op *Op) String() string {
	if op.Code == OpNop {
		return op.Code.String()
	}
	return fmt.Sprintf("%s on fd %d", op.Code, op.FD)
}

// Receiver is told of completions.
type Receiver interface {
	// Complete reports a completion of op. It is called by Backend.Dispatch and
	// Close, on the backend's thread. It may submit and cancel operations, also op
	// itself if r.More is false, and call Close; it must not call Wait or Dispatch.
	Complete(op *Op, r Result)
}

// Result is the outcome of an operation.
type Result struct {
	// Data is what a recv without a buffer of its own received. It is borrowed:
	// valid until Complete returns, and then the backend uses it anew, unless
	// Backend.Keep was called.
	Data []byte
	// N is the outcome that [Code] describes. It is 0 when Errno is not, unless a
	// WaitAll send has failed after that many bytes.
	N int
	// Errno is the error of the operation, 0 for success. Values are those of
	// the system call, and ECANCELED for an operation that was cancelled.
	Errno syscall.Errno
	// More says that further completions of the same operation will follow.
	More bool
}

// Err returns Errno as an error, nil if it is 0.
func (r Result) Err() error {
	if r.Errno == 0 {
		return nil
	}
	return r.Errno
}

// Cancelled reports whether the operation ended without effect because it was
// cancelled.
func (r Result) Cancelled() bool { return r.Errno == syscall.ECANCELED }

// Phase is where an operation is on its way.
type Phase uint8

const (
	// Idle: not in flight; the submitter owns the Op.
	Idle Phase = iota
	// Early: submitted to the loop, which keeps it until it runs.
	Early
	// Queued: behind another operation of its descriptor and direction.
	Queued
	// Armed: handed to the kernel, or waiting for readiness.
	Armed
	// Done: completed, and the completion waits for Dispatch.
	Done
)

// State is the backend's own part of an Op, and the loop's while it is Early.
// Nobody else may change it.
type State struct {
	// Next and Prev link the operations of one list.
	Next, Prev *Op
	// Slot is the place in the table of operations.
	Slot uint32
	// Res is a result kept between completion and dispatch: a value, or a
	// negated error number.
	Res int32
	// Phase is where the operation is on its way.
	Phase Phase
	// CancelRequested says that Cancel was called.
	CancelRequested bool
	// Mark is free for the backend.
	Mark uint8
}

// Input reports whether the operation consumes the input of its descriptor, so
// that it must keep its place behind earlier ones that do.
func (op *Op) Input() bool {
	switch op.Code {
	case OpAccept, OpRecv, OpRecvMsg:
		return true
	case OpRead:
		return op.Off < 0
	}
	return false
}

// Output reports whether the operation produces output on its descriptor, so
// that it must keep its place behind earlier ones that do.
func (op *Op) Output() bool {
	switch op.Code {
	case OpConnect, OpSend, OpSendMsg, OpSendfile:
		return true
	case OpWrite:
		return op.Off < 0
	}
	return false
}
