package transport

import (
	"fmt"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/loop"
)

// SubprocessOptions are the optional arguments of SubprocessExec and
// SubprocessShell. The zero value is asyncio's default. There is no text mode,
// no buffering and no code between fork and exec.
type SubprocessOptions struct {
	// Stdin, Stdout and Stderr are the child's standard streams: Pipe, DevNull,
	// Inherit, FromFD, FromFile and, for Stderr, the variable Stdout.
	Stdin, Stdout, Stderr Stdio
	// Executable is the program to execute if it is not the one of the call, which
	// then is only what the child finds as its own name, its argument 0. For
	// SubprocessShell it is the shell, in place of /bin/sh.
	Executable string
	// Cwd is the child's working directory; this process's own if empty.
	Cwd string
	// Env is the child's whole environment, as KEY=value; of several with the same
	// key the last counts. It is this process's own if nil. A program without a
	// slash is searched in its PATH.
	Env []string
	// NewSession makes the child the leader of a new session (setsid(2)),
	// and of a process group.
	NewSession bool
	// ProcessGroup moves the child to a process group: 0 to a new one of its own
	// (setpgid(2)), whose number is the child's. nil leaves it in that of this
	// process. It excludes NewSession.
	//
	// SendSignal and Kill reach the child alone; syscall.Kill with the negated
	// number reaches its group, but a stranger's if the process has ended and
	// nobody else is left in the group.
	ProcessGroup *int
	// Credential is the user and the groups that the child runs as; it needs
	// privileges.
	Credential *syscall.Credential
	// ExtraFiles are inherited too and get the numbers 3, 4, ... in the child. They
	// and PassFDs stay the caller's, and must stay open until the call returns.
	ExtraFiles []*os.File
	// PassFDs are descriptors that the child inherits under their own numbers.
	// They must not be among those that the streams and ExtraFiles take.
	PassFDs []int
}

// badSubprocess returns an error about an argument.
func badSubprocess(format string, args ...any) error {
	return fmt.Errorf("subprocess: %w: %s", loop.ErrInvalidArgument, fmt.Sprintf(format, args...))
}

// check reports what is wrong with the arguments.
func (o *SubprocessOptions) check(program string, args []string) error {
	if program == "" {
		return badSubprocess("the program's name is empty")
	}
	for i, s := range append([]string{program}, args...) {
		if strings.Contains(s, "\x00") {
			return badSubprocess("argument %d holds a NUL byte", i)
		}
	}
	if strings.Contains(o.Executable, "\x00") {
		return badSubprocess("Executable holds a NUL byte")
	}
	for i, s := range o.Env {
		if strings.Contains(s, "\x00") {
			return badSubprocess("Env[%d] holds a NUL byte", i)
		}
	}
	for fd, s := range [3]Stdio{o.Stdin, o.Stdout, o.Stderr} {
		if err := s.check(fd); err != nil {
			return fmt.Errorf("subprocess: %w", err)
		}
	}
	if o.ProcessGroup != nil && *o.ProcessGroup < 0 {
		return badSubprocess("the process group %d is negative", *o.ProcessGroup)
	}
	if o.NewSession && o.ProcessGroup != nil {
		return badSubprocess("the leader of a new session cannot join a process group")
	}
	for i, f := range o.ExtraFiles {
		if f == nil {
			return badSubprocess("ExtraFiles[%d] is nil", i)
		}
		if onFD(f, func(int) error { return nil }) != nil {
			return fmt.Errorf("subprocess: ExtraFiles[%d]: %w", i, os.ErrClosed)
		}
	}
	for _, fd := range o.PassFDs {
		if least := 3 + len(o.ExtraFiles); fd < least {
			return badSubprocess("descriptor %d of PassFDs is less than %d, the first that is free in the child", fd, least)
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			return fmt.Errorf("subprocess: descriptor %d of PassFDs: %w", fd, err)
		}
	}
	return nil
}

// spec prepares what start needs, apart from the standard streams.
func (o *SubprocessOptions) spec(program string, args []string) *spawnSpec {
	s := &spawnSpec{program: program, argv: append([]string{program}, args...), dir: o.Cwd, env: o.Env}
	if o.Executable != "" {
		s.program = o.Executable
	}
	if s.env == nil {
		s.env = syscall.Environ()
	}
	s.env = lastOfEach(s.env)
	s.sys.Setsid = o.NewSession
	s.sys.Credential = o.Credential
	if o.ProcessGroup != nil {
		s.sys.Setpgid, s.sys.Pgid = true, *o.ProcessGroup
	}
	return s
}

// noChildFD is what syscall.ProcAttr takes for a number that is closed in the
// child.
const noChildFD = ^uintptr(0)

// files returns the table of the child's descriptors.
func (o *SubprocessOptions) files(stdio *childStdio) []uintptr {
	files := make([]uintptr, 0, 3+len(o.ExtraFiles))
	for _, fd := range stdio.child {
		files = append(files, uintptr(fd))
	}
	for _, f := range o.ExtraFiles {
		files = append(files, f.Fd())
	}
	for _, fd := range o.PassFDs {
		for len(files) <= fd {
			files = append(files, noChildFD)
		}
		files[fd] = uintptr(fd)
	}
	return files
}
