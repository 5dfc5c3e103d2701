// Command bench compares Ringloop with Go's peers, uvloop, libuv, nginx and two
// floors in C. See README.md.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/seed-80cfe818/ringloop/bench/load"
)

// command is one of the comparisons.
type command struct {
	name string
	run  func(args []string) error
	what string
}

func commands() []command {
	return []command{
		{"echo", compareEcho, "echo servers under every shape of load"},
		{"calls", compareCalls, "system calls and allocations per message"},
		{"idle", compareIdle, "memory of idle connections"},
		{"accept", compareAccept, "connections a second"},
		{"http", compareHTTP, "files over HTTP, by wrk"},
		{"tls", compareTLS, "echo over TLS"},
		{"udp", compareUDP, "echo of packets"},
		{"loop", compareLoop, "callbacks, timers and tasks"},
	}
}

func main() {
	if err := raiseFileLimit(); err != nil {
		fmt.Fprintln(os.Stderr, "bench: the limit of open files stays as it is:", err)
	}
	if err := dispatch(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// raiseFileLimit lets the processes that this one starts have as many open files
// as they may. Go does so for itself, but starts others with what it had.
func raiseFileLimit() error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	limit.Cur = limit.Max
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
}

// dispatch runs the sub-command, or all of them with their defaults.
func dispatch(args []string) error {
	if len(args) == 0 {
		for _, c := range commands() {
			if err := c.run(nil); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
		}
		return nil
	}
	switch args[0] { // the processes that this one starts
	case "load":
		return makeLoad(args[1:])
	case "micro":
		return makeMicro(args[1:])
	}
	for _, c := range commands() {
		if c.name == args[0] {
			return c.run(args[1:])
		}
	}
	var b strings.Builder
	for _, c := range commands() {
		fmt.Fprintf(&b, "\n  %-7s %s", c.name, c.what)
	}
	return fmt.Errorf("no sub-command %q; without one, all of these run:%s", args[0], b.String())
}

// makeLoad is the client, a process of its own so that it can be pinned.
func makeLoad(args []string) error {
	var cfg load.Config
	fs := flag.NewFlagSet("load", flag.ExitOnError)
	fs.StringVar(&cfg.Addr, "addr", "127.0.0.1:7777", "`address` of the echo server")
	fs.IntVar(&cfg.Connections, "c", 50, "connections")
	fs.IntVar(&cfg.Size, "size", 512, "`bytes` of a message")
	fs.IntVar(&cfg.Depth, "depth", 1, "messages under way per connection")
	fs.DurationVar(&cfg.Warmup, "warmup", 300*time.Millisecond, "not counted")
	fs.DurationVar(&cfg.Duration, "d", time.Second, "counted")
	cpus := fs.String("cpus", "1", "processors, one thread on each")
	kind := fs.String("kind", "echo", "echo, tls or storm")
	if err := fs.Parse(args); err != nil {
		return err
	}
	list, err := parseCPUs(*cpus)
	if err != nil {
		return err
	}
	cfg.CPUs = list
	threads := len(list)
	if *kind == "echo" {
		threads++ // its workers block theirs
	}
	runtime.GOMAXPROCS(threads)
	run, known := map[string]func(load.Config) (*load.Result, error){"echo": load.Run, "tls": load.RunTLS, "storm": load.RunStorm}[*kind]
	if !known {
		return fmt.Errorf("no kind of load %q", *kind)
	}
	res, err := run(cfg)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(res)
}

func parseCPUs(s string) (cpus []int, err error) {
	for _, f := range strings.Split(s, ",") {
		n, err := strconv.Atoi(f)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("processor %q is no number", f)
		}
		cpus = append(cpus, n)
	}
	return cpus, nil
}
