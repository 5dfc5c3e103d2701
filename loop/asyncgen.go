package loop

import (
	"errors"
	"fmt"
	"runtime"
	"weak"
)

// ErrGeneratorExit is what the yield function of an asynchronous generator
// returns when the generator is to end (Python's GeneratorExit).
var ErrGeneratorExit = errors.New("generator exit")

// AsyncGen is an asynchronous generator: a function that produces values, and
// may wait between them. The function runs on a task of its own, which does not
// count among the loop's tasks, and only while somebody waits in Next or AClose,
// unless that task is cancelled, as by a Timeout in the function.
//
// The loop knows every generator that was begun and did not end: an open one is
// closed by ShutdownAsyncgens, and when nobody refers to it any more. All methods
// are for the loop's thread only.
type AsyncGen[T any] struct {
	core *genCore[T]
}

// genCore is the part of a generator that its task and the loop refer to. It
// does not refer to the AsyncGen, so that the garbage collector can tell when
// nobody uses that any longer.
type genCore[T any] struct {
	fn     func(co *Coro, yield func(T) error) error
	self   weak.Pointer[AsyncGen[T]]
	l      *Loop // nil until the first Next
	task   *Task[struct{}]
	co     *Coro // of the task
	waiter *Coro // of the task in Next or AClose
	value  T
	has    bool // value was yielded and not taken
	state  genState

	closing bool // yield returns ErrGeneratorExit
	exiting bool // yield has done so
	ignored bool // the function yielded nevertheless
	told    bool // the function's error was returned
}

type genState uint8

const (
	genNew genState = iota
	genSuspended
	genRunning
	genDone
)

// anyAsyncGen is a *genCore[T] of any T.
type anyAsyncGen interface {
	// close is AClose.
	close(co *Coro) error
	// object returns the AsyncGen, or a description if that was collected.
	object() any
}

// asyncGens are the generators of a loop that were begun and did not end.
type asyncGens struct {
	open map[anyAsyncGen]struct{}
	shut bool
}

// NewAsyncGen returns a generator of the values that fn passes to yield. fn is
// not called before the first Next. It must return when yield returns an error:
// ErrGeneratorExit when the generator is closed, a CancelledError when the task
// in Next was cancelled. fn may wait, with the Coro that it is given, but must
// not use it after it has returned. Others than fn's own task get ErrNotCurrent
// from yield. For a nil fn Next fails with ErrInvalidArgument.
func NewAsyncGen[T any](fn func(co *Coro, yield func(T) error) error) *AsyncGen[T] {
	if fn == nil {
		fn = func(*Coro, func(T) error) error {
			return fmt.Errorf("NewAsyncGen: %w: the function is nil", ErrInvalidArgument)
		}
	}
	return &AsyncGen[T]{core: &genCore[T]{fn: fn}}
}

// Next resumes the generator and waits for its next value. ok is false when it
// has ended; then err is what its function returned, the first time. Cancelling
// the waiting task cancels what the function waits for. Only one task may wait
// at a time: a second one gets ErrInvalidState. A generator belongs to the loop
// of its first Next, others get ErrDifferentLoop.
func (g *AsyncGen[T]) Next(co *Coro) (value T, ok bool, err error) {
	defer runtime.KeepAlive(g)
	c := g.core
	if c.state == genDone && c.waiter == nil {
		return value, false, c.outcome()
	}
	if err := c.check(co); err != nil {
		return value, false, err
	}
	if c.l == nil {
		c.register(co.l, g)
	}
	if !c.has {
		if err := c.resume(co); err != nil {
			return value, false, err
		}
	}
	if c.has {
		value, c.value, c.has = c.value, value, false
		return value, true, nil
	}
	return value, false, c.outcome()
}

// AClose ends the generator: yield returns ErrGeneratorExit, and AClose waits
// until the function has returned. The error is what the function returned,
// unless that is ErrGeneratorExit, or ErrInvalidState if the function went on
// yielding or a task is waiting in Next. A generator that was not begun never
// calls its function; closing one that has ended does nothing.
func (g *AsyncGen[T]) AClose(co *Coro) error {
	defer runtime.KeepAlive(g)
	return g.core.close(co)
}

// String describes the generator.
func (g *AsyncGen[T]) String() string {
	return fmt.Sprintf("<%T %s>", g, [...]string{"new", "suspended", "running", "done"}[g.core.state])
}

// register makes the generator one of the loop's.
func (c *genCore[T]) register(l *Loop, g *AsyncGen[T]) {
	c.l, c.self = l, weak.Make(g)
	if l.gens.shut {
		l.Logger().Warn(fmt.Sprintf("asynchronous generator %v was begun after ShutdownAsyncgens", g))
	}
	if l.gens.open == nil {
		l.gens.open = map[anyAsyncGen]struct{}{}
	}
	l.gens.open[c] = struct{}{}
	runtime.AddCleanup(g, (*genCore[T]).collected, c)
}

// check reports why co cannot resume the generator.
func (c *genCore[T]) check(co *Coro) error {
	switch {
	case c.l != nil && c.l != co.l:
		return fmt.Errorf("asynchronous generator: %w", ErrDifferentLoop)
	case c.waiter != nil, c.co == co:
		return fmt.Errorf("%w: asynchronous generator is already running", ErrInvalidState)
	}
	return co.CheckCurrent("a wait for an asynchronous generator")
}

// resume lets the function run until it yields or ends. It runs already if its own
// task was cancelled between two values, as by a Timeout in the function.
func (c *genCore[T]) resume(co *Coro) error {
	before := c.state
	c.state = genRunning
	switch before {
	case genNew:
		c.begin()
	case genSuspended:
		c.co.Wake()
	}
	c.waiter = co
	defer func() { c.waiter = nil }()
	for c.state == genRunning {
		if err := co.Suspend(c); err != nil {
			return err
		}
	}
	return nil
}

// begin makes the generator's task.
func (c *genCore[T]) begin() {
	c.task = c.l.goUnseen(func(co *Coro) error {
		c.co = co
		return c.fn(co, c.yield)
	})
	c.task.AddDoneCallback(func(AnyFuture) { c.end() })
}

// goUnseen is Go for a task that is not the application's, so that nobody else
// cancels it.
func (l *Loop) goUnseen(fn func(co *Coro) error) *Task[struct{}] {
	t := &Task[struct{}]{}
	t.quiet, t.inner = true, true
	t.body = fn
	l.start(&t.task, t, nil)
	return t
}

// CancelWait cancels what the function waits for, instead of the wait for the
// function; when that is over, the task itself, and what came is kept.
func (c *genCore[T]) CancelWait(co *Coro) bool {
	return c.state == genRunning && (*awaited)(&c.task.future).CancelWait(co)
}

func (c *genCore[T]) relays() {}

// yield hands a value to the task that waits for it.
func (c *genCore[T]) yield(value T) error {
	if err := c.co.CheckCurrent("yield"); err != nil {
		return err
	}
	if c.closing {
		return c.exit()
	}
	c.value, c.has, c.state = value, true, genSuspended
	if c.waiter != nil {
		c.waiter.Wake()
	}
	for c.state == genSuspended {
		if err := c.co.Suspend(yielding{}); err != nil {
			c.state = genRunning
			return err
		}
	}
	if c.closing {
		return c.exit()
	}
	return nil
}

// exit tells the function to return. One that was told before is made to, by a
// panic, and then by what it cannot recover from.
func (c *genCore[T]) exit() error {
	if c.ignored {
		runtime.Goexit()
	}
	if c.exiting {
		c.ignored = true
		panic(unwind{})
	}
	c.exiting = true
	return ErrGeneratorExit
}

// yielding is what a generator's task waits for between two values.
type yielding struct{}

func (yielding) CancelWait(co *Coro) bool {
	co.Wake()
	return false
}
func (yielding) String() string { return "the next call of Next" }

// end notes that the function has returned.
func (c *genCore[T]) end() {
	c.state = genDone
	delete(c.l.gens.open, c)
	if c.waiter != nil {
		c.waiter.Wake()
	}
}

// outcome returns the error of the function, once.
func (c *genCore[T]) outcome() error {
	if c.told || c.task == nil {
		return nil
	}
	c.told = true
	_, err := c.task.Result()
	if isError(err, ErrGeneratorExit) {
		return nil
	}
	return err
}

func (c *genCore[T]) close(co *Coro) error {
	switch {
	case c.state == genNew:
		c.state = genDone
		return nil
	case c.state == genDone, c.task.Done(): // which end is still to be told
		return nil
	}
	if err := c.check(co); err != nil {
		return err
	}
	c.closing = true
	var zero T
	c.value, c.has = zero, false
	if err := c.resume(co); err != nil {
		return err
	}
	if err := c.outcome(); !c.ignored {
		return err
	}
	return fmt.Errorf("%w: asynchronous generator ignored ErrGeneratorExit", ErrInvalidState)
}

func (c *genCore[T]) object() any {
	if g := c.self.Value(); g != nil {
		return g
	}
	return fmt.Sprintf("<%T, collected>", c)
}

// collected closes a generator that nobody refers to. It runs on a goroutine of
// the garbage collector's.
func (c *genCore[T]) collected() {
	// A closed loop has closed the generator.
	_, _ = c.l.CallSoonThreadsafe(func() {
		if c.state != genDone && c.waiter == nil {
			c.l.Go(c.l.closeAsyncgen(c))
		}
	})
}

// closeAsyncgen returns the function of a task that closes a generator and reports
// its failure.
func (l *Loop) closeAsyncgen(g anyAsyncGen) func(co *Coro) error {
	return func(co *Coro) error {
		if err := g.close(co); err != nil {
			l.CallExceptionHandler(&ExceptionContext{
				Message:   fmt.Sprintf("an error occurred during closing of asynchronous generator %v", g.object()),
				Exception: err, AsyncGen: g.object(),
			})
		}
		return nil
	}
}

// ShutdownAsyncgens closes every asynchronous generator of the loop that is
// open, all at the same time, and waits for them (loop.shutdown_asyncgens).
// Their errors go to the exception handler, with the generator. A generator that
// is begun later only gets a warning in the log. The error is that of the wait,
// such as a CancelledError.
func ShutdownAsyncgens(co *Coro) error {
	l := co.l
	if err := co.CheckCurrent("ShutdownAsyncgens"); err != nil {
		return err
	}
	l.gens.shut = true
	var closing []*Task[struct{}]
	for g := range l.gens.open {
		closing = append(closing, l.goUnseen(l.closeAsyncgen(g)))
	}
	for _, t := range closing {
		if _, err := t.Await(co); err != nil {
			return err
		}
	}
	return nil
}
