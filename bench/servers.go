package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// candidate is a server of the comparison.
type candidate struct {
	name  string
	kind  string // ours, go, floor, c or python
	build []string
	run   []string // with PORT in place of the port
	env   []string
}

// candidates are all servers, built into bin by their build commands.
func candidates(bin string) []candidate {
	goServer := func(name, kind, pkg string, args ...string) candidate {
		exe := filepath.Join(bin, pkg)
		return candidate{name: name, kind: kind, build: []string{"go", "build", "-o", exe, "./servers/" + pkg}, run: append([]string{exe, "PORT"}, args...)}
	}
	cServer := func(name, kind, source string, libs []string, args ...string) candidate {
		exe := filepath.Join(bin, source)
		build := append([]string{"gcc", "-O2", "-Wall", "-o", exe, "servers/c/" + source + ".c"}, libs...)
		return candidate{name: name, kind: kind, build: build, run: append([]string{exe, "PORT"}, args...)}
	}
	python := func(name string) candidate {
		return candidate{name: name, kind: "python", build: []string{"/usr/bin/python3", "-c", "import " + name}, run: []string{"/usr/bin/python3", "servers/python/echo.py", "PORT", name}}
	}
	return []candidate{
		goServer("ringloop callbacks", "ours", "ringloop-callbacks", "io_uring"),
		goServer("ringloop tasks", "ours", "ringloop-tasks", "io_uring"),
		goServer("ringloop callbacks epoll", "ours", "ringloop-callbacks", "epoll"),
		goServer("ringloop tasks epoll", "ours", "ringloop-tasks", "epoll"),
		goServer("net", "go", "net"),
		goServer("gnet", "go", "gnet"),
		goServer("netpoll", "go", "netpoll"),
		goServer("nbio", "go", "nbio"),
		cServer("C io_uring 4K", "floor", "uring_floor", []string{"-luring"}, "4096", "1024"),
		cServer("C io_uring 64K", "floor", "uring_floor", []string{"-luring"}, "65536", "64"),
		cServer("C epoll", "floor", "epoll_floor", nil),
		cServer("libuv", "c", "uv_echo", []string{"-luv"}),
		python("uvloop"),
		python("asyncio"),
	}
}

// pickCandidates returns those whose names are listed, all for an empty list.
func pickCandidates(all []candidate, list string) ([]candidate, error) {
	if list == "" {
		return all, nil
	}
	var picked []candidate
	for _, name := range strings.Split(list, ",") {
		found := false
		for _, c := range all {
			if c.name == name {
				picked, found = append(picked, c), true
			}
		}
		if !found {
			return nil, fmt.Errorf("no server %q", name)
		}
	}
	return picked, nil
}

// prepare builds a server, or says what is missing for it.
func (c *candidate) prepare() error {
	out, err := exec.Command(c.build[0], c.build[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %v: %s", strings.Join(c.build, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// process is a server that runs.
type process struct {
	cmd  *exec.Cmd
	addr string
}

// start runs a server on processors of its own and waits until it accepts
// connections.
func (c *candidate) start(cpus string, cores int, wrap ...string) (*process, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	args := append([]string{"taskset", "-c", cpus}, wrap...)
	for _, a := range c.run {
		args = append(args, strings.ReplaceAll(a, "PORT", strconv.Itoa(port)))
	}
	p := &process{cmd: exec.Command(args[0], args[1:]...), addr: fmt.Sprintf("127.0.0.1:%d", port)}
	p.cmd.Env = append(os.Environ(), "GOMAXPROCS="+strconv.Itoa(cores))
	p.cmd.Env = append(p.cmd.Env, c.env...)
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("tcp4", p.addr)
		if err == nil {
			_ = conn.Close()
			return p, nil
		}
	}
	p.stop()
	return nil, errors.New(c.name + " does not accept connections")
}

func (p *process) stop() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait() // killed, so that there is always an error
}

func freePort() (int, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// cpuSeconds returns the processor time that the server has used.
func (p *process) cpuSeconds() (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(f) < 13 {
		return 0, fmt.Errorf("unexpected stat of process %d: %q", p.cmd.Process.Pid, b)
	}
	user, err1 := strconv.ParseFloat(f[11], 64)
	sys, err2 := strconv.ParseFloat(f[12], 64)
	const ticks = 100 // USER_HZ is 100 on every Linux that Go supports
	return (user + sys) / ticks, errors.Join(err1, err2)
}

// rssBytes returns the server's resident memory.
func (p *process) rssBytes() (float64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	f := strings.Fields(string(b))
	if len(f) < 2 {
		return 0, fmt.Errorf("unexpected statm: %q", b)
	}
	pages, err := strconv.ParseFloat(f[1], 64)
	return pages * float64(os.Getpagesize()), err
}
