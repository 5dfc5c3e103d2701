package transport

import (
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
)

// ConnectOptions are the optional arguments of CreateConnection. The zero value
// is asyncio's default.
type ConnectOptions struct {
	// Family is unix.AF_INET or AF_INET6, or 0 for both.
	Family int
	// Proto is a protocol number, or 0 for TCP.
	Proto int
	// Flags are those of Getaddrinfo.
	Flags int
	// Sock is a connected stream socket, instead of a host and a port. It
	// belongs to the transport as soon as the arguments are accepted, and is
	// closed if the call fails after that or is cancelled. A socket that is in
	// use, or another transport's, is refused and stays the caller's.
	Sock *sockapi.Socket
	// LocalHost and LocalPort are the address to connect from, if one of them is
	// not empty. A port alone leaves the choice of the address to the kernel.
	LocalHost, LocalPort string
	// TLS makes the connection speak TLS.
	TLS *tls.Config
	// ServerHostname is the name that the server's certificate must be for; if it
	// is empty, TLS.ServerName, or else the host.
	ServerHostname string
	// AnyHostname checks the chain of the certificate, but not its name (an empty
	// server_hostname in asyncio). The configuration's callbacks are given the
	// verified chains, ConnectionState has none.
	AnyHostname bool
	// HandshakeTimeout limits the TLS handshake, 60 s if it is 0.
	HandshakeTimeout time.Duration
	// ShutdownTimeout limits the end of the TLS connection, 30 s if it is 0.
	ShutdownTimeout time.Duration
	// HappyEyeballsDelay is after which time the next address is tried while an
	// earlier one has not answered (RFC 8305 suggests 250 ms). 0 tries one
	// address after the other.
	HappyEyeballsDelay time.Duration
	// Interleave is how many addresses of the first family come before those of
	// the families alternate; 0 keeps the resolver's order, or means 1 with a
	// HappyEyeballsDelay.
	Interleave int
	// AllErrors makes the error a *ConnectError of all that went wrong, also if
	// that is one thing.
	AllErrors bool
}

// ConnectError is the error of CreateConnection when several addresses failed
// for different reasons. errors.Is and errors.As see them all.
type ConnectError struct {
	// Errs are the errors of the addresses, in their order, before each those of
	// the local addresses from which it could not be tried.
	Errs []error
}

// Error is the texts of all of them.
func (e *ConnectError) Error() string {
	texts := make([]string, len(e.Errs))
	for i, err := range e.Errs {
		texts[i] = err.Error()
	}
	return "multiple errors: " + strings.Join(texts, ", ")
}

// Unwrap returns the errors.
func (e *ConnectError) Unwrap() []error { return e.Errs }

// CreateConnection connects to a TCP server (loop.create_connection). It tries
// the addresses of host in order, and makes the protocol and its transport when
// one is connected; ConnectionMade has been called when it returns. port is a
// number or the name of a service. The connection gets TCP_NODELAY. opts may be
// nil.
//
// The error is loop.ErrInvalidArgument, that of the resolver, a sockapi.OpError
// that names the address, a *ConnectError, or a CancelledError; nothing is left
// open then, and the factory was not called unless a connection was made.
func CreateConnection(co *loop.Coro, factory func() Protocol, host, port string, opts *ConnectOptions) (Transport, Protocol, error) {
	var o ConnectOptions
	if opts != nil {
		o = *opts
	}
	params, err := o.check(factory, host, port)
	if err != nil {
		return nil, nil, fmt.Errorf("create connection: %w", err)
	}
	if o.Sock != nil {
		return adopt(co, "create connection", factory, o.Sock, params)
	}
	fd, err := o.dial(co, host, port)
	if err != nil {
		return nil, nil, fmt.Errorf("create connection: %w", err)
	}
	return (&birth{what: "create connection", fd: fd, tcp: true, port: o.hasLocal(), tls: params}).make(co, factory)
}

// check checks the arguments.
func (o *ConnectOptions) check(factory func() Protocol, host, port string) (*tlsParams, error) {
	if factory == nil {
		return nil, invalid("the protocol factory is nil")
	}
	if o.Sock != nil {
		if host != "" || port != "" {
			return nil, invalid("host or port and Sock cannot be given at the same time")
		}
		if o.Sock.Type() != unix.SOCK_STREAM {
			return nil, invalid("a stream socket was expected, got %v", o.Sock)
		}
	} else if host == "" && port == "" {
		return nil, invalid("neither host nor port nor Sock was given")
	}
	if o.HappyEyeballsDelay < 0 {
		return nil, invalid("HappyEyeballsDelay of %v is negative", o.HappyEyeballsDelay)
	}
	if o.Interleave < 0 {
		return nil, invalid("Interleave of %d is negative", o.Interleave)
	}
	return clientTLS(o.TLS, host, o.ServerHostname, o.AnyHostname, o.HandshakeTimeout, o.ShutdownTimeout)
}

// hasLocal reports whether the address to connect from is given.
func (o *ConnectOptions) hasLocal() bool { return o.LocalHost != "" || o.LocalPort != "" }

// dial resolves the names and connects.
func (o *ConnectOptions) dial(co *loop.Coro, host, port string) (fd int, err error) {
	hints := loop.AddrInfoHints{Family: o.Family, Type: unix.SOCK_STREAM, Proto: o.Proto, Flags: o.Flags}
	if port == "" {
		port = "0"
	}
	infos, err := resolve(co, host, port, &hints)
	if err != nil {
		return -1, err
	}
	var local []loop.AddrInfo
	if o.hasLocal() {
		from := hints
		if o.LocalHost == "" {
			from.Flags |= loop.AIPassive // or it would be the loopback interface's
		}
		if local, err = resolve(co, o.LocalHost, o.LocalPort, &from); err != nil {
			return -1, err
		}
		if err = sharedOf(co.Loop()).ports.wait(co); err != nil {
			return -1, err
		}
	}
	if o.Interleave > 0 || o.HappyEyeballsDelay > 0 {
		infos = interleave(infos, max(o.Interleave, 1))
	}
	attempt := func(co *loop.Coro, i int) (int, error) { return connect(co, &infos[i], local) }
	abandon := func(fd int) { closeFD(int32(fd)) }
	var errs []error
	if o.HappyEyeballsDelay > 0 {
		fd, errs = staggeredRace(co, len(infos), o.HappyEyeballsDelay, attempt, abandon)
	} else {
		fd, errs = inOrder(co, len(infos), attempt)
	}
	if errs == nil {
		return fd, nil
	}
	return -1, o.combine(errs)
}

// combine makes one error of those of the attempts.
func (o *ConnectOptions) combine(attempts []error) error {
	var errs []error
	for _, err := range attempts {
		if several := (*ConnectError)(nil); errors.As(err, &several) {
			errs = append(errs, several.Errs...)
		} else {
			errs = append(errs, err)
		}
	}
	last := errs[len(errs)-1]
	if errors.Is(last, loop.ErrCancelled) {
		return last
	}
	if o.AllErrors {
		return &ConnectError{errs}
	}
	for _, err := range errs[1:] {
		if err.Error() != errs[0].Error() {
			return &ConnectError{errs}
		}
	}
	return errs[0]
}

// inOrder makes one attempt after the other until one succeeds. A cancellation
// is the last error.
func inOrder(co *loop.Coro, n int, attempt func(*loop.Coro, int) (int, error)) (int, []error) {
	var errs []error
	for i := range n {
		fd, err := attempt(co, i)
		if err == nil {
			return fd, nil
		}
		errs = append(errs, err)
		if errors.Is(err, loop.ErrCancelled) {
			break
		}
	}
	return -1, errs
}

// connect connects a new socket to an address, from one of the local addresses
// if there are any. The error is a *ConnectError if binding to one of those
// failed, too.
func connect(co *loop.Coro, info *loop.AddrInfo, local []loop.AddrInfo) (int, error) {
	fd, err := newSocket(info)
	if err != nil {
		return -1, err
	}
	var unbound []error
	if local != nil {
		unbound, err = bindLocal(fd, info.Family, local)
	}
	if err == nil {
		err = connectRaw(co, fd, &info.Addr)
	}
	if err != nil {
		closeFD(int32(fd)) // at once, so that its local address is free
		if len(unbound) > 0 {
			err = &ConnectError{append(unbound, err)}
		}
		return -1, err
	}
	return fd, nil
}

// bindLocal binds a socket to the first local address of its family that can be
// had, and returns why those before it, and at last it, could not.
func bindLocal(fd, family int, local []loop.AddrInfo) (before []error, last error) {
	for i := range local {
		if local[i].Family != family {
			continue
		}
		if last != nil {
			before = append(before, last)
		}
		if last = bindRaw(fd, &local[i].Addr); last == nil {
			return before, nil
		}
	}
	if last == nil {
		last = fmt.Errorf("no matching local address with family=%d found: %w", family, syscall.EADDRNOTAVAIL)
	}
	return before, last
}

// connectRaw connects a socket, which is useless after an error. Nothing is in flight
// on it when that returns.
func connectRaw(co *loop.Coro, fd int, addr *backend.Addr) error {
	c := &operation{op: backend.Op{Code: backend.OpConnect, FD: int32(fd), Ext: &backend.Ext{Addr: *addr}}}
	if err := c.perform(co); err != nil {
		return err
	}
	if c.errno != 0 {
		return &sockapi.OpError{Op: "connect to", Addr: addrOf(addr), FD: fd, Err: c.errno}
	}
	return nil
}
