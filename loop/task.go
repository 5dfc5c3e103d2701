package loop

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
)

// AnyTask is a *Task[T] of any T.
type AnyTask interface {
	AnyFuture
	// Name returns the task's name (Task.get_name).
	Name() string
	// SetName gives the task another name (Task.set_name).
	SetName(name string)
	// Cancelling returns the number of cancellation requests that were not
	// withdrawn (Task.cancelling).
	Cancelling() int
	// Uncancel withdraws one request and returns how many are left
	// (Task.uncancel).
	Uncancel() int
	// Context returns the context that the task runs in (Task.get_context).
	Context() *Context
	// Stack describes where the task was made and what it waits for
	// (Task.get_stack); see Task.Stack.
	Stack() string
}

// task is the part of a Task that does not depend on the type of its value.
type task struct {
	future
	coro      Coro
	worker    *worker
	body      func(co *Coro) error
	waitsFor  Canceller
	ctx       *Context
	vars      *vars
	std       context.Context
	stdCancel context.CancelCauseFunc
	label     string
	number    uint64
	cancelMsg string

	next, prev *task // the loop's list of tasks

	cancels    int32
	queued     bool
	mustCancel bool
	cancelling bool // Cancel is asking what the task waits for to end
	answering  bool // what the task waits for ends with cancelMsg
	gone       bool // its coroutine ended with Goexit
	eager      bool // in its first step, inside another task or a callback
	quiet      bool // no report when it is destroyed while pending
	told       bool // its panic was reported
	inner      bool // part of something else, and not in AllTasks
	abandons   uint8
}

// Task runs a function on a coroutine of the loop and is the future of what
// the function returns (asyncio.Task).
type Task[T any] struct {
	task
	value T
}

// TaskOptions are the optional arguments of CreateTask. The zero value is
// asyncio's default.
type TaskOptions struct {
	// Name of the task; "Task-N" if empty.
	Name string
	// Context in which the task runs, as it is; a copy of the current one if nil.
	Context *Context
	// EagerStart runs the first step inside CreateTask, if the loop is running.
	EagerStart bool
}

var taskNumber atomic.Uint64

// CreateTask makes a task that runs fn, from the next turn on
// (loop.create_task). opts may be nil. If the loop is closed or fn is nil, the
// task is done at once, with that error.
//
// When fn returns a CancelledError, its own or of something that it waited for,
// the task ends as cancelled; when it has joined that with other errors, as by
// errors.Join, it ends with all of them. A panic of fn is reported to the exception
// handler and becomes the task's error, a *PanicError.
func CreateTask[T any](l *Loop, fn func(co *Coro) (T, error), opts *TaskOptions) *Task[T] {
	t := &Task[T]{}
	if fn != nil {
		t.body = func(co *Coro) (err error) {
			t.value, err = fn(co)
			return err
		}
	}
	l.start(&t.task, t, opts)
	return t
}

// Go makes a task that has no value to return: CreateTask for a plain function.
func (l *Loop) Go(fn func(co *Coro) error) *Task[struct{}] {
	t := &Task[struct{}]{}
	t.body = fn
	l.start(&t.task, t, nil)
	return t
}

// GoInner makes a task that is a part of something larger, as a handshake is of
// a connection, and begins it at once if the loop is running. It is not the
// application's: the task factory is not told, AllTasks does not list it, and
// nothing is reported when the loop is closed before it has ended. name is for
// the report of its panic; ctx is TaskOptions.Context. It is for packages that
// are built on the loop.
func (l *Loop) GoInner(name string, ctx *Context, fn func(co *Coro) error) *Task[struct{}] {
	t := &Task[struct{}]{}
	t.inner, t.quiet = true, true
	t.body = fn
	l.start(&t.task, t, &TaskOptions{Name: name, Context: ctx, EagerStart: true})
	return t
}

// start hands a new task to the task factory, and schedules it.
func (l *Loop) start(t *task, self AnyTask, opts *TaskOptions) {
	var o TaskOptions
	if opts != nil {
		o = *opts
	}
	t.init(l, self)
	t.coro = Coro{l: l, t: t}
	t.label = o.Name
	if o.Name == "" {
		t.number = taskNumber.Add(1)
	}
	t.runIn(o.Context)
	err := l.checkWait("CreateTask")
	if err == nil && t.body == nil {
		err = fmt.Errorf("%w: the task's function is nil", ErrInvalidArgument)
	}
	if err == nil && l.taskFactory != nil && !t.inner {
		given := o.Context
		if err = l.taskFactory(self, &o); err == nil {
			t.label = o.Name
		}
		if o.Context != given {
			t.runIn(o.Context)
		}
	}
	if err != nil {
		t.fail(err)
		return
	}
	l.link(t)
	if o.EagerStart && l.onTurn {
		l.startEagerly(t)
		return
	}
	t.queue()
}

// runIn gives a new task its context, nil for a copy of the current one.
func (t *task) runIn(ctx *Context) {
	if t.ctx = ctx; ctx == nil {
		t.vars = t.loop.scope.snapshot()
	}
}

// goexited is the panic that tells the caller of a coroutine that its task
// called runtime.Goexit. Otherwise iter.Pull ends the caller in the same way.
type goexited struct{}

// startEagerly runs the first step of t inside the caller, which may be another
// task or a callback: it goes on whatever t does.
func (l *Loop) startEagerly(t *task) {
	l.keepContext()
	before, sc := l.current, l.scope
	t.eager = true
	defer func() {
		t.eager = false
		switch r := recover(); r {
		case nil:
		case goexited{}:
			t.worker = nil
			l.current, l.scope = before, sc
		default:
			panic(r)
		}
	}()
	t.step(l)
}

func (t *task) asTask() *task { return t }

// link adds the task to the loop's list.
func (l *Loop) link(t *task) {
	t.next = l.tasks
	if t.next != nil {
		t.next.prev = t
	}
	l.tasks = t
	l.taskCount++
}

func (l *Loop) unlink(t *task) {
	if t.prev != nil {
		t.prev.next = t.next
	} else if l.tasks == t {
		l.tasks = t.next
	} else {
		return
	}
	if t.next != nil {
		t.next.prev = t.prev
	}
	t.next, t.prev = nil, nil
	l.taskCount--
}

// queue schedules the task's next step.
func (t *task) queue() {
	if !t.queued && t.state == pending {
		t.queued = true
		t.loop.enqueue(t)
	}
}

func (t *task) run(l *Loop) {
	if t.queued {
		t.step(l)
	}
}

// step runs the task until it waits or ends.
func (t *task) step(l *Loop) {
	t.queued = false
	if t.state != pending {
		return
	}
	if t.worker == nil {
		if t.mustCancel {
			t.finish(t.coro.CancelledError())
			return
		}
		t.worker = l.worker(t)
	}
	before, sc := l.current, l.scope
	l.current, l.scope = t, scope{t.ctx, t.vars}
	if l.debug.Load() {
		l.stepTimed(t)
	} else {
		l.advance(t)
	}
	t.ctx, t.vars = l.scope.ctx, l.scope.vars
	l.current, l.scope = before, sc
	if t.state != pending {
		w := t.worker
		t.worker = nil
		if !t.gone {
			l.release(w)
		}
	}
}

// finish completes the task with what its function returned.
func (t *task) finish(err error) {
	l := t.loop
	l.unlink(t)
	t.body, t.waitsFor = nil, nil
	if t.stdCancel != nil {
		t.stdCancel(context.Canceled)
		t.std, t.stdCancel = nil, nil
	}
	msg, ok := t.cancellation(err)
	switch {
	case ok:
		t.cancel(msg)
	case err != nil:
		t.fail(err)
	default:
		t.settle(finished)
	}
}

// cancellation reports whether a task whose function returned err ends as
// cancelled, and with which message.
func (t *task) cancellation(err error) (msg string, ok bool) {
	if err == nil {
		return t.cancelMsg, t.mustCancel
	}
	defer func() {
		if recover() != nil { // an error of the user's whose methods panic, as those of a nil pointer
			msg, ok = "", false
		}
	}()
	var ce *CancelledError
	switch {
	case beyondCancellation(err) != nil:
		return "", false
	case errors.As(err, &ce):
		return ce.Msg, true
	}
	return t.cancelMsg, isCancelled(err) || t.cancels > 0 && errors.Is(err, context.Canceled)
}

// panicked completes the task after a panic of its function.
func (t *task) panicked(r any, stack []byte) {
	if exit, ok := r.(LoopExit); ok {
		t.loop.leave(exit)
		err := exit.Err
		if err == nil {
			err = &PanicError{Value: r, Stack: stack}
		}
		t.quiet = true
		t.finish(err)
		t.retrieved()
		return
	}
	err := &PanicError{Value: r, Stack: stack}
	t.finish(err)
	t.retrieved()
	if _, ok := r.(unwind); ok {
		return
	}
	t.told = true
	t.loop.CallExceptionHandler(&ExceptionContext{
		Message: "Panic in task " + t.name(), Exception: err, Task: t.self.(AnyTask), SourceTraceback: t.debug.trace(),
	})
}

// Cancel asks the task to end: what it waits for is cancelled, and the wait, or
// else the next one, returns a CancelledError with msg (Task.cancel). A task
// that did not start yet never runs its function. It reports whether the task
// was not done; if it was, its error counts as retrieved. Requests are counted; see
// Cancelling. Of several that meet one wait, that has the message of the first.
func (t *task) Cancel(msg string) bool {
	if t.loop.Refuses("Task.Cancel") {
		return false
	}
	if t.state != pending {
		t.retrieved()
		return false
	}
	if t.cancelling {
		// The tasks wait for each other: one of them has to be the first to end.
		t.mustCancel = true
		t.queue()
		return true
	}
	t.cancels++
	if !t.answering {
		t.cancelMsg = msg
	}
	if t.stdCancel != nil {
		t.stdCancel(t.coro.CancelledError())
	}
	if t.waitsFor == nil || t.mustCancel || !t.cancelWait() {
		t.mustCancel = true
	} else {
		t.answering = answers(t.waitsFor)
	}
	return true
}

// relay is what a task waits for that passes a request to end on, with its
// message, to a future or another task.
type relay interface {
	Canceller
	relays()
}

// answers reports whether w itself ends when it is asked to. What passes that on
// may go on, and is told of every request.
func answers(w Canceller) bool {
	_, passedOn := w.(relay)
	return !passedOn
}

// cancelWait asks what the task waits for to end.
func (t *task) cancelWait() bool {
	t.cancelling = true
	defer func() { t.cancelling = false }()
	return t.waitsFor.CancelWait(&t.coro)
}

// Cancelling returns the number of cancellation requests that were not
// withdrawn (Task.cancelling).
func (t *task) Cancelling() int { return int(t.cancels) }

// Uncancel withdraws one cancellation request and returns how many are left. At
// 0 a request that was not delivered yet is withdrawn as well (Task.uncancel).
func (t *task) Uncancel() int {
	if t.cancels > 0 {
		t.cancels--
		if t.cancels == 0 {
			t.mustCancel = false
			t.std, t.stdCancel = nil, nil
		}
	}
	return int(t.cancels)
}

// Name returns the task's name (Task.get_name).
func (t *task) Name() string { return t.name() }

func (t *task) name() string {
	if t.label == "" {
		if t.number == 0 { // it had another name, which was taken away
			t.number = taskNumber.Add(1)
		}
		t.label = "Task-" + strconv.FormatUint(t.number, 10)
	}
	return t.label
}

// SetName gives the task another name (Task.set_name).
func (t *task) SetName(name string) { t.label = name }

// Context returns the context that the task runs in (Task.get_context).
func (t *task) Context() *Context {
	switch {
	case t.ctx != nil:
	case t.loop.current == t:
		t.ctx = t.loop.scope.context()
	default:
		t.ctx = &Context{vars: t.vars}
	}
	return t.ctx
}

// variables returns the values of the task's context.
func (t *task) variables() *vars {
	if t.ctx == nil && t.loop.current == t {
		return t.loop.scope.snapshot()
	}
	sc := scope{t.ctx, t.vars}
	return sc.snapshot()
}

// keepContext lets the running task, if there is one, have its context as an object,
// before something inside of it runs in another context.
func (l *Loop) keepContext() {
	if l.current != nil {
		l.current.Context()
	}
}

// Stack describes where the task was made, in debug mode, and what it waits for
// (Task.get_stack, Task.print_stack). Go gives no access to the stack of a
// coroutine that does not run.
func (t *task) Stack() string {
	s := t.String() + "\n"
	if w := t.waiting(); w != "" {
		s += "waits for " + w + "\n"
	}
	return s + t.debug.trace()
}

// waiting describes what the task waits for; it is empty if that is nothing or
// not known.
func (t *task) waiting() string {
	switch w := t.waitsFor.(type) {
	case *awaited:
		return fmt.Sprint(w.self)
	case fmt.Stringer:
		return w.String()
	}
	return ""
}

// String describes the task. One that is not done is "cancelling" as long as a
// request was not withdrawn.
func (t *task) String() string {
	state := [...]string{"pending", "cancelled", "finished"}[t.state]
	if t.state == pending && t.cancels > 0 {
		state = "cancelling"
	}
	if t.state == finished && t.err != nil {
		state += fmt.Sprintf(" exception=%v", t.err)
	}
	return "<Task " + state + " name=" + strconv.Quote(t.name()) + t.debug.String() + ">"
}

// SetResult fails: a task's result comes from its function (Task.set_result).
func (t *Task[T]) SetResult(T) error {
	return fmt.Errorf("%w: a task does not support SetResult", ErrInvalidState)
}

// SetException fails: a task's error comes from its function
// (Task.set_exception).
func (t *Task[T]) SetException(error) error {
	return fmt.Errorf("%w: a task does not support SetException", ErrInvalidState)
}

// Result returns what the task's function returned; see Future.Result.
func (t *Task[T]) Result() (T, error) {
	if t.state == finished {
		t.retrieved()
		return t.value, t.err
	}
	var zero T
	if t.state == cancelled {
		return zero, t.cancelledError()
	}
	return zero, fmt.Errorf("%w: result is not set", ErrInvalidState)
}

// Await suspends the task until this one is done and returns its result. If the
// waiting task is cancelled meanwhile, this one is asked to end too. See
// Future.Await.
func (t *Task[T]) Await(co *Coro) (T, error) {
	if err := t.wait(co); err != nil {
		var zero T
		return zero, err
	}
	return t.Result()
}

// CurrentTask returns the task that is running, nil outside tasks
// (asyncio.current_task).
func (l *Loop) CurrentTask() AnyTask {
	if l.current == nil {
		return nil
	}
	return l.current.self.(AnyTask)
}

// AllTasks returns the tasks that are not done, in no particular order
// (asyncio.all_tasks).
func (l *Loop) AllTasks() []AnyTask {
	all := make([]AnyTask, 0, l.taskCount)
	for t := l.tasks; t != nil; t = t.next {
		if !t.inner {
			all = append(all, t.self.(AnyTask))
		}
	}
	return all
}

// TaskFactory is told of every new task of the application before it is
// scheduled. It may change opts, and keep or wrap what it wants to know of the
// task; an error ends the task with it.
type TaskFactory func(t AnyTask, opts *TaskOptions) error

// SetTaskFactory installs a task factory; nil restores the default
// (loop.set_task_factory).
func (l *Loop) SetTaskFactory(f TaskFactory) { l.taskFactory = f }

// TaskFactory returns the task factory, nil for the default
// (loop.get_task_factory).
func (l *Loop) TaskFactory() TaskFactory { return l.taskFactory }

// EagerTaskFactory makes every task start eagerly (asyncio.eager_task_factory).
func EagerTaskFactory(_ AnyTask, opts *TaskOptions) error {
	opts.EagerStart = true
	return nil
}

// CreateEagerTaskFactory returns a factory that calls f and makes the task
// start eagerly (asyncio.create_eager_task_factory).
func CreateEagerTaskFactory(f TaskFactory) TaskFactory {
	return func(t AnyTask, opts *TaskOptions) error {
		if err := f(t, opts); err != nil {
			return err
		}
		return EagerTaskFactory(t, opts)
	}
}
