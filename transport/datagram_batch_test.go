package transport

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/internal/forbid"
	"github.com/seed-80cfe818/ringloop/internal/nowait"
	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
)

// many is more packets than a system call receives or sends, in three of them.
const many = 2*nowait.BatchSize + 5

func numbered(n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprintf("packet %d", i))
	}
	return all
}

// burst sends packets that all are there when an endpoint looks, and returns the
// sender of each, one of two in turn.
func burst(t *testing.T, to Addr, packets ...string) (from []Addr) {
	t.Helper()
	var senders [2]*sockapi.Socket
	for i := range senders {
		senders[i] = ok[*sockapi.Socket](t)(sockapi.New(unix.AF_INET, unix.SOCK_DGRAM, 0))
		check(t, senders[i].Bind(anyPort))
	}
	dest := &unix.SockaddrInet4{Port: int(to.Port()), Addr: [4]byte{127, 0, 0, 1}}
	for i, p := range packets {
		s := senders[i%len(senders)]
		check(t, unix.Sendto(s.Fd(), []byte(p), 0, dest))
		from = append(from, ok[Addr](t)(s.LocalAddr()))
	}
	for _, s := range senders {
		check(t, s.Close())
	}
	return from
}

func TestPacketsThatAreThereAtOnceArriveInOrderWithTheirSenders(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := endpoint(t, co, DatagramOptions{LocalAddr: anyPort})
		want := append(numbered(many), "", "x", "")
		from := burst(t, p.addr(t), want...)
		p.untilGot(t, co, want...)
		if !slices.Equal(p.from, from) {
			t.Errorf("the senders are %v, want %v", p.from, from)
		}
		finish(t, co, p)
	})
}

func TestPacketsThatAreThereAtOnceArriveAfterOthersThatCameOneByOne(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := endpoint(t, co, DatagramOptions{LocalAddr: anyPort})
		want := numbered(2*maxSkips + many)
		for n := range 2 * maxSkips {
			burst(t, p.addr(t), want[n])
			p.untilGot(t, co, want[:n+1]...)
		}
		if got := p.t.(*datagram).patience; got != maxSkips {
			t.Errorf("%d looks are left out after packets that came one by one, want %d", got, maxSkips)
		}
		burst(t, p.addr(t), want[2*maxSkips:]...)
		p.untilGot(t, co, want...)
		finish(t, co, p)
	})
}

func TestAPauseAmongPacketsThatAreThereAtOnceHoldsTheRest(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := endpoint(t, co, DatagramOptions{LocalAddr: anyPort})
		want := numbered(many)
		p.onDatagram = func(data []byte, from Addr) {
			p.got, p.from = append(p.got, string(data)), append(p.from, from)
			if len(p.got)%3 == 2 {
				check(t, p.t.PauseReading())
			}
		}
		from := burst(t, p.addr(t), want...)
		for n := 2; n < many; n += 3 {
			p.untilGot(t, co, want[:n]...)
			turns(t, co)
			if len(p.got) != n {
				t.Fatalf("%d packets while reading is paused, want %d", len(p.got), n)
			}
			check(t, p.t.ResumeReading())
		}
		p.untilGot(t, co, want...)
		if !slices.Equal(p.from, from) {
			t.Errorf("the senders are %v, want %v", p.from, from)
		}
		finish(t, co, p)
	})
}

func TestAnEndpointThatEndsAmongPacketsThatAreThereAtOnceDeliversNoMore(t *testing.T) {
	for name, end := range map[string]func(tr DatagramTransport){
		"Close": DatagramTransport.Close,
		"Abort": DatagramTransport.Abort,
		"PauseReading and Close": func(tr DatagramTransport) {
			_ = tr.PauseReading()
			tr.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			inTask(t, func(t *testing.T, co *loop.Coro) {
				p := endpoint(t, co, DatagramOptions{LocalAddr: anyPort})
				n := 0
				p.onDatagram = func([]byte, Addr) {
					if n++; n == 3 {
						end(p.t)
					}
				}
				burst(t, p.addr(t), numbered(many)...)
				check(t, p.untilLost(t, co))
				if n != 3 {
					t.Errorf("%d packets were delivered, want 3", n)
				}
			})
		})
	}
}

func TestACallbackThatEndsItsGoroutineAmongPacketsThatAreThereAtOnceLosesNone(t *testing.T) {
	inTaskWithExits(t, func(t *testing.T, co *loop.Coro) {
		p := endpoint(t, co, DatagramOptions{LocalAddr: anyPort})
		want := numbered(many)
		p.onDatagram = func(data []byte, _ Addr) {
			if p.got = append(p.got, string(data)); len(p.got)%4 == 2 {
				runtime.Goexit()
			}
		}
		burst(t, p.addr(t), want...)
		p.untilGot(t, co, want...)
		finish(t, co, p)
	})
}

// Somebody else's packets come first while those of an endpoint are delivered.
func TestArrivalsThatAreLentAreNotUsedByAnother(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		sh := sharedOf(co.Loop())
		first := sh.borrowArrivals()
		second := sh.borrowArrivals()
		if first == second {
			t.Fatal("they were lent twice")
		}
		sh.returnArrivals(first)
		sh.returnArrivals(second)
		if again := sh.borrowArrivals(); again != first {
			t.Error("those that came back are not used again")
		}
		sh.returnArrivals(first)
	})
}

func TestAPacketThatCannotBeSentAmongOthersIsToldOfAndTheOthersArrive(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		a, b := endpoint(t, co, DatagramOptions{LocalAddr: anyPort}), endpoint(t, co, DatagramOptions{LocalAddr: anyPort})
		want := numbered(many)
		bad := map[int]bool{0: true, 1: true, 7: true, nowait.BatchSize: true, many - 1: true}
		for i, data := range want {
			if bad[i] {
				a.send(t, string(make([]byte, 65508)), b.addr(t)) // one byte more than UDP can carry
			}
			a.send(t, data, b.addr(t))
		}
		b.untilGot(t, co, want...)
		until(t, co, "the errors are told", func() bool { return len(a.errs) >= len(bad) })
		for _, err := range a.errs {
			var oe *sockapi.OpError
			if !errors.As(err, &oe) || oe.Err != syscall.EMSGSIZE || oe.Addr != b.addr(t) {
				t.Errorf("the error is %v", err)
			}
		}
		if len(a.errs) != len(bad) {
			t.Errorf("%d errors, want %d", len(a.errs), len(bad))
		}
		finish(t, co, a, b)
	})
}

// A socket with IP_RECVERR is told also without a peer that nobody was there: once, by
// the next call, which may be one for several packets.
func TestAnErrorThatIsToldOnceIsToldOfPacketsOfOneTurn(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		dead := deadPort(t, co)
		b := endpoint(t, co, DatagramOptions{LocalAddr: anyPort})
		s := ok[*sockapi.Socket](t)(sockapi.New(unix.AF_INET, unix.SOCK_DGRAM, 0))
		check(t, s.Bind(anyPort))
		check(t, unix.SetsockoptInt(s.Fd(), unix.SOL_IP, unix.IP_RECVERR, 1))
		a := endpoint(t, co, DatagramOptions{Sock: s})
		refused := func(n int) {
			t.Helper()
			until(t, co, "the error is told", func() bool { return len(a.errs) >= n })
			if err := a.errs[n-1]; len(a.errs) != n || !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("the errors are %v, want %d", a.errs, n)
			}
		}
		a.send(t, "x", dead)
		for _, data := range numbered(5) {
			a.send(t, data, b.addr(t))
		}
		turns(t, co)
		refused(1)
		check(t, a.t.PauseReading())
		for range 2 { // the receive in flight gets the first error, the second stays in the socket
			a.send(t, "x", dead)
			turns(t, co)
		}
		for _, data := range numbered(3) {
			a.send(t, data, b.addr(t))
		}
		turns(t, co)
		check(t, a.t.ResumeReading())
		turns(t, co)
		refused(3)
		finish(t, co, a, b)
	})
}

func TestPacketsOfOneTurnGoToSeveralPeers(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		a := endpoint(t, co, DatagramOptions{LocalAddr: anyPort})
		peers := []*datagramDiary{endpoint(t, co, DatagramOptions{LocalAddr: anyPort}), endpoint(t, co, DatagramOptions{LocalAddr: anyPort})}
		want := make([][]string, len(peers))
		for i, data := range numbered(many) {
			a.send(t, data, peers[i%2].addr(t))
			want[i%2] = append(want[i%2], data)
		}
		for i, p := range peers {
			p.untilGot(t, co, want[i]...)
		}
		finish(t, co, append(peers, a)...)
	})
}

// A filter of system calls may know nothing of those for several packets.
func TestPacketsAreSentAndReceivedWhereOnlySingleOnesMayBe(t *testing.T) {
	for _, errno := range []syscall.Errno{unix.ENOSYS, unix.EPERM} {
		t.Run(errno.Error(), func(t *testing.T) {
			forbid.Alone(t, func(t *testing.T) {
				forbid.Calls(t, errno, unix.SYS_SENDMMSG, unix.SYS_RECVMMSG)
				inTask(t, func(t *testing.T, co *loop.Coro) {
					a, b := endpoint(t, co, DatagramOptions{LocalAddr: anyPort}), endpoint(t, co, DatagramOptions{LocalAddr: anyPort})
					for _, data := range numbered(many) {
						a.send(t, data, b.addr(t))
					}
					b.untilGot(t, co, numbered(many)...)
					if len(a.errs)+len(b.errs) > 0 {
						t.Errorf("errors: %v, %v", a.errs, b.errs)
					}
					finish(t, co, a, b)
				})
			})
		})
	}
}
