package loop

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strconv"
	"sync"
	"time"
)

// ErrExecutorShutdown is the error for work that is given to an executor after
// its shutdown.
var ErrExecutorShutdown = errors.New("cannot schedule new work after the executor was shut down")

// Executor runs functions that may block, away from the loop's thread
// (concurrent.futures.Executor). Its methods may be called from any goroutine.
type Executor interface {
	// Submit arranges for fn to be called once, on another goroutine. The error
	// is ErrExecutorShutdown after Shutdown.
	Submit(fn func()) (Job, error)
	// Shutdown refuses new work. What was submitted is still done; with wait it
	// returns when that is so. It is idempotent.
	Shutdown(wait bool)
}

// Job is a function that was given to an Executor.
type Job interface {
	// Cancel prevents the function from being called. It reports false if that
	// is too late. It may be called from any goroutine.
	Cancel() bool
}

// PoolExecutor is an Executor with a limited number of goroutines, which are
// started when there is work for them and stay until Shutdown
// (concurrent.futures.ThreadPoolExecutor). Its zero value is not usable.
type PoolExecutor struct {
	name string
	max  int

	mu        sync.Mutex
	more      sync.Cond // something was queued, or shut was set
	queue     []*poolJob
	cancelled int // how many of the queue were cancelled
	workers   int // running goroutines
	started   int // numbers their names
	idle      int
	shut      bool
	done      chan struct{} // closed when shut, and the last worker has ended
}

// poolJob is a queued function; fn is nil once it was taken or cancelled.
type poolJob struct {
	pool *PoolExecutor
	fn   func()
}

const (
	maxDefaultWorkers = 32
	defaultPoolName   = "ringloop"
)

// NewPoolExecutor returns a pool of at most workers goroutines; 0 and less mean
// asyncio's default, four more than there are processors but at most 32. Each
// goroutine carries the profiler label "executor" with the pool's name and a
// number, as in "ringloop_0"; an empty name means "ringloop".
func NewPoolExecutor(workers int, name string) *PoolExecutor {
	if workers <= 0 {
		workers = min(maxDefaultWorkers, runtime.NumCPU()+4)
	}
	if name == "" {
		name = defaultPoolName
	}
	p := &PoolExecutor{name: name, max: workers, done: make(chan struct{})}
	p.more.L = &p.mu
	return p
}

// Submit queues fn; see Executor. A nil fn is an ErrInvalidArgument. A panic of fn
// ends the process, as in any goroutine; RunInExecutor catches it.
func (p *PoolExecutor) Submit(fn func()) (Job, error) {
	if fn == nil {
		return nil, fmt.Errorf("executor %s: %w: the function is nil", p.name, ErrInvalidArgument)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shut {
		return nil, fmt.Errorf("executor %s: %w", p.name, ErrExecutorShutdown)
	}
	j := &poolJob{p, fn}
	p.queue = append(p.queue, j)
	if p.idle >= p.waiting() || p.workers == p.max {
		p.more.Signal()
	} else {
		p.startWorker()
	}
	return j, nil
}

// waiting returns how many functions are queued and were not cancelled. The lock
// is held.
func (p *PoolExecutor) waiting() int { return len(p.queue) - p.cancelled }

// startWorker adds a goroutine. The lock is held.
func (p *PoolExecutor) startWorker() {
	p.workers++
	label := p.name + "_" + strconv.Itoa(p.started)
	p.started++
	go pprof.Do(context.Background(), pprof.Labels("executor", label), func(context.Context) { p.work() })
}

// work does what is queued until the pool is shut down and empty.
func (p *PoolExecutor) work() {
	p.mu.Lock()
	defer func() { // also if a function calls runtime.Goexit
		p.workers--
		if p.waiting() > 0 && p.workers < p.max {
			p.startWorker()
		}
		p.endIfLast()
		p.mu.Unlock()
	}()
	for {
		for p.waiting() == 0 && !p.shut {
			p.idle++
			p.more.Wait()
			p.idle--
		}
		if p.waiting() == 0 {
			return
		}
		fn := p.take()
		p.mu.Unlock()
		p.call(fn)
	}
}

// take removes the first function that was not cancelled from the queue, which
// has one. The lock is held.
func (p *PoolExecutor) take() (fn func()) {
	for fn == nil {
		j := p.queue[0]
		p.queue[0] = nil
		p.queue = p.queue[1:]
		if fn = j.fn; fn == nil {
			p.cancelled--
		}
		j.fn = nil
	}
	return fn
}

// call runs fn without the lock and returns with it.
func (p *PoolExecutor) call(fn func()) {
	defer p.mu.Lock()
	fn()
}

// endIfLast notes that the pool was shut down and has no goroutines left. The
// lock is held.
func (p *PoolExecutor) endIfLast() {
	if p.shut && p.workers == 0 {
		close(p.done)
	}
}

// Cancel prevents the function from being called. It stays in the queue until a
// worker comes to it or half of the queue is cancelled: to look for it each time
// would make a flood of them, on the loop's thread, take the square of its number.
func (j *poolJob) Cancel() bool {
	p := j.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	if j.fn == nil {
		return false
	}
	j.fn = nil
	p.cancelled++
	if 2*p.cancelled >= len(p.queue) {
		p.queue = slices.DeleteFunc(p.queue, func(j *poolJob) bool { return j.fn == nil })
		p.cancelled = 0
	}
	return true
}

// Shutdown refuses new work; see Executor.
func (p *PoolExecutor) Shutdown(wait bool) {
	p.mu.Lock()
	if !p.shut {
		p.shut = true
		p.more.Broadcast()
		p.endIfLast()
	}
	p.mu.Unlock()
	if wait {
		<-p.done
	}
}

// executorState is the loop's default executor.
type executorState struct {
	pool *PoolExecutor // nil until it is needed or set
	own  bool          // the loop has made the pool, and nobody else knows it
	shut bool          // ShutdownDefaultExecutor was called
}

// RunInExecutor calls fn on a goroutine of ex and returns a future of its
// result (loop.run_in_executor). A nil ex means the loop's default executor.
// The function is submitted before RunInExecutor returns; what prevents that,
// such as ErrLoopClosed or ErrExecutorShutdown, is the future's error. A panic
// of fn becomes a *PanicError, a runtime.Goexit ErrGoexit. The context variables
// are not passed on.
//
// Cancelling the future withdraws fn if it has not been started; otherwise fn
// runs on, and its result is dropped, as it is when the loop is closed by then.
// Loop's thread only.
func RunInExecutor[T any](l *Loop, ex Executor, fn func() (T, error)) *Future[T] {
	f := CreateFuture[T](l)
	if fn == nil {
		f.fail(fmt.Errorf("RunInExecutor: %w: the function is nil", ErrInvalidArgument))
		return f
	}
	ex, err := l.executor(ex)
	if err != nil {
		f.fail(err)
		return f
	}
	job, err := ex.Submit(func() {
		var value T
		err := ErrGoexit // unless fn returns or panics
		defer func() {
			// A closed loop has nobody left to tell.
			_, _ = l.CallSoonThreadsafe(func() { f.complete(value, err) })
		}()
		value, err = protect(fn)
	})
	if err != nil {
		f.fail(fmt.Errorf("RunInExecutor: %w", err))
		return f
	}
	l.handOver()
	f.AddDoneCallback(func(AnyFuture) {
		if f.Cancelled() {
			job.Cancel()
		}
	})
	return f
}

// complete sets the outcome of a future that may have been cancelled meanwhile.
func (f *Future[T]) complete(value T, err error) {
	switch {
	case f.state != pending:
	case err != nil:
		f.fail(err)
	default:
		f.value = value
		f.settle(finished)
	}
}

// protect calls fn and turns a panic into an error.
func protect[T any](fn func() (T, error)) (value T, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = &PanicError{Value: r, Stack: debug.Stack()}
		}
	}()
	return fn()
}

// executor returns the executor that ex stands for, to RunInExecutor.
func (l *Loop) executor(ex Executor) (Executor, error) {
	if err := l.checkWait("RunInExecutor"); err != nil {
		return nil, err
	}
	if p, ok := ex.(*PoolExecutor); ok && p == nil {
		return nil, fmt.Errorf("RunInExecutor: %w: the executor is a nil *PoolExecutor", ErrInvalidArgument)
	}
	if ex != nil {
		return ex, nil
	}
	if l.defaultPool.shut {
		return nil, fmt.Errorf("RunInExecutor: default executor: %w", ErrExecutorShutdown)
	}
	if l.defaultPool.pool == nil {
		l.defaultPool.pool, l.defaultPool.own = NewPoolExecutor(0, ""), true
	}
	return l.defaultPool.pool, nil
}

// SetDefaultExecutor replaces the default executor (loop.set_default_executor).
// It must be a *PoolExecutor; anything else is refused with ErrInvalidArgument
// and changes nothing. A former one is not shut down, unless the loop has made it;
// Close and ShutdownDefaultExecutor shut down the new one. Loop's thread only.
func (l *Loop) SetDefaultExecutor(ex Executor) error {
	p, ok := ex.(*PoolExecutor)
	if !ok || p == nil {
		return fmt.Errorf("SetDefaultExecutor: %w: %T is not a *PoolExecutor", ErrInvalidArgument, ex)
	}
	if err := l.checkOpen("SetDefaultExecutor"); err != nil {
		return err
	}
	if l.defaultPool.own { // or its idle goroutines would never end
		l.defaultPool.pool.Shutdown(false)
	}
	l.defaultPool.pool, l.defaultPool.own = p, false
	return nil
}

// ShutdownDefaultExecutor shuts the loop's default executor down and waits
// until its work is done (loop.shutdown_default_executor). From its call on,
// the default executor, and with it DNS, answers ErrExecutorShutdown. A timeout
// of 0 waits without a limit; a positive one that passes is logged, and what
// still runs is left alone. The error is that of the wait, such as a
// CancelledError.
func ShutdownDefaultExecutor(co *Coro, timeout time.Duration) error {
	l := co.l
	if err := co.CheckCurrent("ShutdownDefaultExecutor"); err != nil {
		return err
	}
	l.defaultPool.shut = true
	p := l.defaultPool.pool
	if p == nil {
		return nil
	}
	joined := CreateFuture[struct{}](l)
	p.Shutdown(false)
	go func() {
		p.Shutdown(true)
		_, _ = l.CallSoonThreadsafe(func() { joined.complete(struct{}{}, nil) })
	}()
	wait := func() error {
		_, err := joined.Await(co)
		return err
	}
	if timeout <= 0 {
		return wait()
	}
	err := Timeout(co, timeout, wait)
	if errors.Is(err, ErrTimeout) {
		l.Logger().Warn(fmt.Sprintf("The default executor did not finish its work within %v", timeout))
		return nil
	}
	return err
}

// closeExecutor shuts the default executor down without waiting for it.
func (l *Loop) closeExecutor() {
	if l.defaultPool.pool != nil {
		l.defaultPool.pool.Shutdown(false)
		l.defaultPool.pool = nil
	}
}
