package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/internal/leaktest"
	"github.com/seed-80cfe818/ringloop/uring"
)

// asProgram in the environment makes the test binary the program.
const asProgram = "SUPERVISOR_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	leaktest.Main(m)
}

// patience is how long anything may take before a test fails.
const patience = 60 * time.Second

// output is what the program has written; it tells who waits of every change.
type output struct {
	mu      sync.Mutex
	b       bytes.Buffer
	changed chan struct{}
}

func newOutput() *output { return &output{changed: make(chan struct{}, 1)} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	select {
	case o.changed <- struct{}{}:
	default:
	}
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// until waits until the program has written s.
func (o *output) until(t *testing.T, s string) {
	t.Helper()
	timeout := time.After(patience)
	for !strings.Contains(o.String(), s) {
		select {
		case <-o.changed:
		case <-timeout:
			t.Fatalf("waited in vain for %q in %q", s, o.String())
		}
	}
}

// program is a running supervisor.
type program struct {
	out, log *output
	status   chan int
}

func startProgram(args ...string) *program {
	p := &program{newOutput(), newOutput(), make(chan int, 1)}
	go func() { p.status <- run(args, p.out, p.log) }()
	return p
}

// ended waits for the end of the program and checks its exit status.
func (p *program) ended(t *testing.T, want int) {
	t.Helper()
	select {
	case status := <-p.status:
		if status != want {
			t.Errorf("exit status %d, want %d; log:\n%s", status, want, p.log)
		}
	case <-time.After(patience):
		t.Fatalf("the program does not end; log:\n%s", p.log)
	}
	var info unix.Siginfo
	if err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil); err != unix.ECHILD {
		t.Errorf("a child is left: %v", err)
	}
}

// signal sends a signal to the program, which is this process.
func (p *program) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(os.Getpid(), sig); err != nil {
		t.Fatal(err)
	}
}

// onBackends runs a test on each backend; args begin with its flag.
func onBackends(t *testing.T, test func(t *testing.T, backend string)) {
	t.Helper()
	for _, name := range []string{"io_uring", "epoll"} {
		t.Run(name, func(t *testing.T) {
			if name == "io_uring" {
				if err := uring.Available(); err != nil {
					t.Skipf("io_uring: %v", err)
				}
			}
			test(t, "-backend="+name)
		})
	}
}

func sorted(s string) []string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	slices.Sort(lines)
	return lines
}

func TestOutputIsRelayedWithTheNameInFront(t *testing.T) {
	onBackends(t, func(t *testing.T, backend string) {
		file := filepath.Join(t.TempDir(), "Procfile")
		if err := os.WriteFile(file, []byte("# two\n\nb: sh -c 'echo three; echo oops >&2'\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		p := startProgram(backend, "-restart=never", "-config", file, `a=printf 'one\ntwo without an end'`)
		p.ended(t, 0)
		want := []string{"a | one", "a | two without an end", "b | three"}
		if got := sorted(p.out.String()); !slices.Equal(got, want) {
			t.Errorf("output %q, want %q", got, want)
		}
		if !strings.Contains(p.log.String(), "b | oops\n") {
			t.Errorf("log %q", p.log)
		}
	})
}

func TestTheExitStatusIsThatOfTheFirstFailure(t *testing.T) {
	onBackends(t, func(t *testing.T, backend string) {
		startProgram(backend, "-restart=never", "good=true", "bad=sh -c 'exit 7'").ended(t, 7)
		p := startProgram(backend, "-restart=never", "absent=/no/such/program")
		p.ended(t, 127)
	})
}

func TestACommandIsStartedAgainUntilItSucceeds(t *testing.T) {
	onBackends(t, func(t *testing.T, backend string) {
		flag := filepath.Join(t.TempDir(), "tried")
		script := fmt.Sprintf(`job=sh -c 'echo try; test -e %[1]s || { touch %[1]s; exit 3; }'`, flag)
		p := startProgram(backend, "-restart=on-failure", "-backoff=1ms", script)
		p.ended(t, 3)
		if n := strings.Count(p.out.String(), "job | try\n"); n != 2 {
			t.Errorf("%d tries, output %q", n, p.out)
		}
	})
}

func TestASignalStopsEverythingGracefully(t *testing.T) {
	onBackends(t, func(t *testing.T, backend string) {
		script := `trap "echo bye; exit 0" TERM; echo up; while :; do sleep 0.05; done`
		p := startProgram(backend, "-backoff=1h", "a=sh -c '"+script+"'", "b=sh -c '"+script+"'", "ended=true")
		p.out.until(t, "a | up\n")
		p.out.until(t, "b | up\n")
		p.log.until(t, "starting again in 1h")
		p.signal(t, syscall.SIGTERM)
		p.ended(t, 0)
		for _, name := range []string{"a", "b"} {
			if !strings.Contains(p.out.String(), name+" | bye\n") {
				t.Errorf("%s did not say bye: %q", name, p.out)
			}
		}
	})
}

func TestACommandThatDoesNotStopIsKilled(t *testing.T) {
	onBackends(t, func(t *testing.T, backend string) {
		stubborn := `x=sh -c 'trap "" TERM; echo up; while :; do sleep 0.05; done'`
		p := startProgram(backend, "-grace=10ms", stubborn)
		p.out.until(t, "x | up\n")
		p.signal(t, syscall.SIGINT)
		p.ended(t, 0)
		if !strings.Contains(p.log.String(), "does not stop, killing it") {
			t.Errorf("log %q", p.log)
		}
		// The second signal shortens the time of grace.
		p = startProgram(backend, "-grace=1h", stubborn)
		p.out.until(t, "x | up\n")
		p.signal(t, syscall.SIGTERM)
		p.signal(t, syscall.SIGINT)
		p.ended(t, 0)
	})
}

func TestOtherSignalsArePassedOn(t *testing.T) {
	onBackends(t, func(t *testing.T, backend string) {
		p := startProgram(backend, "-restart=never", `x=sh -c 'trap "echo reload" HUP; trap "exit 4" USR1; echo up; while :; do sleep 0.05; done'`)
		p.out.until(t, "x | up\n")
		p.signal(t, syscall.SIGHUP)
		p.out.until(t, "x | reload\n")
		p.signal(t, syscall.SIGUSR1)
		p.ended(t, 4)
	})
}

func TestACommandMayBeAnyLineForTheShell(t *testing.T) {
	onBackends(t, func(t *testing.T, backend string) {
		p := startProgram(backend, "-restart=never", "a=echo one; echo two", "b=X=three env | grep ^X=", "c=for i in 4 5; do echo $i; done")
		p.ended(t, 0)
		want := []string{"a | one", "a | two", "b | X=three", "c | 4", "c | 5"}
		if got := sorted(p.out.String()); !slices.Equal(got, want) {
			t.Errorf("output %q, want %q", got, want)
		}
		for line, want := range map[string]int{
			"exec sh -c 'exit 3'": 3, "exec\tsh -c 'exit 3'": 3, "exit 4": 4, "! false": 0, "! true": 1, "eval exit 5": 5, "command -v sh": 0, ":": 0, "type sh": 0, "times": 0,
		} {
			startProgram(backend, "-restart=never", "a="+line).ended(t, want)
		}
		// A program that a signal ends is the last one.
		p = startProgram(backend, "a=echo up; sleep 1000; echo never")
		p.out.until(t, "a | up\n")
		p.signal(t, syscall.SIGTERM)
		p.ended(t, 0)
		if strings.Contains(p.out.String(), "never") {
			t.Errorf("output %q", p.out)
		}
	})
}

func TestWhatACommandStartsInTheBackgroundIsStoppedToo(t *testing.T) {
	onBackends(t, func(t *testing.T, backend string) {
		loop := "echo up $$; while :; do sleep 0.05; done"
		for _, c := range []struct{ grace, trap, says string }{
			{"-grace=1h", "echo bye; exit", "x | bye\n"},
			{"-grace=10ms", "", "x | up"},
		} {
			p := startProgram(backend, c.grace, fmt.Sprintf(`x=sh -c 'trap "%s" TERM; %s' & wait`, c.trap, loop))
			p.out.until(t, "x | up ")
			p.out.until(t, "\n")
			var pid int
			if _, err := fmt.Sscanf(p.out.String(), "x | up %d\n", &pid); err != nil {
				t.Fatalf("%v in %q", err, p.out)
			}
			p.signal(t, syscall.SIGTERM)
			p.ended(t, 0)
			if !strings.Contains(p.out.String(), c.says) {
				t.Errorf("%q is not in the output %q", c.says, p.out)
			}
			wantEnd(t, pid)
		}
	})
}

// wantEnd waits for the end of a process.
func wantEnd(t *testing.T, pid int) {
	t.Helper()
	for deadline := time.Now().Add(patience); lives(pid); runtime.Gosched() {
		if time.Now().After(deadline) {
			_ = unix.Kill(pid, unix.SIGKILL)
			t.Fatalf("process %d is left", pid)
		}
	}
}

func TestWhatACommandLeavesBehindIsKilled(t *testing.T) {
	const stubborn = `(trap "" TERM; exec sleep 1000) >/dev/null 2>&1 & echo worker $!`
	onBackends(t, func(t *testing.T, backend string) {
		for _, c := range []struct{ name, command, until string }{
			{"after a crash", `x=sh -c '` + stubborn + `; exit 1'`, "starting again"},
			{"at a stop", `x=sh -c '` + stubborn + `; exec sleep 1000'`, ""},
		} {
			t.Run(c.name, func(t *testing.T) {
				p := startProgram(backend, "-backoff=1h", c.command)
				p.out.until(t, "\n")
				var worker int
				if _, err := fmt.Sscanf(p.out.String(), "x | worker %d", &worker); err != nil {
					t.Fatal(err)
				}
				p.log.until(t, c.until)
				p.signal(t, syscall.SIGTERM)
				p.ended(t, 0)
				wantEnd(t, worker)
			})
		}
	})
}

// lives reports whether there is such a process, but for a zombie that its
// parent, which is not this process, has not noticed yet.
func lives(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !bytes.Contains(stat, []byte(") Z "))
}

func TestCommandsGoOnWhenNobodyReadsTheirOutput(t *testing.T) {
	onBackends(t, func(t *testing.T, backend string) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		done := filepath.Join(t.TempDir(), "done")
		cmd := exec.Command(os.Args[0], backend, "-restart=never", "a=echo lost; echo lost; touch "+done)
		cmd.Env = append(os.Environ(), asProgram+"=1")
		cmd.Stdout = w
		_ = r.Close()
		err = cmd.Run()
		_ = w.Close()
		if err != nil {
			t.Errorf("the supervisor ended with %v", err)
		}
		if _, err := os.Stat(done); err != nil {
			t.Errorf("the command did not go on: %v", err)
		}
	})
}

func TestALongLineIsRelayedInPieces(t *testing.T) {
	onBackends(t, func(t *testing.T, backend string) {
		p := startProgram(backend, "-restart=never", `x=head -c 200000 /dev/zero`)
		p.ended(t, 0)
		if n := strings.Count(p.out.String(), "\x00"); n != 200000 {
			t.Errorf("%d bytes were relayed", n)
		}
	})
}

func TestACommandLineThatMakesNoSenseIsRefused(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad")
	if err := os.WriteFile(bad, []byte("fine: true\nno colon here\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		says string
	}{
		{nil, "no command"},
		{[]string{"without"}, `"without"`},
		{[]string{"=x"}, `"=x"`},
		{[]string{"a=true", "a=false"}, "two commands"},
		{[]string{"-restart=sometimes", "a=true"}, "on-failure"},
		{[]string{"-backoff=-1s", "a=true"}, "-backoff -1s"},
		{[]string{"-grace=-1s", "a=true"}, "-grace -1s"},
		{[]string{"-config", bad}, "bad:2"},
		{[]string{"-config", filepath.Join(dir, "absent")}, "absent"},
	} {
		p := startProgram(c.args...)
		p.ended(t, 2)
		if !strings.Contains(p.log.String(), c.says) {
			t.Errorf("%q: log %q", c.args, p.log)
		}
	}
	startProgram("-help").ended(t, 0)
	p := startProgram("-backend=none", "a=true")
	p.ended(t, 1)
	if !strings.Contains(p.log.String(), "none") {
		t.Errorf("log %q", p.log)
	}
}

func TestOnlyKnownRestartPoliciesAreAccepted(t *testing.T) {
	var p restartPolicy
	if err := errors.Join(p.Set("always"), p.Set("on-failure"), p.Set("never")); err != nil || p.again(1) || p.String() != "never" {
		t.Errorf("%v, %v", err, p)
	}
	if p.Set("") == nil || p != restartNever {
		t.Error("an empty policy was accepted")
	}
}
