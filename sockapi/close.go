package sockapi

import (
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/loop"
)

// Close closes the socket. It does not wait: operations in flight are
// cancelled, and the descriptor is closed when the kernel has let go of them.
// Calls that wait end with ErrSocketClosed, except a receive for which
// something had arrived, which still returns that. Closing again does nothing.
// A socket that a transport owns is refused with ErrTransportFD.
//
// It is called on the thread of the socket's loop, or, while that does not run
// or if no loop has used the socket, on any; debug mode refuses it elsewhere with
// loop.ErrWrongThread.
func (s *Socket) Close() error {
	if s == nil || s.state >= stateClosing {
		return nil
	}
	if s.state == stateAdopted {
		return s.owned("close")
	}
	if s.home == nil || s.loop.IsClosed() && !s.busy() {
		return s.closeNow()
	}
	if s.loop.CheckThread("close") != nil {
		return s.fail("close", loop.ErrWrongThread)
	}
	s.state = stateClosing
	s.in.stop()
	s.out.stop()
	s.closeWhenIdle()
	return nil
}

// CloseWait closes the socket and waits until the descriptor is closed: from
// then on a listener refuses, and the peer sees the end. If the task is
// cancelled meanwhile, the closing goes on.
func CloseWait(co *loop.Coro, s *Socket) error {
	if err := s.Close(); err != nil {
		return err
	}
	for s != nil && s.state != stateClosed && s.loop == co.Loop() {
		s.closers = append(s.closers, co)
		if err := co.Suspend((*closeWait)(s)); err != nil {
			s.forgetCloser(co)
			return err
		}
	}
	return nil
}

// closeWait is a socket as what a task in CloseWait waits for.
type closeWait Socket

// CancelWait wakes the task; Suspend tells it why.
func (w *closeWait) CancelWait(co *loop.Coro) bool {
	co.Wake()
	return false
}

// String says what a task waits for.
func (w *closeWait) String() string { return w.out.op.String() }

func (s *Socket) forgetCloser(co *loop.Coro) {
	for i, c := range s.closers {
		if c == co {
			s.closers = append(s.closers[:i], s.closers[i+1:]...)
			return
		}
	}
}

// stop ends the calls of a lane because the socket is closed.
func (ln *lane) stop() {
	ln.refuse(ErrSocketClosed)
	ln.wake()
}

// closeWhenIdle closes the descriptor when no call uses the socket any more.
func (s *Socket) closeWhenIdle() {
	if s.busy() || s.out.op.Code == backend.OpClose {
		return
	}
	if s.home == nil || !s.loop.IsRunning() {
		// No backend knows the descriptor, or it does nothing with it; nobody is
		// to be told.
		_ = s.closeNow()
		return
	}
	s.out.op = backend.Op{Receiver: &s.out, Code: backend.OpClose, FD: s.fd}
	s.home.close(s)
}

// closed is told by the backend that the descriptor is closed, or that the loop
// was closed before.
func (s *Socket) closed(errno syscall.Errno) {
	if errno == syscall.ECANCELED {
		_ = s.closeNow() // as in closeWhenIdle
		return
	}
	s.state, s.fd = stateClosed, -1
	s.dropKept()
	s.lent = nil // for the collector: another task than the closing one may use it
	for _, co := range s.closers {
		co.Wake()
	}
	s.closers = nil
}

// closeNow closes the descriptor by a plain system call.
func (s *Socket) closeNow() error {
	fd := s.fd
	s.closed(0)
	if err := unix.Close(int(fd)); err != nil {
		return &OpError{Op: "close", FD: int(fd), Err: err}
	}
	return nil
}
