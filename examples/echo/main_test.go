package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed-80cfe818/ringloop/internal/leaktest"
	"github.com/seed-80cfe818/ringloop/loop"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// patience is how long anything may take before a test fails.
const patience = 60 * time.Second

// started runs the program and returns what it says it serves: addresses by
// network. The test ends it with SIGTERM.
func started(t *testing.T, n int, args ...string) map[string]string {
	t.Helper()
	r, w := io.Pipe()
	var stderr bytes.Buffer
	status := make(chan int, 1)
	go func() {
		status <- run(args, w, &stderr)
		w.Close()
	}()
	lines := bufio.NewScanner(r)
	serves := map[string]string{}
	for len(serves) < n && lines.Scan() {
		network, addr, _ := strings.Cut(lines.Text(), " ")
		serves[network] = addr
	}
	if len(serves) < n {
		t.Fatalf("status %d: %s", <-status, stderr.String())
	}
	go io.Copy(io.Discard, r)
	t.Cleanup(func() {
		if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if s := <-status; s != 0 {
			t.Errorf("status %d: %s", s, stderr.String())
		}
	})
	return serves
}

// echoes sends n bytes over a connection and expects them back, and then the
// end.
func echoes(t *testing.T, c net.Conn, n int) {
	t.Helper()
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Error(err)
	}
	sent := bytes.Repeat([]byte("0123456789abcdef"), n/16)
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := c.Write(sent); err != nil {
			t.Error(err)
		}
		if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Error(err)
		}
	})
	got, err := io.ReadAll(c)
	wg.Wait()
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes came back: %v", len(got), len(sent), err)
	}
}

func eachBackend(t *testing.T, test func(t *testing.T, backend string)) {
	for _, backend := range []string{"auto", "epoll"} {
		t.Run(backend, func(t *testing.T) { test(t, backend) })
	}
}

func TestEchoOverTCPUnixAndUDP(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend string) {
		path := filepath.Join(t.TempDir(), "s")
		serves := started(t, 3, "-backend", backend, "-addr", "127.0.0.1:0", "-unix", path, "-udp", "127.0.0.1:0")
		for _, network := range []string{"tcp", "unix"} {
			c, err := net.Dial(network, serves[network])
			if err != nil {
				t.Fatal(err)
			}
			echoes(t, c, 8<<20)
		}
		c, err := net.Dial("udp", serves["udp"])
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 100)
		if _, err := c.Write([]byte("packet")); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(b); string(b[:n]) != "packet" || err != nil {
			t.Errorf("got %q, %v", b[:n], err)
		}
	})
}

func TestEchoOverTLS(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend string) {
		serves := started(t, 1, "-backend", backend, "-addr", "127.0.0.1:0", "-tls")
		c, err := tls.Dial("tcp", serves["tcp"], &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		echoes(t, c, 1<<20)
	})
}

func TestSeveralLoopsShareAPort(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend string) {
		serves := started(t, 2, "-backend", backend, "-addr", "127.0.0.1:0", "-udp", "127.0.0.1:0", "-loops", "3")
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				c, err := net.Dial("tcp", serves["tcp"])
				if err != nil {
					t.Error(err)
					return
				}
				echoes(t, c, 1<<16)
			})
		}
		wg.Wait()
	})
}

func TestLoopsListenOnThePortsThatTheFirstGot(t *testing.T) {
	eachBackend(t, func(t *testing.T, backend string) {
		// All interfaces are two sockets where there is IPv6, each with a port.
		cfg, err := parse([]string{"-addr", ":0", "-udp", "127.0.0.1:0", "-loops", "3"}, io.Discard)
		if err != nil {
			t.Fatal(err)
		}
		err = loop.Run(func(co *loop.Coro) (err error) {
			var first string
			for i := range cfg.loops {
				var sv services
				var out strings.Builder
				cfg, err = sv.listen(co, cfg, &out)
				defer func() { err = errors.Join(err, sv.end(co)) }()
				if err != nil {
					return err
				}
				if i == 0 {
					first = out.String()
				}
				if out.String() != first {
					t.Errorf("loop %d listens on\n%sthe first one on\n%s", i, out.String(), first)
				}
			}
			return nil
		}, loop.WithBackend(backend))
		if err != nil {
			t.Error(err)
		}
	})
}

func TestWrongFlagsAreRefused(t *testing.T) {
	for _, args := range [][]string{
		{},
		{"-addr", "127.0.0.1:0", "-loops", "0"},
		{"-no-such-flag"},
		{"-addr", "127.0.0.1:0", "extra"},
		{"-addr", "127.0.0.1:0", "-tls", "-cert", "no such file", "-key", "x"},
	} {
		var stderr bytes.Buffer
		if s := run(args, io.Discard, &stderr); s != 2 || stderr.Len() == 0 {
			t.Errorf("%q: status %d, %q", args, s, stderr.String())
		}
	}
	var stderr bytes.Buffer
	if s := run([]string{"-addr", "no port"}, io.Discard, &stderr); s != 1 || !strings.Contains(stderr.String(), "no port") {
		t.Errorf("an address without a port: status %d, %q", s, stderr.String())
	}
}
