package sockapi

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/loop"
)

// connectTask connects in a task of its own.
func connectTask(co *loop.Coro, s *Socket, addr Addr) *loop.Task[struct{}] {
	return spawn(co, func(co *loop.Coro) (struct{}, error) { return struct{}{}, Connect(co, s, addr) })
}

func TestConnectToAClosedPortIsRefusedAndTheErrorNamesTheAddress(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		ln, addr := listen(t, "tcp", "127.0.0.1:0")
		if err := ln.Close(); err != nil {
			t.Fatal(err)
		}
		s := open(t, unix.AF_INET, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			err := Connect(co, s, addr)
			if !errors.Is(err, unix.ECONNREFUSED) || !errors.Is(err, ErrConnection) {
				t.Errorf("Connect = %v, want ECONNREFUSED", err)
			}
			if want := "connect " + addr.String() + ": connection refused"; err != nil && err.Error() != want {
				t.Errorf("Connect = %q, want %q", err, want)
			}
			_, err = Dial(co, "tcp", addr.String())
			if !errors.Is(err, unix.ECONNREFUSED) || !strings.Contains(err.Error(), addr.String()) {
				t.Errorf("Dial = %v", err)
			}
			return nil
		})
	})
}

// fullListener returns a listener whose backlog is full, so that a further
// connect does not end.
func fullListener(t *testing.T, co *loop.Coro) (*Socket, Addr) {
	t.Helper()
	ln := open(t, unix.AF_INET, unix.SOCK_STREAM)
	if err := ln.Bind(IPAddr(netip.MustParseAddrPort("127.0.0.1:0"))); err != nil {
		t.Fatal(err)
	}
	if err := ln.Listen(0); err != nil {
		t.Fatal(err)
	}
	addr, err := ln.LocalAddr()
	if err != nil {
		t.Fatal(err)
	}
	if err := Connect(co, open(t, unix.AF_INET, unix.SOCK_STREAM), addr); err != nil {
		t.Fatal(err)
	}
	return ln, addr
}

// cancelledConnect returns a socket whose connect was cancelled and goes on in the
// kernel, and the listener that will take it when a connection is accepted.
func cancelledConnect(t *testing.T, co *loop.Coro) (ln *Socket, addr Addr, s *Socket) {
	t.Helper()
	ln, addr = fullListener(t, co)
	s = open(t, unix.AF_INET, unix.SOCK_STREAM)
	first := connectTask(co, s, addr)
	yield(t, co, 3)
	first.Cancel("")
	if _, err := first.Await(co); !errors.Is(err, loop.ErrCancelled) {
		t.Errorf("the cancelled Connect = %v", err)
	}
	return ln, addr, s
}

func TestACancelledConnectCanBeRetriedOnTheSameSocket(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		run(t, l, func(co *loop.Coro) error {
			ln, addr, s := cancelledConnect(t, co)
			second := connectTask(co, s, addr)
			yield(t, co, 3)
			accepting := acceptTask(co, ln) // makes room
			if _, err := accepting.Await(co); err != nil {
				return err
			}
			if _, err := second.Await(co); err != nil {
				t.Errorf("the second Connect = %v", err)
			}
			if peer, err := s.PeerAddr(); err != nil || peer != addr {
				t.Errorf("the peer is %v, %v; want %v", peer, err, addr)
			}
			return nil
		})
	})
}

func TestAConnectToAnotherAddressAfterACancelledOneDoesNotPretend(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		_, other := listen(t, "tcp", "127.0.0.1:0")
		run(t, l, func(co *loop.Coro) error {
			ln, _, s := cancelledConnect(t, co)
			second := connectTask(co, s, other)
			yield(t, co, 3)
			if _, err := acceptTask(co, ln).Await(co); err != nil { // makes room
				return err
			}
			if _, err := second.Await(co); !errors.Is(err, unix.EISCONN) {
				t.Errorf("the Connect to another address = %v", err)
			}
			return nil
		})
	})
}

func TestACancelledConnectThatSucceededCanBeRetried(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		_, addr := listen(t, "tcp", "127.0.0.1:0")
		_, other := listen(t, "tcp", "127.0.0.1:0")
		run(t, l, func(co *loop.Coro) error {
			for turns := range 5 {
				s := open(t, unix.AF_INET, unix.SOCK_STREAM)
				first := connectTask(co, s, addr)
				yield(t, co, 1+turns/2) // it has begun, and may have ended
				first.Cancel("")
				_, err := first.Await(co)
				if err == nil {
					continue // it did not have to wait
				}
				if turns%2 == 1 {
					err = Connect(co, s, other)
					if err != nil && !errors.Is(err, unix.EISCONN) {
						t.Errorf("Connect to another address = %v", err)
					}
					continue
				}
				if err := Connect(co, s, addr); err != nil {
					t.Errorf("the second Connect after %d turns = %v", turns, err)
				}
			}
			return nil
		})
	})
}

func TestConnectingAConnectedSocketIsAnError(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		_, addr := listen(t, "tcp", "127.0.0.1:0")
		run(t, l, func(co *loop.Coro) error {
			s := open(t, unix.AF_INET, unix.SOCK_STREAM)
			if err := Connect(co, s, addr); err != nil {
				return err
			}
			// connect(2) itself reports the end of a connect in progress once.
			if err := Connect(co, s, addr); err != nil && !errors.Is(err, unix.EISCONN) {
				t.Errorf("Connect again = %v, want EISCONN", err)
			}
			if err := Connect(co, s, addr); !errors.Is(err, unix.EISCONN) {
				t.Errorf("Connect again = %v, want EISCONN", err)
			}
			return nil
		})
	})
}

func TestConnectResolvesNamesWithTheSocketsOwnFamily(t *testing.T) {
	for _, c := range []struct {
		network, address string
		family           int
	}{{"tcp4", "127.0.0.1:0", unix.AF_INET}, {"tcp6", "[::1]:0", unix.AF_INET6}} {
		t.Run(c.network, func(t *testing.T) {
			forEachBackend(t, func(t *testing.T, l *loop.Loop) {
				_, addr := listen(t, c.network, c.address)
				run(t, l, func(co *loop.Coro) error {
					s := open(t, c.family, unix.SOCK_STREAM)
					err := Connect(co, s, HostAddr("localhost", addr.Port()))
					var ai *loop.AddrInfoError
					if errors.As(err, &ai) && c.family == unix.AF_INET6 {
						// The hosts file knows no IPv6 address of localhost: then it is
						// that, and not the IPv4 address, that has to be the answer.
						return nil
					}
					if err != nil {
						return err
					}
					if peer, err := s.PeerAddr(); err != nil || peer != addr {
						t.Errorf("the peer is %v, %v; want %v", peer, err, addr)
					}
					return nil
				})
			})
		})
	}
}

func TestConnectToANameThatDoesNotResolveNamesIt(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		s := open(t, unix.AF_INET, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			err := Connect(co, s, HostAddr("no such host", 80))
			if err == nil || !strings.Contains(err.Error(), "no such host:80") {
				t.Errorf("Connect = %v", err)
			}
			return nil
		})
	})
}

func TestConnectAcceptsFlowInformationAndScope(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		_, addr := listen(t, "tcp6", "[::1]:0")
		run(t, l, func(co *loop.Coro) error {
			s := open(t, unix.AF_INET6, unix.SOCK_STREAM)
			if err := Connect(co, s, IPv6Addr(addr.AddrPort(), 0, 1)); err != nil {
				return err
			}
			peer, err := s.PeerAddr()
			if peer.AddrPort() != addr.AddrPort() {
				t.Errorf("the peer is %v, want %v", peer, addr)
			}
			return err
		})
	})
}

func TestAnIPv6SocketReachesAnIPv4Address(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		_, addr := listen(t, "tcp4", "127.0.0.1:0")
		run(t, l, func(co *loop.Coro) error {
			return Connect(co, open(t, unix.AF_INET6, unix.SOCK_STREAM), addr)
		})
	})
}

func TestConnectToAUnixSocketWithAFullBacklogIsEAGAIN(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		ln := open(t, unix.AF_UNIX, unix.SOCK_STREAM)
		addr := UnixAddr(t.TempDir() + "/socket")
		if err := ln.Bind(addr); err != nil {
			t.Fatal(err)
		}
		if err := ln.Listen(0); err != nil {
			t.Fatal(err)
		}
		run(t, l, func(co *loop.Coro) error {
			if err := Connect(co, open(t, unix.AF_UNIX, unix.SOCK_STREAM), addr); err != nil {
				return err
			}
			s := open(t, unix.AF_UNIX, unix.SOCK_STREAM)
			if err := Connect(co, s, addr); !errors.Is(err, unix.EAGAIN) {
				t.Errorf("Connect = %v, want EAGAIN", err)
			}
			conn, _, err := Accept(co, ln)
			if err != nil {
				return err
			}
			closeAtEnd(t, conn)
			return Connect(co, s, addr)
		})
	})
}

func TestAcceptSaysThatTheSocketIsNotListening(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		connected, _ := pair(t, unix.SOCK_STREAM)
		bound := open(t, unix.AF_INET, unix.SOCK_STREAM)
		if err := bound.Bind(HostAddr("127.0.0.1", 0)); err != nil {
			t.Fatal(err)
		}
		run(t, l, func(co *loop.Coro) error {
			for s, says := range map[*Socket]string{
				connected: "accept on fd ", bound: "accept 127.0.0.1:",
				open(t, unix.AF_UNIX, unix.SOCK_STREAM): "accept on fd ",
			} {
				_, _, err := Accept(co, s)
				if !errors.Is(err, unix.EINVAL) || !strings.HasPrefix(err.Error(), says) ||
					!strings.Contains(err.Error(), "the socket is not listening: ") {
					t.Errorf("Accept: %v, want %q and the reason", err, says)
				}
			}
			return nil
		})
	})
}

func TestAnAcceptOnASocketThatReceivesAheadLeavesItsBytesAlone(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, b := pair(t, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			for _, want := range []string{"first", "second", "third"} {
				if err := SendAll(co, b, []byte(want)); err != nil {
					return err
				}
				if got, err := RecvBorrowed(co, a); string(got) != want || err != nil {
					t.Errorf("RecvBorrowed = %q, %v, want %q", got, err, want)
				}
				if _, _, err := Accept(co, a); !errors.Is(err, unix.EINVAL) {
					t.Errorf("Accept on a connected socket: %v", err)
				}
			}
			return nil
		})
	})
}

func TestAcceptOnAListenerThatWasShutDownFails(t *testing.T) {
	for _, network := range []string{"tcp4", "unix"} {
		t.Run(network, func(t *testing.T) {
			forEachBackend(t, func(t *testing.T, l *loop.Loop) {
				address := "127.0.0.1:0"
				if network == "unix" {
					address = t.TempDir() + "/socket"
				}
				ln, _ := listen(t, network, address)
				run(t, l, func(co *loop.Coro) error {
					accepting := acceptTask(co, ln)
					yield(t, co, 3)
					if err := ln.Shutdown(unix.SHUT_RD); err != nil {
						return err
					}
					why := map[string]string{"tcp4": "the socket is not listening: ", "unix": "the listening socket was shut down: "}[network]
					if _, err := accepting.Await(co); !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), why) {
						t.Errorf("the waiting Accept = %v, want EINVAL because %s", err, why)
					}
					if _, _, err := Accept(co, ln); !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), why) {
						t.Errorf("a later Accept = %v, want EINVAL because %s", err, why)
					}
					return nil
				})
			})
		})
	}
}

func TestDialTriesTheAddressesOfAHostInTurn(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		_, addr := listen(t, "tcp4", "127.0.0.1:0")
		run(t, l, func(co *loop.Coro) error {
			s, err := Dial(co, "tcp", HostAddr("localhost", addr.Port()).String())
			if err != nil {
				return err
			}
			return CloseWait(co, s)
		})
	})
}

func TestNagleIsOffForDialAndForWhatIsAccepted(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		ln, addr := listen(t, "tcp", "127.0.0.1:0")
		run(t, l, func(co *loop.Coro) error {
			client, err := Dial(co, "tcp", addr.String())
			if err != nil {
				return err
			}
			closeAtEnd(t, client)
			conn, _, err := Accept(co, ln)
			if err != nil {
				return err
			}
			closeAtEnd(t, conn)
			for what, s := range map[string]*Socket{"dialled": client, "accepted": conn} {
				if on, err := s.GetOption(unix.IPPROTO_TCP, unix.TCP_NODELAY); on == 0 || err != nil {
					t.Errorf("TCP_NODELAY of the %s socket is %d, %v", what, on, err)
				}
			}
			return nil
		})
	})
}

func TestDialRefusesWhatIsNoAddress(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		run(t, l, func(co *loop.Coro) error {
			if _, err := Dial(co, "ip", "127.0.0.1"); !errors.Is(err, loop.ErrInvalidArgument) || !strings.Contains(err.Error(), `unknown network "ip"`) || !strings.Contains(err.Error(), "127.0.0.1") {
				t.Errorf("Dial of an unknown network = %v", err)
			}
			if _, err := Dial(co, "tcp", "127.0.0.1"); err == nil || !strings.Contains(err.Error(), "missing port") {
				t.Errorf("Dial without a port = %v", err)
			}
			if _, err := Dial(co, "tcp4", "[::1]:80"); err == nil || !strings.Contains(err.Error(), "[::1]:80") {
				t.Errorf("Dial of the wrong family = %v", err)
			}
			if _, err := Dial(co, "unix", t.TempDir()+"/none"); !errors.Is(err, unix.ENOENT) || !strings.Contains(err.Error(), "/none") {
				t.Errorf("Dial of a path that does not exist = %v", err)
			}
			return nil
		})
	})
}

// A cancelled Connect that has ended is no reason to refuse another address.
func TestConnectToAnotherAddressAfterACancelledOneHasEnded(t *testing.T) {
	for network, typ := range map[string]int{"udp": unix.SOCK_DGRAM, "tcp": unix.SOCK_STREAM} {
		forEachBackend(t, func(t *testing.T, l *loop.Loop) {
			var first, second Addr
			if typ == unix.SOCK_STREAM {
				refusing, err := Listen(network, "127.0.0.1:0", nil)
				if err != nil {
					t.Fatal(err)
				}
				first, _ = refusing.LocalAddr()
				if err := refusing.Close(); err != nil {
					t.Fatal(err)
				}
				_, second = listen(t, network, "127.0.0.1:0")
			} else {
				for _, a := range []*Addr{&first, &second} {
					s, err := ListenPacket(network, "127.0.0.1:0", nil)
					if err != nil {
						t.Fatal(err)
					}
					closeAtEnd(t, s)
					*a, _ = s.LocalAddr()
				}
			}
			run(t, l, func(co *loop.Coro) error {
				s := open(t, unix.AF_INET, typ)
				task := spawn(co, func(co *loop.Coro) (struct{}, error) { return struct{}{}, Connect(co, s, first) })
				yield(t, co, 1)
				task.Cancel("")
				_, _ = task.Await(co)
				if err := Connect(co, s, second); err != nil {
					t.Errorf("%s: %v", network, err)
				}
				if peer, err := s.PeerAddr(); peer != second {
					t.Errorf("%s: connected to %v, %v, want %v", network, peer, err, second)
				}
				return nil
			})
		})
	}
}
