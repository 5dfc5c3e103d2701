package uring

import (
	"errors"
	"syscall"
	"testing"
	"time"

	sys "github.com/iceber/iouring-go/syscall"
)

// kernelWith answers like a kernel that knows only the given setup flags.
func kernelWith(known uint32) func(uint32, *sys.IOURingParams) (int, syscall.Errno) {
	return func(_ uint32, p *sys.IOURingParams) (int, syscall.Errno) {
		const taskrun = sys.IORING_SETUP_TASKRUN_FLAG
		switch {
		case p.Flags&^known != 0,
			p.Flags&setupDeferTaskrun != 0 && p.Flags&setupSingleIssuer == 0,
			p.Flags&taskrun != 0 && p.Flags&(sys.IORING_SETUP_COOP_TASKRUN|setupDeferTaskrun) == 0:
			return -1, syscall.EINVAL
		}
		return 3, 0
	}
}

func TestSetupGivesUpExactlyTheFlagsTheKernelLacks(t *testing.T) {
	const base = sys.IORING_SETUP_R_DISABLED | sys.IORING_SETUP_CQSIZE | sys.IORING_SETUP_CLAMP
	known := uint32(base)
	var lacking []string
	for _, f := range setupLadder {
		known |= f.bit
	}
	for _, f := range setupLadder {
		if f.feature == CoopTaskrun {
			continue // it came together with the flag before it
		}
		r, err := climbDown(8, 16, nil, kernelWith(known))
		if err != nil {
			t.Fatalf("flags %#x: %v", known, err)
		}
		if got, want := r.params.Flags, known&^unusable(known); got != want {
			t.Errorf("kernel knows %#x: asked for %#x", want, got)
		}
		for _, name := range lacking {
			if !errors.Is(r.missing[name], syscall.EINVAL) {
				t.Errorf("kernel knows %#x: reason for no %s is %v", known, name, r.missing[name])
			}
		}
		if len(r.missing) != len(lacking) {
			t.Errorf("kernel knows %#x: missing %v, want %v", known, r.missing, lacking)
		}
		known &^= f.bit
		lacking = append(lacking, f.feature)
	}
}

// unusable returns the flag that has nothing to report on among known ones.
func unusable(known uint32) uint32 {
	if known&(sys.IORING_SETUP_COOP_TASKRUN|setupDeferTaskrun) == 0 {
		return sys.IORING_SETUP_TASKRUN_FLAG
	}
	return 0
}

func TestSetupReportsARefusalAtOnce(t *testing.T) {
	calls := 0
	_, err := climbDown(8, 16, nil, func(uint32, *sys.IOURingParams) (int, syscall.Errno) {
		calls++
		return -1, syscall.EPERM
	})
	if !errors.Is(err, syscall.EPERM) || calls != 1 {
		t.Fatalf("%d calls, %v", calls, err)
	}
}

func TestSetupLeavesOutWhatBuildsOnADisabledFlag(t *testing.T) {
	r, err := climbDown(8, 16, map[string]error{SingleIssuer: errDisabled, CoopTaskrun: errDisabled}, kernelWith(^uint32(0)))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{SingleIssuer, DeferTaskrun, CoopTaskrun, TaskrunFlag} {
		if r.missing[name] == nil {
			t.Errorf("no reason for the missing %s", name)
		}
	}
	if r.params.Flags&(setupDeferTaskrun|sys.IORING_SETUP_TASKRUN_FLAG) != 0 {
		t.Errorf("flags %#x", r.params.Flags)
	}
}

func TestARingThatFindsNoMemoryIsTriedSmallerAndLater(t *testing.T) {
	type size struct{ sq, cq uint32 }
	for _, c := range []struct {
		name   string
		fits   func(s size, pauses int) bool
		due    int // how many pauses there is reason for
		want   size
		pauses int
		err    error
	}{
		{"it fits", func(size, int) bool { return true }, 0, size{512, 8192}, 0, nil},
		{"a quarter fits", func(s size, _ int) bool { return s.cq <= 2048 }, 0, size{128, 2048}, 0, nil},
		{"memory comes back", func(_ size, n int) bool { return n == 3 }, 5, size{leastSQ, leastCQ}, 3, nil},
		{"none comes back", func(size, int) bool { return false }, 5, size{leastSQ, leastCQ}, 5, syscall.ENOMEM},
		{"none can come back", func(size, int) bool { return false }, 0, size{leastSQ, leastCQ}, 0, syscall.ENOMEM},
		{"rings are closed all the time", func(size, int) bool { return false }, 1000, size{leastSQ, leastCQ}, lockTries, syscall.ENOMEM},
	} {
		var got size
		pauses := 0
		_, err := withinLimit(512, 8192, func() bool {
			due := pauses < c.due
			if due {
				pauses++
			}
			return due
		}, func(sq, cq uint32) (setupResult, error) {
			if got = (size{sq, cq}); c.fits(got, pauses) {
				return setupResult{}, nil
			}
			return setupResult{}, syscall.ENOMEM
		})
		if got != c.want || pauses != c.pauses || !errors.Is(err, c.err) {
			t.Errorf("%s: got %v after %d pauses, %v; want %v after %d, %v", c.name, got, pauses, err, c.want, c.pauses, c.err)
		}
	}
}

func TestWhatWasClosedLongAgoIsNotWaitedFor(t *testing.T) {
	longAgo := int64(time.Since(began) - time.Hour)
	lastClose.Store(longAgo)
	if awaitClosed() {
		t.Error("it waits for a ring that was closed an hour ago")
	}
	b, err := New(nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if lastClose.Load() == longAgo {
		t.Error("Close is not noticed")
	}
}
