package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/seed-80cfe818/ringloop/internal/leaktest"
	"github.com/seed-80cfe818/ringloop/uring"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// patience is how long anything may take before a test fails.
const patience = 5 * time.Minute

// running is a proxy under test, with the server behind it.
type running struct {
	t        *testing.T
	addr     string
	tls      bool
	upstream *net.TCPListener
	log      *ended
	stop     func() int // stops it and returns the exit status
}

// ended is what a proxy has said about connections that are over. It takes any
// number: a proxy whose log nobody reads stands still.
type ended struct {
	mu    sync.Mutex
	lines []string
	more  chan struct{} // has a value when there may be a line
}

func (e *ended) add(line string) {
	e.mu.Lock()
	e.lines = append(e.lines, line)
	e.mu.Unlock()
	select {
	case e.more <- struct{}{}:
	default:
	}
}

// next removes the oldest line and returns it.
func (e *ended) next() (line string, ok bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.lines) == 0 {
		return "", false
	}
	line, e.lines = e.lines[0], e.lines[1:]
	return line, true
}

// forEachBackend runs a test against a proxy on every backend.
func forEachBackend(t *testing.T, test func(t *testing.T, p *running), args ...string) {
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

// forEachKind is forEachBackend with and without TLS.
func forEachKind(t *testing.T, test func(t *testing.T, p *running)) {
	t.Run("TCP", func(t *testing.T) { forEachBackend(t, test) })
	t.Run("TLS", func(t *testing.T) { forEachBackend(t, test, "-tls") })
}

var listening = regexp.MustCompile(`from (\S+) \((TCP|TLS)\)`)

// start runs a proxy until the test ends.
func start(t *testing.T, args ...string) *running {
	t.Helper()
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	p := &running{t: t, upstream: ln, log: &ended{more: make(chan struct{}, 1)}}
	ctx, cancel := context.WithCancel(context.Background())
	stderrR, stderrW := io.Pipe()
	status := make(chan int, 1)
	go func() {
		status <- run(ctx, append([]string{"-listen", "127.0.0.1:0", "-to", ln.Addr().String(), "-v"}, args...), stderrW)
		_ = stderrW.Close()
	}()
	lines := bufio.NewScanner(stderrR)
	if !lines.Scan() {
		t.Fatalf("the proxy ended with %d", <-status)
	}
	m := listening.FindStringSubmatch(lines.Text())
	if m == nil {
		t.Fatalf("the proxy said %q", lines.Text())
	}
	p.addr, p.tls = m[1], m[2] == "TLS"
	var drained sync.WaitGroup
	drained.Go(func() {
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), "proxy: client ") {
				p.log.add(lines.Text())
			}
		}
	})
	p.stop = sync.OnceValue(func() int {
		cancel()
		code := <-status
		drained.Wait()
		return code
	})
	t.Cleanup(func() {
		if code := p.stop(); code != 0 {
			t.Errorf("the proxy ended with status %d", code)
		}
	})
	return p
}

// conn is what tests use of a connection.
type conn interface {
	net.Conn
	CloseWrite() error
}

// dial connects to the proxy.
func (p *running) dial() conn {
	p.t.Helper()
	c, err := net.DialTimeout("tcp", p.addr, patience)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = c.Close() })
	check(p.t, c.SetDeadline(time.Now().Add(patience)))
	if !p.tls {
		return c.(*net.TCPConn)
	}
	tc := tls.Client(c, &tls.Config{InsecureSkipVerify: true})
	check(p.t, tc.Handshake())
	return tc
}

// accept returns the proxy's next connection to the server.
func (p *running) accept() *net.TCPConn {
	p.t.Helper()
	check(p.t, p.upstream.SetDeadline(time.Now().Add(patience)))
	c, err := p.upstream.AcceptTCP()
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = c.Close() })
	check(p.t, c.SetDeadline(time.Now().Add(patience)))
	return c
}

// said returns what the proxy says when the next connection is over.
func (p *running) said() string {
	p.t.Helper()
	limit := time.After(patience)
	for {
		if line, ok := p.log.next(); ok {
			return line
		}
		select {
		case <-p.log.more:
		case <-limit:
			p.t.Fatal("the connection is not over")
		}
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, w io.Writer, s string) {
	t.Helper()
	_, err := io.WriteString(w, s)
	check(t, err)
}

// wantRead expects that s arrives.
func wantRead(t testing.TB, r io.Reader, s string) {
	t.Helper()
	b := make([]byte, len(s))
	if n, err := io.ReadFull(r, b); err != nil || string(b) != s {
		t.Fatalf("got %q, %v, want %q", b[:n], err, s)
	}
}

// wantEnd expects the end of the stream.
func wantEnd(t testing.TB, r io.Reader) {
	t.Helper()
	if b, err := io.ReadAll(r); err != nil || len(b) > 0 {
		t.Fatalf("got %d bytes, %v, want the end", len(b), err)
	}
}

func TestDataIsPassedOnBothWays(t *testing.T) {
	forEachKind(t, func(t *testing.T, p *running) {
		c := p.dial()
		write(t, c, "hello")
		s := p.accept()
		wantRead(t, s, "hello")
		write(t, s, "world")
		wantRead(t, c, "world")
		check(t, s.Close())
		wantEnd(t, c)
		check(t, c.Close())
		if got := p.said(); !strings.Contains(got, "sent 5 bytes") || !strings.Contains(got, "received 5 (") {
			t.Error(got)
		}
	})
}

func TestTheServerMaySpeakFirst(t *testing.T) {
	forEachKind(t, func(t *testing.T, p *running) {
		c := p.dial()
		s := p.accept()
		write(t, s, "220 ready")
		wantRead(t, c, "220 ready")
	})
}

func TestTheEndOfEachDirectionIsPassedOn(t *testing.T) {
	forEachBackend(t, func(t *testing.T, p *running) {
		for _, clientFirst := range []bool{true, false} {
			var a, b conn = p.dial(), p.accept()
			if !clientFirst {
				a, b = b, a
			}
			write(t, a, "request")
			check(t, a.CloseWrite())
			wantRead(t, b, "request")
			wantEnd(t, b)
			large := strings.Repeat("answer", 1<<20)
			var sent sync.WaitGroup
			sent.Go(func() {
				if _, err := io.WriteString(b, large); err != nil {
					t.Error(err)
				}
				if err := b.CloseWrite(); err != nil {
					t.Error(err)
				}
			})
			wantRead(t, a, large)
			wantEnd(t, a)
			sent.Wait()
			if got := p.said(); !strings.Contains(got, ": closed after") {
				t.Error(got)
			}
		}
	})
}

func TestTheEndOfATLSClientIsPassedOn(t *testing.T) {
	forEachBackend(t, func(t *testing.T, p *running) {
		c := p.dial()
		s := p.accept()
		large := strings.Repeat("x", 1<<20)
		write(t, c, large)
		check(t, c.CloseWrite())
		wantRead(t, s, large)
		wantEnd(t, s)
	}, "-tls")
}

func TestAResetIsPassedOn(t *testing.T) {
	forEachBackend(t, func(t *testing.T, p *running) {
		for _, fromClient := range []bool{true, false} {
			var a, b conn = p.dial(), p.accept()
			if !fromClient {
				a, b = b, a
			}
			write(t, a, "x")
			wantRead(t, b, "x")
			check(t, a.(*net.TCPConn).SetLinger(0))
			check(t, a.Close())
			if n, err := b.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("read %d, %v, want a reset", n, err)
			}
			if got := p.said(); !strings.Contains(got, "reset") {
				t.Error(got)
			}
		}
	})
}

func TestAServerThatCannotBeReachedClosesTheClient(t *testing.T) {
	forEachKind(t, func(t *testing.T, p *running) {
		check(t, p.upstream.Close())
		c := p.dial()
		if n, err := c.Read(make([]byte, 1)); err == nil {
			t.Errorf("read %d bytes", n)
		}
		if got := p.said(); !strings.Contains(got, "connection refused") || !strings.Contains(got, p.upstream.Addr().String()) {
			t.Error(got)
		}
	})
}

func TestTheServerLearnsWhoTheClientIs(t *testing.T) {
	forEachBackend(t, func(t *testing.T, p *running) {
		c := p.dial()
		write(t, c, "GET /")
		from, to := c.LocalAddr().(*net.TCPAddr), c.RemoteAddr().(*net.TCPAddr)
		wantRead(t, p.accept(), fmt.Sprintf("PROXY TCP4 %s %s %d %d\r\nGET /", from.IP, to.IP, from.Port, to.Port))
	}, "-proxy-protocol")
}

func TestSeveralLoopsShareThePort(t *testing.T) {
	forEachBackend(t, func(t *testing.T, p *running) {
		var clients sync.WaitGroup
		for i := range 40 {
			c := p.dial()
			s := p.accept()
			clients.Go(func() { _, _ = io.Copy(s, s); _ = s.CloseWrite() })
			clients.Go(func() {
				want := strings.Repeat(strconv.Itoa(i), 10_000)
				if _, err := io.WriteString(c, want); err != nil {
					t.Error(err)
				}
				if err := c.CloseWrite(); err != nil {
					t.Error(err)
				}
				if got, err := io.ReadAll(c); err != nil || string(got) != want {
					t.Errorf("client %d: %d bytes, %v", i, len(got), err)
				}
			})
		}
		clients.Wait()
	}, "-loops", "3")
}

// stream is one direction of a transfer: pseudo-random bytes.
type stream struct {
	from, to net.Conn
	size     int64
	seed     byte
	sent     atomic.Int64 // bytes
}

// send sends the bytes and returns their sum.
func (s *stream) send() ([]byte, error) {
	hash, rnd := sha256.New(), rand.NewChaCha8([32]byte{s.seed})
	buf := make([]byte, 64<<10)
	for left := s.size; left > 0; left = s.size - s.sent.Load() {
		p := buf[:min(int64(len(buf)), left)]
		_, _ = rnd.Read(p)
		hash.Write(p)
		n, err := s.from.Write(p)
		s.sent.Add(int64(n))
		if err != nil {
			return nil, fmt.Errorf("after %d bytes: %w", s.sent.Load(), err)
		}
	}
	return hash.Sum(nil), nil
}

// receive reads nothing until the sender has sent something and cannot go on,
// then everything, and returns the sum.
func (s *stream) receive() ([]byte, error) {
	const ticks = 20 // without a byte being sent
	for was, same := int64(0), 0; same < ticks; time.Sleep(10 * time.Millisecond) {
		is := s.sent.Load()
		switch {
		case is == s.size:
			return nil, errors.New("everything could be sent although nobody was reading")
		case is > 0 && is == was:
			same++
		default:
			was, same = is, 0
		}
	}
	hash := sha256.New()
	_, err := io.CopyN(hash, s.to, s.size)
	return hash.Sum(nil), err
}

var peaks = regexp.MustCompile(`sent (\d+) bytes \(at most (\d+) waiting\), received (\d+) \(at most (\d+) waiting\)`)

func TestMemoryStaysWithinTheWaterMarksWhenNobodyReads(t *testing.T) {
	forEachKind(t, func(t *testing.T, p *running) {
		// As much as asyncio's high water mark, and the most that is received at once.
		size, limit := int64(1<<30), int64(64<<10+256<<10)
		if p.tls {
			limit = 512<<10 + 256<<10
		}
		if testing.Short() || p.tls {
			size = 64 << 20
		}
		before := resident(t)
		c, s := p.dial(), p.accept()
		var all sync.WaitGroup
		for i, st := range []*stream{{from: c, to: s, size: size, seed: 1}, {from: s, to: c, size: size, seed: 2}} {
			sums := make(chan []byte, 1)
			all.Go(func() {
				sum, err := st.send()
				if err != nil {
					t.Errorf("send, direction %d: %v", i, err)
				}
				sums <- sum
			})
			all.Go(func() {
				got, err := st.receive()
				if want := <-sums; err != nil || !bytes.Equal(got, want) {
					t.Errorf("receive, direction %d: %x, %v, want %x", i, got, err, want)
				}
			})
		}
		all.Wait()
		if grown := resident(t) - before; grown > 256<<20 {
			t.Errorf("the process has grown by %d MiB", grown>>20)
		}
		check(t, c.CloseWrite())
		check(t, s.CloseWrite())
		line := p.said()
		m := peaks.FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("the proxy said %q", line)
		}
		if number(m[1]) != size || number(m[3]) != size || number(m[2]) > limit || number(m[4]) > limit {
			t.Errorf("want %d bytes each way and at most %d waiting: %s", size, limit, line)
		}
		t.Log(line)
	})
}

func number(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return -1
	}
	return n
}

// resident returns the memory of the process in bytes.
func resident(t *testing.T) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	check(t, err)
	return number(strings.Fields(string(b))[1]) * int64(os.Getpagesize())
}

func TestLargeTransfersThroughTLSArriveUnchanged(t *testing.T) {
	forEachBackend(t, func(t *testing.T, p *running) {
		const size = 32 << 20
		c, s := p.dial(), p.accept()
		var all sync.WaitGroup
		for _, dir := range [][2]conn{{c, s}, {s, c}} {
			want := make([]byte, size)
			_, _ = rand.NewChaCha8([32]byte{3}).Read(want)
			all.Go(func() {
				if _, err := dir[0].Write(want); err != nil {
					t.Error(err)
				}
			})
			all.Go(func() {
				got := make([]byte, size)
				if n, err := io.ReadFull(dir[1], got); err != nil || !bytes.Equal(got, want) {
					t.Errorf("%d bytes, %v", n, err)
				}
			})
		}
		all.Wait()
	}, "-tls")
}

func TestStoppingLetsConnectionsFinish(t *testing.T) {
	forEachKind(t, func(t *testing.T, p *running) {
		c, s := p.dial(), p.accept()
		write(t, c, "before")
		wantRead(t, s, "before")
		check(t, p.upstream.Close())
		status := make(chan int, 1)
		go func() { status <- p.stop() }()
		for { // until the proxy does not listen any more
			late, err := net.DialTimeout("tcp", p.addr, patience)
			if err != nil {
				break
			}
			check(t, late.Close())
		}
		write(t, s, "after")
		wantRead(t, c, "after")
		check(t, c.Close())
		check(t, s.Close())
		if code := <-status; code != 0 {
			t.Errorf("status %d", code)
		}
	})
}

func TestStoppingDoesNotWaitForEver(t *testing.T) {
	forEachBackend(t, func(t *testing.T, p *running) {
		c, s := p.dial(), p.accept()
		ended, other := p.dial(), p.accept()
		check(t, ended.CloseWrite())
		wantEnd(t, other)
		if code := p.stop(); code != 0 {
			t.Errorf("status %d", code)
		}
		// Who may have missed something is told.
		for name, c := range map[string]conn{"client": c, "server": s, "client that waits for an answer": ended} {
			if n, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%s: read %d, %v, want a reset", name, n, err)
			}
		}
	}, "-grace", "1ms")
}

func TestStoppingEndsHandshakes(t *testing.T) {
	forEachBackend(t, func(t *testing.T, p *running) {
		c, err := net.DialTimeout("tcp", p.addr, patience)
		check(t, err)
		defer c.Close()
		check(t, c.SetDeadline(time.Now().Add(patience)))
		other := p.dial() // accepted after the first one
		check(t, other.Close())
		if code := p.stop(); code != 0 {
			t.Errorf("status %d", code)
		}
		if n, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read %d, %v", n, err)
		}
	}, "-tls")
}

func TestWrongArgumentsAreExplained(t *testing.T) {
	for _, x := range []struct {
		args, want string
		status     int
	}{
		{"-to nonsense", "-to", 2},
		{"-to 127.0.0.1:65536 -listen nonsense", "-to: address 65536: invalid port", 2},
		{"-to 127.0.0.1:no-service -listen nonsense", "-to: lookup tcp/no-service: unknown port", 2},
		{"-to 127.0.0.1: -listen nonsense", "-to 127.0.0.1:: a server has no port 0", 2},
		{"-to 127.0.0.1:http -listen nonsense", "-listen", 1},
		{"-loops 0", "-loops 0", 2},
		{"-connect-timeout 0", "-connect-timeout", 2},
		{"-cert /nonexistent", "-key", 2},
		{"-cert /nonexistent -key /nonexistent", "/nonexistent", 2},
		{"extra", `"extra"`, 2},
		{"-listen nonsense", "-listen", 1},
		{"-listen 127.0.0.1:0 -backend nope", "nope", 1},
		{"-help", "-listen", 0},
	} {
		var stderr bytes.Buffer
		if code := run(t.Context(), strings.Fields(x.args), &stderr); code != x.status || !strings.Contains(stderr.String(), x.want) {
			t.Errorf("%s: status %d, %q; want %d and %q", x.args, code, stderr.String(), x.status, x.want)
		}
	}
}
