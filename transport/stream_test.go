package transport

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
)

// ok returns a function that passes a result on, or fails the test: so a call
// with two results can be its argument.
func ok[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		return must(t, v, err)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func protocolOf(p Protocol) func() Protocol { return func() Protocol { return p } }

// recorder notes the callbacks of a stream protocol, and does what the test
// wants in them.
type recorder struct {
	streamDiary
	keepOpen bool
	onEOF    func()
	onPause  func()
	onResume func()
	onLost   func()
}

func (p *recorder) EOFReceived() bool {
	p.note("eof")
	if p.onEOF != nil {
		p.onEOF()
	}
	return p.keepOpen
}

func (p *recorder) PauseWriting() {
	p.note("pause")
	if p.onPause != nil {
		p.onPause()
	}
}

func (p *recorder) ResumeWriting() {
	p.note("resume")
	if p.onResume != nil {
		p.onResume()
	}
}

func (p *recorder) ConnectionLost(err error) {
	p.diary.ConnectionLost(err)
	if p.onLost != nil {
		p.onLost()
	}
}

// joined gives one end of a Unix socket pair to a transport with protocol p and
// returns the other, which the test closes at the end.
func joined(t *testing.T, co *loop.Coro, p Protocol) (Transport, *sockapi.Socket) {
	t.Helper()
	ours, theirs, err := sockapi.Pair(unix.SOCK_STREAM)
	check(t, err)
	tr, got, err := CreateConnection(co, protocolOf(p), "", "", &ConnectOptions{Sock: ours})
	check(t, err)
	if got != p {
		t.Error("CreateConnection returned another protocol")
	}
	t.Cleanup(func() { _ = theirs.Close() })
	return tr, theirs
}

// receive receives until it has n bytes.
func receive(t *testing.T, co *loop.Coro, s *sockapi.Socket, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	for got := 0; got < n; {
		m, err := sockapi.RecvInto(co, s, b[got:])
		if err != nil {
			t.Fatalf("after %d of %d bytes: %v", got, n, err)
		}
		got += m
	}
	return b
}

// receiveEOF expects the end of the stream.
func receiveEOF(t *testing.T, co *loop.Coro, s *sockapi.Socket) {
	t.Helper()
	b, err := sockapi.Recv(co, s, 1)
	if err == nil || len(b) != 0 {
		t.Errorf("received %q, %v, want the end", b, err)
	}
}

// turns lets the loop turn a few times.
func turns(t *testing.T, co *loop.Coro) {
	t.Helper()
	for range 5 {
		check(t, loop.Sleep(co, 0))
	}
}

// stuff writes until the kernel takes no more and the protocol is paused, and
// returns all that was written.
func stuff(t *testing.T, co *loop.Coro, tr Transport) []byte {
	t.Helper()
	var all []byte
	for i := 0; ; i++ {
		block := bytes.Repeat([]byte{byte(i)}, 100_000)
		check(t, tr.Write(block))
		all = append(all, block...)
		turns(t, co)
		if tr.WriteBufferSize() > defaultHigh {
			return all
		}
	}
}

func TestConnectionMadeComesBeforeTheCallReturnsAndBeforeAnyData(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		ours, theirs, err := sockapi.Pair(unix.SOCK_STREAM)
		check(t, err)
		check(t, sockapi.SendAll(co, theirs, []byte("early")))
		p := &recorder{}
		tr, _, err := CreateConnection(co, protocolOf(p), "", "", &ConnectOptions{Sock: ours})
		check(t, err)
		p.want(t, "made")
		if p.data.Len() > 0 {
			t.Errorf("%q was delivered before", p.data.String())
		}
		p.untilData(t, co, "early")
		tr.Close()
		check(t, p.untilLost(t, co))
		p.want(t, "made", "lost")
		check(t, theirs.Close())
	})
}

func TestPausingInConnectionMadePreventsReadingUntilResumed(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		p.onMade = func() { check(t, p.t.PauseReading()) }
		tr, peer := joined(t, co, p)
		check(t, sockapi.SendAll(co, peer, []byte("abc")))
		turns(t, co)
		if p.data.Len() > 0 || tr.IsReading() {
			t.Errorf("paused: got %q, reading is %v", p.data.String(), tr.IsReading())
		}
		check(t, tr.ResumeReading())
		check(t, tr.ResumeReading())
		if !tr.IsReading() {
			t.Error("not reading after ResumeReading")
		}
		p.untilData(t, co, "abc")
		tr.Abort()
		check(t, p.untilLost(t, co))
	})
}

func TestWhatArrivesWhilePausedIsDeliveredInOrderWithItsEnd(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		tr, peer := joined(t, co, p)
		p.onData = func([]byte) { check(t, tr.PauseReading()) }
		want := ""
		for i := range 20 {
			part := strings.Repeat(string(rune('a'+i)), 5000)
			want += part
			check(t, sockapi.SendAll(co, peer, []byte(part)))
			turns(t, co)
		}
		check(t, peer.Shutdown(unix.SHUT_WR))
		calls := 0
		for !p.lost {
			before := p.data.Len()
			check(t, tr.ResumeReading())
			if p.data.Len() != before {
				t.Fatal("ResumeReading delivered from inside")
			}
			turns(t, co)
			calls++
		}
		if p.data.String() != want {
			t.Errorf("%d bytes arrived in another order or number than the %d that were sent", p.data.Len(), len(want))
		}
		p.want(t, "made", "eof", "lost")
		if calls < 2 {
			t.Error("everything came at once although the protocol paused")
		}
	})
}

func TestTheEndOfTheStreamIsNotDeliveredWhilePaused(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		tr, peer := joined(t, co, p)
		check(t, tr.PauseReading())
		check(t, peer.Shutdown(unix.SHUT_WR))
		turns(t, co)
		p.want(t, "made")
		check(t, tr.ResumeReading())
		check(t, p.untilLost(t, co))
		p.want(t, "made", "eof", "lost")
	})
}

func TestTheEndOfTheStreamClosesTheTransport(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		tr, peer := joined(t, co, p)
		p.onEOF = func() { check(t, tr.Write([]byte("goodbye"))) }
		check(t, peer.Shutdown(unix.SHUT_WR))
		if got := receive(t, co, peer, 7); string(got) != "goodbye" {
			t.Errorf("got %q", got)
		}
		receiveEOF(t, co, peer)
		check(t, p.untilLost(t, co))
		p.want(t, "made", "eof", "lost")
	})
}

func TestAProtocolCanKeepTheConnectionOpenForWritingAfterTheEnd(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{keepOpen: true}
		tr, peer := joined(t, co, p)
		check(t, peer.Shutdown(unix.SHUT_WR))
		until(t, co, "the end arrives", func() bool { return len(p.events) == 2 })
		if tr.IsClosing() || tr.IsReading() {
			t.Errorf("closing is %v, reading is %v, want neither", tr.IsClosing(), tr.IsReading())
		}
		// CPython announces the end again here.
		check(t, tr.PauseReading())
		check(t, tr.ResumeReading())
		turns(t, co)
		check(t, tr.Write([]byte("still here")))
		receive(t, co, peer, 10)
		tr.Close()
		check(t, p.untilLost(t, co))
		p.want(t, "made", "eof", "lost")
	})
}

func TestAPanicInDataReceivedOrEOFReceivedIsReportedAndFatal(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		for _, what := range []string{"DataReceived", "EOFReceived"} {
			all := reports(co)
			p := &recorder{}
			p.onData = func([]byte) { panic("in data") }
			p.onEOF = func() { panic("in eof") }
			_, peer := joined(t, co, p)
			if what == "DataReceived" {
				check(t, sockapi.SendAll(co, peer, []byte("x")))
			} else {
				check(t, peer.Shutdown(unix.SHUT_WR))
			}
			var pe *loop.PanicError
			if err := p.untilLost(t, co); !errors.As(err, &pe) || len(pe.Stack) == 0 {
				t.Errorf("%s: lost with %v, want a PanicError with its stack", what, err)
			}
			if len(*all) != 1 || !strings.Contains((*all)[0].Message, what) || (*all)[0].Transport == nil || (*all)[0].Protocol == nil {
				t.Errorf("%s: reports are %v", what, *all)
			}
		}
	})
}

func TestAPanicInConnectionMadeIsReportedAndTheConnectionGoesOn(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		all := reports(co)
		p := &recorder{}
		p.onMade = func() { panic("made") }
		tr, peer := joined(t, co, p)
		check(t, sockapi.SendAll(co, peer, []byte("x")))
		p.untilData(t, co, "x")
		if len(*all) != 1 {
			t.Errorf("reports are %v", *all)
		}
		tr.Close()
		check(t, p.untilLost(t, co))
	})
}

func TestALoopExitInDataReceivedEndsTheRun(t *testing.T) {
	eachBackend(t, func(t *testing.T, name string) {
		l, err := loop.NewEventLoop(loop.WithBackend(name))
		if err != nil {
			t.Skip(err)
		}
		defer func() { check(t, l.Close()) }()
		reason := errors.New("enough")
		p := &recorder{}
		p.onData = func([]byte) { panic(loop.LoopExit{Err: reason}) }
		task := l.Go(func(co *loop.Coro) error {
			_, peer := joined(t, co, p)
			return sockapi.SendAll(co, peer, []byte("x"))
		})
		if err := l.RunForever(); err != reason {
			t.Errorf("RunForever returned %v, want %v", err, reason)
		}
		if _, err := loop.RunUntilComplete(l, task); err != nil {
			t.Error(err)
		}
		runTask(t, l, func(co *loop.Coro) error {
			p.untilLost(t, co)
			return nil
		})
	})
}

func TestWhatTheKernelDoesNotTakeIsSentInOrderLater(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		tr, peer := joined(t, co, p)
		want := stuff(t, co, tr)
		for i := range 200 {
			part := bytes.Repeat([]byte{byte(i)}, i*50)
			want = append(want, part...)
			check(t, tr.Write(part))
		}
		pieces := [][]byte{[]byte("one"), nil, []byte("two"), bytes.Repeat([]byte("3"), 300_000)}
		check(t, tr.Writelines(pieces))
		want = append(want, bytes.Join(pieces, nil)...)
		if got := receive(t, co, peer, len(want)); !bytes.Equal(got, want) {
			t.Error("what arrived is not what was written")
		}
		until(t, co, "the buffer is empty", func() bool { return tr.WriteBufferSize() == 0 })
		tr.Close()
		check(t, p.untilLost(t, co))
	})
}

func TestWritesOfOneTurnArriveTogetherAndTheBufferIsEmptyAfterIt(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		tr, peer := joined(t, co, p)
		for _, part := range []string{"a", "", "b", "c"} {
			check(t, tr.Write([]byte(part)))
		}
		if n := tr.WriteBufferSize(); n != 3 {
			t.Errorf("%d bytes are buffered, want 3", n)
		}
		got, err := sockapi.Recv(co, peer, 100)
		if string(got) != "abc" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
		until(t, co, "the buffer is empty", func() bool { return tr.WriteBufferSize() == 0 })
		tr.Close()
		check(t, p.untilLost(t, co))
	})
}

func TestTheCallersBufferIsNeitherChangedNorKept(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		tr, peer := joined(t, co, p)
		for _, n := range []int{10, directOnce, directAgain, 1 << 20} {
			b := bytes.Repeat([]byte("x"), n)
			check(t, tr.Write(b))
			if i := bytes.IndexFunc(b, func(r rune) bool { return r != 'x' }); i >= 0 {
				t.Errorf("byte %d of %d was changed", i, n)
			}
			for i := range b {
				b[i] = 'y'
			}
			if got := receive(t, co, peer, n); bytes.ContainsRune(got, 'y') {
				t.Errorf("of %d bytes, those arrived that the caller wrote into the buffer after Write", n)
			}
		}
		tr.Close()
		check(t, p.untilLost(t, co))
	})
}

func TestTheFirstLargeWriteOfATurnGoesOutAtOnceAndTheOthersTogether(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		tr, peer := joined(t, co, p)
		n := max(co.Loop().Backend().DirectSend(), directOnce)
		for range 2 { // also in another turn
			for i, want := range []int{0, n, 2 * n} {
				if n >= directAgain {
					want = 0 // each is worth a system call
				}
				check(t, tr.Write(bytes.Repeat([]byte{'a' + byte(i)}, n)))
				if got := tr.WriteBufferSize(); got != want {
					t.Errorf("%d bytes are buffered after write %d of %d bytes, want %d", got, i+1, n, want)
				}
			}
			var want []byte
			for i := range 3 {
				want = append(want, bytes.Repeat([]byte{'a' + byte(i)}, n)...)
			}
			if got := receive(t, co, peer, 3*n); !bytes.Equal(got, want) {
				t.Error("what arrived is not what was written")
			}
		}
		tr.Close()
		check(t, p.untilLost(t, co))
	})
}

func TestAWriteErrorIsReportedByConnectionLostOnly(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		tr, peer := joined(t, co, p)
		check(t, tr.PauseReading())
		check(t, sockapi.CloseWait(co, peer))
		check(t, tr.Write([]byte("into the void")))
		if err := p.untilLost(t, co); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("lost with %v, want EPIPE", err)
		}
		p.want(t, "made", "lost")
	})
}

func TestTheFifthWriteAfterTheLossIsWarnedAbout(t *testing.T) {
	eachBackend(t, func(t *testing.T, name string) {
		log := &logBuffer{}
		l := ipcLoop(t, loop.WithBackend(name), loop.WithLogger(slog.New(slog.NewTextHandler(log, nil))))
		runTask(t, l, func(co *loop.Coro) error {
			for what, lose := range map[string]func(tr Transport, peer *sockapi.Socket){
				"aborted": func(tr Transport, _ *sockapi.Socket) { tr.Abort() },
				"after a write error": func(tr Transport, peer *sockapi.Socket) {
					check(t, tr.PauseReading())
					check(t, sockapi.CloseWait(co, peer))
					check(t, tr.Write([]byte("into the void")))
				},
			} {
				p := &recorder{}
				tr, peer := joined(t, co, p)
				lose(tr, peer)
				_ = p.untilLost(t, co)
				before := log.count("write on a closing transport")
				for n := 1; n <= warnWrites+2; n++ {
					check(t, tr.Write(nil))
					check(t, tr.Write([]byte("x")))
					if got, want := log.count("write on a closing transport")-before, max(0, n-warnWrites+1); got != want {
						t.Errorf("%s: %d warnings for %d writes, want %d", what, got, n, want)
					}
				}
			}
			return nil
		})
	})
}

func TestCloseSendsWhatIsBufferedAndWriteAfterItIsDropped(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		tr, peer := joined(t, co, p)
		want := stuff(t, co, tr)
		tr.Close()
		tr.Close()
		if !tr.IsClosing() || tr.IsReading() {
			t.Errorf("closing is %v, reading is %v", tr.IsClosing(), tr.IsReading())
		}
		check(t, tr.Write([]byte("too late")))
		turns(t, co)
		p.want(t, "made", "pause")
		if got := receive(t, co, peer, len(want)); !bytes.Equal(got, want) {
			t.Error("what arrived is not what was written")
		}
		receiveEOF(t, co, peer)
		check(t, p.untilLost(t, co))
		if p.events[len(p.events)-1] != "lost" {
			t.Errorf("callbacks: %q", p.events)
		}
	})
}

func TestCloseAndAbortCallBackOnTheNextTurnAndOnce(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		for _, end := range []func(Transport){Transport.Close, Transport.Abort} {
			p := &recorder{}
			tr, peer := joined(t, co, p)
			end(tr)
			p.want(t, "made")
			check(t, loop.Sleep(co, 0))
			p.want(t, "made", "lost")
			tr.Close()
			tr.Abort()
			turns(t, co)
			p.want(t, "made", "lost")
			receiveEOF(t, co, peer)
		}
	})
}

func TestAbortDropsWhatIsBufferedAlsoWhileCloseWaits(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		tr, peer := joined(t, co, p)
		written := len(stuff(t, co, tr))
		tr.Close()
		turns(t, co)
		tr.Abort()
		if n := tr.WriteBufferSize(); n != 0 {
			t.Errorf("%d bytes are buffered after Abort", n)
		}
		check(t, p.untilLost(t, co))
		got := 0
		for {
			b, err := sockapi.Recv(co, peer, 1<<20)
			if len(b) == 0 || err != nil {
				break
			}
			got += len(b)
		}
		if got >= written {
			t.Errorf("all %d bytes arrived", got)
		}
		p.want(t, "made", "pause", "lost")
	})
}

func TestWriteEOFFlushesShutsOnceAndIsHarmlessAfterClose(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		tr, peer := joined(t, co, p)
		if !tr.CanWriteEOF() {
			t.Error("CanWriteEOF is false")
		}
		want := stuff(t, co, tr)
		check(t, tr.WriteEOF())
		check(t, tr.WriteEOF())
		for _, b := range [][]byte{nil, []byte("x")} {
			if err := tr.Write(b); !errors.Is(err, ErrWriteEOF) {
				t.Errorf("Write(%q) after WriteEOF returned %v", b, err)
			}
		}
		if err := tr.Writelines([][]byte{[]byte("x")}); !errors.Is(err, ErrWriteEOF) {
			t.Errorf("Writelines after WriteEOF returned %v", err)
		}
		if got := receive(t, co, peer, len(want)); !bytes.Equal(got, want) {
			t.Error("what arrived is not what was written")
		}
		receiveEOF(t, co, peer)
		check(t, sockapi.SendAll(co, peer, []byte("answer")))
		p.untilData(t, co, "answer")
		tr.Close()
		check(t, tr.WriteEOF())
		check(t, p.untilLost(t, co))
		check(t, tr.WriteEOF())
	})
}

func TestSetProtocolTakesTheNextEvents(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		first, second := &recorder{}, &recorder{}
		tr, peer := joined(t, co, first)
		first.onData = func([]byte) { tr.SetProtocol(second) }
		check(t, sockapi.SendAll(co, peer, []byte("one")))
		first.untilData(t, co, "one")
		check(t, sockapi.SendAll(co, peer, []byte("two")))
		second.untilData(t, co, "two")
		if tr.Protocol() != Protocol(second) {
			t.Error("Protocol is not the second one")
		}
		tr.Close()
		check(t, second.untilLost(t, co))
		first.want(t, "made")
		second.want(t, "lost")
		if tr.Protocol() != nil {
			t.Error("there is a protocol after the loss")
		}
	})
}

func TestAProtocolWithoutOptionalCallbacksIsClosedAtTheEnd(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		lost := false
		tr, peer := joined(t, co, &minimal{&lost})
		check(t, sockapi.SendAll(co, peer, []byte("nobody reads this")))
		check(t, tr.SetWriteBufferLimits(0, 0))
		check(t, tr.Write([]byte("x")))
		check(t, peer.Shutdown(unix.SHUT_WR))
		until(t, co, "the connection is lost", func() bool { return lost })
	})
}

type minimal struct{ lost *bool }

func (*minimal) ConnectionMade(Transport) {}
func (m *minimal) ConnectionLost(error)   { *m.lost = true }

func TestExtraInfoStaysAfterCloseAndTheSocketIsAlwaysTheSame(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		serverSide := &recorder{}
		srv, port := localServer(t, co, protocolOf(serverSide), nil)
		p := &recorder{}
		tr, _, err := CreateConnection(co, protocolOf(p), "127.0.0.1", port, nil)
		check(t, err)
		until(t, co, "the server has the connection", func() bool { return serverSide.t != nil })
		listening := ok[Addr](t)(srv.Sockets()[0].LocalAddr())
		socket, known := tr.ExtraInfo(ExtraSocket)
		if again, _ := tr.ExtraInfo(ExtraSocket); !known || again != socket {
			t.Errorf("the socket is %v, then %v", socket, again)
		}
		inLost := -1
		p.onLost = func() {
			s, _ := tr.ExtraInfo(ExtraSocket)
			inLost = s.(*TransportSocket).Fd()
		}
		tr.Close()
		check(t, p.untilLost(t, co))
		check(t, serverSide.untilLost(t, co))
		if inLost < 0 {
			t.Error("the descriptor was closed before ConnectionLost")
		}
		if fd := socket.(*TransportSocket).Fd(); fd != -1 {
			t.Errorf("the descriptor is %d after the close", fd)
		}
		local, _ := tr.ExtraInfo(ExtraSockName)
		peer, _ := tr.ExtraInfo(ExtraPeerName)
		if peer != listening {
			t.Errorf("peername is %v, want %v", peer, listening)
		}
		if theirs, _ := serverSide.t.ExtraInfo(ExtraPeerName); theirs != local {
			t.Errorf("the server's peername is %v, the client's sockname %v", theirs, local)
		}
		if theirs, _ := serverSide.t.ExtraInfo(ExtraSockName); theirs != listening {
			t.Errorf("the server's sockname is %v, want %v", theirs, listening)
		}
		if v, known := tr.ExtraInfo("no such thing"); v != nil || known {
			t.Errorf("an unknown name gives %v, %v", v, known)
		}
		srv.Close()
		check(t, srv.WaitClosed(co))
	})
}

func TestThePeersNameIsKnownIfItResetTheConnectionBeforeThatWasAccepted(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		for _, host := range []string{"127.0.0.1", "::1"} {
			p := &recorder{}
			var first any
			p.onMade = func() { first, _ = p.t.ExtraInfo(ExtraPeerName) }
			srv := ok[*Server](t)(CreateServer(co, protocolOf(p), []string{host}, "0", nil))
			// While this runs, the loop accepts nothing.
			peer := ok[net.Conn](t)(net.Dial("tcp", net.JoinHostPort(host, portOf(t, srv))))
			check(t, peer.(*net.TCPConn).SetLinger(0))
			name := peer.LocalAddr().String()
			check(t, peer.Close())
			_ = p.untilLost(t, co)
			if got, is := first.(Addr); !is || got.String() != name {
				t.Errorf("peername is %v, want %v", first, name)
			}
			over(t, co, srv)
		}
	})
}

func TestThePeersNameIsKnownAfterAReset(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		var inLost any
		p.onLost = func() { inLost, _ = p.t.ExtraInfo(ExtraPeerName) }
		srv, port := localServer(t, co, protocolOf(p), nil)
		peer := ok[*sockapi.Socket](t)(sockapi.Dial(co, "tcp", "127.0.0.1:"+port))
		name := ok[Addr](t)(peer.LocalAddr())
		check(t, peer.SetLinger(0))
		until(t, co, "the connection is made", func() bool { return p.t != nil })
		check(t, sockapi.CloseWait(co, peer))
		if err := p.untilLost(t, co); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("lost with %v", err)
		} else if !strings.Contains(err.Error(), name.String()) {
			t.Errorf("%q does not name the peer %v", err, name)
		}
		if inLost != name {
			t.Errorf("the peer's name was %v, want %v", inLost, name)
		}
		srv.Close()
		check(t, srv.WaitClosed(co))
	})
}

// The send that waits has sent a part of its chunk, for the buffer is smaller.
func TestAResetDuringAWriteIsWhyTheConnectionIsLost(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		srv, _ := localServer(t, co, protocolOf(p), nil)
		check(t, srv.Sockets()[0].SetOption(unix.SOL_SOCKET, unix.SO_SNDBUF, 64<<10))
		peer := ok[*sockapi.Socket](t)(sockapi.New(unix.AF_INET, unix.SOCK_STREAM, 0))
		check(t, peer.SetOption(unix.SOL_SOCKET, unix.SO_RCVBUF, 64<<10))
		check(t, sockapi.Connect(co, peer, ok[Addr](t)(srv.Sockets()[0].LocalAddr())))
		until(t, co, "the connection is made", func() bool { return p.t != nil })
		check(t, p.t.Write(make([]byte, 4<<20)))
		buf := make([]byte, 64<<10)
		for n := 0; n < 1<<20; {
			n += ok[int](t)(sockapi.RecvInto(co, peer, buf))
		}
		check(t, peer.SetLinger(0))
		check(t, sockapi.CloseWait(co, peer))
		if err := p.untilLost(t, co); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("lost with %v, want ECONNRESET", err)
		}
		over(t, co, srv)
	})
}

func TestCallbacksRunInTheContextInWhichTheConnectionWasMade(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		l := co.Loop()
		v := loop.NewContextVar[string]("v")
		v.Set(l.CurrentContext(), "connected")
		p := &recorder{}
		var seen []string
		look := func() {
			s, _ := v.Get(l.CurrentContext())
			seen = append(seen, s)
		}
		p.onMade, p.onLost, p.onResume, p.onPause = look, look, look, look
		p.onData = func([]byte) {
			look()
			v.Set(l.CurrentContext(), "of the connection")
		}
		tr, peer := joined(t, co, p)
		v.Set(l.CurrentContext(), "changed")
		check(t, sockapi.SendAll(co, peer, []byte("x")))
		p.untilData(t, co, "x")
		check(t, tr.PauseReading())
		check(t, tr.ResumeReading())
		tr.Close()
		check(t, p.untilLost(t, co))
		if got := strings.Join(seen, ","); got != "connected,connected,of the connection" {
			t.Errorf("the callbacks saw %s", got)
		}
		if mine, _ := v.Get(l.CurrentContext()); mine != "changed" {
			t.Errorf("a callback changed the context of the task to %q", mine)
		}
	})
}

func TestTheSocketOfAStreamIsGoneWithItsLoop(t *testing.T) {
	eachBackend(t, func(t *testing.T, name string) {
		for _, adopted := range []bool{false, true} {
			l := ipcLoop(t, loop.WithBackend(name), loop.WithLogger(slog.New(slog.DiscardHandler)))
			ln := ok[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
			var view *TransportSocket
			var sock *sockapi.Socket
			runTask(t, l, func(co *loop.Coro) (err error) {
				host, port, _ := net.SplitHostPort(ln.Addr().String())
				o := &ConnectOptions{}
				if adopted {
					sock, err = sockapi.Dial(co, "tcp", ln.Addr().String())
					check(t, err)
					host, port, o.Sock = "", "", sock
				}
				tr, _, err := CreateConnection(co, protocolOf(&recorder{}), host, port, o)
				check(t, err)
				v, _ := tr.ExtraInfo(ExtraSocket)
				view = v.(*TransportSocket)
				return nil
			})
			check(t, l.Close())
			check(t, ln.Close())
			if view.Fd() != -1 || adopted && sock.Fd() != -1 {
				t.Errorf("adopted %v: the socket still has a descriptor", adopted)
			}
			if err := view.Shutdown(unix.SHUT_RDWR); !errors.Is(err, sockapi.ErrSocketClosed) {
				t.Errorf("adopted %v: Shutdown: %v", adopted, err)
			}
		}
	})
}

func TestDebugModeKeepsOtherGoroutinesFromResumeReading(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		co.Loop().SetDebug(true)
		defer co.Loop().SetDebug(false)
		r, _ := osPipe(t)
		pipe, _, err := ConnectReadPipe(co, protocolOf(&recorder{}), r)
		check(t, err)
		s, _ := joined(t, co, &recorder{})
		for name, tr := range map[string]Conn{"datagram": endpoint(t, co, DatagramOptions{LocalAddr: anyPort}).t, "pipe": pipe, "stream": s} {
			check(t, tr.PauseReading())
			done := make(chan error)
			go func() { done <- tr.ResumeReading() }()
			if err := <-done; !errors.Is(err, loop.ErrWrongThread) || tr.IsReading() {
				t.Errorf("%s: ResumeReading returned %v, and it reads: %v", name, err, tr.IsReading())
			}
			tr.Close()
		}
		turns(t, co)
	})
}

func TestReadingIsPausedAndResumedBetweenRuns(t *testing.T) {
	eachBackend(t, func(t *testing.T, name string) {
		l := ipcLoop(t, loop.WithBackend(name))
		p := &recorder{}
		p.onMade = func() { check(t, p.t.PauseReading()) }
		var peer *sockapi.Socket
		runTask(t, l, func(co *loop.Coro) error {
			_, peer = joined(t, co, p)
			return sockapi.SendAll(co, peer, []byte("hello"))
		})
		for range 2 {
			check(t, p.t.ResumeReading())
			check(t, p.t.PauseReading())
		}
		check(t, p.t.ResumeReading())
		runTask(t, l, func(co *loop.Coro) error {
			p.untilData(t, co, "hello")
			p.t.Abort()
			return p.untilLost(t, co)
		})
	})
}

func TestAResetThatIsParkedIsNamedWhenAWriteFails(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		srv, port := localServer(t, co, protocolOf(p), nil)
		peer := dialLocal(t, co, port)
		until(t, co, "there is a connection", func() bool { return p.t != nil })
		check(t, p.t.PauseReading())
		check(t, peer.SetLinger(0))
		check(t, sockapi.CloseWait(co, peer))
		until(t, co, "the reset is there", func() bool { return p.t.(*stream).flags&flagParked != 0 })
		check(t, p.t.Write([]byte("x")))
		if err := p.untilLost(t, co); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("lost with %v", err)
		}
		over(t, co, srv)
	})
}
