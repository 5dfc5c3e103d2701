//go:build integration

package integration

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"
)

// server is an example that runs in a container.
type server struct {
	container string
	program   string
	address   string
	log       strings.Builder // up to the line with the address
	rest      chan string     // what came behind that
	ended     chan error
}

// serve starts a server in the container and waits until it names its address.
func (c container) serve(ctx context.Context, t *testing.T, program string, args ...string) *server {
	t.Helper()
	c.network = "host"
	s := &server{container: containerName(t), program: program, rest: make(chan string, 1), ended: make(chan error, 1)}
	cmd := c.command(ctx, s.container, "/", append([]string{program}, args...)...)
	said, out := io.Pipe()
	cmd.Stdout = out
	cmd.Stderr = out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		s.ended <- cmd.Wait()
		out.Close()
	}()
	s.readAddress(t, said)
	go func() {
		b, _ := io.ReadAll(said)
		s.rest <- string(b)
	}()
	return s
}

// listening finds the address in what a server says at its start.
var listening = regexp.MustCompile(`127\.0\.0\.1:[1-9][0-9]*`)

// readAddress reads what the server says until it names the address.
func (s *server) readAddress(t *testing.T, said io.Reader) {
	t.Helper()
	lines := bufio.NewReader(said)
	for {
		line, err := lines.ReadString('\n')
		s.log.WriteString(line)
		if s.address = listening.FindString(line); s.address != "" {
			// What is buffered behind the line is part of the log too.
			b, _ := lines.Peek(lines.Buffered())
			s.log.Write(b)
			return
		}
		if err != nil {
			t.Fatalf("%s has named no address: %v\n%s", s.program, err, &s.log)
		}
	}
}

// stop asks the server to end, as an orchestrator would, and returns all that it
// has said.
func (s *server) stop(ctx context.Context, t *testing.T) (log string) {
	t.Helper()
	if out, err := exec.CommandContext(ctx, "docker", "stop", "--time", "20", s.container).CombinedOutput(); err != nil {
		t.Errorf("docker stop: %v\n%s", err, out)
	}
	log = s.log.String() + <-s.rest
	if err := <-s.ended; err != nil {
		t.Errorf("%s, asked to stop, ended with %v:\n%s", s.program, err, log)
	}
	return log
}

// wantBackendSaid fails the test unless a server has said which backend it uses,
// and why if that is not io_uring.
func wantBackendSaid(t *testing.T, log string, refusal Refusal) {
	t.Helper()
	if !refusal.Happens() {
		if !strings.Contains(log, "io_uring") {
			t.Errorf("the server does not say that it uses io_uring:\n%s", log)
		}
		return
	}
	if !strings.Contains(log, "epoll") || !refusal.Explains(log) {
		t.Errorf("the server does not say that it uses epoll because of %q:\n%s", refusal.Words, log)
	}
}

// serveExamples starts the smaller examples in containers, the proxy in front of
// the echo server, and sends something to each.
func (c container) serveExamples(t *testing.T, refusal Refusal) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	echo := c.serve(ctx, t, Program("examples/echo"), "-addr", "127.0.0.1:0")
	proxy := c.serve(ctx, t, Program("examples/proxy"), "-listen", "127.0.0.1:0", "-to", echo.address)
	redis := c.serve(ctx, t, Program("examples/redis"), "-addr", "127.0.0.1:0")
	noise := make([]byte, 1_000_000)
	rand.NewChaCha8([32]byte{}).Read(noise)
	exchange(ctx, t, proxy.address, string(noise), string(noise))
	exchange(ctx, t, redis.address, "SET k 7\r\nINCR k\r\nPING\r\n", "+OK\r\n:8\r\n+PONG\r\n")
	wantBackendSaid(t, proxy.stop(ctx, t), refusal)
	wantBackendSaid(t, redis.stop(ctx, t), refusal)
	echo.stop(ctx, t)
}

// exchange says something to a server, ends that direction and compares all that
// comes back.
func exchange(ctx context.Context, t *testing.T, address, say, want string) {
	t.Helper()
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	if limit, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(limit) // it does not fail on an open connection
	}
	said := make(chan error, 1)
	go func() {
		_, err := io.WriteString(c, say)
		if err == nil {
			err = c.(*net.TCPConn).CloseWrite()
		}
		said <- err
	}()
	got, err := io.ReadAll(c)
	if werr := <-said; err != nil || werr != nil || !bytes.Equal(got, []byte(want)) {
		t.Errorf("%s has answered %d bytes, want other %d; receiving: %v, sending: %v", address, len(got), len(want), err, werr)
	}
}
