package backend

import (
	"errors"
	"fmt"
	"syscall"
)

// The errors of Backend.Submit, wrapped in an [OpError].
var (
	// ErrClosed: the backend was closed.
	ErrClosed = errors.New("backend is closed")
	// ErrInFlight: the operation has not completed yet.
	ErrInFlight = errors.New("operation is already in flight")
	// ErrBadFD: the descriptor is negative or being closed. It is also
	// syscall.EBADF to errors.Is.
	ErrBadFD = fmt.Errorf("descriptor is negative or being closed: %w", syscall.EBADF)
	// ErrInvalid: the operands do not fit the code. It is also syscall.EINVAL
	// to errors.Is.
	ErrInvalid = fmt.Errorf("operands do not fit the operation: %w", syscall.EINVAL)
)

// OpError says which operation could not be submitted, and why.
type OpError struct {
	// Op describes the operation, as in "recv on fd 7".
	Op string
	// Err is the reason.
	Err error
}

// Error names the operation and the reason.
func (e *OpError) Error() string { return e.Op + ": " + e.Err.Error() }

// Unwrap returns the reason.
func (e *OpError) Unwrap() error { return e.Err }

// UnavailableError says that a backend cannot be used here, and why.
type UnavailableError struct {
	// Backend is the backend's name.
	Backend string
	// Err is what the kernel answered.
	Err error
	// Hint says in a sentence what usually causes this and what helps.
	Hint string
}

// Error names the backend, the kernel's answer and the hint.
func (e *UnavailableError) Error() string {
	s := e.Backend + " is not available: " + e.Err.Error()
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

// Unwrap returns what the kernel answered.
func (e *UnavailableError) Unwrap() error { return e.Err }
