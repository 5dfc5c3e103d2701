package loop

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
)

// unretrieved reports an error that nobody looked at, when its future is
// collected. It must not refer to the future.
type unretrieved struct {
	loop      *Loop
	exception error
	what      string // "Future" or "Task"
	future    string
	vars      *vars // of the task
	source    *origin
	seen      atomic.Bool
}

// watchFor arranges for a report of the future's error.
func (f *future) watchFor(err error) {
	r := &unretrieved{loop: f.loop, exception: err, what: "Future", future: fmt.Sprint(f.self), source: f.debug}
	if t := f.self.asTask(); t != nil {
		r.what, r.vars = "Task", t.variables()
	}
	f.report = r
	runtime.AddCleanup(f, (*unretrieved).send, r)
	if f.loop.debug.Load() {
		f.loop.unseen.add(r)
	}
}

// retrieved notes that somebody has looked at the future's error.
func (f *future) retrieved() {
	if f.report != nil {
		f.report.seen.Store(true)
		f.loop.unseen.remove(f.report)
	}
}

// send posts the report to the loop. It runs on a goroutine of the garbage
// collector's.
func (r *unretrieved) send() {
	if r.seen.Load() {
		return
	}
	// A closed loop has nobody left to tell.
	_, _ = r.loop.CallSoonThreadsafeContext(&Context{vars: r.vars}, r.tell)
}

// tell makes the report.
func (r *unretrieved) tell() {
	r.loop.unseen.remove(r)
	r.loop.CallExceptionHandler(&ExceptionContext{
		Message: r.what + " exception was never retrieved", Exception: r.exception,
		Future: r.future, SourceTraceback: r.source.trace(),
	})
}

// unseenReports are the reports that debug mode makes when the loop is closed,
// without waiting for the garbage collector.
type unseenReports struct {
	mu  sync.Mutex // the result of a run is looked at outside of it
	all map[*unretrieved]struct{}
}

func (u *unseenReports) add(r *unretrieved) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.all == nil {
		u.all = map[*unretrieved]struct{}{}
	}
	u.all[r] = struct{}{}
}

func (u *unseenReports) remove(r *unretrieved) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.all, r)
}

// tellUnseen makes the reports that are left when the loop is closed.
func (l *Loop) tellUnseen() {
	for {
		r := takeOne(&l.unseen.mu, &l.unseen.all)
		if r == nil {
			return
		}
		r.seen.Store(true)
		before := l.EnterContext(&Context{vars: r.vars})
		r.tell()
		l.LeaveContext(before)
	}
}
