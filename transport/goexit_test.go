package transport

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
)

// exiting is a protocol one of whose callbacks ends the goroutine that runs the
// loop, once, as t.Fatal does.
type exiting struct {
	in    string // the callback
	t     Transport
	done  bool // it has exited
	lost  bool
	eof   bool
	got   int // bytes
	flow  []string
	inBuf [4]byte
}

func (p *exiting) exit(callback string) {
	if callback == p.in && !p.done {
		p.done = true
		runtime.Goexit()
	}
}

func (p *exiting) ConnectionMade(t Transport) { p.t = t; p.exit("made") }
func (p *exiting) ConnectionLost(error)       { p.lost = true; p.exit("lost") }
func (p *exiting) EOFReceived() bool          { p.eof = true; p.exit("eof"); return false }
func (p *exiting) PauseWriting()              { p.flow = append(p.flow, "pause"); p.exit("pause") }
func (p *exiting) ResumeWriting()             { p.flow = append(p.flow, "resume"); p.exit("resume") }

type exitingData struct{ exiting }

func (p *exitingData) DataReceived(data []byte) { p.got += len(data); p.exit("data") }

type exitingBuffer struct{ exiting }

func (p *exitingBuffer) GetBuffer(int) []byte { return p.inBuf[:] }
func (p *exitingBuffer) BufferUpdated(n int)  { p.got += n; p.exit("data") }

// inTaskWithExits is inTask for callbacks that end the loop's goroutine: another
// one goes on with the loop.
func inTaskWithExits(t *testing.T, test func(t *testing.T, co *loop.Coro)) {
	eachBackend(t, func(t *testing.T, name string) {
		l := ipcLoop(t, loop.WithBackend(name), loop.WithLogger(slog.New(slog.DiscardHandler)))
		task := l.Go(func(co *loop.Coro) error {
			test(t, co)
			return nil
		})
		for !task.Done() {
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				runTask(t, l, func(co *loop.Coro) error {
					_, err := task.Await(co)
					return err
				})
			}()
			<-ended
		}
	})
}

func TestAStreamGoesOnAfterACallbackThatEndsItsGoroutine(t *testing.T) {
	for _, in := range []string{"made", "data", "eof", "lost"} {
		for _, kind := range []string{"data", "buffer", "parked"} {
			t.Run(in+" "+kind, func(t *testing.T) {
				inTaskWithExits(t, func(t *testing.T, co *loop.Coro) {
					var p Protocol
					var e *exiting
					if kind == "buffer" {
						b := &exitingBuffer{exiting{in: in}}
						p, e = b, &b.exiting
					} else {
						d := &exitingData{exiting{in: in}}
						p, e = d, &d.exiting
					}
					srv, port := localServer(t, co, func() Protocol { return p }, nil)
					c := ok[net.Conn](t)(net.Dial("tcp", "127.0.0.1:"+port))
					defer c.Close()
					until(t, co, "there is a connection", func() bool { return e.t != nil })
					if kind == "parked" {
						check(t, e.t.PauseReading())
					}
					for _, s := range []string{"abc", "defg", "hij"} {
						ok[int](t)(c.Write([]byte(s)))
						turns(t, co)
					}
					if kind == "parked" {
						check(t, e.t.ResumeReading())
					}
					until(t, co, "everything is received", func() bool { return e.got == 10 })
					check(t, c.(*net.TCPConn).CloseWrite())
					until(t, co, "the connection is lost", func() bool { return e.lost })
					if !e.eof || !e.done {
						t.Errorf("EOFReceived was called: %v, the goroutine ended: %v", e.eof, e.done)
					}
					over(t, co, srv)
				})
			})
		}
	}
}

func TestAClosingStreamEndsAfterAResumeWritingThatEndsItsGoroutine(t *testing.T) {
	inTaskWithExits(t, func(t *testing.T, co *loop.Coro) {
		p := &exitingData{exiting{in: "resume"}}
		tr, peer := joined(t, co, p)
		total := len(stuff(t, co, tr))
		check(t, tr.SetWriteBufferLimits(0, 0))
		tr.Close()
		receive(t, co, peer, total)
		until(t, co, "the connection is lost", func() bool { return p.lost })
		if !p.done {
			t.Error("ResumeWriting was not called")
		}
	})
}

func TestAReadPipeGoesOnAfterACallbackThatEndsItsGoroutine(t *testing.T) {
	for _, in := range []string{"made", "data", "eof", "lost"} {
		t.Run(in, func(t *testing.T) {
			inTaskWithExits(t, func(t *testing.T, co *loop.Coro) {
				r, w := osPipe(t)
				p := &exitingData{exiting{in: in}}
				_, _, err := ConnectReadPipe(co, func() Protocol { return p }, r)
				check(t, err)
				for _, s := range []string{"abc", "defg"} {
					ok[int](t)(w.Write([]byte(s)))
					turns(t, co)
				}
				until(t, co, "everything is received", func() bool { return p.got == 7 })
				check(t, w.Close())
				until(t, co, "the pipe is lost", func() bool { return p.lost })
				if !p.done {
					t.Error("the goroutine did not end")
				}
			})
		})
	}
}

func TestAStreamGoesOnAfterExitsInSeveralCallbacks(t *testing.T) {
	inTaskWithExits(t, func(t *testing.T, co *loop.Coro) {
		p := &recorder{}
		p.onMade = runtime.Goexit
		p.onData = func([]byte) { runtime.Goexit() }
		p.onLost = runtime.Goexit
		_, peer := joined(t, co, p)
		check(t, sockapi.SendAll(co, peer, []byte("x")))
		p.untilData(t, co, "x")
		check(t, sockapi.CloseWait(co, peer))
		check(t, p.untilLost(t, co))
		p.want(t, "made", "eof", "lost")
	})
}

// What has arrived for another protocol is copied into its buffer of 4 bytes.
func TestAStreamLosesNothingIfACopyIsCutShort(t *testing.T) {
	inTaskWithExits(t, func(t *testing.T, co *loop.Coro) {
		p := &exitingBuffer{exiting{in: "data"}}
		plain := &recorder{}
		tr, peer := joined(t, co, plain)
		turns(t, co)
		check(t, tr.PauseReading())
		check(t, sockapi.SendAll(co, peer, []byte("0123456789")))
		turns(t, co) // it is parked
		tr.SetProtocol(p)
		check(t, tr.ResumeReading())
		until(t, co, "everything is received", func() bool { return p.got == 10 })
		tr.Abort()
		until(t, co, "the connection is lost", func() bool { return p.lost })
	})
}

func TestAReadPipeLosesNothingIfACopyIsCutShort(t *testing.T) {
	inTaskWithExits(t, func(t *testing.T, co *loop.Coro) {
		for _, in := range []string{"data", "getbuffer"} {
			r, w := osPipe(t)
			p := &exitingGetBuffer{exitingBuffer{exiting{in: in}}} // of 4 bytes
			tr := parkedPipe(t, co, &streamDiary{}, r, w, "0123456789")
			tr.SetProtocol(p)
			check(t, tr.ResumeReading())
			until(t, co, "everything is received", func() bool { return p.got == 10 })
			tr.Abort()
			until(t, co, "the pipe is lost", func() bool { return p.lost })
		}
	})
}

// emptyBuffer has no memory.
type emptyBuffer struct{ exiting }

func (p *emptyBuffer) GetBuffer(int) []byte { return nil }
func (p *emptyBuffer) BufferUpdated(int)    {}

func TestAReadPipeIsLostInSpiteOfAHandlerThatEndsItsGoroutine(t *testing.T) {
	inTaskWithExits(t, func(t *testing.T, co *loop.Coro) {
		co.Loop().SetExceptionHandler(func(*loop.Loop, *loop.ExceptionContext) { runtime.Goexit() })
		r, w := osPipe(t)
		p := &emptyBuffer{}
		_, _, err := ConnectReadPipe(co, protocolOf(p), r)
		check(t, err)
		ok[int](t)(w.Write([]byte("abc")))
		until(t, co, "the pipe is lost", func() bool { return p.lost })

		a, b := socketFiles(t)
		q := &streamDiary{}
		_, _, err = ConnectReadPipe(co, protocolOf(q), a)
		check(t, err)
		check(t, onFD(a, func(fd int) error { _, err := unix.Write(fd, []byte("unread")); return err }))
		check(t, b.Close()) // which is a reset
		if err := q.untilLost(t, co); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("lost with %v", err)
		}
	})
}

// exitingErrors ends the goroutine in ErrorReceived.
type exitingErrors struct {
	datagramDiary
	done bool
}

func (p *exitingErrors) ErrorReceived(err error) {
	p.datagramDiary.ErrorReceived(err)
	if !p.done {
		p.done = true
		runtime.Goexit()
	}
}

func TestAnEndpointIsResumedAfterAnErrorReceivedThatEndsItsGoroutine(t *testing.T) {
	inTaskWithExits(t, func(t *testing.T, co *loop.Coro) {
		full := sockapi.UnixAddr(filepath.Join(t.TempDir(), "full"))
		peer := ok[*sockapi.Socket](t)(sockapi.New(unix.AF_UNIX, unix.SOCK_DGRAM, 0))
		check(t, peer.Bind(full))
		p := &exitingErrors{}
		tr, _, err := CreateDatagramEndpoint(co, func() DatagramProtocol { return p }, &DatagramOptions{Family: unix.AF_UNIX})
		check(t, err)
		check(t, tr.SetWriteBufferLimits(0, 0))
		for tr.WriteBufferSize() == 0 {
			check(t, tr.SendTo([]byte("x"), full))
		}
		check(t, peer.Close())
		until(t, co, "it is resumed", func() bool { return slices.Contains(p.events, "resume") })
		if !p.done {
			t.Error("the goroutine did not end")
		}
		tr.Abort()
		check(t, p.untilLost(t, co))
	})
}

// exitingProcess is exiting for a subprocess.
type exitingProcess struct {
	BaseSubprocessProtocol
	e     exiting
	pipes int
}

func (p *exitingProcess) ConnectionMade(SubprocessTransport)  { p.e.exit("made") }
func (p *exitingProcess) PipeDataReceived(_ int, data []byte) { p.e.got += len(data); p.e.exit("data") }
func (p *exitingProcess) PipeConnectionLost(int, error)       { p.pipes++; p.e.exit("pipe") }
func (p *exitingProcess) ProcessExited()                      { p.e.exit("exited") }
func (p *exitingProcess) ConnectionLost(error)                { p.e.lost = true; p.e.exit("lost") }

func TestASubprocessEndsAfterACallbackThatEndsItsGoroutine(t *testing.T) {
	for _, in := range []string{"made", "data", "pipe", "exited", "lost"} {
		t.Run(in, func(t *testing.T) {
			inTaskWithExits(t, func(t *testing.T, co *loop.Coro) {
				p := &exitingProcess{e: exiting{in: in}}
				tr, _, err := SubprocessExec(co, func() SubprocessProtocol { return p }, "/bin/sh", []string{"-c", "echo out; echo err >&2"}, nil)
				check(t, err)
				until(t, co, "the process is over", func() bool { return p.e.lost })
				turns(t, co)
				if !tr.IsClosing() || tr.Protocol() != nil {
					t.Errorf("after ConnectionLost: closing %v, protocol %v", tr.IsClosing(), tr.Protocol())
				}
				if p.e.got != 8 || p.pipes != 3 || !p.e.done {
					t.Errorf("%d bytes, %d pipes lost, the goroutine ended: %v", p.e.got, p.pipes, p.e.done)
				}
			})
		})
	}
}

// exitingDatagrams is exiting for a datagram endpoint.
type exitingDatagrams struct {
	BaseDatagramProtocol
	e exiting
}

func (p *exitingDatagrams) ConnectionMade(DatagramTransport) { p.e.exit("made") }
func (p *exitingDatagrams) DatagramReceived([]byte, Addr)    { p.e.got++; p.e.exit("data") }
func (p *exitingDatagrams) ConnectionLost(error)             { p.e.lost = true }

func TestAnEndpointGoesOnAfterACallbackThatEndsItsGoroutine(t *testing.T) {
	for _, in := range []string{"made", "data"} {
		t.Run(in, func(t *testing.T) {
			inTaskWithExits(t, func(t *testing.T, co *loop.Coro) {
				p := &exitingDatagrams{e: exiting{in: in}}
				tr, _, err := CreateDatagramEndpoint(co, func() DatagramProtocol { return p }, &DatagramOptions{LocalAddr: anyPort})
				check(t, err)
				addr, _ := tr.ExtraInfo(ExtraSockName)
				c := ok[net.Conn](t)(net.Dial("udp", addr.(Addr).String()))
				defer c.Close()
				for range 3 {
					ok[int](t)(c.Write([]byte("x")))
				}
				until(t, co, "everything is received", func() bool { return p.e.got == 3 })
				if !p.e.done {
					t.Error("the goroutine did not end")
				}
				tr.Abort()
				until(t, co, "the endpoint is lost", func() bool { return p.e.lost })
			})
		})
	}
}

func TestAConnectionWhoseFactoryEndsItsGoroutineIsClosed(t *testing.T) {
	inTaskWithExits(t, func(t *testing.T, co *loop.Coro) {
		n := 0
		srv, port := localServer(t, co, func() Protocol {
			if n++; n == 1 {
				runtime.Goexit()
			}
			return &echo{}
		}, nil)
		peer := dialLocal(t, co, port)
		if _, err := sockapi.Recv(co, peer, 1); err != io.EOF {
			t.Errorf("the connection without a protocol: %v, want its end", err)
		}
		peer = dialLocal(t, co, port)
		check(t, sockapi.SendAll(co, peer, []byte("x")))
		receive(t, co, peer, 1)
		over(t, co, srv)
	})
}

type exitingGetBuffer struct{ exitingBuffer }

func (p *exitingGetBuffer) GetBuffer(int) []byte { p.exit("getbuffer"); return p.inBuf[:] }

func TestReadingGoesOnAfterAGetBufferThatEndsItsGoroutine(t *testing.T) {
	for _, kind := range []string{"stream", "pipe"} {
		t.Run(kind, func(t *testing.T) {
			inTaskWithExits(t, func(t *testing.T, co *loop.Coro) {
				p := &exitingGetBuffer{exitingBuffer{exiting{in: "getbuffer"}}}
				var w io.Writer
				if kind == "pipe" {
					r, pw := osPipe(t)
					w = pw
					_, _, err := ConnectReadPipe(co, protocolOf(p), r)
					check(t, err)
				} else {
					ours, peer := blockingPair(t)
					w = peer
					_, _, err := CreateConnection(co, protocolOf(p), "", "", &ConnectOptions{Sock: ours})
					check(t, err)
				}
				ok[int](t)(w.Write([]byte("abc")))
				until(t, co, "everything is received", func() bool { return p.got == 3 })
				if !p.done {
					t.Error("the goroutine did not end")
				}
				p.t.Abort()
				until(t, co, "the connection is lost", func() bool { return p.lost })
			})
		})
	}
}
