package main

import (
	"bufio"
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
	// config is written to a file in dir, with the port in place of PORT; its
	// path takes the place of CONFIG in run.
	config, dir string
	packets     bool // it serves UDP
}

// goServer is a server in the folder pkg of servers.
func goServer(bin, name, kind, pkg string, args ...string) candidate {
	exe := filepath.Join(bin, pkg)
	return candidate{name: name, kind: kind, build: []string{"go", "build", "-o", exe, "./servers/" + pkg}, run: append([]string{exe, "PORT"}, args...)}
}

func cServer(bin, name, kind, source string, libs []string, args ...string) candidate {
	exe := filepath.Join(bin, source)
	build := append([]string{"gcc", "-O2", "-Wall", "-o", exe, "servers/c/" + source + ".c"}, libs...)
	return candidate{name: name, kind: kind, build: build, run: append([]string{exe, "PORT"}, args...)}
}

// python is an echo server of Debian's own Python.
func python(name string) candidate {
	return candidate{name: name, kind: "python", build: []string{"/usr/bin/python3", "-c", "import " + name}, run: []string{"/usr/bin/python3", "servers/python/echo.py", "PORT", name}}
}

// candidates are the echo servers, built into bin by their build commands.
func candidates(bin string) []candidate {
	return []candidate{
		goServer(bin, "ringloop callbacks", "ours", "ringloop-callbacks", "io_uring"),
		goServer(bin, "ringloop tasks", "ours", "ringloop-tasks", "io_uring"),
		goServer(bin, "ringloop callbacks epoll", "ours", "ringloop-callbacks", "epoll"),
		goServer(bin, "ringloop tasks epoll", "ours", "ringloop-tasks", "epoll"),
		goServer(bin, "net", "go", "net"),
		goServer(bin, "gnet", "go", "gnet"),
		goServer(bin, "netpoll", "go", "netpoll"),
		goServer(bin, "nbio", "go", "nbio"),
		cServer(bin, "C io_uring 4K", "floor", "uring_floor", []string{"-luring"}, "4096", "1024"),
		cServer(bin, "C io_uring 64K", "floor", "uring_floor", []string{"-luring"}, "65536", "64"),
		cServer(bin, "C epoll", "floor", "epoll_floor", nil),
		cServer(bin, "libuv", "c", "uv_echo", []string{"-luv"}),
		python("uvloop"),
		python("asyncio"),
	}
}

// udpCandidates are the echo servers for packets.
func udpCandidates(bin string) []candidate {
	floor := func(name, batch string) candidate { return cServer(bin, name, "floor", "udp_floor", nil, batch) }
	snake := func(name string) candidate {
		c := python(name)
		c.run[1] = "servers/python/udp.py"
		return c
	}
	all := []candidate{
		goServer(bin, "ringloop callbacks", "ours", "ringloop-udp", "io_uring"),
		goServer(bin, "ringloop tasks", "ours", "ringloop-udp-tasks", "io_uring"),
		goServer(bin, "ringloop callbacks epoll", "ours", "ringloop-udp", "epoll"),
		goServer(bin, "ringloop tasks epoll", "ours", "ringloop-udp-tasks", "epoll"),
		goServer(bin, "net", "go", "net-udp"),
		goServer(bin, "gnet", "go", "gnet-udp"),
		floor("C single", "1"),
		floor("C 16 a call", "16"),
		snake("uvloop"),
		snake("asyncio"),
	}
	for i := range all {
		all[i].packets = true
	}
	return all
}

// tlsCandidates are the echo servers over TLS.
func tlsCandidates(bin string) []candidate {
	return []candidate{
		goServer(bin, "ringloop TLS", "ours", "ringloop-tls", "io_uring"),
		goServer(bin, "ringloop TLS epoll", "ours", "ringloop-tls", "epoll"),
		goServer(bin, "net + crypto/tls", "go", "net-tls"),
	}
}

// fileCandidates are the servers of the files in dir.
func fileCandidates(bin, dir string) []candidate {
	ours := func(name, backend string) candidate {
		exe := filepath.Join(bin, "fileserver")
		return candidate{
			name: name, kind: "ours", build: []string{"go", "build", "-o", exe, "github.com/seed-80cfe818/ringloop/examples/fileserver"},
			run: []string{exe, "-q", "-root", dir, "-addr", "127.0.0.1:PORT", "-backend", backend},
		}
	}
	return []candidate{
		ours("ringloop fileserver", "io_uring"),
		ours("ringloop fileserver epoll", "epoll"),
		{name: "nginx", kind: "c", build: []string{"nginx", "-v"}, run: []string{"nginx", "-c", "CONFIG", "-p", dir}},
		goServer(bin, "net/http", "go", "nethttp", dir),
		goServer(bin, "fasthttp", "go", "fasthttp", dir),
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
	out  *bufio.Reader // what it writes
}

// start runs a server on processors of its own and waits until it answers.
func (c *candidate) start(cpus string, cores int) (*process, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	args := []string{"taskset", "-c", cpus}
	config := filepath.Join(c.dir, "config")
	if c.config != "" {
		text := strings.ReplaceAll(c.config, "PORT", strconv.Itoa(port))
		if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
			return nil, err
		}
	}
	for _, a := range c.run {
		a = strings.ReplaceAll(a, "PORT", strconv.Itoa(port))
		args = append(args, strings.ReplaceAll(a, "CONFIG", config))
	}
	p := &process{cmd: exec.Command(args[0], args[1:]...), addr: fmt.Sprintf("127.0.0.1:%d", port)}
	p.cmd.Env = append(os.Environ(), "GOMAXPROCS="+strconv.Itoa(cores))
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if c.answers(p.addr) {
			return p, nil
		}
	}
	p.stop()
	return nil, errors.New(c.name + " does not answer")
}

// answers reports whether the server accepts a connection, or sends a packet back.
func (c *candidate) answers(addr string) bool {
	if !c.packets {
		conn, err := net.Dial("tcp4", addr)
		if err != nil {
			return false
		}
		_ = conn.Close()
		return true
	}
	conn, err := net.Dial("udp4", addr)
	if err != nil {
		return false
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("?")); err != nil {
		return false
	}
	if err := conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
		return false
	}
	_, err = conn.Read(make([]byte, 1))
	return err == nil
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

// cpuSeconds returns the processor time that the server's threads have used.
func (p *process) cpuSeconds() (float64, error) {
	dir := fmt.Sprintf("/proc/%d/task", p.cmd.Process.Pid)
	threads, err := os.ReadDir(dir)
	if err != nil {
		return 0, err
	}
	total := 0.0
	for _, t := range threads {
		b, err := os.ReadFile(dir + "/" + t.Name() + "/schedstat")
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) {
			continue // the thread has ended
		}
		if err != nil {
			return 0, err
		}
		first, _, _ := strings.Cut(string(b), " ")
		ns, err := strconv.ParseFloat(first, 64)
		if err != nil {
			return 0, fmt.Errorf("unexpected schedstat: %q", b)
		}
		total += ns / 1e9
	}
	return total, nil
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
