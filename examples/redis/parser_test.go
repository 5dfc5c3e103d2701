package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// smallLimits are limits that tests can reach.
var smallLimits = limits{args: 5, bulk: 100, command: 150}

// parseAll feeds pieces to a parser and returns a description of the commands
// and the error.
func parseAll(l limits, pieces ...[]byte) (commands []string, err error) {
	p := parser{limits: l}
	for _, piece := range pieces {
		// The parser must not rely on a piece after its time.
		data := bytes.Clone(piece)
		for rest := data; len(rest) > 0; {
			var ok bool
			if rest, ok, err = p.next(rest); err != nil {
				return commands, err
			}
			if ok {
				commands = append(commands, fmt.Sprintf("%q", p.args))
			}
		}
		for i := range data {
			data[i] = '!'
		}
	}
	return commands, nil
}

var parserCases = []struct {
	in   string
	want []string
	err  string
}{
	{in: "*1\r\n$4\r\nPING\r\n", want: []string{`["PING"]`}},
	{in: "*2\r\n$4\r\nECHO\r\n$0\r\n\r\n*1\r\n$1\r\nx\r\n", want: []string{`["ECHO" ""]`, `["x"]`}},
	{in: "*2\r\n$3\r\nGET\r\n$5\r\na\r\n\r\n\r\n", want: []string{`["GET" "a\r\n\r\n"]`}},
	{in: "*0\r\n*-1\r\n\r\n*1\r\n$1\r\na\r\n", want: []string{`["a"]`}},
	{in: "PING\r\n", want: []string{`["PING"]`}},
	{in: "set  k\t v \n", want: []string{`["set" "k" "v"]`}},
	{in: `set k "a b\n\x41\q\"" ` + "\r\n", want: []string{`["set" "k" "a b\nAq\""]`}},
	{in: `set k 'a "b\n\''` + "\r\n", want: []string{`["set" "k" "a \"b\\n'"]`}},
	{in: `"" ''` + "\r\n", want: []string{`["" ""]`}},
	{in: `get "a` + "\r\n", err: "unbalanced quotes in request"},
	{in: `get "a"b` + "\r\n", err: "unbalanced quotes in request"},
	{in: "*x\r\n", err: "invalid multibulk length"},
	{in: "*6\r\n", err: "invalid multibulk length"},
	{in: "*99999999999999999999\r\n", err: "invalid multibulk length"},
	{in: "*1\r\nPING\r\n", err: "expected '$', got 'P'"},
	{in: "*1\r\n\r\n", err: "expected '$', got ''"},
	{in: "*1\r\n$-1\r\n", err: "invalid bulk length"},
	{in: "*1\r\n$101\r\n", err: "invalid bulk length"},
	{in: "*1\r\n$+1\r\n", err: "invalid bulk length"},
	{in: "*1\r\n$1\r\nxyz\r\n", err: "expected the end of the line behind a bulk string"},
	{in: "*2\r\n$80\r\n" + strings.Repeat("x", 80) + "\r\n$80\r\n", err: "too big command"},
	{in: strings.Repeat("x", maxLine+1), err: "too big inline request or count string"},
}

func TestCommandsAreTakenFromAnyPieces(t *testing.T) {
	for _, c := range parserCases {
		in := []byte(c.in)
		splits := [][][]byte{{in}, bytes.SplitAfter(in, []byte{'\n'}), bytes.SplitAfter(in, nil)}
		for i := 0; i < len(in) && len(in) < maxLine; i++ {
			splits = append(splits, [][]byte{in[:i], in[i:]})
		}
		for _, pieces := range splits {
			got, err := parseAll(smallLimits, pieces...)
			text := ""
			if err != nil {
				text = err.Error()
			}
			if !slices.Equal(got, c.want) || text != c.err {
				t.Errorf("%.40q in %d pieces, the first of %d bytes: %v, error %q; want %v, %q", c.in, len(pieces), len(pieces[0]), got, text, c.want, c.err)
			}
		}
	}
}

func TestAnAnnouncedLengthTakesNoMemory(t *testing.T) {
	p := parser{limits: limits{args: 10, bulk: 512 << 20, command: 1 << 30}}
	if _, ok, err := p.next([]byte("*2\r\n$3\r\nSET\r\n$536870912\r\nabc")); ok || err != nil {
		t.Fatal(ok, err)
	}
	if cap(p.value) > 1000 {
		t.Errorf("%d bytes are held for 3 bytes that have arrived", cap(p.value))
	}
}

func TestALargeArgumentIsCopiedAFewTimesAtMost(t *testing.T) {
	const size, piece = 32 << 20, 4 << 10
	p := parser{limits: limits{args: 10, bulk: size, command: 2 * size}}
	if _, ok, err := p.next(fmt.Appendf(nil, "*1\r\n$%d\r\n", size)); ok || err != nil {
		t.Fatal(ok, err)
	}
	moved := 0
	data := bytes.Repeat([]byte{'x'}, piece)
	for range size / piece {
		before := cap(p.value)
		if _, ok, err := p.next(data); ok || err != nil {
			t.Fatal(ok, err)
		}
		if cap(p.value) != before {
			moved += len(p.value)
		}
	}
	_, ok, err := p.next([]byte("\r\n"))
	if !ok || err != nil || len(p.args[0]) != size || !p.isOwned(0) {
		t.Errorf("got %v, %v, %d arguments", ok, err, len(p.args))
	}
	if moved > 3*size {
		t.Errorf("%d bytes were moved for an argument of %d", moved, size)
	}
}

func TestIntegersAreStrict(t *testing.T) {
	for in, want := range map[string]int64{
		"0": 0, "7": 7, "-7": -7, "9223372036854775807": 1<<63 - 1, "-9223372036854775808": -1 << 63,
	} {
		if got, ok := parseInt([]byte(in)); !ok || got != want {
			t.Errorf("%q: %d, %v", in, got, ok)
		}
	}
	for _, in := range []string{"", "-", "+1", " 1", "1 ", "01", "-0", "1a", "9223372036854775808", "-9223372036854775809", "92233720368547758070"} {
		if got, ok := parseInt([]byte(in)); ok {
			t.Errorf("%q: %d", in, got)
		}
	}
}

// FuzzParser compares parsing in one piece with parsing in pieces of a size.
func FuzzParser(f *testing.F) {
	for i, c := range parserCases {
		f.Add([]byte(c.in), byte(i))
	}
	f.Fuzz(func(t *testing.T, in []byte, size byte) {
		want, wantErr := parseAll(smallLimits, in)
		got, err := parseAll(smallLimits, slices.Collect(slices.Chunk(in, int(size)+1))...)
		if !slices.Equal(got, want) {
			t.Errorf("in pieces of %d: %v, want %v", int(size)+1, got, want)
		}
		if fmt.Sprint(err) != fmt.Sprint(wantErr) {
			t.Errorf("in pieces of %d: error %v, want %v", int(size)+1, err, wantErr)
		}
	})
}
