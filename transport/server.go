package transport

import (
	"fmt"
	"slices"
	"strings"

	"github.com/seed-80cfe818/ringloop/loop"
)

// Server accepts connections on its sockets and gives each a new protocol
// (asyncio.Server). CreateServer and CreateUnixServer make it. It serves until
// it is closed, also if nobody keeps it. Its methods belong to the loop's
// thread.
type Server struct {
	sh        *shared
	ctx       *loop.Context // that of start, copied for each connection
	factory   func() Protocol
	tls       *tlsParams // nil without TLS
	listeners []*listener
	streams   streamList
	next      *Server // in the list of shared
	backlog   int
	closing   int // listening sockets that are being closed
	serving   bool
	closed    bool
	forever   bool
	stop      waitList // ServeForever
	over      waitList // WaitClosed
}

// newServer makes a server of bound sockets, which it owns from now on.
func newServer(sh *shared, factory func() Protocol, listeners []*listener, backlog int, t *tlsParams) *Server {
	srv := &Server{
		sh: sh, factory: factory, listeners: listeners, backlog: backlog, tls: t,
		stop: waitList{what: "the end of ServeForever"},
		over: waitList{what: "the end of a server and its connections"},
	}
	for _, l := range listeners {
		l.srv = srv
	}
	srv.next = sh.servers
	sh.servers = srv
	return srv
}

// Loop returns the server's loop, also when it is closed (Server.get_loop).
func (srv *Server) Loop() *loop.Loop { return srv.sh.loop }

// IsServing reports whether the server accepts connections (Server.is_serving).
func (srv *Server) IsServing() bool { return srv.serving }

// Sockets returns the listening sockets, in the order of the addresses, and
// none when the server is closed (Server.sockets).
func (srv *Server) Sockets() []*TransportSocket {
	views := make([]*TransportSocket, len(srv.listeners))
	for i, l := range srv.listeners {
		views[i] = l.view
	}
	return views
}

// StartServing begins to accept connections (Server.start_serving). It is
// idempotent. The error is ErrServerClosed, that of listen(2), a CancelledError,
// loop.ErrLoopClosed, or loop.ErrNotCurrent for another task's Coro.
func (srv *Server) StartServing(co *loop.Coro) error {
	if err := co.CheckCurrent("StartServing"); err != nil {
		return err
	}
	if err := srv.start(co); err != nil {
		return err
	}
	return loop.Sleep(co, 0)
}

func (srv *Server) start(co *loop.Coro) error {
	if srv.closed {
		return ErrServerClosed
	}
	if srv.sh.loop.IsClosed() {
		return closedError(co)
	}
	if srv.serving {
		return nil
	}
	for i, l := range srv.listeners {
		if err := l.listen(srv.backlog); err != nil {
			for _, before := range srv.listeners[:i] {
				before.listenNoMore() // nobody would serve what connects
			}
			return err
		}
	}
	srv.serving, srv.ctx = true, srv.sh.loop.CurrentContext().Copy()
	debugLog(srv.sh.loop, "serving", srv)
	for _, l := range srv.listeners {
		l.begin()
	}
	return nil
}

// closedWhileServing is the cancellation of a ServeForever whose server was
// closed, one error and not two that are joined: the task ends as cancelled.
type closedWhileServing struct{}

func (closedWhileServing) Error() string { return ErrServerClosed.Error() + ": cancelled" }

// Is reports whether target is one of the errors that ServeForever promises.
func (closedWhileServing) Is(target error) bool {
	return target == ErrServerClosed || target == loop.ErrCancelled
}

// ServeForever accepts connections until the task is cancelled or the server
// closed (Server.serve_forever). Cancelling the task closes the server and
// waits, like WaitClosed, before the CancelledError is returned. The error of
// a server that was closed by Close meanwhile is both ErrServerClosed and
// loop.ErrCancelled. Others are ErrServing if it is called while another task
// is in it, and those of StartServing.
func (srv *Server) ServeForever(co *loop.Coro) error {
	if err := co.CheckCurrent("ServeForever"); err != nil {
		return err
	}
	if srv.forever {
		return ErrServing
	}
	if err := srv.start(co); err != nil {
		return err
	}
	srv.forever = true
	var err error
	for err == nil && !srv.closed {
		err = srv.stop.wait(co)
	}
	srv.forever = false
	if err == nil {
		return closedWhileServing{}
	}
	srv.Close()
	if werr := srv.WaitClosed(co); werr != nil {
		return werr
	}
	return err
}

// Close stops accepting connections and closes the listening sockets
// (Server.close). Connections that were made go on; what the kernel has
// accepted and the loop has not is reset. A task in ServeForever returns. While the
// loop does not run, a socket that was supplied, or of which Dup has made another,
// goes on listening at least until it does; any other listens no more, not even for
// a process that has inherited it. It is idempotent.
func (srv *Server) Close() {
	if srv.closed || srv.sh.loop.Refuses("Server.Close") {
		return
	}
	srv.closed, srv.serving = true, false
	for _, l := range srv.listeners {
		l.close()
	}
	srv.listeners = nil
	srv.stop.wake()
	srv.detached()
}

// detached is called when a connection is gone, the server was closed or a
// listening socket is closed.
func (srv *Server) detached() {
	if !srv.isOver() {
		return
	}
	srv.over.wake()
	for at := &srv.sh.servers; *at != nil; at = &(*at).next {
		if *at == srv {
			*at = srv.next
			return
		}
	}
}

// isOver reports whether nothing is left of the server.
func (srv *Server) isOver() bool { return srv.closed && srv.streams.n == 0 && srv.closing == 0 }

// CloseClients closes the transports of all connections (Server.close_clients).
// Close the server before, or more connections may come.
func (srv *Server) CloseClients() {
	if srv.sh.loop.Refuses("Server.CloseClients") {
		return
	}
	for _, t := range srv.clients() {
		t.Close()
	}
}

// AbortClients aborts the transports of all connections (Server.abort_clients),
// also of those whose peers do not read. Close the server before, or more
// connections may come.
func (srv *Server) AbortClients() {
	if srv.sh.loop.Refuses("Server.AbortClients") {
		return
	}
	for _, t := range srv.clients() {
		t.Abort()
	}
}

// clients returns the transports of all connections; with TLS, those that the
// protocols have.
func (srv *Server) clients() []Transport {
	all := make([]Transport, 0, srv.streams.n)
	for s := srv.streams.first; s != nil; s = s.next {
		if layer, ok := s.proto.(tlsLayer); ok {
			all = append(all, layer.transport())
			continue
		}
		all = append(all, s)
	}
	slices.Reverse(all)
	return all
}

// WaitClosed suspends the task until the server is closed and has no connection
// any more (Server.wait_closed). It may be called any number of times, by any
// number of tasks. The error is a CancelledError, or loop.ErrLoopClosed.
func (srv *Server) WaitClosed(co *loop.Coro) error {
	for !srv.isOver() {
		if err := srv.over.wait(co); err != nil {
			return err
		}
	}
	return nil
}

// orphan closes the descriptors of a server whose loop is closed.
func (srv *Server) orphan() {
	srv.streams.orphan()
	for _, l := range srv.listeners {
		l.orphan()
	}
}

// String describes the server.
func (srv *Server) String() string {
	var sockets []string
	for _, l := range srv.listeners {
		sockets = append(sockets, l.view.String())
	}
	return fmt.Sprintf("<Server serving=%v sockets=[%s]>", srv.serving, strings.Join(sockets, " "))
}
