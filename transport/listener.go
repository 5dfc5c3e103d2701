package transport

import (
	"fmt"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
)

// acceptPause is how long a listener waits when it cannot accept, because the
// process is out of descriptors or the machine out of memory.
const acceptPause = time.Second

// listener is one listening socket of a server.
type listener struct {
	op    backend.Op // accepts
	srv   *Server
	view  *TransportSocket
	file  *socketFile     // to be removed on close, or nil
	early *sockapi.Socket // a connection that was accepted before, or nil
	retry loop.TimerHandle
	pause time.Duration
	fd    int32
	tcp   bool
	// supplied says that somebody else may have the socket, too.
	supplied bool
}

// newListener wraps a bound socket, which it owns from now on.
func newListener(fd int, tcp bool) *listener {
	l := &listener{fd: int32(fd), tcp: tcp, view: &TransportSocket{fd: int32(fd)}, pause: acceptPause}
	l.op = backend.Op{Receiver: l, Code: backend.OpAccept, Flags: backend.Multishot, FD: l.fd}
	return l
}

func (l *listener) listen(backlog int) error {
	if err := unix.Listen(int(l.fd), backlog); err != nil {
		addr, _ := l.view.LocalAddr()
		return &sockapi.OpError{Op: "listen on", Addr: addr, FD: int(l.fd), Err: err}
	}
	return nil
}

// listenNoMore undoes listen. A port that the kernel has chosen would be given up.
func (l *listener) listenNoMore() {
	addr, err := unix.Getsockname(int(l.fd))
	_ = unix.Shutdown(int(l.fd), unix.SHUT_RD)
	if err == nil {
		_ = unix.Bind(int(l.fd), addr) // EINVAL if it has kept it
	}
}

// begin accepts, at first what was accepted already.
func (l *listener) begin() {
	if l.early != nil {
		// The connection comes when those of the kernel do: in another turn. An
		// error says that the loop is closed, and then orphan closes it.
		_, _ = l.srv.sh.loop.CallSoon(l.takeEarly)
	}
	l.accept()
}

func (l *listener) takeEarly() {
	if l.early == nil {
		return // closed meanwhile
	}
	fd, _, err := l.early.Detach()
	l.early = nil
	if err == nil { // no loop knows the socket, so that nothing is in its way
		l.accepted(int32(fd))
	}
}

// dropEarly closes a connection that nobody will serve.
func (l *listener) dropEarly() {
	_ = l.early.Close() // nobody is to be told
	l.early = nil
}

// accept lets the kernel accept until it reports an error.
func (l *listener) accept() {
	if l.srv.closed || l.op.InFlight() {
		return
	}
	if err := l.srv.sh.loop.Submit(&l.op); err != nil {
		l.failed(err)
	}
}

// Complete takes a connection.
func (l *listener) Complete(op *backend.Op, r backend.Result) {
	switch r.Errno {
	case 0:
		if l.srv.sh.loop.IsClosed() {
			closeFD(int32(r.N)) // nobody is left to serve it
			return
		}
		l.accepted(int32(r.N))
		if !r.More {
			l.accept()
		}
	case syscall.ECANCELED:
	default:
		l.failed(r.Errno)
	}
}

// failed reports why nothing can be accepted, and tries again later.
func (l *listener) failed(err error) {
	if l.srv.closed {
		return
	}
	ev := l.srv.sh.loop
	message := "accepting a connection failed"
	switch err {
	case syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM:
		message = "socket.accept() out of system resource"
	}
	l.retry, _ = ev.CallLater(l.pause, l.accept)
	addr, _ := l.view.LocalAddr()
	ev.CallExceptionHandler(&loop.ExceptionContext{
		Message:   message,
		Exception: &sockapi.OpError{Op: "accept on", Addr: addr, FD: int(l.fd), Err: err},
		Socket:    l.view,
	})
}

// accepted makes the transport and the protocol of a connection.
func (l *listener) accepted(fd int32) {
	srv := l.srv
	if srv.closed {
		closeFD(fd)
		return
	}
	ctx := srv.ctx.Copy()
	var p Protocol
	defer func() {
		if p == nil { // also after a runtime.Goexit in the factory
			closeFD(fd)
		}
	}()
	if p = srv.protocol(ctx); p == nil {
		return
	}
	if srv.closed {
		closeFD(fd)
		return
	}
	if srv.tls != nil {
		p = wrapTLS(srv.sh.loop, p, srv.tls)
	}
	s := newStream(srv.sh, fd, p, ctx, srv)
	l.name(s)
	debugLog(srv.sh.loop, "a client has connected", s)
	s.begin()
}

// name asks for the peer's address, which the kernel forgets when a TCP
// connection breaks.
func (l *listener) name(s *stream) {
	if l.tcp {
		s.askName(unix.SYS_GETPEERNAME, &s.peer)
	}
}

// protocol calls the factory. A panic, or a nil protocol, is reported, and costs
// only this connection.
func (srv *Server) protocol(ctx *loop.Context) (p Protocol) {
	const message = "Error on transport creation for incoming connection"
	ev := srv.sh.loop
	before := ev.EnterContext(ctx)
	defer func() {
		ev.LeaveContext(before)
		if r := recover(); r != nil {
			p = nil
			ev.HandlePanic(r, debug.Stack(), &loop.ExceptionContext{Message: message})
		}
	}()
	if p = srv.factory(); p == nil {
		ev.CallExceptionHandler(&loop.ExceptionContext{
			Message:   message,
			Exception: fmt.Errorf("%w: the protocol factory returned nil", loop.ErrInvalidArgument),
		})
	}
	return p
}

// close stops accepting and gives the descriptor away.
func (l *listener) close() {
	l.retry.Cancel()
	l.dropEarly()
	l.view.fd = -1
	l.file.remove(l.srv.sh.loop)
	if !l.supplied && !l.view.shared && !l.srv.sh.loop.IsRunning() {
		_ = unix.Shutdown(int(l.fd), unix.SHUT_RD) // it is closed when the loop runs again
	}
	l.srv.sh.closeListener(l.fd, l.srv)
	l.fd = -1
}

// orphan closes the descriptor of a listener whose loop is closed.
func (l *listener) orphan() {
	l.dropEarly()
	l.view.fd = -1
	l.file.remove(l.srv.sh.loop)
	closeFD(l.fd)
	l.fd = -1
}
