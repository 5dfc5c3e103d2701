package loop

import (
	"testing"
)

// restorePolicy puts the process's policy back when the test ends.
func restorePolicy(t testing.TB) {
	before := EventLoopPolicy()
	t.Cleanup(func() { SetEventLoopPolicy(before) })
	SetEventLoopPolicy(nil)
}

func TestThereIsNoCurrentLoopUnlessOneIsSet(t *testing.T) {
	restorePolicy(t)
	forEachBackend(t, func(t *testing.T, l *Loop) {
		_, err := EventLoop()
		wantErr(t, "EventLoop", err, ErrNoEventLoop)
		SetEventLoop(l)
		if got, err := EventLoop(); got != l || err != nil {
			t.Errorf("EventLoop: %v, %v", got, err)
		}
		_, err = RunningLoop()
		wantErr(t, "RunningLoop", err, ErrNoRunningLoop)
		SetEventLoop(nil)
		_, err = EventLoop()
		wantErr(t, "EventLoop after SetEventLoop(nil)", err, ErrNoEventLoop)
	})
}

func TestARunningLoopBeatsThePolicy(t *testing.T) {
	restorePolicy(t)
	forEachBackend(t, func(t *testing.T, l *Loop) {
		other := newTestLoop(t, l.Backend().Name())
		SetEventLoop(other)
		defer SetEventLoop(nil)
		runMain(t, l, func(co *Coro) error {
			if got, err := EventLoop(); got != l || err != nil {
				t.Errorf("in a task EventLoop is %v, %v", got, err)
			}
			SetEventLoop(nil)
			if got, err := RunningLoop(); got != l || err != nil {
				t.Errorf("RunningLoop after SetEventLoop(nil) is %v, %v", got, err)
			}
			SetEventLoop(other)
			return nil
		})
		if got, err := EventLoop(); got != other || err != nil {
			t.Errorf("after the run EventLoop is %v, %v", got, err)
		}
	})
}

func TestAnotherGoroutineDoesNotSeeTheRunningLoop(t *testing.T) {
	restorePolicy(t)
	forEachBackend(t, func(t *testing.T, l *Loop) {
		runMain(t, l, func(co *Coro) error {
			errs := make(chan error)
			go func() {
				_, err := EventLoop()
				errs <- err
			}()
			wantErr(t, "EventLoop", <-errs, ErrNoEventLoop)
			return nil
		})
	})
}

func TestNewEventLoopsAreDistinctAndNotCurrent(t *testing.T) {
	restorePolicy(t)
	var loops [2]*Loop
	for i := range loops {
		l, err := EventLoopPolicy().NewEventLoop()
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		loops[i] = l
	}
	if loops[0] == loops[1] || loops[0] == nil || loops[0].IsRunning() {
		t.Errorf("new loops: %v", loops)
	}
	_, err := EventLoop()
	wantErr(t, "EventLoop", err, ErrNoEventLoop)
}

// emptyPolicy breaks the rule that there is a loop or an error.
type emptyPolicy struct{ DefaultPolicy }

func (*emptyPolicy) EventLoop() (*Loop, error) { return nil, nil }

// countingPolicy counts the loops that it makes, which is none if nothing is set.
type countingPolicy struct {
	DefaultPolicy
	nothing bool
	made    int
}

func (p *countingPolicy) NewEventLoop() (*Loop, error) {
	if p.nothing {
		return nil, nil
	}
	p.made++
	return p.DefaultPolicy.NewEventLoop()
}

func TestRunWithoutOptionsAsksThePolicyForItsLoop(t *testing.T) {
	restorePolicy(t)
	p := &countingPolicy{}
	SetEventLoopPolicy(p)
	if err := Run(func(*Coro) error { return nil }); err != nil || p.made != 1 {
		t.Errorf("Run: %v, the policy made %d loops", err, p.made)
	}
	if err := Run(func(*Coro) error { return nil }, WithBackend("epoll")); err != nil || p.made != 1 {
		t.Errorf("Run with an option: %v, the policy made %d loops", err, p.made)
	}
	p.nothing = true
	wantErr(t, "Run without a loop", Run(func(*Coro) error { return nil }), ErrNoEventLoop)
}

func TestThePolicyCanBeReplacedAndRestored(t *testing.T) {
	restorePolicy(t)
	if EventLoopPolicy() != EventLoopPolicy() {
		t.Error("the default policy changes from call to call")
	}
	mine := &emptyPolicy{}
	SetEventLoopPolicy(mine)
	if EventLoopPolicy() != Policy(mine) {
		t.Errorf("the policy is %T", EventLoopPolicy())
	}
	_, err := EventLoop()
	wantErr(t, "EventLoop of a policy that returns nil", err, ErrNoEventLoop)
	SetEventLoopPolicy(nil)
	if _, ok := EventLoopPolicy().(*DefaultPolicy); !ok {
		t.Errorf("after the reset the policy is %T", EventLoopPolicy())
	}
}
