package load

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// BuildRing builds the client in C, whose source is c/client.c, as exe, and
// makes sure that it can have an io_uring. The error says what is missing.
func BuildRing(source, exe string) error {
	for _, c := range []*exec.Cmd{exec.Command("gcc", "-O2", "-Wall", "-o", exe, source, "-luring"), exec.Command(exe)} {
		if out, err := c.CombinedOutput(); err != nil {
			return fmt.Errorf("load: %s: %w: %s", c, err, bytes.TrimSpace(out))
		}
	}
	return nil
}

// RunRing is Run by the client in C, exe, with a process for every thread.
func RunRing(exe string, cfg Config) (*Result, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	_, port, err := net.SplitHostPort(cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	ctx, kill := context.WithTimeout(context.Background(), cfg.Limit())
	defer kill()
	var all []*ringProcess
	defer func() {
		kill()
		for _, p := range all {
			_ = p.cmd.Wait() // for the second time, if it is an error
		}
	}()
	for i, cpu := range cfg.CPUs[:min(len(cfg.CPUs), cfg.Connections)] {
		p, err := startRing(ctx, exe, port, cpu, cfg.share(i), cfg)
		if err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	for _, p := range all {
		if line, err := p.out.ReadString('\n'); line != "connected\n" {
			return nil, p.failed(err)
		}
	}
	if cfg.Connected != nil {
		cfg.Connected()
	}
	for _, p := range all {
		_ = p.in.Close() // now it begins
	}
	var h Histogram
	res := &Result{}
	for _, p := range all {
		if err := p.collect(res, &h); err != nil {
			return nil, p.failed(err)
		}
		if err := p.cmd.Wait(); err != nil { // what it wrote may be cut short
			return nil, fmt.Errorf("load: %s: %w", p.cmd, err)
		}
	}
	res.quantiles(&h)
	return res, nil
}

// ringProcess is a client that runs.
type ringProcess struct {
	cmd  *exec.Cmd
	in   io.Closer
	out  *bufio.Reader
	errs bytes.Buffer
}

func startRing(ctx context.Context, exe, port string, cpu, connections int, cfg Config) (*ringProcess, error) {
	p := &ringProcess{}
	p.cmd = exec.CommandContext(ctx, "taskset", "-c", strconv.Itoa(cpu), exe, port, strconv.Itoa(connections), strconv.Itoa(cfg.Size),
		strconv.Itoa(cfg.Depth), strconv.FormatInt(cfg.Warmup.Milliseconds(), 10), strconv.FormatInt(cfg.Duration.Milliseconds(), 10))
	p.cmd.Stderr = &p.errs
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, outErr := p.cmd.StdoutPipe()
	in, inErr := p.cmd.StdinPipe()
	if err := errors.Join(outErr, inErr); err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	p.in, p.out = in, bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	return p, nil
}

// failed is why the process did not do what it should have done: what it says
// itself, if it says something.
func (p *ringProcess) failed(err error) error {
	waitErr := p.cmd.Wait()
	if said := strings.TrimSpace(p.errs.String()); said != "" {
		return errors.New(said)
	}
	return fmt.Errorf("load: %s: %w", p.cmd, errors.Join(err, waitErr))
}

// collect reads what the process counted and adds it to the results.
func (p *ringProcess) collect(res *Result, h *Histogram) error {
	var messages, total, ns, mismatches, us, n uint64
	if _, err := fmt.Fscanln(p.out, &messages, &total, &ns, &mismatches); err != nil {
		return err
	}
	for {
		_, err := fmt.Fscanln(p.out, &us, &n)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		h.AddMany(us*1000, n)
	}
	res.Messages += messages
	res.Total += total
	res.Mismatches += mismatches
	res.Seconds = max(res.Seconds, float64(ns)/1e9)
	return nil
}
