package main

import (
	"errors"
	"strconv"
)

var errQuotes = errors.New("unbalanced quotes in request")

// splitInline appends the words of a line to args. Words are separated by
// blanks; within quotes, blanks are part of the word, and so are the usual
// escapes within double quotes. What needs no translation is not copied.
func splitInline(args [][]byte, line []byte) ([][]byte, error) {
	for {
		for len(line) > 0 && isBlank(line[0]) {
			line = line[1:]
		}
		if len(line) == 0 {
			return args, nil
		}
		word, rest, err := takeWord(line)
		if err != nil {
			return nil, err
		}
		args, line = append(args, word), rest
	}
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f' }

// takeWord takes the word that line begins with.
func takeWord(line []byte) (word, rest []byte, err error) {
	n := 0
	for n < len(line) && !isBlank(line[n]) && line[n] != '"' && line[n] != '\'' {
		n++
	}
	if n == len(line) || isBlank(line[n]) {
		return line[:n:n], line[n:], nil
	}
	word = append([]byte{}, line[:n]...)
	quote := line[n]
	for i := n + 1; i < len(line); i++ {
		switch {
		case line[i] == quote:
			rest = line[i+1:]
			if len(rest) > 0 && !isBlank(rest[0]) {
				return nil, nil, errQuotes
			}
			return word, rest, nil
		case line[i] == '\\' && i+1 < len(line) && (quote == '"' || line[i+1] == '\''):
			c, used := unescape(line[i+1:], quote)
			word = append(word, c)
			i += used
		default:
			word = append(word, line[i])
		}
	}
	return nil, nil, errQuotes
}

// unescape returns the byte that stands behind a backslash, and how many bytes
// it took there.
func unescape(b []byte, quote byte) (c byte, used int) {
	if quote == '\'' {
		return b[0], 1
	}
	switch b[0] {
	case 'n':
		return '\n', 1
	case 'r':
		return '\r', 1
	case 't':
		return '\t', 1
	case 'b':
		return '\b', 1
	case 'a':
		return '\a', 1
	case 'x':
		if len(b) >= 3 {
			if v, err := strconv.ParseUint(string(b[1:3]), 16, 8); err == nil {
				return byte(v), 3
			}
		}
	}
	return b[0], 1
}
