package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"strings"
)

// Outcome is what the tests of one binary came to.
type Outcome struct {
	Passed, Failed, Skipped int
	// Problems says what is wrong, and is empty if the outcome is as it should
	// be.
	Problems []Problem
}

// Problem is one thing that is wrong with an outcome.
type Problem struct {
	// Test names the test that it is about, and is empty if it is about none.
	Test string
	Text string
}

// String returns the counts.
func (o Outcome) String() string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", o.Passed, o.Failed, o.Skipped)
}

// Refusal is the way in which a place refuses io_uring. The zero value is a
// place that does not.
type Refusal struct {
	// Words are what the reason has to contain: the errno's text, and what
	// gave it.
	Words []string
}

// Happens reports whether io_uring is refused at all.
func (r Refusal) Happens() bool { return len(r.Words) > 0 }

// Explains reports whether the text gives this refusal as the reason.
func (r Refusal) Explains(text string) bool {
	for _, w := range r.Words {
		if !strings.Contains(text, w) {
			return false
		}
	}
	return r.Happens()
}

// Judge counts the tests in the output of a test binary that was run with
// -test.v=test2json and ended with the given status.
func Judge(output []byte, exit int, refusal Refusal) (Outcome, error) {
	cmd := exec.Command("go", "tool", "test2json")
	cmd.Stdin = bytes.NewReader(output)
	events, err := cmd.Output()
	if err != nil {
		return Outcome{}, fmt.Errorf("go tool test2json: %w", err)
	}
	o, err := judgeEvents(events, refusal)
	if err != nil {
		return Outcome{}, err
	}
	if exit != 0 {
		o.Problems = append(o.Problems, Problem{Text: fmt.Sprintf("exit status %d", exit)})
	}
	if o.Passed+o.Skipped == 0 {
		o.Problems = append(o.Problems, Problem{Text: "no test passed or was skipped"})
	}
	return o, nil
}

// judgeEvents counts the tests in what test2json has written.
func judgeEvents(events []byte, refusal Refusal) (Outcome, error) {
	var o Outcome
	said := map[string]string{}
	d := json.NewDecoder(bytes.NewReader(events))
	for {
		var e struct{ Action, Test, Output string }
		if err := d.Decode(&e); err == io.EOF {
			return o, nil
		} else if err != nil {
			return o, fmt.Errorf("output of test2json: %w", err)
		}
		if e.Test == "" {
			continue
		}
		switch e.Action {
		case "output":
			said[e.Test] += e.Output
		case "pass":
			o.Passed++
		case "fail":
			o.Failed++
			o.Problems = append(o.Problems, Problem{e.Test, "failed:\n" + said[e.Test]})
		case "skip":
			o.Skipped++
			if !refusal.Explains(said[e.Test]) {
				o.Problems = append(o.Problems, Problem{e.Test, "was skipped without the expected reason:\n" + said[e.Test]})
			}
		}
	}
}
