// Package forbid shows tests how code copes where the kernel refuses system
// calls, as it does by a seccomp profile. It is for tests only.
package forbid

import (
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// aloneEnv marks a process that was made by Alone.
const aloneEnv = "RINGLOOP_TEST_ALONE"

// Alone runs the rest of a test or subtest in a process of its own, for what
// cannot be undone. If it is skipped there, it is here.
func Alone(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	if IsAlone() {
		test(t)
		return
	}
	only := "^" + strings.ReplaceAll(regexp.QuoteMeta(t.Name()), "/", "$/^") + "$"
	cmd := exec.Command("/proc/self/exe", "-test.run="+only, "-test.timeout=2m", "-test.v")
	cmd.Env = append(os.Environ(), aloneEnv+"=1", "GORACE=atexit_sleep_ms=0")
	switch out, err := cmd.CombinedOutput(); {
	case err != nil:
		t.Errorf("%v\n%s", err, out)
	case strings.Contains(string(out), "--- SKIP: "+t.Name()+" ("):
		t.Skipf("skipped in a process of its own:\n%s", out)
	}
}

// IsAlone reports whether this process was made by Alone.
func IsAlone() bool { return os.Getenv(aloneEnv) != "" }

// Calls makes system calls fail with errno from now on, in all of the process,
// which must be one of Alone's.
func Calls(t *testing.T, errno syscall.Errno, numbers ...uintptr) {
	t.Helper()
	filter := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}} // the call's number
	for _, n := range numbers {
		filter = append(filter,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(n), Jf: 1},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)})
	}
	install(t, filter)
}

// Flags makes those calls of one number fail with errno from now on in whose
// argument, counted from 0, one of the bits is set; else it is as Calls.
func Flags(t *testing.T, errno syscall.Errno, number uintptr, arg int, bits uint32) {
	t.Helper()
	const args = 16 // where they begin in struct seccomp_data, each of 8 bytes
	install(t, []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(number), Jf: 3},
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: uint32(args + 8*arg)},
		{Code: unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, K: bits, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
	})
}

// install makes the kernel ask filter about every call, and allows what it says
// nothing about.
func install(t *testing.T, filter []unix.SockFilter) {
	t.Helper()
	filter = append(filter, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		t.Fatalf("prctl: %v", err)
	}
	_, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program)))
	if e != 0 {
		t.Skipf("no seccomp filter: %v", e)
	}
}
