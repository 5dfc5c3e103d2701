package main

import (
	"bufio"
	"errors"
	"io"
	"math"
	"net/http"
	"net/netip"
	"strings"
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

// peerName is how the logs call a client. One that speaks IPv4 to a listener on
// [::] is called as by a listener on 0.0.0.0.
func peerName(a sockapi.Addr) string {
	if p := a.AddrPort(); p.Addr().Is4In6() {
		return netip.AddrPortFrom(p.Addr().Unmap(), p.Port()).String()
	}
	return a.String()
}

// serveConn serves the requests of a connection until one side has enough.
func (s *server) serveConn(co *loop.Coro, sock *sockapi.Socket, peer sockapi.Addr) {
	c := &conn{s: s, co: co, task: co.Task(), sock: sock, peer: peerName(peer), fields: http.Header{}, due: never}
	s.conns[c] = struct{}{}
	s.watch()
	s.trace("%s connected", c.peer)
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
	if err = c.unlimit(c.cause(err)); err != nil {
		return false, c.refuse(err)
	}
	req.RemoteAddr = c.peer
	if status := refusal(req); status != 0 {
		return false, c.answer(req, status)
	}
	switch {
	case req.Body == http.NoBody:
	case req.Header.Get("Expect") != "":
		req.Close = true // nobody knows whether the body will come
	case len(req.TransferEncoding) > 0:
		// There may have been a Content-Length, too, which net/http ignores and
		// removes. Another program may have gone by it, and find other requests
		// in the same bytes (RFC 9112, 6.1).
		req.Close = true
	}
	w := newResponse(c, req)
	c.s.handler.ServeHTTP(w, req)
	if again, err = w.finish(); err != nil {
		return false, err
	}
	switch {
	case req.Body != http.NoBody:
		again, err = c.skipBody(req, again && !c.s.stopping)
	case c.s.stopping: // and the client may have sent more
		return false, c.linger()
	}
	return again && !c.s.stopping, err
}

// cause returns why a request could not be read: net/http takes the piece of a
// line before a failed read for the line, which is malformed then.
func (c *conn) cause(err error) error {
	switch {
	case err == nil || c.failed == io.EOF:
		return err
	case c.failed != nil:
		return c.failed
	case c.header <= 0:
		return errHeaderTooLarge
	}
	return err
}

// refusal returns the status for a request that is not for the handler, 0 for
// any other.
func refusal(req *http.Request) int {
	expect := req.Header.Get("Expect")
	switch {
	case req.ProtoMajor != 1:
		return http.StatusHTTPVersionNotSupported
	case hasSpace(req.Header), !validHost(req):
		return http.StatusBadRequest
	case !req.ProtoAtLeast(1, 1):
		return 0
	case req.Host == "":
		return http.StatusBadRequest
	case expect != "" && !strings.EqualFold(expect, "100-continue"):
		return http.StatusExpectationFailed
	}
	return 0
}

// hasSpace reports whether the name of a field has a space in it. net/http reads
// such fields and leaves the rest to the server: another program may understand
// "Content-Length : 9", and find other requests in the same bytes (RFC 9112, 5.1).
func hasSpace(h http.Header) bool {
	for name := range h {
		if strings.Contains(name, " ") {
			return true
		}
	}
	return false
}

// validHost reports whether the Host, unless the URL names one instead, consists
// of what may be in the name of a host and a port. net/http looks at it in its
// server, not when it reads a request (RFC 9112, 3.2).
func validHost(req *http.Request) bool {
	const allowed = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-._~!$%&'()*+,;=:[]@"
	return req.URL.Host != "" || strings.Trim(req.Host, allowed) == ""
}

// skipBody reads the body of a request that was answered, so that another
// request may follow. One that goes on and on, or does not come, is not worth
// waiting for.
func (c *conn) skipBody(req *http.Request, again bool) (bool, error) {
	if again {
		c.header = maxHeader
		c.idle = true
		c.limit(c.s.limits.header)
		_, err := io.Copy(io.Discard, req.Body)
		err = c.unlimit(err)
		c.idle = false
		if err == nil || errors.Is(err, loop.ErrCancelled) {
			return err == nil, err
		}
	}
	return false, c.linger()
}

// linger ends the sending side and waits for the client to end its own. If the
// connection was closed while something is left to be received, it would be
// reset, and the client might lose the response.
func (c *conn) linger() error {
	if c.broken {
		return nil
	}
	if err := c.sock.Shutdown(unix.SHUT_WR); err != nil {
		return err
	}
	c.header, c.failed = math.MaxInt, nil
	c.idle = true
	defer func() { c.idle = false }()
	c.limit(c.s.limits.linger)
	_, err := io.Copy(io.Discard, c)
	return c.unlimit(err)
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
		return errors.Join(err, c.answer(nil, http.StatusRequestHeaderFieldsTooLarge))
	case errors.Is(err, loop.ErrTimeout):
		return errors.Join(err, c.answer(nil, http.StatusRequestTimeout))
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, loop.ErrCancelled), isNetError(err):
		return err
	}
	return errors.Join(err, c.answer(nil, http.StatusBadRequest))
}

// isNetError reports whether err came from the socket rather than from what was
// received.
func isNetError(err error) bool {
	var oe *sockapi.OpError
	return errors.As(err, &oe)
}

// answer sends a response without a handler, the last of the connection. req is
// nil if it could not be read.
func (c *conn) answer(req *http.Request, status int) error {
	if req == nil {
		req = &http.Request{ProtoMajor: 1, ProtoMinor: 1}
	}
	req.Close = true
	w := newResponse(c, req)
	http.Error(w, http.StatusText(status), status)
	if _, err := w.finish(); err != nil {
		return err
	}
	return c.linger()
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
