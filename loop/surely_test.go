package loop

import (
	"runtime"
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

func TestCallSurelyCallsWhateverAnotherDoes(t *testing.T) {
	for name, end := range map[string]func(){"panic": func() { panic("end") }, "Goexit": runtime.Goexit} {
		for _, run := range []bool{true, false} {
			for _, on := range backends {
				t.Run(name+" "+on, func(t *testing.T) {
					l := newTestLoop(t, on)
					l.SetExceptionHandler(func(*Loop, *ExceptionContext) {})
					runOnce(t, l) // it has a thread
					calls := 0
					l.CallSurely(end)
					l.CallSurely(func() { calls++ })
					for range 3 {
						if run {
							runOnce(t, l)
						}
					}
					if err := l.Close(); err != nil {
						t.Fatal(err)
					}
					if !l.CallSurely(func() { calls++ }) || calls != 2 {
						t.Errorf("%d calls", calls)
					}
				})
			}
		}
	}
}
