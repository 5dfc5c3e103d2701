package loop

import (
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/seed-80cfe818/ringloop/backend"
)

// Loop is an event loop (asyncio.AbstractEventLoop). Make one with
// NewEventLoop, run it with RunForever or RunUntilComplete, and close it.
type Loop struct {
	be     backend.Backend
	choice choice
	logger *slog.Logger
	epoch  time.Time

	// What runs on the loop's thread, or before it runs.
	ready         queue
	timers        timerHeap
	due           []*callback
	freeCallbacks []*callback
	idleWorkers   []*worker
	turnEnders    []TurnEnder
	turnEnded     int           // how many of them were called
	early         []*backend.Op // submitted while the loop did not run
	scope         scope
	base          scope // what scope was when the run began
	current       *task
	starting      Starter // of the task that has just been suspended
	tasks         *task
	taskCount     int
	taskFactory   TaskFactory
	handler       ExceptionHandler
	exit          *LoopExit
	onTurn        bool // between entering and leaving a run, on the thread
	turnCount     uint64
	yielded       time.Duration // when yield has last done so
	handedOver    bool          // another goroutine is to run before the loop sleeps
	stopping      bool
	enabled       bool
	request       func() // what the loop's goroutine was asked to do
	slow          time.Duration

	// What other goroutines may touch.
	debug    atomic.Bool
	running  atomic.Bool
	closed   atomic.Bool
	tid      atomic.Int32
	mu       sync.Mutex // guards inbox, sure, released, and the changes of running and closed
	inbox    []*callback
	sure     []func()    // see CallSurely
	released bool        // nothing is called on the loop's thread any more
	posted   atomic.Bool // inbox is not empty
	requests chan func() // to the loop's goroutine, nil before the first run
	answers  chan any
	ended    chan struct{} // closed when the loop's goroutine has ended
	unclosed runtime.Cleanup
	// afterClose is held during a call of CallSurely on a closed loop.
	afterClose sync.Mutex

	parts
}

// Option changes how NewEventLoop makes a loop.
type Option func(*options)

type options struct {
	backend string
	logger  *slog.Logger
	factory func() (backend.Backend, error)
}

// WithBackend forces a backend: "auto", "io_uring" or "epoll". It beats the
// environment variable RINGLOOP_BACKEND, to which "" leaves the choice. If a forced
// one cannot be had, NewEventLoop fails and says why.
func WithBackend(name string) Option { return func(o *options) { o.backend = name } }

// WithBackendFactory makes the loop use a backend of your own, which package
// backendtest proves to be one. NewEventLoop calls f once, and fails with its error.
// The backend belongs to the loop from then on, which closes it.
func WithBackendFactory(f func() (backend.Backend, error)) Option {
	return func(o *options) { o.factory = f }
}

// WithLogger sends the loop's messages to logger instead of slog.Default(). See
// DefaultExceptionHandler for what that changes.
func WithLogger(logger *slog.Logger) Option { return func(o *options) { o.logger = logger } }

// NewEventLoop returns a new loop that is not running (asyncio.new_event_loop).
// Debug mode is on if RINGLOOP_DEBUG or PYTHONASYNCIODEBUG is not empty in the
// environment. The caller must Close it. It may be called from any goroutine.
//
// The error is ErrInvalidArgument for a nil option or a name that is no
// backend's, a *backend.UnavailableError that says why a backend cannot be had,
// or that of the function of WithBackendFactory.
func NewEventLoop(opts ...Option) (*Loop, error) {
	var o options
	for i, opt := range opts {
		if opt == nil {
			return nil, fmt.Errorf("new event loop: %w: option %d is nil", ErrInvalidArgument, i)
		}
		opt(&o)
	}
	l := &Loop{logger: o.logger, epoch: time.Now(), slow: defaultSlowCallback}
	if err := l.chooseBackend(&o); err != nil {
		return nil, fmt.Errorf("new event loop: %w", err)
	}
	l.debug.Store(debugFromEnv())
	l.initParts()
	l.unclosed = runtime.AddCleanup(l, func(s *shell) { s.dropped() }, &shell{l.be, l.Logger()})
	return l, nil
}

// shell is what is left of a loop that nobody refers to any more. That is one
// that was never run: one that was is referred to by its goroutine.
type shell struct {
	be     backend.Backend
	logger *slog.Logger
}

// dropped releases what the loop held, for nobody has closed it. It runs on a
// goroutine of the garbage collector's.
func (s *shell) dropped() {
	s.logger.Warn("unclosed event loop", "backend", s.be.Name())
	if err := s.be.Close(); err != nil {
		s.logger.Error("close of an unclosed event loop", "error", err)
	}
}

// Backend returns the backend, for code that submits operations of its own; it
// belongs to the loop's thread.
func (l *Loop) Backend() backend.Backend { return l.be }

// Features reports what the loop's backend uses, and why not the rest. It may
// be called from any goroutine.
func (l *Loop) Features() backend.Features { return l.sharedBackend().Features() }

// sharedBackend is the backend for other goroutines than the loop's: the first
// run may replace it.
func (l *Loop) sharedBackend() backend.Backend {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.be
}

// Time returns the loop's clock: the time since the loop was made, by a
// monotonic clock (loop.time). It may be called from any goroutine.
func (l *Loop) Time() time.Duration { return time.Since(l.epoch) }

// IsRunning reports whether the loop is running (loop.is_running). It may be
// called from any goroutine.
func (l *Loop) IsRunning() bool { return l.running.Load() }

// IsClosed reports whether the loop was closed (loop.is_closed). It may be
// called from any goroutine.
func (l *Loop) IsClosed() bool { return l.closed.Load() }

// Logger returns the logger for messages about this loop. It may be called from
// any goroutine.
func (l *Loop) Logger() *slog.Logger {
	if l.logger != nil {
		return l.logger
	}
	return slog.Default()
}

// String describes the loop.
func (l *Loop) String() string {
	return fmt.Sprintf("<Loop %s running=%v closed=%v debug=%v>", l.sharedBackend().Name(), l.IsRunning(), l.IsClosed(), l.Debug())
}

// CallSoon queues fn for the next turn, first in, first out (loop.call_soon).
// It is called in a copy of the current context. A panic of fn goes to the
// exception handler. The error is ErrLoopClosed, ErrInvalidArgument if fn is
// nil, or, in debug mode, ErrWrongThread.
func (l *Loop) CallSoon(fn func()) (Handle, error) { return l.CallSoonContext(nil, fn) }

// CallSoonContext is CallSoon with the context in which fn is called; nil
// means a copy of the current one.
func (l *Loop) CallSoonContext(ctx *Context, fn func()) (Handle, error) {
	if err := l.checkCall("CallSoon", fn); err != nil {
		return Handle{}, err
	}
	cb := l.newCallback(fn, ctx)
	l.enqueue(cb)
	return Handle{cb, cb.gen, cb.debug}, nil
}

// CallSoonThreadsafe is CallSoon for any goroutine; it wakes the loop if that
// sleeps (loop.call_soon_threadsafe). The handle too may be used from any
// goroutine: its Cancel either wins completely or does nothing. The error is
// ErrLoopClosed, which callers that race with Close must expect, or
// ErrInvalidArgument. fn is called in an empty context.
func (l *Loop) CallSoonThreadsafe(fn func()) (Handle, error) {
	return l.CallSoonThreadsafeContext(nil, fn)
}

// CallSoonThreadsafeContext is CallSoonThreadsafe with the context in which fn
// is called, which from then on belongs to the loop; nil means an empty one.
func (l *Loop) CallSoonThreadsafeContext(ctx *Context, fn func()) (Handle, error) {
	if fn == nil {
		return Handle{}, fmt.Errorf("CallSoonThreadsafe: %w: the callback is nil", ErrInvalidArgument)
	}
	cb := &callback{loop: l, fn: fn, ctx: ctx, shared: new(atomic.Int32)}
	if l.debug.Load() {
		cb.debug = l.originOf(fn)
	}
	return l.post(cb)
}

// post hands a callback to the loop's thread.
func (l *Loop) post(cb *callback) (Handle, error) {
	l.mu.Lock()
	if l.closed.Load() {
		l.mu.Unlock()
		return Handle{}, fmt.Errorf("CallSoonThreadsafe: %w", ErrLoopClosed)
	}
	l.inbox = append(l.inbox, cb)
	l.posted.Store(true)
	wake := len(l.inbox) == 1
	if wake {
		// Under the lock, so that Close cannot release the backend meanwhile.
		l.be.Wake()
	}
	l.mu.Unlock()
	return Handle{cb, 0, cb.debug}, nil
}

// enqueue queues r for the next turn, behind what was posted before.
func (l *Loop) enqueue(r runnable) {
	if l.posted.Load() {
		l.drainInbox()
	}
	l.ready.push(r)
}

// drainInbox queues what other goroutines posted.
func (l *Loop) drainInbox() {
	l.mu.Lock()
	posted := l.inbox
	l.inbox = nil
	l.posted.Store(false)
	l.mu.Unlock()
	for _, cb := range posted {
		l.ready.push(cb)
	}
}

// checkCall reports why a callback cannot be scheduled.
func (l *Loop) checkCall(what string, fn func()) error {
	if fn == nil {
		return fmt.Errorf("%s: %w: the callback is nil", what, ErrInvalidArgument)
	}
	return l.checkOpen(what)
}

// checkOpen reports ErrLoopClosed and, in debug mode, the use of a running loop
// by another thread.
func (l *Loop) checkOpen(what string) error {
	if l.closed.Load() {
		return fmt.Errorf("%s: %w", what, ErrLoopClosed)
	}
	return l.CheckThread(what)
}

// checkWait is checkOpen for what a task waits for: on a closed loop it has only
// so many attempts.
func (l *Loop) checkWait(what string) error {
	if l.closed.Load() {
		return fmt.Errorf("%s: %w", what, l.closedError())
	}
	return l.CheckThread(what)
}

// CheckThread returns ErrWrongThread, wrapped with what was called, if the loop
// is running in debug mode and the caller is not on its thread. It is for
// packages whose objects belong to the loop's thread. It may be called from any
// goroutine.
func (l *Loop) CheckThread(what string) error {
	if l.debug.Load() && l.running.Load() && !l.onThread() {
		return fmt.Errorf("%s: %w", what, ErrWrongThread)
	}
	return nil
}

// Refuses is CheckThread for a call that has no error to return: it logs the
// error, with the caller's stack, and reports whether the call must do nothing.
func (l *Loop) Refuses(what string) bool {
	err := l.CheckThread(what)
	if err != nil {
		l.Logger().Error(err.Error(), "stack", string(debug.Stack()))
	}
	return err != nil
}
