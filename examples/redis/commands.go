package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// The errors that several commands have.
const (
	errSyntax   = "ERR syntax error"
	errInteger  = "ERR value is not an integer or out of range"
	errOverflow = "ERR increment or decrement would overflow"
)

// command is what the server can do.
type command struct {
	arity int // number of arguments with the name; at least -arity if negative
	run   func(c *conn, args [][]byte)
}

// commandTable returns the commands by their names.
func commandTable() map[string]command {
	return map[string]command{
		"PING":        {-1, ping},
		"ECHO":        {2, func(c *conn, args [][]byte) { c.bulk(args[1]) }},
		"SET":         {-3, set},
		"GET":         {2, func(c *conn, args [][]byte) { c.value(c.srv.store.get(args[1])) }},
		"DEL":         {-2, del},
		"EXISTS":      {-2, exists},
		"INCR":        {2, func(c *conn, args [][]byte) { c.add(args[1], 1) }},
		"DECR":        {2, func(c *conn, args [][]byte) { c.add(args[1], -1) }},
		"MGET":        {-2, mget},
		"MSET":        {-3, mset},
		"EXPIRE":      {-3, func(c *conn, args [][]byte) { c.expire(args, span{unit: second}) }},
		"PEXPIRE":     {-3, func(c *conn, args [][]byte) { c.expire(args, span{unit: millisecond}) }},
		"EXPIREAT":    {-3, func(c *conn, args [][]byte) { c.expire(args, span{second, true}) }},
		"PEXPIREAT":   {-3, func(c *conn, args [][]byte) { c.expire(args, span{millisecond, true}) }},
		"TTL":         {2, func(c *conn, args [][]byte) { c.ttl(args[1], span{unit: second}) }},
		"PTTL":        {2, func(c *conn, args [][]byte) { c.ttl(args[1], span{unit: millisecond}) }},
		"EXPIRETIME":  {2, func(c *conn, args [][]byte) { c.ttl(args[1], span{second, true}) }},
		"PEXPIRETIME": {2, func(c *conn, args [][]byte) { c.ttl(args[1], span{millisecond, true}) }},
		"PERSIST":     {2, persist},
		"COMMAND":     {-1, describe},
		"CONFIG":      {-2, config},
		"SELECT":      {2, selectDB},
		"FLUSHDB":     {-1, flushDB},
		"DBSIZE":      {1, func(c *conn, _ [][]byte) { c.integer(int64(c.srv.store.size())) }},
		"QUIT":        {-1, quit},
		"INFO":        {-1, info},
	}
}

// execute executes a command and replies.
func (c *conn) execute(args [][]byte) {
	c.srv.executed++
	var upper [16]byte
	name := upper[:0]
	for _, b := range args[0][:min(len(args[0]), len(upper))] {
		if 'a' <= b && b <= 'z' {
			b -= 'a' - 'A'
		}
		name = append(name, b)
	}
	cmd, ok := c.srv.commands[string(name)]
	switch {
	case string(name) == "POST", string(name) == "HOST:":
		c.quit = true // a web page makes its reader's browser say this
	case !ok || len(name) < len(args[0]):
		c.unknown(args)
	case len(args) == cmd.arity || (cmd.arity < 0 && len(args) >= -cmd.arity):
		cmd.run(c, args)
	default:
		c.wrongNumber(args)
	}
}

// unknown refuses a command that there is not.
func (c *conn) unknown(args [][]byte) {
	const much = 128
	var b strings.Builder
	for _, arg := range args[1:] {
		if b.Len() >= much {
			break
		}
		fmt.Fprintf(&b, "'%.*s' ", much, arg)
	}
	c.fail(fmt.Sprintf("ERR unknown command '%.*s', with args beginning with: %s", much, args[0], b.String()))
}

func (c *conn) wrongNumber(args [][]byte) {
	c.fail("ERR wrong number of arguments for '" + strings.ToLower(string(args[0])) + "' command")
}

func ping(c *conn, args [][]byte) {
	switch len(args) {
	case 1:
		c.simple("PONG")
	case 2:
		c.bulk(args[1])
	default:
		c.wrongNumber(args)
	}
}

// isWord reports whether arg is the word, in any case.
func isWord(arg []byte, word string) bool {
	return len(arg) == len(word) && bytes.EqualFold(arg, []byte(word))
}

func del(c *conn, args [][]byte) {
	n := int64(0)
	for _, key := range args[1:] {
		if e := c.srv.store.get(key); e != nil {
			c.srv.store.remove(e)
			n++
		}
	}
	c.integer(n)
}

func exists(c *conn, args [][]byte) {
	n := int64(0)
	for _, key := range args[1:] {
		if c.srv.store.get(key) != nil {
			n++
		}
	}
	c.integer(n)
}

// add is INCR and DECR. It leaves the key's deadline as it is.
func (c *conn) add(key []byte, delta int64) {
	n, ok := int64(0), true
	e := c.srv.store.get(key)
	if e != nil {
		n, ok = parseInt(e.value)
	} else {
		e = c.srv.store.set(key, []byte{'0'}, false)
	}
	sum := n + delta
	switch {
	case !ok:
		c.fail(errInteger)
	case (sum > n) != (delta > 0):
		c.fail(errOverflow)
	default:
		e.value = strconv.AppendInt(e.value[:0], sum, 10)
		c.integer(sum)
	}
}

func mget(c *conn, args [][]byte) {
	c.array(len(args) - 1)
	for _, key := range args[1:] {
		c.value(c.srv.store.get(key))
		if len(c.srv.out) >= flushSize {
			c.flush()
		}
	}
}

func mset(c *conn, args [][]byte) {
	if len(args)%2 == 0 {
		c.wrongNumber(args)
		return
	}
	for i := 1; i < len(args); i += 2 {
		c.srv.store.set(args[i], args[i+1], c.in.isOwned(i+1))
	}
	c.ok()
}

// describe is COMMAND, which redis-cli asks for its hints and can do without.
func describe(c *conn, args [][]byte) {
	if len(args) > 1 && isWord(args[1], "COUNT") {
		c.integer(int64(len(c.srv.commands)))
		return
	}
	c.array(0)
}

// config is CONFIG GET, which redis-benchmark asks for two parameters.
func config(c *conn, args [][]byte) {
	if !isWord(args[1], "GET") || len(args) < 3 {
		c.fail("ERR only CONFIG GET is supported")
		return
	}
	values := map[string]string{"save": "", "appendonly": "no"}
	var found []string
	for _, name := range args[2:] {
		lower := strings.ToLower(string(name))
		if value, ok := values[lower]; ok {
			found = append(found, lower, value)
		}
	}
	c.array(len(found))
	for _, s := range found {
		c.bulk([]byte(s))
	}
}

func selectDB(c *conn, args [][]byte) {
	switch n, ok := parseInt(args[1]); {
	case !ok:
		c.fail(errInteger)
	case n != 0:
		c.fail("ERR DB index is out of range")
	default:
		c.ok()
	}
}

func flushDB(c *conn, args [][]byte) {
	if len(args) > 2 || (len(args) == 2 && !isWord(args[1], "SYNC") && !isWord(args[1], "ASYNC")) {
		c.fail(errSyntax)
		return
	}
	c.srv.store.clear()
	c.ok()
}

func quit(c *conn, _ [][]byte) {
	c.ok()
	c.quit = true
}

func info(c *conn, _ [][]byte) {
	l := c.srv.l
	var b []byte
	b = fmt.Appendf(b, "# Server\r\nprocess_id:%d\r\nmultiplexing_api:%s\r\nuptime_in_seconds:%d\r\n",
		os.Getpid(), l.Features().Backend, int64((l.Time()-c.srv.started)/time.Second))
	b = fmt.Appendf(b, "\r\n# Clients\r\nconnected_clients:%d\r\n", c.srv.clients)
	b = fmt.Appendf(b, "\r\n# Stats\r\ntotal_commands_processed:%d\r\n", c.srv.executed)
	b = fmt.Appendf(b, "\r\n# Keyspace\r\n")
	if n := c.srv.store.size(); n > 0 {
		b = fmt.Appendf(b, "db0:keys=%d,expires=%d\r\n", n, len(c.srv.store.mortal))
	}
	c.bulk(b)
}
