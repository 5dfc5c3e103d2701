package transport

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// spawnSpec is what a child is to be started with. It is complete, so that
// start may run on any goroutine.
type spawnSpec struct {
	program string
	argv    []string
	dir     string
	env     []string
	files   []uintptr
	sys     syscall.SysProcAttr
}

// start starts the child and returns its number and a pidfd, which is
// close-on-exec. It blocks until the child has executed the program or failed
// to.
func (s *spawnSpec) start() (pid, pidfd int, err error) {
	files, err := findProgram(s.program, s.env, s.dir)
	if err != nil {
		return 0, -1, err
	}
	pidfd = -1
	s.sys.PidFD = &pidfd
	attr := &syscall.ProcAttr{Dir: s.dir, Env: s.env, Files: s.files, Sys: &s.sys}
	pid, file, err := forkExec(files, s.argv, attr)
	if err != nil {
		return 0, -1, s.explain(file, err)
	}
	if pidfd < 0 {
		// A kernel before 5.2: nobody else knows of the child yet, so its number
		// cannot have been given to another process.
		if pidfd, err = unix.PidfdOpen(pid, 0); err != nil {
			_ = unix.Kill(pid, unix.SIGKILL)
			_, _ = unix.Wait4(pid, nil, 0, nil)
			return 0, -1, &fs.PathError{Op: "pidfd_open for the process of", Path: s.program, Err: err}
		}
	}
	return pid, pidfd, nil
}

// forkExec executes the first of files that can be: one that may not, or whose
// interpreter is missing, hides none behind it. The error is that of the first that
// is not ENOENT, and file the one that it is about.
func forkExec(files, argv []string, attr *syscall.ProcAttr) (pid int, file string, err error) {
	for _, f := range files {
		pid, execErr := forkExecFile(f, argv, attr)
		switch execErr {
		case nil:
			return pid, f, nil
		case syscall.EAGAIN, syscall.ENOMEM, syscall.EMFILE, syscall.ENFILE:
			return 0, f, execErr // it says nothing of the file, and may be over for the next
		}
		if err == nil || err == syscall.ENOENT && execErr != syscall.ENOENT {
			file, err = f, execErr
		}
	}
	return 0, file, err
}

// forkExecFile is replaced by tests.
var forkExecFile = syscall.ForkExec

// explain names the file that an error of fork or exec is about, or else what of
// the options may be the cause: the kernel does not tell in which step it failed.
func (s *spawnSpec) explain(program string, err error) error {
	if s.dir != "" {
		if info, serr := os.Stat(s.dir); serr != nil {
			return &fs.PathError{Op: "chdir", Path: s.dir, Err: underlying(serr)}
		} else if !info.IsDir() {
			return &fs.PathError{Op: "chdir", Path: s.dir, Err: syscall.ENOTDIR}
		}
	}
	var with []string
	if err == syscall.ENOENT && executable(program, s.dir) == nil {
		with = append(with, "the interpreter that it names is missing")
	}
	if s.dir != "" {
		with = append(with, "in "+s.dir)
	}
	if c := s.sys.Credential; c != nil {
		with = append(with, fmt.Sprintf("as user %d, group %d", c.Uid, c.Gid))
	}
	if s.sys.Setpgid {
		with = append(with, fmt.Sprintf("in process group %d", s.sys.Pgid))
	}
	name := s.program
	if len(with) > 0 {
		name += " (" + strings.Join(with, ", ") + ")"
	}
	return &fs.PathError{Op: "exec", Path: name, Err: err}
}

func underlying(err error) error {
	if pe, ok := err.(*fs.PathError); ok {
		return pe.Err
	}
	return err
}

// defaultPath is where programs are searched if the environment has no PATH.
const defaultPath = "/bin:/usr/bin"

// findProgram returns the files to execute for name, of which the first that can be
// counts: name itself if it has a slash, else the executable files of that name in
// the PATH of the child's environment, as execvp(3) does. Relative directories of
// PATH are relative to dir, where the child will be.
func findProgram(name string, env []string, dir string) (files []string, err error) {
	if strings.Contains(name, "/") {
		return []string{name}, nil
	}
	var why error = syscall.ENOENT
	for _, d := range strings.Split(pathOf(env), ":") {
		if d == "" {
			d = "."
		}
		file := strings.TrimSuffix(d, "/") + "/" + name
		switch executable(file, dir) {
		case nil:
			files = append(files, file)
		case syscall.EACCES:
			why = syscall.EACCES
		}
	}
	if len(files) == 0 {
		return nil, &fs.PathError{Op: "exec", Path: name, Err: why}
	}
	return files, nil
}

// lastOfEach drops from an environment what is said again behind it: programs do
// not agree on which of two they believe.
func lastOfEach(env []string) []string {
	seen := make(map[string]bool, len(env))
	kept := make([]string, 0, len(env))
	for _, entry := range slices.Backward(env) {
		key, _, ok := strings.Cut(entry, "=")
		if ok && seen[key] {
			continue
		}
		seen[key] = seen[key] || ok
		kept = append(kept, entry)
	}
	slices.Reverse(kept)
	return kept
}

func pathOf(env []string) string {
	for _, entry := range env {
		if p, ok := strings.CutPrefix(entry, "PATH="); ok {
			return p
		}
	}
	return defaultPath
}

// executable reports why file, which is relative to dir, cannot be executed.
func executable(file, dir string) error {
	if !path.IsAbs(file) && dir != "" {
		file = dir + "/" + file // path.Join would not see where a symbolic link before ".." leads
	}
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return syscall.EACCES
	}
	return unix.Faccessat(unix.AT_FDCWD, file, unix.X_OK, unix.AT_EACCESS)
}
