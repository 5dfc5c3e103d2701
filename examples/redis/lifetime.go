package main

import "strings"

// The units of lifetimes, in milliseconds.
const (
	millisecond int64 = 1
	second      int64 = 1000
)

// span is how a command counts a lifetime.
type span struct {
	unit   int64
	moment bool // from 1970 on, rather than from now
}

// conditions are what EXPIRE asks of the deadline that a key has.
type conditions struct{ nx, xx, gt, lt bool }

// parseConditions returns an error to reply if they are not known or do not go
// together.
func parseConditions(args [][]byte) (o conditions, problem string) {
	for _, opt := range args {
		switch {
		case isWord(opt, "NX"):
			o.nx = true
		case isWord(opt, "XX"):
			o.xx = true
		case isWord(opt, "GT"):
			o.gt = true
		case isWord(opt, "LT"):
			o.lt = true
		default:
			return o, "ERR Unsupported option " + string(opt)
		}
	}
	switch {
	case o.nx && (o.xx || o.gt || o.lt):
		return o, "ERR NX and XX, GT or LT options at the same time are not compatible"
	case o.gt && o.lt:
		return o, "ERR GT and LT options at the same time are not compatible"
	}
	return o, ""
}

// allow reports whether a key whose deadline is was may get another one. Without
// a deadline, 0, it lives longer than with any.
func (o conditions) allow(was, deadline int64) bool {
	switch {
	case o.nx:
		return was == 0
	case o.xx && was == 0:
		return false
	case o.gt:
		return was != 0 && deadline > was
	case o.lt:
		return was == 0 || deadline < was
	}
	return true
}

// expire is EXPIRE key seconds, PEXPIRE key milliseconds, EXPIREAT and PEXPIREAT,
// all with [NX | XX | GT | LT].
func (c *conn) expire(args [][]byte, s span) {
	when, problem := parseConditions(args[3:])
	if problem != "" {
		c.fail(problem)
		return
	}
	n, ok := parseInt(args[2])
	if !ok {
		c.fail(errInteger)
		return
	}
	deadline, ok := c.srv.store.deadline(n, s)
	if !ok {
		c.badExpire(args)
		return
	}
	e := c.srv.store.get(args[1])
	switch {
	case e == nil || !when.allow(e.deadline, deadline):
		c.integer(0)
		return
	case deadline <= c.srv.store.now():
		c.srv.store.remove(e)
	default:
		c.srv.store.expire(e, deadline)
	}
	c.integer(1)
}

func (c *conn) badExpire(args [][]byte) {
	c.fail("ERR invalid expire time in '" + strings.ToLower(string(args[0])) + "' command")
}

// ttl is TTL and PTTL, how many units a key has left, rounded, and EXPIRETIME and
// PEXPIRETIME, when it has none.
func (c *conn) ttl(key []byte, s span) {
	e := c.srv.store.get(key)
	switch {
	case e == nil:
		c.integer(-2)
	case e.deadline == 0:
		c.integer(-1)
	default:
		n := max(0, e.deadline-c.srv.store.base(s))
		c.integer(n/s.unit + (n%s.unit+s.unit/2)/s.unit)
	}
}

func persist(c *conn, args [][]byte) {
	e := c.srv.store.get(args[1])
	if e == nil || e.deadline == 0 {
		c.integer(0)
		return
	}
	c.srv.store.persist(e)
	c.integer(1)
}
