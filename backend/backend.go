package backend

import "time"

// Backend performs operations for one thread. Package backendtest proves an
// implementation.
type Backend interface {
	// Name returns "io_uring" or "epoll".
	Name() string

	// Features reports what is in use, and why not what is not. It may be
	// called from any goroutine.
	Features() Features

	// Enable binds the backend to the calling thread. It is called once, or again
	// after it has failed, before anything but Name, Features, Wake and Close, by a
	// goroutine locked to its thread. The error says why the backend cannot be used.
	Enable() error

	// Submit takes over op. An error says that op was not taken and that its
	// Receiver will not hear of it: ErrClosed, ErrInFlight, ErrBadFD or
	// ErrInvalid, wrapped with what was wrong. Whatever the kernel has to say
	// comes as a completion. Submit does not allocate.
	Submit(op *Op) error

	// Try performs op at once if that needs neither waiting nor a place behind
	// earlier operations, and reports the outcome; the Receiver is not called.
	// If it reports false, nothing has happened and op may be submitted. It does
	// what can be done now: also a WaitAll send may report a part. Data of a
	// recv without a buffer is borrowed until the next call of the backend. A
	// backend that gains nothing by trying always reports false.
	Try(op *Op) (Result, bool)

	// DirectSend returns the size in bytes from which on a send costs less as a
	// system call of its own, from memory that was just touched, than as one that
	// is submitted together with others.
	DirectSend() int

	// Keep lets the Receiver that is being told of r.Data keep that memory, which
	// is otherwise lent until Complete returns. It returns what GiveBack wants,
	// or nil if the backend cannot spare the memory, or copying costs less.
	Keep(data []byte) []byte

	// GiveBack returns memory that Keep has returned. It reports false for other
	// memory, and does nothing with it. Memory that is never given back is left
	// to the garbage collector.
	GiveBack(kept []byte) bool

	// Cancel asks for op to end soon. The operation's own terminal completion
	// is the answer. It does nothing for an operation that is not in flight.
	Cancel(op *Op)

	// Wait hands what was submitted to the kernel and waits until at least one
	// completion can be dispatched, the timeout has passed or Wake was called.
	// A timeout of 0 does not wait, a negative one waits for ever. A signal
	// that interrupts it does not end it early by more than one return without
	// completions. It returns an error only if the backend can no longer work.
	Wait(timeout time.Duration) error

	// Dispatch delivers the completions that the last Wait found, and those of
	// earlier ones that were not delivered, but none that arrive meanwhile. Until
	// they are delivered, Wait returns at once. A panic of a Receiver passes
	// through; the completion that was being delivered counts as delivered, and
	// the next Dispatch goes on with the one after it.
	Dispatch()

	// Halt makes the running Dispatch return as soon as the Receiver that calls
	// it, directly or not, has returned. The next Dispatch goes on with the
	// completion after that one, as it does after a panic. Outside of Dispatch it
	// does nothing.
	Halt()

	// Wake makes a running or the next Wait return. It may be called from any
	// goroutine and does nothing on a closed backend. Wakes that come before
	// the Wait has returned may be merged into one.
	Wake()

	// InFlight returns the number of operations whose terminal completion has
	// not been delivered.
	InFlight() int

	// Close cancels every operation, delivers their completions, and releases
	// everything. Receivers may submit nothing meanwhile (ErrClosed). It is
	// called on the backend's thread, also by a Receiver, or on any if Enable was
	// never called. It is idempotent.
	Close() error
}
