package loop

import (
	"fmt"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"
)

// threads knows the loop of every thread that a loop owns.
var threads struct {
	sync.RWMutex
	loops map[int32]*Loop
}

// RunningLoop returns the loop that is running in the calling thread, that is,
// the one whose callback or task calls it, or ErrNoRunningLoop
// (asyncio.get_running_loop). It may be called from any goroutine.
func RunningLoop() (*Loop, error) {
	if l := loopOfThread(); l != nil && l.running.Load() {
		return l, nil
	}
	return nil, ErrNoRunningLoop
}

// loopOfThread asks for the thread while none can become a loop's: the calling
// goroutine may be moved, and the thread that it was on be that of a new loop.
func loopOfThread() *Loop {
	threads.RLock()
	defer threads.RUnlock()
	return threads.loops[int32(unix.Gettid())]
}

// onThread reports whether the caller is on the loop's thread.
func (l *Loop) onThread() bool { return l.tid.Load() == int32(unix.Gettid()) }

// onLoop runs fn on the loop's goroutine, which it starts the first time, and
// waits for it. A panic of fn is passed on.
func (l *Loop) onLoop(fn func()) {
	if l.requests == nil {
		l.requests, l.answers, l.ended = make(chan func()), make(chan any), make(chan struct{})
		go l.own(false)
	}
	l.requests <- fn
	if r := <-l.answers; r != nil {
		panic(r)
	}
}

// own is the loop's goroutine: it is locked to its thread and does what it is
// asked to until the loop is closed.
func (l *Loop) own(again bool) {
	if !again {
		runtime.LockOSThread()
		l.register()
	}
	done := false
	defer func() {
		if !done {
			// A task called runtime.Goexit, which ends this goroutine as soon as
			// its deferred functions return. The ring belongs to this thread, so
			// the loop goes on inside one of them.
			l.own(true)
		}
	}()
	if again { // behind the defer, for there may be another Goexit
		l.resumeAfterGoexit()
	}
	for fn := range l.requests {
		l.answer(fn)
	}
	done = true
	l.unregister()
	close(l.ended)
}

// answer runs one request and says that it is done, or with which panic.
func (l *Loop) answer(fn func()) {
	l.request = fn
	ended := false
	defer func() {
		if r := recover(); r != nil || ended {
			// Not before: after a Goexit the run goes on, and ends if it was to.
			l.request = nil
			l.ranOut()
			l.answers <- r
		}
	}()
	fn()
	ended = true
}

// resumeAfterGoexit ends the request during which a task called
// runtime.Goexit: the run goes on, from the next turn.
func (l *Loop) resumeAfterGoexit() {
	l.current = nil
	l.scope = l.base
	if l.request != nil {
		l.answer(l.request)
	}
}

func (l *Loop) register() {
	l.tid.Store(int32(unix.Gettid()))
	threads.Lock()
	defer threads.Unlock()
	if threads.loops == nil {
		threads.loops = map[int32]*Loop{}
	}
	threads.loops[l.tid.Load()] = l
}

func (l *Loop) unregister() {
	threads.Lock()
	defer threads.Unlock()
	delete(threads.loops, l.tid.Load())
	l.tid.Store(0)
}

// enable binds the backend to the loop's thread, on its first run. If nobody
// forced it and it turns out not to work, the other one takes its place.
func (l *Loop) enable() error {
	if l.enabled {
		return nil
	}
	err := l.be.Enable()
	if err != nil {
		if err = l.replaceBackend(err); err != nil {
			return fmt.Errorf("enable backend %s: %w", l.be.Name(), err)
		}
	}
	l.enabled = true
	return nil
}
