package transport

import (
	"crypto/tls"
	"errors"
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
)

// defaultBacklog is how many connections the kernel keeps until they are
// accepted.
const defaultBacklog = 100

// ServerOptions are the optional arguments of CreateServer. The zero value is
// asyncio's default.
type ServerOptions struct {
	// Family is unix.AF_INET or AF_INET6, or 0 for both.
	Family int
	// Flags are those of Getaddrinfo; 0 means loop.AIPassive.
	Flags int
	// Sock is a bound stream socket to listen on, instead of hosts and a port.
	// It belongs to the server as soon as the arguments are accepted. Connections
	// that wait on it already, or that a cancelled sockapi.Accept had taken, are
	// served, but without the options that servers set for new ones.
	Sock *sockapi.Socket
	// Backlog is how many connections wait to be accepted, 100 if it is 0.
	Backlog int
	// TLS makes the server speak TLS. It needs Certificates, GetCertificate or
	// GetConfigForClient. A client whose handshake fails is not told of to the
	// protocol; in debug mode the exception handler is.
	TLS *tls.Config
	// HandshakeTimeout limits the TLS handshake of a client, 60 s if it is 0.
	HandshakeTimeout time.Duration
	// ShutdownTimeout limits the end of a TLS connection, 30 s if it is 0.
	ShutdownTimeout time.Duration
	// NoReuseAddress leaves SO_REUSEADDR off.
	NoReuseAddress bool
	// ReusePort sets SO_REUSEPORT, so that other servers can share the port.
	ReusePort bool
	// KeepAlive sets SO_KEEPALIVE on every connection.
	KeepAlive bool
	// NoStart leaves the sockets bound but not listening until StartServing.
	NoStart bool
}

// CreateServer makes a TCP server (loop.create_server): it listens on every
// address of every host, in their order and without duplicates. No host, or an
// empty one, stands for all interfaces. port is a number or the name of a
// service; 0 or "" takes a free one, another for each socket, which the LocalAddr
// of [Server.Sockets] tells. One of hosts and port must be given. factory makes the
// protocol of each connection, on the loop's thread. opts may be nil.
//
// Connections get TCP_NODELAY. IPv6 sockets take IPv6 only. An address that
// this machine does not have is skipped. If accepting fails because of a lack
// of descriptors or memory, that is reported to the exception handler, and tried
// again after a second.
//
// The error is loop.ErrInvalidArgument, that of the resolver, a sockapi.OpError
// that names the address, or a CancelledError; nothing is left open then.
func CreateServer(co *loop.Coro, factory func() Protocol, hosts []string, port string, opts *ServerOptions) (*Server, error) {
	var o ServerOptions
	if opts != nil {
		o = *opts
	}
	params, err := o.check(factory, hosts, port)
	if err != nil {
		return nil, fmt.Errorf("create server: %w", err)
	}
	sh := sharedOf(co.Loop())
	var listeners []*listener
	if o.Sock != nil {
		listeners, err = suppliedListener(o.Sock)
	} else {
		listeners, err = o.bindAll(co, hosts, port)
	}
	if err != nil {
		return nil, fmt.Errorf("create server: %w", err)
	}
	return serve(co, "create server", newServer(sh, factory, listeners, o.Backlog, params), &o)
}

// serve starts a new server and skips a turn. what is the call, for errors.
func serve(co *loop.Coro, what string, srv *Server, o *ServerOptions) (*Server, error) {
	served := false
	defer func() {
		if !served { // also if a closed loop unwinds the task
			srv.Close()
			srv.AbortClients()
		}
	}()
	var err error
	for _, l := range srv.listeners {
		if err == nil {
			err = l.prepare(o)
		}
	}
	if err == nil && !o.NoStart {
		err = srv.start(co)
	}
	if err == nil {
		err = loop.Sleep(co, 0)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	served = true
	return srv, nil
}

// check completes the options and checks the arguments.
func (o *ServerOptions) check(factory func() Protocol, hosts []string, port string) (*tlsParams, error) {
	if factory == nil {
		return nil, invalid("the protocol factory is nil")
	}
	if o.Sock != nil {
		if len(hosts) > 0 || port != "" {
			return nil, invalid("hosts or port and Sock cannot be given at the same time")
		}
		if o.Sock.Type() != unix.SOCK_STREAM {
			return nil, invalid("a stream socket was expected, got %v", o.Sock)
		}
	} else if len(hosts) == 0 && port == "" {
		return nil, invalid("neither hosts nor port nor Sock was given")
	}
	if o.Backlog < 0 {
		return nil, invalid("the backlog of %d is negative", o.Backlog)
	}
	if o.Backlog == 0 {
		o.Backlog = defaultBacklog
	}
	return serverParams(o.TLS, o.HandshakeTimeout, o.ShutdownTimeout)
}

// serverParams checks the options of a server's TLS; nil means none.
func serverParams(config *tls.Config, handshake, shutdown time.Duration) (*tlsParams, error) {
	p, err := makeTLSParams(config, handshake, shutdown)
	if p == nil || err != nil {
		return nil, err
	}
	if len(config.Certificates) == 0 && config.GetCertificate == nil && config.GetConfigForClient == nil {
		// Otherwise every handshake would fail, and only the clients be told.
		return nil, invalid("TLS: the configuration of a server needs Certificates, GetCertificate or GetConfigForClient")
	}
	p.serverSide = true
	return p, nil
}

// makeTLSParams checks the options of TLS that both sides have; nil means none.
func makeTLSParams(config *tls.Config, handshake, shutdown time.Duration) (*tlsParams, error) {
	if config == nil {
		if handshake != 0 {
			return nil, invalid("HandshakeTimeout is only meaningful with TLS")
		}
		if shutdown != 0 {
			return nil, invalid("ShutdownTimeout is only meaningful with TLS")
		}
		return nil, nil
	}
	if handshake < 0 {
		return nil, invalid("HandshakeTimeout should be a positive number, got %v", handshake)
	}
	if shutdown < 0 {
		return nil, invalid("ShutdownTimeout should be a positive number, got %v", shutdown)
	}
	p := &tlsParams{config: config, handshakeTimeout: handshake, shutdownTimeout: shutdown}
	if handshake == 0 {
		p.handshakeTimeout = 60 * time.Second
	}
	if shutdown == 0 {
		p.shutdownTimeout = 30 * time.Second
	}
	return p, nil
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", loop.ErrInvalidArgument, fmt.Sprintf(format, args...))
}

// suppliedListener takes over a socket of the caller, with the connection that a
// cancelled call may have accepted on it.
func suppliedListener(sock *sockapi.Socket) ([]*listener, error) {
	family := sock.Family()
	fd, early, err := sock.DetachListener()
	if err != nil {
		return nil, err
	}
	l := newListener(fd, family != unix.AF_UNIX)
	l.early, l.supplied = early, true
	return []*listener{l}, nil
}

// bindAll binds a socket to every address of every host.
func (o *ServerOptions) bindAll(co *loop.Coro, hosts []string, port string) (listeners []*listener, err error) {
	infos, err := o.resolveAll(co, hosts, port)
	if err != nil {
		return nil, err
	}
	if err := sharedOf(co.Loop()).ports.wait(co); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			for _, l := range listeners {
				closeFD(l.fd)
			}
			listeners = nil
		}
	}()
	var absent error
	for i := range infos {
		fd, err := o.bind(&infos[i])
		if errors.Is(err, syscall.EADDRNOTAVAIL) || errors.Is(err, syscall.EAFNOSUPPORT) {
			absent = err
			continue
		}
		if err != nil {
			return listeners, err
		}
		listeners = append(listeners, newListener(fd, true))
	}
	if len(listeners) == 0 {
		return nil, fmt.Errorf("could not bind on any address of %q: %w", hosts, absent)
	}
	return listeners, nil
}

// resolveAll returns the addresses of all hosts, each once.
func (o *ServerOptions) resolveAll(co *loop.Coro, hosts []string, port string) ([]loop.AddrInfo, error) {
	if len(hosts) == 0 {
		hosts = []string{""}
	}
	if port == "" {
		port = "0"
	}
	hints := loop.AddrInfoHints{Family: o.Family, Type: unix.SOCK_STREAM, Flags: o.Flags}
	if hints.Flags == 0 {
		hints.Flags = loop.AIPassive
	}
	var all []loop.AddrInfo
	seen := map[backend.Addr]bool{}
	for _, host := range hosts {
		infos, err := resolve(co, host, port, &hints)
		if err != nil {
			return nil, err
		}
		for i := range infos {
			if !seen[infos[i].Addr] {
				seen[infos[i].Addr] = true
				all = append(all, infos[i])
			}
		}
	}
	return all, nil
}

// resolve returns the addresses of a host, without the executor if it is a
// literal address.
func resolve(co *loop.Coro, host, port string, hints *loop.AddrInfoHints) ([]loop.AddrInfo, error) {
	if ai, ok := loop.ParseIPAddr(host, port, hints.Family, hints.Type, hints.Proto); ok {
		return []loop.AddrInfo{ai}, nil
	}
	infos, err := co.Loop().Getaddrinfo(host, port, hints).Await(co)
	if err == nil && len(infos) == 0 {
		err = fmt.Errorf("getaddrinfo of %q returned nothing: %w", host, syscall.EADDRNOTAVAIL)
	}
	return infos, err
}

// bind makes a socket for an address.
func (o *ServerOptions) bind(info *loop.AddrInfo) (fd int, err error) {
	fd, err = newSocket(info)
	if err != nil {
		return -1, err
	}
	set := func(what string, level, name int) {
		if err != nil {
			return
		}
		if serr := unix.SetsockoptInt(fd, level, name, 1); serr != nil {
			err = &sockapi.OpError{Op: "set " + what + " of", Addr: addrOf(&info.Addr), FD: fd, Err: serr}
		}
	}
	if !o.NoReuseAddress {
		set("SO_REUSEADDR", unix.SOL_SOCKET, unix.SO_REUSEADDR)
	}
	if o.ReusePort {
		set("SO_REUSEPORT", unix.SOL_SOCKET, unix.SO_REUSEPORT)
	}
	if info.Family == unix.AF_INET6 {
		set("IPV6_V6ONLY", unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
	}
	if err == nil {
		err = bindRaw(fd, &info.Addr)
	}
	if err != nil {
		closeFD(int32(fd))
		return -1, err
	}
	return fd, nil
}

// newSocket makes a non-blocking socket for an address, if info has one.
func newSocket(info *loop.AddrInfo) (int, error) {
	fd, err := unix.Socket(info.Family, info.Type|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, info.Proto)
	if err != nil {
		op := "socket"
		if info.Addr.Len > 0 {
			op = "socket for"
		}
		return -1, &sockapi.OpError{Op: op, Addr: addrOf(&info.Addr), FD: -1, Err: err}
	}
	return fd, nil
}

// bindRaw binds a socket to an address (bind(2)).
func bindRaw(fd int, addr *backend.Addr) error {
	p, n := addr.Pointer()
	if _, _, errno := unix.Syscall(unix.SYS_BIND, uintptr(fd), uintptr(p), uintptr(n)); errno != 0 {
		return &sockapi.OpError{Op: "bind on", Addr: addrOf(addr), FD: fd, Err: errno}
	}
	return nil
}

// prepare sets the options that connections inherit from the listening socket.
func (l *listener) prepare(o *ServerOptions) error {
	if l.tcp {
		// A stream that was supplied may be of another protocol, which lacks it.
		_ = l.view.SetOption(unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	if o.KeepAlive {
		return l.view.SetOption(unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	}
	return nil
}
