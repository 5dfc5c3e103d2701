package transport

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
)

func TestWaterMarksAreCompletedAndChecked(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		tr, _ := joined(t, co, p)
		for _, c := range []struct{ high, low, wantHigh, wantLow int }{
			{Default, Default, 65536, 16384},
			{Default, 1000, 4000, 1000},
			{1000, Default, 1000, 250},
			{0, Default, 0, 0},
			{5, 5, 5, 5},
		} {
			check(t, tr.SetWriteBufferLimits(c.high, c.low))
			if low, high := tr.WriteBufferLimits(); low != c.wantLow || high != c.wantHigh {
				t.Errorf("high %d, low %d: got high %d, low %d", c.high, c.low, high, low)
			}
		}
		for _, c := range [][2]int{{1, 2}, {-5, -6}, {0, 1}, {10, -2}} {
			if err := tr.SetWriteBufferLimits(c[0], c[1]); !errors.Is(err, loop.ErrInvalidArgument) {
				t.Errorf("high %d, low %d: %v", c[0], c[1], err)
			}
		}
		if low, high := tr.WriteBufferLimits(); low != 5 || high != 5 {
			t.Errorf("a refused call changed the marks to %d and %d", low, high)
		}
		tr.Abort()
		check(t, p.untilLost(t, co))
		check(t, tr.SetWriteBufferLimits(0, 0))
	})
}

func TestTheProtocolIsPausedAboveTheHighMarkAndResumedAtTheLowOne(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		tr, peer := joined(t, co, p)
		check(t, tr.SetWriteBufferLimits(1<<30, Default))
		total := len(stuff(t, co, tr))
		size := tr.WriteBufferSize()
		check(t, tr.SetWriteBufferLimits(size+10, 0))
		check(t, tr.Write(make([]byte, 10)))
		p.want(t, "made")
		inside := false
		p.onPause = func() { inside = true }
		check(t, tr.Write(make([]byte, 1)))
		if !inside {
			t.Error("PauseWriting was not called from inside Write")
		}
		check(t, tr.Write(make([]byte, 1)))
		p.want(t, "made", "pause")
		p.onResume = func() {
			if n := tr.WriteBufferSize(); n != 0 {
				t.Errorf("%d bytes were buffered in ResumeWriting, the low mark is 0", n)
			}
		}
		receive(t, co, peer, total+12)
		until(t, co, "writing resumes", func() bool { return len(p.events) == 3 })
		p.want(t, "made", "pause", "resume")
		tr.Close()
		check(t, p.untilLost(t, co))
	})
}

func TestChangingTheMarksPausesAndResumesAtOnce(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		tr, _ := joined(t, co, p)
		check(t, tr.SetWriteBufferLimits(1<<30, Default))
		stuff(t, co, tr)
		check(t, tr.SetWriteBufferLimits(100, Default))
		p.want(t, "made", "pause")
		// CPython leaves the protocol paused here.
		check(t, tr.SetWriteBufferLimits(1<<30, 1<<29))
		p.want(t, "made", "pause", "resume")
		tr.Abort()
		check(t, p.untilLost(t, co))
	})
}

func TestLowerMarksPauseOnlyForWhatTheKernelDoesNotTake(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		tr, peer := joined(t, co, p)
		check(t, tr.Write([]byte("ab")))
		check(t, tr.SetWriteBufferLimits(0, 0))
		check(t, tr.Write([]byte("c")))
		if n := tr.WriteBufferSize(); n != 0 {
			t.Errorf("%d bytes are buffered", n)
		}
		if got := receive(t, co, peer, 3); string(got) != "abc" {
			t.Errorf("got %q", got)
		}
		tr.Close()
		check(t, p.untilLost(t, co))
		p.want(t, "made", "lost")
	})
}

func TestResumeWritingMayWriteToAnotherTransport(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p, q := &recorder{}, &recorder{}
		tr, peer := joined(t, co, p)
		other, otherPeer := joined(t, co, q)
		p.onResume = func() {
			check(t, other.Write([]byte("resumed")))
			check(t, tr.Write([]byte("more")))
		}
		total := len(stuff(t, co, tr))
		receive(t, co, peer, total+4)
		if got := receive(t, co, otherPeer, 7); string(got) != "resumed" {
			t.Errorf("got %q", got)
		}
		tr.Close()
		other.Close()
		check(t, p.untilLost(t, co))
		check(t, q.untilLost(t, co))
	})
}

func TestAPanicInPauseOrResumeWritingIsReportedAndTheConnectionGoesOn(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		all := reports(co)
		p := &recorder{}
		tr, peer := joined(t, co, p)
		p.onPause = func() { panic("pause") }
		p.onResume = func() { panic("resume") }
		total := len(stuff(t, co, tr))
		receive(t, co, peer, total)
		until(t, co, "writing resumes", func() bool { return len(*all) == 2 })
		check(t, tr.Write([]byte("alive")))
		receive(t, co, peer, 5)
		tr.Close()
		check(t, p.untilLost(t, co))
	})
}

func TestThePausedProtocolIsNotResumedWhenTheConnectionDies(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		tr, _ := joined(t, co, p)
		stuff(t, co, tr)
		tr.Abort()
		check(t, p.untilLost(t, co))
		p.want(t, "made", "pause", "lost")
	})
}

func TestWithMarksOfZeroOnlyWhatTheKernelDoesNotTakePauses(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		tr, peer := joined(t, co, p)
		check(t, tr.SetWriteBufferLimits(0, Default))
		check(t, tr.Write([]byte("fits")))
		receive(t, co, peer, 4)
		p.want(t, "made")
		total := len(stuff(t, co, tr))
		p.want(t, "made", "pause")
		receive(t, co, peer, total)
		until(t, co, "writing resumes", func() bool { return len(p.events) == 3 })
		p.want(t, "made", "pause", "resume")
		tr.Close()
		check(t, p.untilLost(t, co))
	})
}

// A protocol that goes on writing in ResumeWriting must not find itself inside of
// its own Write.
func TestAWriteWhilePausedDoesNotResumeFromInside(t *testing.T) {
	for name, open := range map[string]func(t *testing.T, co *loop.Coro) pausable{
		"stream": func(t *testing.T, co *loop.Coro) pausable {
			p := &recorder{}
			tr, peer := joined(t, co, p)
			write := func() { check(t, tr.Write(make([]byte, 1024))) }
			return pausable{tr, &p.diary, peer.Fd(), write}
		},
		"pipe": func(t *testing.T, co *loop.Coro) pausable {
			p := &streamDiary{}
			r, w := osPipe(t)
			tr := writePipeOf(t, co, p, w)
			var fd int
			check(t, onFD(r, func(n int) error { fd = n; return nil }))
			write := func() { check(t, tr.Write(make([]byte, 1024))) }
			return pausable{tr, &p.diary, fd, write}
		},
		"datagram": func(t *testing.T, co *loop.Coro) pausable {
			ours, theirs, err := sockapi.Pair(unix.SOCK_DGRAM)
			check(t, err)
			t.Cleanup(func() { _ = theirs.Close() })
			p := endpoint(t, co, DatagramOptions{Sock: ours})
			return pausable{p.t, &p.diary, theirs.Fd(), func() { p.send(t, "packet", Addr{}) }}
		},
	} {
		t.Run(name, func(t *testing.T) {
			inTask(t, func(t *testing.T, co *loop.Coro) {
				c := open(t, co)
				check(t, c.tr.SetWriteBufferLimits(0, 0))
				for len(c.diary.events) == 1 {
					c.write()
				}
				c.diary.want(t, "made", "pause")
				drainFD(c.peer)
				c.write()
				c.diary.want(t, "made", "pause")
				until(t, co, "writing resumes", func() bool { return len(c.diary.events) == 3 })
				c.diary.want(t, "made", "pause", "resume")
				c.tr.Abort()
				check(t, c.diary.untilLost(t, co))
			})
		})
	}
}

// pausable is a transport whose protocol is to be paused by writing, and the
// other end's descriptor.
type pausable struct {
	tr    Conn
	diary *diary
	peer  int
	write func()
}

// drainFD reads what there is, without waiting.
func drainFD(fd int) {
	buf := make([]byte, 64<<10)
	for {
		if n, err := unix.Read(fd, buf); n <= 0 || err != nil {
			return
		}
	}
}

// evictor needs only one of the two callbacks of flow control, and leaves the
// other one to the base.
type evictor struct {
	BaseStreamProtocol
	t     Transport
	evict int
}

func (e *evictor) ConnectionMade(t Transport) { e.t = t }

func (e *evictor) PauseWriting() {
	e.evict++
	e.t.Abort()
}

func TestTheBasesHaveTheOtherCallbackOfFlowControl(t *testing.T) {
	for _, base := range []any{BaseProtocol{}, BaseStreamProtocol{}, BaseDatagramProtocol{}, BaseSubprocessProtocol{}} {
		if _, ok := base.(FlowController); !ok {
			t.Errorf("%T is no FlowController", base)
		}
	}
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &evictor{}
		tr, _ := joined(t, co, p)
		check(t, tr.Write(make([]byte, 4<<20)))
		if p.evict != 1 || !tr.IsClosing() || tr.WriteBufferSize() != 0 {
			t.Errorf("PauseWriting was called %d times, %v", p.evict, tr)
		}
	})
}
