//go:build integration

package integration

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// result is how a step of a plan went.
type result struct {
	output []byte
	ended  bool
	exit   int
	took   time.Duration
	err    string
	kernel []string
}

// check fails the test unless the step was a suite that went well.
func (r *result) check(t *testing.T, refusal Refusal) {
	t.Helper()
	r.wantEnded(t)
	t.Logf("took %v", r.took.Round(time.Millisecond))
	check(t, r.output, r.exit, refusal)
}

// wantEnded fails the test unless the step ran to its end and left the kernel's
// log clean.
func (r *result) wantEnded(t *testing.T) {
	t.Helper()
	if r == nil {
		t.Fatal("the machine has not reported on this step")
	}
	for _, line := range r.kernel {
		t.Errorf("kernel log: %s", line)
	}
	if r.err != "" {
		t.Errorf("%s; the last of its output:\n%s", r.err, tail(r.output, 4000))
	}
	if !r.ended {
		t.Fatalf("the machine stopped during this step; the last of its output:\n%s", tail(r.output, 4000))
	}
}

// machine is what qemu emulates.
type machine struct {
	qemu []string // the command, with the second serial port on its standard streams
	// console is the first serial port, report the second.
	console, report string
}

// machines has a machine for each architecture.
var machines = map[string]machine{
	// It has AES, but no AVX, which programs would choose though its emulation takes
	// them several times as long.
	"amd64": {[]string{"qemu-system-x86_64", "-cpu", "Westmere", "-serial", "CONSOLE", "-serial", "stdio"}, "ttyS0", "/dev/ttyS1"},
	// It has a serial port of its own, and one in a slot.
	"arm64": {[]string{"qemu-system-aarch64", "-M", "virt", "-cpu", "neoverse-n1", "-serial", "CONSOLE",
		"-chardev", "stdio,id=report", "-device", "pci-serial,chardev=report"}, "ttyAMA0", "/dev/ttyS0"},
}

// command starts the machine; what the kernel writes goes to the file console. The
// kernel does nothing against attacks on processors, which would cost a third, and
// leaves the second processor to vminit.
func (m machine) command(ctx context.Context, kernel, initrd, console string) *exec.Cmd {
	args := []string{"-accel", "tcg,thread=multi", "-smp", "2", "-m", "2048", "-nodefaults", "-display", "none", "-no-reboot",
		"-kernel", kernel, "-initrd", initrd, "-append", "console=" + m.console + " loglevel=5 panic=-1 mitigations=off maxcpus=1"}
	for _, a := range m.qemu[1:] {
		args = append(args, strings.Replace(a, "CONSOLE", "file:"+console, 1))
	}
	return exec.CommandContext(ctx, m.qemu[0], args...)
}

// boot starts the kernel on a machine of its architecture with root as its initial
// file system, lets it carry out the plan, and returns the results by step.
func boot(t *testing.T, root, kernel string, plan Plan) map[string]*result {
	t.Helper()
	m := machines[archOf(kernel)]
	plan.Report = m.report
	limit := 2 * time.Minute
	for _, s := range plan.Steps {
		limit += s.Limit
	}
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	work := t.TempDir()
	console := filepath.Join(work, "console")
	cmd := m.command(ctx, kernel, packInitramfs(t, root, work, plan), console)
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	results, err := readReport(stdout)
	waitErr := cmd.Wait()
	t.Logf("the machine ran for %v", time.Since(start).Round(time.Millisecond))
	if err != nil || waitErr != nil {
		log, _ := os.ReadFile(console)
		t.Errorf("report of the machine: %v; qemu: %v; the last of the console:\n%s", err, waitErr, tail(log, 4000))
	}
	return results
}

// errNotDone: the machine stopped before its report was complete.
var errNotDone = errors.New("the report ends before the last step")

// readReport gathers the events of vminit. What came before an error is
// returned with it.
func readReport(r io.Reader) (map[string]*result, error) {
	results := map[string]*result{}
	d := json.NewDecoder(r)
	for {
		var e Event
		if err := d.Decode(&e); errors.Is(err, io.EOF) {
			return results, errNotDone
		} else if err != nil {
			return results, err
		}
		if e.Done {
			_, err := io.Copy(io.Discard, r)
			return results, err
		}
		res := results[e.Step]
		if res == nil {
			res = &result{}
			results[e.Step] = res
		}
		res.output = append(res.output, e.Output...)
		if e.Kernel != "" {
			res.kernel = append(res.kernel, e.Kernel)
		}
		if e.Ended {
			res.ended, res.exit, res.took, res.err = true, e.Exit, e.Took, e.Err
		}
	}
}

// packInitramfs writes the archive that the kernel unpacks: the machine's files
// and, as a second archive behind them, the plan.
func packInitramfs(t *testing.T, root, work string, plan Plan) string {
	t.Helper()
	writeFile(t, filepath.Join(work, "plan", PlanFile), encode(t, plan))
	name := filepath.Join(work, "initramfs")
	archive, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer archive.Close()
	pack(t, root, archive)
	pack(t, filepath.Join(work, "plan"), archive)
	return name
}

// pack writes everything in a folder to an archive.
func pack(t *testing.T, dir string, archive *os.File) {
	t.Helper()
	var names strings.Builder
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(dir, path)
		names.WriteString(rel + "\n")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("cpio", "--quiet", "-o", "-H", "newc", "-R", "0:0")
	cmd.Dir = dir
	cmd.Stdin = strings.NewReader(names.String())
	cmd.Stdout = archive
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("cpio: %v", err)
	}
}
