// Command vminit is the init of the machines that TestKernels boots: it mounts
// what a test expects, brings the loopback interface up, runs the steps of the
// plan, reports over the second serial port and powers the machine off.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/integration"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "vminit: this is the init of a test machine and must be process 1")
		os.Exit(2)
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "vminit:", err)
	}
	unix.Sync()
	err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	fmt.Fprintln(os.Stderr, "vminit: power off:", err)
}

// run carries out the plan. Its error goes to the console and means that the
// report is incomplete.
func run() error {
	if err := mountAll(); err != nil {
		return err
	}
	plan, err := readPlan(integration.PlanFile)
	if err != nil {
		return err
	}
	rep, err := openReport(plan.Report)
	if err != nil {
		return err
	}
	if err := setUp(plan); err != nil {
		return err
	}
	log, err := openKernelLog()
	if err != nil {
		return err
	}
	for _, step := range plan.Steps {
		runStep(rep, step)
		log.report(rep, step.Name)
	}
	rep.send(integration.Event{Done: true})
	return rep.close()
}

// readPlan reads what is to be done.
func readPlan(name string) (integration.Plan, error) {
	var plan integration.Plan
	b, err := os.ReadFile(name)
	if err != nil {
		return plan, err
	}
	if err := json.Unmarshal(b, &plan); err != nil {
		return plan, fmt.Errorf("%s: %w", name, err)
	}
	return plan, nil
}

// mountAll mounts the file systems that the tests expect.
func mountAll() error {
	for _, m := range []struct{ fstype, target, data string }{
		{"devtmpfs", "/dev", ""},
		{"devpts", "/dev/pts", "ptmxmode=0666"},
		{"tmpfs", "/dev/shm", ""},
		{"proc", "/proc", ""},
		{"sysfs", "/sys", ""},
		{"tmpfs", "/tmp", "mode=1777"},
		{"tmpfs", "/run", ""},
	} {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		err := unix.Mount(m.fstype, m.target, m.fstype, 0, m.data)
		if err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s on %s: %w", m.fstype, m.target, err)
		}
	}
	return os.Symlink("/proc/self/fd", "/dev/fd")
}

// setUp makes the machine what the tests and the plan expect.
func setUp(plan integration.Plan) error {
	if err := startSecondProcessor(); err != nil {
		return err
	}
	if err := raiseLoopback(); err != nil {
		return err
	}
	files := uint64(1 << 16)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: files, Max: files}); err != nil {
		return fmt.Errorf("set the limit of open files to %d: %w", files, err)
	}
	for name, value := range plan.Sysctl {
		file := filepath.Join("/proc/sys", name)
		if err := os.WriteFile(file, []byte(value), 0); err != nil {
			return err
		}
	}
	return nil
}

// startSecondProcessor starts the one that the kernel was booted without: when a
// kernel changes its own code, as all of them do at the end of booting, an emulated
// processor may see a half of the change that nobody is to see, and the kernel stops
// with "Oops: int3".
func startSecondProcessor() error {
	return os.WriteFile("/sys/devices/system/cpu/cpu1/online", []byte("1"), 0)
}

// raiseLoopback brings the interface lo up, which gives it its addresses.
func raiseLoopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	return nil
}
