package transport

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/seed-80cfe818/ringloop/loop"
)

// receiving is a transport whose peer sends when the test wants it to.
type receiving struct {
	diary *diary
	send  func(s string)
	got   func() string
	abort func()
}

// receivingStream is one whose peer sends by w, which does not need the loop.
func receivingStream(t *testing.T, p *streamDiary, w io.Writer) receiving {
	return receiving{&p.diary, func(s string) { writeString(t, w, s) }, p.data.String, func() { p.t.Abort() }}
}

// updater is a BufferedProtocol that notes what it is given like the others.
type updater struct {
	recorder
	buf [16]byte
}

func (p *updater) GetBuffer(int) []byte { return p.buf[:] }

func (p *updater) BufferUpdated(n int) { p.DataReceived(p.buf[:n]) }

// receivers make a transport of each kind, whose protocol calls then when it is
// given something.
var receivers = map[string]func(t *testing.T, co *loop.Coro, then func()) receiving{
	"stream": func(t *testing.T, co *loop.Coro, then func()) receiving {
		p := &recorder{}
		p.onData = func([]byte) { then() }
		ours, peer := blockingPair(t)
		_, _, err := CreateConnection(co, protocolOf(p), "", "", &ConnectOptions{Sock: ours})
		check(t, err)
		return receivingStream(t, &p.streamDiary, peer)
	},
	"buffered stream": func(t *testing.T, co *loop.Coro, then func()) receiving {
		p := &updater{}
		p.onData = func([]byte) { then() }
		ours, peer := blockingPair(t)
		_, _, err := CreateConnection(co, protocolOf(p), "", "", &ConnectOptions{Sock: ours})
		check(t, err)
		return receivingStream(t, &p.streamDiary, peer)
	},
	"TLS": func(t *testing.T, co *loop.Coro, then func()) receiving {
		p := &recorder{}
		p.onData = func([]byte) { then() }
		_, peer := secured(t, co, p, serverTLS(), nil)
		return receivingStream(t, &p.streamDiary, peer)
	},
	"read pipe": func(t *testing.T, co *loop.Coro, then func()) receiving {
		p := &streamDiary{onData: func([]byte) { then() }}
		r, w := osPipe(t)
		readPipeOf(t, co, p, r)
		return receivingStream(t, p, w)
	},
	"datagrams": func(t *testing.T, co *loop.Coro, then func()) receiving {
		p, q := endpoint(t, co, DatagramOptions{LocalAddr: anyPort}), endpoint(t, co, DatagramOptions{LocalAddr: anyPort})
		p.onDatagram = func(data []byte, _ Addr) {
			p.got = append(p.got, string(data))
			then()
		}
		return receiving{
			&p.diary, func(s string) { q.send(t, s, p.addr(t)) }, func() string { return strings.Join(p.got, "") },
			func() { p.t.Abort(); q.t.Abort() },
		}
	},
}

// exitsInside raise a LoopExit inside of whatever calls them.
var exitsInside = map[string]func(t *testing.T, co *loop.Coro, reason error) (raise func()){
	"a protocol's callback": func(t *testing.T, co *loop.Coro, reason error) func() {
		p := &recorder{}
		p.onPause = func() { panic(loop.LoopExit{Err: reason}) }
		tr, _ := joined(t, co, p)
		return func() { check(t, tr.Write(make([]byte, 8<<20))) }
	},
	"an eager task": func(_ *testing.T, co *loop.Coro, reason error) func() {
		return func() {
			loop.CreateTask(co.Loop(), func(*loop.Coro) (int, error) { panic(loop.LoopExit{Err: reason}) }, &loop.TaskOptions{EagerStart: true})
		}
	},
	"the exception handler": func(_ *testing.T, co *loop.Coro, reason error) func() {
		l := co.Loop()
		return func() {
			was := l.ExceptionHandler()
			defer l.SetExceptionHandler(was)
			l.SetExceptionHandler(func(*loop.Loop, *loop.ExceptionContext) { panic(loop.LoopExit{Err: reason}) })
			l.CallExceptionHandler(&loop.ExceptionContext{Message: "told by a protocol"})
		}
	},
}

func TestALoopExitInsideOfACallbackLeavesItsTransportAlone(t *testing.T) {
	for kind, receiver := range receivers {
		for where, inside := range exitsInside {
			t.Run(kind+", "+where, func(t *testing.T) {
				eachBackend(t, func(t *testing.T, name string) {
					l := ipcLoop(t, loop.WithBackend(name))
					reason := errors.New("enough")
					var r receiving
					exits(t, l, reason, func(co *loop.Coro) error {
						raise := inside(t, co, reason)
						r = receiver(t, co, func() {
							if r.got() == "before" {
								raise()
							}
						})
						turns(t, co) // it waits for the loop to receive
						r.send("before")
						return nil
					})
					r.diary.want(t, "made")
					runTask(t, l, func(co *loop.Coro) error {
						r.send(" after")
						until(t, co, "the rest arrives", func() bool { return r.diary.lost || r.got() == "before after" })
						r.abort()
						check(t, r.diary.untilLost(t, co))
						return nil
					})
				})
			})
		}
	}
}
