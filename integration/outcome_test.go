package integration

import (
	"slices"
	"strings"
	"testing"
)

// events is what test2json writes, one event a line.
func events(lines ...string) []byte {
	return []byte(strings.Join(lines, "\n"))
}

var byPolicy = Refusal{Words: []string{"operation not permitted", "seccomp"}}

func TestJudgeCountsTests(t *testing.T) {
	o, err := judgeEvents(events(
		`{"Action":"run","Test":"TestA"}`,
		`{"Action":"pass","Test":"TestA"}`,
		`{"Action":"run","Test":"TestB"}`,
		`{"Action":"output","Test":"TestB/x","Output":"    b_test.go:1: io_uring: operation not permitted (seccomp)\n"}`,
		`{"Action":"skip","Test":"TestB/x"}`,
		`{"Action":"pass","Test":"TestB"}`,
		`{"Action":"pass"}`,
	), byPolicy)
	if err != nil {
		t.Fatal(err)
	}
	if o.Passed != 2 || o.Failed != 0 || o.Skipped != 1 || len(o.Problems) > 0 {
		t.Errorf("got %v and %q", o, o.Problems)
	}
}

func TestJudgeReportsAFailureWithWhatItSaid(t *testing.T) {
	o, err := judgeEvents(events(
		`{"Action":"output","Test":"TestA","Output":"a_test.go:1: it is broken\n"}`,
		`{"Action":"fail","Test":"TestA"}`,
	), byPolicy)
	if err != nil {
		t.Fatal(err)
	}
	if o.Failed != 1 || len(o.Problems) != 1 || o.Problems[0].Test != "TestA" || !strings.Contains(o.Problems[0].Text, "it is broken") {
		t.Errorf("got %v and %q", o, o.Problems)
	}
}

func TestJudgeAcceptsASkipForTheExpectedReasonOnly(t *testing.T) {
	for _, c := range []struct {
		said    string
		refusal Refusal
		want    bool
	}{
		{"operation not permitted, by seccomp", byPolicy, true},
		{"operation not permitted", byPolicy, false},
		{"function not implemented, by seccomp", byPolicy, false},
		{"operation not permitted, by seccomp", Refusal{}, false},
		{"", byPolicy, false},
	} {
		o, err := judgeEvents(events(
			`{"Action":"output","Test":"TestA","Output":"`+c.said+`"}`,
			`{"Action":"skip","Test":"TestA"}`,
		), c.refusal)
		if err != nil {
			t.Fatal(err)
		}
		if accepted := len(o.Problems) == 0; accepted != c.want {
			t.Errorf("%q under %q: accepted is %v, want %v", c.said, c.refusal.Words, accepted, c.want)
		}
	}
}

func TestJudgeReportsABinaryThatDied(t *testing.T) {
	o, err := Judge([]byte("panic: no\n"), 2, Refusal{})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(o.Problems, Problem{Text: "exit status 2"}) {
		t.Errorf("problems: %q, want the status among them", o.Problems)
	}
}

func TestJudgeReportsABinaryWithoutTests(t *testing.T) {
	o, err := Judge([]byte("PASS\n"), 0, Refusal{})
	if err != nil {
		t.Fatal(err)
	}
	if len(o.Problems) == 0 {
		t.Error("a binary without tests passed")
	}
}

func TestSuitesAndProgramsHavePathsOfTheirOwn(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range Suites {
		seen[s.Binary()] = true
	}
	for _, p := range slices.Concat(Programs, Examples) {
		seen[Program(p)] = true
	}
	if len(seen) != len(Suites)+len(Programs)+len(Examples) {
		t.Errorf("%d paths for %d suites, %d programs and %d examples", len(seen), len(Suites), len(Programs), len(Examples))
	}
}
