package transport

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/internal/forbid"
	"github.com/seed-80cfe818/ringloop/internal/leaktest"
	"github.com/seed-80cfe818/ringloop/loop"
)

// processDiary is the protocol of a child process.
type processDiary struct {
	diary
	t       SubprocessTransport
	out     [3]bytes.Buffer
	pipeErr [3]error
	onMade  func(t SubprocessTransport)
	onData  func(fd int)
	onExit  func()
}

func (p *processDiary) ConnectionMade(t SubprocessTransport) {
	p.t = t
	p.note("made")
	if p.onMade != nil {
		p.onMade(t)
	}
}

func (p *processDiary) PipeDataReceived(fd int, data []byte) {
	p.out[fd].Write(data)
	if p.onData != nil {
		p.onData(fd)
	}
}

func (p *processDiary) PipeConnectionLost(fd int, err error) {
	p.note("pipe %d", fd)
	p.pipeErr[fd] = err
}

func (p *processDiary) ProcessExited() {
	p.note("exited")
	if p.onExit != nil {
		p.onExit()
	}
}

func (p *processDiary) PauseWriting()  { p.note("pause") }
func (p *processDiary) ResumeWriting() { p.note("resume") }

// untilOutput waits until the child has written exactly want to its standard output.
func (p *processDiary) untilOutput(t *testing.T, co *loop.Coro, want string) {
	t.Helper()
	until(t, co, fmt.Sprintf("the child writes %q", want), func() bool { return p.out[1].String() == want })
}

// finished waits until everything is over and returns the return code.
func (p *processDiary) finished(t *testing.T, co *loop.Coro) int {
	t.Helper()
	if err := p.untilLost(t, co); err != nil {
		t.Errorf("lost with %v", err)
	}
	code, ok := p.t.ReturnCode()
	if !ok {
		t.Error("lost without a return code")
	}
	return code
}

// start runs the test binary as one of the children of child_test.go.
func start(t *testing.T, co *loop.Coro, p *processDiary, o SubprocessOptions, what string, args ...string) SubprocessTransport {
	t.Helper()
	o.Env = append(slices.Concat(os.Environ(), o.Env), childEnv+"="+what, "GORACE=atexit_sleep_ms=0")
	tr, got, err := SubprocessExec(co, func() SubprocessProtocol { return p }, "/proc/self/exe", args, &o)
	if err != nil {
		t.Fatal(err)
	}
	if got != SubprocessProtocol(p) || p.t != tr {
		t.Error("the transport or the protocol is not that of ConnectionMade")
	}
	return tr
}

// noPipes are options of a child that has no pipe.
var noPipes = SubprocessOptions{Stdin: DevNull, Stdout: DevNull, Stderr: Inherit}

func TestWhatIsWrittenToStdinComesBackOnStdoutAndCloseKillsTheChild(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &processDiary{}
		tr := start(t, co, p, SubprocessOptions{}, "cat")
		if err := tr.PipeTransport(0).Write([]byte("Python The Winner")); err != nil {
			t.Fatal(err)
		}
		p.untilOutput(t, co, "Python The Winner")
		tr.Close()
		tr.Close()
		if !tr.IsClosing() {
			t.Error("not closing after Close")
		}
		if code := p.finished(t, co); code != -int(syscall.SIGKILL) {
			t.Errorf("return code %d", code)
		}
		p.want(t, "made", "pipe 0", "pipe 1", "pipe 2", "exited", "lost")
	})
}

func TestAShellCommandReportsItsOutputItsEndAndEveryPipe(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &processDiary{}
		_, _, err := SubprocessShell(co, func() SubprocessProtocol { return p }, "echo Python; echo oops >&2", nil)
		if err != nil {
			t.Fatal(err)
		}
		if code := p.finished(t, co); code != 0 {
			t.Errorf("return code %d", code)
		}
		if out, oops := p.out[1].String(), p.out[2].String(); out != "Python\n" || oops != "oops\n" {
			t.Errorf("stdout %q, stderr %q", out, oops)
		}
		slices.Sort(p.events)
		p.want(t, "exited", "lost", "made", "pipe 0", "pipe 1", "pipe 2")
	})
}

func TestTheExitStatusOfAShellCommandIsReported(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &processDiary{}
		tr, _, err := SubprocessShell(co, func() SubprocessProtocol { return p }, "exit 7", &noPipes)
		if err != nil {
			t.Fatal(err)
		}
		code, err := tr.Wait(co)
		if code != 7 || err != nil {
			t.Errorf("Wait: %d, %v", code, err)
		}
	})
}

func TestWithoutPipesTheGettersReturnNilAndCloseAfterTheEndIsFine(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &processDiary{}
		tr := start(t, co, p, noPipes, "exit", "9")
		for fd := -1; fd < 4; fd++ {
			if pipe := tr.PipeTransport(fd); pipe != nil {
				t.Errorf("PipeTransport(%d) is %v", fd, pipe)
			}
		}
		if code := p.finished(t, co); code != 9 {
			t.Errorf("return code %d", code)
		}
		p.want(t, "made", "exited", "lost")
		tr.Close()
		if pid := tr.PID(); pid <= 0 || tr.Protocol() != nil || !tr.IsClosing() {
			t.Errorf("after the end: pid %d, protocol %v, closing %v", pid, tr.Protocol(), tr.IsClosing())
		}
		if v, ok := tr.ExtraInfo("subprocess"); !ok || v.(*Process).PID() != tr.PID() {
			t.Errorf("ExtraInfo: %v, %v", v, ok)
		}
		if _, ok := tr.ExtraInfo("peername"); ok {
			t.Error("a subprocess has a peername")
		}
	})
}

func TestStdoutAndStderrAreSeparateStreams(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &processDiary{}
		start(t, co, p, SubprocessOptions{}, "both")
		p.finished(t, co)
		if out, oops := p.out[1].String(), p.out[2].String(); out != "to stdout" || oops != "to stderr" {
			t.Errorf("stdout %q, stderr %q", out, oops)
		}
	})
}

func TestMergedStderrArrivesAsStdout(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &processDiary{}
		tr := start(t, co, p, SubprocessOptions{Stderr: Stdout}, "both")
		if tr.PipeTransport(2) != nil {
			t.Error("stderr has a transport")
		}
		p.finished(t, co)
		if out := p.out[1].String(); out != "to stdoutto stderr" {
			t.Errorf("stdout %q", out)
		}
	})
}

func TestClosingOurEndOfStdoutGivesTheChildABrokenPipe(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &processDiary{}
		tr := start(t, co, p, SubprocessOptions{Stdin: DevNull, Stderr: Inherit}, "endless")
		until(t, co, "the child writes", func() bool { return p.out[1].Len() > 0 })
		tr.PipeTransport(1).Close()
		if code := p.finished(t, co); code != 32 {
			t.Errorf("return code %d, want 32 for EPIPE", code)
		}
		p.want(t, "made", "pipe 1", "exited", "lost")
	})
}

func TestOutputThatIsLeftInThePipeAfterTheExitIsDelivered(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &processDiary{onMade: func(tr SubprocessTransport) { _ = tr.PipeTransport(1).PauseReading() }}
		tr := start(t, co, p, SubprocessOptions{Stdin: DevNull, Stderr: Inherit}, "spew", "60000")
		if _, err := tr.Wait(co); err != nil {
			t.Fatal(err)
		}
		p.want(t, "made", "exited")
		if p.out[1].Len() != 0 {
			t.Error("output was delivered while reading was paused")
		}
		if err := tr.PipeTransport(1).ResumeReading(); err != nil {
			t.Fatal(err)
		}
		p.finished(t, co)
		if n := p.out[1].Len(); n != 60000 {
			t.Errorf("%d bytes of output", n)
		}
		p.want(t, "made", "exited", "pipe 1", "lost")
	})
}

func TestSignallingAFinishedProcessIsAProcessLookupError(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		var inExit error
		p := &processDiary{}
		p.onExit = func() { inExit = p.t.Kill() }
		tr := start(t, co, p, noPipes, "exit", "6")
		p.finished(t, co)
		if inExit != nil {
			t.Errorf("Kill in ProcessExited: %v", inExit)
		}
		for _, err := range []error{tr.Kill(), tr.Terminate(), tr.SendSignal(syscall.SIGUSR1)} {
			if !errors.Is(err, os.ErrProcessDone) || !errors.Is(err, syscall.ESRCH) || !strings.Contains(err.Error(), fmt.Sprint(tr.PID())) {
				t.Errorf("signal after the end: %v", err)
			}
		}
		p.want(t, "made", "exited", "lost")
	})
}

func TestSignalsReachTheChild(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &processDiary{}
		tr := start(t, co, p, SubprocessOptions{Stdin: DevNull, Stderr: Inherit}, "usr1")
		p.untilOutput(t, co, "ready")
		if err := tr.SendSignal(syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		if code := p.finished(t, co); code != 0 || p.out[1].String() != "ready usr1" {
			t.Errorf("return code %d, output %q", code, p.out[1].String())
		}
	})
}

func TestTerminateAndKillEndTheChildAndAreNotClose(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		for sig, end := range map[syscall.Signal]func(SubprocessTransport) error{
			syscall.SIGTERM: SubprocessTransport.Terminate, syscall.SIGKILL: SubprocessTransport.Kill,
		} {
			p := &processDiary{}
			tr := start(t, co, p, SubprocessOptions{Stdin: DevNull, Stderr: Inherit}, "forever")
			p.untilOutput(t, co, "ready")
			if err := end(tr); err != nil {
				t.Fatal(err)
			}
			if tr.IsClosing() {
				t.Errorf("%v: it closes", sig)
			}
			if code := p.finished(t, co); code != -int(sig) {
				t.Errorf("%v: return code %d", sig, code)
			}
		}
	})
}

func TestASignalThatCannotBeSentIsAnErrorThatNamesIt(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &processDiary{}
		tr := start(t, co, p, noPipes, "forever")
		if err := tr.SendSignal(1000); !errors.Is(err, syscall.EINVAL) || !strings.Contains(err.Error(), "1000") {
			t.Errorf("signal 1000: %v", err)
		}
		tr.Close()
		p.finished(t, co)
	})
}

// untilZombie waits until the child has ended, without reaping it and without
// letting the loop notice.
func untilZombie(t *testing.T, pid int) {
	t.Helper()
	for limit := time.Now().Add(patience); ; {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			t.Fatalf("the child was reaped: %v", err)
		}
		if strings.Contains(string(stat), ") Z ") {
			return
		}
		if time.Now().After(limit) {
			t.Fatal("the child does not end")
		}
		time.Sleep(time.Millisecond)
	}
}

func TestCloseDoesNotHideTheStatusOfAChildThatExitedUnnoticed(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &processDiary{}
		stay := SubprocessOptions{Stdin: Pipe, Stdout: DevNull, Stderr: Inherit}
		tr := start(t, co, p, stay, "cat")
		if err := tr.Terminate(); err != nil {
			t.Fatal(err)
		}
		untilZombie(t, tr.PID()) // the loop stands still: it cannot notice
		tr.Close()
		if code := p.finished(t, co); code != -int(syscall.SIGTERM) {
			t.Errorf("return code %d, want that of the signal before Close", code)
		}
	})
}

func TestWaitersOfTheExitDoNotWaitForAGrandchildThatHoldsStdout(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		until, release := osPipe(t)
		p := &processDiary{}
		o := SubprocessOptions{Stdin: DevNull, Stderr: Inherit, ExtraFiles: []*os.File{until}}
		tr := start(t, co, p, o, "grandchild", "5")
		if code, err := tr.Wait(co); code != 5 || err != nil {
			t.Fatalf("Wait: %d, %v", code, err)
		}
		if err := loop.Sleep(co, 0); err != nil {
			t.Fatal(err)
		}
		p.want(t, "made", "exited")
		if err := until.Close(); err != nil {
			t.Fatal(err)
		}
		if err := release.Close(); err != nil {
			t.Fatal(err)
		}
		p.finished(t, co)
		p.want(t, "made", "exited", "pipe 1", "lost")
	})
}

func TestCloseDoesNotWaitForAGrandchild(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		until, release := osPipe(t)
		p := &processDiary{}
		o := SubprocessOptions{Stdin: DevNull, Stderr: Inherit, ExtraFiles: []*os.File{until}}
		tr := start(t, co, p, o, "grandchild", "0")
		if _, err := tr.Wait(co); err != nil {
			t.Fatal(err)
		}
		tr.Close()
		p.finished(t, co)
		p.want(t, "made", "exited", "pipe 1", "lost")
		_ = release
	})
}

func TestSeveralTasksWaitForTheExitAndOneIsCancelled(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &processDiary{}
		tr := start(t, co, p, SubprocessOptions{Stdout: DevNull, Stderr: Inherit}, "cat")
		wait := func(co *loop.Coro) (int, error) { return tr.Wait(co) }
		a, b := loop.CreateTask(co.Loop(), wait, nil), loop.CreateTask(co.Loop(), wait, nil)
		if err := loop.Sleep(co, 0); err != nil {
			t.Fatal(err)
		}
		a.Cancel("enough")
		if _, err := a.Await(co); !errors.Is(err, loop.ErrCancelled) {
			t.Errorf("the cancelled waiter: %v", err)
		}
		if _, ok := tr.ReturnCode(); ok {
			t.Error("the cancellation of a waiter ended the process")
		}
		if err := tr.PipeTransport(0).WriteEOF(); err != nil {
			t.Fatal(err)
		}
		if code, err := b.Await(co); code != 0 || err != nil {
			t.Errorf("the other waiter: %d, %v", code, err)
		}
		p.finished(t, co)
		if code, err := tr.Wait(co); code != 0 || err != nil {
			t.Errorf("Wait after the end: %d, %v", code, err)
		}
	})
}

func TestWritingMoreThanThePipeHoldsToAnExitingChildIsABrokenPipe(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &processDiary{}
		tr := start(t, co, p, SubprocessOptions{Stdout: DevNull, Stderr: Inherit}, "exit", "0")
		if err := tr.PipeTransport(0).Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
		p.finished(t, co)
		if err := p.pipeErr[0]; !errors.Is(err, syscall.EPIPE) {
			t.Errorf("stdin was lost with %v", err)
		}
		if slices.Contains(p.events, "resume") {
			t.Errorf("callbacks: %q", p.events)
		}
	})
}

func TestAChildThatClosesItsStdinLosesThatPipe(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &processDiary{}
		tr := start(t, co, p, SubprocessOptions{Stderr: Inherit}, "closestdin")
		p.untilOutput(t, co, "closed")
		until(t, co, "stdin is lost", func() bool { return slices.Contains(p.events, "pipe 0") })
		if p.pipeErr[0] != nil {
			t.Errorf("stdin was lost with %v", p.pipeErr[0])
		}
		tr.Close()
		p.finished(t, co)
	})
}

func TestTheChildInheritsNothingButItsStreamsAndWhatIsPassed(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		r, _ := osPipe(t)
		far := passable(t, r)
		for _, c := range []struct {
			o     SubprocessOptions
			least int // smaller numbers are the streams, or closed in the child
			want  string
		}{
			{SubprocessOptions{}, 3, "0 1 2 "},
			{SubprocessOptions{ExtraFiles: []*os.File{r}}, 4, "0 1 2 3 "},
			{SubprocessOptions{PassFDs: []int{far}}, far + 1, fmt.Sprintf("0 1 2 %d ", far)},
		} {
			want := c.want + inherited(t, c.least)
			p, q := &processDiary{}, &processDiary{}
			start(t, co, p, c.o, "fds")
			// A second child while the first one lives: it must not get its pipes.
			start(t, co, q, c.o, "fds")
			p.finished(t, co)
			q.finished(t, co)
			if p.out[1].String() != want || q.out[1].String() != want {
				t.Errorf("the children have descriptors %q and %q, want %q", p.out[1].String(), q.out[1].String(), want)
			}
		}
	})
}

// inherited lists the descriptors from least on that whoever started the tests
// lets all processes inherit.
func inherited(t *testing.T, least int) (list string) {
	t.Helper()
	fds := must2(leaktest.FDs())(t)
	for _, fd := range slices.Sorted(maps.Keys(fds)) {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && fd >= least && flags&unix.FD_CLOEXEC == 0 {
			list += fmt.Sprintf("%d ", fd)
		}
	}
	return list
}

// passable returns a copy of a file's descriptor with a number that is far from
// those that are in use.
func passable(t *testing.T, f *os.File) int {
	t.Helper()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 100)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	return fd
}

func TestPassedDescriptorsAreUsable(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		for _, pass := range []bool{false, true} {
			r, w := osPipe(t)
			if _, err := w.WriteString("through the pipe"); err != nil {
				t.Fatal(err)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			o, fd := SubprocessOptions{ExtraFiles: []*os.File{r}}, 3
			if pass {
				fd = passable(t, r)
				o = SubprocessOptions{PassFDs: []int{fd}}
			}
			p := &processDiary{}
			start(t, co, p, o, "readfd", fmt.Sprint(fd))
			p.finished(t, co)
			if out := p.out[1].String(); out != "through the pipe" {
				t.Errorf("PassFDs %v: %q", pass, out)
			}
		}
	})
}

func TestFilesAndDescriptorsServeAsStreams(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "in"), []byte("from a file"), 0o600); err != nil {
			t.Fatal(err)
		}
		in := must2(os.Open(filepath.Join(dir, "in")))(t)
		defer in.Close()
		out := must2(os.Create(filepath.Join(dir, "out")))(t)
		defer out.Close()
		p := &processDiary{}
		start(t, co, p, SubprocessOptions{Stdin: FromFile(in), Stdout: FromFD(int(out.Fd())), Stderr: Inherit}, "cat")
		p.finished(t, co)
		if got, err := os.ReadFile(out.Name()); string(got) != "from a file" || err != nil {
			t.Errorf("the file has %q, %v", got, err)
		}
		p.want(t, "made", "exited", "lost")
	})
}

func must2[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		return must(t, v, err)
	}
}

func TestTheChildGetsItsDirectoryAndItsEnvironment(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		dir := must2(filepath.EvalSymlinks(t.TempDir()))(t)
		p := &processDiary{}
		_, _, err := SubprocessExec(co, func() SubprocessProtocol { return p }, "/proc/self/exe", nil,
			&SubprocessOptions{Cwd: dir, Env: []string{childEnv + "=place", "PLACE=here", "GORACE=atexit_sleep_ms=0"}})
		if err != nil {
			t.Fatal(err)
		}
		p.finished(t, co)
		if got, want := p.out[1].String(), dir+" here 3"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	})
}

func TestSessionProcessGroupAndCredential(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		ids := fmt.Sprint(os.Getuid(), os.Getgid())
		group := 0
		for _, c := range []struct {
			what string
			o    SubprocessOptions
			want string
		}{
			{"plain", SubprocessOptions{}, "false false " + ids},
			{"session", SubprocessOptions{NewSession: true}, "true true " + ids},
			{"group", SubprocessOptions{ProcessGroup: &group}, "false true " + ids},
			{"credential", SubprocessOptions{Credential: &syscall.Credential{Uid: 65534, Gid: 65533}}, "false false 65534 65533"},
		} {
			if c.o.Credential != nil && !maySetIDs(t) {
				t.Log("the credential is not tested: this process may not change its user")
				continue
			}
			p := &processDiary{}
			start(t, co, p, c.o, "ids")
			p.finished(t, co)
			if got := p.out[1].String(); got != c.want {
				t.Errorf("%s: %q, want %q", c.what, got, c.want)
			}
		}
	})
}

// maySetIDs reports whether this process has CAP_SETGID and CAP_SETUID.
func maySetIDs(t *testing.T) bool {
	t.Helper()
	const both = 1<<unix.CAP_SETGID | 1<<unix.CAP_SETUID
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		t.Fatal(err)
	}
	return data[0].Effective&both == both
}

func TestArgumentsThatMakeNoSenseAreInvalid(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		bad := -1
		group := 0
		factory := func() SubprocessProtocol {
			t.Error("the factory was called")
			return nil
		}
		for what, run := range map[string]func() error{
			"no program": func() error { _, _, err := SubprocessExec(co, factory, "", nil, nil); return err },
			"Env[1]": func() error {
				_, _, err := SubprocessExec(co, factory, "true", nil, &SubprocessOptions{Env: []string{"A=1", "B=\x00"}})
				return err
			},
			"NUL byte": func() error { _, _, err := SubprocessShell(co, factory, "echo \x00", nil); return err },
			"Executable": func() error {
				_, _, err := SubprocessExec(co, factory, "true", nil, &SubprocessOptions{Executable: "tr\x00ue"})
				return err
			},
			"no factory": func() error { _, _, err := SubprocessExec(co, nil, "true", nil, nil); return err },
			"stdin is Stdout": func() error {
				_, _, err := SubprocessExec(co, factory, "true", nil, &SubprocessOptions{Stdin: Stdout})
				return err
			},
			"negative descriptor": func() error {
				_, _, err := SubprocessExec(co, factory, "true", nil, &SubprocessOptions{Stdin: FromFD(-1)})
				return err
			},
			"nil file": func() error {
				_, _, err := SubprocessExec(co, factory, "true", nil, &SubprocessOptions{Stderr: FromFile(nil)})
				return err
			},
			"nil extra file": func() error {
				_, _, err := SubprocessExec(co, factory, "true", nil, &SubprocessOptions{ExtraFiles: []*os.File{nil}})
				return err
			},
			"low passed descriptor": func() error {
				_, _, err := SubprocessExec(co, factory, "true", nil, &SubprocessOptions{PassFDs: []int{2}})
				return err
			},
			"negative group": func() error {
				_, _, err := SubprocessExec(co, factory, "true", nil, &SubprocessOptions{ProcessGroup: &bad})
				return err
			},
			"session and group": func() error {
				_, _, err := SubprocessExec(co, factory, "true", nil, &SubprocessOptions{ProcessGroup: &group, NewSession: true})
				return err
			},
		} {
			if err := run(); !errors.Is(err, loop.ErrInvalidArgument) {
				t.Errorf("%s: %v", what, err)
			}
		}
		for _, o := range []SubprocessOptions{{PassFDs: []int{9999}}, {Stdin: FromFD(9999)}} {
			_, _, err := SubprocessExec(co, func() SubprocessProtocol { return &processDiary{} }, "true", nil, &o)
			if !errors.Is(err, syscall.EBADF) || !strings.Contains(err.Error(), "9999") {
				t.Errorf("a closed descriptor: %v", err)
			}
		}
	})
}

func TestAProgramThatCannotBeStartedIsAnErrorThatNamesIt(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		dir := t.TempDir()
		file := func(name, content string, mode os.FileMode) string {
			full := filepath.Join(dir, name)
			if err := os.WriteFile(full, []byte(content), mode); err != nil {
				t.Fatal(err)
			}
			return full
		}
		busy := must2(os.OpenFile(file("busy", "\x7fELF", 0o700), os.O_WRONLY, 0))(t)
		defer busy.Close()
		plain := file("plain", "", 0o600)
		script := file("script", "#!/nowhere/interpreter\n", 0o700)
		noGroup := math.MaxInt32
		before := must2(leaktest.FDs())(t)
		for _, c := range []struct {
			program string
			o       SubprocessOptions
			errno   error
			names   string
		}{
			{program: filepath.Join(dir, "absent"), errno: fs.ErrNotExist},
			{program: "no-such-program", o: SubprocessOptions{Env: []string{"PATH=" + dir}}, errno: syscall.ENOENT},
			{program: "/bin/sh", o: SubprocessOptions{Executable: filepath.Join(dir, "absent")}, errno: syscall.ENOENT, names: "absent"},
			{program: plain, errno: fs.ErrPermission},
			{program: "plain", o: SubprocessOptions{Env: []string{"PATH=" + dir}}, errno: syscall.EACCES},
			{program: dir, errno: syscall.EACCES},
			{program: busy.Name(), errno: syscall.ETXTBSY},
			{program: "/bin/sh", o: SubprocessOptions{Cwd: filepath.Join(dir, "nowhere")}, errno: syscall.ENOENT, names: "nowhere"},
			{program: "/bin/sh", o: SubprocessOptions{Cwd: plain}, errno: syscall.ENOTDIR, names: plain},
			{program: script, errno: syscall.ENOENT, names: "the interpreter that it names is missing"},
			{program: "/bin/sh", o: SubprocessOptions{Cwd: dir, ProcessGroup: &noGroup}, errno: syscall.EPERM, names: "(in " + dir + ", in process group 2147483647)"},
		} {
			p := &processDiary{}
			_, _, err := SubprocessExec(co, func() SubprocessProtocol { return p }, c.program, nil, &c.o)
			var pe *fs.PathError
			if c.names == "" {
				c.names = c.program
			}
			if !errors.Is(err, c.errno) || !errors.As(err, &pe) || !strings.Contains(err.Error(), c.names) {
				t.Errorf("%s: %v", c.program, err)
			}
			p.want(t)
		}
		noNewFDs(t, co, before)
	})
}

func TestAProgramIsSearchedInThePathOfTheChildsEnvironment(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, "bin"), 0o700); err != nil {
			t.Fatal(err)
		}
		link := filepath.Join(t.TempDir(), "link")
		check(t, os.Symlink("/bin/sh", filepath.Join(dir, "bin", "own-shell")))
		check(t, os.Symlink(filepath.Join(dir, "bin"), link))
		for _, o := range []SubprocessOptions{
			{Env: []string{"PATH=/nowhere:" + dir + "/bin/"}},
			{Env: []string{"PATH=bin"}, Cwd: dir},
			{Env: []string{"PATH="}, Cwd: filepath.Join(dir, "bin")},
			{Env: []string{"PATH=../bin"}, Cwd: link},
			{Env: []string{"PATH=bin"}, Cwd: link + "/.."},
		} {
			p := &processDiary{}
			_, _, err := SubprocessExec(co, func() SubprocessProtocol { return p }, "own-shell", []string{"-c", "echo $0"}, &o)
			if err != nil {
				t.Errorf("%v: %v", o.Env, err)
				continue
			}
			if code := p.finished(t, co); code != 0 || p.out[1].String() != "own-shell\n" {
				t.Errorf("%v: return code %d, output %q", o.Env, code, p.out[1].String())
			}
		}
	})
}

func TestTheExecutableMayBeAnotherThanTheChildIsTold(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		dir := t.TempDir()
		check(t, os.Symlink("/bin/sh", filepath.Join(dir, "own-shell")))
		say := "echo $0"
		for _, o := range []SubprocessOptions{
			{Executable: filepath.Join(dir, "own-shell")},
			{Executable: "own-shell", Env: []string{"PATH=" + dir}},
			{Executable: "./own-shell", Cwd: dir},
		} {
			named, shell := &processDiary{}, &processDiary{}
			_, _, err := SubprocessExec(co, func() SubprocessProtocol { return named }, "no-such-program", []string{"-c", say}, &o)
			check(t, err)
			_, _, err = SubprocessShell(co, func() SubprocessProtocol { return shell }, say, &o)
			check(t, err)
			if code := named.finished(t, co); code != 0 || named.out[1].String() != "no-such-program\n" {
				t.Errorf("%s: return code %d, output %q", o.Executable, code, named.out[1].String())
			}
			if code := shell.finished(t, co); code != 0 || shell.out[1].String() != o.Executable+"\n" {
				t.Errorf("shell %s: return code %d, output %q", o.Executable, code, shell.out[1].String())
			}
		}
	})
}

func TestAProgramThatCannotBeExecutedDoesNotHideOneBehindItInPath(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		file := func(content string) (dir string) {
			dir = t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "tool"), []byte(content), 0o700); err != nil {
				t.Fatal(err)
			}
			return dir
		}
		good := file("#!/bin/sh\necho good\n")
		for what, bad := range map[string]string{"no interpreter": "#!/nowhere/interpreter\n", "no program": "nothing"} {
			p := &processDiary{}
			o := SubprocessOptions{Env: []string{"PATH=" + file(bad) + ":" + good}}
			if _, _, err := SubprocessExec(co, func() SubprocessProtocol { return p }, "tool", nil, &o); err != nil {
				t.Errorf("%s: %v", what, err)
				continue
			}
			if code := p.finished(t, co); code != 0 || p.out[1].String() != "good\n" {
				t.Errorf("%s: return code %d, output %q", what, code, p.out[1].String())
			}
		}
		o := SubprocessOptions{Env: []string{"PATH=" + file("#!/nowhere/interpreter\n") + ":" + file("nothing")}}
		_, _, err := SubprocessExec(co, func() SubprocessProtocol { return &processDiary{} }, "tool", nil, &o)
		if !errors.Is(err, syscall.ENOEXEC) {
			t.Errorf("nothing that can be executed: %v", err)
		}
	})
}

func TestWantOfMemoryOrProcessesDoesNotMakeAnotherProgramOfThatName(t *testing.T) {
	defer func() { forkExecFile = syscall.ForkExec }()
	inTask(t, func(t *testing.T, co *loop.Coro) {
		first, second := t.TempDir(), t.TempDir()
		check(t, os.Symlink("/bin/true", filepath.Join(first, "tool")))
		check(t, os.Symlink("/bin/true", filepath.Join(second, "tool")))
		for _, want := range []error{syscall.EAGAIN, syscall.ENOMEM, syscall.EMFILE, syscall.ENFILE} {
			forkExecFile = func(file string, argv []string, attr *syscall.ProcAttr) (int, error) {
				if filepath.Dir(file) == first {
					return 0, want
				}
				return syscall.ForkExec(file, argv, attr)
			}
			p := &processDiary{}
			o := SubprocessOptions{Env: []string{"PATH=" + first + ":" + second}}
			_, _, err := SubprocessExec(co, func() SubprocessProtocol { return p }, "tool", nil, &o)
			if !errors.Is(err, want) {
				t.Errorf("got %v, want %v", err, want)
			}
			if err == nil {
				p.finished(t, co)
			}
		}
	})
}

// childrenLeft reports whether this process has children, ended or not.
func childrenLeft(t *testing.T) bool {
	t.Helper()
	var info unix.Siginfo
	err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	if err != nil && err != unix.ECHILD {
		t.Fatal(err)
	}
	return err == nil
}

func TestCancellingTheCreationKillsAndReapsTheChild(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		before := must2(leaktest.FDs())(t)
		for turns := range 12 {
			p := &processDiary{}
			var err error
			creating := co.Loop().Go(func(co *loop.Coro) error {
				env := append(os.Environ(), childEnv+"=cat", "GORACE=atexit_sleep_ms=0")
				_, _, err = SubprocessExec(co, func() SubprocessProtocol { return p }, "/proc/self/exe", nil, &SubprocessOptions{Env: env})
				return err
			})
			for range turns {
				if err := loop.Sleep(co, 0); err != nil {
					t.Fatal(err)
				}
			}
			creating.Cancel("enough")
			if _, werr := creating.Await(co); werr == nil {
				p.t.Close() // it was too late
			} else if !errors.Is(werr, loop.ErrCancelled) {
				t.Errorf("after %d turns: %v", turns, werr)
			}
			if len(p.events) > 0 {
				p.finished(t, co)
			}
			if childrenLeft(t) {
				t.Errorf("a child is left after a cancellation on turn %d", turns)
			}
		}
		noNewFDs(t, co, before)
	})
}

// noNewFDs waits until the process has the same descriptors as before.
func noNewFDs(t *testing.T, co *loop.Coro, before map[int]string) {
	t.Helper()
	until(t, co, "every descriptor is closed", func() bool { return maps.Equal(must2(leaktest.FDs())(t), before) })
}

func TestStdinCannotBePausedAndStdoutCannotBeWritten(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &processDiary{}
		tr := start(t, co, p, SubprocessOptions{Stderr: Inherit}, "cat")
		in, out := tr.PipeTransport(0), tr.PipeTransport(1)
		for what, err := range map[string]error{
			"pause stdin": in.PauseReading(), "resume stdin": in.ResumeReading(),
			"write stdout": out.Write([]byte("x")), "writelines stdout": out.Writelines(nil),
			"limits of stdout": out.SetWriteBufferLimits(1, 1), "end stdout": out.WriteEOF(),
		} {
			if !errors.Is(err, ErrUnsupported) || !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if in.IsReading() || !out.IsReading() || !in.CanWriteEOF() || out.CanWriteEOF() {
			t.Error("what the pipes say about themselves is wrong")
		}
		tr.Close()
		p.finished(t, co)
	})
}

func TestClosingTheLoopKillsAndReapsTheChildrenThatAreLeft(t *testing.T) {
	eachBackend(t, func(t *testing.T, name string) {
		before := must2(leaktest.Take())(t)
		l, err := loop.NewEventLoop(loop.WithBackend(name))
		if err != nil {
			t.Skipf("%s: %v", name, err)
		}
		p := &processDiary{}
		runTask(t, l, func(co *loop.Coro) error {
			start(t, co, p, SubprocessOptions{}, "cat")
			return nil
		})
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if childrenLeft(t) {
			t.Error("a child is left")
		}
		if leaks := before.Leaks(patience); len(leaks) != 0 {
			t.Errorf("left behind: %q", leaks)
		}
		p.t.Close() // must not crash
		if err := p.t.Kill(); err != nil {
			t.Errorf("Kill: %v", err)
		}
	})
}

// A program must not signal another user's processes, such as those of sudo.
func TestAChildThatMustNotBeKilledKeepsNobodyWaiting(t *testing.T) {
	eachBackend(t, func(t *testing.T, name string) {
		sendSignal = func(int, unix.Signal, *unix.Siginfo, int) error { return unix.EPERM }
		defer func() { sendSignal = unix.PidfdSendSignal }()
		l := ipcLoop(t, loop.WithBackend(name), loop.WithLogger(slog.New(slog.DiscardHandler)))
		p := &processDiary{}
		runTask(t, l, func(co *loop.Coro) error {
			reports(co) // that the child cannot be killed
			start(t, co, p, SubprocessOptions{}, "cat")
			if err := p.t.Kill(); !errors.Is(err, syscall.EPERM) {
				t.Errorf("Kill: %v", err)
			}
			var late SubprocessTransport
			failing := &processDiary{onMade: func(t SubprocessTransport) { late = t; co.Task().Cancel("enough") }}
			_, _, err := SubprocessExec(co, func() SubprocessProtocol { return failing }, "/bin/cat", nil, nil)
			if !errors.Is(err, loop.ErrCancelled) || late == nil {
				t.Errorf("SubprocessExec that is cancelled: %v", err)
			}
			return nil
		})
		check(t, l.Close()) // which closes the pipes that the children read from
		for limit := time.Now().Add(patience); childrenLeft(t); time.Sleep(time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatal("a child is left")
			}
		}
	})
}

func TestAChildIsWaitedForWhereWaitidIsForbidden(t *testing.T) {
	forbid.Alone(t, func(t *testing.T) {
		forbid.Calls(t, unix.EPERM, unix.SYS_WAITID)
		inTask(t, func(t *testing.T, co *loop.Coro) {
			p := &processDiary{}
			start(t, co, p, noPipes, "exit", "7")
			if code := p.finished(t, co); code != 7 {
				t.Errorf("return code %d", code)
			}
			p = &processDiary{}
			start(t, co, p, SubprocessOptions{}, "cat").Close()
			if code := p.finished(t, co); code != -int(syscall.SIGKILL) {
				t.Errorf("return code of what was killed: %d", code)
			}
			start(t, co, &processDiary{}, SubprocessOptions{}, "cat") // for the loop's Close
		})
		if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != unix.ECHILD {
			t.Errorf("a child is left: %d, %v", pid, err)
		}
	})
}

func TestAChildIsWaitedForThoughNeitherAWatchNorADescriptorIsLeft(t *testing.T) {
	forbid.Alone(t, func(t *testing.T) {
		runTask(t, ipcLoop(t, loop.WithBackend("epoll")), func(co *loop.Coro) error {
			forbid.Calls(t, unix.ENOMEM, unix.SYS_EPOLL_CTL)
			forbid.Flags(t, unix.EMFILE, unix.SYS_FCNTL, 1, unix.F_DUPFD_CLOEXEC&^7) // a bit that F_GETFL and the like have not
			p := &processDiary{}
			tr := start(t, co, p, SubprocessOptions{Stdout: DevNull, Stderr: DevNull}, "cat")
			tr.PipeTransport(0).Close() // which ends it
			if code := p.finished(t, co); code != 0 {
				t.Errorf("return code %d", code)
			}
			return nil
		})
		if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != unix.ECHILD {
			t.Errorf("a child is left: %d, %v", pid, err)
		}
	})
}

// The loop's Close may come long after another goroutine has reaped the child.
func TestWhoHasTheNumberOfAChildThatWasReapedIsLeftAlone(t *testing.T) {
	forbid.Alone(t, func(t *testing.T) {
		forbid.Calls(t, unix.EPERM, unix.SYS_WAITID)
		exit := func(status string) (pid, pidfd int) {
			s := &spawnSpec{program: "sh", argv: []string{"sh", "-c", "exit " + status}, env: os.Environ()}
			pid, pidfd, err := s.start()
			check(t, err)
			return pid, pidfd
		}
		first, pidfd := exit("0")
		if _, err := waitPID(first); err != nil {
			t.Fatal(err)
		}
		second, own := exit("7")
		defer unix.Close(own)
		killAndReap(second, pidfd)
		if code, err := waitPID(second); code != 7 || err != nil {
			t.Errorf("the other child: return code %d, %v", code, err)
		}
	})
}

func TestAClosedFileCannotBeInherited(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		r, _ := osPipe(t)
		check(t, r.Close())
		_, _, err := SubprocessExec(co, func() SubprocessProtocol { return &processDiary{} }, "/bin/true", nil, &SubprocessOptions{ExtraFiles: []*os.File{r}})
		if !errors.Is(err, os.ErrClosed) || !strings.Contains(err.Error(), "ExtraFiles[0]") {
			t.Errorf("SubprocessExec: %v", err)
		}
	})
}

func TestAStrayWakeDoesNotEndTheStartOfAChild(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &processDiary{}
		ok[loop.Handle](t)(co.Loop().CallSoon(co.Wake))
		tr := start(t, co, p, SubprocessOptions{}, "exit", "3")
		if tr.PID() <= 0 {
			t.Errorf("the child is %d", tr.PID())
		}
		if code := p.finished(t, co); code != 3 {
			t.Errorf("return code %d", code)
		}
	})
}

func TestClosingTheLoopWhileAChildIsBeingStartedLeavesNothing(t *testing.T) {
	eachBackend(t, func(t *testing.T, name string) {
		before := must2(leaktest.Take())(t)
		l, err := loop.NewEventLoop(loop.WithBackend(name))
		if err != nil {
			t.Skipf("%s: %v", name, err)
		}
		l.SetExceptionHandler(func(*loop.Loop, *loop.ExceptionContext) {}) // a pending task is destroyed
		var left error
		runTask(t, l, func(co *loop.Coro) error {
			l.Go(func(co *loop.Coro) error {
				_, _, left = SubprocessExec(co, func() SubprocessProtocol { return &processDiary{} }, "/bin/sh", []string{"-c", "exec sleep 1000"}, nil)
				return left
			})
			return loop.Sleep(co, 0)
		})
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if !errors.Is(left, loop.ErrLoopClosed) {
			t.Errorf("SubprocessExec on a loop that is closed: %v", left)
		}
		if leaks := before.Leaks(patience); len(leaks) != 0 {
			t.Errorf("left behind: %q", leaks)
		}
		for limit := time.Now().Add(patience); childrenLeft(t); time.Sleep(time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatal("a child is left")
			}
		}
	})
}

func TestSubprocessesWorkOnSeveralLoopsInThreadsOfTheirOwn(t *testing.T) {
	eachBackend(t, func(t *testing.T, name string) {
		var wg sync.WaitGroup
		for i := range 4 {
			l := ipcLoop(t, loop.WithBackend(name))
			wg.Go(func() {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				runTask(t, l, func(co *loop.Coro) error {
					for n := range 5 {
						p := &processDiary{}
						start(t, co, p, SubprocessOptions{}, "exit", fmt.Sprint(10*i+n))
						if code := p.finished(t, co); code != 10*i+n {
							t.Errorf("return code %d, want %d", code, 10*i+n)
						}
					}
					return nil
				})
			})
		}
		wg.Wait()
	})
}

func TestASignalToAChildDoesNotReachOurHandler(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		l, ours := co.Loop(), 0
		if err := l.AddSignalHandler(syscall.SIGUSR1, func() { ours++ }); err != nil {
			t.Fatal(err)
		}
		p := &processDiary{}
		tr := start(t, co, p, SubprocessOptions{Stdin: DevNull, Stderr: Inherit}, "usr1")
		p.untilOutput(t, co, "ready")
		if err := tr.SendSignal(syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		if code := p.finished(t, co); code != 0 || ours != 0 {
			t.Errorf("return code %d, our handler was called %d times", code, ours)
		}
		if was, err := l.RemoveSignalHandler(syscall.SIGUSR1); !was || err != nil {
			t.Errorf("RemoveSignalHandler: %v, %v", was, err)
		}
	})
}

func TestAnExitStatusThatSomebodyElseTookIs255AndWarnedAbout(t *testing.T) {
	inLoggedTask(t, func(t *testing.T, co *loop.Coro, log *logBuffer) {
		p := &processDiary{}
		tr := start(t, co, p, noPipes, "forever")
		if err := unix.Kill(tr.PID(), unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		// The loop stands still: this call, which waits, comes first.
		if _, err := unix.Wait4(tr.PID(), nil, 0, nil); err != nil {
			t.Fatal(err)
		}
		if code := p.finished(t, co); code != 255 || log.count(fmt.Sprint(tr.PID())) != 1 {
			t.Errorf("return code %d, %d warnings", code, log.count(fmt.Sprint(tr.PID())))
		}
	})
}

// loseWait makes the backend give up waiting for a child, as it does when the
// kernel has no memory for that.
func loseWait(t *testing.T, co *loop.Coro, p *Process) {
	t.Helper()
	p.loop.CancelOp(&p.wait)
	until(t, co, "the backend has given up", func() bool { return !p.wait.InFlight() })
	if _, ended := p.ReturnCode(); ended {
		t.Fatal("the child is said to have ended")
	}
}

func TestAChildThatTheBackendCannotWaitForIsWaitedForAllTheSame(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &processDiary{}
		tr := start(t, co, p, SubprocessOptions{Stderr: Inherit}, "cat")
		loseWait(t, co, tr.(*subprocess).proc)
		if err := tr.PipeTransport(0).Write([]byte("still here")); err != nil {
			t.Fatal(err)
		}
		p.untilOutput(t, co, "still here")
		tr.PipeTransport(0).Close()
		if code := p.finished(t, co); code != 0 {
			t.Errorf("return code %d", code)
		}
	})
}

func TestClosingTheLoopReapsAChildThatTheBackendCannotWaitFor(t *testing.T) {
	eachBackend(t, func(t *testing.T, name string) {
		l := ipcLoop(t, loop.WithBackend(name))
		runTask(t, l, func(co *loop.Coro) error {
			loseWait(t, co, start(t, co, &processDiary{}, noPipes, "forever").(*subprocess).proc)
			return nil
		})
		check(t, l.Close())
		if childrenLeft(t) {
			t.Error("a child is left")
		}
	})
}

func TestAPanicInPipeDataReceivedClosesThatPipeAndIsReported(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		all := reports(co)
		p := &processDiary{onData: func(int) { panic("no more") }}
		start(t, co, p, SubprocessOptions{Stdin: DevNull, Stderr: Inherit}, "both")
		p.finished(t, co)
		var pe *loop.PanicError
		if !errors.As(p.pipeErr[1], &pe) || pe.Value != "no more" {
			t.Errorf("the pipe was lost with %v", p.pipeErr[1])
		}
		if len(*all) != 1 || (*all)[0].Protocol != any(p) {
			t.Errorf("%d reports", len(*all))
		}
	})
}

func TestAPanicInOtherCallbacksOfAProcessIsReportedAndEverythingGoesOn(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		all := reports(co)
		p := &processDiary{
			onMade: func(SubprocessTransport) { panic("made") },
			onExit: func() { panic("exited") },
		}
		start(t, co, p, SubprocessOptions{}, "both")
		p.finished(t, co)
		if len(*all) != 2 || p.out[1].String() != "to stdout" {
			t.Errorf("%d reports, stdout %q", len(*all), p.out[1].String())
		}
	})
}

func TestDebugModeWarnsWhenCloseKillsAProcessAndNeverShowsItsArguments(t *testing.T) {
	inLoggedTask(t, func(t *testing.T, co *loop.Coro, log *logBuffer) {
		for _, debug := range []bool{false, true} {
			p := &processDiary{}
			tr := start(t, co, p, noPipes, "forever", "secret")
			co.Loop().SetDebug(debug)
			tr.Close()
			p.finished(t, co)
			co.Loop().SetDebug(false)
			if n := log.count("kills it"); n != map[bool]int{false: 0, true: 1}[debug] {
				t.Errorf("debug %v: %d warnings", debug, n)
			}
		}
		if log.count("secret") != 0 {
			t.Error("an argument was logged")
		}
	})
}

func TestOfSeveralVariablesOfOneNameTheLastCounts(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &processDiary{}
		_, _, err := SubprocessExec(co, func() SubprocessProtocol { return p }, "env", nil,
			&SubprocessOptions{Env: []string{"A=old", "PATH=/nowhere", "B=b", "A=new", "PATH=/usr/bin:/bin"}})
		check(t, err)
		p.finished(t, co)
		if got := p.out[1].String(); got != "B=b\nA=new\nPATH=/usr/bin:/bin\n" {
			t.Errorf("the child has %q", got)
		}
	})
}

func TestAChildDoesNotKeepItsOwnInputOpenWhenOurOutputIsClosed(t *testing.T) {
	eachBackend(t, func(t *testing.T, name string) {
		l := ipcLoop(t, loop.WithBackend(name))
		runTask(t, l, func(co *loop.Coro) error { return nil }) // the loop has its descriptors
		var saved [3]int
		for fd := 1; fd <= 2; fd++ {
			saved[fd] = must2(unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3))(t)
			check(t, unix.Close(fd))
		}
		var code int
		var err error
		runTask(t, l, func(co *loop.Coro) error {
			var tr SubprocessTransport
			tr, _, err = SubprocessExec(co, func() SubprocessProtocol { return &processDiary{} }, "cat", nil, &SubprocessOptions{Stdout: DevNull, Stderr: Inherit})
			if err != nil {
				return nil
			}
			tr.PipeTransport(0).Close() // the end of its input
			code, err = tr.Wait(co)
			return loop.Sleep(co, 0)
		})
		for fd := 1; fd <= 2; fd++ {
			check(t, unix.Dup3(saved[fd], fd, 0))
			check(t, unix.Close(saved[fd]))
		}
		if code != 0 || err != nil {
			t.Errorf("cat: %d, %v", code, err)
		}
	})
}

// A program that has closed its standard input gives the number away.
func TestAChildDoesNotInheritWhatHasTheNumberOfAStreamThatIsClosed(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		r, w := osPipe(t)
		writeString(t, w, "not for the child")
		closeFile(t, w)
		saved := must2(unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 3))(t)
		check(t, unix.Dup3(int(r.Fd()), 0, unix.O_CLOEXEC))
		p := &processDiary{}
		start(t, co, p, SubprocessOptions{Stdin: Inherit}, "cat")
		code := p.finished(t, co)
		check(t, unix.Dup3(saved, 0, 0))
		check(t, unix.Close(saved))
		if out := p.out[1].String(); code != 0 || out != "" {
			t.Errorf("cat returned %d, %q", code, out)
		}
	})
}

func TestAFileIsBlockingForTheChild(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		r, w := fifo(t) // opened with O_NONBLOCK
		p := &processDiary{}
		tr, _, err := SubprocessExec(co, func() SubprocessProtocol { return p }, "cat", nil, &SubprocessOptions{Stdin: FromFile(r)})
		check(t, err)
		check(t, onFD(r, func(fd int) error {
			if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK != 0 {
				t.Errorf("flags %#x, %v", flags, err)
			}
			return nil
		}))
		writeString(t, w, "hello")
		closeFile(t, w)
		if code := p.finished(t, co); code != 0 || p.out[1].String() != "hello" {
			t.Errorf("%v returned %d, %q", tr, code, p.out[1].String())
		}
	})
}
