package docs_test

import (
	"bytes"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
	"github.com/seed-80cfe818/ringloop/transport"
)

// The snippets of the guide, in its order.

func Example_severalTasks() {
	err := loop.Run(func(co *loop.Coro) error {
		double := func(n int) *loop.Task[int] {
			return loop.CreateTask(co.Loop(), func(co *loop.Coro) (int, error) {
				return 2 * n, loop.Sleep(co, time.Millisecond)
			}, nil)
		}
		a, b := double(1), double(20) // both sleep at the same time
		x, err := a.Await(co)
		if err != nil {
			return err
		}
		y, err := b.Await(co)
		fmt.Println(x + y)
		return err
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output: 42
}

func readWithin(co *loop.Coro, s *sockapi.Socket, p []byte, limit time.Duration) (n int, err error) {
	err = loop.Timeout(co, limit, func() error {
		n, err = sockapi.RecvInto(co, s, p)
		return err
	})
	if errors.Is(err, loop.ErrTimeout) {
		return 0, fmt.Errorf("the client is too slow: %w", err)
	}
	return n, err
}

func stopOnSignals(co *loop.Coro) error {
	me := co.Task()
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		if err := co.Loop().AddSignalHandler(sig, func() { me.Cancel(sig.String()) }); err != nil {
			return err
		}
	}
	return nil
}

// untilOne waits until one of them is done. It cancels none.
func untilOne(co *loop.Coro, these ...loop.AnyFuture) error {
	one := loop.CreateFuture[struct{}](co.Loop())
	for _, f := range these {
		// An error says that another one was first.
		cb := f.AddDoneCallback(func(loop.AnyFuture) { _ = one.SetResult(struct{}{}) })
		defer f.RemoveDoneCallback(cb)
	}
	_, err := one.Await(co)
	return err
}

func load(co *loop.Coro, path string, messages <-chan string) (string, error) {
	l := co.Loop()
	// A call that blocks runs on a goroutine of the executor.
	text, err := loop.RunInExecutor(l, nil, func() ([]byte, error) { return os.ReadFile(path) }).Await(co)
	if err != nil {
		return "", err
	}
	// A goroutine of your own posts what it has to say.
	said := loop.CreateFuture[string](l)
	go func() {
		s := <-messages
		// An error says that the loop is closed: then nobody waits any more.
		_, _ = l.CallSoonThreadsafe(func() { _ = said.SetResult(s) })
	}()
	s, err := said.Await(co)
	return string(text) + s, err
}

type upper struct {
	transport.BaseStreamProtocol
	t transport.Transport
}

func (u *upper) ConnectionMade(t transport.Transport) { u.t = t }
func (u *upper) DataReceived(data []byte)             { _ = u.t.Write(bytes.ToUpper(data)) }
func (u *upper) PauseWriting()                        { _ = u.t.PauseReading() }
func (u *upper) ResumeWriting()                       { _ = u.t.ResumeReading() }

var _ transport.FlowController = &upper{}

func serveUpper(co *loop.Coro, host, port string) error {
	srv, err := transport.CreateServer(co, func() transport.Protocol { return &upper{} }, []string{host}, port, nil)
	if err != nil {
		return err
	}
	return untilSignal(co, srv)
}

func untilSignal(co *loop.Coro, srv *transport.Server) error {
	if err := stopOnSignals(co); err != nil {
		return err
	}
	_ = loop.Sleep(co, math.MaxInt64) // until a signal cancels it: no error
	srv.Close()                       // no new connections
	srv.CloseClients()                // those that are open send what is left
	err := loop.Timeout(co, 5*time.Second, func() error { return srv.WaitClosed(co) })
	if err != nil {
		srv.AbortClients() // some peers do not read
	}
	return err
}

type output struct {
	transport.BaseSubprocessProtocol
	text bytes.Buffer
	over *loop.Future[struct{}]
}

func (o *output) PipeDataReceived(_ int, data []byte) { o.text.Write(data) }
func (o *output) ConnectionLost(error)                { _ = o.over.SetResult(struct{}{}) }

// filter runs a program with input and returns what it has written.
func filter(co *loop.Coro, input string, limit time.Duration, program string, args ...string) (string, error) {
	o := &output{over: loop.CreateFuture[struct{}](co.Loop())}
	child, _, err := transport.SubprocessExec(co, func() transport.SubprocessProtocol { return o }, program, args, nil)
	if err != nil {
		return "", err
	}
	defer child.Close() // kills it if it is not over
	stdin := child.PipeTransport(0)
	if err := stdin.Write([]byte(input)); err != nil {
		return "", err
	}
	stdin.Close() // when that is written; a child that reads waits for it
	err = loop.Timeout(co, limit, func() error { _, err := o.over.Await(co); return err })
	if code, ended := child.ReturnCode(); err == nil && ended && code != 0 {
		err = fmt.Errorf("%s: exit status %d", program, code)
	}
	return o.text.String(), err
}

func onEveryBackend(t *testing.T, main func(co *loop.Coro) error) {
	for _, name := range []string{"io_uring", "epoll"} {
		t.Run(name, func(t *testing.T) {
			err := loop.Run(main, loop.WithBackend(name))
			if refused := (*backend.UnavailableError)(nil); errors.As(err, &refused) {
				t.Skip(refused)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestTheGuidesTimeLimitNamesWhatIsTooSlow(t *testing.T) {
	onEveryBackend(t, func(co *loop.Coro) error {
		a, b, err := sockapi.Pair(unix.SOCK_STREAM)
		if err != nil {
			return err
		}
		defer a.Close()
		defer b.Close()
		p := make([]byte, 10)
		if _, err := readWithin(co, a, p, time.Millisecond); !errors.Is(err, loop.ErrTimeout) {
			t.Errorf("nothing is sent: %v", err)
		}
		if err := sockapi.SendAll(co, b, []byte("data")); err != nil {
			return err
		}
		n, err := readWithin(co, a, p, time.Hour)
		if string(p[:n]) != "data" {
			t.Errorf("received %q", p[:n])
		}
		return err
	})
}

func TestTheGuidesGoroutinesReachTheLoop(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte("from a file, "), 0o600); err != nil {
		t.Fatal(err)
	}
	onEveryBackend(t, func(co *loop.Coro) error {
		messages := make(chan string, 1)
		messages <- "from a goroutine"
		s, err := load(co, path, messages)
		if s != "from a file, from a goroutine" {
			t.Errorf("got %q", s)
		}
		return err
	})
}

func TestTheGuidesServerServesAndEndsWithASignal(t *testing.T) {
	onEveryBackend(t, func(co *loop.Coro) error {
		srv, err := transport.CreateServer(co, func() transport.Protocol { return &upper{} }, []string{"127.0.0.1"}, "0", nil)
		if err != nil {
			return err
		}
		server := co.Loop().Go(func(co *loop.Coro) error { return untilSignal(co, srv) })
		addr, err := srv.Sockets()[0].LocalAddr()
		if err != nil {
			return err
		}
		s, err := sockapi.Dial(co, "tcp", addr.String())
		if err != nil {
			return err
		}
		defer s.Close()
		if err := sockapi.SendAll(co, s, []byte("hello")); err != nil {
			return err
		}
		p := make([]byte, 10)
		if n, err := sockapi.RecvInto(co, s, p); string(p[:n]) != "HELLO" {
			t.Errorf("received %q, %v", p[:n], err)
		}
		if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
			return err
		}
		_, err = server.Await(co)
		return err
	})
}

func TestTheGuidesWaitForOneCancelsNone(t *testing.T) {
	onEveryBackend(t, func(co *loop.Coro) error {
		never, soon := loop.CreateFuture[int](co.Loop()), loop.CreateFuture[int](co.Loop())
		if _, err := co.Loop().CallSoon(func() { _ = soon.SetResult(1) }); err != nil {
			return err
		}
		if err := untilOne(co, never, soon); err != nil || !soon.Done() || never.Done() {
			t.Errorf("%v; %v and %v are done", err, soon, never)
		}
		err := loop.Timeout(co, time.Millisecond, func() error { return untilOne(co, never) })
		if !errors.Is(err, loop.ErrTimeout) || never.Done() {
			t.Errorf("%v; %v is done", err, never)
		}
		return nil
	})
}

func TestTheGuidesFilter(t *testing.T) {
	onEveryBackend(t, func(co *loop.Coro) error {
		if got, err := filter(co, "some text", time.Minute, "cat"); got != "some text" || err != nil {
			t.Errorf("cat: %q, %v", got, err)
		}
		if _, err := filter(co, "", time.Minute, "false"); err == nil {
			t.Error("false has not failed")
		}
		if _, err := filter(co, "", time.Millisecond, "sleep", "3600"); !errors.Is(err, loop.ErrTimeout) {
			t.Errorf("sleep: %v", err)
		}
		return nil
	})
}

func TestTheGuidesServerSaysWhyItCannotListen(t *testing.T) {
	onEveryBackend(t, func(co *loop.Coro) error {
		if err := serveUpper(co, "192.0.2.1", "0"); !errors.Is(err, syscall.EADDRNOTAVAIL) {
			t.Errorf("an address of somebody else: %v", err)
		}
		return nil
	})
}

var (
	sourceRow = regexp.MustCompile(`(?m)^\| \[([^\]]+)\]\(\.\./([^)]+)\) \| (.*) \| .* \|$`)
	symbol    = regexp.MustCompile(`^(?:backend|loop|sockapi|transport)\.[A-Z][A-Za-z.]*$`)
)

// TestTheGuideFollowsTheSource looks for the functions of its last chapter in
// their files, and for the names that it mentions elsewhere.
func TestTheGuideFollowsTheSource(t *testing.T) {
	guide := readFile(t, "guide.md")
	rows := sourceRow.FindAllStringSubmatch(guide, -1)
	if len(rows) == 0 {
		t.Fatal("the guide names no file")
	}
	for _, m := range rows {
		if m[1] != m[2] {
			t.Errorf("%s is a link to %s", m[1], m[2])
		}
		f, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", m[2]), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Error(err)
			continue
		}
		has := map[string]bool{}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok {
				has[fn.Name.Name] = true
			}
		}
		for _, c := range code.FindAllStringSubmatch(m[3], -1) {
			if !has[c[1]] {
				t.Errorf("%s has no function %s", m[1], c[1])
			}
		}
	}
	m := parseModule(t)
	for _, c := range code.FindAllStringSubmatch(snippet.ReplaceAllString(guide, ""), -1) {
		if symbol.MatchString(c[1]) && !m.has(c[1]) {
			t.Errorf("there is no %s", c[1])
		}
	}
}

// TestTheGuideQuotesRealErrors makes mistakes of the table.
func TestTheGuideQuotesRealErrors(t *testing.T) {
	onEveryBackend(t, func(co *loop.Coro) error {
		l := co.Loop()
		inCallback := loop.CreateFuture[error](l)
		if _, err := l.CallSoon(func() { _ = inCallback.SetResult(loop.Sleep(co, time.Millisecond)) }); err != nil {
			return err
		}
		got, err := inCallback.Await(co)
		if !errors.Is(got, loop.ErrNotCurrent) {
			t.Errorf("a Coro in a callback: %v", got)
		}
		if rerr := loop.Run(func(*loop.Coro) error { return nil }); !errors.Is(rerr, loop.ErrOtherLoopRunning) {
			t.Errorf("Run in a task: %v", rerr)
		}
		return err
	})
}
