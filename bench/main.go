// Command bench compares echo servers: ours, Go's peers, uvloop, libuv and two
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
	"time"

	"github.com/seed-80cfe818/ringloop/bench/load"
)

func main() {
	run := compare
	args := os.Args[1:]
	if len(args) > 0 && args[0] == "load" {
		run, args = makeLoad, args[1:]
	}
	if err := run(args); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
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
	if err := fs.Parse(args); err != nil {
		return err
	}
	list, err := parseCPUs(*cpus)
	if err != nil {
		return err
	}
	cfg.CPUs = list
	runtime.GOMAXPROCS(len(list) + 1)
	res, err := load.Run(cfg)
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
