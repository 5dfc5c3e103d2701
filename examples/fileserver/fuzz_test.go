package main

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
	"github.com/seed-80cfe818/ringloop/uring"
)

// secret stands in a file beside the root, which nobody may ever get.
const secret = "what lies beside the root"

// fuzzServer makes a server on a backend that serves connections that it is
// given; what it cannot tell anybody fails the test.
func fuzzServer(f *testing.F, backend string, log *accessLog) *server {
	dir := f.TempDir()
	root := filepath.Join(dir, "root")
	if err := errors.Join(
		os.Mkdir(root, 0o755),
		os.WriteFile(filepath.Join(dir, "secret"), []byte(secret), 0o644),
		os.WriteFile(filepath.Join(root, "a.txt"), []byte("0123456789"), 0o644),
		os.WriteFile(filepath.Join(root, "big.bin"), make([]byte, 100_000), 0o644),
	); err != nil {
		f.Fatal(err)
	}
	files, err := openDirectory(root)
	if err != nil {
		f.Fatal(err)
	}
	s, err := newServer(&config{backend: backend}, "127.0.0.1:0", onlyReads(http.FileServer(files)), log, io.Discard)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() {
		s.close()
		files.close()
	})
	return s
}

var statusLine = regexp.MustCompile(`^HTTP/1\.1 [1-5][0-9][0-9] `)

// FuzzRequests sends anything to a connection and expects that it ends, that
// every answer begins with a status line, and that no file of elsewhere comes.
func FuzzRequests(f *testing.F) {
	for _, in := range []string{
		"", "\r\n\r\n", "GET", "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /a.txt HTTP/1.1\r\nHost: x\r\nRange: bytes=2-5\r\n\r\nHEAD /a.txt HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /a.txt HTTP/1.1\r\nHost: x\r\nRange: bytes=0-1,3-4,-2\r\n\r\n",
		"GET /big.bin HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
		"GET /../secret HTTP/1.1\r\nHost: x\r\n\r\n", "GET /%2e%2e/secret HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /..%2fsecret HTTP/1.1\r\nHost: x\r\n\r\n", "GET //..//secret HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST /a.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhelloGET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"GET /a.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n",
		"GET /a.txt HTTP/1.1\r\nHost: x\r\nIf-Modified-Since: Fri, 31 Dec 9999 23:59:59 GMT\r\n\r\n",
		"GET /a.txt\x00 HTTP/1.1\r\nHost: x\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
	} {
		f.Add([]byte(in))
	}
	log := newAccessLog(io.Discard, true)
	f.Cleanup(log.close)
	var servers []*server
	for _, backend := range []string{"io_uring", "epoll"} {
		if backend == "io_uring" && uring.Available() != nil {
			continue
		}
		servers = append(servers, fuzzServer(f, backend, log))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		for _, s := range servers {
			out := allAnswers(t, s, in)
			if len(out) > 0 && !statusLine.Match(out) {
				t.Errorf("%s: the answer is %.100q", s.l.Features().Backend, out)
			}
			if bytes.Contains(out, []byte(secret)) {
				t.Errorf("%s: a file beside the root was served", s.l.Features().Backend)
			}
			if len(s.conns) != 0 {
				t.Errorf("%s: %d connections are left", s.l.Features().Backend, len(s.conns))
			}
		}
	})
}

// allAnswers sends in to a connection of s and returns all that comes back.
func allAnswers(t *testing.T, s *server, in []byte) []byte {
	s.l.SetExceptionHandler(func(_ *loop.Loop, c *loop.ExceptionContext) {
		t.Errorf("%s: %s: %v", s.l.Features().Backend, c.Message, c.Exception)
	})
	out, err := loop.RunUntilComplete(s.l, loop.CreateTask(s.l, func(co *loop.Coro) ([]byte, error) {
		ours, theirs, err := sockapi.Pair(unix.SOCK_STREAM)
		if err != nil {
			return nil, err
		}
		defer ours.Close()
		serving := s.l.Go(func(co *loop.Coro) error {
			s.serveConn(co, theirs, sockapi.Addr{})
			return nil
		})
		sending := s.l.Go(func(co *loop.Coro) error {
			// The server may have enough before the end, which is its right.
			if err := sockapi.SendAll(co, ours, in); err != nil {
				return nil
			}
			return ours.Shutdown(unix.SHUT_WR)
		})
		var out []byte
		for err == nil {
			var p []byte
			p, err = sockapi.Recv(co, ours, 64<<10)
			out = append(out, p...)
		}
		if err != io.EOF && !errors.Is(err, unix.ECONNRESET) {
			return out, err
		}
		_, err1 := serving.Await(co)
		_, err2 := sending.Await(co)
		return out, errors.Join(err1, err2)
	}, nil))
	if err != nil {
		t.Errorf("%s: %v", s.l.Features().Backend, err)
	}
	return out
}
