package leaktest

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// patience is how long a leak may take to go away by itself: goroutines that
// are about to end, descriptors that a background goroutine closes.
const patience = time.Minute

// Main runs the tests of m and ends the process. If the tests passed but left
// descriptors or goroutines behind, it lists them on standard error and the exit
// status is 1.
func Main(m *testing.M) {
	before, err := Take()
	if err != nil {
		fmt.Fprintln(os.Stderr, "leaktest:", err)
		os.Exit(1)
	}
	code := m.Run()
	if code == 0 {
		code = report(before.Leaks(patience))
	}
	os.Exit(code)
}

// report prints the leaks and returns the exit status.
func report(leaks []string) int {
	if len(leaks) == 0 {
		return 0
	}
	fmt.Fprintf(os.Stderr, "FAIL: the tests left something behind:\n%s\n", strings.Join(leaks, "\n"))
	return 1
}
