package loop

import (
	"sync"
	"testing"
)

func TestCallSurelyCallsOnceWhateverTheLoopDoes(t *testing.T) {
	const callers, each = 4, 200
	for _, name := range backends {
		t.Run(name, func(t *testing.T) {
			l := newTestLoop(t, name)
			calls := 0 // no two calls overlap
			var wg sync.WaitGroup
			for range callers {
				wg.Go(func() {
					for range each {
						l.CallSurely(func() { calls++ })
					}
				})
			}
			for range 20 {
				l.Stop()
				if err := l.RunForever(); err != nil {
					t.Fatal(err)
				}
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			wg.Wait()
			if calls != callers*each {
				t.Errorf("%d calls of %d", calls, callers*each)
			}
		})
	}
}

func TestCallSurelyOnTheLoopsThreadCallsAtOnce(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		called, said := false, false
		if _, err := l.CallSoon(func() {
			said = l.CallSurely(func() { called = true })
			if !called || !said {
				t.Errorf("called: %v, said: %v", called, said)
			}
			l.Stop()
		}); err != nil {
			t.Fatal(err)
		}
		if err := l.RunForever(); err != nil {
			t.Fatal(err)
		}
	})
}
