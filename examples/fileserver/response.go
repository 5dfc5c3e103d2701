package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
)

const (
	bufferSize   = 32 << 10 // what is collected before it is sent
	sendfileSize = 8 << 20  // what is sent of a file at a time
)

// response is the http.ResponseWriter of one request. It collects a small
// response and sends it at once; a larger one of unknown length is sent in
// chunks, and files are sent with sendfile.
type response struct {
	c        *conn
	req      *http.Request
	header   http.Header
	status   int
	length   int64 // of the body, -1 if it is not known
	body     int64 // bytes of the body that were written
	start    time.Time
	started  bool // the header was put into c.out
	chunked  bool
	lastOne  bool // the connection ends with this response
	sendFail error
}

// newResponse begins a response. It is the connection's only one, and valid
// until the next begins.
func newResponse(c *conn, req *http.Request) *response {
	c.out = c.out[:0]
	clear(c.fields)
	c.res = response{c: c, req: req, header: c.fields, length: -1, start: time.Now(), lastOne: req.Close}
	return &c.res
}

func (w *response) Header() http.Header { return w.header }

// WriteHeader notes the status; the header is sent with the first bytes of the
// body.
func (w *response) WriteHeader(status int) {
	if w.status != 0 || status < 200 {
		return
	}
	w.status = status
	if n, err := strconv.ParseInt(w.header.Get("Content-Length"), 10, 64); err == nil && n >= 0 {
		w.length = n
	}
	if !bodyAllowed(status) {
		w.length = 0
	}
}

// bodyAllowed reports whether a response of this status has a body.
func bodyAllowed(status int) bool {
	return status != http.StatusNoContent && status != http.StatusNotModified
}

func (w *response) Write(p []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	if err := w.room(len(p)); err != nil {
		return 0, err
	}
	w.body += int64(len(p))
	if !w.sendsBody() {
		return len(p), nil
	}
	if !w.started && w.length < 0 && len(w.c.out)+len(p) > bufferSize {
		w.begin(w.req.ProtoAtLeast(1, 1))
	}
	if w.started && len(w.c.out)+len(p) > bufferSize {
		if err := w.flush(); err != nil {
			return 0, err
		}
	}
	if w.length >= 0 && !w.started {
		w.begin(false)
	}
	w.c.out = w.appendBody(w.c.out, p)
	return len(p), nil
}

// room reports whether n more bytes fit into the length that was announced.
func (w *response) room(n int) error {
	if !bodyAllowed(w.status) {
		return http.ErrBodyNotAllowed
	}
	if w.length >= 0 && w.body+int64(n) > w.length {
		return http.ErrContentLength
	}
	return nil
}

func (w *response) sendsBody() bool { return w.req.Method != http.MethodHead }

// requestLine is the first line of the request for the log, "-" if there was
// none that could be read.
func (w *response) requestLine() string {
	if w.req.Method == "" {
		return "-"
	}
	return w.req.Method + " " + w.req.RequestURI + " " + w.req.Proto
}

// sent returns how many bytes of the body were sent.
func (w *response) sent() int64 {
	if !w.sendsBody() {
		return 0
	}
	return w.body
}

// appendBody appends a piece of the body, as a chunk if need be.
func (w *response) appendBody(out, p []byte) []byte {
	if !w.chunked || len(p) == 0 {
		return append(out, p...)
	}
	out = strconv.AppendInt(out, int64(len(p)), 16)
	out = append(out, "\r\n"...)
	out = append(out, p...)
	return append(out, "\r\n"...)
}

// sendable is what sockapi.Sendfile leaves to the kernel, if it is a regular
// file: a *file or an *os.File.
type sendable interface {
	io.ReadSeeker
	io.ReaderAt
	syscall.Conn
}

// ReadFrom sends the rest of r. net/http's file server calls it, by io.CopyN,
// with a file; that is sent without passing through this process, unless it is
// so small that it fits behind the header.
func (w *response) ReadFrom(r io.Reader) (int64, error) {
	w.WriteHeader(http.StatusOK)
	lr, limited := r.(*io.LimitedReader)
	if !limited || !w.sendsBody() || w.length < 0 {
		return io.Copy(struct{ io.Writer }{w}, r)
	}
	file, ok := lr.R.(sendable)
	if !ok {
		return io.Copy(struct{ io.Writer }{w}, r)
	}
	if err := w.room(int(lr.N)); err != nil {
		return 0, err
	}
	if !w.started {
		w.begin(false)
	}
	if lr.N <= bufferSize/2 {
		return w.collect(file, int(lr.N))
	}
	return w.sendfile(file, lr)
}

// collect reads the next n bytes of file behind what was collected.
func (w *response) collect(file sendable, n int) (int64, error) {
	from := len(w.c.out)
	w.c.out = slices.Grow(w.c.out, n)
	n, err := io.ReadFull(file, w.c.out[from:from+n])
	w.c.out = w.c.out[:from+n]
	w.body += int64(n)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = nil // the file has shrunk; io.CopyN and finish notice
	}
	return int64(n), err
}

// sendfile sends the next lr.N bytes of file.
func (w *response) sendfile(file sendable, lr *io.LimitedReader) (sent int64, err error) {
	offset, err := file.Seek(0, io.SeekCurrent)
	if err != nil {
		return 0, err
	}
	if w.sendFail = w.c.sendAhead(w.c.out); w.sendFail != nil {
		return 0, w.sendFail
	}
	w.c.out = w.c.out[:0]
	for lr.N > 0 {
		n, err := w.sendPiece(file, offset+sent, min(lr.N, sendfileSize))
		sent += n
		lr.N -= n
		w.body += n
		if err != nil {
			w.sendFail, w.c.broken = err, true
			return sent, err
		}
		if n == 0 {
			return sent, io.ErrUnexpectedEOF // the file has shrunk
		}
	}
	return sent, nil
}

// sendPiece sends at least some of count bytes. A client that takes little, but
// does take some within the limit, is slow and not gone.
func (w *response) sendPiece(file sendable, offset, count int64) (n int64, err error) {
	w.c.limit(w.c.s.limits.write)
	n, err = sockapi.Sendfile(w.c.co, w.c.sock, file, offset, count, nil)
	err = w.c.unlimit(err)
	if n > 0 && errors.Is(err, loop.ErrTimeout) {
		err = nil
	}
	return n, err
}

// begin puts the header before what was collected of the body so far.
func (w *response) begin(chunked bool) {
	w.started, w.chunked = true, chunked
	h := w.header
	if chunked {
		h.Del("Content-Length")
		h.Set("Transfer-Encoding", "chunked")
	} else if w.length < 0 {
		w.lastOne = true // the end of the connection is the end of the body
	}
	w.lastOne = w.lastOne || w.c.s.stopping
	if w.lastOne {
		h.Set("Connection", "close")
	} else if !w.req.ProtoAtLeast(1, 1) {
		h.Set("Connection", "keep-alive")
	}
	body := append([]byte(nil), w.c.out...)
	out := append(w.c.out[:0], "HTTP/1.1 "...)
	out = strconv.AppendInt(out, int64(w.status), 10)
	out = append(out, ' ')
	out = append(out, http.StatusText(w.status)...)
	out = append(out, "\r\nDate: "...)
	out = append(out, w.c.s.date.at(w.start)...)
	out = append(out, "\r\n"...)
	for name, values := range h {
		for _, v := range values {
			out = append(out, name...)
			out = append(out, ": "...)
			out = append(out, oneLine.Replace(v)...)
			out = append(out, "\r\n"...)
		}
	}
	out = append(out, "\r\n"...)
	w.c.out = w.appendBody(out, body)
}

// oneLine keeps a header's value from ending the header: net/http's redirects have
// the names of files in them, and leave that to the server.
var oneLine = strings.NewReplacer("\r", " ", "\n", " ")

// httpDate is the current second as headers write it.
type httpDate struct {
	second int64
	text   []byte
}

func (d *httpDate) at(t time.Time) []byte {
	if s := t.Unix(); s != d.second || d.text == nil {
		d.second, d.text = s, t.UTC().AppendFormat(d.text[:0], http.TimeFormat)
	}
	return d.text
}

// flush sends what was collected.
func (w *response) flush() error {
	if w.sendFail != nil {
		return w.sendFail
	}
	w.sendFail = w.c.send(w.c.out)
	w.c.out = w.c.out[:0]
	return w.sendFail
}

// finish sends what is left of the response and logs the request; again says
// that the connection can take another one.
func (w *response) finish() (again bool, err error) {
	w.WriteHeader(http.StatusOK)
	if !w.started {
		if w.length < 0 {
			w.length = w.body
		}
		if bodyAllowed(w.status) {
			w.header.Set("Content-Length", strconv.FormatInt(w.length, 10))
		}
		w.begin(false)
	}
	if w.chunked {
		w.c.out = append(w.c.out, "0\r\n\r\n"...)
	}
	err = w.flush()
	if err == nil && w.sendsBody() && w.length >= 0 && w.body != w.length {
		w.lastOne = true
		err = fmt.Errorf("%s: %d of %d bytes of the body were written", w.req.RequestURI, w.body, w.length)
	}
	w.c.s.log.write(w)
	return !w.lastOne, err
}
