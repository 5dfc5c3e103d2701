package epoll

import (
	"bytes"
	"net"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
)

// patience is how long a test waits for what must happen before it fails.
const patience = time.Minute

// recorder is an operation that keeps what its completions said.
type recorder struct {
	backend.Op
	data  []byte
	res   []backend.Result
	ended bool
	then  func(r backend.Result)
}

func (o *recorder) Complete(op *backend.Op, r backend.Result) {
	o.data = append(o.data, r.Data...)
	r.Data = nil
	o.res = append(o.res, r)
	o.ended = !r.More
	if o.then != nil {
		o.then(r)
	}
}

type fixture struct {
	*Backend
	t testing.TB
}

func newFixture(t testing.TB, o *Options) *fixture {
	t.Helper()
	runtime.LockOSThread()
	b, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Enable(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if n := b.InFlight(); n != 0 {
			t.Errorf("%d operations in flight after Close", n)
		}
		runtime.UnlockOSThread()
	})
	return &fixture{b, t}
}

func (f *fixture) submit(o *recorder) *recorder {
	f.t.Helper()
	o.Receiver = o
	if err := f.Submit(&o.Op); err != nil {
		f.t.Fatal(err)
	}
	return o
}

// turn runs one Wait and Dispatch.
func (f *fixture) turn(timeout time.Duration) {
	f.t.Helper()
	if err := f.Wait(timeout); err != nil {
		f.t.Fatal(err)
	}
	f.Dispatch()
}

// until runs turns until ok holds.
func (f *fixture) until(what string, ok func() bool) {
	f.t.Helper()
	for end := time.Now().Add(patience); !ok(); f.turn(100 * time.Millisecond) {
		if time.Now().After(end) {
			f.t.Fatalf("timed out waiting for %s", what)
		}
	}
}

func (f *fixture) end(o *recorder) backend.Result {
	f.t.Helper()
	f.until(o.String(), func() bool { return o.ended })
	return o.res[len(o.res)-1]
}

func (f *fixture) entry(fd int) *entry { return f.find(int32(fd)) }

func recvOp(fd int, buf []byte) *recorder {
	return &recorder{Op: backend.Op{Code: backend.OpRecv, FD: int32(fd), Buf: buf}}
}

func multiRecv(fd int) *recorder {
	return &recorder{Op: backend.Op{Code: backend.OpRecv, FD: int32(fd), Flags: backend.Multishot}}
}

// pair makes connected non-blocking sockets; a is closed by the test if asked.
func pair(t testing.TB, domain, typ int) (a, b int) {
	t.Helper()
	if domain == unix.AF_UNIX {
		p, err := unix.Socketpair(domain, typ|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return p[0], p[1]
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	return dup(t, c), dup(t, s)
}

func dup(t testing.TB, c net.Conn) int {
	t.Helper()
	f, err := c.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

func closeLater(t testing.TB, fds ...int) {
	t.Cleanup(func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	})
}

func write1(t testing.TB, fd int, p []byte) {
	t.Helper()
	if n, err := unix.Write(fd, p); n != len(p) {
		t.Fatalf("write to fd %d: %d, %v", fd, n, err)
	}
}

func TestDataAndEndInOneEdgeAreBothDelivered(t *testing.T) {
	for name, domain := range map[string]int{"tcp": unix.AF_INET, "unix": unix.AF_UNIX} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, nil)
			a, b := pair(t, domain, unix.SOCK_STREAM)
			closeLater(t, a)
			o := f.submit(multiRecv(a))
			f.turn(0)
			write1(t, b, []byte("last words"))
			unix.Close(b)
			if r := f.end(o); r.N != 0 || r.Errno != 0 {
				t.Errorf("ended with %+v; want end of stream", r)
			}
			if string(o.data) != "last words" {
				t.Errorf("got %q", o.data)
			}
		})
	}
}

func TestHangUpWithMoreThanOneBufferDeliversAll(t *testing.T) {
	f := newFixture(t, &Options{BufferSize: 1000})
	a, b := pair(t, unix.AF_UNIX, unix.SOCK_STREAM)
	closeLater(t, a)
	want := bytes.Repeat([]byte("0123456789"), 550) // 5.5 buffers
	write1(t, b, want)
	unix.Close(b)
	o := f.submit(multiRecv(a))
	if r := f.end(o); r.N != 0 || r.Errno != 0 {
		t.Errorf("ended with %+v; want end of stream", r)
	}
	if !bytes.Equal(o.data, want) {
		t.Errorf("got %d bytes; want %d", len(o.data), len(want))
	}
	if len(o.res) != 7 {
		t.Errorf("%d completions; want 6 with data and the end", len(o.res))
	}
}

func TestMoreThanAShareKeepsWaitFromBlocking(t *testing.T) {
	f := newFixture(t, &Options{BufferSize: 4})
	a, b := pair(t, unix.AF_INET, unix.SOCK_STREAM)
	closeLater(t, a, b)
	o := f.submit(multiRecv(a))
	share := strings.Repeat("abcd", shareOfTurn)
	write1(t, b, []byte(share+"ef"))
	f.until("the first buffers", func() bool { return len(o.res) > 0 })
	if string(o.data) != share {
		t.Fatalf("got %q first", o.data)
	}
	f.turn(patience)
	if string(o.data) != share+"ef" {
		t.Errorf("got %q after the second turn", o.data)
	}
}

func TestTheRestComesLaterForAReceiverThat(t *testing.T) {
	for name, hook := range map[string]func(f *fixture, o *recorder){
		"keeps the buffer": func(f *fixture, _ *recorder) { f.Keep(f.hot.Bytes()) },
		"has enough":       func(_ *fixture, o *recorder) { o.Enough = true },
		"halts":            func(f *fixture, _ *recorder) { f.Halt() },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, &Options{BufferSize: 4})
			a, b := pair(t, unix.AF_INET, unix.SOCK_STREAM)
			closeLater(t, a, b)
			o := multiRecv(a)
			o.then = func(backend.Result) { hook(f, o) }
			f.submit(o)
			write1(t, b, []byte("abcdef"))
			f.until("the first buffer", func() bool { return len(o.res) > 0 })
			if string(o.data) != "abcd" {
				t.Errorf("got %q first", o.data)
			}
			f.until("the rest", func() bool { return string(o.data) == "abcdef" })
		})
	}
}

func TestShortReadOnStreamSparesTheNextCall(t *testing.T) {
	for name, domain := range map[string]int{"tcp": unix.AF_INET, "unix": unix.AF_UNIX} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, nil)
			a, b := pair(t, domain, unix.SOCK_STREAM)
			closeLater(t, a, b)
			buf := make([]byte, 100)
			for i := range 3 {
				o := f.submit(recvOp(a, buf))
				write1(t, b, []byte("abc"))
				if r := f.end(o); r.N != 3 {
					t.Fatalf("recv %d: %+v", i, r)
				}
			}
			if e := f.entry(a); e.bits&readable != 0 || e.mask&unix.EPOLLIN == 0 {
				t.Errorf("bits %b, mask %#x after a short read; want not readable and registered", e.bits, e.mask)
			}
			if _, ok := f.Try(&recvOp(a, buf).Op); ok {
				t.Error("Try received from an empty socket")
			}
		})
	}
}

func TestShortReadOfDatagramSaysNothingAboutTheNext(t *testing.T) {
	for name, typ := range map[string]int{"dgram": unix.SOCK_DGRAM, "seqpacket": unix.SOCK_SEQPACKET} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, nil)
			a, b := pair(t, unix.AF_UNIX, typ)
			closeLater(t, a, b)
			o := f.submit(multiRecv(a))
			f.turn(0)
			for range 5 {
				write1(t, b, []byte("x"))
			}
			f.until("five datagrams", func() bool { return len(o.res) == 5 })
		})
	}
}

func TestDescriptorsInTheStreamDoNotHideTheBytesBehind(t *testing.T) {
	f := newFixture(t, nil)
	a, b := pair(t, unix.AF_UNIX, unix.SOCK_STREAM)
	closeLater(t, a, b)
	o := f.submit(multiRecv(a))
	for i := range 3 { // the kind of the socket is known after the first
		if err := unix.Sendmsg(b, []byte("fd"), unix.UnixRights(b), nil, 0); err != nil {
			t.Fatal(err)
		}
		write1(t, b, []byte("behind"))
		f.until("all bytes", func() bool { return len(o.data) == 8*(i+1) })
	}
}

func TestUrgentDataDoesNotHideTheBytesBehind(t *testing.T) {
	f := newFixture(t, nil)
	a, b := pair(t, unix.AF_INET, unix.SOCK_STREAM)
	closeLater(t, a, b)
	o := f.submit(multiRecv(a))
	f.turn(0)
	write1(t, b, []byte("before"))
	f.until("the first bytes", func() bool { return len(o.data) == 6 })
	write1(t, b, []byte("more"))
	if err := unix.Sendto(b, []byte("!"), unix.MSG_OOB, nil); err != nil {
		t.Fatal(err)
	}
	write1(t, b, []byte("behind"))
	f.until("the bytes behind", func() bool { return string(o.data) == "beforemorebehind" })
}

// reuse closes fd behind the backend's back and puts a new Unix socket on its number.
func reuse(t testing.TB, fd, typ int) (peer int) {
	t.Helper()
	unix.Close(fd)
	a, b := pair(t, unix.AF_UNIX, typ)
	if b == fd {
		return a
	}
	if a != fd {
		if err := unix.Dup3(a, fd, unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		unix.Close(a)
	}
	return b
}

func TestReusedNumberIsNoticedByAWaitingRecv(t *testing.T) {
	for _, typ := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM} {
		f := newFixture(t, nil)
		a, b := pair(t, unix.AF_INET, unix.SOCK_STREAM)
		buf := make([]byte, 10)
		write1(t, b, []byte("old"))
		f.end(f.submit(recvOp(a, buf)))
		o := f.submit(recvOp(a, buf)) // registers, as nothing is there
		f.turn(0)
		write1(t, b, []byte("old"))
		if r := f.end(o); r.N != 3 {
			t.Fatalf("%+v", r)
		}
		peer := reuse(t, a, typ)
		closeLater(t, a, b, peer)
		o = f.submit(recvOp(a, buf))
		for range 3 {
			f.turn(0)
		}
		write1(t, peer, []byte("new one"))
		if r := f.end(o); string(buf[:r.N]) != "new one" {
			t.Errorf("type %d: got %q, %v", typ, buf[:r.N], r.Errno)
		}
	}
}

func TestReusedNumberIsNoticedInABusyLoop(t *testing.T) {
	f := newFixture(t, nil)
	a, b := pair(t, unix.AF_UNIX, unix.SOCK_STREAM)
	buf := make([]byte, 10)
	o := f.submit(recvOp(a, buf))
	f.turn(0)
	write1(t, b, []byte("old"))
	f.end(o)
	peer := reuse(t, a, unix.SOCK_STREAM)
	closeLater(t, a, b, peer)
	o = f.submit(recvOp(a, buf))
	write1(t, peer, []byte("new"))
	nop := &recorder{}
	for i := 0; !o.ended; i++ { // every turn has a completion of its own
		f.submit(nop)
		f.turn(-1)
		if i > 100*proveTurns {
			t.Fatal("a recv on a reused number never completed in a busy loop")
		}
	}
}

func TestReusedNumberOfABlockingDescriptorDoesNotBlockTheThread(t *testing.T) {
	f := newFixture(t, nil)
	a, b := pair(t, unix.AF_UNIX, unix.SOCK_STREAM)
	o := f.submit(recvOp(a, make([]byte, 10)))
	write1(t, b, []byte("old"))
	f.end(o)
	peer := reuse(t, a, unix.SOCK_STREAM)
	closeLater(t, a, b, peer)
	if err := unix.SetNonblock(a, false); err != nil {
		t.Fatal(err)
	}
	o = f.submit(&recorder{Op: backend.Op{Code: backend.OpRead, FD: int32(a), Off: -1, Buf: make([]byte, 10)}})
	f.turn(patience) // notices it, and tries the read
	write1(t, peer, []byte("new"))
	if r := f.end(o); r.N != 3 {
		t.Errorf("%+v", r)
	}
}

func TestReusedNumberIsNoticedByAPoll(t *testing.T) {
	f := newFixture(t, nil)
	a, b := pair(t, unix.AF_UNIX, unix.SOCK_STREAM)
	poll := &recorder{Op: backend.Op{Code: backend.OpPoll, FD: int32(a), Arg: unix.POLLIN}}
	f.submit(poll)
	write1(t, b, []byte("x"))
	f.end(poll)
	peer := reuse(t, a, unix.SOCK_STREAM)
	closeLater(t, a, b, peer)
	f.submit(poll)
	poll.ended = false
	f.turn(0)
	if poll.ended {
		t.Fatal("the poll saw the old descriptor's data")
	}
	write1(t, peer, []byte("x"))
	if r := f.end(poll); r.N != unix.POLLIN {
		t.Errorf("%+v", r)
	}
}

func TestAcceptedNumberStartsAnew(t *testing.T) {
	f := newFixture(t, nil)
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	closeLater(t, l)
	if err := unix.Bind(l, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(l, 8); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(l)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 10)
	for range 3 {
		c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Connect(c, sa); err != nil {
			t.Fatal(err)
		}
		s := f.end(f.submit(&recorder{Op: backend.Op{Code: backend.OpAccept, FD: int32(l)}})).N
		o := f.submit(recvOp(s, buf))
		f.turn(0)
		write1(t, c, []byte("hello"))
		if r := f.end(o); r.N != 5 {
			t.Errorf("%+v", r)
		}
		unix.Close(s) // behind the backend's back: accept hands the number out again
		unix.Close(c)
	}
}

// A number whose former owner was closed before anything had to wait on it is of
// another kind now: a short read of a datagram does not mean that it was the last.
func TestReusedNumberIsOfItsOwnKind(t *testing.T) {
	f := newFixture(t, nil)
	a, b := pair(t, unix.AF_INET, unix.SOCK_STREAM)
	write1(t, b, []byte("old"))
	if r := f.end(f.submit(recvOp(a, make([]byte, 10)))); r.N != 3 {
		t.Fatalf("%+v", r)
	}
	peer := reuse(t, a, unix.SOCK_DGRAM)
	closeLater(t, a, b, peer)
	o := f.submit(multiRecv(a))
	f.turn(0)
	for range 5 {
		write1(t, peer, []byte("x"))
	}
	f.until("five datagrams", func() bool { return len(o.res) == 5 })
}

func TestStaleEventOfClosedDescriptorIsDropped(t *testing.T) {
	f := newFixture(t, nil)
	a, b := pair(t, unix.AF_UNIX, unix.SOCK_STREAM)
	closeLater(t, b)
	o := f.submit(multiRecv(a))
	f.turn(0)
	gen := f.entry(a).gen
	closing := f.submit(&recorder{Op: backend.Op{Code: backend.OpClose, FD: int32(a)}})
	f.end(closing)
	if !o.ended || o.res[0].Errno != syscall.ECANCELED {
		t.Errorf("the recv ended %v with %+v; want ECANCELED", o.ended, o.res)
	}
	e := f.entry(a)
	before := e.bits
	f.note(&unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLHUP, Fd: int32(a), Pad: gen})
	if e.bits != before || e.gen == gen {
		t.Errorf("an event of generation %d changed an entry of generation %d", gen, e.gen)
	}
}

func TestCancelOfTheLastPollLeavesNothingInTheKernel(t *testing.T) {
	f := newFixture(t, nil)
	a, b := pair(t, unix.AF_UNIX, unix.SOCK_STREAM)
	closeLater(t, a, b)
	registered := func() bool { // ADD fails with EEXIST on what is registered
		err := unix.EpollCtl(f.epfd, unix.EPOLL_CTL_ADD, a, &unix.EpollEvent{})
		if err == nil {
			unix.EpollCtl(f.epfd, unix.EPOLL_CTL_DEL, a, nil)
		}
		return err == unix.EEXIST
	}
	poll := f.submit(&recorder{Op: backend.Op{Code: backend.OpPoll, FD: int32(a), Arg: unix.POLLIN}})
	if !registered() {
		t.Error("not registered while polled")
	}
	f.Cancel(&poll.Op)
	if registered() {
		t.Error("still registered after the cancel")
	}
	f.end(poll)
	poll.ended = false
	f.submit(poll)
	write1(t, b, []byte("x"))
	f.end(poll)
	f.turn(0)
	if registered() {
		t.Error("still registered a turn after the poll completed")
	}
}

func TestBlockingDescriptorsDoNotBlockTheThread(t *testing.T) {
	f := newFixture(t, nil)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	rfd, wfd := int(r.Fd()), int(w.Fd()) // Fd makes them blocking
	big := bytes.Repeat([]byte("x"), 300<<10)
	sent := 0
	out := &recorder{Op: backend.Op{Code: backend.OpWrite, FD: int32(wfd), Off: -1}}
	out.then = func(r backend.Result) {
		if sent += r.N; sent < len(big) {
			out.Buf, out.ended = big[sent:], false
			f.submit(out)
		}
	}
	out.Buf = big
	f.submit(out)
	f.turn(0)
	buf := make([]byte, 10000)
	for got := 0; got < len(big); {
		o := f.submit(&recorder{Op: backend.Op{Code: backend.OpRead, FD: int32(rfd), Off: -1, Buf: buf}})
		got += f.end(o).N
	}
}

func TestPanicOfAReceiverLosesNothing(t *testing.T) {
	f := newFixture(t, &Options{BufferSize: 4})
	a, b := pair(t, unix.AF_INET, unix.SOCK_STREAM)
	closeLater(t, a, b)
	o := f.submit(multiRecv(a))
	panics := 0
	o.then = func(backend.Result) { panics++; panic("receiver") }
	nops := []*recorder{f.submit(&recorder{}), f.submit(&recorder{})}
	nops[0].then = o.then
	write1(t, b, []byte("abcdefghij"))
	for end := time.Now().Add(patience); len(o.data) < 10 || !nops[1].ended; {
		if time.Now().After(end) {
			t.Fatalf("got %q", o.data)
		}
		func() {
			defer func() { recover() }()
			f.turn(100 * time.Millisecond)
		}()
	}
	if panics != 4 || string(o.data) != "abcdefghij" {
		t.Errorf("%d panics, data %q", panics, o.data)
	}
	o.then, nops[0].then = nil, nil
}

func TestWakeRacingCloseWritesToNobody(t *testing.T) {
	for range 50 {
		b, err := New(nil)
		if err != nil {
			t.Fatal(err)
		}
		stop, stopped := make(chan bool), make(chan bool)
		go func() {
			defer close(stopped)
			for {
				select {
				case <-stop:
					return
				default:
					b.Wake()
				}
			}
		}()
		for range 10 {
			if err := b.Wait(time.Millisecond); err != nil {
				t.Fatal(err)
			}
			b.Dispatch()
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		b.Wake()
		close(stop)
		<-stopped
	}
}

func TestWakeIsConsumedByOneWait(t *testing.T) {
	f := newFixture(t, nil)
	f.Wake()
	f.Wake()
	if err := f.Wait(-1); err != nil { // returns, or the test hangs
		t.Fatal(err)
	}
	if s := f.wakeState.Load(); s != awake {
		t.Errorf("state %d after the wake was consumed", s)
	}
}

func TestEntryOfAConnectionIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(entry{}); size > 40 {
		t.Errorf("an entry has %d bytes; every connection has one", size)
	}
}

// The rest of the events waits for the next Dispatch, but not for what is
// submitted now.
func TestAPollIsNotToldOfReadinessFromBeforeAHalt(t *testing.T) {
	f := newFixture(t, nil)
	a, b := pair(t, unix.AF_UNIX, unix.SOCK_STREAM)
	closeLater(t, a, b)
	o := &recorder{Op: backend.Op{Code: backend.OpPoll, FD: int32(a), Arg: unix.POLLIN}}
	o.then = func(backend.Result) {
		if len(o.res) == 1 {
			if _, err := unix.Read(a, make([]byte, 10)); err != nil {
				t.Error(err)
			}
			f.submit(o)
			f.Halt()
		}
	}
	f.submit(o)
	write1(t, b, []byte("x"))
	for range 10 {
		f.turn(0)
	}
	if len(o.res) != 1 {
		t.Errorf("told %+v, but nothing is readable", o.res)
	}
	write1(t, b, []byte("y"))
	f.turn(0)
	if len(o.res) != 2 {
		t.Errorf("told %+v, but something is readable", o.res)
	}
}

func TestACloseComesAfterCompletionsOfItsDescriptor(t *testing.T) {
	f := newFixture(t, nil)
	a, b := pair(t, unix.AF_UNIX, unix.SOCK_STREAM)
	closeLater(t, b)
	recv := &recorder{Op: backend.Op{Code: backend.OpRecv, FD: int32(a), Buf: make([]byte, 10)}}
	recv.then = func(r backend.Result) {
		if _, err := unix.FcntlInt(uintptr(a), unix.F_GETFD, 0); err != nil || !r.Cancelled() {
			t.Errorf("told %+v, and the descriptor: %v", r, err)
		}
	}
	f.submit(recv)
	f.turn(0)
	f.Cancel(&recv.Op)
	closing := &recorder{Op: backend.Op{Code: backend.OpClose, FD: int32(a)}}
	f.submit(closing)
	f.turn(0)
	if !recv.ended || !closing.ended {
		t.Errorf("ended: %v, %v", recv.ended, closing.ended)
	}
}
