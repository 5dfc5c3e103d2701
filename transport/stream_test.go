package transport

import (
	"strconv"
	"strings"
	"testing"

	"github.com/seed-80cfe818/ringloop/loop"
)

// echo sends back what it gets.
type echo struct {
	BaseStreamProtocol
	t Transport
}

func (e *echo) ConnectionMade(t Transport)  { e.t = t }
func (e *echo) DataReceived(data []byte)    { _ = e.t.Write(data) }
func newEcho() Protocol                     { return &echo{} }
func protocolOf(p Protocol) func() Protocol { return func() Protocol { return p } }

// localServer makes a server on a free port of 127.0.0.1, closed and waited for
// by the test, and returns the port.
func localServer(t *testing.T, co *loop.Coro, factory func() Protocol, opts *ServerOptions) (*Server, string) {
	t.Helper()
	srv := ok[*Server](t)(CreateServer(co, factory, []string{"127.0.0.1"}, "0", opts))
	addr := ok[Addr](t)(srv.Sockets()[0].LocalAddr())
	return srv, strconv.Itoa(int(addr.Port()))
}

func TestEcho(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		srv, port := localServer(t, co, newEcho, nil)
		p := &streamDiary{}
		tr, got, err := CreateConnection(co, protocolOf(p), "127.0.0.1", port, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got != Protocol(p) {
			t.Error("CreateConnection returned another protocol")
		}
		_ = tr.Write([]byte("hello "))
		_ = tr.Write([]byte("world"))
		p.untilData(t, co, "hello world")
		big := strings.Repeat("0123456789", 100000)
		_ = tr.Write([]byte(big))
		p.untilData(t, co, "hello world"+big)
		tr.Close()
		p.untilLost(t, co)
		srv.Close()
		if err := srv.WaitClosed(co); err != nil {
			t.Error(err)
		}
	})
}

// ok returns a function that passes a result on, or fails the test: so a call
// can be its argument.
func ok[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		return must(t, v, err)
	}
}
