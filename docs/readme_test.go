package docs_test

import (
	"io"
	"log"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
	"github.com/seed-80cfe818/ringloop/transport"
)

// The first snippet of the README.
func Example_task() {
	err := loop.Run(func(co *loop.Coro) error {
		ln, err := sockapi.Listen("tcp", "127.0.0.1:7777", nil)
		if err != nil {
			return err
		}
		for {
			s, _, err := sockapi.Accept(co, ln)
			if err != nil {
				return err
			}
			co.Loop().Go(func(co *loop.Coro) error {
				defer s.Close()
				buf := make([]byte, 16<<10)
				for {
					n, err := sockapi.RecvInto(co, s, buf)
					if err == io.EOF {
						return nil
					}
					if err != nil {
						return err
					}
					if err := sockapi.SendAll(co, s, buf[:n]); err != nil {
						return err
					}
				}
			})
		}
	})
	log.Fatal(err)
}

// The second snippet of the README.
type echo struct {
	transport.BaseStreamProtocol
	t transport.Transport
}

func (e *echo) ConnectionMade(t transport.Transport) { e.t = t }
func (e *echo) DataReceived(data []byte)             { _ = e.t.Write(data) }

var _ transport.StreamProtocol = &echo{}

var snippet = regexp.MustCompile("(?s)```go\n(.*?)```")

// TestTheSnippetsOfTheREADMECompile finds them in this file, which was compiled.
func TestTheSnippetsOfTheREADMECompile(t *testing.T) {
	compiled := oneLine(readFile(t, "readme_test.go"))
	found := snippet.FindAllStringSubmatch(readFile(t, "../README.md"), -1)
	if len(found) == 0 {
		t.Fatal("the README has no snippets")
	}
	for _, m := range found {
		if !strings.Contains(compiled, oneLine(m[1])) {
			t.Errorf("readme_test.go lacks this snippet of the README:\n%s", m[1])
		}
	}
}

var (
	link       = regexp.MustCompile(`\]\(([^)#:]+)\)`)
	packageRow = regexp.MustCompile(`(?m)^\| \[([^\]]+)\]\(([^)]+)\) \|.*\| (.*) \|$`)
	goRun      = regexp.MustCompile(`go (?:run|test) \./([a-z/]+[a-z])`)
)

func TestTheREADMEPointsToWhatExists(t *testing.T) {
	readme := readFile(t, "../README.md")
	var paths []string
	for _, m := range link.FindAllStringSubmatch(readme, -1) {
		paths = append(paths, m[1])
	}
	for _, m := range goRun.FindAllStringSubmatch(readme, -1) {
		paths = append(paths, m[1])
	}
	rows := packageRow.FindAllStringSubmatch(readme, -1)
	if len(rows) == 0 {
		t.Error("the README has no table of packages")
	}
	for _, m := range rows {
		if name := strings.Trim(m[3], "`"); !strings.Contains(name, " ") {
			paths = append(paths, filepath.Join(m[2], name))
		}
	}
	for _, path := range paths {
		if _, err := os.Stat(filepath.Join("..", path)); err != nil {
			t.Errorf("the README points to %s: %v", path, err)
		}
	}
}

func TestTheREADMEListsEveryExample(t *testing.T) {
	readme := readFile(t, "../README.md")
	mains, err := filepath.Glob("../examples/*/main.go")
	if err != nil || len(mains) == 0 {
		t.Fatalf("%d examples, %v", len(mains), err)
	}
	for _, path := range mains {
		if name := filepath.Base(filepath.Dir(path)); !strings.Contains(readme, name) {
			t.Errorf("the README does not name examples/%s", name)
		}
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// oneLine makes code comparable whatever its indentation.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
