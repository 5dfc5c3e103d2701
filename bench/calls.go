package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/seed-80cfe818/ringloop/bench/load"
)

// callCount is what one message costs a server in system calls and in heap
// allocations; a negative number says that it was not measured.
type callCount struct {
	Server, Shape  string
	Calls, Allocs  float64
	MostOften      string // the system calls, by number
	TracedMessages uint64
}

// compareCalls counts system calls and allocations, each in a run of its own:
// strace slows everything down, so rates are taken elsewhere.
func compareCalls(args []string) error {
	s := settings{name: "calls", rounds: 1, duration: 200 * time.Millisecond, shapes: "50x512,1000x512,50x(16x512),200x16K"}
	if err := s.parse(args); err != nil {
		return err
	}
	list, err := pickShapes(shapes, s.shapes)
	if err != nil {
		return err
	}
	servers, missing, err := build(candidates("bin"), s.servers)
	if err != nil {
		return err
	}
	if err := s.chooseClient(); err != nil {
		return err
	}
	_, straceErr := exec.LookPath("strace")
	if straceErr != nil {
		missing = append(missing, "strace")
	}
	var all []callCount
	for _, sh := range list {
		for i := range servers {
			c := &servers[i]
			n := callCount{Server: c.name, Shape: sh.String(), Calls: -1, Allocs: -1}
			if straceErr == nil {
				if err := n.trace(&s, c, sh); err != nil {
					s.fail(fmt.Sprintf("strace of %s under %s", c.name, sh), err)
				}
			}
			if c.kind == "ours" || c.kind == "go" {
				if n.Allocs, err = countAllocs(&s, c, sh); err != nil {
					s.fail(fmt.Sprintf("allocations of %s under %s", c.name, sh), err)
				}
			}
			all = append(all, n)
			fmt.Fprintf(os.Stderr, "%-12s %-26s %6.2f calls %6.3f allocations\n", sh, c.name, n.Calls, n.Allocs)
		}
	}
	return s.write(all, callTable(all, missing))
}

// trace counts the system calls of a run. Those of connecting are few.
func (n *callCount) trace(s *settings, c *candidate, sh shape) error {
	p, err := c.start(s.cpus, s.cores)
	if err != nil {
		return err
	}
	defer p.stop()
	var out bytes.Buffer
	tracer := exec.Command("strace", "-f", "-c", "-q", "-p", strconv.Itoa(p.cmd.Process.Pid))
	tracer.Stderr = &out
	tracer.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := tracer.Start(); err != nil {
		return err
	}
	for deadline := time.Now().Add(10 * time.Second); !p.traced() && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
	}
	res, loadErr := runLoad(s, p.addr, sh, func() {})
	_ = tracer.Process.Signal(os.Interrupt)
	_ = tracer.Wait() // it ends by the signal
	if loadErr != nil {
		return loadErr
	}
	calls, most, err := parseStrace(out.String())
	if err != nil {
		return err
	}
	n.TracedMessages = res.Total
	n.Calls, n.MostOften = float64(calls)/float64(res.Total), most
	return nil
}

// traced reports whether a tracer is attached to every thread.
func (p *process) traced() bool {
	dir := fmt.Sprintf("/proc/%d/task", p.cmd.Process.Pid)
	threads, err := os.ReadDir(dir)
	for _, t := range threads {
		b, readErr := os.ReadFile(dir + "/" + t.Name() + "/status")
		if readErr != nil || strings.Contains(string(b), "TracerPid:\t0\n") {
			return false
		}
	}
	return err == nil
}

// parseStrace reads the table of strace -c: all calls, and the three that are
// made most.
func parseStrace(s string) (total uint64, most string, err error) {
	type count struct {
		name string
		n    uint64
	}
	var top []count
	for line := range strings.Lines(s) {
		f := strings.Fields(line)
		if len(f) < 5 || f[len(f)-1] == "syscall" || f[len(f)-1] == "total" {
			continue
		}
		n, err := strconv.ParseUint(f[3], 10, 64)
		if err != nil {
			continue // a rule, or a message
		}
		total += n
		at := len(top)
		for at > 0 && top[at-1].n < n {
			at--
		}
		top = append(top[:at], append([]count{{f[len(f)-1], n}}, top[at:]...)...)
	}
	if total == 0 {
		return 0, "", fmt.Errorf("strace counted nothing: %q", s)
	}
	var names []string
	for _, c := range top[:min(3, len(top))] {
		names = append(names, c.name)
	}
	return total, strings.Join(names, ", "), nil
}

// countAllocs asks the server for its allocations twice while it is under load,
// when all have connected and nobody has left: connecting is no message. With an
// error it returns a negative number.
func countAllocs(s *settings, c *candidate, sh shape) (float64, error) {
	p, err := c.start(s.cpus, s.cores)
	if err != nil {
		return -1, err
	}
	defer p.stop()
	var res *load.Result
	loaded, connected := make(chan error, 1), make(chan struct{})
	tell := sync.OnceFunc(func() { close(connected) })
	go func() {
		var err error
		res, err = runLoad(s, p.addr, sh, tell)
		tell() // if it could not connect
		loaded <- err
	}()
	if s.client != "" { // the one in Go does not tell
		<-connected
	}
	time.Sleep(sh.warmup() + s.duration/3)
	from := time.Now()
	before, beforeErr := p.mallocs()
	time.Sleep(s.duration / 3)
	after, afterErr := p.mallocs()
	took := time.Since(from)
	if err := errors.Join(<-loaded, beforeErr, afterErr); err != nil {
		return -1, err
	}
	return (after - before) / (float64(res.Messages) / res.Seconds * took.Seconds()), nil
}

// mallocs asks a server written in Go how many objects it has allocated.
func (p *process) mallocs() (float64, error) {
	if err := p.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		return 0, err
	}
	for {
		line, err := p.out.ReadString('\n')
		if err != nil {
			return 0, err
		}
		if n, err := strconv.ParseFloat(strings.TrimSpace(line), 64); err == nil {
			return n, nil // and not a line of a log
		}
	}
}

func callTable(all []callCount, missing []string) string {
	var b strings.Builder
	b.WriteString("System calls counted by strace, allocations by the servers themselves, in runs of their own.\n")
	writeMissing(&b, missing)
	last := ""
	for _, n := range all {
		if n.Shape != last {
			last = n.Shape
			fmt.Fprintf(&b, "\n### %s\n\n| server | system calls per message | allocations per message | most often |\n|---|---|---|---|\n", n.Shape)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", n.Server, orDash(n.Calls, "%.3f"), orDash(n.Allocs, "%.4f"), n.MostOften)
	}
	return b.String()
}

// orDash formats a number that is negative if it was not measured.
func orDash(v float64, format string) string {
	if v < 0 {
		return "-"
	}
	return fmt.Sprintf(format, v)
}

func writeMissing(b *strings.Builder, missing []string) {
	if len(missing) > 0 {
		fmt.Fprintf(b, "Missing on this machine: %s.\n", strings.Join(missing, ", "))
	}
}
