package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/uring"
)

func TestLimitsEndWhatTakesTooLong(t *testing.T) {
	for _, backend := range []string{"io_uring", "epoll"} {
		t.Run(backend, func(t *testing.T) {
			if err := uring.Available(); backend == "io_uring" && err != nil {
				t.Skipf("io_uring: %v", err)
			}
			// A server for each limit: the others must not end it first.
			addr, trace := startWithLimits(t, backend, limits{
				idle: time.Hour, header: 5 * time.Millisecond, write: time.Hour, sweep: time.Millisecond,
			})
			if got := converse(t, addr, trace, "GET / HTTP/1.1\r\nHost: x\r\n"); !strings.HasPrefix(got, "HTTP/1.1 408 ") {
				t.Errorf("half a request was answered by %q", got)
			}
			addr, trace = startWithLimits(t, backend, limits{
				idle: 5 * time.Millisecond, header: time.Hour, write: time.Hour, sweep: time.Millisecond,
			})
			if got := converse(t, addr, trace, ""); got != "" {
				t.Errorf("an idle connection was told %q", got)
			}
			addr, trace = startWithLimits(t, backend, limits{
				idle: time.Hour, header: time.Hour, write: 5 * time.Millisecond, sweep: time.Millisecond,
			})
			got := converse(t, addr, trace, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			if len(got) >= large || !strings.HasPrefix(got, "HTTP/1.1 200 ") {
				t.Errorf("a client that does not read was sent %d bytes", len(got))
			}
		})
	}
}

// large is more than the sockets of a connection hold.
const large = 64 << 20

// startWithLimits starts a server that answers with large bytes. Every line of
// its trace comes over the channel.
func startWithLimits(t *testing.T, backend string, lim limits) (addr string, trace chan string) {
	t.Helper()
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, large))
	})
	trace = make(chan string, 64)
	s, err := newServer(&config{backend: backend, loops: 1, verbose: true}, "127.0.0.1:0", handler, newAccessLog(io.Discard, true), lines(trace))
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
