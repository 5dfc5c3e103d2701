package main

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"sync"

	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
)

// conn is one connection, served by one task.
type conn struct {
	s      *server
	co     *loop.Coro
	task   loop.AnyTask
	sock   *sockapi.Socket
	peer   string
	header int // bytes that the current request's header may still take
	out    []byte
	idle   bool // between two requests
	broken bool // nothing more can be sent
}

var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 4<<10) }}

// errHeaderTooLarge ends a request whose header takes more than maxHeader.
var errHeaderTooLarge = errors.New("request header is too large")

// Read receives from the connection, for bufio.Reader.
func (c *conn) Read(p []byte) (int, error) {
	if c.header <= 0 {
		return 0, errHeaderTooLarge
	}
	n, err := sockapi.RecvInto(c.co, c.sock, p[:min(len(p), c.header)])
	c.header -= n
	return n, err
}

// serveConn serves the requests of a connection until one side has enough.
func (s *server) serveConn(co *loop.Coro, sock *sockapi.Socket, peer sockapi.Addr) {
	c := &conn{s: s, co: co, task: co.Task(), sock: sock, peer: peer.String()}
	s.conns[c] = struct{}{}
	s.trace("%s connected", c.peer)
	if err := sock.SetNoDelay(true); err != nil {
		s.trace("%s: %v", c.peer, err) // slower, but as good
	}
	in := readers.Get().(*bufio.Reader)
	in.Reset(c)
	defer func() {
		delete(s.conns, c)
		in.Reset(nil)
		readers.Put(in)
		if err := sock.Close(); err != nil {
			s.trace("%s: close: %v", c.peer, err)
		}
	}()
	for {
		again, err := c.serveOne(in)
		if err != nil {
			s.trace("%s: %v", c.peer, err)
		}
		if !again || err != nil {
			return
		}
	}
}

// serveOne serves the next request; again says that another may follow.
func (c *conn) serveOne(in *bufio.Reader) (again bool, err error) {
	if err := c.waitForRequest(in); err != nil {
		return false, err
	}
	c.header = maxHeader
	var req *http.Request
	err = loop.Timeout(c.co, headerLimit, func() (err error) {
		req, err = http.ReadRequest(in)
		return err
	})
	if err != nil {
		return false, c.refuse(err)
	}
	c.header = maxHeader // for the body, which is not wanted but may be there
	req.RemoteAddr = c.peer
	if req.ProtoAtLeast(1, 1) && req.Host == "" {
		return false, c.answer(http.StatusBadRequest)
	}
	if req.Header.Get("Expect") != "" {
		return false, c.answer(http.StatusExpectationFailed)
	}
	w := newResponse(c, req)
	c.s.handler.ServeHTTP(w, req)
	again, err = w.finish()
	if err == nil && again {
		// A body that goes on and on is not worth reading to its end.
		_, err = io.Copy(io.Discard, req.Body)
	}
	return again && !c.s.stopping, err
}

// waitForRequest waits for the first byte of the next request. The end of the
// stream is no error there, nor is a limit or a stop.
func (c *conn) waitForRequest(in *bufio.Reader) error {
	if in.Buffered() > 0 {
		return nil
	}
	c.header = maxHeader
	c.idle = true
	defer func() { c.idle = false }()
	return loop.Timeout(c.co, idleLimit, func() error {
		_, err := in.Peek(1)
		return err
	})
}

// refuse answers a request that could not be read, if anybody is there to
// listen.
func (c *conn) refuse(err error) error {
	switch {
	case errors.Is(err, errHeaderTooLarge):
		return errors.Join(err, c.answer(http.StatusRequestHeaderFieldsTooLarge))
	case errors.Is(err, loop.ErrTimeout):
		return errors.Join(err, c.answer(http.StatusRequestTimeout))
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, loop.ErrCancelled), isNetError(err):
		return err
	}
	return errors.Join(err, c.answer(http.StatusBadRequest))
}

// isNetError reports whether err came from the socket rather than from what was
// received.
func isNetError(err error) bool {
	var oe *sockapi.OpError
	return errors.As(err, &oe)
}

// answer sends a response without a handler, the last of the connection.
func (c *conn) answer(status int) error {
	w := newResponse(c, &http.Request{Method: http.MethodGet, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Close: true, RequestURI: "-"})
	http.Error(w, http.StatusText(status), status)
	_, err := w.finish()
	return err
}

// send sends p within the time limit.
func (c *conn) send(p []byte) error {
	if c.broken {
		return io.ErrClosedPipe
	}
	err := loop.Timeout(c.co, writeLimit, func() error { return sockapi.SendAll(c.co, c.sock, p) })
	c.broken = err != nil
	return err
}
