package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/transport"
)

const (
	// maxBackoff is the longest wait before a restart.
	maxBackoff = time.Minute
	// steady is how long a command has to run for its next failure to count as
	// the first.
	steady = 10 * time.Second
	// drain is how long the output of a command that ended is waited for, if its
	// own children hold on to it.
	drain = time.Second
)

// unit is one command. Its task runs it again and again.
type unit struct {
	s       *supervisor
	name    string
	command string
	task    *loop.Task[struct{}]
	process transport.SubprocessTransport // nil while it does not run
}

func (u *unit) logf(format string, args ...any) {
	fmt.Fprintf(u.s.log, "supervisor: %s: %s\n", u.name, fmt.Sprintf(format, args...))
}

// run is the unit's task. A cancellation means that the supervisor stops.
func (u *unit) run(co *loop.Coro) error {
	wait := u.s.cfg.backoff
	for {
		started := co.Loop().Time()
		code, err := u.once(co)
		switch {
		case errors.Is(err, loop.ErrCancelled):
			return err
		case err != nil:
			u.logf("cannot start: %v", err)
			code = 127 // as the shell says
		}
		if code != 0 && u.s.status == 0 {
			u.s.status = max(code, 1)
		}
		if u.s.stops > 0 || !u.s.cfg.restart.again(code) {
			return nil
		}
		if co.Loop().Time()-started >= steady {
			wait = u.s.cfg.backoff
		}
		u.logf("starting again in %v", wait)
		if err := loop.Sleep(co, wait); err != nil {
			return err
		}
		wait = min(2*wait, max(maxBackoff, u.s.cfg.backoff))
	}
}

// once runs the command until it has ended, or stops it when the task is
// cancelled.
func (u *unit) once(co *loop.Coro) (code int, err error) {
	r := &relay{u: u}
	group := 0 // of its own, so that the terminal's signals reach only us
	t, _, err := transport.SubprocessShell(co, func() transport.SubprocessProtocol { return r }, shellLine(u.command),
		&transport.SubprocessOptions{Stdin: transport.DevNull, ProcessGroup: &group})
	if err != nil {
		return 0, err
	}
	u.process = t
	u.logf("process %d runs", t.PID())
	code, err = t.Wait(co)
	if errors.Is(err, loop.ErrCancelled) {
		code, err = u.stop(co, r)
	}
	u.process = nil
	if err != nil {
		return 0, err
	}
	u.logf("process %d ended with %d", t.PID(), code)
	left := leaves(t.PID())
	err = r.finish(co, t)
	if left && leaves(t.PID()) {
		u.logf("killing what process %d has left behind", t.PID())
		_ = unix.Kill(-t.PID(), unix.SIGKILL) // which may have ended just now
	}
	return code, err
}

// leaves reports whether there are processes in the group of one that has ended.
// While there are, no other process gets its number.
func leaves(pid int) bool { return unix.Kill(-pid, 0) == nil }

// shellLine is what the shell is told to run. One program takes the shell's
// place. For anything else, such as a list of programs, the shell stays, and the
// signals that are passed on are for the programs. SIGTERM ends it at once: if it
// had a trap, it could start its next program after the signal, and wait for that.
func shellLine(command string) string {
	first := strings.Fields(command)[0]
	if strings.ContainsAny(command, ";&|()\n") || strings.Contains(first, "=") || slices.Contains(shellWords, first) {
		return "trap : HUP USR1 USR2; " + command
	}
	return "exec " + command
}

// shellWords are what a line without operators may begin with, and no program.
var shellWords = []string{
	"!", ".", ":", "alias", "bg", "break", "cd", "command", "continue", "eval", "exec", "exit", "export", "fg", "getopts",
	"hash", "jobs", "read", "readonly", "return", "set", "shift", "source", "times", "trap", "type", "ulimit", "umask",
	"unalias", "unset", "wait",
}

// signal sends a signal to every process of the command that is in its group.
func (u *unit) signal(sig syscall.Signal) {
	if err := unix.Kill(-u.process.PID(), sig); err != nil && err != unix.ESRCH {
		u.logf("send %v: %v", sig, err)
	}
}

// stop ends the command, and kills it if that takes too long or we are asked to
// stop once more.
func (u *unit) stop(co *loop.Coro, r *relay) (code int, err error) {
	t := u.process
	u.signal(syscall.SIGTERM)
	if u.s.stops == 1 { // two requests at once are one cancellation
		handled(co)
		err = loop.Timeout(co, u.s.cfg.grace, func() (err error) {
			if code, err = t.Wait(co); err == nil {
				err = r.ended(co) // and what it had started
			}
			return err
		})
		if !errors.Is(err, loop.ErrTimeout) && !errors.Is(err, loop.ErrCancelled) {
			return code, err
		}
	}
	handled(co)
	u.logf("process %d does not stop, killing it", t.PID())
	u.signal(syscall.SIGKILL)
	return t.Wait(co)
}

// handled withdraws the requests to cancel the task, which goes on in spite of
// them.
func handled(co *loop.Coro) {
	for co.Task().Cancelling() > 0 {
		co.Task().Uncancel()
	}
}
