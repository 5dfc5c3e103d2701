package transport

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
)

// turnCounter is a backend that counts the turns of its loop.
type turnCounter struct {
	backend.Backend
	turns int
}

func (b *turnCounter) Wait(timeout time.Duration) error {
	b.turns++
	return b.Backend.Wait(timeout)
}

// fullPeer returns endpoint a, which is not connected and whose packets to addr,
// where b does not read, do not fit any more: at least one is queued. They are
// numbered from 0; sent is how many there are.
func fullPeer(t *testing.T, co *loop.Coro) (a, b *datagramDiary, addr Addr, sent int) {
	t.Helper()
	dir := t.TempDir()
	addr = sockapi.UnixAddr(filepath.Join(dir, "b"))
	a = endpoint(t, co, DatagramOptions{LocalAddr: sockapi.UnixAddr(filepath.Join(dir, "a"))})
	b = endpoint(t, co, DatagramOptions{LocalAddr: addr})
	check(t, b.t.PauseReading())
	for idle := 0; idle < 20; idle++ {
		for a.t.WriteBufferSize() == 0 {
			a.send(t, fmt.Sprintf("%d ", sent), addr)
			sent++
			idle = 0
		}
		check(t, loop.Sleep(co, 0))
	}
	return a, b, addr, sent
}

func TestPacketsForAFullUnixSocketLetTheLoopSleep(t *testing.T) {
	eachBackend(t, func(t *testing.T, name string) {
		counter := &turnCounter{}
		l := ipcLoop(t, loop.WithBackendFactory(func() (_ backend.Backend, err error) {
			counter.Backend, err = newBackend(name)
			return counter, err
		}))
		runTask(t, l, func(co *loop.Coro) error {
			a, b, _, sent := fullPeer(t, co)
			turns, start := counter.turns, l.Time()
			check(t, loop.Sleep(co, 100*time.Millisecond))
			// The longest pause between attempts is 4 ms, and each takes a few turns.
			if n, bound := counter.turns-turns, 100+2*int((l.Time()-start)/time.Millisecond); n > bound {
				t.Errorf("the loop has turned %d times, more than %d", n, bound)
			}
			resumeAndCount(t, co, b, sent, "")
			finish(t, co, a, b)
			return nil
		})
	})
}

func TestPacketsForAFullUnixSocketArriveWholeAndInOrder(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		a, b, addr, sent := fullPeer(t, co)
		check(t, a.t.SetWriteBufferLimits(1000, 0))
		for range 200 {
			a.send(t, fmt.Sprintf("%d ", sent), addr)
			sent++
		}
		a.t.Close()
		if a.lost {
			t.Error("lost with packets in the queue")
		}
		resumeAndCount(t, co, b, sent, "")
		check(t, a.untilLost(t, co))
		a.want(t, "made", "pause", "resume", "lost")
		finish(t, co, b)
	})
}

func TestAbortDropsThePacketsForAFullUnixSocket(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		a, b, addr, sent := fullPeer(t, co)
		finish(t, co, a)
		check(t, b.t.ResumeReading())
		other := endpoint(t, co, DatagramOptions{LocalAddr: sockapi.UnixAddr(addr.Path() + "2")})
		other.send(t, "end", addr)
		until(t, co, "the last packet arrives", func() bool { return slices.Contains(b.got, "end") })
		if len(b.got) != sent {
			t.Errorf("got %q, want %d packets and the last one", b.got, sent-1)
		}
		finish(t, co, b, other)
	})
}

func TestPacketsForAUnixSocketThatIsGoneAreErrors(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		a, b, addr, _ := fullPeer(t, co)
		finish(t, co, b)
		until(t, co, "the queued packet is refused", func() bool { return len(a.errs) == 1 })
		a.send(t, "x", addr)
		if len(a.errs) != 1 {
			t.Error("ErrorReceived was called from inside SendTo")
		}
		until(t, co, "the next packet is refused", func() bool { return len(a.errs) == 2 })
		for _, err := range a.errs {
			if !errors.Is(err, syscall.ECONNREFUSED) || !strings.Contains(err.Error(), addr.Path()) {
				t.Errorf("the error is %v", err)
			}
		}
		finish(t, co, a)
	})
}
