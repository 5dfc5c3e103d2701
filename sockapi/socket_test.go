package sockapi

import (
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/loop"
)

func TestImportedSocketsAreOfTheirOwn(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		listener, err := FromListener(ln)
		if err != nil {
			t.Fatal(err)
		}
		closeAtEnd(t, listener)
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		client, err := FromConn(c)
		if err != nil {
			t.Fatal(err)
		}
		closeAtEnd(t, client)
		if err := errors.Join(ln.Close(), c.Close()); err != nil {
			t.Fatal(err)
		}
		if client.Family() != unix.AF_INET || client.Type() != unix.SOCK_STREAM || client.Proto() != unix.IPPROTO_TCP {
			t.Errorf("%v has the wrong kind", client)
		}
		run(t, l, func(co *loop.Coro) error {
			server, _, err := Accept(co, listener)
			if err != nil {
				return err
			}
			if err := SendAll(co, server, []byte("data")); err != nil {
				return err
			}
			got, err := Recv(co, client, 10)
			if string(got) != "data" {
				t.Errorf("received %q", got)
			}
			return errors.Join(err, CloseWait(co, server))
		})
	})
}

func TestFilesAndPacketConnsCanBeImported(t *testing.T) {
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer pc.Close()
	s, err := FromPacketConn(pc)
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, s)
	if a, err := s.LocalAddr(); err != nil || a.String() != pc.LocalAddr().String() {
		t.Errorf("the address is %v, %v; want %v", a, err, pc.LocalAddr())
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f, g := os.NewFile(uintptr(fds[0]), "a"), os.NewFile(uintptr(fds[1]), "b")
	defer f.Close()
	defer g.Close()
	u, err := FromFile(f)
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, u)
	if flags, err := unix.FcntlInt(uintptr(u.Fd()), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
		t.Errorf("flags %#x, %v: not non-blocking", flags, err)
	}
}

func TestWhatIsNoSocketCannotBeImported(t *testing.T) {
	if _, err := FromFile(nil); !errors.Is(err, loop.ErrInvalidArgument) {
		t.Errorf("FromFile(nil) = %v", err)
	}
	if _, err := FromFile(tempFile(t, nil)); !errors.Is(err, unix.ENOTSOCK) {
		t.Errorf("FromFile of a regular file = %v", err)
	}
	c, d := net.Pipe()
	defer c.Close()
	defer d.Close()
	if _, err := FromConn(c); !errors.Is(err, loop.ErrInvalidArgument) || !strings.Contains(err.Error(), "net.pipe") {
		t.Errorf("FromConn of a net.Pipe = %v", err)
	}
	for _, fd := range []int{-1, 1 << 20} {
		if _, err := FromFD(fd); !errors.Is(err, unix.EBADF) {
			t.Errorf("FromFD(%d) = %v", fd, err)
		}
	}
	if _, err := New(unix.AF_INET, 77, 0); !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ESOCKTNOSUPPORT) {
		t.Errorf("New of an unknown type = %v", err)
	}
}

func TestListenNamesTheAddressThatIsInUse(t *testing.T) {
	_, addr := listen(t, "tcp", "127.0.0.1:0")
	_, err := Listen("tcp", addr.String(), nil)
	if !errors.Is(err, unix.EADDRINUSE) || !strings.Contains(err.Error(), addr.String()) {
		t.Errorf("Listen = %v", err)
	}
	_, err = ListenPacket("tcp", "127.0.0.1:0", nil)
	if !errors.Is(err, loop.ErrInvalidArgument) {
		t.Errorf("ListenPacket on tcp = %v", err)
	}
	_, err = Listen("tcp", "127.0.0.1:nosuchservice", nil)
	if err == nil || !strings.Contains(err.Error(), "nosuchservice") {
		t.Errorf("Listen on an unknown service = %v", err)
	}
	_, err = Listen("unix", "/"+strings.Repeat("x", 200), nil)
	if !errors.Is(err, unix.ENAMETOOLONG) {
		t.Errorf("Listen on a long path = %v", err)
	}
}

func TestListenSetsWhatItsOptionsSay(t *testing.T) {
	option := func(s *Socket, level, name int) int {
		t.Helper()
		v, err := s.GetOption(level, name)
		if err != nil {
			t.Error(err)
		}
		return v
	}
	s, addr := listen(t, "tcp", ":0")
	if option(s, unix.SOL_SOCKET, unix.SO_REUSEADDR) != 1 || option(s, unix.SOL_SOCKET, unix.SO_REUSEPORT) != 0 {
		t.Error("the default is not SO_REUSEADDR alone")
	}
	if addr.Port() == 0 || !addr.AddrPort().Addr().IsUnspecified() {
		t.Errorf("listens on %v", addr)
	}
	shared, err := Listen("tcp4", "127.0.0.1:0", &ListenOptions{ReusePort: true, NoReuseAddr: true, Backlog: 5})
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, shared)
	if option(shared, unix.SOL_SOCKET, unix.SO_REUSEADDR) != 0 || option(shared, unix.SOL_SOCKET, unix.SO_REUSEPORT) != 1 {
		t.Error("the options were not taken")
	}
	at, err := shared.LocalAddr()
	if err != nil {
		t.Fatal(err)
	}
	second, err := Listen("tcp4", at.String(), &ListenOptions{ReusePort: true})
	if err != nil {
		t.Fatalf("the port is not shared: %v", err)
	}
	closeAtEnd(t, second)
	six, err := Listen("tcp6", "[::1]:0", &ListenOptions{V6Only: true})
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, six)
	if option(six, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY) != 1 {
		t.Error("V6Only was not taken")
	}
}

func TestOptionsOfASocket(t *testing.T) {
	s := open(t, unix.AF_INET, unix.SOCK_STREAM)
	if err := errors.Join(s.SetNoDelay(true), s.SetReuseAddr(true), s.SetLinger(3), s.SetLinger(-1)); err != nil {
		t.Error(err)
	}
	if v, err := s.GetOption(unix.IPPROTO_TCP, unix.TCP_NODELAY); v == 0 || err != nil {
		t.Errorf("TCP_NODELAY = %d, %v", v, err)
	}
	if err := s.SetOption(unix.SOL_SOCKET, 9999, 1); !errors.Is(err, unix.ENOPROTOOPT) || !strings.Contains(err.Error(), "9999") {
		t.Errorf("an unknown option = %v", err)
	}
	if err := s.Shutdown(unix.SHUT_WR); !errors.Is(err, unix.ENOTCONN) {
		t.Errorf("Shutdown without a peer = %v", err)
	}
	if _, err := s.PeerAddr(); !errors.Is(err, unix.ENOTCONN) {
		t.Errorf("PeerAddr without a peer = %v", err)
	}
	if err := s.Bind(Addr{}); !errors.Is(err, unix.EDESTADDRREQ) {
		t.Errorf("Bind to no address = %v", err)
	}
	if str := s.String(); !strings.Contains(str, "fd=") || !strings.Contains(str, "0.0.0.0:0") {
		t.Errorf("String = %s", str)
	}
}

func TestTheFlagsOfSocketAreNotPartOfItsType(t *testing.T) {
	flags := unix.SOCK_NONBLOCK | unix.SOCK_CLOEXEC
	if s := open(t, unix.AF_INET, unix.SOCK_STREAM|flags); s.Type() != unix.SOCK_STREAM {
		t.Errorf("Type = %d", s.Type())
	}
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, b := pair(t, unix.SOCK_DGRAM|flags)
		run(t, l, func(co *loop.Coro) error {
			if n, err := SendTo(co, b, nil, Addr{}); n != 0 || err != nil {
				t.Errorf("SendTo of nothing = %d, %v", n, err)
			}
			if n, err := RecvInto(co, a, make([]byte, 1)); n != 0 || err != nil {
				t.Errorf("an empty packet: %d, %v", n, err)
			}
			return nil
		})
	})
}

func TestNilAndWrongSocketsAreRefused(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		run(t, l, func(co *loop.Coro) error {
			_, other := pair(t, unix.SOCK_STREAM)
			for name, err := range everyCall(co, nil, other) {
				if !errors.Is(err, loop.ErrInvalidArgument) {
					t.Errorf("%s of a nil socket = %v", name, err)
				}
			}
			s, _ := pair(t, unix.SOCK_STREAM)
			if _, err := Recv(co, s, 0); !errors.Is(err, loop.ErrInvalidArgument) {
				t.Errorf("Recv of 0 bytes = %v", err)
			}
			if _, _, err := RecvFrom(co, s, -1); !errors.Is(err, loop.ErrInvalidArgument) {
				t.Errorf("RecvFrom of -1 bytes = %v", err)
			}
			fresh := open(t, unix.AF_INET, unix.SOCK_STREAM)
			if _, err := Recv(co, fresh, 1); !errors.Is(err, syscall.ENOTCONN) {
				t.Errorf("Recv without a peer = %v", err)
			}
			var none *Socket
			return none.Close()
		})
	})
}

func TestAWrongDescriptorIsAnError(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		run(t, l, func(co *loop.Coro) error {
			_, other := pair(t, unix.SOCK_STREAM)
			const wrong = 1 << 20
			s := newSocket(wrong, unix.AF_UNIX, unix.SOCK_STREAM, 0)
			for name, err := range everyCall(co, s, other) {
				if name != "Sendfile" && (!errors.Is(err, syscall.EBADF) || !strings.Contains(err.Error(), "1048576") && name != "Connect") {
					t.Errorf("%s = %v, want EBADF and the descriptor", name, err)
				}
			}
			return nil
		})
	})
}

func TestASocketOfATransportIsRefusedUntilItIsReleased(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, b := pair(t, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			waiting := recvTask(co, a)
			yield(t, co, 3)
			if _, err := a.Adopt("test"); !errors.Is(err, loop.ErrInvalidState) {
				t.Errorf("Adopt of a socket in use = %v", err)
			}
			waiting.Cancel("")
			_, _ = waiting.Await(co)
			a.kept = &kept{data: []byte("early"), from: true, addr: UnixAddr("/sender")}
			r, err := a.Adopt("<test transport>")
			if string(r.Data) != "early" || r.From != UnixAddr("/sender") || r.Err != nil || err != nil {
				t.Errorf("Adopt = %q, %v, %v, %v", r.Data, r.From, r.Err, err)
			}
			for name, err := range everyCall(co, a, b) {
				if !errors.Is(err, ErrTransportFD) || !strings.Contains(err.Error(), "<test transport>") {
					t.Errorf("%s = %v", name, err)
				}
			}
			if err := a.Close(); !errors.Is(err, ErrTransportFD) {
				t.Errorf("Close = %v", err)
			}
			if _, err := a.Adopt("another"); !errors.Is(err, ErrTransportFD) {
				t.Errorf("Adopt again = %v", err)
			}
			if _, _, err := a.Detach(); !errors.Is(err, ErrTransportFD) {
				t.Errorf("Detach = %v", err)
			}
			a.Release()
			return SendAll(co, a, []byte("x"))
		})
	})
}

func TestSurrenderLeavesTheDescriptorItselfToTheOwner(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, b := pair(t, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			if err := SendAll(co, a, []byte("x")); err != nil {
				return err
			}
			a.Surrender()
			fd := a.Fd()
			if fd < 0 {
				t.Fatal("a socket that is not adopted was surrendered")
			}
			if _, err := a.Adopt("test"); err != nil {
				return err
			}
			a.Surrender()
			a.Surrender()
			if err := a.Close(); a.Fd() != -1 || err != nil {
				t.Errorf("afterwards the descriptor is %d, and Close = %v", a.Fd(), err)
			}
			if _, err := Recv(co, b, 1); err != nil {
				return err
			}
			if err := unix.Close(fd); err != nil {
				t.Errorf("the descriptor of the owner: %v", err)
			}
			if _, err := Recv(co, b, 1); err != io.EOF {
				t.Errorf("the peer sees %v, want the end", err)
			}
			return nil
		})
	})
}

func TestASocketOnTheDescriptorOfATransportIsRefused(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, b := pair(t, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			if err := l.ClaimFD(a.Fd(), "the transport"); err != nil {
				return err
			}
			_, err := Recv(co, a, 1)
			if !errors.Is(err, ErrTransportFD) || !strings.Contains(err.Error(), "the transport") {
				t.Errorf("Recv = %v, want ErrTransportFD that names the owner", err)
			}
			l.ReleaseFD(a.Fd())
			if err := SendAll(co, b, []byte("x")); err != nil {
				return err
			}
			if p, err := Recv(co, a, 1); string(p) != "x" || err != nil {
				t.Errorf("Recv of the released descriptor = %q, %v", p, err)
			}
			return nil
		})
	})
}

func TestAConnectionThatACancelledAcceptTookIsNotLostWithItsListener(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		run(t, l, func(co *loop.Coro) error {
			ln, addr := listen(t, "tcp", "127.0.0.1:0")
			client, err := Dial(co, "tcp", addr.String())
			if err != nil {
				return err
			}
			closeAtEnd(t, client)
			conn, peer, err := Accept(co, ln)
			if err != nil {
				return err
			}
			closeAtEnd(t, conn)
			ln.kept = &kept{conn: conn, addr: peer}
			if _, _, err := ln.Detach(); !errors.Is(err, loop.ErrInvalidState) || !strings.Contains(err.Error(), "DetachListener") {
				t.Errorf("Detach = %v", err)
			}
			if _, err := ln.Adopt("test"); !errors.Is(err, loop.ErrInvalidState) || !strings.Contains(err.Error(), "Accept") {
				t.Errorf("Adopt = %v", err)
			}
			fd, accepted, err := ln.DetachListener()
			if err != nil || accepted != conn || ln.Fd() != -1 {
				t.Errorf("DetachListener = %v, %v; the socket is %v", accepted, err, ln)
			}
			if err := unix.Close(fd); err != nil {
				t.Errorf("closing the listener: %v", err)
			}
			if err := SendAll(co, client, []byte("x")); err != nil {
				return err
			}
			if p, err := Recv(co, conn, 1); string(p) != "x" || err != nil {
				t.Errorf("Recv on the connection = %q, %v", p, err)
			}
			return nil
		})
	})
}

func TestDetachListenerIsDetach(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		run(t, l, func(co *loop.Coro) error {
			ln, addr := listen(t, "tcp", "127.0.0.1:0")
			waiting := acceptTask(co, ln)
			yield(t, co, 3)
			if _, _, err := ln.DetachListener(); !errors.Is(err, loop.ErrInvalidState) {
				t.Errorf("DetachListener of a socket in use = %v", err)
			}
			waiting.Cancel("")
			_, _ = waiting.Await(co)
			if _, err := ln.Adopt("test"); err != nil {
				return err
			}
			if _, _, err := ln.DetachListener(); !errors.Is(err, ErrTransportFD) {
				t.Errorf("DetachListener of a socket of a transport = %v", err)
			}
			ln.Release()
			fd, accepted, err := ln.DetachListener()
			if err != nil || accepted != nil {
				t.Fatalf("DetachListener = %v, %v", accepted, err)
			}
			again, err := FromFD(fd)
			if err != nil {
				return err
			}
			closeAtEnd(t, again)
			if local, err := again.LocalAddr(); local != addr || err != nil {
				t.Errorf("the descriptor is that of %v, %v", local, err)
			}
			if _, _, err := ln.DetachListener(); !errors.Is(err, ErrSocketClosed) {
				t.Errorf("DetachListener again = %v", err)
			}
			return nil
		})
	})
}

func TestAnErrorThatACancelledCallTookGoesToTheNextOwner(t *testing.T) {
	for _, how := range []string{"adopt", "detach"} {
		a, _ := pair(t, unix.SOCK_STREAM)
		a.kept = &kept{data: []byte("early"), errno: unix.ECONNRESET}
		var r Received
		var err error
		if how == "adopt" {
			r, err = a.Adopt("test")
			a.Release()
		} else {
			var fd int
			fd, r, err = a.Detach()
			defer unix.Close(fd)
		}
		var op *OpError
		if err != nil || string(r.Data) != "early" || !errors.Is(r.Err, unix.ECONNRESET) || !errors.As(r.Err, &op) {
			t.Errorf("%s: %q, %v, %v", how, r.Data, r.Err, err)
		}
	}
}

// AF_PACKET has protocols in network byte order, as ETH_P_PAE.
func TestTheLargestProtocolNumberIsKept(t *testing.T) {
	if got := newSocket(-1, unix.AF_PACKET, unix.SOCK_RAW, 0x8e88).Proto(); got != 0x8e88 {
		t.Errorf("got %#x", got)
	}
}

func TestAnErrorNamesTheAddressOrElseTheDescriptor(t *testing.T) {
	addr := HostAddr("127.0.0.1", 80)
	for want, e := range map[string]*OpError{
		"send to 127.0.0.1:80: broken pipe": {Op: "send to", Addr: addr, FD: 7, Err: unix.EPIPE},
		"send on fd 7: broken pipe":         {Op: "send to", FD: 7, Err: unix.EPIPE},
		"recv on fd 7: broken pipe":         {Op: "recv from", FD: 7, Err: unix.EPIPE},
		"accept: broken pipe":               {Op: "accept", FD: -1, Err: unix.EPIPE},
	} {
		if got := e.Error(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestDetachGivesTheDescriptorAway(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		for _, used := range []bool{false, true} {
			a, b := pair(t, unix.SOCK_STREAM)
			run(t, l, func(co *loop.Coro) error {
				if used {
					waiting := recvTask(co, a)
					yield(t, co, 3)
					if _, _, err := a.Detach(); !errors.Is(err, loop.ErrInvalidState) {
						t.Errorf("Detach of a socket in use = %v", err)
					}
					waiting.Cancel("")
					_, _ = waiting.Await(co)
				}
				fd, _, err := a.Detach()
				if err != nil {
					return err
				}
				if a.Fd() != -1 {
					t.Error("the socket still has a descriptor")
				}
				yield(t, co, 3)
				again, err := FromFD(fd)
				if err != nil {
					return err
				}
				if err := SendAll(co, again, []byte("x")); err != nil {
					return err
				}
				if got, err := Recv(co, b, 10); string(got) != "x" || err != nil {
					t.Errorf("received %q, %v", got, err)
				}
				return CloseWait(co, again)
			})
		}
	})
}

func TestASocketMovesToAnotherLoopWhenNothingIsInFlight(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, b := pair(t, unix.SOCK_STREAM)
		other := newLoop(t, l.Features().Backend)
		var waiting *loop.Task[string]
		run(t, l, func(co *loop.Coro) error {
			waiting = recvTask(co, a)
			yield(t, co, 3)
			return nil
		})
		run(t, other, func(co *loop.Coro) error {
			if _, err := RecvInto(co, a, make([]byte, 1)); !errors.Is(err, ErrOtherLoop) {
				t.Errorf("RecvInto on another loop = %v", err)
			}
			return nil
		})
		run(t, l, func(co *loop.Coro) error {
			waiting.Cancel("")
			_, _ = waiting.Await(co)
			return nil
		})
		for range 2 {
			run(t, other, func(co *loop.Coro) error { return SendAll(co, a, []byte("x")) })
			run(t, l, func(co *loop.Coro) error {
				if got, err := Recv(co, b, 10); string(got) != "x" || err != nil {
					t.Errorf("received %q, %v", got, err)
				}
				if err := SendAll(co, b, []byte("y")); err != nil {
					return err
				}
				got, err := Recv(co, a, 10)
				if string(got) != "y" {
					t.Errorf("received %q", got)
				}
				return err
			})
		}
	})
}

func TestDebugModeRefusesABlockingSocket(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, b := pair(t, unix.SOCK_STREAM)
		if err := unix.SetNonblock(a.Fd(), false); err != nil {
			t.Fatal(err)
		}
		l.SetDebug(true)
		run(t, l, func(co *loop.Coro) error {
			for name, err := range everyCall(co, a, b) {
				if !errors.Is(err, loop.ErrInvalidArgument) || !strings.Contains(err.Error(), "non-blocking") {
					t.Errorf("%s = %v", name, err)
				}
			}
			return nil
		})
	})
}

func TestDebugModeRefusesACloseFromAnotherGoroutine(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, b := pair(t, unix.SOCK_STREAM)
		l.SetDebug(true)
		run(t, l, func(co *loop.Coro) error {
			if err := SendAll(co, a, []byte("own")); err != nil {
				return err
			}
			errs := make(chan error)
			go func() { errs <- a.Close() }()
			err := <-errs
			if !errors.Is(err, loop.ErrWrongThread) || strings.Count(err.Error(), "close") != 1 {
				t.Errorf("got %v", err)
			}
			_, err = Recv(co, b, 8)
			return err
		})
	})
}

func TestASocketOfATaskThatItsLoopHasUnwoundMoves(t *testing.T) {
	for _, name := range backendNames {
		t.Run(name, func(t *testing.T) {
			l := newLoop(t, name)
			l.SetExceptionHandler(func(*loop.Loop, *loop.ExceptionContext) {}) // the task is pending
			a, b := pair(t, unix.SOCK_STREAM)
			run(t, l, func(co *loop.Coro) error {
				spawn(co, func(co *loop.Coro) (int, error) {
					for { // it does not look at the error
						_, _ = RecvInto(co, a, make([]byte, 1))
					}
				})
				yield(t, co, 3)
				return nil
			})
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			run(t, newLoop(t, name), func(co *loop.Coro) error {
				if err := SendAll(co, b, []byte("x")); err != nil {
					return err
				}
				got, err := Recv(co, a, 10)
				if string(got) != "x" {
					t.Errorf("received %q", got)
				}
				return err
			})
		})
	}
}
