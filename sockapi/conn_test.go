package sockapi

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/loop"
)

func TestHTTPRunsInTasksOverConn(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, b := pair(t, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			body := strings.Repeat("body ", 10000)
			spawn(co, func(co *loop.Coro) (struct{}, error) {
				c := NewConn(co, a)
				defer c.Close()
				req, err := http.ReadRequest(bufio.NewReader(c))
				if err != nil {
					return struct{}{}, err
				}
				got, err := io.ReadAll(req.Body)
				if err != nil {
					return struct{}{}, err
				}
				_, err = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(got), got)
				return struct{}{}, err
			})
			c := NewConn(co, b)
			req, err := http.NewRequest(http.MethodPost, "http://example.com/x", strings.NewReader(body))
			if err != nil {
				return err
			}
			if err := req.Write(c); err != nil {
				return err
			}
			resp, err := http.ReadResponse(bufio.NewReader(c), req)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			got, err := io.ReadAll(resp.Body)
			if string(got) != body {
				t.Errorf("received %d bytes, want %d", len(got), len(body))
			}
			return err
		})
	})
}

func TestConnSendsFilesFromTheirPosition(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		f := tempFile(t, []byte("0123456789"))
		run(t, l, func(co *loop.Coro) error {
			a, b := tcpPair(t, co)
			c := NewConn(co, a)
			if _, err := f.Seek(2, io.SeekStart); err != nil {
				return err
			}
			if n, err := io.Copy(c, io.LimitReader(f, 3)); n != 3 || err != nil {
				t.Errorf("Copy of a part = %d, %v", n, err)
			}
			if n, err := c.ReadFrom(f); n != 5 || err != nil {
				t.Errorf("ReadFrom the rest = %d, %v", n, err)
			}
			if n, err := c.ReadFrom(strings.NewReader("x")); n != 1 || err != nil {
				t.Errorf("ReadFrom a reader = %d, %v", n, err)
			}
			if n, err := c.ReadFrom(io.LimitReader(f, 0)); n != 0 || err != nil {
				t.Errorf("ReadFrom nothing = %d, %v", n, err)
			}
			if err := c.CloseWrite(); err != nil {
				return err
			}
			got, err := receiveAll(co, b).Await(co)
			if string(got) != "23456789x" {
				t.Errorf("received %q", got)
			}
			return err
		})
	})
}

// wrapped is a file as a type of its own; it notes on which thread it is read.
type wrapped struct {
	*os.File
	thread int
}

func (w *wrapped) Read(p []byte) (int, error) {
	w.thread = unix.Gettid()
	return w.File.Read(p)
}

func TestConnSendsWhatIsLikeAFileAsFiles(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		f := tempFile(t, []byte("0123456789"))
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if _, err := w.WriteString("abc"); err != nil {
			t.Fatal(err)
		}
		_ = w.Close()
		run(t, l, func(co *loop.Coro) error {
			a, b := tcpPair(t, co)
			c := NewConn(co, a)
			if _, err := f.Seek(2, io.SeekStart); err != nil {
				return err
			}
			regular, pipe := &wrapped{File: f}, &wrapped{File: r}
			if n, err := c.ReadFrom(io.LimitReader(regular, 3)); n != 3 || err != nil {
				t.Errorf("ReadFrom a part = %d, %v", n, err)
			}
			if n, err := c.ReadFrom(regular); n != 5 || err != nil || position(t, f) != 10 {
				t.Errorf("ReadFrom the rest = %d, %v, position %d", n, err, position(t, f))
			}
			if regular.thread != 0 {
				t.Error("a regular file was read instead of sent by the kernel")
			}
			if n, err := c.ReadFrom(pipe); n != 3 || err != nil {
				t.Errorf("ReadFrom a pipe = %d, %v", n, err)
			}
			if pipe.thread == 0 || pipe.thread == unix.Gettid() {
				t.Errorf("a pipe was read on thread %d, the loop's is %d", pipe.thread, unix.Gettid())
			}
			if err := c.CloseWrite(); err != nil {
				return err
			}
			got, err := receiveAll(co, b).Await(co)
			if string(got) != "23456789abc" {
				t.Errorf("received %q", got)
			}
			return err
		})
	})
}

// isDeadline reports whether err is what package net returns.
func isDeadline(err error) bool {
	var ne net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) && errors.As(err, &ne) && ne.Timeout()
}

func TestADeadlineEndsReadsThatWaitAndLaterOnes(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, b := pair(t, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			c := NewConn(co, a)
			p := make([]byte, 10)
			if err := c.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
				return err
			}
			for range 2 {
				if _, err := c.Read(p); !isDeadline(err) {
					t.Errorf("Read after the deadline = %v", err)
				}
			}
			if err := c.SetReadDeadline(time.Time{}); err != nil {
				return err
			}
			if _, err := NewConn(co, b).Write([]byte("data")); err != nil {
				return err
			}
			n, err := c.Read(p)
			if string(p[:n]) != "data" {
				t.Errorf("Read without a deadline = %q", p[:n])
			}
			return err
		})
	})
}

func TestADeadlineThatIsMovedHoldsAsMoved(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, b := pair(t, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			c := NewConn(co, a)
			// Later: the timer of the first fires and must do nothing.
			for _, d := range []time.Duration{time.Millisecond, time.Hour} {
				if err := c.SetDeadline(time.Now().Add(d)); err != nil {
					return err
				}
			}
			waiting := spawn(co, func(co *loop.Coro) (struct{}, error) {
				if err := loop.Sleep(co, 3*time.Millisecond); err != nil {
					return struct{}{}, err
				}
				return struct{}{}, SendAll(co, b, []byte("x"))
			})
			p := make([]byte, 10)
			if n, err := c.Read(p); n != 1 || err != nil {
				t.Errorf("Read before the moved deadline = %d, %v", n, err)
			}
			if _, err := waiting.Await(co); err != nil {
				return err
			}
			// Earlier.
			if err := c.SetDeadline(time.Now().Add(time.Millisecond)); err != nil {
				return err
			}
			if _, err := c.Read(p); !isDeadline(err) {
				t.Errorf("Read after the moved deadline = %v", err)
			}
			return c.Close()
		})
	})
}

func TestADeadlineLeavesCallsOfOthersAlone(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, b := pair(t, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			other := func() *loop.Task[int] {
				return spawn(co, func(co *loop.Coro) (int, error) { return RecvInto(co, a, make([]byte, 10)) })
			}
			c := NewConn(co, a)
			if err := c.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
				return err
			}
			waiting := other() // the Conn has no call under way
			for c.read.armed {
				if err := loop.Sleep(co, time.Millisecond); err != nil {
					return err
				}
			}
			if err := c.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
				return err
			}
			if _, err := c.Read(make([]byte, 10)); !isDeadline(err) { // behind the other's
				t.Errorf("Read that waits for its turn = %v", err)
			}
			if err := SendAll(co, b, []byte("data")); err != nil {
				return err
			}
			if n, err := waiting.Await(co); n != 4 || err != nil {
				t.Errorf("the other's call = %d, %v", n, err)
			}
			return c.Close()
		})
	})
}

func TestADeadlineAfterACancellationLeavesTheOthersCallAlone(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, b := pair(t, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			waiting := spawn(co, func(co *loop.Coro) (int, error) { return RecvInto(co, a, make([]byte, 10)) })
			yield(t, co, 2)
			c := NewConn(co, a)
			err := loop.Timeout(co, time.Millisecond, func() error { // both fall due in one turn, or one of them before
				if err := c.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil {
					return err
				}
				_, err := c.Read(make([]byte, 10))
				return err
			})
			if !isDeadline(err) && !errors.Is(err, loop.ErrTimeout) {
				t.Errorf("Read behind another call = %v", err)
			}
			for c.read.armed {
				if err := loop.Sleep(co, time.Millisecond); err != nil {
					return err
				}
			}
			if err := SendAll(co, b, []byte("data")); err != nil {
				return err
			}
			if n, err := waiting.Await(co); n != 4 || err != nil {
				t.Errorf("the other's call = %d, %v", n, err)
			}
			return c.Close()
		})
	})
}

// slowReader takes until the deadline of a Conn has passed.
type slowReader struct{ passed chan struct{} }

func (r slowReader) ReadAt(p []byte, _ int64) (int, error) {
	<-r.passed
	return len(p), nil
}

func TestADeadlineHoldsAlsoWhenNoOperationIsInFlight(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, _ := pair(t, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			passed := make(chan struct{})
			c := NewConn(co, a)
			if err := c.SetWriteDeadline(time.Now().Add(time.Millisecond)); err != nil {
				return err
			}
			c.write.limits = true // as in ReadFrom
			watch := spawn(co, func(co *loop.Coro) (struct{}, error) {
				for c.write.armed {
					if err := loop.Sleep(co, time.Millisecond); err != nil {
						return struct{}{}, err
					}
				}
				close(passed)
				return struct{}{}, nil
			})
			if n, err := Sendfile(co, a, slowReader{passed}, 0, ToEnd, nil); n != 0 || !isDeadline(err) {
				t.Errorf("Sendfile from a reader that took too long = %d, %v", n, err)
			}
			_, err := watch.Await(co)
			return err
		})
	})
}

func TestADeadlineEndsWritesAndSendfilesThatWait(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		f := tempFile(t, nil)
		if err := f.Truncate(64 << 20); err != nil {
			t.Fatal(err)
		}
		run(t, l, func(co *loop.Coro) error {
			a, _ := tcpPair(t, co)
			c := NewConn(co, a)
			big := make([]byte, 64<<20)
			for range 2 {
				if err := c.SetWriteDeadline(time.Now().Add(2 * time.Millisecond)); err != nil {
					return err
				}
				n, err := c.Write(big)
				if !isDeadline(err) || n == len(big) {
					t.Errorf("Write after the deadline = %d, %v", n, err)
				}
			}
			if err := c.SetWriteDeadline(time.Now().Add(2 * time.Millisecond)); err != nil {
				return err
			}
			if _, err := f.Seek(0, io.SeekStart); err != nil {
				return err
			}
			if n, err := c.ReadFrom(f); !isDeadline(err) {
				t.Errorf("ReadFrom after the deadline = %d, %v", n, err)
			}
			return c.Close()
		})
	})
}

func TestConnKnowsItsAddresses(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		run(t, l, func(co *loop.Coro) error {
			a, b := tcpPair(t, co)
			x, y := NewConn(co, a), NewConn(co, b)
			if x.LocalAddr().String() != y.RemoteAddr().String() || x.RemoteAddr().Network() != "tcp" {
				t.Errorf("addresses %v %v, %v %v", x.LocalAddr(), x.RemoteAddr(), y.LocalAddr(), y.RemoteAddr())
			}
			if x.Socket() != a {
				t.Error("Socket is another one")
			}
			u, _ := pair(t, unix.SOCK_STREAM)
			if got := NewConn(co, u).RemoteAddr(); got == nil || got.Network() != "unix" {
				t.Errorf("the address of a Unix socket is %v", got)
			}
			return nil
		})
	})
}

func TestOneMayGoOnAfterADeadline(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, b := pair(t, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			c := NewConn(co, a)
			_ = c.SetReadDeadline(time.Now())
			_, err := c.Read(make([]byte, 1))
			// crypto/tls asks so whether the connection is of use any more.
			if e, ok := err.(interface {
				Timeout() bool
				Temporary() bool
			}); !ok || !e.Timeout() || !e.Temporary() {
				t.Errorf("Read: %v, which is not temporary", err)
			}
			// Later than the clock can say is no time in the past.
			_ = c.SetDeadline(time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC))
			if _, err := c.Write([]byte("x")); err != nil {
				t.Error(err)
			}
			if err := SendAll(co, b, []byte("y")); err != nil {
				return err
			}
			if _, err := c.Read(make([]byte, 1)); err != nil {
				t.Error(err)
			}
			return c.Close()
		})
	})
}

func TestTheAddressesOutliveTheConnection(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		run(t, l, func(co *loop.Coro) error {
			a, b := tcpPair(t, co)
			c := NewConn(co, a)
			local, remote := c.LocalAddr().String(), c.RemoteAddr().String()
			check := func(when string) {
				if l, r := c.LocalAddr(), c.RemoteAddr(); l == nil || r == nil || l.String() != local || r.String() != remote {
					t.Errorf("%s: the addresses are %v and %v, want %s and %s", when, l, r, local, remote)
				}
			}
			if err := b.SetLinger(0); err != nil {
				return err
			}
			if err := CloseWait(co, b); err != nil {
				return err
			}
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("Read: %v", err)
			}
			check("after a reset")
			if err := c.Close(); err != nil {
				return err
			}
			check("after Close")
			return nil
		})
	})
}

func TestAConnGoesOnAfterACancelledRead(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, b := pair(t, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			reading := spawn(co, func(co *loop.Coro) (string, error) {
				c := NewConn(co, a)
				p := make([]byte, 10)
				_, err := c.Read(p)
				var cancelled *loop.CancelledError
				if !errors.As(err, &cancelled) || cancelled.Msg != "enough" || !errors.Is(err, context.Canceled) {
					t.Errorf("Read: %v", err)
				}
				// crypto/tls asks so whether the connection is of use any more.
				if e, ok := err.(interface {
					net.Error
					Temporary() bool
				}); !ok || e.Timeout() || !e.Temporary() {
					t.Errorf("Read: %v, which is not temporary", err)
				}
				co.Task().Uncancel()
				n, err := c.Read(p)
				return string(p[:n]), err
			})
			yield(t, co, 3)
			reading.Cancel("enough")
			yield(t, co, 3)
			if err := SendAll(co, b, []byte("later")); err != nil {
				return err
			}
			got, err := reading.Await(co)
			if got != "later" {
				t.Errorf("received %q", got)
			}
			return err
		})
	})
}

func TestATaskThatReturnsTheErrorOfACancelledReadIsCancelled(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, _ := pair(t, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			reading := spawn(co, func(co *loop.Coro) (int, error) { return NewConn(co, a).Read(make([]byte, 1)) })
			yield(t, co, 3)
			reading.Cancel("")
			if _, err := reading.Await(co); !errors.Is(err, loop.ErrCancelled) || !reading.Cancelled() {
				t.Errorf("the task: %v, cancelled %v", err, reading.Cancelled())
			}
			return nil
		})
	})
}

func TestThatAConnIsClosedIsSaidBeforeThatItIsLate(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, _ := pair(t, unix.SOCK_STREAM)
		f := tempFile(t, []byte("file"))
		run(t, l, func(co *loop.Coro) error {
			c := NewConn(co, a)
			_ = c.SetDeadline(time.Unix(1, 0))
			if err := a.Close(); err != nil {
				return err
			}
			_, read := c.Read(make([]byte, 1))
			_, write := c.Write(make([]byte, 1))
			_, from := c.ReadFrom(f)
			for _, err := range []error{read, write, from, c.SetDeadline(time.Time{}), c.SetReadDeadline(time.Now()), c.SetWriteDeadline(time.Now())} {
				if !errors.Is(err, net.ErrClosed) {
					t.Errorf("on a closed socket: %v", err)
				}
			}
			return nil
		})
	})
}

func TestClosingAConnFromAnotherGoroutineEndsTheWait(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		for range 20 {
			a, _ := pair(t, unix.SOCK_STREAM)
			run(t, l, func(co *loop.Coro) error {
				c := NewConn(co, a)
				closing := make(chan error, 1)
				if _, err := l.CallSoon(func() { go func() { closing <- c.Close() }() }); err != nil {
					return err
				}
				if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
					t.Errorf("Read: %v", err)
				}
				return <-closing
			})
		}
	})
}

// crypto/tls calls Close so when the context of a handshake is cancelled, at any
// time.
func TestAConnIsClosedFromAnotherGoroutineWhateverTheLoopDoes(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		for range 50 {
			a, b := pair(t, unix.SOCK_STREAM)
			var c *Conn
			closing := make(chan error, 1)
			run(t, l, func(co *loop.Coro) error {
				c = NewConn(co, a)
				if err := SendAll(co, a, []byte("x")); err != nil {
					return err
				}
				go func() { closing <- c.Close() }()
				return nil
			})
			run(t, l, func(co *loop.Coro) error {
				if got, err := io.ReadAll(NewConn(co, b)); string(got) != "x" || err != nil {
					t.Errorf("received %q, %v", got, err)
				}
				return <-closing
			})
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

func TestAConnThatIsClosedWhileTheLoopIsStoppedIsClosedWithIt(t *testing.T) {
	for _, name := range backendNames {
		t.Run(name, func(t *testing.T) {
			l := newLoop(t, name)
			a, b, err := Pair(unix.SOCK_STREAM)
			if err != nil {
				t.Fatal(err)
			}
			var c, d *Conn
			run(t, l, func(co *loop.Coro) error {
				c, d = NewConn(co, a), NewConn(co, b)
				_, err := c.Write([]byte("x"))
				return err
			})
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			p := make([]byte, 2)
			if n, err := unix.Read(b.Fd(), p); n != 1 || err != nil {
				t.Errorf("received %d bytes, %v", n, err)
			}
			if n, err := unix.Read(b.Fd(), p); n != 0 || err != nil {
				t.Errorf("after the end %d, %v", n, err)
			}
			if err := d.Close(); err != nil || b.Fd() != -1 {
				t.Errorf("Close after the loop's: %v, the socket is %v", err, b)
			}
		})
	}
}
