package main

import (
	"bytes"
	"errors"
	"fmt"
)

// maxLine is how many bytes an inline command or the header of an argument may
// take.
const maxLine = 64 << 10

// limits bound what one client can make the server keep.
type limits struct {
	args    int // arguments of a command
	bulk    int // bytes of an argument
	command int // bytes of all arguments of a command
}

// parser takes commands out of a stream of bytes that comes in pieces of any
// size (RESP2: arrays of bulk strings, and inline commands).
//
// An argument that is contained in one piece is not copied. One that is not is
// collected in memory of its own, which grows with what has arrived, not with
// what was announced.
type parser struct {
	limits limits

	args  [][]byte // of the command, when it is complete
	owned int      // arguments at the beginning that are not in the current piece
	todo  int      // arguments to come; 0 between commands
	bulk  int      // length of the argument to come; -1 before its header
	size  int      // bytes of all arguments
	value []byte   // what has arrived of the argument and the line end behind it
	line  []byte   // what has arrived of a line
}

// next takes the next command out of data and returns what follows it. It says
// ok when the command is complete: its arguments are in args until data changes
// or next is called again. Otherwise all of data was taken. After an error the
// stream cannot be understood any more.
func (p *parser) next(data []byte) (rest []byte, ok bool, err error) {
	if p.todo == 0 {
		p.begin()
	}
	for len(data) > 0 {
		switch {
		case p.todo == 0:
			data, ok, err = p.first(data)
		case p.bulk < 0:
			data, err = p.header(data)
		default:
			data, ok, err = p.argument(data)
		}
		if ok || err != nil {
			return data, ok, err
		}
	}
	p.keep()
	return nil, false, nil
}

// begin forgets the last command.
func (p *parser) begin() {
	const usual = 64
	if cap(p.args) > usual {
		p.args = nil
	}
	clear(p.args)
	p.args, p.owned, p.size, p.bulk = p.args[:0], 0, 0, -1
}

// first takes the line that a command begins with: the number of its arguments,
// or all of them.
func (p *parser) first(data []byte) (rest []byte, ok bool, err error) {
	line, rest, ok, err := p.takeLine(data)
	if !ok || err != nil || len(line) == 0 {
		return rest, false, err
	}
	if line[0] != '*' {
		p.args, err = splitInline(p.args, line)
		return rest, len(p.args) > 0 && err == nil, err
	}
	n, valid := parseInt(line[1:])
	if !valid || n > int64(p.limits.args) {
		return nil, false, errors.New("invalid multibulk length")
	}
	p.todo = int(max(n, 0))
	return rest, false, nil
}

// header takes the line that an argument begins with.
func (p *parser) header(data []byte) (rest []byte, err error) {
	line, rest, ok, err := p.takeLine(data)
	if !ok || err != nil {
		return rest, err
	}
	if len(line) == 0 || line[0] != '$' {
		return nil, fmt.Errorf("expected '$', got '%.1s'", line)
	}
	n, valid := parseInt(line[1:])
	if !valid || n < 0 || n > int64(p.limits.bulk) {
		return nil, errors.New("invalid bulk length")
	}
	if p.size += int(n); p.size > p.limits.command {
		return nil, errors.New("too big command")
	}
	p.bulk = int(n)
	return rest, nil
}

// argument takes an argument, or what has arrived of it. It says ok when that
// was the last of the command.
func (p *parser) argument(data []byte) (rest []byte, ok bool, err error) {
	total := p.bulk + len("\r\n")
	n := min(total-len(p.value), len(data))
	value := data[:n]
	if n < total {
		p.value = grow(p.value, n, total)
		p.value = append(p.value, value...)
		value = p.value
	}
	if len(value) < total {
		return data[n:], false, nil
	}
	if value[p.bulk] != '\r' || value[p.bulk+1] != '\n' {
		return nil, false, errors.New("expected the end of the line behind a bulk string")
	}
	p.args = append(p.args, value[:p.bulk:p.bulk])
	if p.value != nil {
		p.value = nil
		p.owned = len(p.args)
	}
	p.bulk = -1
	p.todo--
	return data[n:], p.todo == 0, nil
}

// grow returns b with room for n more bytes. Its capacity doubles, so that each
// byte is copied a constant number of times, up to max.
func grow(b []byte, n, max int) []byte {
	if cap(b)-len(b) >= n {
		return b
	}
	return append(make([]byte, 0, min(max, len(b)+n+cap(b))), b...)
}

// takeLine takes a line, without its end. It says ok when the line is complete.
func (p *parser) takeLine(data []byte) (line, rest []byte, ok bool, err error) {
	i := bytes.IndexByte(data, '\n')
	line = data
	if i >= 0 {
		line, rest = data[:i], data[i+1:]
	}
	if len(p.line)+len(line) > maxLine {
		return nil, nil, false, errors.New("too big inline request or count string")
	}
	if i < 0 || len(p.line) > 0 {
		p.line = append(p.line, line...)
		line = p.line
	}
	if i < 0 {
		return nil, nil, false, nil
	}
	p.line = p.line[:0] // line stays as it is until the next piece is added
	return bytes.TrimSuffix(line, []byte{'\r'}), rest, true, nil
}

// keep copies the arguments of an incomplete command that are in a piece that
// is about to go away.
func (p *parser) keep() {
	if p.todo == 0 {
		return
	}
	for i := p.owned; i < len(p.args); i++ {
		p.args[i] = bytes.Clone(p.args[i])
	}
	p.owned = len(p.args)
}

// isOwned reports whether argument i is in memory that nothing else uses, so
// that it can be kept without being copied.
func (p *parser) isOwned(i int) bool { return i < p.owned }

// parseInt parses a decimal number, as strictly as Redis does: no plus sign, no
// spaces, no leading zeros.
func parseInt(b []byte) (n int64, ok bool) {
	digits := bytes.TrimPrefix(b, []byte{'-'})
	negative := len(digits) < len(b)
	if len(digits) == 0 || (digits[0] == '0' && len(b) > 1) {
		return 0, false
	}
	for _, d := range digits {
		if d < '0' || d > '9' {
			return 0, false
		}
		// It is collected as a negative number, of which there is one more.
		next := n*10 - int64(d-'0')
		if n < (-1<<63)/10 || next > 0 {
			return 0, false
		}
		n = next
	}
	if negative {
		return n, true
	}
	return -n, n != -1<<63
}
