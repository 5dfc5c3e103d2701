package loop

import (
	"fmt"
	"os"
	"reflect"
	"runtime"
	"strings"
	"time"
)

const (
	defaultSlowCallback = 100 * time.Millisecond
	debugStackDepth     = 10
)

func debugFromEnv() bool {
	return os.Getenv("RINGLOOP_DEBUG") != "" || os.Getenv("PYTHONASYNCIODEBUG") != ""
}

// SetDebug switches debug mode (loop.set_debug), from any goroutine and at any
// time. RINGLOOP_DEBUG=1 in the environment does the same for every loop. Debug
// mode notes where callbacks, futures and tasks were made, logs callbacks, steps
// of tasks and calls of protocols that take SlowCallbackDuration or longer, and, at
// slog.LevelDebug, what becomes of transports, servers and processes, and refuses a
// goroutine that is not the loop's when it schedules, watches, waits, stops the
// loop, completes or cancels a future or task, writes to a transport, or closes a
// transport, server or socket: with ErrWrongThread, or, where there is no error to
// return, by doing nothing and logging that. What else such a goroutine does wrong
// the race detector sees.
func (l *Loop) SetDebug(on bool) { l.debug.Store(on) }

// Debug reports whether debug mode is on (loop.get_debug). It may be called from
// any goroutine.
func (l *Loop) Debug() bool { return l.debug.Load() }

// SetSlowCallbackDuration sets how long a callback may take in debug mode
// before that is logged, 100 ms at first (loop.slow_callback_duration).
func (l *Loop) SetSlowCallbackDuration(d time.Duration) { l.slow = d }

// SlowCallbackDuration returns the limit for callbacks in debug mode.
func (l *Loop) SlowCallbackDuration() time.Duration { return l.slow }

// origin is what debug mode knows about a callback, future or task.
type origin struct {
	what string
	pcs  [debugStackDepth]uintptr
	n    int
	// timer is the time that a timer was scheduled for, nil for others.
	timer *time.Duration
}

// originOf notes the caller's stack and the name of the function fn, which may
// be nil.
func (l *Loop) originOf(fn any) *origin {
	o := &origin{}
	if fn != nil {
		if f := runtime.FuncForPC(reflect.ValueOf(fn).Pointer()); f != nil {
			o.what = f.Name()
		}
	}
	o.n = runtime.Callers(3, o.pcs[:])
	return o
}

// String names the function and the place that scheduled it, with a leading
// space; it is empty outside debug mode.
func (o *origin) String() string {
	if o == nil {
		return ""
	}
	s := ""
	if o.what != "" {
		s = " " + o.what
	}
	if f, ok := o.creator(); ok {
		s += fmt.Sprintf(" created at %s:%d", f.File, f.Line)
	}
	return s
}

// creator returns the first frame that is not of this package.
func (o *origin) creator() (runtime.Frame, bool) {
	frames := runtime.CallersFrames(o.pcs[:o.n])
	for {
		f, more := frames.Next()
		if f.File != "" && !ownFrame(f) {
			return f, true
		}
		if !more {
			return f, false
		}
	}
}

func ownFrame(f runtime.Frame) bool {
	return strings.HasPrefix(f.Function, "github.com/seed-80cfe818/ringloop/loop.") && !strings.HasSuffix(f.File, "_test.go")
}

// trace formats the stack, one frame a line.
func (o *origin) trace() string {
	if o == nil {
		return ""
	}
	var b strings.Builder
	frames := runtime.CallersFrames(o.pcs[:o.n])
	for {
		f, more := frames.Next()
		fmt.Fprintf(&b, "%s\n\t%s:%d\n", f.Function, f.File, f.Line)
		if !more {
			return b.String()
		}
	}
}

// callTimed calls a callback and logs it if it was slow.
func (l *Loop) callTimed(h Handle, fn func(), sc scope) {
	start, before := time.Now(), l.handling
	l.handling = h.debug
	defer func() { l.handling = before }()
	l.callIn(h, fn, sc)
	l.logSlow(time.Since(start), h.String)
}

// stepTimed runs a step of a task and logs it if it was slow.
func (l *Loop) stepTimed(t *task) {
	start := time.Now()
	l.advance(t)
	l.logSlow(time.Since(start), t.String)
}

func (l *Loop) logSlow(took time.Duration, what func() string) {
	if took >= l.slow {
		// The logger is the program's.
		l.guarded(func() {
			l.Logger().Warn(fmt.Sprintf("Executing %s took %.3f seconds", what(), took.Seconds()))
		}, "Panic in the logger")
	}
}
