package linger

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func never() bool  { return false }
func always() bool { return true }

// looksIn returns in how many of n sleeps l looks out, for something that
// never arrives.
func looksIn(l *Lookout, n int) (looks int) {
	for range n {
		looked := false
		l.For(-1, func() bool { looked = true; return false })
		if looked {
			looks++
		}
	}
	return looks
}

func TestLookingInVainBecomesRare(t *testing.T) {
	l := Lookout{allowed: true}
	const perTrial = int(budget/limit) + 1
	if n := looksIn(&l, perTrial+minSkip); n == 0 || n > perTrial {
		t.Errorf("%d looks in the first %d sleeps, with at most %d in a trial", n, perTrial+minSkip, perTrial)
	}
	looksIn(&l, 4*maxSkip)
	if n := looksIn(&l, 2*maxSkip); n == 0 || n > 2*perTrial {
		t.Errorf("%d looks in %d sleeps later on, with at most %d in a trial", n, 2*maxSkip, perTrial)
	}
}

func TestLookingGoesOnWhileItPays(t *testing.T) {
	l := Lookout{allowed: true}
	for i := range 10 * trial {
		l.learn(budget / trial)
		if l.left > 0 {
			t.Fatalf("no look after %d that took as long as they may", i+1)
		}
	}
}

func TestOneTrialThatPaysMakesUpForMany(t *testing.T) {
	l := Lookout{allowed: true, skip: maxSkip}
	for range trial {
		l.learn(0)
	}
	for range budget/limit + 1 {
		l.learn(limit)
	}
	if l.left != minSkip {
		t.Errorf("%d sleeps without looks, not %d", l.left, minSkip)
	}
}

func TestForTellsWhatIsLeft(t *testing.T) {
	// Each look has a Lookout of its own, for one that takes long forbids the next.
	fresh := func() *Lookout { return &Lookout{allowed: true} }
	if left, found := fresh().For(time.Hour, always); !found || left <= 0 || left > time.Hour {
		t.Errorf("something is there: %v, %v", left, found)
	}
	if left, found := fresh().For(time.Hour, never); found || left >= time.Hour || left <= 0 {
		t.Errorf("nothing comes within an hour: %v, %v", left, found)
	}
	if left, found := fresh().For(time.Nanosecond, never); found || left != 0 {
		t.Errorf("nothing comes within a nanosecond: %v, %v", left, found)
	}
	if left, found := fresh().For(-1, never); found || left >= 0 {
		t.Errorf("nothing ever comes: %v, %v", left, found)
	}
	if left, found := fresh().For(0, always); found || left != 0 {
		t.Errorf("no time to look: %v, %v", left, found)
	}
	var none Lookout
	if left, found := none.For(time.Hour, always); found || left != time.Hour {
		t.Errorf("looks that are not allowed: %v, %v", left, found)
	}
}

func TestRationsAreNoticed(t *testing.T) {
	const none, half = "max 100000\n", "50000 100000\n"
	for _, c := range []struct {
		name, membership string
		limits           map[string]string // by group
		want             bool
	}{
		{"no groups", "", nil, false},
		{"no limit", "0::/a.slice/b\n", map[string]string{"a.slice/b": none, "a.slice": none}, false},
		{"a limit", "1:name=systemd:/x\n0::/a.slice/b\n", map[string]string{"a.slice/b": half, "a.slice": none}, true},
		{"a limit above", "0::/a.slice/b\n", map[string]string{"a.slice/b": none, "a.slice": half}, true},
		{"a limit beside", "0::/a.slice/b\n", map[string]string{"a.slice/b": none, "c": half}, false},
		{"a container's own root", "0::/\n", map[string]string{"": half}, true},
		{"a container that sees the host's names", "0::/system.slice/c.scope\n", map[string]string{"": half}, true},
		{"names above the root", "0::/../../c\n", map[string]string{"": half}, true},
	} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, "membership"), c.membership)
		root := filepath.Join(dir, "root")
		for group, limit := range c.limits {
			write(t, filepath.Join(root, group, "cpu.max"), limit)
		}
		if got := rationed(filepath.Join(dir, "membership"), root); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	if rationed(filepath.Join(t.TempDir(), "none"), t.TempDir()) {
		t.Error("files that are not there ration the time")
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
