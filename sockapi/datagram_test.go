package sockapi

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/loop"
)

// packet returns a bound datagram socket and its address.
func packet(t testing.TB, network, address string) (*Socket, Addr) {
	t.Helper()
	s, err := ListenPacket(network, address, nil)
	if err != nil {
		t.Fatal(err)
	}
	closeAtEnd(t, s)
	addr, err := s.LocalAddr()
	if err != nil {
		t.Fatal(err)
	}
	return s, addr
}

func TestDatagramsArriveWithTheirSender(t *testing.T) {
	for _, network := range []string{"udp", "udp4", "udp6", "unixgram"} {
		t.Run(network, func(t *testing.T) {
			forEachBackend(t, func(t *testing.T, l *loop.Loop) {
				address := map[string]string{"udp": "127.0.0.1:0", "udp4": "127.0.0.1:0", "udp6": "[::1]:0"}[network]
				addressOf := func(name string) string {
					if address == "" {
						return t.TempDir() + "/" + name
					}
					return address
				}
				a, addrA := packet(t, network, addressOf("a"))
				b, addrB := packet(t, network, addressOf("b"))
				run(t, l, func(co *loop.Coro) error {
					for _, size := range []int{4, 0, 1000} {
						if n, err := SendTo(co, a, make([]byte, size), addrB); n != size || err != nil {
							t.Errorf("SendTo = %d, %v", n, err)
						}
						p, from, err := RecvFrom(co, b, 2000)
						if len(p) != size || from != addrA || err != nil {
							t.Errorf("RecvFrom = %d bytes, %v, %v; want %d bytes from %v", len(p), from, err, size, addrA)
						}
					}
					return nil
				})
			})
		})
	}
}

func TestTheExcessOfADatagramIsCutOff(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, addr := packet(t, "udp", "127.0.0.1:0")
		run(t, l, func(co *loop.Coro) error {
			for range 4 {
				if _, err := SendTo(co, a, []byte("0123456789"), addr); err != nil {
					return err
				}
			}
			p := make([]byte, 4)
			if n, err := RecvInto(co, a, p); string(p[:n]) != "0123" || err != nil {
				t.Errorf("RecvInto = %q, %v", p[:n], err)
			}
			if p, err := Recv(co, a, 5); string(p) != "01234" || err != nil {
				t.Errorf("Recv = %q, %v", p, err)
			}
			if p, _, err := RecvFrom(co, a, 6); string(p) != "012345" || err != nil {
				t.Errorf("RecvFrom = %q, %v", p, err)
			}
			if n, _, err := RecvFromInto(co, a, p); string(p[:n]) != "0123" || err != nil {
				t.Errorf("RecvFromInto = %q, %v", p[:n], err)
			}
			return nil
		})
	})
}

func TestAConnectedDatagramSocketLearnsThatNobodyListens(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		gone, addr := packet(t, "udp", "127.0.0.1:0")
		if err := gone.Close(); err != nil {
			t.Fatal(err)
		}
		run(t, l, func(co *loop.Coro) error {
			s, err := Dial(co, "udp", addr.String())
			if err != nil {
				return err
			}
			defer s.Close()
			if err := SendAll(co, s, []byte("anybody?")); err != nil {
				return err
			}
			_, _, err = RecvFrom(co, s, 10)
			if !errors.Is(err, unix.ECONNREFUSED) {
				t.Errorf("RecvFrom = %v, want ECONNREFUSED", err)
			}
			return nil
		})
	})
}

func TestSendToWithoutAnAddressNeedsAPeer(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, addr := packet(t, "udp", "127.0.0.1:0")
		b := open(t, unix.AF_INET, unix.SOCK_DGRAM)
		run(t, l, func(co *loop.Coro) error {
			if _, err := SendTo(co, b, []byte("x"), Addr{}); !errors.Is(err, unix.EDESTADDRREQ) {
				t.Errorf("SendTo nobody = %v", err)
			}
			if err := Connect(co, b, addr); err != nil {
				return err
			}
			if n, err := SendTo(co, b, []byte("x"), Addr{}); n != 1 || err != nil {
				t.Errorf("SendTo the peer = %d, %v", n, err)
			}
			p, err := Recv(co, a, 10)
			if string(p) != "x" {
				t.Errorf("Recv = %q", p)
			}
			return err
		})
	})
}

func TestSendToRefusesWhatIsNoIPAddress(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, _ := packet(t, "udp", "127.0.0.1:0")
		run(t, l, func(co *loop.Coro) error {
			for _, to := range []Addr{HostAddr("localhost", 9), IPAddr(netip.AddrPort{})} {
				_, err := SendTo(co, a, []byte("x"), to)
				if !errors.Is(err, loop.ErrInvalidArgument) || !strings.Contains(err.Error(), to.String()) {
					t.Errorf("SendTo %v: %v", to, err)
				}
			}
			return nil
		})
	})
}

func TestADatagramTooLargeIsAnErrorThatNamesTheAddress(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, addr := packet(t, "udp", "127.0.0.1:0")
		run(t, l, func(co *loop.Coro) error {
			_, err := SendTo(co, a, make([]byte, 1<<17), addr)
			var oe *OpError
			if !errors.Is(err, unix.EMSGSIZE) || !errors.As(err, &oe) || oe.Addr != addr {
				t.Errorf("SendTo = %v", err)
			}
			return nil
		})
	})
}
