package main

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/uring"
)

// onEachBackend runs a test on every backend.
func onEachBackend(t *testing.T, test func(t *testing.T, backend string)) {
	for _, backend := range []string{"io_uring", "epoll"} {
		t.Run(backend, func(t *testing.T) {
			if err := uring.Available(); backend == "io_uring" && err != nil {
				t.Skipf("io_uring: %v", err)
			}
			test(t, backend)
		})
	}
}

// noLimits let a connection take its time.
var noLimits = limits{idle: time.Hour, header: time.Hour, write: time.Hour, linger: time.Hour, sweep: time.Millisecond}

// soon is over before a client has done what it will not do anyway.
const soon = 5 * time.Millisecond

func TestLimitsEndWhatTakesTooLong(t *testing.T) {
	onEachBackend(t, func(t *testing.T, backend string) {
		// A server for each limit: the others must not end it first.
		lim := noLimits
		lim.header, lim.linger = soon, soon
		addr, trace := startWithLimits(t, backend, lim)
		for _, half := range []string{"GET / HTTP/1.1\r\nHost: x\r\n", "GET / HTTP/1.1\r\nHo", "GE"} {
			if got := converse(t, addr, trace, half); !strings.HasPrefix(got, "HTTP/1.1 408 ") {
				t.Errorf("half a request, %q, was answered by %q", half, got)
			}
		}
		if got := converse(t, addr, trace, "HEAD / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf"); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
			t.Errorf("a request with half a body was answered by %q", got)
		}
		lim = noLimits
		lim.idle = soon
		addr, trace = startWithLimits(t, backend, lim)
		if got := converse(t, addr, trace, ""); got != "" {
			t.Errorf("an idle connection was told %q", got)
		}
		lim = noLimits
		lim.write = soon
		addr, trace = startWithLimits(t, backend, lim)
		got := converse(t, addr, trace, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if len(got) >= large || !strings.HasPrefix(got, "HTTP/1.1 200 ") {
			t.Errorf("a client that does not read was sent %d bytes", len(got))
		}
	})
}

func TestAClientThatTakesSomeOfAFileIsNotGone(t *testing.T) {
	file, err := os.CreateTemp(t.TempDir(), "large")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := file.Truncate(large); err != nil {
		t.Fatal(err)
	}
	onEachBackend(t, func(t *testing.T, backend string) {
		var sent int64
		var first, last error
		handler := func(w http.ResponseWriter, _ *http.Request) {
			res := w.(*response)
			// What the sockets hold is taken, then nothing any more.
			sent, first = res.sendPiece(file, 0, large)
			for last = first; last == nil; {
				_, last = res.sendPiece(file, 0, large)
			}
			res.c.broken = true
		}
		lim := noLimits
		lim.write = soon
		addr, trace := startServer(t, backend, handler, newAccessLog(io.Discard, true), lim)
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		for !strings.Contains(<-trace, io.ErrClosedPipe.Error()) {
		}
		if sent <= 0 || sent >= large || first != nil || !errors.Is(last, loop.ErrTimeout) {
			t.Errorf("%d bytes were sent with %v, then nothing with %v, want a timeout only then", sent, first, last)
		}
	})
}

func TestAnAnswerArrivesThoughTheRequestIsNotRead(t *testing.T) {
	much := strings.Repeat("x", 8<<20)
	onEachBackend(t, func(t *testing.T, backend string) {
		handler := func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "handled") }
		addr, _ := startServer(t, backend, handler, newAccessLog(io.Discard, true), noLimits)
		for request, want := range map[string]string{
			"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 8388608\r\n\r\n" + much:                      "200",
			"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 8388608\r\n\r\n" + much: "200",
			"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nwhat?\r\n" + much:          "200",
			"GET / HTTP/1.1\r\nHost: x\r\nX: " + much:                                                   "431",
			"garbage\r\n" + much: "400",
		} {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(c, request); err != nil {
				t.Errorf("%.80q: %v", request, err)
			}
			if err := c.(*net.TCPConn).CloseWrite(); err != nil {
				t.Errorf("%.80q: %v", request, err)
			}
			got, err := io.ReadAll(c)
			if !strings.HasPrefix(string(got), "HTTP/1.1 "+want) || err != nil {
				t.Errorf("%.80q: %q, %v; want status %s", request, got, err, want)
			}
			_ = c.Close()
		}
	})
}

func TestALogThatNobodyTakesHoldsUpNoClient(t *testing.T) {
	onEachBackend(t, func(t *testing.T, backend string) {
		out := stuck{begun: make(chan struct{}), over: make(chan struct{})}
		log := newAccessLog(out, false)
		handler := func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "handled") }
		addr, _ := startServer(t, backend, handler, log, noLimits)
		do(t, "GET", "http://"+addr)
		<-out.begun
		if _, body := do(t, "GET", "http://"+addr); string(body) != "handled" {
			t.Errorf("while the log is stuck: %q", body)
		}
		log.mu.Lock()
		log.lines = make([]byte, logRoom+1)
		log.mu.Unlock()
		for lost, kept := 0, logRoom+1; lost == 0; {
			do(t, "GET", "http://"+addr)
			log.mu.Lock()
			lost, kept = log.lost, len(log.lines)
			log.mu.Unlock()
			if kept != logRoom+1 {
				t.Fatalf("%d bytes are kept", kept)
			}
		}
		http.DefaultClient.CloseIdleConnections()
		close(out.over)
		log.close()
	})
}

// stuck is a writer that writes nothing until over is closed.
type stuck struct{ begun, over chan struct{} }

func (s stuck) Write(p []byte) (int, error) {
	select {
	case s.begun <- struct{}{}:
	case <-s.over:
	}
	<-s.over
	return len(p), nil
}

// large is more than the sockets of a connection hold.
const large = 64 << 20

// startWithLimits starts a server that answers with large bytes. Every line of
// its trace comes over the channel.
func startWithLimits(t *testing.T, backend string, lim limits) (addr string, trace chan string) {
	t.Helper()
	handler := func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, large))
	}
	return startServer(t, backend, handler, newAccessLog(io.Discard, true), lim)
}

func startServer(t *testing.T, backend string, handler http.HandlerFunc, log *accessLog, lim limits) (addr string, trace chan string) {
	t.Helper()
	trace = make(chan string, 64)
	s, err := newServer(&config{backend: backend, loops: 1, verbose: true}, "127.0.0.1:0", handler, log, lines(trace))
	if err != nil {
		t.Fatal(err)
	}
	s.limits = lim
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		s.close()
	})
	return s.addr.String(), trace
}

// lines passes on what is written.
type lines chan string

func (l lines) Write(p []byte) (int, error) {
	l <- string(p)
	return len(p), nil
}

// converse says something, waits until the server has lost its patience, and
// returns what it had sent.
func converse(t *testing.T, addr string, trace <-chan string, say string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, say); err != nil {
		t.Fatal(err)
	}
	for line := ""; !strings.Contains(line, loop.ErrTimeout.Error()); {
		select {
		case line = <-trace:
		case <-time.After(30 * time.Second):
			t.Fatal("the connection is still open")
		}
	}
	got, _ := io.ReadAll(c) // a reset tells no more than an end
	return string(got)
}
