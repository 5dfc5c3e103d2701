package backendtest

import (
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/seed-80cfe818/ringloop/backend"
	"golang.org/x/sys/unix"
)

// childEnv makes the test binary a child process of the suite, which needs no
// other program.
const childEnv = "RINGLOOP_BACKENDTEST_CHILD"

func init() {
	switch what := os.Getenv(childEnv); {
	case what == "wait":
		for {
			unix.Pause()
		}
	case what != "":
		code, err := strconv.Atoi(what)
		if err != nil {
			code = 99
		}
		os.Exit(code)
	}
}

// child starts a child process that exits with a number or, for "wait", runs
// until it is killed, and returns its pidfd.
func (d *driver) child(what string) (pid, pidfd int) {
	d.t.Helper()
	d.mustExist("/proc/self/exe")
	pidfd = -1
	pid, err := syscall.ForkExec("/proc/self/exe", []string{"child"}, &syscall.ProcAttr{
		Env:   []string{childEnv + "=" + what, "GOCOVERDIR=" + os.TempDir()},
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{PidFD: &pidfd, Pdeathsig: syscall.SIGKILL},
	})
	d.ok(err, "starting a child process")
	if pidfd < 0 {
		d.t.Fatal("the kernel gave no pidfd")
	}
	return pid, d.own(pidfd)
}

// kill ends the child with SIGKILL.
func (d *driver) kill(pidfd int) {
	d.t.Helper()
	d.ok(unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0), "killing the child")
}

// reap waits for the child with a plain system call, and leaves it a zombie if
// options has WNOWAIT.
func (d *driver) reap(pidfd, options int) {
	d.t.Helper()
	for {
		err := unix.Waitid(unix.P_PIDFD, pidfd, nil, unix.WEXITED|options, nil)
		if err != unix.EINTR {
			d.ok(err, "waitid")
			return
		}
	}
}

func waitidTests() []test {
	return single("waitid", []test{
		{name: "the exit status is reported and the child is reaped", fn: waitidExit},
		{name: "the signal is reported", fn: waitidSignal},
		{name: "a child that is dead already is reported", fn: waitidDead},
		{name: "several children at once", fn: waitidMany},
		{name: "cancelling leaves the child to the next", fn: waitidCancel},
		{name: "of two waiters one gets the child", fn: waitidTwo},
		{name: "a process that is no child is ECHILD", fn: waitidNoChild},
		{name: "closing the pidfd ends it", fn: waitidClose},
	})
}

const (
	cldExited = 1
	cldKilled = 2
)

func (d *driver) wantChild(o *op, want backend.Child) {
	d.t.Helper()
	d.wantN(o, 0)
	if o.Ext.Child != want {
		d.t.Errorf("%s: %+v, want %+v", o, o.Ext.Child, want)
	}
}

func waitidExit(d *driver) {
	for _, code := range []int{0, 7, 255} {
		pid, pidfd := d.child(strconv.Itoa(code))
		o := d.submit(d.waitid(pidfd))
		d.wantChild(o, backend.Child{PID: pid, Code: cldExited, Status: code})
		d.wantErr(d.submit(o), unix.ECHILD)
	}
}

func waitidSignal(d *driver) {
	pid, pidfd := d.child("wait")
	o := d.submit(d.waitid(pidfd))
	d.pending(o)
	d.kill(pidfd)
	d.wantChild(o, backend.Child{PID: pid, Code: cldKilled, Status: int(unix.SIGKILL)})
}

func waitidDead(d *driver) {
	pid, pidfd := d.child("3")
	d.reap(pidfd, unix.WNOWAIT)
	d.wantChild(d.submit(d.waitid(pidfd)), backend.Child{PID: pid, Code: cldExited, Status: 3})
}

func waitidMany(d *driver) {
	const n = 6
	var ops [n]*op
	var pids, fds [n]int
	for i := range n {
		pids[i], fds[i] = d.child("wait")
		ops[i] = d.submit(d.waitid(fds[i]))
	}
	d.pending(ops[:]...)
	for i := n - 1; i >= 0; i-- {
		d.kill(fds[i])
	}
	for i, o := range ops {
		d.wantChild(o, backend.Child{PID: pids[i], Code: cldKilled, Status: int(unix.SIGKILL)})
	}
}

func waitidCancel(d *driver) {
	pid, pidfd := d.child("wait")
	o := d.submit(d.waitid(pidfd))
	d.pending(o)
	d.cancel(o)
	d.wantErr(o, unix.ECANCELED)
	d.kill(pidfd)
	d.wantChild(d.submit(o), backend.Child{PID: pid, Code: cldKilled, Status: int(unix.SIGKILL)})
}

func waitidTwo(d *driver) {
	_, pidfd := d.child("wait")
	a, b := d.submit(d.waitid(pidfd)), d.submit(d.waitid(pidfd))
	d.pending(a, b)
	d.kill(pidfd)
	got := []string{d.outcome(a).Errno.Error(), d.outcome(b).Errno.Error()}
	ok := a.last.Errno == 0 && b.last.Errno == unix.ECHILD || a.last.Errno == unix.ECHILD && b.last.Errno == 0
	if !ok {
		d.t.Errorf("the outcomes are %s", strings.Join(got, " and "))
	}
}

func waitidNoChild(d *driver) {
	pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
	d.ok(err, "pidfd_open")
	d.own(pidfd)
	d.wantErr(d.submit(d.waitid(pidfd)), unix.ECHILD)
}

func waitidClose(d *driver) {
	_, pidfd := d.child("wait")
	dup, err := unix.FcntlInt(uintptr(pidfd), unix.F_DUPFD_CLOEXEC, 0)
	d.ok(err, "dup")
	d.own(dup)
	o := d.submit(d.waitid(pidfd))
	d.pending(o)
	d.disown(pidfd)
	d.wantN(d.submit(d.closeOp(pidfd)), 0)
	d.wantErr(o, unix.ECANCELED)
	d.kill(dup)
	d.reap(dup, 0)
}
