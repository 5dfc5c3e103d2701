package transport

import (
	"errors"
	"fmt"
	"maps"
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
	"github.com/seed-80cfe818/ringloop/internal/leaktest"
	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
)

// mustNotCall is a factory for connections that must not come about.
func mustNotCall(t *testing.T) func() Protocol {
	return func() Protocol {
		t.Error("the factory was called")
		return &recorder{}
	}
}

// refusing returns the port of an address of 127.0.0.1 that refuses connections
// for as long as the test runs.
func refusing(t *testing.T) string {
	t.Helper()
	s := ok[*sockapi.Socket](t)(sockapi.New(unix.AF_INET, unix.SOCK_STREAM, 0))
	t.Cleanup(func() { _ = s.Close() })
	check(t, s.Bind(sockapi.IPAddr(netip.MustParseAddrPort("127.0.0.1:0"))))
	return fmt.Sprint(ok[Addr](t)(s.LocalAddr()).Port())
}

// openFDs returns how many descriptors the process has.
func openFDs(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	check(t, err)
	return len(entries)
}

func TestAClientDeliversMadeDataEndAndLost(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		onServer := &recorder{}
		onServer.onMade = func() {
			check(t, onServer.t.Write([]byte("welcome")))
			onServer.t.Close()
		}
		srv, port := localServer(t, co, protocolOf(onServer), nil)
		p := &recorder{}
		tr, got, err := CreateConnection(co, protocolOf(p), "127.0.0.1", port, nil)
		check(t, err)
		if got != Protocol(p) || p.t != tr || tr.Loop() != co.Loop() || tr.Protocol() != Protocol(p) {
			t.Error("the transport and the protocol do not know each other")
		}
		local, _ := tr.ExtraInfo(ExtraSockName)
		if a, isAddr := local.(Addr); !isAddr || !a.AddrPort().Addr().IsLoopback() {
			t.Errorf("sockname is %v", local)
		}
		p.untilData(t, co, "welcome")
		check(t, p.untilLost(t, co))
		p.want(t, "made", "eof", "lost")
		over(t, co, srv)
	})
}

func TestWrongArgumentsOfAConnectionAreRefused(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		sock := ok[*sockapi.Socket](t)(sockapi.New(unix.AF_INET, unix.SOCK_STREAM, 0))
		dgram := ok[*sockapi.Socket](t)(sockapi.New(unix.AF_INET, unix.SOCK_DGRAM, 0))
		defer sock.Close()
		defer dgram.Close()
		for _, c := range []struct {
			what, host, port string
			o                ConnectOptions
		}{
			{"neither host nor port nor socket", "", "", ConnectOptions{}},
			{"host and socket", "localhost", "", ConnectOptions{Sock: sock}},
			{"port and socket", "", "80", ConnectOptions{Sock: sock}},
			{"datagram socket", "", "", ConnectOptions{Sock: dgram}},
			{"server hostname without TLS", "h", "1", ConnectOptions{ServerHostname: "x"}},
			{"any hostname without TLS", "h", "1", ConnectOptions{AnyHostname: true}},
			{"handshake timeout without TLS", "h", "1", ConnectOptions{HandshakeTimeout: 1}},
			{"shutdown timeout without TLS", "h", "1", ConnectOptions{ShutdownTimeout: 1}},
			{"negative delay", "h", "1", ConnectOptions{HappyEyeballsDelay: -1}},
			{"negative interleave", "h", "1", ConnectOptions{Interleave: -1}},
		} {
			if _, _, err := CreateConnection(co, mustNotCall(t), c.host, c.port, &c.o); !errors.Is(err, loop.ErrInvalidArgument) {
				t.Errorf("%s: %v", c.what, err)
			}
		}
		if _, _, err := CreateConnection(co, nil, "h", "1", nil); !errors.Is(err, loop.ErrInvalidArgument) {
			t.Errorf("no factory: %v", err)
		}
		if sock.Fd() < 0 || dgram.Fd() < 0 {
			t.Error("a refused call took the socket")
		}
	})
}

func TestARefusedConnectionNamesTheAddressAndLeavesNothingOpen(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		port := refusing(t)
		before := openFDs(t)
		_, _, err := CreateConnection(co, mustNotCall(t), "127.0.0.1", port, nil)
		if !errors.Is(err, syscall.ECONNREFUSED) || !errors.Is(err, sockapi.ErrConnection) || !strings.Contains(err.Error(), "127.0.0.1:"+port) {
			t.Errorf("the error is %v", err)
		}
		until(t, co, "the socket is closed", func() bool { return openFDs(t) <= before })
	})
}

func TestErrorsOfSeveralAddressesAreCombined(t *testing.T) {
	one, same, other := errors.New("refused"), errors.New("refused"), errors.New("unreachable")
	var all *ConnectError
	for _, c := range []struct {
		what     string
		errs     []error
		all      bool
		combined bool
	}{
		{"one", []error{one}, false, false},
		{"one, all wanted", []error{one}, true, true},
		{"equal texts", []error{one, same}, false, false},
		{"equal texts, all wanted", []error{one, same}, true, true},
		{"different texts", []error{one, other}, false, true},
	} {
		o := ConnectOptions{AllErrors: c.all}
		err := o.combine(c.errs)
		if errors.As(err, &all) != c.combined {
			t.Errorf("%s: %v", c.what, err)
		}
		if c.combined && len(all.Errs) != len(c.errs) {
			t.Errorf("%s: %d errors", c.what, len(all.Errs))
		}
		if !errors.Is(err, one) {
			t.Errorf("%s: the first error is not in %v", c.what, err)
		}
	}
}

func TestTheErrorOfSeveralAddressesNamesEachInTheirOrder(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		port := refusing(t)
		for _, delay := range []time.Duration{0, never} { // one after the other, and in a race
			for host, want := range map[string]string{
				"127.0.0.1": "create connection: multiple errors: connect to 127.0.0.1:%[1]s: connection refused",
				"": "create connection: multiple errors: connect to [::1]:%[1]s: connection refused, " +
					"connect to 127.0.0.1:%[1]s: connection refused",
			} {
				o := ConnectOptions{HappyEyeballsDelay: delay, AllErrors: host != ""}
				_, _, err := CreateConnection(co, mustNotCall(t), host, port, &o)
				var all *ConnectError
				if !errors.As(err, &all) || !errors.Is(err, syscall.ECONNREFUSED) || err.Error() != fmt.Sprintf(want, port) {
					t.Errorf("host %q, delay %v: %v", host, delay, err)
				}
			}
		}
	})
}

func TestEveryAddressIsTriedInOrder(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		var tried []int
		fail := func(i int) error { return fmt.Errorf("attempt %d", i) }
		got, errs := inOrder(co, 4, func(_ *loop.Coro, i int) (int, error) {
			tried = append(tried, i)
			if i == 2 {
				return 42, nil
			}
			return -1, fail(i)
		})
		if got != 42 || errs != nil || fmt.Sprint(tried) != "[0 1 2]" {
			t.Errorf("got %d, %v after %v", got, errs, tried)
		}
		if _, errs = inOrder(co, 2, func(_ *loop.Coro, i int) (int, error) { return -1, fail(i) }); len(errs) != 2 {
			t.Errorf("the errors are %v", errs)
		}
	})
}

func TestLocalAddressesOfAnotherFamilyAreSkipped(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		srv, port := localServer(t, co, newEcho, nil)
		free := refusing(t)
		tr, _, err := CreateConnection(co, protocolOf(p), "127.0.0.1", port, &ConnectOptions{LocalHost: "127.0.0.2"})
		check(t, err)
		if a, _ := tr.ExtraInfo(ExtraSockName); !strings.HasPrefix(a.(Addr).String(), "127.0.0.2:") {
			t.Errorf("connected from %v", a)
		}
		tr.Close()
		check(t, p.untilLost(t, co))

		_, _, err = CreateConnection(co, mustNotCall(t), "127.0.0.1", port, &ConnectOptions{LocalHost: "127.0.0.1", LocalPort: free})
		if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "127.0.0.1:"+free) {
			t.Errorf("from a port in use: %v", err)
		}

		v6 := literal(t, "::1", "0")
		v4 := literal(t, "127.0.0.1", "0")
		fd := ok[int](t)(connect(co, literal(t, "127.0.0.1", port), []loop.AddrInfo{*v6, *v4}))
		closeFD(int32(fd))
		_, _, err = CreateConnection(co, mustNotCall(t), "127.0.0.1", port, &ConnectOptions{LocalHost: "::1"})
		if !errors.Is(err, syscall.EADDRNOTAVAIL) || !strings.Contains(err.Error(), "no matching local address with family=2 found") {
			t.Errorf("only an IPv6 address to connect from: %v", err)
		}
		over(t, co, srv)
	})
}

// As asyncio tells of every local address that could not be had, also if one
// behind it could.
func TestEveryLocalAddressThatCannotBeHadIsTold(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		port := refusing(t)
		taken := []loop.AddrInfo{*literal(t, "127.0.0.1", port), *literal(t, "127.0.0.1", refusing(t))}
		for _, c := range []struct {
			local []loop.AddrInfo
			want  []syscall.Errno
		}{
			{taken[:1], []syscall.Errno{syscall.EADDRINUSE}},
			{taken, []syscall.Errno{syscall.EADDRINUSE, syscall.EADDRINUSE}},
			{append(taken, *literal(t, "127.0.0.1", "0")), []syscall.Errno{syscall.EADDRINUSE, syscall.EADDRINUSE, syscall.ECONNREFUSED}},
		} {
			before := openFDs(t)
			_, err := connect(co, literal(t, "127.0.0.1", port), c.local)
			all := (&ConnectOptions{AllErrors: true}).combine([]error{err}).(*ConnectError)
			if len(all.Errs) != len(c.want) {
				t.Fatalf("from %d local addresses: %v", len(c.local), all)
			}
			for i, want := range c.want {
				if !errors.Is(all.Errs[i], want) {
					t.Errorf("from %d local addresses, error %d: %v", len(c.local), i, all.Errs[i])
				}
			}
			if openFDs(t) > before {
				t.Error("a socket is left open")
			}
		}
	})
}

func literal(t *testing.T, host, port string) *loop.AddrInfo {
	t.Helper()
	ai, known := loop.ParseIPAddr(host, port, 0, unix.SOCK_STREAM, 0)
	if !known {
		t.Fatalf("%s is not a literal address", host)
	}
	return &ai
}

func TestALocalPortAloneIsThatOfEveryAddress(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		srv, port := localServer(t, co, func() Protocol { return newEcho() }, nil)
		taken := ok[net.Listener](t)(net.Listen("tcp", "127.0.0.2:0"))
		from := strconv.Itoa(taken.Addr().(*net.TCPAddr).Port)
		tr, _, err := CreateConnection(co, protocolOf(&recorder{}), "127.0.0.1", port, &ConnectOptions{LocalPort: from})
		if !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("connected with %v, %v, while another address has the port", tr, err)
		}
		check(t, taken.Close())
		over(t, co, srv)
	})
}

func TestAServiceNameIsAPortAndAnUnknownOneFails(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		infos := ok[[]loop.AddrInfo](t)(resolve(co, "127.0.0.1", "http", &loop.AddrInfoHints{Type: unix.SOCK_STREAM}))
		if a := addrOf(&infos[0].Addr); a.Port() != 80 {
			t.Errorf("http is %v", a)
		}
		_, _, err := CreateConnection(co, mustNotCall(t), "127.0.0.1", "no-such-service", nil)
		var ae *loop.AddrInfoError
		if !errors.As(err, &ae) {
			t.Errorf("an unknown service: %v", err)
		}
	})
}

func TestAnIPv6ZoneBecomesTheScope(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		infos := ok[[]loop.AddrInfo](t)(resolve(co, "fe80::1%lo", "80", &loop.AddrInfoHints{Type: unix.SOCK_STREAM}))
		if a := addrOf(&infos[0].Addr); a.ScopeID() == 0 {
			t.Errorf("the scope of %v is 0", a)
		}
	})
}

func TestASuppliedSocketBelongsToTheTransport(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		srv, port := localServer(t, co, newEcho, nil)
		sock := dialLocal(t, co, port)
		p := &recorder{}
		tr, _, err := CreateConnection(co, protocolOf(p), "", "", &ConnectOptions{Sock: sock})
		check(t, err)
		if _, err := sockapi.Recv(co, sock, 1); !errors.Is(err, sockapi.ErrTransportFD) {
			t.Errorf("receiving on the socket: %v", err)
		}
		if err := sock.Close(); !errors.Is(err, sockapi.ErrTransportFD) {
			t.Errorf("closing the socket: %v", err)
		}
		check(t, tr.Write([]byte("echo")))
		p.untilData(t, co, "echo")
		tr.Close()
		check(t, p.untilLost(t, co))
		if sock.Fd() != -1 {
			t.Errorf("the socket has still the descriptor %d", sock.Fd())
		}
		over(t, co, srv)
	})
}

func TestAResetThatACancelledReceiveHadTakenEndsTheConnection(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		for _, paused := range []bool{false, true} {
			l := ok[net.Listener](t)(net.Listen("tcp4", "127.0.0.1:0"))
			sock := ok[*sockapi.Socket](t)(sockapi.Dial(co, "tcp", l.Addr().String()))
			peer := ok[net.Conn](t)(l.Accept())
			check(t, l.Close())
			receiving := co.Loop().Go(func(co *loop.Coro) error {
				_, err := sockapi.Recv(co, sock, 100)
				return err
			})
			turns(t, co)
			check(t, peer.(*net.TCPConn).SetLinger(0))
			check(t, peer.Close())
			check(t, loop.Sleep(co, 0)) // the loop finds the reset, and is about to deliver it
			receiving.Cancel("")
			if _, err := receiving.Await(co); !errors.Is(err, loop.ErrCancelled) {
				t.Fatalf("Recv ended with %v", err)
			}
			p := &recorder{}
			p.onMade = func() {
				if paused {
					check(t, p.t.PauseReading())
				}
			}
			tr, _, err := CreateConnection(co, protocolOf(p), "", "", &ConnectOptions{Sock: sock})
			check(t, err)
			if paused {
				turns(t, co)
				p.want(t, "made")
				check(t, tr.ResumeReading())
			}
			if err := p.untilLost(t, co); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("lost with %v", err)
			}
			p.want(t, "made", "lost")
		}
	})
}

func TestCancellingTheAdoptionOfASocketTakesItAway(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		ours, theirs, err := sockapi.Pair(unix.SOCK_STREAM)
		check(t, err)
		defer theirs.Close()
		p := &recorder{}
		task := co.Loop().Go(func(co *loop.Coro) error {
			_, _, err := CreateConnection(co, protocolOf(p), "", "", &ConnectOptions{Sock: ours})
			return err
		})
		check(t, loop.Sleep(co, 0))
		task.Cancel("")
		if _, err := task.Await(co); !errors.Is(err, loop.ErrCancelled) {
			t.Fatalf("CreateConnection returned %v", err)
		}
		check(t, p.untilLost(t, co))
		receiveEOF(t, co, theirs)
		if ours.Fd() != -1 {
			t.Error("the socket has still a descriptor")
		}
		check(t, ours.Close())
	})
}

func TestCancellingTheAdoptionOfASocketThatReceivesAheadTakesItAway(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		for what, call := range map[string]func(co *loop.Coro, sock *sockapi.Socket) error{
			"CreateConnection": func(co *loop.Coro, sock *sockapi.Socket) error {
				_, _, err := CreateConnection(co, mustNotCall(t), "", "", &ConnectOptions{Sock: sock})
				return err
			},
			"CreateUnixConnection": func(co *loop.Coro, sock *sockapi.Socket) error {
				_, _, err := CreateUnixConnection(co, mustNotCall(t), "", &UnixConnectOptions{Sock: sock})
				return err
			},
			"ConnectAcceptedSocket": func(co *loop.Coro, sock *sockapi.Socket) error {
				_, _, err := ConnectAcceptedSocket(co, mustNotCall(t), sock, nil)
				return err
			},
		} {
			ours, theirs, err := sockapi.Pair(unix.SOCK_STREAM)
			check(t, err)
			defer theirs.Close()
			check(t, sockapi.SendAll(co, theirs, []byte("x")))
			_, err = sockapi.RecvBorrowed(co, ours)
			check(t, err)
			task := co.Loop().Go(func(co *loop.Coro) error {
				co.Task().Cancel("")
				return call(co, ours)
			})
			if _, err := task.Await(co); !errors.Is(err, loop.ErrCancelled) {
				t.Fatalf("%s returned %v", what, err)
			}
			if ours.Fd() != -1 {
				t.Errorf("%s: the socket has still a descriptor", what)
			}
			check(t, sockapi.CloseWait(co, ours))
			receiveEOF(t, co, theirs)
		}
	})
}

func TestCancellingAConnectionDropsWhatItHadToSend(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		ours, theirs, err := sockapi.Pair(unix.SOCK_STREAM) // nobody reads the other end
		check(t, err)
		p := &recorder{}
		p.onMade = func() {
			check(t, p.t.Write(make([]byte, 16<<20)))
			co.Task().Cancel("enough")
		}
		_, _, err = CreateConnection(co, protocolOf(p), "", "", &ConnectOptions{Sock: ours})
		if !errors.Is(err, loop.ErrCancelled) {
			t.Errorf("the cancelled call returned %v", err)
		}
		p.untilLost(t, co)
		check(t, theirs.Close())
	})
}

// stalled is a backend on which connecting never ends unless it is cancelled.
type stalled struct {
	backend.Backend
	cancelled int
	waiting   map[*backend.Op]*backend.Op
}

func (b *stalled) Submit(op *backend.Op) error {
	if op.Code != backend.OpConnect {
		return b.Backend.Submit(op)
	}
	if b.waiting == nil {
		b.waiting = map[*backend.Op]*backend.Op{}
	}
	b.waiting[op] = &backend.Op{}
	return nil
}

func (b *stalled) Cancel(op *backend.Op) {
	if nop := b.waiting[op]; nop != nil {
		delete(b.waiting, op)
		b.cancelled++
		nop.Receiver = &failed{op, syscall.ECANCELED}
		_ = b.Backend.Submit(nop)
		return
	}
	b.Backend.Cancel(op)
}

// stalledLoop runs a test on each backend, where connecting never ends.
func stalledLoop(t *testing.T, test func(t *testing.T, co *loop.Coro, b *stalled)) {
	eachBackend(t, func(t *testing.T, name string) {
		b := &stalled{}
		l := ipcLoop(t, loop.WithBackendFactory(func() (backend.Backend, error) {
			var err error
			b.Backend, err = newBackend(name)
			return b, err
		}))
		runTask(t, l, func(co *loop.Coro) error {
			test(t, co, b)
			return nil
		})
	})
}

func TestCancellingOrTimingOutAConnectLeavesNothingOpen(t *testing.T) {
	stalledLoop(t, func(t *testing.T, co *loop.Coro, b *stalled) {
		before := openFDs(t)
		err := loop.Timeout(co, time.Millisecond, func() error {
			_, _, err := CreateConnection(co, mustNotCall(t), "127.0.0.1", "1", nil)
			return err
		})
		if !errors.Is(err, loop.ErrTimeout) || b.cancelled != 1 {
			t.Errorf("after the timeout: %v, %d operations cancelled", err, b.cancelled)
		}
		task := co.Loop().Go(func(co *loop.Coro) error {
			_, _, err := CreateConnection(co, mustNotCall(t), "127.0.0.1", "1", &ConnectOptions{HappyEyeballsDelay: time.Hour})
			return err
		})
		until(t, co, "the attempt is under way", func() bool { return len(b.waiting) == 1 })
		task.Cancel("")
		if _, err := task.Await(co); !errors.Is(err, loop.ErrCancelled) {
			t.Errorf("CreateConnection returned %v", err)
		}
		until(t, co, "the sockets are closed", func() bool { return openFDs(t) <= before && b.cancelled == 2 })
	})
}

// fullListener returns a listening socket whose backlog is full, so that a
// connect to its port does not end.
func fullListener(t *testing.T) (fd int, port string) {
	fd = ok[int](t)(unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0))
	check(t, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	check(t, unix.Listen(fd, 0))
	addr := ok[unix.Sockaddr](t)(unix.Getsockname(fd)).(*unix.SockaddrInet4)
	client := ok[net.Conn](t)(net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", addr.Port)))
	t.Cleanup(func() { _ = client.Close() })
	return fd, strconv.Itoa(addr.Port)
}

func TestClosingTheLoopDuringAConnectLeavesNothingOpen(t *testing.T) {
	eachBackend(t, func(t *testing.T, name string) {
		unixPath := filepath.Join(t.TempDir(), "s")
		listener := ok[net.Listener](t)(net.Listen("unix", unixPath))
		tcp := ok[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
		port := strconv.Itoa(tcp.Addr().(*net.TCPAddr).Port)
		noPackets := func() DatagramProtocol {
			t.Error("the factory of an endpoint was called")
			return &datagramDiary{}
		}
		full, fullPort := fullListener(t)
		defer func() { check(t, unix.Close(full)) }()
		calls := map[string]func(co *loop.Coro) error{
			"TCP without an answer": func(co *loop.Coro) error {
				_, _, err := CreateConnection(co, mustNotCall(t), "127.0.0.1", fullPort, nil)
				return err
			},
			"TCP": func(co *loop.Coro) error {
				_, _, err := CreateConnection(co, mustNotCall(t), "127.0.0.1", port, nil)
				return err
			},
			"Unix": func(co *loop.Coro) error {
				_, _, err := CreateUnixConnection(co, mustNotCall(t), unixPath, nil)
				return err
			},
			"UDP": func(co *loop.Coro) error {
				_, _, err := CreateDatagramEndpoint(co, noPackets, &DatagramOptions{RemoteAddr: sockapi.IPAddr(netip.MustParseAddrPort("127.0.0.1:9"))})
				return err
			},
		}
		for typ, what := range map[int]string{unix.SOCK_STREAM: "a stream socket", unix.SOCK_DGRAM: "a datagram socket"} {
			calls[what+" after the end"] = func(co *loop.Coro) error {
				_ = loop.Sleep(co, never)
				ours, theirs, err := sockapi.Pair(typ)
				check(t, err)
				defer func() { check(t, theirs.Close()) }()
				if typ == unix.SOCK_STREAM {
					_, _, err = CreateConnection(co, mustNotCall(t), "", "", &ConnectOptions{Sock: ours})
				} else {
					_, _, err = CreateDatagramEndpoint(co, noPackets, &DatagramOptions{Sock: ours})
				}
				return err
			}
		}
		for what, call := range calls {
			before := must2(leaktest.FDs())(t)
			l := ipcLoop(t, loop.WithBackend(name))
			l.SetExceptionHandler(func(*loop.Loop, *loop.ExceptionContext) {}) // the task is pending
			var err error
			l.Go(func(co *loop.Coro) error {
				err = call(co)
				return nil
			})
			l.Stop()
			check(t, l.RunForever()) // for one turn, which begins to connect
			check(t, l.Close())
			if !errors.Is(err, loop.ErrLoopClosed) {
				t.Errorf("%s: %v", what, err)
			}
			if after := must2(leaktest.FDs())(t); !maps.Equal(after, before) {
				t.Errorf("%s: open before: %v, and now: %v", what, before, after)
			}
		}
		check(t, listener.Close())
		check(t, tcp.Close())
	})
}

func TestClosingTheLoopWhileASocketIsSettledForItsTransportClosesIt(t *testing.T) {
	eachBackend(t, func(t *testing.T, name string) {
		l := ipcLoop(t, loop.WithBackend(name))
		l.SetExceptionHandler(func(*loop.Loop, *loop.ExceptionContext) {}) // the task is pending
		ours, theirs, err := sockapi.Pair(unix.SOCK_STREAM)
		check(t, err)
		defer func() { check(t, theirs.Close()) }()
		l.Go(func(co *loop.Coro) error {
			check(t, sockapi.SendAll(co, theirs, []byte("x")))
			_, err = sockapi.RecvBorrowed(co, ours)
			check(t, err)
			l.Stop() // before the socket is settled
			_, _, err = CreateConnection(co, mustNotCall(t), "", "", &ConnectOptions{Sock: ours})
			return nil
		})
		check(t, l.RunForever())
		check(t, l.Close())
		if !errors.Is(err, loop.ErrLoopClosed) {
			t.Errorf("CreateConnection returned %v", err)
		}
		if ours.Fd() != -1 {
			t.Error("the socket has still a descriptor")
			check(t, ours.Close())
		}
	})
}

func TestAbortingInConnectionMadeStillLetsTheCallReturn(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		srv, port := localServer(t, co, newEcho, nil)
		p := &recorder{}
		p.onMade = func() { p.t.Abort() }
		tr, _, err := CreateConnection(co, protocolOf(p), "127.0.0.1", port, nil)
		check(t, err)
		if !tr.IsClosing() {
			t.Error("not closing")
		}
		check(t, p.untilLost(t, co))
		p.want(t, "made", "lost")
		over(t, co, srv)
	})
}

func TestNagleIsOffOnConnections(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		srv, port := localServer(t, co, newEcho, nil)
		p := &recorder{}
		tr, _, err := CreateConnection(co, protocolOf(p), "127.0.0.1", port, nil)
		check(t, err)
		s, _ := tr.ExtraInfo(ExtraSocket)
		if ok[int](t)(s.(*TransportSocket).GetOption(unix.IPPROTO_TCP, unix.TCP_NODELAY)) == 0 {
			t.Error("TCP_NODELAY is off")
		}
		tr.Close()
		check(t, p.untilLost(t, co))
		over(t, co, srv)
	})
}

func TestAFactoryThatPanicsOrReturnsNilClosesTheConnection(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		srv, port := localServer(t, co, newEcho, nil)
		_, _, err := CreateConnection(co, func() Protocol { return nil }, "127.0.0.1", port, nil)
		if !errors.Is(err, loop.ErrInvalidArgument) {
			t.Errorf("a nil protocol: %v", err)
		}
		var r any
		func() {
			defer func() { r = recover() }()
			_, _, _ = CreateConnection(co, func() Protocol { panic("factory") }, "127.0.0.1", port, nil)
		}()
		if r != "factory" {
			t.Errorf("the panic became %v", r)
		}
		until(t, co, "the server has no connection", func() bool { return srv.streams.n == 0 })
		over(t, co, srv)
	})
}

func TestConnectAcceptedSocketServesASocketOfElsewhere(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		listener := ok[*sockapi.Socket](t)(sockapi.Listen("tcp", "127.0.0.1:0", nil))
		defer listener.Close()
		peer := dialLocal(t, co, fmt.Sprint(ok[Addr](t)(listener.LocalAddr()).Port()))
		conn, _, err := sockapi.Accept(co, listener)
		check(t, err)
		p := &echo{}
		tr, _, err := ConnectAcceptedSocket(co, protocolOf(p), conn, nil)
		check(t, err)
		check(t, sockapi.SendAll(co, peer, []byte("hello")))
		receive(t, co, peer, 5)
		tr.Abort()
		receiveEOF(t, co, peer)
		dgram := ok[*sockapi.Socket](t)(sockapi.New(unix.AF_INET, unix.SOCK_DGRAM, 0))
		defer dgram.Close()
		for what, call := range map[string]func() error{
			"a datagram socket": func() error { _, _, err := ConnectAcceptedSocket(co, newEcho, dgram, nil); return err },
			"no socket":         func() error { _, _, err := ConnectAcceptedSocket(co, newEcho, nil, nil); return err },
			"a timeout without TLS": func() error {
				_, _, err := ConnectAcceptedSocket(co, newEcho, dgram, &AcceptedOptions{HandshakeTimeout: 1})
				return err
			},
		} {
			if err := call(); !errors.Is(err, loop.ErrInvalidArgument) {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
}

func TestACoroOutsideItsTaskConnectsNothingAndWakesNobody(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		l := co.Loop()
		srv, port := localServer(t, co, protocolOf(&recorder{}), nil)
		defer srv.Close()
		woken := loop.CreateFuture[struct{}](l)
		_, err := l.CallSoon(func() {
			if _, _, err := CreateConnection(co, mustNotCall(t), "127.0.0.1", port, nil); !errors.Is(err, loop.ErrNotCurrent) {
				t.Errorf("CreateConnection in a callback: %v", err)
			}
			_, _, err := SubprocessExec(co, func() SubprocessProtocol { t.Error("the factory was called"); return nil }, "/bin/true", nil, nil)
			if !errors.Is(err, loop.ErrNotCurrent) {
				t.Errorf("SubprocessExec in a callback: %v", err)
			}
			l.Go(func(co *loop.Coro) error {
				tr, _, err := CreateConnection(co, protocolOf(&recorder{}), "127.0.0.1", port, nil)
				check(t, err)
				tr.Close()
				return woken.SetResult(struct{}{})
			})
		})
		check(t, err)
		if _, err := woken.Await(co); err != nil {
			t.Errorf("the task was woken from its own wait: %v", err)
		}
	})
}

// A task that its closed loop unwinds, and that makes one attempt after the other, is
// ended by a panic, as one that waits again and again.
func TestATaskThatTriesForEverOnAClosedLoopIsUnwound(t *testing.T) {
	unserved := func() Protocol { return nil }
	for what, attempt := range map[string]func(t *testing.T, co *loop.Coro, srv *Server) error{
		"CreateConnection": func(t *testing.T, co *loop.Coro, _ *Server) error {
			ours, _ := blockingPair(t)
			_, _, err := CreateConnection(co, mustNotCall(t), "", "", &ConnectOptions{Sock: ours})
			return err
		},
		"CreateDatagramEndpoint": func(t *testing.T, co *loop.Coro, _ *Server) error {
			_, _, err := CreateDatagramEndpoint(co, func() DatagramProtocol { return nil }, &DatagramOptions{LocalAddr: anyPort})
			return err
		},
		"ConnectReadPipe": func(t *testing.T, co *loop.Coro, _ *Server) error {
			r, w := osPipe(t)
			check(t, w.Close())
			_, _, err := ConnectReadPipe(co, mustNotCall(t), r)
			return err
		},
		"CreateServer": func(t *testing.T, co *loop.Coro, _ *Server) error {
			_, err := CreateServer(co, unserved, []string{"127.0.0.1"}, "0", nil)
			return err
		},
		"ServeForever": func(t *testing.T, co *loop.Coro, srv *Server) error { return srv.ServeForever(co) },
		"SubprocessExec": func(t *testing.T, co *loop.Coro, _ *Server) error {
			_, _, err := SubprocessExec(co, func() SubprocessProtocol { t.Error("the factory was called"); return nil }, "/bin/true", nil, nil)
			return err
		},
	} {
		t.Run(what, func(t *testing.T) {
			eachBackend(t, func(t *testing.T, name string) {
				l := ipcLoop(t, loop.WithBackend(name))
				l.SetExceptionHandler(func(*loop.Loop, *loop.ExceptionContext) {}) // the task is pending
				runTask(t, l, func(co *loop.Coro) error {
					srv, _ := localServer(t, co, unserved, &ServerOptions{NoStart: true})
					l.Go(func(co *loop.Coro) error {
						_, _ = loop.CreateFuture[struct{}](l).Await(co)
						for range 200 {
							if err := attempt(t, co, srv); !errors.Is(err, loop.ErrLoopClosed) {
								t.Errorf("on a closed loop: %v", err)
							}
						}
						t.Error("the task was not unwound")
						return nil
					})
					return loop.Sleep(co, 0)
				})
				check(t, l.Close())
			})
		})
	}
}

func TestTheErrorsOfASuppliedSocketNameTheCall(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		for what, call := range map[string]func(s *sockapi.Socket, factory func() Protocol, config bool) error{
			"create connection": func(s *sockapi.Socket, factory func() Protocol, tls bool) error {
				o := ConnectOptions{Sock: s}
				if tls {
					o.TLS = trusting()
				}
				_, _, err := CreateConnection(co, factory, "", "", &o)
				return err
			},
			"create unix connection": func(s *sockapi.Socket, factory func() Protocol, tls bool) error {
				o := UnixConnectOptions{Sock: s}
				if tls {
					o.TLS = trusting()
				}
				_, _, err := CreateUnixConnection(co, factory, "", &o)
				return err
			},
			"connect accepted socket": func(s *sockapi.Socket, factory func() Protocol, tls bool) error {
				o := AcceptedOptions{}
				if tls {
					o.TLS = serverTLS()
				}
				_, _, err := ConnectAcceptedSocket(co, factory, s, &o)
				return err
			},
		} {
			refused := func(why string, err error, want error) {
				t.Helper()
				if !errors.Is(err, want) || !strings.HasPrefix(err.Error(), what+" ") && !strings.HasPrefix(err.Error(), what+":") {
					t.Errorf("%s, %s: %v", what, why, err)
				}
			}
			used, _ := blockingPair(t)
			_, err := used.Adopt("somebody else")
			check(t, err)
			refused("a socket of another transport", call(used, mustNotCall(t), false), sockapi.ErrTransportFD)
			used.Release()
			check(t, used.Close())

			ours, _ := blockingPair(t)
			refused("no protocol", call(ours, func() Protocol { return nil }, false), loop.ErrInvalidArgument)
			ours, peer := blockingPair(t)
			check(t, peer.Close())
			refused("no handshake", call(ours, newEcho, true), syscall.ECONNRESET)
		}
	})
}

func TestASocketOfAnotherLoopIsAdopted(t *testing.T) {
	for _, typ := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM} {
		eachBackend(t, func(t *testing.T, name string) {
			first, second := ipcLoop(t, loop.WithBackend(name)), ipcLoop(t, loop.WithBackend(name))
			ours, peer, err := sockapi.Pair(typ)
			check(t, err)
			defer peer.Close()
			runTask(t, first, func(co *loop.Coro) error { return sockapi.SendAll(co, ours, []byte("x")) })
			runTask(t, second, func(co *loop.Coro) error {
				if typ == unix.SOCK_STREAM {
					p := &recorder{}
					tr, _, err := CreateConnection(co, protocolOf(p), "", "", &ConnectOptions{Sock: ours})
					check(t, err)
					tr.Abort()
					check(t, p.untilLost(t, co))
				} else {
					p := &datagramDiary{}
					tr, _, err := CreateDatagramEndpoint(co, func() DatagramProtocol { return p }, &DatagramOptions{Sock: ours})
					check(t, err)
					tr.Abort()
					check(t, p.untilLost(t, co))
				}
				// The receive that was in flight ends with the socket.
				until(t, co, "nothing is in flight", func() bool { return second.Backend().InFlight() == 0 })
				return nil
			})
		})
	}
}

// vanishing is a protocol that tells a task when the connection is lost.
type vanishing struct {
	BaseProtocol
	lost *loop.Future[struct{}]
}

func (p *vanishing) ConnectionLost(error) { _ = p.lost.SetResult(struct{}{}) }

func TestALocalPortIsFreeAsSoonAsItsConnectionIsLost(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		srv, port := localServer(t, co, newEcho, nil)
		free := ok[net.Listener](t)(net.Listen("tcp", "127.0.0.3:0"))
		_, local, err := net.SplitHostPort(free.Addr().String())
		check(t, err)
		check(t, free.Close())
		o := &ConnectOptions{LocalHost: "127.0.0.3", LocalPort: local}
		for range 20 {
			p := &vanishing{lost: loop.CreateFuture[struct{}](co.Loop())}
			tr, _, err := CreateConnection(co, protocolOf(p), "127.0.0.1", port, o)
			check(t, err)
			turns(t, co) // a receive is in flight
			v, _ := tr.ExtraInfo(ExtraSocket)
			reset := &unix.Linger{Onoff: 1} // or TCP would keep the port
			check(t, unix.SetsockoptLinger(v.(*TransportSocket).Fd(), unix.SOL_SOCKET, unix.SO_LINGER, reset))
			tr.Abort()
			_, err = p.lost.Await(co)
			check(t, err)
		}
		over(t, co, srv)
	})
}

// silent returns the port of an address of 127.0.0.1 that answers nobody, because its
// backlog is full.
func silent(t *testing.T, co *loop.Coro) string {
	t.Helper()
	listener := ok[*sockapi.Socket](t)(sockapi.New(unix.AF_INET, unix.SOCK_STREAM, 0))
	check(t, listener.Bind(anyPort))
	check(t, listener.Listen(0))
	addr := ok[Addr](t)(listener.LocalAddr())
	only := ok[*sockapi.Socket](t)(sockapi.Dial(co, "tcp", addr.String()))
	t.Cleanup(func() {
		check(t, only.Close())
		check(t, listener.Close())
	})
	return strconv.Itoa(int(addr.Port()))
}

func TestALocalPortIsFreeAsSoonAsAConnectIsCancelled(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		port := silent(t, co)
		free := ok[net.Listener](t)(net.Listen("tcp", "127.0.0.3:0"))
		_, local, err := net.SplitHostPort(free.Addr().String())
		check(t, err)
		check(t, free.Close())
		const tries = 3
		begun := 0
		task := co.Loop().Go(func(co *loop.Coro) error {
			for begun < tries {
				begun++
				_, _, err := CreateConnection(co, mustNotCall(t), "127.0.0.1", port, &ConnectOptions{LocalHost: "127.0.0.3", LocalPort: local})
				if !errors.Is(err, loop.ErrCancelled) {
					return err
				}
			}
			return nil
		})
		for i := range tries {
			until(t, co, "it connects", func() bool { return task.Done() || begun > i && strings.Contains(task.Stack(), "connect") })
			task.Cancel("")
		}
		if _, err := task.Await(co); err != nil {
			t.Error(err)
		}
	})
}

func TestALocalPortIsFreeAsSoonAsAConnectionIsRefused(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		port := refusing(t)
		free := ok[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
		_, local, err := net.SplitHostPort(free.Addr().String())
		check(t, err)
		check(t, free.Close())
		for range 3 {
			_, _, err := CreateConnection(co, mustNotCall(t), "127.0.0.1", port, &ConnectOptions{LocalHost: "127.0.0.1", LocalPort: local})
			if !errors.Is(err, syscall.ECONNREFUSED) {
				t.Error(err)
			}
		}
	})
}
