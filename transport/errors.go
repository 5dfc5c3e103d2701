package transport

import (
	"errors"
	"fmt"
)

// The conditions that asyncio reports as RuntimeError or NotImplementedError.
// Wrong arguments are loop.ErrInvalidArgument, and errors of the kernel keep
// their syscall.Errno.
var (
	// ErrUnsupported: this kind of transport cannot do that. It is also
	// errors.ErrUnsupported to errors.Is.
	ErrUnsupported = fmt.Errorf("not supported by this transport: %w", errors.ErrUnsupported)
	// ErrWriteEOF: the transport was written to after WriteEOF.
	ErrWriteEOF = errors.New("cannot write after WriteEOF")
	// ErrSendfile: the transport was written to while Sendfile was running.
	ErrSendfile = errors.New("unable to write; sendfile is in progress")
	// ErrClosing: the transport is closed or about to be.
	ErrClosing = errors.New("transport is closing")
	// ErrServerClosed: the server was closed.
	ErrServerClosed = errors.New("server is closed")
	// ErrServing: ServeForever is running already.
	ErrServing = errors.New("server is already being awaited on ServeForever")
)
