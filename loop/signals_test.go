package loop

import (
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// tap receives every signal besides the handlers under test. It keeps the
// default action away, which would end the test process, and tells when a
// signal has reached everybody, so that none is left for the next test.
type tap chan os.Signal

func newTap(t testing.TB, sigs ...os.Signal) tap {
	ch := make(tap, 100)
	signal.Notify(ch, sigs...)
	t.Cleanup(func() { signal.Stop(ch) })
	return ch
}

// kill sends a signal to this process and waits until os/signal has it.
func (ch tap) kill(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(os.Getpid(), sig); err != nil {
		t.Errorf("kill: %v", err)
		return
	}
	select {
	case <-ch:
	case <-time.After(stuck):
		t.Errorf("the process did not receive %v", sig)
	}
}

func addSignal(t testing.TB, l *Loop, sig syscall.Signal, fn func()) {
	t.Helper()
	if err := l.AddSignalHandler(sig, fn); err != nil {
		t.Fatalf("AddSignalHandler: %v", err)
	}
}

func TestASignalWakesASleepingLoopAndRunsItsHandlerOnTheLoop(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		tap := newTap(t, syscall.SIGUSR1)
		addSignal(t, l, syscall.SIGUSR1, func() {
			if !l.onThread() {
				t.Error("the handler runs on another thread")
			}
			l.Stop()
		})
		soon(t, l, func() {
			go tap.kill(t, syscall.SIGUSR1)
		})
		runLoop(t, l)
	})
}

func TestEverySignalDeliveredRunsTheHandler(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		tap := newTap(t, syscall.SIGUSR1)
		calls := 0
		addSignal(t, l, syscall.SIGUSR1, func() {
			if calls++; calls == 5 {
				l.Stop()
				return
			}
			tap.kill(t, syscall.SIGUSR1)
		})
		tap.kill(t, syscall.SIGUSR1)
		runLoop(t, l)
	})
}

func TestASignalHandlerKeepsItsContextFromCallToCall(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		tap := newTap(t, syscall.SIGUSR1)
		calls := NewContextVar[int]("calls")
		addSignal(t, l, syscall.SIGUSR1, func() {
			before, _ := calls.Get(l.CurrentContext())
			calls.Set(l.CurrentContext(), before+1)
			if before == 1 {
				l.Stop()
				return
			}
			go tap.kill(t, syscall.SIGUSR1)
		})
		soon(t, l, func() { go tap.kill(t, syscall.SIGUSR1) })
		runLoop(t, l)
	})
}

func TestASecondHandlerReplacesTheFirst(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		tap := newTap(t, syscall.SIGUSR1)
		addSignal(t, l, syscall.SIGUSR1, func() { t.Error("the replaced handler was called") })
		addSignal(t, l, syscall.SIGUSR1, l.Stop)
		tap.kill(t, syscall.SIGUSR1)
		runLoop(t, l)
	})
}

func TestAHandlerThatIsAddedAgainHandlesASignalThatWasIgnoredOrResetMeanwhile(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		for _, undo := range []func(...os.Signal){signal.Ignore, signal.Reset} {
			addSignal(t, l, syscall.SIGUSR1, func() { t.Error("the replaced handler was called") })
			undo(syscall.SIGUSR1)
			addSignal(t, l, syscall.SIGUSR1, l.Stop)
			newTap(t, syscall.SIGUSR1).kill(t, syscall.SIGUSR1)
			runLoop(t, l)
		}
	})
}

func TestBadSignalNumbersAreRefused(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		fn := func() {}
		for _, c := range []struct {
			sig       syscall.Signal
			add, drop error
		}{
			{0, ErrInvalidArgument, ErrInvalidArgument},
			{-1, ErrInvalidArgument, ErrInvalidArgument},
			{maxSignal + 1, ErrInvalidArgument, ErrInvalidArgument},
			{syscall.SIGKILL, ErrUncatchable, nil},
			{syscall.SIGSTOP, ErrUncatchable, nil},
			{syscall.SIGURG, ErrUncatchable, nil},
			{syscall.SIGPROF, ErrUncatchable, nil},
			{syscall.SIGSEGV, ErrUncatchable, nil},
			{33, ErrUncatchable, nil},
		} {
			wantErr(t, "AddSignalHandler of "+c.sig.String(), l.AddSignalHandler(c.sig, fn), c.add)
			was, err := l.RemoveSignalHandler(c.sig)
			wantErr(t, "RemoveSignalHandler of "+c.sig.String(), err, c.drop)
			if was {
				t.Errorf("RemoveSignalHandler of %v found a handler", c.sig)
			}
		}
		wantErr(t, "a nil handler", l.AddSignalHandler(syscall.SIGUSR1, nil), ErrInvalidArgument)
	})
}

func TestEverySignalThatIsNotRefusedReachesItsHandler(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		for sig := syscall.Signal(1); sig <= maxSignal; sig++ {
			if err := l.AddSignalHandler(sig, l.Stop); err != nil {
				wantErr(t, "AddSignalHandler of "+sig.String(), err, ErrUncatchable)
				continue
			}
			newTap(t, sig).kill(t, sig)
			if t.Failed() {
				return
			}
			runLoop(t, l)
			if was, err := l.RemoveSignalHandler(sig); !was || err != nil {
				t.Errorf("RemoveSignalHandler of %v: %v, %v", sig, was, err)
			}
		}
	})
}

func TestRemovingAnUnsetHandlerReturnsFalse(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		newTap(t, syscall.SIGUSR1)
		for _, want := range []bool{false, true, false} {
			if want {
				addSignal(t, l, syscall.SIGUSR1, func() {})
			}
			if was, err := l.RemoveSignalHandler(syscall.SIGUSR1); was != want || err != nil {
				t.Errorf("RemoveSignalHandler: %v, %v, want %v", was, err, want)
			}
		}
	})
}

func TestAHandlerCanRemoveOthersAndTheyRunNoMore(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		tap := newTap(t, syscall.SIGUSR1, syscall.SIGUSR2)
		var calls []string
		addSignal(t, l, syscall.SIGUSR1, func() { calls = append(calls, "removed") })
		addSignal(t, l, syscall.SIGUSR2, func() {
			calls = append(calls, "remover")
			if was, err := l.RemoveSignalHandler(syscall.SIGUSR1); !was || err != nil {
				t.Errorf("RemoveSignalHandler: %v, %v", was, err)
			}
			tap.kill(t, syscall.SIGUSR1)
			addSignal(t, l, syscall.SIGUSR2, l.Stop)
			tap.kill(t, syscall.SIGUSR2)
		})
		tap.kill(t, syscall.SIGUSR2)
		runLoop(t, l)
		if want := []string{"remover"}; !slices.Equal(calls, want) {
			t.Errorf("called: %v, want %v", calls, want)
		}
	})
}

func TestAHandlerRemovedAfterTheDeliveryIsNotCalled(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		newTap(t, syscall.SIGUSR1)
		h := &signalHandler{l: l, sig: syscall.SIGUSR1, ch: make(chan os.Signal), fn: func() { t.Error("called") }}
		l.signals = map[syscall.Signal]*signalHandler{syscall.SIGUSR1: h}
		if _, err := l.CallSoonThreadsafe(h.call); err != nil {
			t.Fatal(err)
		}
		if was, err := l.RemoveSignalHandler(syscall.SIGUSR1); !was || err != nil {
			t.Errorf("RemoveSignalHandler: %v, %v", was, err)
		}
		runOnce(t, l)
	})
}

func TestSeveralLoopsHandleTheSameSignal(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		tap := newTap(t, syscall.SIGUSR1)
		other := newTestLoop(t, l.Backend().Name())
		for _, each := range []*Loop{l, other} {
			addSignal(t, each, syscall.SIGUSR1, each.Stop)
		}
		tap.kill(t, syscall.SIGUSR1)
		runLoop(t, l)
		runLoop(t, other)
		// Removing one leaves the other.
		if was, err := l.RemoveSignalHandler(syscall.SIGUSR1); !was || err != nil {
			t.Errorf("RemoveSignalHandler: %v, %v", was, err)
		}
		tap.kill(t, syscall.SIGUSR1)
		runLoop(t, other)
	})
}

func TestCloseRemovesTheSignalHandlers(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		tap := newTap(t, syscall.SIGUSR1)
		addSignal(t, l, syscall.SIGUSR1, func() { t.Error("called on a closed loop") })
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if len(l.signals) != 0 {
			t.Errorf("%d handlers are left", len(l.signals))
		}
		tap.kill(t, syscall.SIGUSR1)
		wantErr(t, "AddSignalHandler", l.AddSignalHandler(syscall.SIGUSR1, func() {}), ErrLoopClosed)
		if was, err := l.RemoveSignalHandler(syscall.SIGUSR1); was || err != nil {
			t.Errorf("RemoveSignalHandler: %v, %v", was, err)
		}
	})
}

func TestASignalToAChildDoesNotReachTheHandler(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		tap := newTap(t, syscall.SIGUSR1)
		calls := 0
		addSignal(t, l, syscall.SIGUSR1, func() { calls++; l.Stop() })
		child := exec.Command("sleep", "60")
		if err := child.Start(); err != nil {
			t.Skipf("no child process to send a signal to: %v", err)
		}
		if err := child.Process.Signal(syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		if err := child.Wait(); err == nil {
			t.Error("the child did not get the signal")
		}
		runOnce(t, l)
		if calls != 0 {
			t.Error("the child's signal reached the handler")
		}
		tap.kill(t, syscall.SIGUSR1)
		runLoop(t, l)
		if calls != 1 {
			t.Errorf("%d calls for one signal", calls)
		}
	})
}

func TestAPanicInASignalHandlerIsReported(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		tap := newTap(t, syscall.SIGUSR1)
		var reported []error
		l.SetExceptionHandler(func(_ *Loop, c *ExceptionContext) {
			reported = append(reported, c.Exception)
			l.Stop()
		})
		addSignal(t, l, syscall.SIGUSR1, func() { panic("broken handler") })
		tap.kill(t, syscall.SIGUSR1)
		runLoop(t, l)
		if len(reported) != 1 || reported[0].Error() != "panic: broken handler" {
			t.Errorf("reported: %v", reported)
		}
	})
}

func TestDebugModeDescribesASignalHandlerAndNotTheLibrary(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		tap := newTap(t, syscall.SIGUSR1)
		l.SetDebug(true)
		l.SetSlowCallbackDuration(time.Nanosecond)
		log, reports := logTo(l), collectReports(l)
		addSignal(t, l, syscall.SIGUSR1, func() { l.Stop(); panic("broken handler") })
		tap.kill(t, syscall.SIGUSR1)
		runLoop(t, l)
		if len(*reports) != 1 {
			t.Fatalf("%d reports", len(*reports))
		}
		if s := (*reports)[0].Handle.String(); !strings.Contains(s, "TestDebugMode") || !strings.Contains(s, "signals_test.go:") {
			t.Errorf("the report has %s", s)
		}
		if s := log.String(); !strings.Contains(s, "Executing "+(*reports)[0].Handle.String()) {
			t.Errorf("the log of slow callbacks is %s", s)
		}
	})
}

// A signal handler must not keep a system call of the loop from being resumed.
func TestSignalsDoNotDisturbASleep(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		tap := newTap(t, syscall.SIGUSR1)
		const sleep = 30 * time.Millisecond
		calls := 0
		addSignal(t, l, syscall.SIGUSR1, func() {
			if calls++; calls < 50 {
				tap.kill(t, syscall.SIGUSR1)
			}
		})
		tap.kill(t, syscall.SIGUSR1)
		start := l.Time()
		runMain(t, l, func(co *Coro) error { return Sleep(co, sleep) })
		if took := l.Time() - start; took < sleep {
			t.Errorf("the sleep took %v", took)
		}
	})
}
