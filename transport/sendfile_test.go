package transport

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
)

// contents is what a test file holds.
func contents(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i>>8) ^ byte(i)
	}
	return b
}

// testFile makes a file; its position is 5.
func testFile(t *testing.T, b []byte) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	check(t, os.WriteFile(path, b, 0o600))
	f := ok[*os.File](t)(os.Open(path))
	t.Cleanup(func() { _ = f.Close() })
	ok[int64](t)(f.Seek(5, io.SeekStart))
	return f
}

func position(t *testing.T, f io.Seeker) int64 {
	t.Helper()
	return ok[int64](t)(f.Seek(0, io.SeekCurrent))
}

func TestSendfileSendsTheWholeFileOrAPartAndMovesItsPosition(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		all := contents(1 << 20)
		for _, c := range []struct{ offset, count, want int64 }{
			{0, ToEnd, 1 << 20},
			{1000, ToEnd, 1<<20 - 1000},
			{1000, 5000, 5000},
			{1<<20 - 10, 5000, 10},
			{1 << 20, ToEnd, 0},
			{1 << 30, 100, 0},
		} {
			for _, fallback := range []bool{false, true} {
				f := testFile(t, all)
				var file io.ReaderAt = f
				if fallback {
					file = struct{ seekReaderAt }{f}
				}
				p := &recorder{}
				tr, peer := joined(t, co, p)
				reader := co.Loop().Go(func(co *loop.Coro) error {
					if got := receive(t, co, peer, int(c.want)); !bytes.Equal(got, all[min(c.offset, 1<<20):][:c.want]) {
						t.Errorf("%+v: other bytes arrived", c)
					}
					return nil
				})
				n, err := Sendfile(co, tr, file, c.offset, c.count, nil)
				if n != c.want || err != nil {
					t.Errorf("%+v: sent %d, %v", c, n, err)
				}
				want := c.offset + c.want
				if c.want == 0 {
					want = 5
				}
				if got := position(t, f); got != want {
					t.Errorf("%+v: the position is %d, want %d", c, got, want)
				}
				_, err = reader.Await(co)
				check(t, err)
				if !tr.IsReading() {
					t.Error("reading was not resumed")
				}
				tr.Close()
				check(t, p.untilLost(t, co))
			}
		}
	})
}

type seekReaderAt interface {
	io.ReaderAt
	io.Seeker
}

// described is a source of a type of its own that has a descriptor.
type described struct{ syscall.Conn }

func (described) ReadAt([]byte, int64) (int, error) { return 0, errors.New("it was read") }

func TestTheKernelSendsTheRegularFileOfAnyTypeThatTellsItsDescriptor(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		all := contents(10_000)
		f := testFile(t, all)
		p := &recorder{}
		tr, peer := joined(t, co, p)
		n, err := Sendfile(co, tr, described{f}, 1000, ToEnd, &SendfileOptions{NoFallback: true})
		if n != 9000 || err != nil {
			t.Fatalf("sent %d, %v", n, err)
		}
		if got := receive(t, co, peer, 9000); !bytes.Equal(got, all[1000:]) {
			t.Error("other bytes arrived")
		}
		tr.Close()
		check(t, p.untilLost(t, co))
	})
}

// miscounting is a file that reads no more than it is asked for, but says otherwise.
type miscounting int

func (n miscounting) ReadAt([]byte, int64) (int, error) { return int(n), nil }

func TestSendfileOfAFileThatCannotCountIsAnErrorAndLeavesTheTransportUsable(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		tr, peer := joined(t, co, p)
		for _, n := range []int{-1, 1 << 30} {
			if sent, err := Sendfile(co, tr, miscounting(n), 0, ToEnd, nil); sent != 0 || !errors.Is(err, loop.ErrInvalidState) {
				t.Errorf("of %d bytes: %d, %v", n, sent, err)
			}
		}
		check(t, tr.Write([]byte("x")))
		if got := receive(t, co, peer, 1); string(got) != "x" {
			t.Errorf("received %q", got)
		}
		tr.Close()
		check(t, p.untilLost(t, co))
	})
}

func TestSendfileOfAnEmptyFileSendsNothing(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		tr, _ := joined(t, co, p)
		if n, err := Sendfile(co, tr, testFile(t, nil), 0, ToEnd, nil); n != 0 || err != nil {
			t.Errorf("sent %d, %v", n, err)
		}
		tr.Close()
		check(t, p.untilLost(t, co))
	})
}

func TestDataWrittenBeforeAndAfterSurroundsTheFile(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		all := contents(300_000)
		for _, file := range []io.ReaderAt{testFile(t, all), bytes.NewReader(all)} {
			p := &recorder{}
			tr, peer := joined(t, co, p)
			before := stuff(t, co, tr)
			want := append(append(append([]byte{}, before...), all...), "after"...)
			reader := co.Loop().Go(func(co *loop.Coro) error {
				if got := receive(t, co, peer, len(want)); !bytes.Equal(got, want) {
					t.Error("other bytes arrived, or in another order")
				}
				return nil
			})
			if n, err := Sendfile(co, tr, file, 0, ToEnd, nil); n != int64(len(all)) || err != nil {
				t.Errorf("sent %d, %v", n, err)
			}
			check(t, tr.Write([]byte("after")))
			_, err := reader.Await(co)
			check(t, err)
			tr.Close()
			check(t, p.untilLost(t, co))
		}
	})
}

func TestSendfileRefusesWhatItCannotDoAndDoesNotMoveTheFile(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		f := testFile(t, contents(100))
		p := &recorder{}
		tr, _ := joined(t, co, p)
		noFallback := &SendfileOptions{NoFallback: true}
		for _, c := range []struct {
			what          string
			tr            Transport
			file          io.ReaderAt
			offset, count int64
			o             *SendfileOptions
			want          error
		}{
			{"count of 0", tr, f, 0, 0, nil, loop.ErrInvalidArgument},
			{"negative count", tr, f, 0, -2, nil, loop.ErrInvalidArgument},
			{"negative offset", tr, f, -1, 1, nil, loop.ErrInvalidArgument},
			{"no transport", nil, f, 0, 1, nil, loop.ErrInvalidArgument},
			{"no file", tr, nil, 0, 1, nil, loop.ErrInvalidArgument},
			{"not a file, without fallback", tr, strings.NewReader("x"), 0, 1, noFallback, sockapi.ErrSendfileNotAvailable},
			{"another kind of transport", struct{ Transport }{tr}, f, 0, 1, nil, ErrUnsupported},
		} {
			if n, err := Sendfile(co, c.tr, c.file, c.offset, c.count, c.o); n != 0 || !errors.Is(err, c.want) {
				t.Errorf("%s: %d, %v", c.what, n, err)
			}
		}
		tr.Close()
		if _, err := Sendfile(co, tr, f, 0, ToEnd, nil); !errors.Is(err, ErrClosing) {
			t.Errorf("on a closing transport: %v", err)
		}
		check(t, p.untilLost(t, co))
		if got := position(t, f); got != 5 {
			t.Errorf("the position is %d", got)
		}
	})
}

func TestSendfileAfterWriteEOFIsRefused(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		f := testFile(t, contents(100))
		for _, file := range []io.ReaderAt{f, struct{ seekReaderAt }{f}} {
			p := &recorder{}
			tr, _ := joined(t, co, p)
			check(t, tr.WriteEOF())
			if n, err := Sendfile(co, tr, file, 0, ToEnd, nil); n != 0 || !errors.Is(err, ErrWriteEOF) {
				t.Errorf("%d, %v, want %v", n, err, ErrWriteEOF)
			}
			if got := position(t, f); got != 5 || tr.IsClosing() {
				t.Errorf("the position is %d, closing: %v", got, tr.IsClosing())
			}
			tr.Close()
			check(t, p.untilLost(t, co))
		}
	})
}

func TestWritingDuringSendfileIsRefused(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		all := contents(8 << 20)
		for _, file := range []io.ReaderAt{testFile(t, all), bytes.NewReader(all)} {
			p := &recorder{}
			tr, peer := joined(t, co, p)
			task := co.Loop().Go(func(co *loop.Coro) error {
				_, err := Sendfile(co, tr, file, 0, ToEnd, nil)
				return err
			})
			turns(t, co)
			check(t, sockapi.SendAll(co, peer, []byte("while it is paused")))
			for what, err := range map[string]error{"Write": tr.Write([]byte("x")), "Writelines": tr.Writelines([][]byte{[]byte("x")}), "WriteEOF": tr.WriteEOF()} {
				if !errors.Is(err, ErrSendfile) {
					t.Errorf("%s: %v", what, err)
				}
			}
			if _, err := Sendfile(co, tr, file, 0, 1, nil); !errors.Is(err, ErrSendfile) {
				t.Errorf("a second Sendfile: %v", err)
			}
			if p.data.Len() > 0 {
				t.Error("data was delivered meanwhile")
			}
			receive(t, co, peer, len(all))
			_, err := task.Await(co)
			check(t, err)
			p.untilData(t, co, "while it is paused")
			check(t, tr.Write([]byte("x")))
			receive(t, co, peer, 1)
			tr.Close()
			check(t, p.untilLost(t, co))
		}
	})
}

// What is asked for during Sendfile is done after it, and nothing that arrives
// meanwhile is lost.
func TestPausingAndResumingDuringSendfileTakesEffectAfterwards(t *testing.T) {
	for _, c := range []struct {
		what          string
		before, after bool // whether the transport reads
	}{{"resumed", false, true}, {"paused", true, false}} {
		for _, kind := range []string{"native", "fallback", "TLS"} {
			t.Run(c.what+" "+kind, func(t *testing.T) {
				inTask(t, func(t *testing.T, co *loop.Coro) {
					all := contents(8 << 20)
					p := &recorder{}
					tr, send, receive := sendfilePair(t, co, kind, p)
					var file io.ReaderAt = bytes.NewReader(all)
					if kind == "native" {
						file = testFile(t, all)
					}
					if !c.before {
						check(t, tr.PauseReading())
					}
					task := co.Loop().Go(func(co *loop.Coro) error {
						_, err := Sendfile(co, tr, file, 0, ToEnd, nil)
						return err
					})
					turns(t, co)
					if c.after {
						check(t, tr.ResumeReading())
					} else {
						check(t, tr.PauseReading())
					}
					send("while it is sent")
					turns(t, co)
					if p.data.Len() > 0 || tr.IsReading() {
						t.Errorf("meanwhile %d bytes were delivered, reading: %v", p.data.Len(), tr.IsReading())
					}
					receive(len(all))
					_, err := task.Await(co)
					check(t, err)
					if tr.IsReading() != c.after {
						t.Errorf("reading afterwards: %v", tr.IsReading())
					}
					turns(t, co)
					if !c.after {
						if p.data.Len() > 0 {
							t.Error("data was delivered although reading is paused")
						}
						check(t, tr.ResumeReading())
					}
					p.untilData(t, co, "while it is sent")
					tr.Abort()
					check(t, p.untilLost(t, co))
				})
			})
		}
	}
}

// sendfilePair makes a connection for Sendfile, and what its peer does: send and
// receive.
func sendfilePair(t *testing.T, co *loop.Coro, kind string, p *recorder) (tr Transport, send func(string), receiveN func(int)) {
	t.Helper()
	if kind != "TLS" {
		tr, peer := joined(t, co, p)
		return tr, func(s string) { check(t, sockapi.SendAll(co, peer, []byte(s))) }, func(n int) { receive(t, co, peer, n) }
	}
	q := &recorder{}
	srv, port := localServer(t, co, protocolOf(q), &ServerOptions{TLS: serverTLS()})
	tr, _, err := CreateConnection(co, protocolOf(p), "127.0.0.1", port, &ConnectOptions{TLS: trusting()})
	check(t, err)
	until(t, co, "the server has its end", func() bool { return len(q.events) > 0 })
	check(t, q.t.PauseReading())
	t.Cleanup(srv.Close)
	return tr, func(s string) { check(t, q.t.Write([]byte(s))) }, func(n int) {
		check(t, q.t.ResumeReading())
		until(t, co, "the file arrives", func() bool { return q.data.Len() == n })
	}
}

func TestAProtocolThatIsSetDuringSendfileStays(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		all := contents(8 << 20)
		for _, file := range []io.ReaderAt{testFile(t, all), bytes.NewReader(all)} {
			p, q := &recorder{}, &recorder{}
			tr, peer := joined(t, co, p)
			task := co.Loop().Go(func(co *loop.Coro) error {
				_, err := Sendfile(co, tr, file, 0, ToEnd, nil)
				return err
			})
			receive(t, co, peer, 1)
			if tr.Protocol() != Protocol(p) {
				t.Errorf("the protocol is a %T", tr.Protocol())
			}
			tr.SetProtocol(q)
			receive(t, co, peer, len(all)-1)
			_, err := task.Await(co)
			check(t, err)
			if tr.Protocol() != Protocol(q) {
				t.Errorf("the protocol is a %T afterwards", tr.Protocol())
			}
			check(t, sockapi.SendAll(co, peer, []byte("to the new one")))
			q.untilData(t, co, "to the new one")
			tr.Close()
			check(t, q.untilLost(t, co))
		}
	})
}

func TestAPeerThatGoesAwayEndsSendfileWithAConnectionError(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		all := contents(8 << 20)
		f := testFile(t, all)
		for _, file := range []io.ReaderAt{f, struct{ seekReaderAt }{f}} {
			p := &recorder{}
			tr, peer := joined(t, co, p)
			var sent int64
			var err error
			task := co.Loop().Go(func(co *loop.Coro) error {
				sent, err = Sendfile(co, tr, file, 0, ToEnd, nil)
				return nil
			})
			receive(t, co, peer, 100_000)
			check(t, peer.Close())
			_, terr := task.Await(co)
			check(t, terr)
			if !errors.Is(err, sockapi.ErrConnection) {
				t.Errorf("the error is %v", err)
			}
			if sent < 100_000 || sent >= int64(len(all)) || position(t, f) != sent {
				t.Errorf("sent %d, the position is %d", sent, position(t, f))
			}
			if !tr.IsClosing() {
				t.Error("the transport is not closing")
			}
			if err := p.untilLost(t, co); err == nil {
				t.Error("lost without an error")
			}
		}
	})
}

func TestCancellingSendfileLeavesTheFileAtWhatWasSent(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		all := contents(8 << 20)
		f := testFile(t, all)
		p := &recorder{}
		tr, peer := joined(t, co, p)
		var sent int64
		task := co.Loop().Go(func(co *loop.Coro) error {
			var err error
			sent, err = Sendfile(co, tr, f, 0, ToEnd, nil)
			return err
		})
		receive(t, co, peer, 1)
		turns(t, co)
		task.Cancel("")
		if _, err := task.Await(co); !errors.Is(err, loop.ErrCancelled) {
			t.Errorf("the task ended with %v", err)
		}
		if got := position(t, f); got != sent || sent == 0 {
			t.Errorf("sent %d, the position is %d", sent, got)
		}
		want := append(append([]byte{}, all[1:sent]...), "after"...)
		check(t, tr.Write([]byte("after")))
		if got := receive(t, co, peer, len(want)); !bytes.Equal(got, want) {
			t.Error("other bytes arrived than those that were counted")
		}
		tr.Close()
		check(t, p.untilLost(t, co))
	})
}

func TestTheFallbackForwardsTheLossAndPairsPauseAndResume(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		all := contents(1 << 20)
		p := &recorder{}
		tr, peer := joined(t, co, p)
		total := len(stuff(t, co, tr)) + len(all)
		reader := co.Loop().Go(func(co *loop.Coro) error {
			receive(t, co, peer, total)
			return nil
		})
		_, err := Sendfile(co, tr, bytes.NewReader(all), 0, ToEnd, nil)
		check(t, err)
		_, err = reader.Await(co)
		check(t, err)
		until(t, co, "everything is sent", func() bool { return tr.WriteBufferSize() == 0 })
		turns(t, co)
		p.want(t, "made", "pause", "resume")

		task := co.Loop().Go(func(co *loop.Coro) error {
			_, err := Sendfile(co, tr, bytes.NewReader(contents(8<<20)), 0, ToEnd, nil)
			return err
		})
		receive(t, co, peer, 1)
		tr.Abort()
		if _, err := task.Await(co); !errors.Is(err, syscall.ECONNABORTED) {
			t.Errorf("Sendfile returned %v", err)
		}
		check(t, p.untilLost(t, co))
	})
}

// gatedSource brings one block, when its gate is opened.
type gatedSource struct{ gate chan struct{} }

func (g *gatedSource) ReadAt(p []byte, _ int64) (int, error) {
	<-g.gate
	return len(p), nil
}

// The block that was read comes in the turn in which the loss is found, so that
// Sendfile goes on before ConnectionLost is called.
func TestTheErrorOfTheFallbackIsThatOfTheConnectionAlsoBeforeConnectionLost(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		l := co.Loop()
		pool := loop.NewPoolExecutor(1, "one")
		check(t, l.SetDefaultExecutor(pool))
		for _, withTLS := range []bool{false, true} {
			p := &recorder{}
			var tr Transport
			var raw *stream
			if withTLS {
				s, peer := secured(t, co, p, serverTLS(), nil)
				defer peer.Close()
				tr, raw = s, s.(*tlsStream).raw.(*stream)
			} else {
				tr, _ = joined(t, co, p)
				raw = tr.(*stream)
			}
			src := &gatedSource{make(chan struct{})}
			sending := l.Go(func(co *loop.Coro) error {
				_, err := Sendfile(co, tr, src, 0, ToEnd, nil)
				return err
			})
			turns(t, co)
			ok[loop.Handle](t)(l.CallSoon(func() {
				close(src.gate)
				behind := make(chan struct{})
				_ = must2(pool.Submit(func() { close(behind) }))(t)
				<-behind // the pool's one worker has posted what it has read
				ok[loop.Handle](t)(l.CallSoon(func() { raw.sendFailed(syscall.ECONNRESET) }))
			}))
			if _, err := sending.Await(co); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("TLS %v: Sendfile returned %v", withTLS, err)
			}
			if err := p.untilLost(t, co); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("TLS %v: lost with %v", withTLS, err)
			}
		}
	})
}

func TestTheFirstErrorOfTheKernelMeansThatSendfileIsNotAvailable(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		path := filepath.Join(t.TempDir(), "file")
		f := ok[*os.File](t)(os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600))
		defer f.Close()
		ok[int](t)(f.Write(contents(100)))
		p := &recorder{}
		tr, _ := joined(t, co, p)
		if _, err := Sendfile(co, tr, f, 0, ToEnd, &SendfileOptions{NoFallback: true}); !errors.Is(err, sockapi.ErrSendfileNotAvailable) || !errors.Is(err, unix.EBADF) {
			t.Errorf("a file that cannot be read: %v", err)
		}
		if tr.IsClosing() {
			t.Error("the transport is closing")
		}
		if _, err := Sendfile(co, tr, f, 0, ToEnd, nil); !errors.Is(err, unix.EBADF) {
			t.Errorf("a file that cannot be read, by the fallback: %v", err)
		}
		tr.Close()
		check(t, p.untilLost(t, co))
	})
}

func TestAPanicInPauseWritingAfterSendfileIsReported(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		all := reports(co)
		p := &recorder{}
		p.onPause = func() { panic("in PauseWriting") }
		tr, _ := joined(t, co, p)
		task := loop.CreateTask(co.Loop(), func(co *loop.Coro) (int64, error) {
			return Sendfile(co, tr, strings.NewReader(strings.Repeat("x", 32<<20)), 0, ToEnd, nil)
		}, nil)
		until(t, co, "the transport is full", func() bool { return tr.(*stream).writingPaused() })
		task.Cancel("enough")
		if _, err := task.Await(co); !errors.Is(err, loop.ErrCancelled) {
			t.Errorf("Sendfile returned %v", err)
		}
		if len(*all) != 1 || !strings.Contains((*all)[0].Message, "PauseWriting") {
			t.Errorf("reported: %v", *all)
		}
		tr.Abort()
		check(t, p.untilLost(t, co))
	})
}
