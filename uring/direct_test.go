package uring

import (
	"testing"
	"time"
)

func TestSmallSendsAreMadeAtOnceWhereCallsAreCheap(t *testing.T) {
	for cost, want := range map[time.Duration]int{
		50 * time.Nanosecond:  cheapDirect,
		cheapCall:             cheapDirect,
		cheapCall + 1:         dearDirect,
		500 * time.Nanosecond: dearDirect,
	} {
		if got := directSize(cost); got != want {
			t.Errorf("directSize(%v) = %d, want %d", cost, got, want)
		}
	}
	if cost := callCost(); cost <= 0 {
		t.Errorf("a system call takes %v", cost)
	}
}
