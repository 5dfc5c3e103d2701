package transport

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/uring"
)

// patience is how long anything may take before a test fails.
const patience = 60 * time.Second

// inTask runs a test as a task of a fresh loop, once on each backend.
func inTask(t *testing.T, test func(t *testing.T, co *loop.Coro)) {
	t.Helper()
	inLoggedTask(t, func(t *testing.T, co *loop.Coro, _ *logBuffer) { test(t, co) })
}

// eachBackend runs a test once for each backend. Where io_uring is refused its
// test is skipped with the reason.
func eachBackend(t *testing.T, test func(t *testing.T, name string)) {
	t.Helper()
	for _, name := range []string{"io_uring", "epoll"} {
		t.Run(name, func(t *testing.T) {
			if name == "io_uring" {
				if err := uring.Available(); err != nil {
					t.Skipf("io_uring: %v", err)
				}
			}
			test(t, name)
		})
	}
}

// inLoggedTask is inTask with what the loop has logged.
func inLoggedTask(t *testing.T, test func(t *testing.T, co *loop.Coro, log *logBuffer)) {
	t.Helper()
	eachBackend(t, func(t *testing.T, name string) {
		log := &logBuffer{}
		l := ipcLoop(t, loop.WithBackend(name), loop.WithLogger(slog.New(slog.NewTextHandler(log, nil))))
		runTask(t, l, func(co *loop.Coro) error {
			test(t, co, log)
			return nil
		})
	})
}

// ipcLoop returns a loop whose reports fail the test, unless it asks for them
// with reports. It is not in debug mode, which reports more, whatever the
// environment says.
func ipcLoop(t *testing.T, opts ...loop.Option) *loop.Loop {
	t.Helper()
	l, err := loop.NewEventLoop(opts...)
	if err != nil {
		t.Fatal(err)
	}
	l.SetDebug(false)
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Errorf("close the loop: %v", err)
		}
	})
	l.SetExceptionHandler(func(_ *loop.Loop, c *loop.ExceptionContext) {
		t.Errorf("reported: %s: %v", c.Message, c.Exception)
	})
	return l
}

// runTask runs fn as a task. It fails the test if that takes for ever, and when
// the task was ended by a panic or by t.FailNow.
func runTask(t *testing.T, l *loop.Loop, fn func(co *loop.Coro) error) {
	t.Helper()
	stuck := time.AfterFunc(patience, func() {
		_, _ = l.CallSoonThreadsafe(func() { panic(loop.LoopExit{Err: errors.New("the test is stuck")}) })
	})
	defer stuck.Stop()
	if _, err := loop.RunUntilComplete(l, l.Go(fn)); err != nil && !errors.Is(err, loop.ErrGoexit) {
		t.Error(err)
	}
}

// reports collects what is reported to the exception handler from now on.
func reports(co *loop.Coro) *[]*loop.ExceptionContext {
	all := &[]*loop.ExceptionContext{}
	co.Loop().SetExceptionHandler(func(_ *loop.Loop, c *loop.ExceptionContext) { *all = append(*all, c) })
	return all
}

// until waits, turn by turn, until cond holds.
func until(t *testing.T, co *loop.Coro, what string, cond func() bool) {
	t.Helper()
	for limit := time.Now().Add(patience); !cond(); {
		if time.Now().After(limit) {
			t.Fatalf("waited in vain until %s", what)
		}
		if err := loop.Sleep(co, time.Millisecond); err != nil {
			t.Fatalf("while waiting until %s: %v", what, err)
		}
	}
}

// must returns v, or fails the test.
func must[T any](t *testing.T, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// diary notes the callbacks of a protocol, in order.
type diary struct {
	events []string
	lost   bool
	err    error // of ConnectionLost
}

func (d *diary) note(format string, args ...any) {
	d.events = append(d.events, fmt.Sprintf(format, args...))
}

func (d *diary) ConnectionLost(err error) {
	d.note("lost")
	if d.lost {
		d.note("lost AGAIN")
	}
	d.lost, d.err = true, err
}

// want compares the diary.
func (d *diary) want(t *testing.T, events ...string) {
	t.Helper()
	if !slices.Equal(d.events, events) {
		t.Errorf("callbacks: %q, want %q", d.events, events)
	}
}

// untilLost waits for ConnectionLost and returns its error.
func (d *diary) untilLost(t *testing.T, co *loop.Coro) error {
	t.Helper()
	until(t, co, "the connection is lost", func() bool { return d.lost })
	return d.err
}

// streamDiary is a protocol of a pipe.
type streamDiary struct {
	diary
	t      Transport
	data   bytes.Buffer
	onMade func()
	onData func(data []byte)
}

func (p *streamDiary) ConnectionMade(t Transport) {
	p.t = t
	p.note("made")
	if p.onMade != nil {
		p.onMade()
	}
}

func (p *streamDiary) DataReceived(data []byte) {
	p.data.Write(data)
	if p.onData != nil {
		p.onData(data)
	}
}

func (p *streamDiary) EOFReceived() bool {
	p.note("eof")
	return true
}

func (p *streamDiary) PauseWriting()  { p.note("pause") }
func (p *streamDiary) ResumeWriting() { p.note("resume") }

// untilData waits until at least the bytes of want have arrived.
func (p *streamDiary) untilData(t *testing.T, co *loop.Coro, want string) {
	t.Helper()
	until(t, co, fmt.Sprintf("%q arrives", want), func() bool { return p.data.Len() >= len(want) })
	if got := p.data.String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// logBuffer is where a loop's log goes.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), s)
}

// osPipe makes a pipe whose ends nobody but the test and what it calls uses.
func osPipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = r.Close()
		_ = w.Close()
	})
	return r, w
}
