package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/seed-80cfe818/ringloop/internal/leaktest"
	"github.com/seed-80cfe818/ringloop/uring"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// patience is how long anything may take before a test fails.
const patience = 60 * time.Second

// running is a server under test.
type running struct {
	tcp, unix string
	stop      func() int // stops it and returns the exit status
}

// forEachBackend runs a test against a server on every backend.
func forEachBackend(t *testing.T, test func(t *testing.T, s *running), args ...string) {
	for _, backend := range []string{"io_uring", "epoll"} {
		t.Run(backend, func(t *testing.T) {
			if backend == "io_uring" {
				if err := uring.Available(); err != nil {
					t.Skipf("io_uring: %v", err)
				}
			}
			test(t, start(t, append([]string{"-backend", backend}, args...)...))
		})
	}
}

var listening = regexp.MustCompile(`listening on (\S+),`)

// start runs a server until the test ends.
func start(t *testing.T, args ...string) *running {
	t.Helper()
	s := &running{unix: filepath.Join(t.TempDir(), "redis.sock")}
	ctx, cancel := context.WithCancel(context.Background())
	stderrR, stderrW := io.Pipe()
	status := make(chan int, 1)
	go func() {
		status <- run(ctx, append([]string{"-addr", "127.0.0.1:0", "-unix", s.unix, "-v"}, args...), stderrW)
		_ = stderrW.Close()
	}()
	lines := bufio.NewScanner(stderrR)
	for range 2 { // one line for each socket, TCP first
		if !lines.Scan() {
			t.Fatalf("the server ended with %d", <-status)
		}
		m := listening.FindStringSubmatch(lines.Text())
		if m == nil {
			t.Fatalf("the server said %q", lines.Text())
		}
		if s.tcp == "" {
			s.tcp = m[1]
		}
	}
	var drained sync.WaitGroup
	drained.Go(func() { _, _ = io.Copy(io.Discard, stderrR) })
	s.stop = sync.OnceValue(func() int {
		cancel()
		code := <-status
		drained.Wait()
		return code
	})
	t.Cleanup(func() {
		if code := s.stop(); code != 0 {
			t.Errorf("the server ended with status %d", code)
		}
	})
	return s
}

// client is a connection to the server.
type client struct {
	t testing.TB
	net.Conn
	in *bufio.Reader
}

func (s *running) dial(t testing.TB) *client     { return dial(t, "tcp", s.tcp) }
func (s *running) dialUnix(t *testing.T) *client { return dial(t, "unix", s.unix) }

func dial(t testing.TB, network, addr string) *client {
	t.Helper()
	c, err := net.DialTimeout(network, addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return &client{t: t, Conn: c, in: bufio.NewReader(c)}
}

// encode encodes a command as clients do.
func encode(args ...string) []byte {
	b := fmt.Appendf(nil, "*%d\r\n", len(args))
	for _, arg := range args {
		b = fmt.Appendf(b, "$%d\r\n%s\r\n", len(arg), arg)
	}
	return b
}

func (c *client) send(b []byte) {
	c.t.Helper()
	if _, err := c.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

// do sends a command and returns the reply.
func (c *client) do(args ...string) string {
	c.t.Helper()
	c.send(encode(args...))
	return c.reply()
}

// reply reads a reply and returns it as it is written by people: simple strings
// and errors with their mark, bulk strings plain, null as (nil).
func (c *client) reply() string {
	c.t.Helper()
	line, err := c.in.ReadString('\n')
	if err != nil {
		c.t.Fatalf("after %q: %v", line, err)
	}
	line = strings.TrimSuffix(line, "\r\n")
	switch line[0] {
	case '$':
		n := c.number(line)
		if n < 0 {
			return "(nil)"
		}
		b := make([]byte, n+2)
		if _, err := io.ReadFull(c.in, b); err != nil {
			c.t.Fatal(err)
		}
		return string(b[:n])
	case '*':
		parts := make([]string, c.number(line))
		for i := range parts {
			parts[i] = c.reply()
		}
		return "[" + strings.Join(parts, " ") + "]"
	}
	return line
}

func (c *client) number(line string) int {
	c.t.Helper()
	n, err := strconv.Atoi(line[1:])
	if err != nil {
		c.t.Fatalf("got %q", line)
	}
	return n
}

// want sends a command given as words and compares the reply.
func (c *client) want(command, reply string) {
	c.t.Helper()
	if got := c.do(strings.Fields(command)...); got != reply {
		c.t.Errorf("%s: %q, want %q", command, got, reply)
	}
}

// wantEnd expects that the server closes the connection.
func (c *client) wantEnd() {
	c.t.Helper()
	if b, err := io.ReadAll(c.in); err != nil || len(b) > 0 {
		c.t.Errorf("got %q, %v, want the end", b, err)
	}
}

var clients = regexp.MustCompile(`connected_clients:[234]\r\n`)

func TestCommandsReplyAsRedisDoes(t *testing.T) {
	forEachBackend(t, func(t *testing.T, s *running) {
		for _, c := range []*client{s.dial(t), s.dialUnix(t)} {
			other := s.dial(t)
			other.want("PING", "+PONG")
			for _, x := range [][2]string{
				{"PING", "+PONG"}, {"ping hello", "hello"}, {"ECHO hi", "hi"},
				{"FLUSHDB", "+OK"}, {"DBSIZE", ":0"}, {"GET a", "(nil)"},
				{"SET a 1", "+OK"}, {"GET a", "1"}, {"SET a 2 NX", "(nil)"}, {"SET a 2 XX", "+OK"}, {"SET b 3 XX", "(nil)"}, {"SET b 3 NX", "+OK"},
				{"MGET a b c", "[2 3 (nil)]"}, {"INCR a", ":3"}, {"DECR a", ":2"}, {"DECR new", ":-1"}, {"GET new", "-1"},
				{"EXISTS a a c", ":2"}, {"DBSIZE", ":3"}, {"DEL a c new", ":2"}, {"GET a", "(nil)"},
				{"MSET x 1 y two", "+OK"}, {"MGET y x", "[two 1]"}, {"INCR y", "-" + errInteger},
				{"SET x 9223372036854775807", "+OK"}, {"INCR x", "-" + errOverflow}, {"GET x", "9223372036854775807"},
				{"GET", "-ERR wrong number of arguments for 'get' command"}, {"MSET a b c", "-ERR wrong number of arguments for 'mset' command"},
				{"nope a b", "-ERR unknown command 'nope', with args beginning with: 'a' 'b' "}, {"averyveryverylongname", "-ERR unknown command 'averyveryverylongname', with args beginning with: "},
				{"SELECT 0", "+OK"}, {"SELECT 1", "-ERR DB index is out of range"}, {"CONFIG GET save", "[save ]"}, {"CONFIG GET appendonly nope", "[appendonly no]"}, {"CONFIG SET a b", "-ERR only CONFIG GET is supported"},
				{"COMMAND DOCS", "[]"}, {"COMMAND COUNT", ":26"}, {"FLUSHDB LATER", "-" + errSyntax}, {"FLUSHDB ASYNC", "+OK"}, {"DBSIZE", ":0"},
			} {
				c.want(x[0], x[1])
			}
			if got := c.do("INFO"); !clients.MatchString(got) {
				t.Errorf("INFO: %q", got)
			}
			c.want("QUIT", "+OK")
			c.wantEnd()
		}
	})
}

func TestBinaryKeysAndValuesSurvive(t *testing.T) {
	forEachBackend(t, func(t *testing.T, s *running) {
		c := s.dial(t)
		for _, v := range []string{"", "\r\n", "\x00", "a\r\n$1\r\nb", string(bytes.Repeat([]byte{0xff}, 300))} {
			if got := c.do("SET", "k"+v, v); got != "+OK" {
				t.Errorf("SET %q: %q", v, got)
			}
			if got := c.do("GET", "k"+v); got != v {
				t.Errorf("GET: %q, want %q", got, v)
			}
		}
		if got := c.do("no\r\n+OK", "such\r\ncommand"); !strings.HasPrefix(got, "-ERR unknown command 'no  +OK'") {
			t.Errorf("the error is %q", got)
		}
	})
}

func TestInlineCommandsWork(t *testing.T) {
	forEachBackend(t, func(t *testing.T, s *running) {
		c := s.dial(t)
		c.send([]byte("\r\nset k \"a b\"\r\nget k\nPING\r\nget \"k\r\n"))
		for _, want := range []string{"+OK", "a b", "+PONG", "-ERR Protocol error: unbalanced quotes in request"} {
			if got := c.reply(); got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		c.wantEnd()
	})
}

func TestRequestsOfWebBrowsersAreNotExecuted(t *testing.T) {
	forEachBackend(t, func(t *testing.T, s *running) {
		for _, request := range []string{"POST / HTTP/1.1\r\n", "\r\nHost: x\r\n", "*1\r\n$4\r\npost\r\n"} {
			c := s.dial(t)
			c.send([]byte(request + "SET k v\r\n"))
			c.wantEnd()
		}
		s.dial(t).want("GET k", "(nil)")
	})
}

func TestPipelinedCommandsAreAnsweredInOrder(t *testing.T) {
	forEachBackend(t, func(t *testing.T, s *running) {
		c := s.dial(t)
		const n = 20_000
		var b []byte
		for i := range n {
			b = append(b, encode("SET", "k", strconv.Itoa(i))...)
			b = append(b, encode("GET", "k")...)
		}
		var sent sync.WaitGroup
		sent.Go(func() {
			rnd := rand.New(rand.NewPCG(1, 2))
			for len(b) > 0 {
				n := min(1+rnd.IntN(9000), len(b))
				if _, err := c.Write(b[:n]); err != nil {
					t.Error(err)
					return
				}
				b = b[n:]
			}
		})
		for i := range n {
			if ok, v := c.reply(), c.reply(); ok != "+OK" || v != strconv.Itoa(i) {
				t.Fatalf("reply %d is %q, %q", i, ok, v)
			}
		}
		sent.Wait()
	})
}

func TestCommandsBeforeTheEndOfTheStreamAreAnswered(t *testing.T) {
	forEachBackend(t, func(t *testing.T, s *running) {
		c := s.dial(t)
		c.send([]byte("PING\r\nECHO last\r\nECHO incomplete"))
		if err := c.Conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if a, b := c.reply(), c.reply(); a != "+PONG" || b != "last" {
			t.Errorf("got %q, %q", a, b)
		}
		c.wantEnd()
	})
}

func TestLargeValuesSurvive(t *testing.T) {
	forEachBackend(t, func(t *testing.T, s *running) {
		size := 32 << 20
		if testing.Short() {
			size = 8 << 20
		}
		b := make([]byte, size)
		rnd := rand.NewChaCha8([32]byte{1})
		_, _ = rnd.Read(b)
		large := string(b)
		for _, c := range []*client{s.dial(t), s.dialUnix(t)} {
			c.want("FLUSHDB", "+OK")
			if got := c.do("SET", "large", large); got != "+OK" {
				t.Fatalf("SET: %q", got)
			}
			for range 2 {
				if c.do("GET", "large") != large {
					t.Error("another value came back")
				}
			}
		}
	})
}

func TestTooLargeAValueIsRefused(t *testing.T) {
	forEachBackend(t, func(t *testing.T, s *running) {
		c := s.dial(t)
		if got := c.do("SET", "k", strings.Repeat("x", 1000)); got != "+OK" {
			t.Errorf("SET: %q", got)
		}
		c.send([]byte("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1001\r\n"))
		if got := c.reply(); got != "-ERR Protocol error: invalid bulk length" {
			t.Errorf("got %q", got)
		}
		c.wantEnd()
	}, "-max-bulk", "1000")
}

func TestKeysEndAtTheirDeadline(t *testing.T) {
	forEachBackend(t, func(t *testing.T, s *running) {
		c := s.dial(t)
		c.want("SET lives 1 EX 1000", "+OK")
		c.want("SET touched 1", "+OK")
		for i := range 2500 {
			c.send(encode("SET", "k"+strconv.Itoa(i), "1", "PX", "20"))
		}
		for range 2500 {
			if got := c.reply(); got != "+OK" {
				t.Fatal(got)
			}
		}
		c.want("PEXPIRE touched 10", ":1")
		for c.do("GET", "touched") != "(nil)" {
		}
		c.want("TTL touched", ":-2")
		for c.do("DBSIZE") != ":1" {
		}
		c.want("GET lives", "1")
	})
}

func TestAClientThatDoesNotReadIsNotRead(t *testing.T) {
	forEachBackend(t, func(t *testing.T, s *running) {
		const n, size = 1000, 256 << 10
		slow, other := s.dial(t), s.dial(t)
		value := strings.Repeat("v", size)
		if got := slow.do("SET", "k", value); got != "+OK" {
			t.Fatal(got)
		}
		slow.send(bytes.Repeat(encode("GET", "k"), n))
		if slow.reply() != value {
			t.Fatal("another value came back")
		}
		// The commands are in one or two segments, so what can be executed is.
		executed := regexp.MustCompile(`total_commands_processed:(\d+)`).FindStringSubmatch(other.do("INFO"))[1]
		if done, err := strconv.Atoi(executed); err != nil || done > n/2 {
			t.Errorf("%s of %d commands were executed although the replies to one were read", executed, n)
		}
		for i := 1; i < n; i++ {
			if slow.reply() != value {
				t.Fatalf("reply %d is another value", i)
			}
		}
		slow.want("PING", "+PONG")
	})
}

func TestStoppingDropsClientsThatDoNotRead(t *testing.T) {
	forEachBackend(t, func(t *testing.T, s *running) {
		c := s.dial(t)
		if got := c.do("SET", "k", strings.Repeat("v", 1<<20)); got != "+OK" {
			t.Fatal(got)
		}
		c.send(bytes.Repeat(encode("GET", "k"), 100))
		if _, err := c.in.Peek(1); err != nil {
			t.Fatal(err)
		}
		if code := s.stop(); code != 0 {
			t.Errorf("status %d", code)
		}
	}, "-grace", "50ms")
}

func TestStoppingClosesIdleClients(t *testing.T) {
	forEachBackend(t, func(t *testing.T, s *running) {
		a, b := s.dial(t), s.dialUnix(t)
		a.want("PING", "+PONG")
		b.want("PING", "+PONG")
		if code := s.stop(); code != 0 {
			t.Errorf("status %d", code)
		}
		a.wantEnd()
		b.wantEnd()
	})
}

func TestWrongArgumentsAreExplained(t *testing.T) {
	for _, x := range []struct {
		args, want string
		status     int
	}{
		{"-addr= -unix=", "-addr or -unix is needed", 2},
		{"-max-bulk 0", "-max-bulk 0", 2},
		{"extra", `"extra"`, 2},
		{"-addr nonsense", "nonsense", 1},
		{"-addr 127.0.0.1:0 -unix /nonexistent/socket", "/nonexistent/socket", 1},
		{"-addr 127.0.0.1:0 -backend nope", "nope", 1},
		{"-help", "-addr", 0},
	} {
		var stderr bytes.Buffer
		if code := run(t.Context(), strings.Fields(x.args), &stderr); code != x.status || !strings.Contains(stderr.String(), x.want) {
			t.Errorf("%s: status %d, %q; want %d and %q", x.args, code, stderr.String(), x.status, x.want)
		}
	}
}
