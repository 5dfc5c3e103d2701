package sockapi

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/loop"
)

// receiveAll receives until the end in a task of its own.
func receiveAll(co *loop.Coro, s *Socket) *loop.Task[[]byte] {
	return spawn(co, func(co *loop.Coro) ([]byte, error) { return io.ReadAll(NewConn(co, s)) })
}

// noise returns n bytes that do not repeat soon.
func noise(n int) []byte {
	rnd := rand.New(rand.NewPCG(uint64(n), 1))
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(rnd.Uint32())
	}
	return p
}

func position(t testing.TB, f io.Seeker) int64 {
	t.Helper()
	at, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// seekingReader is a source that is no file.
type seekingReader struct{ *bytes.Reader }

func TestSendfileSendsTheFileOrAPartAndLeavesThePositionBehindIt(t *testing.T) {
	content := noise(3 << 20)
	for _, c := range []struct {
		name                string
		offset, count, want int64
		native              bool
	}{
		{"whole", 0, ToEnd, 3 << 20, true},
		{"from an offset", 1000, ToEnd, 3<<20 - 1000, true},
		{"a part", 1000, 2<<20 + 1, 2<<20 + 1, true},
		{"more than there is", 2 << 20, 5 << 20, 1 << 20, true},
		{"by the fallback", 1000, 2<<20 + 1, 2<<20 + 1, false},
		{"whole by the fallback", 0, ToEnd, 3 << 20, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			forEachBackend(t, func(t *testing.T, l *loop.Loop) {
				f := tempFile(t, content)
				run(t, l, func(co *loop.Coro) error {
					a, b := tcpPair(t, co)
					receiver := receiveAll(co, b)
					var src interface {
						io.ReaderAt
						io.Seeker
					} = f
					if !c.native {
						src = seekingReader{bytes.NewReader(content)}
					}
					n, err := Sendfile(co, a, src, c.offset, c.count, &SendfileOptions{NoFallback: c.native})
					if n != c.want || err != nil {
						t.Errorf("Sendfile = %d, %v; want %d", n, err, c.want)
					}
					if at := position(t, src); at != c.offset+c.want {
						t.Errorf("the position is %d, want %d", at, c.offset+c.want)
					}
					if err := a.Shutdown(unix.SHUT_WR); err != nil {
						return err
					}
					got, err := receiver.Await(co)
					if !bytes.Equal(got, content[c.offset:c.offset+c.want]) {
						t.Errorf("received %d bytes, not those of the file", len(got))
					}
					return err
				})
			})
		})
	}
}

// described is a source of a type of its own, with a descriptor and a position.
type described struct {
	syscall.Conn
	at int64
}

var errRead = errors.New("it was read")

func (d *described) ReadAt([]byte, int64) (int, error) { return 0, errRead }

func (d *described) Seek(offset int64, _ int) (int64, error) {
	d.at = offset
	return offset, nil
}

func TestSendfileSendsTheRegularFileOfAnyTypeThatTellsItsDescriptor(t *testing.T) {
	content := noise(3 << 20)
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		f := tempFile(t, content)
		run(t, l, func(co *loop.Coro) error {
			a, b := tcpPair(t, co)
			receiver := receiveAll(co, b)
			src := &described{Conn: f}
			n, err := Sendfile(co, a, src, 1000, 2<<20, &SendfileOptions{NoFallback: true})
			if n != 2<<20 || err != nil {
				t.Errorf("Sendfile = %d, %v", n, err)
			}
			if src.at != 1000+2<<20 || position(t, f) != 3<<20 {
				t.Errorf("the position is %d, that of the descriptor %d", src.at, position(t, f))
			}
			if err := a.Shutdown(unix.SHUT_WR); err != nil {
				return err
			}
			got, err := receiver.Await(co)
			if !bytes.Equal(got, content[1000:1000+2<<20]) {
				t.Errorf("received %d bytes, not those of the file", len(got))
			}
			return err
		})
	})
}

func TestSendfileReadsATypeThatTellsTheDescriptorOfNoRegularFile(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, _ := pair(t, unix.SOCK_STREAM)
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		defer w.Close()
		run(t, l, func(co *loop.Coro) error {
			src := &described{Conn: r, at: 7}
			if _, err := Sendfile(co, a, src, 0, ToEnd, &SendfileOptions{NoFallback: true}); !errors.Is(err, ErrSendfileNotAvailable) {
				t.Errorf("Sendfile without the fallback = %v", err)
			}
			if _, err := Sendfile(co, a, src, 0, ToEnd, nil); !errors.Is(err, errRead) {
				t.Errorf("Sendfile = %v, want the error of ReadAt", err)
			}
			_ = r.Close()
			if _, err := Sendfile(co, a, src, 0, ToEnd, nil); !errors.Is(err, os.ErrClosed) {
				t.Errorf("Sendfile of the closed descriptor = %v", err)
			}
			if src.at != 7 {
				t.Errorf("the position moved to %d", src.at)
			}
			return nil
		})
	})
}

func TestSendfileStartsAtTheOffsetWhereverThePositionIs(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		f := tempFile(t, []byte("0123456789")) // the position is at the end
		a, b := pair(t, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			if n, err := Sendfile(co, a, f, 0, 5, nil); n != 5 || err != nil {
				t.Errorf("Sendfile = %d, %v", n, err)
			}
			got, err := Recv(co, b, 100)
			if string(got) != "01234" || position(t, f) != 5 {
				t.Errorf("received %q, position %d", got, position(t, f))
			}
			return err
		})
	})
}

func TestSendfileOfNothingSendsNothingAndKeepsThePosition(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		empty, full := tempFile(t, nil), tempFile(t, []byte("data"))
		run(t, l, func(co *loop.Coro) error {
			a, _ := tcpPair(t, co)
			if n, err := Sendfile(co, a, empty, 0, ToEnd, nil); n != 0 || err != nil {
				t.Errorf("Sendfile of an empty file = %d, %v", n, err)
			}
			if n, err := Sendfile(co, a, full, 100, ToEnd, nil); n != 0 || err != nil {
				t.Errorf("Sendfile behind the end = %d, %v", n, err)
			}
			if n, err := Sendfile(co, a, bytes.NewReader(nil), 0, ToEnd, nil); n != 0 || err != nil {
				t.Errorf("Sendfile of an empty reader = %d, %v", n, err)
			}
			if at := position(t, full); at != 4 {
				t.Errorf("the position moved to %d", at)
			}
			return nil
		})
	})
}

func TestSendfileStaysInOrderWithOtherSends(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		content := noise(1 << 20)
		f := tempFile(t, content)
		before, after := noise(300<<10), noise(200<<10)
		run(t, l, func(co *loop.Coro) error {
			a, b := tcpPair(t, co)
			receiver := receiveAll(co, b)
			first := spawn(co, func(co *loop.Coro) (struct{}, error) { return struct{}{}, SendAll(co, a, before) })
			second := spawn(co, func(co *loop.Coro) (int64, error) { return Sendfile(co, a, f, 0, ToEnd, nil) })
			third := spawn(co, func(co *loop.Coro) (struct{}, error) { return struct{}{}, SendAll(co, a, after) })
			_, err1 := first.Await(co)
			_, err2 := second.Await(co)
			_, err3 := third.Await(co)
			if err := errors.Join(err1, err2, err3, a.Shutdown(unix.SHUT_WR)); err != nil {
				return err
			}
			got, err := receiver.Await(co)
			if !bytes.Equal(got, bytes.Join([][]byte{before, content, after}, nil)) {
				t.Error("the pieces arrived mixed")
			}
			return err
		})
	})
}

func TestSendfileChecksItsArgumentsInOrder(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		f := tempFile(t, []byte("data"))
		udp, _ := packet(t, "udp", "127.0.0.1:0")
		a, _ := pair(t, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			for _, c := range []struct {
				s             *Socket
				file          io.ReaderAt
				offset, count int64
				want          string
			}{
				{a, nil, -1, 0, "the file is nil"},
				{udp, f, -1, 0, "SOCK_STREAM"},
				{a, f, -1, 0, "count"},
				{a, f, -1, -2, "count"},
				{a, f, -1, 1, "offset"},
			} {
				_, err := Sendfile(co, c.s, c.file, c.offset, c.count, nil)
				if !errors.Is(err, loop.ErrInvalidArgument) || !strings.Contains(err.Error(), c.want) {
					t.Errorf("Sendfile(offset %d, count %d) = %v, want an error about %s", c.offset, c.count, err, c.want)
				}
			}
			if at := position(t, f); at != 4 {
				t.Errorf("the position moved to %d", at)
			}
			closed := tempFile(t, nil)
			_ = closed.Close()
			if _, err := Sendfile(co, a, closed, 0, ToEnd, nil); !errors.Is(err, os.ErrClosed) {
				t.Errorf("Sendfile of a closed file = %v", err)
			}
			return nil
		})
	})
}

func TestSendfileOfWhatIsNoRegularFileIsNotAvailableWithoutTheFallback(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, b := pair(t, unix.SOCK_STREAM)
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		defer w.Close()
		run(t, l, func(co *loop.Coro) error {
			for _, file := range []io.ReaderAt{r, strings.NewReader("data")} {
				_, err := Sendfile(co, a, file, 0, ToEnd, &SendfileOptions{NoFallback: true})
				if !errors.Is(err, ErrSendfileNotAvailable) {
					t.Errorf("Sendfile of %T = %v", file, err)
				}
			}
			if _, err := w.WriteString("from a pipe"); err != nil {
				return err
			}
			if n, err := Sendfile(co, a, r, 0, 6, nil); n != 6 || err != nil {
				t.Errorf("Sendfile of a pipe = %d, %v", n, err)
			}
			if got, err := Recv(co, b, 100); string(got) != "from a" || err != nil {
				t.Errorf("received %q, %v", got, err)
			}
			return nil
		})
	})
}

func TestTheFirstErrorOfSendfileMeansNotAvailable(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		f := tempFile(t, []byte("data"))
		s := open(t, unix.AF_INET, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			_, err := Sendfile(co, s, f, 0, ToEnd, &SendfileOptions{NoFallback: true})
			if !errors.Is(err, ErrSendfileNotAvailable) {
				t.Errorf("Sendfile on a socket without a peer = %v", err)
			}
			_, err = Sendfile(co, s, f, 0, ToEnd, nil)
			if errors.Is(err, ErrSendfileNotAvailable) || !errors.Is(err, ErrConnection) {
				t.Errorf("Sendfile with the fallback = %v, want the error of the send", err)
			}
			if at := position(t, f); at != 4 {
				t.Errorf("the position moved to %d", at)
			}
			return nil
		})
	})
}

func TestAPeerThatLeavesDuringSendfileIsAConnectionErrorAndThePositionFits(t *testing.T) {
	for _, native := range []bool{true, false} {
		t.Run(map[bool]string{true: "native", false: "fallback"}[native], func(t *testing.T) {
			forEachBackend(t, func(t *testing.T, l *loop.Loop) {
				const size = 64 << 20
				f := tempFile(t, nil)
				if err := f.Truncate(size); err != nil {
					t.Fatal(err)
				}
				run(t, l, func(co *loop.Coro) error {
					a, b := tcpPair(t, co)
					var src io.ReaderAt = f
					if !native {
						src = struct {
							io.ReaderAt
							io.Seeker
						}{f, f}
					}
					sending := spawn(co, func(co *loop.Coro) (int64, error) { return Sendfile(co, a, src, 0, ToEnd, nil) })
					for range 3 {
						if _, err := Recv(co, b, 100<<10); err != nil {
							return err
						}
					}
					if err := CloseWait(co, b); err != nil {
						return err
					}
					n, err := sending.Await(co)
					if !errors.Is(err, ErrConnection) || errors.Is(err, ErrSendfileNotAvailable) {
						t.Errorf("Sendfile = %d, %v; want a connection error", n, err)
					}
					if at := position(t, f); n <= 0 || n >= size || at != n {
						t.Errorf("sent %d, position %d", n, at)
					}
					return nil
				})
			})
		})
	}
}

func TestACancelledSendfileLeavesThePositionBehindWhatWasSentAndTheSocketUsable(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		f := tempFile(t, noise(16<<20))
		run(t, l, func(co *loop.Coro) error {
			a, b := tcpPair(t, co)
			var sent int64
			sending := spawn(co, func(co *loop.Coro) (struct{}, error) {
				var err error
				sent, err = Sendfile(co, a, f, 0, ToEnd, nil)
				return struct{}{}, err
			})
			if _, err := Recv(co, b, 1); err != nil {
				return err
			}
			yield(t, co, 3)
			sending.Cancel("")
			if _, err := sending.Await(co); !errors.Is(err, loop.ErrCancelled) {
				t.Errorf("the cancelled Sendfile = %v", err)
			}
			if at := position(t, f); at != sent || sent == 0 {
				t.Errorf("sent %d, position %d", sent, at)
			}
			last := spawn(co, func(co *loop.Coro) (struct{}, error) {
				return struct{}{}, errors.Join(SendAll(co, a, []byte("end")), a.Shutdown(unix.SHUT_WR))
			})
			got, err := receiveAll(co, b).Await(co)
			if err != nil {
				return err
			}
			if int64(len(got)) != sent-1+3 || !bytes.HasSuffix(got, []byte("end")) {
				t.Errorf("received %d bytes after %d were sent", len(got)+1, sent)
			}
			_, err = last.Await(co)
			return err
		})
	})
}

func TestLateENOTCONNIsAConnectionError(t *testing.T) {
	s := open(t, unix.AF_INET, unix.SOCK_STREAM)
	if err := s.fail("sendfile", syscall.ENOTCONN); !errors.Is(err, ErrConnection) || !errors.Is(err, syscall.ENOTCONN) {
		t.Errorf("%v is no connection error", err)
	}
}

func TestASendfileIsEndedOnASocketThatHasDoneNothing(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		a, _ := pair(t, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			first := spawn(co, func(co *loop.Coro) (int64, error) { return Sendfile(co, a, r, 0, ToEnd, nil) })
			second := spawn(co, func(co *loop.Coro) (int64, error) { return 0, SendAll(co, a, []byte("x")) })
			yield(t, co, 3)
			if err := a.Close(); err != nil {
				return err
			}
			for _, task := range []*loop.Task[int64]{first, second} {
				if _, err := task.Await(co); !errors.Is(err, net.ErrClosed) {
					t.Errorf("a call ended with %v", err)
				}
			}
			return w.Close() // ends the Read in the executor
		})
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
}

// waiting is what a task waits for that only a cancellation ends.
type waiting struct{}

func (waiting) CancelWait(co *loop.Coro) bool { co.Wake(); return false }

// What the source has brought comes too late, but in the same turn.
func TestASendfileThatWasCancelledWakesNobodyLater(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		a, _ := pair(t, unix.SOCK_STREAM)
		run(t, l, func(co *loop.Coro) error {
			src := &gated{gate: make(chan struct{}), read: make(chan struct{})}
			task := spawn(co, func(co *loop.Coro) (int64, error) {
				_, err := Sendfile(co, a, src, 0, 10, nil)
				co.Task().Uncancel()
				_ = co.Suspend(waiting{})
				return 0, err
			})
			yield(t, co, 3)
			if _, err := l.CallSoon(func() {
				close(src.gate)
				<-src.read
				task.Cancel("")
			}); err != nil {
				return err
			}
			yield(t, co, 10)
			if task.Done() {
				t.Error("the next wait was ended")
			}
			task.Cancel("")
			_, _ = task.Await(co)
			return nil
		})
	})
}

// gated is a source that says when it was read.
type gated struct{ gate, read chan struct{} }

func (g *gated) ReadAt(p []byte, _ int64) (int, error) {
	<-g.gate
	defer close(g.read)
	return copy(p, "0123456789"), nil
}

// A Sendfile that waits for what it is to send is ended as one that sends.
func TestASendfileThatWaitsForAPipeIsEnded(t *testing.T) {
	ways := map[string]struct {
		end  func(co *loop.Coro, c *Conn, task *loop.Task[int64]) error
		want error
	}{
		"Close":     {func(_ *loop.Coro, c *Conn, _ *loop.Task[int64]) error { return c.Socket().Close() }, net.ErrClosed},
		"CloseWait": {func(co *loop.Coro, c *Conn, _ *loop.Task[int64]) error { return CloseWait(co, c.Socket()) }, net.ErrClosed},
		"a deadline": {func(_ *loop.Coro, c *Conn, _ *loop.Task[int64]) error {
			return c.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
		}, os.ErrDeadlineExceeded},
		"Cancel": {func(_ *loop.Coro, _ *Conn, task *loop.Task[int64]) error {
			task.Cancel("")
			return nil
		}, loop.ErrCancelled},
	}
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		for name, way := range ways {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			run(t, l, func(co *loop.Coro) error {
				a, b := tcpPair(t, co)
				if _, err := w.WriteString("x"); err != nil {
					return err
				}
				var c *Conn
				var sent int64 // a cancelled task has no result
				task := spawn(co, func(co *loop.Coro) (_ int64, err error) {
					c = NewConn(co, a)
					sent, err = c.ReadFrom(r)
					return sent, err
				})
				if got, err := Recv(co, b, 10); string(got) != "x" || err != nil {
					t.Errorf("received %q, %v", got, err)
				}
				yield(t, co, 3) // it waits for more
				if err := way.end(co, c, task); err != nil {
					return err
				}
				if _, err := task.Await(co); sent != 1 || !errors.Is(err, way.want) {
					t.Errorf("%s: Sendfile = %d, %v", name, sent, err)
				}
				return w.Close() // ends the Read in the executor
			})
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

// likeFile is like a file, and the descriptor it tells is that of a pipe.
type likeFile struct {
	*io.SectionReader
	pipe *os.File
}

func (f likeFile) SyscallConn() (syscall.RawConn, error) { return f.pipe.SyscallConn() }

// miscounting is a file that reads no more than it is asked for, but says otherwise.
type miscounting int

func (n miscounting) ReadAt([]byte, int64) (int, error) { return int(n), nil }

func TestSendfileOfAFileThatCannotCountIsAnErrorAndLeavesTheSocketUsable(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		run(t, l, func(co *loop.Coro) error {
			a, b := tcpPair(t, co)
			for _, n := range []int{-1, 1 << 30} {
				if sent, err := Sendfile(co, a, miscounting(n), 0, ToEnd, nil); sent != 0 || !errors.Is(err, loop.ErrInvalidState) {
					t.Errorf("of %d bytes: %d, %v", n, sent, err)
				}
			}
			if err := SendAll(co, a, []byte("x")); err != nil {
				return err
			}
			got, err := Recv(co, b, 8)
			if string(got) != "x" {
				t.Errorf("received %q", got)
			}
			return err
		})
	})
}

func TestSendfileFromTheBeginningOfWhatIsLikeAFile(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		defer w.Close()
		run(t, l, func(co *loop.Coro) error {
			a, b := tcpPair(t, co)
			f := likeFile{io.NewSectionReader(strings.NewReader("0123456789"), 0, 10), r}
			if _, err := f.Seek(4, io.SeekStart); err != nil {
				return err
			}
			if n, err := Sendfile(co, a, f, 0, ToEnd, nil); n != 10 || err != nil {
				t.Errorf("Sendfile: %d, %v", n, err)
			}
			if err := a.Shutdown(unix.SHUT_WR); err != nil {
				return err
			}
			got, err := receiveAll(co, b).Await(co)
			if string(got) != "0123456789" {
				t.Errorf("received %q", got)
			}
			return err
		})
	})
}
