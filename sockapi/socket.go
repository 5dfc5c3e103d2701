package sockapi

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/loop"
)

// Socket owns a non-blocking, close-on-exec socket. It must be closed; the
// garbage collector does not do it. See the package's documentation for the
// rules of order, cancellation and threads.
type Socket struct {
	in, out lane
	loop    *loop.Loop // nil before the first use
	home    *home      // of loop, nil before the first operation
	kept    *kept      // what a cancelled call had received
	lent    []byte     // memory of the loop that RecvBorrowed has returned
	refused error      // by the loop, for the call that has just submitted
	closers []*loop.Coro
	owner   string
	fd      int32
	family  int16
	typ     int16
	proto   uint16
	state   state
	tries   uint8 // operations done by Try since a task last waited here
	ahead   aheadState
	// connecting is the address of a connect that was cancelled and may go on in
	// the kernel.
	connecting *backend.Addr
}

type state uint8

const (
	stateOpen state = iota
	stateAdopted
	stateClosing
	stateClosed
)

// newSocket wraps a descriptor that is ready for use.
func newSocket(fd, family, typ, proto int) *Socket {
	typ &^= unix.SOCK_NONBLOCK | unix.SOCK_CLOEXEC // both are set in any case
	s := &Socket{fd: int32(fd), family: int16(family), typ: int16(typ), proto: uint16(proto)}
	s.in.init(s)
	s.out.init(s)
	return s
}

// New makes an unbound socket (socket(2)): family is AF_INET, AF_INET6 or
// AF_UNIX, typ is SOCK_STREAM, SOCK_DGRAM or SOCK_SEQPACKET, and proto is
// usually 0.
func New(family, typ, proto int) (*Socket, error) {
	fd, err := unix.Socket(family, typ|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, proto)
	if err != nil {
		return nil, &OpError{Op: fmt.Sprintf("socket of family %d, type %d, protocol %d", family, typ, proto), FD: -1, Err: err}
	}
	return newSocket(fd, family, typ, proto), nil
}

// Pair makes two connected Unix sockets (socketpair(2)) of the given type.
func Pair(typ int) (a, b *Socket, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, typ|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, &OpError{Op: fmt.Sprintf("socketpair of type %d", typ), FD: -1, Err: err}
	}
	return newSocket(fds[0], unix.AF_UNIX, typ, 0), newSocket(fds[1], unix.AF_UNIX, typ, 0), nil
}

// Fd returns the descriptor, -1 once Close was called. It still belongs to the
// socket. It changes when the socket moves to another loop.
func (s *Socket) Fd() int {
	if s.state >= stateClosing {
		return -1
	}
	return int(s.fd)
}

// Family returns the address family, as AF_INET.
func (s *Socket) Family() int { return int(s.family) }

// Type returns the socket type, as SOCK_STREAM.
func (s *Socket) Type() int { return int(s.typ) }

// Proto returns the protocol number.
func (s *Socket) Proto() int { return int(s.proto) }

// String describes the socket for messages.
func (s *Socket) String() string {
	if s == nil {
		return "<Socket nil>"
	}
	str := fmt.Sprintf("<Socket fd=%d family=%d type=%d", s.Fd(), s.family, s.typ)
	if s.Fd() >= 0 {
		if a, err := s.LocalAddr(); err == nil {
			str += " local=" + a.String()
		}
		if a, err := s.PeerAddr(); err == nil {
			str += " peer=" + a.String()
		}
	}
	return str + ">"
}

// LocalAddr returns the address that the socket is bound to (getsockname(2)).
func (s *Socket) LocalAddr() (Addr, error) { return s.name(unix.SYS_GETSOCKNAME, "local address") }

// PeerAddr returns the address of the peer (getpeername(2)), ENOTCONN if there
// is none.
func (s *Socket) PeerAddr() (Addr, error) { return s.name(unix.SYS_GETPEERNAME, "peer address") }

func (s *Socket) name(call uintptr, what string) (Addr, error) {
	if s.Fd() < 0 {
		return Addr{}, &OpError{Op: what, FD: -1, Err: ErrSocketClosed}
	}
	var a backend.Addr
	a.Len = backend.AddrCap
	_, _, errno := unix.RawSyscall(call, uintptr(s.fd), uintptr(unsafe.Pointer(&a.Raw)), uintptr(unsafe.Pointer(&a.Len)))
	if errno != 0 {
		return Addr{}, &OpError{Op: what, FD: int(s.fd), Err: errno}
	}
	return addrOf(&a), nil
}

// Bind gives the socket a local address (bind(2)).
func (s *Socket) Bind(addr Addr) error {
	if err := s.direct("bind"); err != nil {
		return err
	}
	var raw backend.Addr
	if err := addr.raw(s.Family(), &raw); err != nil {
		return &OpError{Op: "bind", Addr: addr, FD: int(s.fd), Err: err}
	}
	p, n := raw.Pointer()
	if _, _, errno := unix.Syscall(unix.SYS_BIND, uintptr(s.fd), uintptr(p), uintptr(n)); errno != 0 {
		return &OpError{Op: "bind", Addr: addr, FD: int(s.fd), Err: errno}
	}
	return nil
}

// Listen makes the socket accept connections (listen(2)); backlog is how many
// may wait to be accepted.
func (s *Socket) Listen(backlog int) error {
	if err := s.direct("listen"); err != nil {
		return err
	}
	if err := unix.Listen(int(s.fd), backlog); err != nil {
		return s.fail("listen", err)
	}
	return nil
}

// Shutdown ends one or both directions (shutdown(2)) at once: how is SHUT_RD,
// SHUT_WR or SHUT_RDWR. Calls that wait see the end of the stream, also those that
// have begun to send: what the kernel has not taken of theirs is not sent.
func (s *Socket) Shutdown(how int) error {
	if err := s.direct("shutdown"); err != nil {
		return err
	}
	if err := unix.Shutdown(int(s.fd), how); err != nil {
		return s.fail("shutdown", err)
	}
	if how != unix.SHUT_RD {
		s.out.shut()
	}
	return nil
}

// SetOption sets an option that is an int (setsockopt(2)).
func (s *Socket) SetOption(level, name, value int) error {
	if err := s.direct("setsockopt"); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(int(s.fd), level, name, value); err != nil {
		return s.fail(fmt.Sprintf("setsockopt %d of level %d", name, level), err)
	}
	return nil
}

// GetOption returns an option that is an int (getsockopt(2)).
func (s *Socket) GetOption(level, name int) (int, error) {
	if s.Fd() < 0 {
		return 0, &OpError{Op: "getsockopt", FD: -1, Err: ErrSocketClosed}
	}
	v, err := unix.GetsockoptInt(int(s.fd), level, name)
	if err != nil {
		return 0, s.fail(fmt.Sprintf("getsockopt %d of level %d", name, level), err)
	}
	return v, nil
}

// SetNoDelay sets TCP_NODELAY: small writes are sent at once, and do not wait for
// the peer to confirm earlier ones. It is on for the sockets of Dial and Listen,
// and for what those accept, and off for those of New, as the kernel has it.
func (s *Socket) SetNoDelay(on bool) error {
	return s.SetOption(unix.IPPROTO_TCP, unix.TCP_NODELAY, flag(on))
}

// SetReuseAddr sets SO_REUSEADDR, before Bind.
func (s *Socket) SetReuseAddr(on bool) error {
	return s.SetOption(unix.SOL_SOCKET, unix.SO_REUSEADDR, flag(on))
}

// SetLinger sets SO_LINGER: with sec 0, closing resets the connection; with a
// negative one the kernel sends what is left in the background. With a positive
// one, close(2) waits for that many seconds at most, on epoll with the whole loop.
func (s *Socket) SetLinger(sec int) error {
	if err := s.direct("setsockopt"); err != nil {
		return err
	}
	l := unix.Linger{Onoff: 1, Linger: int32(sec)}
	if sec < 0 {
		l = unix.Linger{}
	}
	if err := unix.SetsockoptLinger(int(s.fd), unix.SOL_SOCKET, unix.SO_LINGER, &l); err != nil {
		return s.fail("set SO_LINGER", err)
	}
	return nil
}

func flag(on bool) int {
	if on {
		return 1
	}
	return 0
}

// direct reports why a system call that never waits may not be made.
func (s *Socket) direct(op string) error {
	if s == nil {
		return &OpError{Op: op, FD: -1, Err: fmt.Errorf("%w: the socket is nil", loop.ErrInvalidArgument)}
	}
	if s.state >= stateClosing {
		return &OpError{Op: op, FD: -1, Err: ErrSocketClosed}
	}
	return nil
}

// ends reports whether receiving nothing means the end.
func (s *Socket) ends() bool { return s.typ != unix.SOCK_DGRAM && s.typ != unix.SOCK_RAW }

// stream reports whether there are only bytes, and no packets.
func (s *Socket) stream() bool { return s.typ == unix.SOCK_STREAM }

// Adopt hands the socket to a transport: until Release every function that may
// wait, Close and Detach refuse it with ErrTransportFD, naming the owner. Operations must not
// be in flight, nor may a cancelled Accept have left a connection, or it fails
// with loop.ErrInvalidState. The transport begins with what it returns.
func (s *Socket) Adopt(owner string) (Received, error) {
	if err := s.direct("adopt"); err != nil {
		return Received{}, err
	}
	if s.state == stateAdopted {
		return Received{}, s.owned("adopt")
	}
	if err := s.mayLeave(); err != nil {
		return Received{}, s.fail("adopt", err)
	}
	received := s.takeKept()
	s.state, s.owner = stateAdopted, owner
	return received, nil
}

// Release undoes Adopt. The owner calls it, and Close or Detach next.
func (s *Socket) Release() {
	if s.state == stateAdopted {
		s.state, s.owner = stateOpen, ""
	}
}

// Surrender leaves an adopted socket closed. The owner calls it who closes the
// descriptor on the loop that has used it: the very one, unlike that of Detach, so
// that nothing else is left of the socket.
func (s *Socket) Surrender() {
	if s.state == stateAdopted {
		s.detach()
		s.owner, s.lent = "", nil
	}
}

func (s *Socket) owned(op string) error {
	return &OpError{Op: op, FD: int(s.fd), Err: fmt.Errorf("%w: %s", ErrTransportFD, s.owner)}
}

// Detach gives the descriptor to the caller, who closes it, and leaves the
// socket closed. It returns what a cancelled call had received. It fails with
// loop.ErrInvalidState while operations are in flight, and if a cancelled Accept
// has left a connection; see DetachListener. The number is not that of Fd if a
// loop has used the socket.
func (s *Socket) Detach() (fd int, received Received, err error) {
	if err := s.mayDetach(); err != nil {
		return -1, Received{}, err
	}
	if err := s.mayLeave(); err != nil {
		return -1, Received{}, s.fail("detach", err)
	}
	if err := s.leaveLoop(); err != nil {
		return -1, Received{}, err
	}
	received = s.takeKept()
	return s.detach(), received, nil
}

// DetachListener is Detach for a listener, for code that goes on accepting in
// its own way. It returns the connection that a cancelled Accept had taken, nil
// if there is none, which the caller must close. An error that it had taken is
// forgotten: it is about a connection, not about the listener.
func (s *Socket) DetachListener() (fd int, accepted *Socket, err error) {
	if err := s.mayDetach(); err != nil {
		return -1, nil, err
	}
	if s.busy() {
		return -1, nil, s.fail("detach", s.inUse())
	}
	if err := s.leaveLoop(); err != nil {
		return -1, nil, err
	}
	if k := s.kept; k != nil {
		s.kept, accepted = nil, k.conn
	}
	return s.detach(), accepted, nil
}

func (s *Socket) mayDetach() error {
	if err := s.direct("detach"); err != nil {
		return err
	}
	if s.state == stateAdopted {
		return s.owned("detach")
	}
	return nil
}

// detach leaves the socket closed.
func (s *Socket) detach() (fd int) {
	fd = int(s.fd)
	s.state, s.fd = stateClosed, -1
	return fd
}

// inUse says why the socket cannot be taken away from its loop.
func (s *Socket) inUse() error {
	if s.ahead&aheadOn != 0 {
		return fmt.Errorf("%w: it receives ahead for RecvBorrowed until Settle is called", loop.ErrInvalidState)
	}
	return fmt.Errorf("%w: operations are in flight", loop.ErrInvalidState)
}

// busy reports whether calls are in progress, or the loop receives ahead. A closed
// loop has no calls; one that it ended abruptly may have left a lane taken. But while
// it is being closed, its backend may still use the descriptor.
func (s *Socket) busy() bool {
	if s.loop != nil && s.loop.IsClosed() {
		return s.home != nil && !s.home.over && (s.in.op.InFlight() || s.out.op.InFlight())
	}
	return s.in.holder != nil || s.out.holder != nil || s.ahead&aheadOn != 0
}
