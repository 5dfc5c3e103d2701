package transport

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
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

// over closes a server and waits for its end.
func over(t *testing.T, co *loop.Coro, srv *Server) {
	t.Helper()
	srv.Close()
	srv.AbortClients()
	check(t, srv.WaitClosed(co))
}

// dialLocal connects to a port of 127.0.0.1.
func dialLocal(t *testing.T, co *loop.Coro, port string) *sockapi.Socket {
	t.Helper()
	s := ok[*sockapi.Socket](t)(sockapi.Dial(co, "tcp", "127.0.0.1:"+port))
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestConnectionsOutliveTheListener(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		srv, port := localServer(t, co, protocolOf(p), nil)
		peer := dialLocal(t, co, port)
		until(t, co, "the connection is made", func() bool { return p.t != nil })
		srv.Close()
		srv.Close()
		check(t, sockapi.SendAll(co, peer, []byte("after the close")))
		p.untilData(t, co, "after the close")
		check(t, p.t.Write([]byte("answer")))
		receive(t, co, peer, 6)
		check(t, sockapi.CloseWait(co, peer))
		check(t, p.untilLost(t, co))
		p.want(t, "made", "eof", "lost")
		check(t, srv.WaitClosed(co))
	})
}

func TestASocketOfATransportIsOnlyForLookingAt(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		srv, _ := localServer(t, co, newEcho, nil)
		v := srv.Sockets()[0]
		if v != srv.Sockets()[0] {
			t.Error("the socket is another one each time")
		}
		for what, err := range map[string]error{"SetBlocking(true)": v.SetBlocking(true), "SetTimeout(1s)": v.SetTimeout(time.Second)} {
			if !errors.Is(err, loop.ErrInvalidArgument) {
				t.Errorf("%s: %v", what, err)
			}
		}
		check(t, v.SetBlocking(false))
		check(t, v.SetTimeout(0))
		if ok[bool](t)(v.Inheritable()) {
			t.Error("the socket is inherited by child processes")
		}
		if got := ok[int](t)(v.Family()); got != unix.AF_INET {
			t.Errorf("the family is %d", got)
		}
		if got := ok[int](t)(v.Type()); got != unix.SOCK_STREAM {
			t.Errorf("the type is %d", got)
		}
		if got := ok[int](t)(v.Proto()); got != unix.IPPROTO_TCP {
			t.Errorf("the protocol is %d", got)
		}
		dup := ok[*sockapi.Socket](t)(v.Dup())
		if dup.Fd() == v.Fd() {
			t.Error("the duplicate has the same descriptor")
		}
		check(t, dup.Close())
		over(t, co, srv)
		if _, err := v.LocalAddr(); v.Fd() != -1 || !errors.Is(err, sockapi.ErrSocketClosed) {
			t.Errorf("after the close: fd %d, %v", v.Fd(), err)
		}
		if len(srv.Sockets()) != 0 {
			t.Error("a closed server has sockets")
		}
	})
}

func TestWithoutAHostIPv4AndIPv6ListenersShareAPort(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		for _, hosts := range [][]string{nil, {""}, {"0.0.0.0", "::", "0.0.0.0"}} {
			// Somebody else may take the port between the two calls.
			var srv *Server
			for range 20 {
				probe, port := localServer(t, co, newEcho, nil)
				over(t, co, probe)
				var err error
				if srv, err = CreateServer(co, newEcho, hosts, port, nil); !errors.Is(err, syscall.EADDRINUSE) {
					check(t, err)
					break
				}
			}
			families := map[int]uint16{}
			for _, s := range srv.Sockets() {
				a := ok[Addr](t)(s.LocalAddr())
				families[a.Family()] = a.Port()
			}
			if len(srv.Sockets()) != 2 || families[unix.AF_INET] == 0 || families[unix.AF_INET] != families[unix.AF_INET6] {
				t.Errorf("hosts %q: listening on %v", hosts, srv)
			}
			over(t, co, srv)
		}
	})
}

func TestPortSharingIsOffUnlessAskedFor(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		srv, port := localServer(t, co, newEcho, nil)
		if v := ok[int](t)(srv.Sockets()[0].GetOption(unix.SOL_SOCKET, unix.SO_REUSEPORT)); v != 0 {
			t.Error("SO_REUSEPORT is on")
		}
		if v := ok[int](t)(srv.Sockets()[0].GetOption(unix.SOL_SOCKET, unix.SO_REUSEADDR)); v == 0 {
			t.Error("SO_REUSEADDR is off")
		}
		_, err := CreateServer(co, newEcho, []string{"127.0.0.1"}, port, nil)
		if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "127.0.0.1:"+port) {
			t.Errorf("a second server on the port: %v", err)
		}
		over(t, co, srv)

		first, port := localServer(t, co, newEcho, &ServerOptions{ReusePort: true, NoReuseAddress: true})
		if v := ok[int](t)(first.Sockets()[0].GetOption(unix.SOL_SOCKET, unix.SO_REUSEADDR)); v != 0 {
			t.Error("SO_REUSEADDR is on")
		}
		second, err := CreateServer(co, newEcho, []string{"127.0.0.1"}, port, &ServerOptions{ReusePort: true})
		check(t, err)
		over(t, co, first)
		over(t, co, second)
	})
}

func TestASuppliedSocketIsUsedAsItIs(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		sock := ok[*sockapi.Socket](t)(sockapi.New(unix.AF_INET, unix.SOCK_STREAM, 0))
		check(t, sock.Bind(sockapi.IPAddr(netip.MustParseAddrPort("127.0.0.1:0"))))
		want := ok[Addr](t)(sock.LocalAddr())
		p := &recorder{}
		srv, err := CreateServer(co, protocolOf(p), nil, "", &ServerOptions{Sock: sock})
		check(t, err)
		if got := ok[Addr](t)(srv.Sockets()[0].LocalAddr()); got != want {
			t.Errorf("listening on %v, want %v", got, want)
		}
		if sock.Fd() >= 0 {
			t.Error("the caller still has the descriptor")
		}
		dialLocal(t, co, portOf(t, srv))
		until(t, co, "the connection is made", func() bool { return p.t != nil })
		over(t, co, srv)

		dgram := ok[*sockapi.Socket](t)(sockapi.New(unix.AF_INET, unix.SOCK_DGRAM, 0))
		defer dgram.Close()
		if _, err := CreateServer(co, newEcho, nil, "", &ServerOptions{Sock: dgram}); !errors.Is(err, loop.ErrInvalidArgument) {
			t.Errorf("a datagram socket: %v", err)
		}
	})
}

// A Unix socket stands for streams like those of vsock, which few kernels have.
func TestAListenerNeedNotKnowTheOptionsOfTCP(t *testing.T) {
	fd := ok[int](t)(unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0))
	defer unix.Close(fd)
	check(t, newListener(fd, true).prepare(&ServerOptions{KeepAlive: true}))
}

// earlyListener returns a listener on which a cancelled Accept may have taken the
// connection of the client. On io_uring it often has.
func earlyListener(t *testing.T, co *loop.Coro, network string) (ln *sockapi.Socket, client net.Conn) {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "s")
	}
	ln = ok[*sockapi.Socket](t)(sockapi.Listen(network, address, nil))
	accepting := co.Loop().Go(func(co *loop.Coro) error {
		_, _, err := sockapi.Accept(co, ln)
		return err
	})
	turns(t, co)
	// The kernel accepts it without the loop, which does not turn meanwhile.
	client = ok[net.Conn](t)(net.Dial(network, ok[Addr](t)(ln.LocalAddr()).String()))
	t.Cleanup(func() { _ = client.Close() })
	check(t, loop.Sleep(co, 0)) // the loop finds the connection, and is about to deliver it
	accepting.Cancel("")
	if _, err := accepting.Await(co); !errors.Is(err, loop.ErrCancelled) {
		t.Fatalf("Accept ended with %v", err)
	}
	return ln, client
}

// saysBack is nil if what is written to c comes back.
func saysBack(c net.Conn) error {
	if _, err := c.Write([]byte("hello")); err != nil {
		return err
	}
	p := make([]byte, 5)
	if _, err := io.ReadFull(c, p); err != nil || string(p) != "hello" {
		return fmt.Errorf("%q came back: %w", p, err)
	}
	return nil
}

func TestAServerServesAConnectionThatACancelledAcceptHadTaken(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		for _, network := range []string{"tcp", "unix"} {
			for _, noStart := range []bool{false, true} {
				ln, client := earlyListener(t, co, network)
				served := 0
				factory := func() Protocol {
					served++
					return newEcho()
				}
				var srv *Server
				var err error
				if network == "tcp" {
					srv, err = CreateServer(co, factory, nil, "", &ServerOptions{Sock: ln, NoStart: noStart})
				} else {
					srv, err = CreateUnixServer(co, factory, "", &UnixServerOptions{Sock: ln, NoStart: noStart})
				}
				check(t, err)
				if noStart {
					turns(t, co)
					if served != 0 {
						t.Error("the connection is served before StartServing")
					}
					check(t, srv.StartServing(co))
				}
				elsewhere(t, co, func() error { return saysBack(client) })()
				later := ok[net.Conn](t)(net.Dial(network, client.RemoteAddr().String()))
				elsewhere(t, co, func() error { return saysBack(later) })()
				check(t, later.Close())
				if served != 2 {
					t.Errorf("%d connections were served, want 2", served)
				}
				over(t, co, srv)
			}
		}
	})
}

func TestAServerThatNeverServedClosesAConnectionThatACancelledAcceptHadTaken(t *testing.T) {
	eachBackend(t, func(t *testing.T, name string) {
		l := ipcLoop(t, loop.WithBackend(name))
		var clients []net.Conn
		runTask(t, l, func(co *loop.Coro) error {
			for _, closed := range []bool{true, false} {
				ln, client := earlyListener(t, co, "tcp")
				srv, err := CreateServer(co, mustNotCall(t), nil, "", &ServerOptions{Sock: ln, NoStart: true})
				check(t, err)
				clients = append(clients, client)
				if closed {
					srv.Close()
					check(t, srv.WaitClosed(co))
				}
			}
			return nil
		})
		check(t, l.Close())
		for _, c := range clients {
			check(t, c.SetDeadline(time.Now().Add(patience)))
			if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the client was told %v", err)
			}
		}
	})
}

func TestWrongArgumentsOfAServerAreRefused(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		sock := ok[*sockapi.Socket](t)(sockapi.New(unix.AF_INET, unix.SOCK_STREAM, 0))
		defer sock.Close()
		local := []string{"127.0.0.1"}
		for what, call := range map[string]func() (*Server, error){
			"nothing to listen on": func() (*Server, error) { return CreateServer(co, newEcho, nil, "", nil) },
			"host and socket":      func() (*Server, error) { return CreateServer(co, newEcho, local, "", &ServerOptions{Sock: sock}) },
			"port and socket":      func() (*Server, error) { return CreateServer(co, newEcho, nil, "1", &ServerOptions{Sock: sock}) },
			"no factory":           func() (*Server, error) { return CreateServer(co, nil, local, "0", nil) },
			"negative backlog":     func() (*Server, error) { return CreateServer(co, newEcho, local, "0", &ServerOptions{Backlog: -1}) },
			"handshake timeout without TLS": func() (*Server, error) {
				return CreateServer(co, newEcho, local, "0", &ServerOptions{HandshakeTimeout: time.Second})
			},
			"shutdown timeout without TLS": func() (*Server, error) {
				return CreateServer(co, newEcho, local, "0", &ServerOptions{ShutdownTimeout: time.Second})
			},
		} {
			if _, err := call(); !errors.Is(err, loop.ErrInvalidArgument) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if sock.Fd() < 0 {
			t.Error("a refused call took the socket")
		}
	})
}

func TestAnAddressThatTheMachineDoesNotHaveIsSkipped(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		// 192.0.2.0/24 is for documentation only.
		srv, err := CreateServer(co, newEcho, []string{"192.0.2.1", "127.0.0.1"}, "0", nil)
		check(t, err)
		if n := len(srv.Sockets()); n != 1 {
			t.Errorf("listening on %d sockets: %v", n, srv)
		}
		over(t, co, srv)
		_, err = CreateServer(co, newEcho, []string{"192.0.2.1"}, "0", nil)
		if !errors.Is(err, syscall.EADDRNOTAVAIL) || !strings.Contains(err.Error(), "192.0.2.1") {
			t.Errorf("only an address of elsewhere: %v", err)
		}
	})
}

func TestAServerMadeWithoutServingRefusesUntilStarted(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		srv, port := localServer(t, co, newEcho, &ServerOptions{NoStart: true})
		if srv.IsServing() {
			t.Error("serving")
		}
		if s, err := sockapi.Dial(co, "tcp", "127.0.0.1:"+port); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("connecting gives %v, %v", s, err)
		}
		check(t, srv.StartServing(co))
		check(t, srv.StartServing(co))
		if !srv.IsServing() {
			t.Error("not serving")
		}
		peer := dialLocal(t, co, port)
		check(t, sockapi.SendAll(co, peer, []byte("x")))
		receive(t, co, peer, 1)
		over(t, co, srv)
		if srv.IsServing() {
			t.Error("serving after the close")
		}
		if err := srv.StartServing(co); !errors.Is(err, ErrServerClosed) {
			t.Errorf("StartServing after the close: %v", err)
		}
		if srv.Loop() != co.Loop() {
			t.Error("the loop is another one")
		}
		if s, err := sockapi.Dial(co, "tcp", "127.0.0.1:"+port); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("connecting after the close gives %v, %v", s, err)
		}
	})
}

func TestCancellingServeForeverClosesTheServer(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		srv, _ := localServer(t, co, newEcho, &ServerOptions{NoStart: true})
		task := co.Loop().Go(srv.ServeForever)
		check(t, loop.Sleep(co, 0))
		if !srv.IsServing() {
			t.Error("ServeForever does not serve")
		}
		if err := srv.ServeForever(co); !errors.Is(err, ErrServing) {
			t.Errorf("a second ServeForever: %v", err)
		}
		task.Cancel("enough")
		if _, err := task.Await(co); !errors.Is(err, loop.ErrCancelled) {
			t.Errorf("ServeForever returned %v", err)
		}
		if srv.IsServing() || len(srv.Sockets()) != 0 {
			t.Error("the server is not closed")
		}
		if err := srv.ServeForever(co); !errors.Is(err, ErrServerClosed) {
			t.Errorf("ServeForever after the close: %v", err)
		}
	})
}

func TestCloseEndsServeForever(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		srv, _ := localServer(t, co, newEcho, nil)
		var got error
		task := co.Loop().Go(func(co *loop.Coro) error {
			got = srv.ServeForever(co)
			return got
		})
		check(t, loop.Sleep(co, 0))
		srv.Close()
		if _, err := task.Await(co); !errors.Is(err, loop.ErrCancelled) || !task.Cancelled() {
			t.Errorf("the task ended with %v", err)
		}
		if !errors.Is(got, ErrServerClosed) || !errors.Is(got, loop.ErrCancelled) {
			t.Errorf("ServeForever returned %v", got)
		}
		check(t, srv.WaitClosed(co))
	})
}

func TestWaitClosedWaitsForTheCloseAndForTheLastConnection(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		srv, port := localServer(t, co, protocolOf(p), nil)
		waiters := []*loop.Task[struct{}]{co.Loop().Go(srv.WaitClosed), co.Loop().Go(srv.WaitClosed)}
		waiting := func() bool {
			turns(t, co)
			return !waiters[0].Done() && !waiters[1].Done()
		}
		if !waiting() {
			t.Error("WaitClosed returned while the server was open")
		}
		dialLocal(t, co, port)
		until(t, co, "the connection is made", func() bool { return p.t != nil })
		srv.Close()
		if !waiting() {
			t.Error("WaitClosed returned while there was a connection")
		}
		p.t.Close()
		for _, w := range waiters {
			_, err := w.Await(co)
			check(t, err)
		}
		check(t, srv.WaitClosed(co))
	})
}

func TestClosingTheServerAndItsClientInOneTurnStrandsNobody(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		srv, port := localServer(t, co, protocolOf(p), nil)
		dialLocal(t, co, port)
		until(t, co, "the connection is made", func() bool { return p.t != nil })
		w := co.Loop().Go(srv.WaitClosed)
		check(t, loop.Sleep(co, 0))
		srv.Close()
		p.t.Close()
		_, err := w.Await(co)
		check(t, err)
	})
}

func TestCloseClientsFlushesAndAbortClientsDoesNotWait(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		for _, abort := range []bool{false, true} {
			p := &recorder{}
			srv, port := localServer(t, co, protocolOf(p), nil)
			peer := dialLocal(t, co, port)
			until(t, co, "the connection is made", func() bool { return p.t != nil })
			want := stuff(t, co, p.t)
			srv.Close()
			srv.CloseClients()
			turns(t, co)
			if p.lost {
				t.Fatal("lost although the peer has not read")
			}
			if abort {
				srv.AbortClients()
			} else {
				receive(t, co, peer, len(want))
			}
			check(t, srv.WaitClosed(co))
			check(t, p.untilLost(t, co))
		}
	})
}

func TestAServerWithoutReferencesGoesOnServing(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		var port string
		func() { _, port = localServer(t, co, newEcho, nil) }()
		for range 3 {
			collect()
			peer := dialLocal(t, co, port)
			check(t, sockapi.SendAll(co, peer, []byte("x")))
			receive(t, co, peer, 1)
		}
		over(t, co, sharedOf(co.Loop()).servers)
	})
}

// failing is a backend on which accepting fails with one error for a while.
type failing struct {
	backend.Backend
	errno syscall.Errno
	times int
}

// failed delivers a failure instead of the submitted accept.
type failed struct {
	op    *backend.Op
	errno syscall.Errno
}

func (b *failing) Submit(op *backend.Op) error {
	if op.Code == backend.OpAccept && b.times > 0 {
		b.times--
		nop := &backend.Op{Receiver: &failed{op, b.errno}}
		return b.Backend.Submit(nop)
	}
	return b.Backend.Submit(op)
}

func (f *failed) Complete(*backend.Op, backend.Result) {
	f.op.Receiver.Complete(f.op, backend.Result{Errno: f.errno})
}

// A LoopExit leaves what the same turn has found besides. Of that, a loop that is
// closed and not run again tells no protocol.
func TestWhatALoopHasFoundBeforeItIsClosedReachesNoProtocol(t *testing.T) {
	eachBackend(t, func(t *testing.T, name string) {
		l := ipcLoop(t, loop.WithBackend(name), loop.WithLogger(slog.New(slog.DiscardHandler)))
		made, closing := 0, false
		factory := func() Protocol {
			if closing {
				t.Error("the factory was called")
			}
			made++
			return &recorder{streamDiary: streamDiary{onData: func([]byte) {
				if closing {
					t.Error("data was delivered")
				}
				panic(loop.LoopExit{})
			}}}
		}
		var port string
		var clients []net.Conn
		dial := func() {
			c := ok[net.Conn](t)(net.Dial("tcp", "127.0.0.1:"+port))
			t.Cleanup(func() { _ = c.Close() })
			clients = append(clients, c)
		}
		runTask(t, l, func(co *loop.Coro) error {
			_, port = localServer(t, co, factory, nil)
			for range 8 {
				dial()
			}
			until(t, co, "there are connections", func() bool { return made == len(clients) })
			return nil
		})
		for _, c := range clients {
			ok[int](t)(c.Write([]byte("x")))
		}
		for range 4 {
			dial()
		}
		check(t, l.RunForever())
		closing = true
		check(t, l.Close())
	})
}

func TestAPortIsFreeAsSoonAsItsServerIsClosed(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		first, port := localServer(t, co, newEcho, nil)
		first.Close()
		second, err := CreateServer(co, newEcho, []string{"127.0.0.1"}, port, nil)
		check(t, err)
		over(t, co, second)
		listener := ok[*sockapi.Socket](t)(sockapi.Listen("tcp", "127.0.0.1:"+port, nil))
		check(t, listener.Close())
	})
}

func TestWithoutDescriptorsAcceptingIsReportedAndTriedAgain(t *testing.T) {
	eachBackend(t, func(t *testing.T, name string) {
		f := &failing{errno: syscall.EMFILE, times: 2}
		l := ipcLoop(t, loop.WithBackendFactory(func() (backend.Backend, error) {
			var err error
			f.Backend, err = newBackend(name)
			return f, err
		}))
		runTask(t, l, func(co *loop.Coro) error {
			all := reports(co)
			srv, port := localServer(t, co, newEcho, &ServerOptions{NoStart: true})
			if p := srv.listeners[0].pause; p != time.Second {
				t.Errorf("the pause is %v", p)
			}
			srv.listeners[0].pause = time.Millisecond
			check(t, srv.StartServing(co))
			peer := dialLocal(t, co, port)
			check(t, sockapi.SendAll(co, peer, []byte("x")))
			receive(t, co, peer, 1)
			if len(*all) != 2 || !errors.Is((*all)[0].Exception, syscall.EMFILE) || (*all)[0].Socket != srv.Sockets()[0] ||
				(*all)[0].Message != "socket.accept() out of system resource" {
				t.Errorf("reports are %v", *all)
			}
			over(t, co, srv)
			return nil
		})
	})
}

func TestAClientThatCameWhileThereWereNoDescriptorsIsServedLater(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		all := reports(co)
		srv, port := localServer(t, co, newEcho, &ServerOptions{NoStart: true})
		srv.listeners[0].pause = time.Millisecond
		client := ok[*sockapi.Socket](t)(sockapi.New(unix.AF_INET, unix.SOCK_STREAM, 0))
		withoutDescriptors(t, func() {
			check(t, srv.StartServing(co))
			check(t, sockapi.Connect(co, client, ok[Addr](t)(srv.Sockets()[0].LocalAddr())))
			until(t, co, "it is tried again", func() bool { return len(*all) >= 2 })
		})
		check(t, sockapi.SendAll(co, client, []byte("x")))
		receive(t, co, client, 1)
		check(t, client.Close())
		next := dialLocal(t, co, port) // and the listener goes on
		check(t, sockapi.SendAll(co, next, []byte("x")))
		receive(t, co, next, 1)
		for _, c := range *all {
			if !errors.Is(c.Exception, syscall.EMFILE) {
				t.Errorf("reported: %s: %v", c.Message, c.Exception)
			}
		}
		over(t, co, srv)
	})
}

// withoutDescriptors calls fn while the process can open no more descriptors.
func withoutDescriptors(t *testing.T, fn func()) {
	t.Helper()
	var before unix.Rlimit
	check(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &before))
	few := before
	few.Cur = 3 // the standard ones
	check(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &few))
	defer func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
			t.Error(err)
		}
	}()
	fn()
}

func TestAFactoryThatFailsCostsOneConnection(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		all := reports(co)
		n := 0
		srv, port := localServer(t, co, func() Protocol {
			n++
			switch n {
			case 1:
				panic("no protocol")
			case 2:
				return nil
			}
			return &echo{}
		}, nil)
		for range 2 {
			receiveEOF(t, co, dialLocal(t, co, port))
		}
		peer := dialLocal(t, co, port)
		check(t, sockapi.SendAll(co, peer, []byte("x")))
		receive(t, co, peer, 1)
		if len(*all) != 2 {
			t.Errorf("reports are %v", *all)
		}
		over(t, co, srv)
	})
}

func TestConnectionsInheritNoDelayAndKeepAlive(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		srv, port := localServer(t, co, protocolOf(p), &ServerOptions{KeepAlive: true})
		dialLocal(t, co, port)
		until(t, co, "the connection is made", func() bool { return p.t != nil })
		v, _ := p.t.ExtraInfo(ExtraSocket)
		s := v.(*TransportSocket)
		if ok[int](t)(s.GetOption(unix.IPPROTO_TCP, unix.TCP_NODELAY)) == 0 {
			t.Error("TCP_NODELAY is off")
		}
		if ok[int](t)(s.GetOption(unix.SOL_SOCKET, unix.SO_KEEPALIVE)) == 0 {
			t.Error("SO_KEEPALIVE is off")
		}
		over(t, co, srv)
	})
}

func TestConnectionsOfAServerHaveContextsOfTheirOwn(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		l := co.Loop()
		v := loop.NewContextVar[string]("v")
		v.Set(l.CurrentContext(), "server")
		var seen []string
		srv, port := localServer(t, co, func() Protocol {
			p := &recorder{}
			p.onMade = func() {
				s, _ := v.Get(l.CurrentContext())
				v.Set(l.CurrentContext(), "connection")
				seen = append(seen, s)
			}
			return p
		}, nil)
		v.Set(l.CurrentContext(), "later")
		dialLocal(t, co, port)
		dialLocal(t, co, port)
		until(t, co, "both connections are made", func() bool { return len(seen) == 2 })
		if seen[0] != "server" || seen[1] != "server" {
			t.Errorf("the connections saw %q", seen)
		}
		over(t, co, srv)
	})
}

func TestConnectionsHaveTheContextInWhichTheServerBeganToListen(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		l := co.Loop()
		v := loop.NewContextVar[string]("v")
		v.Set(l.CurrentContext(), "made")
		var seen string
		p := &recorder{}
		p.onMade = func() { seen, _ = v.Get(l.CurrentContext()) }
		srv, port := localServer(t, co, protocolOf(p), &ServerOptions{NoStart: true})
		v.Set(l.CurrentContext(), "started")
		check(t, srv.StartServing(co))
		dialLocal(t, co, port)
		until(t, co, "the connection is made", func() bool { return p.t != nil })
		if seen != "started" {
			t.Errorf("the connection saw %q", seen)
		}
		over(t, co, srv)
	})
}

func TestAConnectionReadsAfterALoopExitInConnectionMade(t *testing.T) {
	eachBackend(t, func(t *testing.T, name string) {
		l := ipcLoop(t, loop.WithBackend(name))
		reason := errors.New("enough")
		p := &recorder{}
		p.onMade = func() { panic(loop.LoopExit{Err: reason}) }
		var srv *Server
		var port string
		runTask(t, l, func(co *loop.Coro) error {
			srv, port = localServer(t, co, protocolOf(p), nil)
			return nil
		})
		client := ok[net.Conn](t)(net.Dial("tcp", "127.0.0.1:"+port))
		if err := l.RunForever(); err != reason {
			t.Errorf("RunForever returned %v, want %v", err, reason)
		}
		ok[int](t)(client.Write([]byte("hello")))
		runTask(t, l, func(co *loop.Coro) error {
			p.untilData(t, co, "hello")
			over(t, co, srv)
			return nil
		})
		check(t, client.Close())
	})
}

func TestClosingTheLoopClosesWhatWasLeftOpen(t *testing.T) {
	eachBackend(t, func(t *testing.T, name string) {
		l := ipcLoop(t, loop.WithBackend(name))
		runTask(t, l, func(co *loop.Coro) error {
			idle := &recorder{}
			idle.onMade = func() { check(t, idle.t.PauseReading()) }
			_, port := localServer(t, co, protocolOf(idle), nil)
			p := &recorder{}
			tr, _, err := CreateConnection(co, protocolOf(p), "127.0.0.1", port, nil)
			check(t, err)
			stuff(t, co, tr)
			return nil
		})
	})
	// TestMain finds what is left.
}

func TestAServerOfAClosedLoopIsRefusedWithoutAReport(t *testing.T) {
	eachBackend(t, func(t *testing.T, name string) {
		l := ipcLoop(t, loop.WithBackend(name))
		errs := map[string]error{}
		runTask(t, l, func(co *loop.Coro) error {
			idle, _ := localServer(t, co, mustNotCall(t), &ServerOptions{NoStart: true})
			serving, _ := localServer(t, co, mustNotCall(t), nil)
			l.Go(func(co *loop.Coro) error {
				_, _ = loop.CreateFuture[struct{}](l).Await(co)
				errs["StartServing"] = idle.StartServing(co)
				errs["ServeForever"] = idle.ServeForever(co)
				errs["StartServing again"] = serving.StartServing(co)
				_, errs["CreateServer"] = CreateServer(co, mustNotCall(t), []string{"127.0.0.1"}, "0", nil)
				_, errs["CreateUnixServer"] = CreateUnixServer(co, mustNotCall(t), filepath.Join(t.TempDir(), "socket"), nil)
				return nil
			})
			return loop.Sleep(co, 0)
		})
		l.SetExceptionHandler(func(_ *loop.Loop, c *loop.ExceptionContext) {
			if c.Task == nil { // it is pending
				t.Errorf("reported: %s: %v", c.Message, c.Exception)
			}
		})
		check(t, l.Close())
		if len(errs) != 5 {
			t.Errorf("%d calls have returned", len(errs))
		}
		for what, err := range errs {
			if !errors.Is(err, loop.ErrLoopClosed) {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
}

func TestClosingTheLoopWarnsAboutEveryTransportThatWasLeftOpen(t *testing.T) {
	kinds := []string{"<Stream ", "<Datagram ", "<ReadPipeTransport ", "<WritePipeTransport ", "<SubprocessTransport "}
	eachBackend(t, func(t *testing.T, name string) {
		log := &logBuffer{}
		l := ipcLoop(t, loop.WithBackend(name), loop.WithLogger(slog.New(slog.NewTextHandler(log, nil))))
		open := func(co *loop.Coro) (all []interface{ Close() }, over func()) {
			stream, in, out, child := &recorder{}, &streamDiary{}, &streamDiary{}, &processDiary{}
			tr, _ := joined(t, co, stream)
			ep := endpoint(t, co, DatagramOptions{LocalAddr: anyPort})
			r, w := osPipe(t)
			all = append(all, tr, ep.t, readPipeOf(t, co, in, r), writePipeOf(t, co, out, w), start(t, co, child, SubprocessOptions{}, "cat"))
			return all, func() {
				check(t, stream.untilLost(t, co))
				for _, d := range []*diary{&ep.diary, &in.diary, &out.diary, &child.diary} {
					check(t, d.untilLost(t, co))
				}
			}
		}
		runTask(t, l, func(co *loop.Coro) error {
			closed, over := open(co)
			for _, tr := range closed {
				tr.Close()
			}
			over()
			open(co)
			return nil
		})
		check(t, l.Close())
		if n := log.count("unclosed transport"); n != len(kinds) {
			t.Errorf("%d warnings, want %d", n, len(kinds))
		}
		for _, kind := range kinds {
			if n := log.count(kind); n != 1 {
				t.Errorf("%d warnings about a %s, want 1", n, kind)
			}
		}
	})
}

func TestAServerThatCannotListenEverywhereListensNowhere(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		other, port := localServer(t, co, newEcho, nil)
		over(t, co, other) // its port is free
		srv := ok[*Server](t)(CreateServer(co, newEcho, []string{"127.0.0.1", "127.0.0.2"}, port, &ServerOptions{NoStart: true}))
		rival := ok[*Server](t)(CreateServer(co, newEcho, []string{"127.0.0.2"}, port, nil))
		if err := srv.StartServing(co); !errors.Is(err, syscall.EADDRINUSE) || srv.IsServing() {
			t.Errorf("StartServing: %v, and it serves: %v", err, srv.IsServing())
		}
		if c, err := net.Dial("tcp", "127.0.0.1:"+port); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("connecting: %v", err)
			if err == nil {
				_ = c.Close()
			}
		}
		over(t, co, rival)
		check(t, srv.StartServing(co))
		for _, host := range []string{"127.0.0.1", "127.0.0.2"} {
			c, err := net.Dial("tcp", host+":"+port)
			check(t, err)
			check(t, c.Close())
		}
		over(t, co, srv)
	})
}

func TestAServerIsServedByItsCallerOnly(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		srv, _ := localServer(t, co, newEcho, &ServerOptions{NoStart: true})
		task := co.Loop().Go(func(*loop.Coro) error {
			if err := srv.StartServing(co); !errors.Is(err, loop.ErrNotCurrent) {
				t.Errorf("StartServing: %v", err)
			}
			if err := srv.ServeForever(co); !errors.Is(err, loop.ErrNotCurrent) {
				t.Errorf("ServeForever: %v", err)
			}
			return nil
		})
		_, err := task.Await(co)
		check(t, err)
		if srv.IsServing() || srv.closed {
			t.Errorf("it serves: %v, is closed: %v", srv.IsServing(), srv.closed)
		}
		over(t, co, srv)
	})
}

func TestAServerThatIsClosedBetweenRunsDoesNotListen(t *testing.T) {
	eachBackend(t, func(t *testing.T, name string) {
		l := ipcLoop(t, loop.WithBackend(name))
		var tcp, unixServer *Server
		var port string
		path := filepath.Join(t.TempDir(), "socket")
		runTask(t, l, func(co *loop.Coro) (err error) {
			tcp, port = localServer(t, co, newEcho, nil)
			unixServer, err = CreateUnixServer(co, newEcho, path, &UnixServerOptions{NoCleanup: true})
			return err
		})
		tcp.Close()
		unixServer.Close()
		for network, address := range map[string]string{"tcp": "127.0.0.1:" + port, "unix": path} {
			if c, err := net.Dial(network, address); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("connecting to the %s server: %v", network, err)
				if err == nil {
					_ = c.Close()
				}
			}
		}
		runTask(t, l, func(co *loop.Coro) error {
			return errors.Join(tcp.WaitClosed(co), unixServer.WaitClosed(co))
		})
	})
}

func TestDebugModeLogsWhatBecomesOfConnections(t *testing.T) {
	eachBackend(t, func(t *testing.T, name string) {
		log := &logBuffer{}
		l := ipcLoop(t, loop.WithBackend(name), loop.WithLogger(slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))))
		for _, debug := range []bool{false, true} {
			l.SetDebug(debug)
			runTask(t, l, func(co *loop.Coro) error {
				srv, port := localServer(t, co, newEcho, nil)
				p := &recorder{}
				tr, _, err := CreateConnection(co, protocolOf(p), "127.0.0.1", port, nil)
				check(t, err)
				check(t, tr.PauseReading())
				check(t, tr.ResumeReading())
				srv.CloseClients()
				check(t, p.untilLost(t, co))
				over(t, co, srv)
				return nil
			})
			for _, what := range []string{"serving", "connected", "a client has connected", "reading is paused", "reading is resumed", "the peer has sent everything"} {
				if got := log.count(what) > 0; got != debug {
					t.Errorf("debug mode %v: %q is logged: %v", debug, what, got)
				}
			}
		}
	})
}

func TestAServerKeepsThePortThatTheKernelHasChosen(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		srv := ok[*Server](t)(CreateServer(co, newEcho, []string{"127.0.0.1", "127.0.0.2"}, "0", &ServerOptions{NoStart: true}))
		first, second := ok[Addr](t)(srv.Sockets()[0].LocalAddr()), ok[Addr](t)(srv.Sockets()[1].LocalAddr())
		rival := ok[*sockapi.Socket](t)(sockapi.New(unix.AF_INET, unix.SOCK_STREAM, 0))
		check(t, rival.SetReuseAddr(true))
		check(t, rival.Bind(second))
		check(t, rival.Listen(1))
		if err := srv.StartServing(co); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("StartServing: %v", err)
		}
		check(t, sockapi.CloseWait(co, rival))
		check(t, srv.StartServing(co))
		if got := ok[Addr](t)(srv.Sockets()[0].LocalAddr()); got != first {
			t.Errorf("it was bound to %v and listens on %v", first, got)
		}
		over(t, co, srv)
	})
}

func TestADuplicateOfAListenerOutlivesACloseBetweenRuns(t *testing.T) {
	eachBackend(t, func(t *testing.T, name string) {
		l := ipcLoop(t, loop.WithBackend(name))
		var srv *Server
		var dup *sockapi.Socket
		var port string
		runTask(t, l, func(co *loop.Coro) (err error) {
			srv, port = localServer(t, co, newEcho, nil)
			dup, err = srv.Sockets()[0].Dup()
			return err
		})
		srv.Close()
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		check(t, err)
		check(t, c.Close())
		check(t, dup.Close())
	})
}
