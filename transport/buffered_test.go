package transport

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
)

// bufferRecorder is a buffered protocol that notes its callbacks.
type bufferRecorder struct {
	diary
	t         Transport
	buf       []byte
	data      bytes.Buffer
	asked     int // calls of GetBuffer since the last BufferUpdated
	onGet     func() []byte
	onUpdated func()
	onLost    func()
}

func (p *bufferRecorder) ConnectionMade(t Transport) {
	p.t = t
	p.note("made")
}

func (p *bufferRecorder) ConnectionLost(err error) {
	p.diary.ConnectionLost(err)
	if p.onLost != nil {
		p.onLost()
	}
}

func (p *bufferRecorder) GetBuffer(int) []byte {
	p.asked++
	if p.onGet != nil {
		return p.onGet()
	}
	return p.buf
}

func (p *bufferRecorder) BufferUpdated(n int) {
	if n <= 0 || p.asked == 0 {
		p.note("BufferUpdated(%d) after %d GetBuffer", n, p.asked)
	}
	p.asked = 0
	p.data.Write(p.buf[:n])
	clear(p.buf[:n])
	if p.onUpdated != nil {
		p.onUpdated()
	}
}

func (p *bufferRecorder) EOFReceived() bool {
	p.note("eof")
	return false
}

func (p *bufferRecorder) untilData(t *testing.T, co *loop.Coro, want string) {
	t.Helper()
	until(t, co, "the data arrives", func() bool { return p.data.Len() >= len(want) })
	if p.data.String() != want {
		t.Errorf("%d bytes arrived that are not the %d sent", p.data.Len(), len(want))
	}
}

func TestDataArrivesInTheProtocolsOwnBuffer(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &bufferRecorder{buf: make([]byte, 100)}
		tr, peer := joined(t, co, p)
		want := strings.Repeat("0123456789", 1000)
		check(t, sockapi.SendAll(co, peer, []byte(want)))
		p.untilData(t, co, want)
		tr.Close()
		check(t, p.untilLost(t, co))
		p.want(t, "made", "lost")
	})
}

func TestAFailingOrEmptyGetBufferIsFatalBeforeReading(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		for _, fails := range []bool{true, false} {
			all := reports(co)
			p := &bufferRecorder{}
			if fails {
				p.onGet = func() []byte { panic("no buffer") }
			}
			_, peer := joined(t, co, p)
			_ = sockapi.SendAll(co, peer, []byte("x"))
			if err := p.untilLost(t, co); err == nil {
				t.Error("lost without an error")
			}
			p.want(t, "made", "lost")
			if len(*all) != 1 || !strings.Contains((*all)[0].Message, "GetBuffer") {
				t.Errorf("reports are %v", *all)
			}
		}
	})
}

func TestAFailingBufferUpdatedIsFatal(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		all := reports(co)
		p := &bufferRecorder{buf: make([]byte, 10)}
		p.onUpdated = func() { panic("updated") }
		_, peer := joined(t, co, p)
		check(t, sockapi.SendAll(co, peer, []byte("x")))
		var pe *loop.PanicError
		if err := p.untilLost(t, co); !errors.As(err, &pe) {
			t.Errorf("lost with %v", err)
		}
		if len(*all) != 1 || !strings.Contains((*all)[0].Message, "BufferUpdated") {
			t.Errorf("reports are %v", *all)
		}
	})
}

func TestSwitchingBetweenPlainAndBufferedTakesTheNextRead(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		plain, own := &recorder{}, &bufferRecorder{buf: make([]byte, 4)}
		tr, peer := joined(t, co, plain)
		for i, p := range []Protocol{own, plain, own, plain} {
			check(t, sockapi.SendAll(co, peer, []byte("to the one, ")))
			if i%2 == 0 {
				plain.untilData(t, co, strings.Repeat("to the one, ", i/2+1))
			} else {
				own.untilData(t, co, strings.Repeat("to the one, ", i/2+1))
			}
			tr.SetProtocol(p)
		}
		// While it is about to read into the memory of one, the other takes over.
		tr.SetProtocol(own)
		turns(t, co)
		check(t, sockapi.SendAll(co, peer, []byte("split")))
		tr.SetProtocol(plain)
		before := plain.data.Len() + own.data.Len()
		until(t, co, "it arrives somewhere", func() bool { return plain.data.Len()+own.data.Len() == before+5 })
		if !strings.HasSuffix(plain.data.String(), "split") {
			t.Errorf("the plain protocol has %q, the buffered one %q", plain.data.String(), own.data.String())
		}
		tr.Close()
		check(t, plain.untilLost(t, co))
	})
}

func TestGetBufferMayReplaceTheProtocol(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		plain, own := &recorder{}, &bufferRecorder{buf: make([]byte, 16)}
		for _, next := range []Protocol{plain, own} {
			p := &bufferRecorder{buf: make([]byte, 16)}
			tr, peer := joined(t, co, p)
			p.onGet = func() []byte {
				if p.data.Len() > 0 {
					tr.SetProtocol(next)
				}
				return p.buf
			}
			check(t, sockapi.SendAll(co, peer, []byte("one")))
			p.untilData(t, co, "one")
			check(t, sockapi.SendAll(co, peer, []byte("two")))
			until(t, co, "the next protocol is there", func() bool { return tr.Protocol() == next })
			if next == Protocol(plain) {
				plain.untilData(t, co, "two")
			} else {
				own.untilData(t, co, "two")
			}
			tr.Abort()
			turns(t, co)
		}
	})
}

func TestGetBufferIsNotCalledFromInsideResumeReading(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &bufferRecorder{buf: make([]byte, 16)}
		tr, peer := joined(t, co, p)
		resuming := false
		p.onGet = func() []byte {
			if resuming {
				t.Error("GetBuffer was called from inside ResumeReading")
			}
			return p.buf
		}
		resume := func() {
			resuming = true
			check(t, tr.ResumeReading())
			resuming = false
		}
		p.onUpdated = func() { check(t, tr.PauseReading()) }
		check(t, sockapi.SendAll(co, peer, []byte("one")))
		p.untilData(t, co, "one")
		turns(t, co)
		resume()

		// A pause that is over when GetBuffer returns leaves one receive, not two.
		p.onUpdated = nil
		p.onGet = func() []byte {
			check(t, tr.PauseReading())
			check(t, tr.ResumeReading())
			return p.buf
		}
		for _, word := range []string{"two", "three", "four"} {
			check(t, sockapi.SendAll(co, peer, []byte(word)))
			until(t, co, word+" arrives", func() bool { return strings.HasSuffix(p.data.String(), word) })
		}
		tr.Abort()
		check(t, p.untilLost(t, co))
		p.want(t, "made", "lost")
	})
}

func TestAPausedBufferedProtocolGetsEverythingInOrderLater(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &bufferRecorder{buf: make([]byte, 100)}
		tr, peer := joined(t, co, p)
		p.onUpdated = func() { check(t, tr.PauseReading()) }
		want := ""
		for i := range 10 {
			part := strings.Repeat(string(rune('a'+i)), 333)
			want += part
			check(t, sockapi.SendAll(co, peer, []byte(part)))
			turns(t, co)
		}
		until(t, co, "the data arrives", func() bool {
			check(t, tr.ResumeReading())
			return p.data.Len() >= len(want)
		})
		if p.data.String() != want {
			t.Error("the data arrived in another order")
		}
		tr.Abort()
		check(t, p.untilLost(t, co))
	})
}

func TestGetBufferMayPauseTheDeliveryOfWhatWasParked(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		tr, peer := joined(t, co, &recorder{})
		check(t, tr.PauseReading())
		want := "parked while paused"
		check(t, sockapi.SendAll(co, peer, []byte(want)))
		turns(t, co)
		p := &bufferRecorder{buf: make([]byte, 4)}
		tr.SetProtocol(p)
		p.onGet = func() []byte {
			if p.asked == 1 && p.data.Len() == 4 {
				check(t, tr.PauseReading())
			}
			return p.buf
		}
		check(t, tr.ResumeReading())
		turns(t, co)
		if got := p.data.String(); got != want[:4] {
			t.Errorf("%q was delivered before and after the pause", got)
		}
		p.asked = 1
		check(t, tr.ResumeReading())
		p.untilData(t, co, want)
		tr.Abort()
		check(t, p.untilLost(t, co))
	})
}

func TestTheProtocolsMemoryIsItsOwnAgainWhenTheConnectionIsLost(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		for what, end := range map[string]func(t Transport){"closed": Transport.Close, "aborted": Transport.Abort} {
			for _, replaced := range []bool{false, true} {
				p := &bufferRecorder{buf: make([]byte, 16)}
				tr, peer := joined(t, co, p)
				turns(t, co)
				last := p
				if replaced {
					last = &bufferRecorder{buf: p.buf}
					tr.SetProtocol(last)
				}
				last.onLost = func() {
					if tr.(*stream).op.InFlight() {
						t.Errorf("%s, replaced: %v: the kernel still has the buffer", what, replaced)
					}
				}
				end(tr)
				ok[int](t)(unix.Write(peer.Fd(), []byte("late")))
				check(t, last.untilLost(t, co))
				turns(t, co)
				if !bytes.Equal(p.buf, make([]byte, 16)) {
					t.Errorf("%s, replaced: %v: the buffer has %q", what, replaced, p.buf)
				}
			}
		}
	})
}

func TestAHangUpWithMoreThanOneBufferStillDeliversEverything(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &bufferRecorder{buf: make([]byte, 64)}
		tr, peer := joined(t, co, p)
		check(t, tr.PauseReading())
		want := strings.Repeat("x", 10_000)
		check(t, sockapi.SendAll(co, peer, []byte(want)))
		check(t, peer.Shutdown(unix.SHUT_RDWR))
		check(t, sockapi.CloseWait(co, peer))
		check(t, tr.ResumeReading())
		check(t, p.untilLost(t, co))
		if p.data.String() != want {
			t.Errorf("%d of %d bytes arrived", p.data.Len(), len(want))
		}
		p.want(t, "made", "eof", "lost")
	})
}
