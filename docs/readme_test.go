package docs_test

import (
	"errors"
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
		defer ln.Close()
		for {
			s, _, err := sockapi.Accept(co, ln)
			if err != nil {
				return err // a server that is to live on EMFILE sleeps, and goes on
			}
			co.Loop().Go(func(co *loop.Coro) error {
				defer s.Close()
				buf := make([]byte, 16<<10)
				for {
					n, err := sockapi.RecvInto(co, s, buf)
					if err == nil {
						err = sockapi.SendAll(co, s, buf[:n])
					}
					switch {
					case err == io.EOF:
						return nil
					case errors.Is(err, loop.ErrCancelled):
						return err // the program ends
					case err != nil:
						log.Print(err) // nobody awaits this task
						return nil
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
func (e *echo) PauseWriting()                        { _ = e.t.PauseReading() } // until the peer reads
func (e *echo) ResumeWriting()                       { _ = e.t.ResumeReading() }

var _ transport.StreamProtocol = &echo{}

var snippet = regexp.MustCompile("(?s)```go\n(.*?)```")

// TestTheSnippetsCompile finds those of a document in the file of its examples,
// which was compiled.
func TestTheSnippetsCompile(t *testing.T) {
	for doc, file := range map[string]string{"../README.md": "readme_test.go", "guide.md": "guide_test.go"} {
		compiled := oneLine(readFile(t, file))
		found := snippet.FindAllStringSubmatch(readFile(t, doc), -1)
		if len(found) == 0 {
			t.Errorf("%s has no snippets", doc)
		}
		for _, m := range found {
			if !strings.Contains(compiled, oneLine(m[1])) {
				t.Errorf("%s lacks this snippet of %s:\n%s", file, doc, m[1])
			}
		}
	}
}

var (
	link       = regexp.MustCompile(`\]\(([^)#:]+)\)`)
	packageRow = regexp.MustCompile(`(?m)^\| \[([^\]]+)\]\(([^)]+)\) \|.*\| (.*) \|$`)
	goRun      = regexp.MustCompile(`go (?:run|test) \./([a-z/]+[a-z])`)
)

func TestDocumentsPointToWhatExists(t *testing.T) {
	docs, err := filepath.Glob("*.md")
	if err != nil || len(docs) == 0 {
		t.Fatalf("%d documents, %v", len(docs), err)
	}
	for _, doc := range append(docs, "../README.md") {
		text := snippet.ReplaceAllString(readFile(t, doc), "")
		var paths []string
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			paths = append(paths, filepath.Join(filepath.Dir(doc), m[1]))
		}
		for _, m := range goRun.FindAllStringSubmatch(text, -1) {
			paths = append(paths, filepath.Join("..", m[1]))
		}
		for _, path := range paths {
			if _, err := os.Stat(path); err != nil {
				t.Errorf("%s points to %s: %v", doc, path, err)
			}
		}
	}
}

func TestTheREADMEsTableNamesFilesThatExist(t *testing.T) {
	rows := packageRow.FindAllStringSubmatch(readFile(t, "../README.md"), -1)
	if len(rows) == 0 {
		t.Error("the README has no table of packages")
	}
	for _, m := range rows {
		name := strings.Trim(m[3], "`")
		if strings.Contains(name, " ") {
			continue
		}
		if _, err := os.Stat(filepath.Join("..", m[2], name)); err != nil {
			t.Error(err)
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
