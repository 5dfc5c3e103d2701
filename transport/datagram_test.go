package transport

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/internal/forbid"
	"github.com/seed-80cfe818/ringloop/internal/leaktest"
	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
)

// datagramDiary is the protocol of an endpoint.
type datagramDiary struct {
	diary
	t          DatagramTransport
	got        []string
	from       []Addr
	errs       []error
	onMade     func()
	onDatagram func(data []byte, from Addr)
	onError    func()
}

func (p *datagramDiary) ConnectionMade(t DatagramTransport) {
	p.t = t
	p.note("made")
	if p.onMade != nil {
		p.onMade()
	}
}

func (p *datagramDiary) DatagramReceived(data []byte, from Addr) {
	if p.onDatagram != nil {
		p.onDatagram(data, from)
		return
	}
	p.got = append(p.got, string(data))
	p.from = append(p.from, from)
}

func (p *datagramDiary) ErrorReceived(err error) {
	p.errs = append(p.errs, err)
	if p.onError != nil {
		p.onError()
	}
}

func (p *datagramDiary) PauseWriting()  { p.note("pause") }
func (p *datagramDiary) ResumeWriting() { p.note("resume") }

// untilGot waits until exactly these packets have arrived.
func (p *datagramDiary) untilGot(t *testing.T, co *loop.Coro, want ...string) {
	t.Helper()
	until(t, co, fmt.Sprintf("%d packets arrive", len(want)), func() bool { return len(p.got) >= len(want) })
	if !slices.Equal(p.got, want) {
		t.Errorf("got %q, want %q", p.got, want)
	}
}

// untilSent waits until no packet is queued: one may arrive before its sender is
// told that it was sent.
func (p *datagramDiary) untilSent(t *testing.T, co *loop.Coro) {
	t.Helper()
	until(t, co, "every packet is sent", func() bool { return p.t.WriteBufferSize() == 0 })
}

// anyPort is an address of the loopback interface with a port that the kernel
// chooses.
var anyPort = sockapi.IPAddr(netip.MustParseAddrPort("127.0.0.1:0"))

// endpoint makes an endpoint that is closed when the test ends.
func endpoint(t *testing.T, co *loop.Coro, o DatagramOptions) *datagramDiary {
	t.Helper()
	p := &datagramDiary{}
	tr, got, err := CreateDatagramEndpoint(co, func() DatagramProtocol { return p }, &o)
	if err != nil {
		t.Fatal(err)
	}
	if tr != p.t || got != DatagramProtocol(p) {
		t.Error("the transport or the protocol is not that of ConnectionMade")
	}
	return p
}

// finish aborts endpoints and waits for their end.
func finish(t *testing.T, co *loop.Coro, ps ...*datagramDiary) {
	t.Helper()
	for _, p := range ps {
		p.t.Abort()
	}
	for _, p := range ps {
		if err := p.untilLost(t, co); err != nil {
			t.Errorf("lost with %v", err)
		}
	}
}

func (p *datagramDiary) addr(t *testing.T) Addr {
	t.Helper()
	v, ok := p.t.ExtraInfo(ExtraSockName)
	if !ok {
		t.Fatal("no sockname")
	}
	return v.(Addr)
}

// send sends a packet, which must not fail.
func (p *datagramDiary) send(t *testing.T, data string, to Addr) {
	t.Helper()
	if err := p.t.SendTo([]byte(data), to); err != nil {
		t.Fatal(err)
	}
}

func TestPacketsArriveWithTheirSenderAndTheirBoundaries(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		for _, family := range []string{"127.0.0.1:0", "[::1]:0"} {
			o := DatagramOptions{LocalAddr: sockapi.IPAddr(netip.MustParseAddrPort(family))}
			a, b := endpoint(t, co, o), endpoint(t, co, o)
			for _, s := range []string{"first", "", "third packet", ""} {
				a.send(t, s, b.addr(t))
			}
			b.untilGot(t, co, "first", "", "third packet", "")
			for _, from := range b.from {
				if from != a.addr(t) {
					t.Errorf("the sender is %v, want %v", from, a.addr(t))
				}
			}
			b.send(t, "answer", b.from[0])
			a.untilGot(t, co, "answer")
			finish(t, co, a, b)
			a.want(t, "made", "lost")
		}
	})
}

func TestAConnectedEndpointSendsToItsPeerOnly(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		server := endpoint(t, co, DatagramOptions{LocalAddr: anyPort})
		other := endpoint(t, co, DatagramOptions{LocalAddr: anyPort})
		client := endpoint(t, co, DatagramOptions{RemoteAddr: server.addr(t)})
		if peer, ok := client.t.ExtraInfo(ExtraPeerName); !ok || peer != any(server.addr(t)) {
			t.Errorf("peername %v, %v", peer, ok)
		}
		if peer, ok := server.t.ExtraInfo(ExtraPeerName); !ok || peer != nil {
			t.Errorf("peername of an endpoint that is not connected: %v, %v", peer, ok)
		}
		client.send(t, "no address", Addr{})
		client.send(t, "its address", server.addr(t))
		for _, wrong := range []Addr{other.addr(t), sockapi.HostAddr("localhost", server.addr(t).Port()), sockapi.UnixAddr("/x")} {
			if err := client.t.SendTo([]byte("x"), wrong); !errors.Is(err, loop.ErrInvalidArgument) || !strings.Contains(err.Error(), server.addr(t).String()) {
				t.Errorf("to %v: %v", wrong, err)
			}
		}
		server.untilGot(t, co, "no address", "its address")
		other.send(t, "from a stranger", client.addr(t))
		server.send(t, "from the peer", client.addr(t))
		client.untilGot(t, co, "from the peer")
		finish(t, co, client, server, other)
	})
}

// The kernel connects to this machine if the address is unspecified, and needs no scope
// for an address that is not a link's.
func TestAnEndpointKnowsThePeerThatTheKernelHasChosen(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		for local, asked := range map[string]string{"127.0.0.1": "0.0.0.0", "::1": "::", "::1%1": "::1%1"} {
			server := endpoint(t, co, DatagramOptions{LocalAddr: sockapi.IPAddr(netip.AddrPortFrom(netip.MustParseAddr(local), 0))})
			remote := sockapi.IPAddr(netip.AddrPortFrom(netip.MustParseAddr(asked), server.addr(t).Port()))
			client := endpoint(t, co, DatagramOptions{RemoteAddr: remote})
			if peer, _ := client.t.ExtraInfo(ExtraPeerName); peer != any(server.addr(t)) {
				t.Errorf("%s: peername %v, want %v", asked, peer, server.addr(t))
			}
			client.send(t, "as it was asked for", remote)
			server.untilGot(t, co, "as it was asked for")
			server.send(t, "answer", server.from[0])
			client.untilGot(t, co, "answer")
			client.send(t, "to the sender", client.from[0])
			server.untilGot(t, co, "as it was asked for", "to the sender")
			finish(t, co, client, server)
		}
	})
}

func TestSendingWithoutAnAddressOnAnUnconnectedEndpointIsAnErrorAndItLivesOn(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		a, b := endpoint(t, co, DatagramOptions{LocalAddr: anyPort}), endpoint(t, co, DatagramOptions{LocalAddr: anyPort})
		if err := a.t.SendTo([]byte("x"), Addr{}); !errors.Is(err, loop.ErrInvalidArgument) {
			t.Errorf("without an address: %v", err)
		}
		a.send(t, "still alive", b.addr(t))
		b.untilGot(t, co, "still alive")
		a.untilSent(t, co)
		if a.t.IsClosing() {
			t.Error("it is closing")
		}
		finish(t, co, a, b)
	})
}

func TestSendingToANameOrAnotherFamilyIsAnInvalidArgument(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		a := endpoint(t, co, DatagramOptions{LocalAddr: anyPort})
		for _, to := range []Addr{
			sockapi.HostAddr("localhost", 53), sockapi.IPAddr(netip.MustParseAddrPort("[::1]:53")), sockapi.UnixAddr("/tmp/x"),
		} {
			if err := a.t.SendTo(nil, to); !errors.Is(err, loop.ErrInvalidArgument) || !strings.Contains(err.Error(), to.String()) {
				t.Errorf("to %v: %v", to, err)
			}
		}
		finish(t, co, a)
	})
}

// deadPort returns an address to which nobody listens.
func deadPort(t *testing.T, co *loop.Coro) Addr {
	t.Helper()
	p := endpoint(t, co, DatagramOptions{LocalAddr: anyPort})
	addr := p.addr(t)
	finish(t, co, p)
	// ConnectionLost comes before the descriptor is closed.
	until(t, co, "the port is free", func() bool {
		c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr.AddrPort()))
		if err == nil {
			err = c.Close()
		}
		return err == nil
	})
	return addr
}

func TestARefusedPacketIsReportedToErrorReceivedAndTheEndpointLivesOn(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		dead := deadPort(t, co)
		p := endpoint(t, co, DatagramOptions{RemoteAddr: dead})
		p.send(t, "anybody there?", Addr{})
		until(t, co, "an error is received", func() bool { return len(p.errs) > 0 })
		if err := p.errs[0]; !errors.Is(err, syscall.ECONNREFUSED) || !strings.Contains(err.Error(), dead.String()) {
			t.Errorf("error %v", err)
		}
		revived := endpoint(t, co, DatagramOptions{LocalAddr: dead})
		p.send(t, "now?", Addr{})
		revived.untilGot(t, co, "now?")
		revived.send(t, "yes", revived.from[0])
		p.untilGot(t, co, "yes")
		finish(t, co, p, revived)
		p.want(t, "made", "lost")
	})
}

// epoll(7) limits how many descriptors a user may have watched.
func TestAnEndpointThatCannotBeWatchedIsLost(t *testing.T) {
	forbid.Alone(t, func(t *testing.T) {
		runTask(t, ipcLoop(t, loop.WithBackend("epoll")), func(co *loop.Coro) error {
			forbid.Calls(t, unix.ENOSPC, unix.SYS_EPOLL_CTL)
			p := endpoint(t, co, DatagramOptions{LocalAddr: anyPort})
			p.onError = p.t.Abort // it would be called for ever
			if err := p.untilLost(t, co); !errors.Is(err, syscall.ENOSPC) {
				t.Errorf("lost with %v, %d errors before", err, len(p.errs))
			}
			return nil
		})
	})
}

func TestSendingToADeadPortDoesNotBreakReceiving(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		dead := deadPort(t, co)
		a, b := endpoint(t, co, DatagramOptions{LocalAddr: anyPort}), endpoint(t, co, DatagramOptions{LocalAddr: anyPort})
		a.send(t, "into the void", dead)
		b.send(t, "hello", a.addr(t))
		a.untilGot(t, co, "hello")
		finish(t, co, a, b)
	})
}

func TestAPacketThatIsTooLongIsReportedToErrorReceived(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		a, b := endpoint(t, co, DatagramOptions{LocalAddr: anyPort}), endpoint(t, co, DatagramOptions{LocalAddr: anyPort})
		a.send(t, strings.Repeat("x", 100_000), b.addr(t))
		if len(a.errs) != 0 {
			t.Error("ErrorReceived was called from inside SendTo")
		}
		a.send(t, "short", b.addr(t))
		until(t, co, "an error is received", func() bool { return len(a.errs) > 0 })
		if !errors.Is(a.errs[0], syscall.EMSGSIZE) || !strings.Contains(a.errs[0].Error(), b.addr(t).String()) {
			t.Errorf("error %v", a.errs[0])
		}
		b.untilGot(t, co, "short")
		finish(t, co, a, b)
	})
}

func TestTheLargestPacketArrivesWhole(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		a, b := endpoint(t, co, DatagramOptions{LocalAddr: anyPort}), endpoint(t, co, DatagramOptions{LocalAddr: anyPort})
		largest := strings.Repeat("0123456", 65507/7)
		a.send(t, largest, b.addr(t))
		b.untilGot(t, co, largest)
		finish(t, co, a, b)
	})
}

// stuffed returns a Unix endpoint whose peer does not read, with a full send
// buffer and with as many queued packets as given. The packets are numbered
// from 0; sent is how many there are.
func stuffed(t *testing.T, co *loop.Coro, queued int, pad string) (a, b *datagramDiary, sent int) {
	t.Helper()
	sa, sb, err := sockapi.Pair(unix.SOCK_DGRAM)
	if err != nil {
		t.Fatal(err)
	}
	b = &datagramDiary{}
	b.onMade = func() { _ = b.t.PauseReading() }
	if _, _, err := CreateDatagramEndpoint(co, func() DatagramProtocol { return b }, &DatagramOptions{Sock: sb}); err != nil {
		t.Fatal(err)
	}
	a = endpoint(t, co, DatagramOptions{Sock: sa})
	if err := a.t.SetWriteBufferLimits(1<<30, 0); err != nil {
		t.Fatal(err)
	}
	// First the kernel's queue, in as many turns as that takes.
	buf := make([]byte, 0, 1024)
	for idle := 0; idle < 20; idle++ {
		for a.t.WriteBufferSize() == 0 {
			buf = append(append(buf[:0], fmt.Sprintf("%d ", sent)...), pad...)
			a.send(t, string(buf), Addr{})
			sent++
			idle = 0
		}
		if err := loop.Sleep(co, 0); err != nil {
			t.Fatal(err)
		}
	}
	for n := 1; n < queued; n++ {
		buf = append(append(buf[:0], fmt.Sprintf("%d ", sent)...), pad...)
		if err := a.t.SendTo(buf, Addr{}); err != nil {
			t.Fatal(err)
		}
		clear(buf) // it is the caller's again
		sent++
	}
	return a, b, sent
}

// resumeAndCount lets b read and checks that it gets the packets from 0 to
// n-1, in order.
func resumeAndCount(t *testing.T, co *loop.Coro, b *datagramDiary, n int, pad string) {
	t.Helper()
	if err := b.t.ResumeReading(); err != nil {
		t.Fatal(err)
	}
	until(t, co, fmt.Sprintf("%d packets arrive", n), func() bool { return len(b.got) >= n })
	for i, got := range b.got {
		if want := fmt.Sprintf("%d %s", i, pad); got != want {
			t.Fatalf("packet %d is %q", i, got)
		}
	}
}

func TestQueuedPacketsAreCopiesAndKeepTheirOrder(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		a, b, sent := stuffed(t, co, 50, "pad")
		if b.t.IsReading() || len(b.got) != 0 {
			t.Error("reading while paused")
		}
		resumeAndCount(t, co, b, sent, "pad")
		a.untilSent(t, co)
		finish(t, co, a, b)
	})
}

func TestEveryQueuedPacketCountsItsBytesAndEightMore(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		a, b, sent := stuffed(t, co, 1, "")
		first := a.t.WriteBufferSize()
		if want := len(fmt.Sprintf("%d ", sent-1)) + 8; first != want {
			t.Errorf("one queued packet counts %d, want %d", first, want)
		}
		a.send(t, "", Addr{})
		a.send(t, "12345", Addr{})
		if n := a.t.WriteBufferSize() - first; n != 8+13 {
			t.Errorf("two more count %d, want 21", n)
		}
		if err := b.t.ResumeReading(); err != nil {
			t.Fatal(err)
		}
		until(t, co, "everything arrives", func() bool { return len(b.got) == sent+2 })
		a.untilSent(t, co) // every byte that was charged is credited
		if got := b.got[sent:]; !slices.Equal(got, []string{"", "12345"}) {
			t.Errorf("the last packets are %q", got)
		}
		finish(t, co, a, b)
	})
}

func TestTheProtocolIsPausedAboveTheHighWaterMarkAndResumedAtTheLow(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		a, b, _ := stuffed(t, co, 1, "")
		size := a.t.WriteBufferSize()
		if err := a.t.SetWriteBufferLimits(size+8, 0); err != nil {
			t.Fatal(err)
		}
		a.send(t, "", Addr{})
		a.want(t, "made")
		a.send(t, "", Addr{})
		a.want(t, "made", "pause")
		if low, high := a.t.WriteBufferLimits(); low != 0 || high != size+8 {
			t.Errorf("limits %d, %d", low, high)
		}
		if err := b.t.ResumeReading(); err != nil {
			t.Fatal(err)
		}
		until(t, co, "the protocol is resumed", func() bool { return len(a.events) == 3 })
		a.want(t, "made", "pause", "resume")
		if err := a.t.SetWriteBufferLimits(1, 2); !errors.Is(err, loop.ErrInvalidArgument) {
			t.Errorf("low above high: %v", err)
		}
		finish(t, co, a, b)
	})
}

func TestTheProtocolIsPausedOnlyForWhatTheKernelDoesNotTake(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		a, b := endpoint(t, co, DatagramOptions{LocalAddr: anyPort}), endpoint(t, co, DatagramOptions{LocalAddr: anyPort})
		var want []string
		send := func(s string) {
			want = append(want, s)
			a.send(t, s, b.addr(t))
		}
		send("before")
		check(t, a.t.SetWriteBufferLimits(0, 0))
		for i := range 10 {
			send(strconv.Itoa(i))
		}
		if n := a.t.WriteBufferSize(); n != 0 {
			t.Errorf("%d bytes are queued", n)
		}
		b.untilGot(t, co, want...)

		check(t, a.t.SetWriteBufferLimits(-1, -1))
		full := endpoint(t, co, DatagramOptions{LocalAddr: anyPort}) // the kernel drops what it has no room for
		check(t, full.t.PauseReading())
		for range 1000 {
			a.send(t, strings.Repeat("x", 100), full.addr(t))
		}
		a.untilSent(t, co)
		a.want(t, "made")
		finish(t, co, a, b, full)
	})
}

// Each attempt makes the pause before the next one longer; a packet that is only
// queued does not.
func TestPacketsThatQueueUpForANamedPeerDoNotMakeItsPausesLonger(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		dir := t.TempDir()
		b := endpoint(t, co, DatagramOptions{LocalAddr: sockapi.UnixAddr(filepath.Join(dir, "b"))})
		check(t, b.t.PauseReading())
		a := endpoint(t, co, DatagramOptions{LocalAddr: sockapi.UnixAddr(filepath.Join(dir, "a"))})
		for range 1000 {
			a.send(t, "x", b.addr(t))
			if a.t.WriteBufferSize() > 0 {
				break
			}
		}
		named := a.t.(*datagram).named
		pause := named.pause
		for range 10 {
			a.send(t, "x", b.addr(t))
		}
		check(t, a.t.SetWriteBufferLimits(0, 0))
		if !named.waiting || named.pause != pause {
			t.Errorf("waiting: %v, the next pause is %v, was %v", named.waiting, named.pause, pause)
		}
		finish(t, co, a, b)
	})
}

func TestSeveralPacketsOfATurnGoOutInItsEndInOrder(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		a, b := endpoint(t, co, DatagramOptions{LocalAddr: anyPort}), endpoint(t, co, DatagramOptions{LocalAddr: anyPort})
		var want []string
		for i := range 20 {
			want = append(want, strconv.Itoa(i))
			a.send(t, want[i], b.addr(t))
		}
		a.t.Close()
		a.untilLost(t, co)
		b.untilGot(t, co, want...)
		finish(t, co, b)
	})
}

func TestCloseSendsWhatIsQueuedAndAbortDropsIt(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		a, b, sent := stuffed(t, co, 20, "pad")
		a.t.Close()
		a.t.Close()
		if !a.t.IsClosing() || a.t.IsReading() || a.lost {
			t.Error("not closing, or lost with packets in the queue")
		}
		a.send(t, "too late", Addr{})
		resumeAndCount(t, co, b, sent, "pad")
		a.untilLost(t, co)
		a.want(t, "made", "lost")
		finish(t, co, b)

		a, b, sent = stuffed(t, co, 20, "pad")
		a.t.Close()
		a.t.Abort()
		if n := a.t.WriteBufferSize(); n != 0 {
			t.Errorf("%d bytes are queued after Abort", n)
		}
		if a.lost {
			t.Error("ConnectionLost was called from inside Abort")
		}
		if err := loop.Sleep(co, 0); err != nil {
			t.Fatal(err)
		}
		if !a.lost {
			t.Error("not lost on the next turn")
		}
		a.want(t, "made", "lost")
		if len(b.got) >= sent {
			t.Error("the aborted packets have arrived")
		}
		finish(t, co, b)
	})
}

func TestSendingAfterCloseIsDroppedAndWarnedAboutFromTheFifthTime(t *testing.T) {
	inLoggedTask(t, func(t *testing.T, co *loop.Coro, log *logBuffer) {
		a, b := endpoint(t, co, DatagramOptions{LocalAddr: anyPort}), endpoint(t, co, DatagramOptions{LocalAddr: anyPort})
		to := b.addr(t)
		a.t.Close()
		for n := 1; n <= 6; n++ {
			a.send(t, "late", to)
			if want := max(0, n-4); log.count("dropping") != want {
				t.Errorf("%d warnings after %d packets, want %d", log.count("dropping"), n, want)
			}
			if n == 3 {
				a.untilLost(t, co)
				if a.t.Protocol() != nil || a.t.WriteBufferSize() != 0 || a.t.IsReading() {
					t.Error("the closed transport has something left")
				}
			}
		}
		a.send(t, "", Addr{})
		if err := errors.Join(a.t.PauseReading(), a.t.ResumeReading(), a.t.SetWriteBufferLimits(1, 1)); err != nil {
			t.Error(err)
		}
		a.t.Close()
		a.t.Abort()
		if v, ok := a.t.ExtraInfo(ExtraSockName); !ok || v == nil {
			t.Error("the address is forgotten")
		}
		if v, _ := a.t.ExtraInfo(ExtraSocket); v.(*TransportSocket).Fd() != -1 {
			t.Error("the socket of a closed transport has a descriptor")
		}
		finish(t, co, b)
		if len(b.got) != 0 {
			t.Errorf("the peer got %q", b.got)
		}
	})
}

func TestPausedReadingDeliversNothingUntilItIsResumed(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		a, b := endpoint(t, co, DatagramOptions{LocalAddr: anyPort}), endpoint(t, co, DatagramOptions{LocalAddr: anyPort})
		if err := b.t.PauseReading(); err != nil {
			t.Fatal(err)
		}
		a.send(t, "1", b.addr(t))
		a.send(t, "2", b.addr(t))
		// The packets of the loopback interface arrive with the send.
		for a.t.WriteBufferSize() > 0 {
			if err := loop.Sleep(co, 0); err != nil {
				t.Fatal(err)
			}
		}
		for range 5 {
			if err := loop.Sleep(co, 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.t.ResumeReading(); err != nil {
			t.Fatal(err)
		}
		if len(b.got) != 0 {
			t.Errorf("got %q while paused or from inside ResumeReading", b.got)
		}
		b.untilGot(t, co, "1", "2")
		finish(t, co, a, b)
	})
}

// Nobody is to be told of packets without end, nor is the loop to look for some.
func TestAnEndpointWhoseSocketIsShutDownForReadingDeliversNothingAndSends(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		server := endpoint(t, co, DatagramOptions{LocalAddr: anyPort})
		client := endpoint(t, co, DatagramOptions{RemoteAddr: server.addr(t)})
		client.send(t, "first", Addr{})
		server.untilGot(t, co, "first")
		server.send(t, "", client.addr(t))
		client.untilGot(t, co, "")
		d := client.t.(*datagram)
		if err := unix.Shutdown(int(d.fd), unix.SHUT_RD); err != nil {
			t.Fatal(err)
		}
		until(t, co, "nothing is waited for", func() bool { return !d.recv.InFlight() })
		client.send(t, "second", Addr{})
		server.untilGot(t, co, "first", "second")
		client.untilGot(t, co, "")
		finish(t, co, client, server)
	})
}

func TestDatagramArgumentsThatMakeNoSenseAreInvalid(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		stream, err := sockapi.New(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer stream.Close()
		dgram, err := sockapi.New(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer dgram.Close()
		v6 := sockapi.IPAddr(netip.MustParseAddrPort("[::1]:0"))
		unixAddr := sockapi.UnixAddr("/tmp/x")
		for what, o := range map[string]*DatagramOptions{
			"nothing":             nil,
			"two families":        {LocalAddr: anyPort, RemoteAddr: v6},
			"path and IP":         {LocalAddr: anyPort, RemoteAddr: unixAddr},
			"family of address":   {LocalAddr: anyPort, Family: unix.AF_INET6},
			"name for Unix":       {LocalAddr: sockapi.HostAddr("localhost", 1), Family: unix.AF_UNIX},
			"path for IP":         {LocalAddr: unixAddr, Family: unix.AF_INET},
			"another family":      {Family: unix.AF_NETLINK},
			"stream socket":       {Sock: stream},
			"socket and address":  {Sock: dgram, LocalAddr: anyPort},
			"socket and family":   {Sock: dgram, Family: unix.AF_INET},
			"socket and option":   {Sock: dgram, AllowBroadcast: true},
			"socket and reuse":    {Sock: dgram, ReusePort: true},
			"socket and protocol": {Sock: dgram, Proto: unix.IPPROTO_UDP},
			"socket and flags":    {Sock: dgram, Flags: loop.AIPassive},
		} {
			_, _, err := CreateDatagramEndpoint(co, func() DatagramProtocol {
				t.Errorf("%s: the factory was called", what)
				return nil
			}, o)
			if !errors.Is(err, loop.ErrInvalidArgument) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if _, _, err := CreateDatagramEndpoint(co, nil, &DatagramOptions{LocalAddr: anyPort}); !errors.Is(err, loop.ErrInvalidArgument) {
			t.Errorf("no factory: %v", err)
		}
		if dgram.Fd() < 0 || stream.Fd() < 0 {
			t.Error("a refused socket was closed")
		}
	})
}

func TestNamesThatHaveNoFamilyInCommonAreInvalid(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		v6 := sockapi.IPAddr(netip.MustParseAddrPort("[::1]:9"))
		o := DatagramOptions{LocalAddr: sockapi.HostAddr("127.0.0.2", 0), RemoteAddr: sockapi.HostAddr("::1", 9)}
		for _, o := range []DatagramOptions{o, {LocalAddr: sockapi.HostAddr(Broadcast, 0), RemoteAddr: v6}} {
			_, _, err := CreateDatagramEndpoint(co, func() DatagramProtocol { return &datagramDiary{} }, &o)
			if !errors.Is(err, loop.ErrInvalidArgument) {
				t.Errorf("%v: %v", o, err)
			}
		}
	})
}

func TestAFamilyAloneIsEnough(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		b := endpoint(t, co, DatagramOptions{LocalAddr: anyPort})
		a := endpoint(t, co, DatagramOptions{Family: unix.AF_INET})
		a.send(t, "from somewhere", b.addr(t))
		b.untilGot(t, co, "from somewhere")
		finish(t, co, a, b)
	})
}

func TestAHostNameAndEveryLocalAddressAreResolved(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		b := endpoint(t, co, DatagramOptions{LocalAddr: sockapi.HostAddr("", 0), Family: unix.AF_INET})
		if ip := b.addr(t).AddrPort().Addr(); !ip.IsUnspecified() {
			t.Errorf("bound to %v", ip)
		}
		a := endpoint(t, co, DatagramOptions{RemoteAddr: sockapi.HostAddr("localhost", b.addr(t).Port()), Family: unix.AF_INET})
		a.send(t, "by name", Addr{})
		b.untilGot(t, co, "by name")
		finish(t, co, a, b)
		_, _, err := CreateDatagramEndpoint(co, func() DatagramProtocol { return &datagramDiary{} },
			&DatagramOptions{RemoteAddr: sockapi.HostAddr("no-such-host.invalid", 1)})
		var ae *loop.AddrInfoError
		if !errors.As(err, &ae) {
			t.Errorf("a name that does not exist: %v", err)
		}
	})
}

// option returns an int option of an endpoint's socket.
func (p *datagramDiary) option(t *testing.T, name int) int {
	t.Helper()
	v, ok := p.t.ExtraInfo(ExtraSocket)
	if !ok {
		t.Fatal("no socket")
	}
	n, err := v.(*TransportSocket).GetOption(unix.SOL_SOCKET, name)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestOptionsAreSetOnRequestOnlyAndAddressReuseNever(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		for _, on := range []bool{false, true} {
			p := endpoint(t, co, DatagramOptions{LocalAddr: anyPort, ReusePort: on, AllowBroadcast: on})
			want := map[bool]int{true: 1}[on]
			if a, b, c := p.option(t, unix.SO_REUSEADDR), p.option(t, unix.SO_REUSEPORT), p.option(t, unix.SO_BROADCAST); a != 0 || b != want || c != want {
				t.Errorf("asked for %v: SO_REUSEADDR %d, SO_REUSEPORT %d, SO_BROADCAST %d", on, a, b, c)
			}
			if on {
				q := endpoint(t, co, DatagramOptions{LocalAddr: p.addr(t), ReusePort: true})
				finish(t, co, q)
			}
			finish(t, co, p)
		}
	})
}

func TestAllowBroadcastSuppressesConnectingAndTheAliasWorks(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		everywhere := sockapi.IPAddr(netip.MustParseAddrPort("0.0.0.0:0"))
		listener := endpoint(t, co, DatagramOptions{LocalAddr: everywhere, AllowBroadcast: true})
		everybody := sockapi.HostAddr(Broadcast, listener.addr(t).Port())
		p := endpoint(t, co, DatagramOptions{RemoteAddr: everybody, AllowBroadcast: true})
		q := endpoint(t, co, DatagramOptions{Family: unix.AF_INET})
		for _, e := range []*datagramDiary{p, q} {
			// Nobody but this machine shall hear it.
			v, _ := e.t.ExtraInfo(ExtraSocket)
			if err := unix.BindToDevice(v.(*TransportSocket).Fd(), "lo"); err != nil {
				t.Fatal(err)
			}
		}
		if peer, _ := p.t.ExtraInfo(ExtraPeerName); peer != nil {
			t.Errorf("connected to %v", peer)
		}
		if err := p.t.SendTo(nil, q.addr(t)); !errors.Is(err, loop.ErrInvalidArgument) {
			t.Errorf("to another address: %v", err)
		}
		p.send(t, "hello everybody", everybody)
		listener.untilGot(t, co, "hello everybody")
		p.send(t, "as always", Addr{})
		listener.untilGot(t, co, "hello everybody", "as always")
		q.send(t, "not allowed", everybody)
		until(t, co, "an error is received", func() bool { return len(q.errs) == 1 })
		if err := q.errs[0]; !errors.Is(err, syscall.EACCES) || !strings.Contains(err.Error(), "255.255.255.255:") {
			t.Errorf("a broadcast without permission: %v", err)
		}
		finish(t, co, p, q, listener)
	})
}

func TestAPacketThatFailsIsToldOfAlsoIfTheEndpointIsClosedAtOnce(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := endpoint(t, co, DatagramOptions{LocalAddr: anyPort})
		q := endpoint(t, co, DatagramOptions{Family: unix.AF_UNIX})
		check(t, p.t.SendTo(make([]byte, 70000), p.addr(t)))
		p.t.Close()
		check(t, q.t.SendTo([]byte("x"), sockapi.UnixAddr(filepath.Join(t.TempDir(), "nobody"))))
		q.t.Close()
		check(t, p.untilLost(t, co))
		check(t, q.untilLost(t, co))
		for e, want := range map[*datagramDiary]syscall.Errno{p: syscall.EMSGSIZE, q: syscall.ENOENT} {
			if len(e.errs) != 1 || !errors.Is(e.errs[0], want) {
				t.Errorf("the errors are %v, want %v", e.errs, want)
			}
		}
	})
}

func TestAnEndpointThatCannotBeMadeLeavesNothingOpen(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		taken := endpoint(t, co, DatagramOptions{LocalAddr: anyPort})
		before := must2(leaktest.FDs())(t)
		for _, c := range []struct {
			o     DatagramOptions
			errno syscall.Errno
			names string
		}{
			{DatagramOptions{LocalAddr: taken.addr(t)}, syscall.EADDRINUSE, taken.addr(t).String()},
			{DatagramOptions{LocalAddr: sockapi.IPAddr(netip.MustParseAddrPort("192.0.2.1:0"))}, syscall.EADDRNOTAVAIL, "192.0.2.1"},
			{DatagramOptions{RemoteAddr: sockapi.UnixAddr(filepath.Join(t.TempDir(), "absent"))}, syscall.ENOENT, "absent"},
			{DatagramOptions{RemoteAddr: sockapi.IPAddr(netip.MustParseAddrPort("255.255.255.255:1"))}, syscall.EACCES, "255.255.255.255"},
			{DatagramOptions{LocalAddr: anyPort, Proto: unix.IPPROTO_TCP}, syscall.EPROTONOSUPPORT, anyPort.String()},
			{DatagramOptions{RemoteAddr: taken.addr(t), Proto: unix.IPPROTO_TCP}, syscall.EPROTONOSUPPORT, taken.addr(t).String()},
			{DatagramOptions{Family: unix.AF_INET, Proto: unix.IPPROTO_TCP}, syscall.EPROTONOSUPPORT, ": socket: "},
		} {
			p := &datagramDiary{}
			_, _, err := CreateDatagramEndpoint(co, func() DatagramProtocol { return p }, &c.o)
			if !errors.Is(err, c.errno) && !errors.Is(err, syscall.ENETUNREACH) || !strings.Contains(err.Error(), c.names) {
				t.Errorf("%v: %v", c.names, err)
			}
			p.want(t)
		}
		noNewFDs(t, co, before)
		finish(t, co, taken)
	})
}

func TestUnixDatagramsArriveWithTheNameOfTheSender(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		dir := t.TempDir()
		for _, names := range [][2]string{
			{filepath.Join(dir, "a"), filepath.Join(dir, "b")},
			{"\x00" + filepath.Join(dir, "a"), "\x00" + filepath.Join(dir, "b")},
		} {
			a := endpoint(t, co, DatagramOptions{LocalAddr: sockapi.UnixAddr(names[0])})
			b := endpoint(t, co, DatagramOptions{LocalAddr: sockapi.UnixAddr(names[1])})
			a.send(t, "", sockapi.UnixAddr(names[1]))
			a.send(t, "hello", b.addr(t))
			b.untilGot(t, co, "", "hello")
			if b.from[0] != sockapi.UnixAddr(names[0]) {
				t.Errorf("the sender is %v", b.from[0])
			}
			c := endpoint(t, co, DatagramOptions{RemoteAddr: sockapi.UnixAddr(names[1])})
			c.send(t, "nameless", Addr{})
			b.untilGot(t, co, "", "hello", "nameless")
			if b.from[2].IsValid() {
				t.Errorf("a socket without a name has the name %v", b.from[2])
			}
			finish(t, co, a, b, c)
		}
	})
}

func TestAStaleSocketFileIsReplacedAndAnotherFileIsInUse(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		path := filepath.Join(t.TempDir(), "socket")
		finish(t, co, endpoint(t, co, DatagramOptions{LocalAddr: sockapi.UnixAddr(path)}))
		if _, err := os.Stat(path); err != nil {
			t.Fatal(err)
		}
		finish(t, co, endpoint(t, co, DatagramOptions{LocalAddr: sockapi.UnixAddr(path)}))
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		_, _, err := CreateDatagramEndpoint(co, func() DatagramProtocol { return &datagramDiary{} },
			&DatagramOptions{LocalAddr: sockapi.UnixAddr(path)})
		if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), path) {
			t.Errorf("a regular file: %v", err)
		}
	})
}

func TestASocketOfTheCallerIsAdopted(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		before := must2(leaktest.FDs())(t)
		b := endpoint(t, co, DatagramOptions{LocalAddr: anyPort})
		sock, err := sockapi.New(unix.AF_INET, unix.SOCK_DGRAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := sock.Bind(anyPort); err != nil {
			t.Fatal(err)
		}
		a := endpoint(t, co, DatagramOptions{Sock: sock})
		if _, err := sockapi.RecvInto(co, sock, make([]byte, 1)); !errors.Is(err, sockapi.ErrTransportFD) {
			t.Errorf("the socket of a transport: %v", err)
		}
		a.send(t, "adopted", b.addr(t))
		b.untilGot(t, co, "adopted")
		finish(t, co, a, b)
		until(t, co, "the socket is closed", func() bool { return sock.Fd() < 0 })
		noNewFDs(t, co, before)
	})
}

func TestAPacketThatACancelledReceiveHadTakenComesFirst(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		for _, paused := range []bool{false, true} {
			sock := ok[*sockapi.Socket](t)(sockapi.New(unix.AF_INET, unix.SOCK_DGRAM, 0))
			check(t, sock.Bind(anyPort))
			peer := ok[net.Conn](t)(net.Dial("udp", ok[Addr](t)(sock.LocalAddr()).String()))
			receiving := co.Loop().Go(func(co *loop.Coro) error {
				_, _, err := sockapi.RecvFrom(co, sock, 100)
				return err
			})
			turns(t, co)
			ok[int](t)(peer.Write([]byte("early")))
			check(t, loop.Sleep(co, 0)) // the loop finds the packet, and is about to deliver it
			receiving.Cancel("")
			if _, err := receiving.Await(co); !errors.Is(err, loop.ErrCancelled) {
				t.Fatalf("RecvFrom ended with %v", err)
			}

			p := &datagramDiary{}
			p.onMade = func() {
				if paused {
					check(t, p.t.PauseReading())
				}
			}
			_, _, err := CreateDatagramEndpoint(co, func() DatagramProtocol { return p }, &DatagramOptions{Sock: sock})
			check(t, err)
			turns(t, co)
			if paused && len(p.got) > 0 {
				t.Errorf("%q arrived while paused", p.got)
			}
			check(t, p.t.ResumeReading())
			ok[int](t)(peer.Write([]byte("late")))
			p.untilGot(t, co, "early", "late")
			if len(p.from) != 2 || p.from[0] != p.from[1] {
				t.Errorf("the packets are from %v", p.from)
			}
			finish(t, co, p)
			check(t, peer.Close())
		}
	})
}

func TestAnErrorThatACancelledReceiveHadTakenComesFirst(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		sock := ok[*sockapi.Socket](t)(sockapi.New(unix.AF_INET, unix.SOCK_DGRAM, 0))
		check(t, sockapi.Connect(co, sock, deadPort(t, co)))
		receiving := co.Loop().Go(func(co *loop.Coro) error {
			_, err := sockapi.Recv(co, sock, 100)
			return err
		})
		turns(t, co)
		ok[int](t)(unix.Write(sock.Fd(), []byte("anybody there?")))
		check(t, loop.Sleep(co, 0)) // the loop finds the error, and is about to deliver it
		receiving.Cancel("")
		if _, err := receiving.Await(co); !errors.Is(err, loop.ErrCancelled) {
			t.Fatalf("Recv ended with %v", err)
		}
		p := &datagramDiary{}
		_, _, err := CreateDatagramEndpoint(co, func() DatagramProtocol { return p }, &DatagramOptions{Sock: sock})
		check(t, err)
		until(t, co, "the error is received", func() bool { return len(p.errs) > 0 })
		if err := p.errs[0]; !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("got %v", err)
		}
		finish(t, co, p)
	})
}

// resumable is a diary that wants to know when it may send again.
type resumable struct {
	datagramDiary
	onResume func()
}

func (p *resumable) ResumeWriting() {
	p.datagramDiary.ResumeWriting()
	p.onResume()
}

// exits runs a loop until a callback has ended the run with reason.
func exits(t *testing.T, l *loop.Loop, reason error, begin func(co *loop.Coro) error) {
	t.Helper()
	task := l.Go(begin)
	if err := l.RunForever(); err != reason {
		t.Errorf("RunForever returned %v, want %v", err, reason)
	}
	if _, err := loop.RunUntilComplete(l, task); err != nil {
		t.Error(err)
	}
}

func TestALoopExitInADatagramCallbackClosesTheEndpoint(t *testing.T) {
	eachBackend(t, func(t *testing.T, name string) {
		for _, what := range []string{"DatagramReceived", "ErrorReceived"} {
			l := ipcLoop(t, loop.WithBackend(name))
			reason := errors.New("enough")
			var p *datagramDiary
			exits(t, l, reason, func(co *loop.Coro) error {
				if what == "ErrorReceived" {
					p = endpoint(t, co, DatagramOptions{RemoteAddr: deadPort(t, co)})
					p.onError = func() { panic(loop.LoopExit{Err: reason}) }
					turns(t, co) // it waits for the loop to receive
					p.send(t, "anybody there?", Addr{})
					return nil
				}
				p = endpoint(t, co, DatagramOptions{LocalAddr: anyPort})
				p.onDatagram = func([]byte, Addr) { panic(loop.LoopExit{Err: reason}) }
				turns(t, co)
				p.send(t, "hello", p.addr(t))
				return nil
			})
			runTask(t, l, func(co *loop.Coro) error {
				var pe *loop.PanicError
				if err := p.untilLost(t, co); !errors.As(err, &pe) {
					t.Errorf("%s: lost with %v", what, err)
				}
				return nil
			})
		}
	})
}

func TestALoopExitInResumeWritingLosesNoPacket(t *testing.T) {
	eachBackend(t, func(t *testing.T, name string) {
		l := ipcLoop(t, loop.WithBackend(name))
		reason := errors.New("enough")
		p, q, sent := &resumable{}, &datagramDiary{}, 0
		p.onResume = func() { panic(loop.LoopExit{Err: reason}) }
		exits(t, l, reason, func(co *loop.Coro) error {
			a, b, err := sockapi.Pair(unix.SOCK_DGRAM)
			check(t, err)
			_, _, err = CreateDatagramEndpoint(co, func() DatagramProtocol { return p }, &DatagramOptions{Sock: a})
			check(t, err)
			_, _, err = CreateDatagramEndpoint(co, func() DatagramProtocol { return q }, &DatagramOptions{Sock: b})
			check(t, err)
			check(t, q.t.PauseReading())
			for len(p.events) == 1 {
				check(t, p.t.SendTo(make([]byte, 1000), Addr{}))
				sent++
			}
			check(t, q.t.ResumeReading())
			return nil
		})
		runTask(t, l, func(co *loop.Coro) error {
			p.t.Close()
			check(t, p.untilLost(t, co))
			until(t, co, "every packet arrives", func() bool { return len(q.got) == sent })
			finish(t, co, q)
			return nil
		})
	})
}

func TestAPanicInADatagramCallbackIsReportedAndClosesTheEndpoint(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		for _, what := range []string{"DatagramReceived", "ErrorReceived", "ConnectionMade"} {
			all := reports(co)
			a, b := endpoint(t, co, DatagramOptions{LocalAddr: anyPort}), &datagramDiary{}
			o := DatagramOptions{LocalAddr: anyPort}
			switch what {
			case "DatagramReceived":
				b.onDatagram = func([]byte, Addr) { panic(what) }
			case "ErrorReceived":
				o = DatagramOptions{RemoteAddr: deadPort(t, co)}
				b.onError = func() { panic(what) }
			default:
				b.onMade = func() { panic(what) }
			}
			if _, _, err := CreateDatagramEndpoint(co, func() DatagramProtocol { return b }, &o); err != nil {
				t.Fatal(err)
			}
			switch what {
			case "ErrorReceived":
				b.send(t, "x", Addr{})
			case "DatagramReceived":
				a.send(t, "x", b.addr(t))
			default:
				finish(t, co, b)
			}
			err := b.untilLost(t, co)
			var pe *loop.PanicError
			if fatal := errors.As(err, &pe); fatal != (what != "ConnectionMade") {
				t.Errorf("%s: lost with %v", what, err)
			}
			if len(*all) != 1 || (*all)[0].Protocol != any(b) || (*all)[0].Transport != any(b.t) {
				t.Errorf("%s: %d reports", what, len(*all))
			}
			finish(t, co, a)
		}
	})
}

func TestTheProtocolOfAnEndpointCanBeReplaced(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		a, b := endpoint(t, co, DatagramOptions{LocalAddr: anyPort}), endpoint(t, co, DatagramOptions{LocalAddr: anyPort})
		next := &datagramDiary{}
		b.t.SetProtocol(next)
		if b.t.Protocol() != DatagramProtocol(next) {
			t.Error("the protocol was not replaced")
		}
		a.send(t, "for the new one", b.addr(t))
		next.untilGot(t, co, "for the new one")
		b.t.Close()
		next.untilLost(t, co)
		b.want(t, "made")
		next.want(t, "lost")
		finish(t, co, a)
	})
}

func TestTheDescriptorOfAnOpenEndpointCannotBeWatched(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := endpoint(t, co, DatagramOptions{LocalAddr: anyPort})
		v, _ := p.t.ExtraInfo(ExtraSocket)
		fd := v.(*TransportSocket).Fd()
		if err := co.Loop().AddReader(fd, func() {}); !errors.Is(err, loop.ErrTransportFD) {
			t.Errorf("AddReader: %v", err)
		}
		finish(t, co, p)
	})
}

func TestCloseInConnectionMadeIsLegal(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &datagramDiary{}
		p.onMade = func() { p.t.Close() }
		if _, _, err := CreateDatagramEndpoint(co, func() DatagramProtocol { return p }, &DatagramOptions{LocalAddr: anyPort}); err != nil {
			t.Fatal(err)
		}
		p.untilLost(t, co)
		p.want(t, "made", "lost")
	})
}

func TestCancellingTheCreationOfAnEndpointLeavesNothingOpen(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		before := must2(leaktest.FDs())(t)
		for turns := range 4 {
			p := &datagramDiary{}
			creating := co.Loop().Go(func(co *loop.Coro) error {
				_, _, err := CreateDatagramEndpoint(co, func() DatagramProtocol { return p },
					&DatagramOptions{LocalAddr: sockapi.HostAddr("localhost", 0), RemoteAddr: sockapi.HostAddr("localhost", 9), Family: unix.AF_INET})
				return err
			})
			for range turns {
				if err := loop.Sleep(co, 0); err != nil {
					t.Fatal(err)
				}
			}
			creating.Cancel("enough")
			if _, err := creating.Await(co); err == nil {
				p.t.Close()
			} else if !errors.Is(err, loop.ErrCancelled) {
				t.Errorf("after %d turns: %v", turns, err)
			}
			if len(p.events) > 0 {
				p.untilLost(t, co)
			}
		}
		noNewFDs(t, co, before)
	})
}

func TestAnEndpointSendsToAZoneByItsName(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := endpoint(t, co, DatagramOptions{LocalAddr: sockapi.IPAddr(netip.MustParseAddrPort("[::1]:0"))})
		to := netip.AddrPortFrom(netip.MustParseAddr("::1%lo"), p.addr(t).Port())
		p.send(t, "x", sockapi.IPAddr(to))
		p.untilGot(t, co, "x")
		if err := p.t.SendTo([]byte("x"), sockapi.IPAddr(netip.AddrPortFrom(to.Addr().WithZone("nowhere"), to.Port()))); !errors.Is(err, loop.ErrInvalidArgument) {
			t.Errorf("to an unknown zone: %v", err)
		}
		finish(t, co, p)
	})
}

func TestCancellingTheCreationOfAnEndpointDropsWhatItHadToSend(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		full := sockapi.UnixAddr(filepath.Join(t.TempDir(), "full")) // and nobody reads it
		peer := ok[*sockapi.Socket](t)(sockapi.New(unix.AF_UNIX, unix.SOCK_DGRAM, 0))
		check(t, peer.Bind(full))
		p := &datagramDiary{}
		p.onMade = func() {
			for p.t.WriteBufferSize() == 0 {
				p.send(t, "x", full)
			}
			co.Task().Cancel("enough")
		}
		_, _, err := CreateDatagramEndpoint(co, func() DatagramProtocol { return p }, &DatagramOptions{Family: unix.AF_UNIX})
		if !errors.Is(err, loop.ErrCancelled) {
			t.Errorf("the cancelled call returned %v", err)
		}
		p.untilLost(t, co)
		check(t, peer.Close())
	})
}

func TestClosingTheLoopClosesTheEndpointsThatAreLeft(t *testing.T) {
	eachBackend(t, func(t *testing.T, name string) {
		before := must2(leaktest.Take())(t)
		l, err := loop.NewEventLoop(loop.WithBackend(name))
		if err != nil {
			t.Skipf("%s: %v", name, err)
		}
		var p *datagramDiary
		runTask(t, l, func(co *loop.Coro) error {
			p = endpoint(t, co, DatagramOptions{LocalAddr: anyPort})
			q, _, _ := stuffed(t, co, 5, "pad")
			_ = q
			return nil
		})
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if leaks := before.Leaks(patience); len(leaks) != 0 {
			t.Errorf("left behind: %q", leaks)
		}
		p.send(t, "nobody hears this", anyPort)
		p.t.Close()
		p.want(t, "made")
	})
}

// bouncer sends every packet back until a number of them have come.
type bouncer struct {
	BaseDatagramProtocol
	t    DatagramTransport
	left int
	done *loop.Future[struct{}]
}

func (b *bouncer) ConnectionMade(t DatagramTransport) { b.t = t }

func (b *bouncer) DatagramReceived(data []byte, from Addr) {
	if b.left--; b.left == 0 {
		_ = b.done.SetResult(struct{}{})
		return
	}
	_ = b.t.SendTo(data, from)
}

// bounce makes two endpoints play a packet forth and back.
func bounce(tb testing.TB, co *loop.Coro, o DatagramOptions) func(packets int) {
	made := func() *bouncer {
		b := &bouncer{}
		if _, _, err := CreateDatagramEndpoint(co, func() DatagramProtocol { return b }, &o); err != nil {
			tb.Fatal(err)
		}
		return b
	}
	a, b := made(), made()
	v, _ := b.t.ExtraInfo(ExtraSockName)
	to := v.(Addr)
	data := bytes.Repeat([]byte("x"), 100)
	return func(packets int) {
		a.done = loop.CreateFuture[struct{}](co.Loop())
		a.left, b.left = packets, packets+1
		if err := a.t.SendTo(data, to); err != nil {
			tb.Fatal(err)
		}
		if _, err := a.done.Await(co); err != nil {
			tb.Fatal(err)
		}
	}
}

func TestADatagramAllocatesNothing(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
			play := bounce(t, co, DatagramOptions{LocalAddr: sockapi.IPAddr(netip.MustParseAddrPort(addr))})
			play(100)
			const packets = 200
			if perRun := testing.AllocsPerRun(5, func() { play(packets) }); perRun > packets/20 {
				t.Errorf("%s: %v allocations for %d packets each way", addr, perRun, packets)
			}
		}
	})
}

func BenchmarkDatagramBounce(b *testing.B) {
	for _, name := range []string{"io_uring", "epoll"} {
		b.Run(name, func(b *testing.B) {
			l, err := loop.NewEventLoop(loop.WithBackend(name))
			if err != nil {
				b.Skipf("%s: %v", name, err)
			}
			defer l.Close()
			if _, err := loop.RunUntilComplete(l, l.Go(func(co *loop.Coro) error {
				play := bounce(b, co, DatagramOptions{LocalAddr: anyPort})
				play(100)
				b.ReportAllocs()
				b.ResetTimer()
				play(b.N)
				b.StopTimer()
				return nil
			})); err != nil {
				b.Fatal(err)
			}
		})
	}
}

func TestCancellingAnEndpointWithSeveralAddressesEndsIt(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		create := func(co *loop.Coro) error {
			tr, _, err := CreateDatagramEndpoint(co, func() DatagramProtocol { return &datagramDiary{} },
				&DatagramOptions{RemoteAddr: sockapi.HostAddr("", 9)}) // 0.0.0.0 and ::
			if err == nil {
				tr.Abort()
			}
			return err
		}
		task := co.Loop().Go(create)
		for limit := time.Now().Add(patience); !strings.Contains(task.Stack(), "connect"); {
			switch {
			case time.Now().After(limit):
				t.Fatal("it never connects")
			case task.Done(): // it was too fast
				task = co.Loop().Go(create)
			}
			check(t, loop.Sleep(co, 0))
		}
		task.Cancel("enough")
		if _, err := task.Await(co); !errors.Is(err, loop.ErrCancelled) {
			t.Errorf("the cancelled call returned %v", err)
		}
	})
}

// rebinder makes another endpoint with its address as soon as it is lost.
type rebinder struct {
	datagramDiary
	over func()
}

func (p *rebinder) ConnectionLost(err error) {
	p.datagramDiary.ConnectionLost(err)
	p.over()
}

func TestTheAddressOfAnEndpointIsFreeAfterConnectionLost(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		lost := loop.CreateFuture[struct{}](co.Loop())
		p := &rebinder{over: func() { _ = lost.SetResult(struct{}{}) }}
		tr, _, err := CreateDatagramEndpoint(co, func() DatagramProtocol { return p }, &DatagramOptions{LocalAddr: anyPort})
		check(t, err)
		addr, _ := tr.ExtraInfo(ExtraSockName)
		tr.Close()
		_, err = lost.Await(co)
		check(t, err)
		q := &datagramDiary{}
		tr, _, err = CreateDatagramEndpoint(co, func() DatagramProtocol { return q }, &DatagramOptions{LocalAddr: addr.(Addr)})
		check(t, err)
		tr.Abort()
		check(t, q.untilLost(t, co))
	})
}

// A socket that the loop has used before it was supplied is closed as one, too: its
// descriptor has an operation in flight, which takes the loop longer than a copy
// that has none.
func TestTheAddressOfAnEndpointIsFreeAfterASocketThatTheLoopHasUsed(t *testing.T) {
	rounds := 200
	if testing.Short() {
		rounds = 40
	}
	inTask(t, func(t *testing.T, co *loop.Coro) {
		sock := ok[*sockapi.Socket](t)(sockapi.ListenPacket("udp", "127.0.0.1:0", nil))
		addr := ok[Addr](t)(sock.LocalAddr())
		for range rounds {
			_, err := sockapi.SendTo(co, sock, []byte("x"), addr)
			check(t, err)
			p := endpoint(t, co, DatagramOptions{Sock: sock})
			p.untilGot(t, co, "x")
			p.t.Abort()
			check(t, p.untilLost(t, co))
			q := endpoint(t, co, DatagramOptions{LocalAddr: addr})
			q.t.Abort()
			check(t, q.untilLost(t, co))
			turns(t, co)
			sock = ok[*sockapi.Socket](t)(sockapi.ListenPacket("udp", addr.String(), nil))
		}
		check(t, sock.Close())
	})
}

func TestEndpointsThatComeAndGoKeepNobodyFromBinding(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		to := endpoint(t, co, DatagramOptions{LocalAddr: anyPort})
		addr := to.addr(t)
		enough := false
		comeAndGo := func(co *loop.Coro) error {
			for !enough {
				tr, _, err := CreateDatagramEndpoint(co, func() DatagramProtocol { return BaseDatagramProtocol{} }, &DatagramOptions{RemoteAddr: addr})
				if err != nil {
					return err
				}
				tr.Abort()
			}
			return nil
		}
		var tasks []loop.AnyFuture
		for range 20 {
			tasks = append(tasks, co.Loop().Go(comeAndGo))
			check(t, loop.Sleep(co, 0))
		}
		bound := co.Loop().Go(func(co *loop.Coro) error {
			finish(t, co, endpoint(t, co, DatagramOptions{LocalAddr: anyPort}))
			srv, _ := localServer(t, co, newEcho, nil)
			over(t, co, srv)
			return nil
		})
		for n := 0; !bound.Done(); n++ {
			if n == 5000 {
				t.Error("nothing was bound in 5000 turns")
				enough = true
			}
			check(t, loop.Sleep(co, 0))
		}
		enough = true
		for _, task := range tasks {
			until(t, co, "the last is gone", task.Done)
		}
		finish(t, co, to)
	})
}

func TestTheAddressOfAnEndpointIsFreeAfterACancelledConnect(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := endpoint(t, co, DatagramOptions{LocalAddr: anyPort})
		addr := p.addr(t)
		p.t.Close()
		check(t, p.untilLost(t, co))
		create := func() (DatagramTransport, error) {
			tr, _, err := CreateDatagramEndpoint(co, func() DatagramProtocol { return p }, &DatagramOptions{LocalAddr: addr, RemoteAddr: addr})
			return tr, err
		}
		*p = datagramDiary{}
		co.Task().Cancel("")
		if _, err := create(); !errors.Is(err, loop.ErrCancelled) {
			t.Errorf("cancelled: %v", err)
		}
		tr, err := create()
		check(t, err)
		tr.Close()
		check(t, p.untilLost(t, co))
	})
}

func TestTheAddressOfAnEndpointIsFreeHoweverThatEnds(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		sock := ok[*sockapi.Socket](t)(sockapi.ListenPacket("udp", "127.0.0.1:0", nil))
		addr := ok[Addr](t)(sock.LocalAddr())
		again := func(after string) {
			tr, _, err := CreateDatagramEndpoint(co, func() DatagramProtocol { return &datagramDiary{} }, &DatagramOptions{LocalAddr: addr})
			if err != nil {
				t.Fatalf("after %s: %v", after, err)
			}
			tr.Abort()
		}
		p := endpoint(t, co, DatagramOptions{Sock: sock})
		p.t.Abort()
		check(t, p.untilLost(t, co))
		again("a socket that was supplied")
		turns(t, co)
		for _, supplied := range []bool{false, true} {
			o := &DatagramOptions{LocalAddr: addr}
			if supplied {
				o = &DatagramOptions{Sock: ok[*sockapi.Socket](t)(sockapi.ListenPacket("udp", addr.String(), nil))}
			}
			if _, _, err := CreateDatagramEndpoint(co, func() DatagramProtocol { return nil }, o); !errors.Is(err, loop.ErrInvalidArgument) {
				t.Errorf("a factory that returns nil: %v", err)
			}
			again("a factory that returns nil")
			turns(t, co)
		}
	})
}
