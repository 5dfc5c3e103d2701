package callcost

import (
	"testing"
	"time"
)

func TestDearIsWhatTakesLongerThanTheLimit(t *testing.T) {
	for cost, want := range map[time.Duration]bool{50 * time.Nanosecond: false, cheap: false, cheap + 1: true, 500 * time.Nanosecond: true} {
		if got := dear(cost); got != want {
			t.Errorf("dear(%v) = %v, want %v", cost, got, want)
		}
	}
}

func TestASystemCallTakesTime(t *testing.T) {
	if cost := measure(); cost <= 0 || cost > time.Second {
		t.Errorf("a system call takes %v", cost)
	}
}
