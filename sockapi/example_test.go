package sockapi_test

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
)

// runTask runs fn in a task of a new loop.
func runTask(fn func(co *loop.Coro) error) {
	l, err := loop.NewEventLoop()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close()
	if _, err := loop.RunUntilComplete(l, l.Go(fn)); err != nil {
		fmt.Println(err)
	}
}

// An echo server that serves one client.
func Example() {
	runTask(func(co *loop.Coro) error {
		ln, err := sockapi.Listen("tcp", "127.0.0.1:0", nil)
		if err != nil {
			return err
		}
		defer ln.Close()
		server := co.Loop().Go(func(co *loop.Coro) error {
			s, _, err := sockapi.Accept(co, ln)
			if err != nil {
				return err
			}
			defer s.Close()
			buf := make([]byte, 4096)
			for {
				n, err := sockapi.RecvInto(co, s, buf)
				if err == io.EOF {
					return nil
				}
				if err != nil {
					return err
				}
				if err := sockapi.SendAll(co, s, buf[:n]); err != nil {
					return err
				}
			}
		})
		addr, err := ln.LocalAddr()
		if err != nil {
			return err
		}
		s, err := sockapi.Dial(co, "tcp", addr.String())
		if err != nil {
			return err
		}
		if err := sockapi.SendAll(co, s, []byte("hello")); err != nil {
			return err
		}
		got, err := sockapi.Recv(co, s, 100)
		if err != nil {
			return err
		}
		fmt.Printf("%s\n", got)
		if err := sockapi.CloseWait(co, s); err != nil {
			return err
		}
		_, err = server.Await(co)
		return err
	})
	// Output: hello
}

// A task reads a request with the parser of net/http.
func ExampleNewConn() {
	runTask(func(co *loop.Coro) error {
		a, b, err := sockapi.Pair(unix.SOCK_STREAM)
		if err != nil {
			return err
		}
		defer a.Close()
		defer b.Close()
		if err := sockapi.SendAll(co, a, []byte("GET /index.html HTTP/1.1\r\nHost: example.com\r\n\r\n")); err != nil {
			return err
		}
		req, err := http.ReadRequest(bufio.NewReader(sockapi.NewConn(co, b)))
		if err != nil {
			return err
		}
		fmt.Println(req.Method, req.URL.Path, req.Host)
		return nil
	})
	// Output: GET /index.html example.com
}

// A server for very many clients receives into memory that the loop lends: a
// task that waits has none.
func ExampleRecvBorrowed() {
	runTask(func(co *loop.Coro) error {
		a, b, err := sockapi.Pair(unix.SOCK_STREAM)
		if err != nil {
			return err
		}
		server := co.Loop().Go(func(co *loop.Coro) error {
			defer b.Close()
			for {
				data, err := sockapi.RecvBorrowed(co, b)
				if err == io.EOF {
					return nil
				}
				if err != nil {
					return err
				}
				// Until the next RecvBorrowed it may be changed, and sent.
				data[0] = 'J'
				if err := sockapi.SendAll(co, b, data); err != nil {
					return err
				}
			}
		})
		if err := sockapi.SendAll(co, a, []byte("hello")); err != nil {
			return err
		}
		got, err := sockapi.Recv(co, a, 100)
		if err != nil {
			return err
		}
		fmt.Printf("%s\n", got)
		if err := sockapi.CloseWait(co, a); err != nil {
			return err
		}
		_, err = server.Await(co)
		return err
	})
	// Output: Jello
}

// The kernel sends a part of a file.
func ExampleSendfile() {
	f, err := os.CreateTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := io.Copy(f, strings.NewReader("0123456789")); err != nil {
		fmt.Println(err)
		return
	}
	runTask(func(co *loop.Coro) error {
		a, b, err := sockapi.Pair(unix.SOCK_STREAM)
		if err != nil {
			return err
		}
		defer a.Close()
		defer b.Close()
		n, err := sockapi.Sendfile(co, a, f, 2, 5, nil)
		if err != nil {
			return err
		}
		got, err := sockapi.Recv(co, b, 100)
		fmt.Printf("%d bytes: %s\n", n, got)
		return err
	})
	// Output: 5 bytes: 23456
}
