package unixgram

import (
	"testing"
	"time"
)

func TestPausesGrowUpToABoundAndStartAnewAfterASuccess(t *testing.T) {
	var b Backoff
	last := time.Duration(-1)
	for range 32 {
		pause := b.Next()
		if pause <= last && last != maxPause || pause > maxPause {
			t.Fatalf("%v after %v", pause, last)
		}
		last = pause
	}
	if last != maxPause {
		t.Errorf("the longest pause is %v, want %v", last, maxPause)
	}
	if b.Reset(); b.Next() != 0 {
		t.Error("a pause after a success")
	}
}
