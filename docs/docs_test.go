// Package docs_test keeps the documents true: the table of asyncio.md, and the
// code in the README.
package docs_test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// sections lists the rows that asyncio.md must have: prefix of the ID, number
// of rows, and whether they belong to asyncio's index.
var sections = []struct {
	prefix string
	rows   int
	index  bool
}{
	{"G", 4, true}, {"L", 7, true}, {"D", 2, true}, {"C", 4, true}, {"X", 2, true}, {"T", 4, true}, {"N", 2, true},
	{"W", 10, true}, {"K", 13, true}, {"U", 2, true}, {"P", 2, true}, {"E", 4, true},
	{"TB", 5, true}, {"TR", 3, true}, {"TW", 8, true}, {"TD", 2, true}, {"TS", 7, true},
	{"PB", 4, true}, {"PS", 2, true}, {"PU", 3, true}, {"PD", 2, true}, {"PP", 3, true},
	{"O", 3, true}, {"Z", 42, false},
}

// indexRows is the size of the "Low-level API Index".
const indexRows = 98

// row is a row of the table.
type row struct {
	id, section     string
	symbols         []string
	tests           []test
	line            int
	asyncio, remark string
}

// test names a test function and the folder of its package.
type test struct{ pkg, name string }

func (w test) String() string { return w.pkg + ": " + w.name }

var (
	rowStart = regexp.MustCompile(`^\| ([A-Z]+[0-9]+) \|`)
	code     = regexp.MustCompile("`([^`]*)`")
)

// readTable returns the rows of asyncio.md.
func readTable(t *testing.T) []row {
	t.Helper()
	b, err := os.ReadFile("asyncio.md")
	if err != nil {
		t.Fatal(err)
	}
	var rows []row
	section := ""
	for i, line := range strings.Split(string(b), "\n") {
		if s, ok := strings.CutPrefix(strings.TrimLeft(line, "#"), " "); ok && strings.HasPrefix(line, "#") {
			section = s
		}
		if !rowStart.MatchString(line) {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		if len(cells) != 5 {
			t.Fatalf("asyncio.md:%d: %d cells, want 5", i+1, len(cells))
		}
		r := row{id: strings.TrimSpace(cells[0]), section: section, line: i + 1, asyncio: cells[1], remark: cells[4]}
		for _, m := range code.FindAllStringSubmatch(cells[2], -1) {
			r.symbols = append(r.symbols, m[1])
		}
		for _, group := range strings.Split(cells[3], ";") {
			pkg, names, _ := strings.Cut(group, ":")
			for _, m := range code.FindAllStringSubmatch(names, -1) {
				r.tests = append(r.tests, test{strings.TrimSpace(pkg), m[1]})
			}
		}
		rows = append(rows, r)
	}
	return rows
}

func TestEveryEntryOfAsyncioHasOneRow(t *testing.T) {
	missing := map[string]bool{}
	index := 0
	for _, s := range sections {
		for i := range s.rows {
			missing[fmt.Sprint(s.prefix, i+1)] = true
		}
		if s.index {
			index += s.rows
		}
	}
	if index != indexRows {
		t.Fatalf("the sections have %d rows of the index, want %d", index, indexRows)
	}
	seen := map[string]int{}
	for _, r := range readTable(t) {
		if at := seen[r.id]; at != 0 {
			t.Errorf("asyncio.md:%d: %s is at line %d too", r.line, r.id, at)
		} else if !missing[r.id] {
			t.Errorf("asyncio.md:%d: %s is no entry", r.line, r.id)
		}
		seen[r.id] = r.line
		delete(missing, r.id)
	}
	for id := range missing {
		t.Errorf("asyncio.md has no row for %s", id)
	}
}

func TestEveryRowNamesSymbolsThatExist(t *testing.T) {
	m := parseModule(t)
	for _, r := range readTable(t) {
		if strings.TrimSpace(r.asyncio) == "" || len(r.symbols) == 0 {
			t.Errorf("asyncio.md:%d: %s lacks its name or a Go symbol", r.line, r.id)
		}
		for _, s := range r.symbols {
			if !m.has(s) {
				t.Errorf("asyncio.md:%d: %s: there is no %s", r.line, r.id, s)
			}
		}
		for _, c := range code.FindAllStringSubmatch(r.remark, -1) {
			if s := c[1]; m.packages[strings.Split(s, ".")[0]] != nil && !m.has(s) {
				t.Errorf("asyncio.md:%d: %s: there is no %s", r.line, r.id, s)
			}
		}
	}
}

func TestEveryRowNamesTestsThatExist(t *testing.T) {
	m := parseModule(t)
	for _, r := range readTable(t) {
		if len(r.tests) == 0 {
			t.Errorf("asyncio.md:%d: %s lacks a test", r.line, r.id)
		}
		for _, w := range r.tests {
			p := m.packages[w.pkg]
			if p == nil || !p.tests[w.name] {
				t.Errorf("asyncio.md:%d: %s: there is no test %s", r.line, r.id, w)
			}
		}
	}
}

// TestTheTableIsNotEmpty shows with -v how many entries, symbols and tests each
// section has.
func TestTheTableIsNotEmpty(t *testing.T) {
	type count struct{ rows, symbols, tests int }
	counts := map[string]*count{}
	var order []string
	symbols, tests := map[string]bool{}, map[test]bool{}
	rows := readTable(t)
	for _, r := range rows {
		c := counts[r.section]
		if c == nil {
			c = &count{}
			counts[r.section] = c
			order = append(order, r.section)
		}
		c.rows++
		c.symbols += len(r.symbols)
		c.tests += len(r.tests)
		for _, s := range r.symbols {
			symbols[s] = true
		}
		for _, w := range r.tests {
			tests[w] = true
		}
	}
	for _, s := range order {
		t.Logf("%-28s %3d rows %4d symbols %4d tests", s, counts[s].rows, counts[s].symbols, counts[s].tests)
	}
	t.Logf("%-28s %3d rows %4d symbols %4d tests, each once", "together", len(rows), len(symbols), len(tests))
	if len(rows) == 0 || slices.Contains(order, "") {
		t.Errorf("%d rows in the sections %q", len(rows), order)
	}
}
