package transport

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
)

// UnixConnectOptions are the optional arguments of CreateUnixConnection. The
// zero value is asyncio's default.
type UnixConnectOptions struct {
	// Sock is a connected Unix stream socket, instead of a path. It belongs to the
	// transport as soon as the arguments are accepted; see ConnectOptions.
	Sock *sockapi.Socket
	// TLS makes the connection speak TLS, and needs ServerHostname, AnyHostname,
	// or a ServerName or InsecureSkipVerify of its own. See ConnectOptions for all
	// of these.
	TLS *tls.Config
	// ServerHostname is the name that the server's certificate must be for.
	ServerHostname string
	// AnyHostname checks the chain of the certificate, but not its name.
	AnyHostname bool
	// HandshakeTimeout limits the TLS handshake, 60 s if it is 0.
	HandshakeTimeout time.Duration
	// ShutdownTimeout limits the end of the TLS connection, 30 s if it is 0.
	ShutdownTimeout time.Duration
}

// UnixServerOptions are the optional arguments of CreateUnixServer. The zero
// value is asyncio's default.
type UnixServerOptions struct {
	// Sock is a bound Unix stream socket to listen on, instead of a path. It
	// belongs to the server as soon as the arguments are accepted.
	Sock *sockapi.Socket
	// Backlog is how many connections wait to be accepted, 100 if it is 0.
	Backlog int
	// TLS makes the server speak TLS; see ServerOptions.
	TLS *tls.Config
	// HandshakeTimeout limits the TLS handshake of a client, 60 s if it is 0.
	HandshakeTimeout time.Duration
	// ShutdownTimeout limits the end of a TLS connection, 30 s if it is 0.
	ShutdownTimeout time.Duration
	// NoCleanup leaves the socket's file where it is when the server closes.
	NoCleanup bool
	// NoStart leaves the socket bound but not listening until StartServing.
	NoStart bool
}

// CreateUnixConnection connects to a Unix stream server
// (loop.create_unix_connection). A path that begins with a NUL byte is in the
// abstract namespace. It fails with syscall.EAGAIN, instead of waiting, when the
// server's backlog is full. opts may be nil; see CreateConnection.
func CreateUnixConnection(co *loop.Coro, factory func() Protocol, path string, opts *UnixConnectOptions) (Transport, Protocol, error) {
	var o UnixConnectOptions
	if opts != nil {
		o = *opts
	}
	if err := checkUnix(factory, path, o.Sock); err != nil {
		return nil, nil, fmt.Errorf("create unix connection: %w", err)
	}
	params, err := clientTLS(o.TLS, "", o.ServerHostname, o.AnyHostname, o.HandshakeTimeout, o.ShutdownTimeout)
	if err != nil {
		return nil, nil, fmt.Errorf("create unix connection: %w", err)
	}
	if o.Sock != nil {
		return adopt(co, "create unix connection", factory, o.Sock, params)
	}
	fd, err := connectUnix(co, path)
	if err != nil {
		return nil, nil, fmt.Errorf("create unix connection: %w", err)
	}
	return (&birth{what: "create unix connection", fd: fd, tls: params}).make(co, factory)
}

func connectUnix(co *loop.Coro, path string) (int, error) {
	info := loop.AddrInfo{Family: unix.AF_UNIX, Type: unix.SOCK_STREAM}
	if err := info.Addr.SetUnix(path); err != nil {
		return -1, err
	}
	return connect(co, &info, nil)
}

// checkUnix checks the arguments that clients and servers share.
func checkUnix(factory func() Protocol, path string, sock *sockapi.Socket) error {
	switch {
	case factory == nil:
		return invalid("the protocol factory is nil")
	case sock == nil && path == "":
		return invalid("neither path nor Sock was given")
	case sock != nil && path != "":
		return invalid("path and Sock cannot be given at the same time")
	case sock != nil && (sock.Family() != unix.AF_UNIX || sock.Type() != unix.SOCK_STREAM):
		return invalid("a Unix stream socket was expected, got %v", sock)
	}
	return nil
}

// CreateUnixServer makes a Unix stream server (loop.create_unix_server). A path
// that begins with a NUL byte is in the abstract namespace; the @ that sockapi.Dial
// and Listen take for it is a letter like others here, as in asyncio. A socket file that
// is in the way is replaced, even one of a living server; any other file is
// syscall.EADDRINUSE. When the server closes, its file is removed, unless
// another one has taken its place. opts may be nil; see CreateServer.
func CreateUnixServer(co *loop.Coro, factory func() Protocol, path string, opts *UnixServerOptions) (*Server, error) {
	var o UnixServerOptions
	if opts != nil {
		o = *opts
	}
	if err := checkUnix(factory, path, o.Sock); err != nil {
		return nil, fmt.Errorf("create unix server: %w", err)
	}
	if o.Backlog < 0 {
		return nil, fmt.Errorf("create unix server: %w", invalid("the backlog of %d is negative", o.Backlog))
	}
	if o.Backlog == 0 {
		o.Backlog = defaultBacklog
	}
	params, err := serverParams(o.TLS, o.HandshakeTimeout, o.ShutdownTimeout)
	if err != nil {
		return nil, fmt.Errorf("create unix server: %w", err)
	}
	sh := sharedOf(co.Loop())
	var ls []*listener
	if o.Sock != nil {
		ls, err = suppliedListener(o.Sock)
	} else if err = sh.ports.wait(co); err == nil {
		ls, err = listenUnix(sh.loop, path)
	}
	if err != nil {
		return nil, fmt.Errorf("create unix server: %w", err)
	}
	if addr, aerr := ls[0].view.LocalAddr(); aerr == nil && !o.NoCleanup {
		ls[0].file = findSocketFile(addr.Path())
	}
	srv := newServer(sh, factory, ls, o.Backlog, params)
	return serve(co, "create unix server", srv, &ServerOptions{NoStart: o.NoStart})
}

// listenUnix binds a new socket to a path.
func listenUnix(l *loop.Loop, path string) ([]*listener, error) {
	var addr backend.Addr
	if err := addr.SetUnix(path); err != nil {
		return nil, err
	}
	if path[0] != 0 {
		removeStale(l, path)
	}
	info := loop.AddrInfo{Family: unix.AF_UNIX, Type: unix.SOCK_STREAM, Addr: addr}
	fd, err := newSocket(&info)
	if err != nil {
		return nil, err
	}
	if err := bindRaw(fd, &addr); err != nil {
		closeFD(int32(fd))
		return nil, err
	}
	return []*listener{newListener(fd, false)}, nil
}

// removeStale removes a socket's file that is in the way of a bind. A problem is
// only logged: the bind will say what is wrong.
func removeStale(l *loop.Loop, path string) {
	var st unix.Stat_t
	err := unix.Stat(path, &st)
	if err == nil && st.Mode&unix.S_IFMT == unix.S_IFSOCK {
		err = unix.Unlink(path)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.Logger().Error("unable to check or remove a stale unix socket", "path", path, "error", err)
	}
}

// socketFile is the file of a Unix socket as it was when the server was made.
type socketFile struct {
	path     string
	dev, ino uint64
}

// findSocketFile returns the file of a path, nil if there is none.
func findSocketFile(path string) *socketFile {
	var st unix.Stat_t
	if path == "" || path[0] == 0 || unix.Stat(path, &st) != nil {
		return nil
	}
	return &socketFile{path: path, dev: st.Dev, ino: st.Ino}
}

// remove removes the file if it is still the same. A problem is only logged.
func (f *socketFile) remove(l *loop.Loop) {
	if f == nil {
		return
	}
	var now unix.Stat_t
	err := unix.Stat(f.path, &now)
	if err == nil && now.Dev == f.dev && now.Ino == f.ino {
		err = unix.Unlink(f.path)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // somebody may be faster, which is as good
		guardLogger(l, &loop.ExceptionContext{}, func() {
			l.Logger().Error("unable to remove the unix socket of a server", "path", f.path, "error", err)
		})
	}
}

// AcceptedOptions are the optional arguments of ConnectAcceptedSocket.
type AcceptedOptions struct {
	// TLS makes the connection speak TLS, as its server; see ServerOptions.
	TLS *tls.Config
	// HandshakeTimeout limits the TLS handshake, 60 s if it is 0.
	HandshakeTimeout time.Duration
	// ShutdownTimeout limits the end of the TLS connection, 30 s if it is 0.
	ShutdownTimeout time.Duration
}

// ConnectAcceptedSocket makes the protocol and the transport of a stream socket
// that was accepted elsewhere (loop.connect_accepted_socket). The socket belongs
// to the transport as soon as the arguments are accepted, as that of
// ConnectOptions does. opts may be nil; see CreateConnection.
func ConnectAcceptedSocket(co *loop.Coro, factory func() Protocol, sock *sockapi.Socket, opts *AcceptedOptions) (Transport, Protocol, error) {
	var o AcceptedOptions
	if opts != nil {
		o = *opts
	}
	params, err := serverParams(o.TLS, o.HandshakeTimeout, o.ShutdownTimeout)
	switch {
	case err != nil:
	case factory == nil:
		err = invalid("the protocol factory is nil")
	case sock == nil:
		err = invalid("the socket is nil")
	case sock.Type() != unix.SOCK_STREAM:
		err = invalid("a stream socket was expected, got %v", sock)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("connect accepted socket: %w", err)
	}
	return adopt(co, "connect accepted socket", factory, sock, params)
}
