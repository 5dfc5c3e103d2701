package main

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
)

// conn is one connection, served by one task.
type conn struct {
	s       *server
	co      *loop.Coro
	task    loop.AnyTask
	sock    *sockapi.Socket
	peer    string
	header  int   // bytes that the current request's header may still take
	failed  error // of Read
	out     []byte
	res     response
	fields  http.Header   // of the response
	due     time.Duration // when the limit is over, on the loop's clock
	expired bool          // it was over
	idle    bool          // between two requests
	broken  bool          // nothing more can be sent
}

var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 4<<10) }}

// errHeaderTooLarge ends a request whose header takes more than maxHeader.
var errHeaderTooLarge = errors.New("request header is too large")

// Read receives from the connection, for bufio.Reader. After an error it does
// not try again: net/http looks ahead and forgets errors that it meets there.
func (c *conn) Read(p []byte) (n int, err error) {
	if c.failed != nil {
		return 0, c.failed
	}
	if c.header <= 0 {
		return 0, errHeaderTooLarge
	}
	n, c.failed = sockapi.RecvInto(c.co, c.sock, p[:min(len(p), c.header)])
	c.header -= n
	return n, c.failed
}

// serveConn serves the requests of a connection until one side has enough.
func (s *server) serveConn(co *loop.Coro, sock *sockapi.Socket, peer sockapi.Addr) {
	c := &conn{s: s, co: co, task: co.Task(), sock: sock, peer: peer.String(), fields: http.Header{}, due: never}
	s.conns[c] = struct{}{}
	s.watch()
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
	c.limit(c.s.limits.header)
	req, err := http.ReadRequest(in)
	if err = c.unlimit(err); err != nil {
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
	c.limit(c.s.limits.idle)
	_, err := in.Peek(1)
	return c.unlimit(err)
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
	c.limit(c.s.limits.write)
	err := c.unlimit(sockapi.SendAll(c.co, c.sock, p))
	c.broken = err != nil
	return err
}

// sendAhead sends p so that what is sent next follows in the same segment, at
// once if the socket takes it.
func (c *conn) sendAhead(p []byte) error {
	if c.broken {
		return io.ErrClosedPipe
	}
	n, err := unix.SendmsgN(c.sock.Fd(), p, nil, nil, unix.MSG_MORE|unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
	if err != nil {
		n = 0 // it has to wait; or send finds out what is wrong
	}
	if n == len(p) {
		return nil
	}
	return c.send(p[n:])
}
