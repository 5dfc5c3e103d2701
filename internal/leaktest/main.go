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
// descriptors, goroutines or operations in flight behind, it lists them on
// standard error and the exit status is 1. inFlight returns the number of
// operations in flight of the whole process; it may be nil.
func Main(m *testing.M, inFlight func() int) {
	before, err := Take()
	if err != nil {
		fmt.Fprintln(os.Stderr, "leaktest:", err)
		os.Exit(1)
	}
	code := m.Run()
	if code == 0 {
		code = report(before, inFlight)
	}
	os.Exit(code)
}

// report prints the leaks since before and returns the exit status.
func report(before *Snapshot, inFlight func() int) int {
	leaks := before.Leaks(patience)
	if inFlight != nil {
		if n := inFlight(); n != 0 {
			leaks = append(leaks, fmt.Sprintf("%d operations are in flight", n))
		}
	}
	if len(leaks) == 0 {
		return 0
	}
	fmt.Fprintf(os.Stderr, "FAIL: the tests left something behind:\n%s\n", strings.Join(leaks, "\n"))
	return 1
}
