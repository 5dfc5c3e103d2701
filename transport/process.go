package transport

import (
	"fmt"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/loop"
)

// strangeReturnCode is what a child is said to have returned if somebody else
// has taken its exit status; asyncio uses the same number.
const strangeReturnCode = 255

// Process is a child process: its number, how it ended, and a descriptor of it
// (a pidfd) through which it is waited for and signalled, so that neither can
// ever reach another process that was given the same number. Its methods may be
// called on the loop's thread only.
type Process struct {
	loop    *loop.Loop
	pid     int
	pidfd   int
	code    int
	ended   bool
	waiters []*loop.Future[int]
	onExit  func()

	wait    backend.Op
	waitExt backend.Ext
	release backend.Op
}

// newProcess watches over a child that was just started. onExit, if not nil, is
// called once, on the loop's thread, when its return code is known. The caller sees
// to it that the loop's Close finds the process.
func newProcess(l *loop.Loop, pid, pidfd int, onExit func()) *Process {
	p := &Process{loop: l, pid: pid, pidfd: pidfd, onExit: onExit}
	p.wait = backend.Op{Code: backend.OpWaitID, FD: int32(pidfd), Ext: &p.waitExt, Receiver: (*processEnd)(p)}
	p.release = backend.Op{Code: backend.OpClose, FD: int32(pidfd), Receiver: (*processEnd)(p)}
	debugLog(l, "started", p)
	// The operands are right and the loop is running its task.
	_ = l.Submit(&p.wait)
	return p
}

// PID returns the number of the process, also when it has ended (Popen.pid).
func (p *Process) PID() int { return p.pid }

// ReturnCode returns the exit status or, if a signal ended the process, its
// negated number; ok is false while the process runs (Popen.returncode).
func (p *Process) ReturnCode() (code int, ok bool) { return p.code, p.ended }

// Wait suspends the task until the process has ended and returns what
// ReturnCode does. It does not wait for the process's pipes, which its own
// children may keep open. The error is a CancelledError or loop.ErrLoopClosed.
func (p *Process) Wait(co *loop.Coro) (int, error) {
	if p.ended {
		return p.code, nil
	}
	f := loop.CreateFuture[int](p.loop)
	p.waiters = append(p.waiters, f)
	code, err := f.Await(co)
	if err != nil {
		p.waiters = slices.DeleteFunc(p.waiters, func(w *loop.Future[int]) bool { return w == f })
		return 0, fmt.Errorf("wait for process %d: %w", p.pid, err)
	}
	return code, nil
}

// String describes the process.
func (p *Process) String() string {
	if p.ended {
		return fmt.Sprintf("<Process pid=%d returncode=%d>", p.pid, p.code)
	}
	return fmt.Sprintf("<Process pid=%d running>", p.pid)
}

// signal sends a signal to the process (pidfd_send_signal(2)). A process that
// has ended, noticed or not, is left alone without an error.
func (p *Process) signal(sig syscall.Signal) error {
	if p.ended {
		return nil
	}
	err := sendSignal(p.pidfd, unix.Signal(sig), nil, 0)
	if err != nil && err != unix.ESRCH {
		return fmt.Errorf("send signal %d (%v) to process %d: %w", int(sig), sig, p.pid, err)
	}
	return nil
}

// sendSignal is replaced by tests.
var sendSignal = unix.PidfdSendSignal

// processEnd is told that the process was reaped, and then that its descriptor is
// closed.
type processEnd Process

// Complete implements backend.Receiver.
func (e *processEnd) Complete(op *backend.Op, r backend.Result) {
	p := (*Process)(e)
	switch {
	case op == &p.release || p.ended:
	case r.Errno == 0:
		p.exited(returnCode(&p.waitExt.Child))
	case p.loop.IsClosed():
	case r.Errno == syscall.ECHILD:
		p.vanished(r.Err())
	default:
		p.waitElsewhere()
	}
}

// vanished notes that the process has ended, or may have, in an unknown way.
func (p *Process) vanished(why error) {
	p.loop.Logger().Warn(fmt.Sprintf("Cannot wait for process %d, will report returncode %d", p.pid, strangeReturnCode), "error", why)
	p.exited(strangeReturnCode)
}

// waitElsewhere waits in another goroutine for what the backend could not wait
// for, say for lack of memory, and then has it reap the process, which takes no
// waiting. Where waitid(2) is forbidden or knows no pidfds, it does both by the
// number, which nobody else can have before the process is reaped.
func (p *Process) waitElsewhere() {
	pidfd, err := unix.FcntlInt(uintptr(p.pidfd), unix.F_DUPFD_CLOEXEC, 0)
	go func() {
		goOn := func() { _ = p.loop.Submit(&p.wait) }
		if err == nil {
			err = waitFor(unix.P_PIDFD, pidfd, unix.WNOWAIT)
			_ = unix.Close(pidfd)
		} else { // no descriptor is left
			err = waitFor(unix.P_PID, p.pid, unix.WNOWAIT)
		}
		if err != nil && err != unix.ECHILD {
			code, err := waitPID(p.pid)
			goOn = func() { p.exited(code) }
			if err != nil {
				goOn = func() { p.vanished(err) }
			}
		}
		// A loop that is closed meanwhile reaps the process by itself.
		_, _ = p.loop.CallSoonThreadsafe(func() {
			if !p.ended {
				goOn()
			}
		})
	}()
}

// returnCode converts what waitid(2) says into a return code.
func returnCode(c *backend.Child) int {
	const cldExited = 1
	if c.Code == cldExited {
		return c.Status
	}
	return -c.Status
}

// exited notes how the process ended and tells those who wait.
func (p *Process) exited(code int) {
	p.code, p.ended = code, true
	debugLog(p.loop, "exited", p)
	if p.loop.Submit(&p.release) != nil {
		_ = unix.Close(p.pidfd) // the loop is being closed: nothing is in flight
	}
	if !p.loop.IsClosed() {
		delete(openSetOf(p.loop), p)
	}
	for _, w := range p.waiters {
		if !w.Done() {
			_ = w.SetResult(code)
		}
	}
	p.waiters = nil
	if p.onExit != nil && !p.loop.IsClosed() {
		p.onExit()
	}
}

// orphaned ends the process after the loop, so that no zombie is left.
func (p *Process) orphaned() {
	if !p.ended {
		p.ended, p.code = true, -int(unix.SIGKILL)
		killAndReap(p.pid, p.pidfd)
	}
}

// killAndReap ends the process of a pidfd, reaps it, so that no zombie is left,
// and closes the pidfd. It may block for as long as the process takes to die. One
// that must not be killed, such as another user's, is reaped when it ends.
func killAndReap(pid, pidfd int) {
	switch sendSignal(pidfd, unix.SIGKILL, nil, 0) {
	case nil:
		reapFD(pid, pidfd)
	case unix.ESRCH: // it was reaped, and its number may be another child's by now
		_ = unix.Close(pidfd)
	default:
		go reapFD(pid, pidfd)
	}
}

func reapFD(pid, pidfd int) {
	if err := waitFor(unix.P_PIDFD, pidfd, 0); err != nil && err != unix.ECHILD {
		_, _ = waitPID(pid) // there is nothing else to try
	}
	_ = unix.Close(pidfd)
}

// waitFor waits until the process of a pidfd or a number has ended.
func waitFor(kind, id, options int) error {
	for {
		if err := unix.Waitid(kind, id, nil, unix.WEXITED|options, nil); err != unix.EINTR {
			return err
		}
	}
}

// waitPID waits until a process has ended, reaps it, and returns its return code.
func waitPID(pid int) (code int, err error) {
	var status unix.WaitStatus
	for err = unix.EINTR; err == unix.EINTR; {
		_, err = unix.Wait4(pid, &status, 0, nil)
	}
	if status.Signaled() {
		return -int(status.Signal()), err
	}
	return status.ExitStatus(), err
}
