package main

import (
	"bufio"
	"bytes"
	"io/fs"
	"math"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// place is what decides which backends work, apart from trying them.
type place struct {
	// Kernel is the kernel's release, as in "6.12.9-cloud-amd64".
	Kernel string `json:"kernel"`
	Arch   string `json:"arch"`
	// CPUs is the number of processors that this process may use.
	CPUs int `json:"cpus"`
	// Container is what the process runs in, as in "docker", and empty if no
	// sign of a container was found.
	Container string `json:"container"`
	// Seccomp is "off", "strict" or "filter", and empty if unknown.
	Seccomp string `json:"seccomp"`
	// IOUringDisabled is the sysctl kernel.io_uring_disabled, and empty if it
	// cannot be read or the kernel has none, which is before 6.6.
	IOUringDisabled string `json:"ioUringDisabled"`
	// OpenFiles and LockedMemory (in bytes) are the process's limits.
	OpenFiles    limit `json:"openFiles"`
	LockedMemory limit `json:"lockedMemory"`
}

// limit is a resource limit. Unlimited is the largest value of its type.
type limit struct {
	Soft uint64 `json:"soft"`
	Hard uint64 `json:"hard"`
}

const unlimited = math.MaxUint64

// inspect gathers what there is to know about the machine and the process.
// Root is the file system's root.
func inspect(root fs.FS, environ []string) place {
	return place{
		Kernel:          kernelRelease(),
		Arch:            runtime.GOARCH,
		CPUs:            runtime.NumCPU(),
		Container:       container(root, environ),
		Seccomp:         seccompMode(root),
		IOUringDisabled: firstLine(root, "proc/sys/kernel/io_uring_disabled"),
		OpenFiles:       getLimit(unix.RLIMIT_NOFILE),
		LockedMemory:    getLimit(unix.RLIMIT_MEMLOCK),
	}
}

// kernelRelease returns what uname -r prints.
func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// getLimit returns a limit of the process.
func getLimit(resource int) limit {
	var r unix.Rlimit
	if err := unix.Getrlimit(resource, &r); err != nil {
		return limit{}
	}
	return limit{Soft: r.Cur, Hard: r.Max}
}

// firstLine returns the first line of a file, and nothing if it has none or
// cannot be read.
func firstLine(root fs.FS, name string) string {
	b, err := fs.ReadFile(root, name)
	if err != nil {
		return ""
	}
	line, _, _ := bytes.Cut(b, []byte("\n"))
	return string(bytes.TrimSpace(line))
}

// seccompMode reads the mode from /proc/self/status, see proc_pid_status(5).
func seccompMode(root fs.FS) string {
	f, err := root.Open("proc/self/status")
	if err != nil {
		return ""
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		mode, ok := strings.CutPrefix(lines.Text(), "Seccomp:")
		if !ok {
			continue
		}
		switch strings.TrimSpace(mode) {
		case "0":
			return "off"
		case "1":
			return "strict"
		case "2":
			return "filter"
		}
	}
	return ""
}
