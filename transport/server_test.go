package transport

import (
	"strconv"
	"testing"

	"github.com/seed-80cfe818/ringloop/loop"
)

// echo sends back what it gets.
type echo struct {
	BaseStreamProtocol
	t Transport
}

func (e *echo) ConnectionMade(t Transport) { e.t = t }
func (e *echo) DataReceived(data []byte)   { _ = e.t.Write(data) }
func newEcho() Protocol                    { return &echo{} }

// localServer makes a server on a free port of 127.0.0.1 and returns the port.
func localServer(t *testing.T, co *loop.Coro, factory func() Protocol, opts *ServerOptions) (*Server, string) {
	t.Helper()
	srv := ok[*Server](t)(CreateServer(co, factory, []string{"127.0.0.1"}, "0", opts))
	return srv, portOf(t, srv)
}

func portOf(t *testing.T, srv *Server) string {
	t.Helper()
	addr := ok[Addr](t)(srv.Sockets()[0].LocalAddr())
	return strconv.Itoa(int(addr.Port()))
}
