package main

import (
	"bytes"
	"strconv"

	"github.com/seed-80cfe818/ringloop/transport"
)

const (
	// flushSize is how many bytes of replies are collected before they are given
	// to the transport, which may say then that the client does not read them.
	flushSize = 64 << 10
	// largeValue is from which size in bytes on a value is given to the transport
	// as it is rather than copied to the other replies.
	largeValue = 16 << 10
)

var crlf = []byte("\r\n")

// conn is the protocol of one client.
type conn struct {
	srv  *server
	t    transport.Transport
	in   parser
	rest []byte // commands that wait until the client has read its replies
	full bool   // too many replies wait to be read
	quit bool   // nothing more is to be executed
}

// ConnectionMade begins.
func (c *conn) ConnectionMade(t transport.Transport) {
	c.t = t
	c.srv.clients++
	if c.srv.verbose != nil {
		c.srv.trace("client %s connected", c.name())
	}
}

// ConnectionLost ends.
func (c *conn) ConnectionLost(err error) {
	c.srv.clients--
	c.quit = true
	switch {
	case c.srv.verbose == nil:
	case err != nil:
		c.srv.trace("client %s lost: %v", c.name(), err)
	default:
		c.srv.trace("client %s disconnected", c.name())
	}
}

// name is how the client appears in the log.
func (c *conn) name() string {
	if addr, ok := c.t.ExtraInfo(transport.ExtraPeerName); ok && addr != nil {
		if s := addr.(transport.Addr).String(); s != "" {
			return s
		}
	}
	return "on the Unix socket"
}

// DataReceived executes the commands in data.
func (c *conn) DataReceived(data []byte) {
	c.rest = bytes.Clone(c.serve(data))
}

// PauseWriting stops taking commands while the client does not read replies.
func (c *conn) PauseWriting() {
	c.full = true
	_ = c.t.PauseReading() // it never fails on sockets
}

// ResumeWriting goes on where PauseWriting has stopped.
func (c *conn) ResumeWriting() {
	c.full = false
	c.rest = c.serve(c.rest)
	if !c.full {
		_ = c.t.ResumeReading() // it never fails on sockets
	}
}

// serve executes the commands in data, one after the other, and sends the
// replies together. It returns the commands that have to wait.
func (c *conn) serve(data []byte) []byte {
	for len(data) > 0 && !c.full && !c.quit {
		rest, ok, err := c.in.next(data)
		data = rest
		if err != nil {
			c.fail("ERR Protocol error: " + err.Error())
			c.quit = true
		} else if ok {
			c.execute(c.in.args)
		}
		if len(c.srv.out) >= flushSize {
			c.flush()
		}
	}
	c.flush()
	if c.quit {
		c.t.Close()
		return nil
	}
	return data
}

// flush gives the collected replies to the transport. What goes wrong there
// comes with ConnectionLost.
func (c *conn) flush() {
	if len(c.srv.out) > 0 {
		_ = c.t.Write(c.srv.out)
		c.srv.out = c.srv.out[:0]
	}
}

// The replies of RESP2.

func (c *conn) ok() { c.simple("OK") }

func (c *conn) simple(s string) { c.line('+', s) }

func (c *conn) fail(s string) { c.line('-', s) }

func (c *conn) line(kind byte, s string) {
	out := append(c.srv.out, kind)
	for i := range len(s) {
		b := s[i]
		if b == '\r' || b == '\n' {
			b = ' ' // it would end the line
		}
		out = append(out, b)
	}
	c.srv.out = append(out, crlf...)
}

func (c *conn) integer(n int64) { c.number(':', n) }

func (c *conn) array(n int) { c.number('*', int64(n)) }

func (c *conn) null() { c.number('$', -1) }

func (c *conn) number(kind byte, n int64) {
	c.srv.out = strconv.AppendInt(append(c.srv.out, kind), n, 10)
	c.srv.out = append(c.srv.out, crlf...)
}

// value sends the value of an entry, which may be nil.
func (c *conn) value(e *entry) {
	if e == nil {
		c.null()
		return
	}
	c.bulk(e.value)
}

func (c *conn) bulk(v []byte) {
	c.number('$', int64(len(v)))
	if len(v) < largeValue {
		c.srv.out = append(c.srv.out, v...)
		c.srv.out = append(c.srv.out, crlf...)
		return
	}
	c.srv.parts = append(c.srv.parts[:0], c.srv.out, v, crlf)
	_ = c.t.Writelines(c.srv.parts)
	clear(c.srv.parts)
	c.srv.out = c.srv.out[:0]
}
