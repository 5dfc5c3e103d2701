package transport

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"syscall"

	"github.com/seed-80cfe818/ringloop/loop"
)

// SubprocessExec starts a program with arguments (loop.subprocess_exec) and
// returns its transport and the protocol that factory made. opts may be nil. A
// program without a slash is searched in PATH.
//
// factory is called first. When the program cannot be started, no callback is
// called and the error, a *fs.PathError, names the program or the directory. For
// arguments and options that make no sense it is loop.ErrInvalidArgument, for
// pipes and descriptors that cannot be had that of the kernel. If the task is
// cancelled meanwhile, the child is killed and reaped before SubprocessExec
// returns the CancelledError.
//
// A protocol that is a FlowController is told when to write less to the child's
// standard input. A panic of PipeDataReceived closes that pipe.
//
// The child inherits its standard streams and what opts passes on, and nothing
// else that this package or the standard library has opened.
//
// The child is started on a goroutine of its own: fork and exec take about a
// millisecond, during which the loop goes on. Wait on the transport waits for
// the end of the process; ConnectionLost is called when its pipes have ended
// too.
func SubprocessExec(co *loop.Coro, factory func() SubprocessProtocol, program string, args []string, opts *SubprocessOptions) (SubprocessTransport, SubprocessProtocol, error) {
	var o SubprocessOptions
	if opts != nil {
		o = *opts
	}
	if factory == nil {
		return nil, nil, badSubprocess("the protocol factory is nil")
	}
	if err := o.check(program, args); err != nil {
		return nil, nil, err
	}
	err := co.CheckCurrent("the start of a process") // which is begun before the wait
	if err == nil && co.Loop().IsClosed() {
		err = closedError(co)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("subprocess %s: %w", program, err)
	}
	p := factory()
	if p == nil {
		return nil, nil, badSubprocess("the protocol factory returned nil")
	}
	t, err := spawn(co, p, program, args, &o)
	if err != nil {
		return nil, nil, err
	}
	return t, p, nil
}

// SubprocessShell runs a command line with /bin/sh -c, or with another shell that
// opts names (loop.subprocess_shell). Quoting is the caller's job. Killing the
// process kills the shell only. See SubprocessExec.
func SubprocessShell(co *loop.Coro, factory func() SubprocessProtocol, cmd string, opts *SubprocessOptions) (SubprocessTransport, SubprocessProtocol, error) {
	shell := "/bin/sh"
	if opts != nil && opts.Executable != "" {
		shell = opts.Executable
	}
	return SubprocessExec(co, factory, shell, []string{"-c", cmd}, opts)
}

// spawn starts the child and waits until its protocol was told.
func spawn(co *loop.Coro, p SubprocessProtocol, program string, args []string, o *SubprocessOptions) (*subprocess, error) {
	var stdio childStdio
	if err := stdio.open([3]Stdio{o.Stdin, o.Stdout, o.Stderr}); err != nil {
		return nil, fmt.Errorf("subprocess %s: %w", program, err)
	}
	s := &spawning{co: co, spec: o.spec(program, args), closeChild: stdio.closeChild}
	s.spec.files = o.files(&stdio)
	started, err := s.wait(co)
	runtime.KeepAlive(o.ExtraFiles)
	if err == nil {
		return announce(co, connectSubprocess(co.Loop(), s.pid, s.pidfd, &stdio, p))
	}
	stdio.closeParent()
	if started {
		p := newProcess(co.Loop(), s.pid, s.pidfd, nil)
		openSetOf(co.Loop())[p] = struct{}{}
		reap(co, p)
	}
	return nil, err
}

// announce tells the protocol that the process runs, and waits until it was
// told.
func announce(co *loop.Coro, t *subprocess) (*subprocess, error) {
	told := loop.CreateFuture[struct{}](t.loop)
	t.soon(t.connected)
	t.soon(func() {
		if !told.Done() {
			_ = told.SetResult(struct{}{})
		}
	})
	if _, err := told.Await(co); err != nil {
		t.Close()
		reap(co, t.proc)
		return nil, err
	}
	return t, nil
}

// reap kills a process and waits for its end, however often the task is
// cancelled. On a closed loop the process is in other hands, and one that must
// not be killed is reaped when it ends.
func reap(co *loop.Coro, p *Process) {
	if p.signal(syscall.SIGKILL) != nil {
		return
	}
	for !p.ended {
		if _, err := p.Wait(co); errors.Is(err, loop.ErrLoopClosed) {
			return
		}
	}
}

// spawning is a child that is being started on another goroutine, for a task
// that waits.
type spawning struct {
	co         *loop.Coro
	spec       *spawnSpec
	closeChild func() // closes what only the child needs
	cancelled  bool   // the task was cancelled while it waited
	resumed    bool   // the child is there, or could not be started

	mu      sync.Mutex
	done    bool // the goroutine has started the child or failed to
	gone    bool // the task does not wait any more: its loop is closed
	started bool // pid and pidfd are those of a child that is the task's
	pid     int
	pidfd   int
	err     error
}

// wait starts the child and suspends the task meanwhile. It reports whether
// there is a child, which may be so in spite of an error.
func (s *spawning) wait(co *loop.Coro) (started bool, err error) {
	go s.run()
	for !s.resumed {
		if err := co.Suspend(s); err != nil {
			s.abandon()
			return false, err
		}
	}
	if s.cancelled {
		return s.started, co.CancelledError()
	}
	return s.started, s.err
}

// CancelWait implements loop.Canceller: the task goes on when the child is
// there, because only then it can be killed.
func (s *spawning) CancelWait(*loop.Coro) bool {
	s.cancelled = true
	return true
}

// String says what the task waits for.
func (s *spawning) String() string { return "the start of " + s.spec.program }

// run starts the child; it is the goroutine.
func (s *spawning) run() {
	pid, pidfd, err := s.spec.start()
	s.closeChild()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pid, s.pidfd, s.err, s.started, s.done = pid, pidfd, err, err == nil, true
	if s.gone {
		s.discard()
		return
	}
	// On a closed loop, abandon sees to the child.
	_, _ = s.co.Loop().CallSoonThreadsafe(s.resume)
}

// resume lets the task go on, on the loop's thread.
func (s *spawning) resume() {
	s.mu.Lock()
	gone := s.gone
	s.mu.Unlock()
	if !gone {
		s.resumed = true
		s.co.Resume()
	}
}

// abandon ends a child that nobody waits for.
func (s *spawning) abandon() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = true
	if s.done {
		s.discard()
	}
}

// discard ends the child, if there is one.
func (s *spawning) discard() {
	if s.started {
		s.started = false
		killAndReap(s.pid, s.pidfd)
	}
}
