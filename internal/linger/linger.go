// Package linger decides whether a backend looks out for events for a moment
// before it lets its thread sleep.
//
// A thread that sleeps has to be woken: by an interrupt of its processor, which
// on a virtual machine also leaves and enters the guest, and for which the one
// who sent the event pays, too. Where the next event comes sooner than that
// would take, as in a dialogue of request and answer, it is cheaper to stay
// awake.
package linger

import (
	"os"
	"path"
	"strings"
	"time"
)

const (
	// limit is how long one look lasts at most.
	limit = 50 * time.Microsecond
	// trial is a number of looks that are judged together, and budget how long
	// they may take: more than that, and sleeping is cheaper. A look may take
	// longer than the average that this allows for, because a peer that is
	// answered sooner soon answers sooner.
	trial  = 16
	budget = trial * 25 * time.Microsecond
	// minSkip and maxSkip bound for how many sleeps there are no looks after a
	// trial that took too long.
	minSkip, maxSkip = 16, 1024
)

// Lookout learns from the past whether looking out is worthwhile. The zero
// Lookout never looks out. It belongs to the backend's thread.
type Lookout struct {
	allowed bool
	looks   int           // of this trial
	spent   time.Duration // by them
	skip    int           // sleeps without looks after the last trial that failed
	left    int           // of those, how many are still to come
}

// New returns a Lookout that does look out, unless a control group rations the
// process's processor time: then it is to last for work.
func New() Lookout { return Lookout{allowed: !rationed("/proc/self/cgroup", "/sys/fs/cgroup")} }

// rationed reports whether the group that membership names, or one above it,
// has a limit of processor time in the hierarchy of version 2 at root. In a
// container the names above its own may be missing; root itself is its group then.
func rationed(membership, root string) bool {
	b, _ := os.ReadFile(membership)
	group := "/"
	for line := range strings.Lines(string(b)) {
		if name, ok := strings.CutPrefix(line, "0::"); ok {
			group = path.Clean("/" + strings.TrimSpace(name))
		}
	}
	for ; ; group = path.Dir(group) {
		limit, err := os.ReadFile(path.Join(root, group, "cpu.max"))
		if err == nil && !strings.HasPrefix(string(limit), "max") {
			return true
		}
		if group == "/" {
			return false
		}
	}
}

// For calls arrived again and again until it reports true, for at most 50 us
// and at most timeout, unless that is negative. It returns what is left of
// timeout. If looking out has been in vain lately, it returns at once.
func (l *Lookout) For(timeout time.Duration, arrived func() bool) (left time.Duration, found bool) {
	if !l.allowed || timeout == 0 {
		return timeout, false
	}
	if l.left > 0 {
		l.left--
		return timeout, false
	}
	most := limit
	if timeout > 0 {
		most = min(most, timeout)
	}
	start, spent := time.Now(), time.Duration(0)
	for !found && spent < most {
		found = arrived()
		spent = time.Since(start)
	}
	l.learn(spent)
	if timeout > 0 {
		timeout = max(timeout-spent, 0)
	}
	return timeout, found
}

// learn judges a trial when its looks or its budget are used up.
func (l *Lookout) learn(spent time.Duration) {
	l.looks++
	l.spent += spent
	switch {
	case l.spent > budget:
		l.skip = min(max(2*l.skip, minSkip), maxSkip)
		l.left = l.skip
	case l.looks == trial:
		l.skip = 0
	default:
		return
	}
	l.looks, l.spent = 0, 0
}
