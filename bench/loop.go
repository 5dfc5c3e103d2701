package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/seed-80cfe818/ringloop/bench/micro"
)

// runtimes are what the micro benchmarks compare; the first is ours.
var runtimes = []string{"io_uring", "epoll", "goroutines", "uvloop", "asyncio"}

// loopRound is what was measured in one round, by runtime.
type loopRound map[string]micro.Result

// compareLoop runs the micro benchmarks, each runtime in a process of its own
// on two processors: call_soon_threadsafe needs a second one.
func compareLoop(args []string) error {
	s := settings{name: "loop", rounds: 3, duration: 50 * time.Millisecond}
	if err := s.parse(args); err != nil {
		return err
	}
	var missing []string
	for _, name := range []string{"uvloop", "asyncio"} {
		if err := exec.Command("/usr/bin/python3", "-c", "import "+name).Run(); err != nil {
			missing = append(missing, name)
		}
	}
	var all []loopRound
	for round := range s.rounds {
		results := loopRound{}
		for i := range runtimes {
			name := runtimes[(i+round)%len(runtimes)]
			if slices.Contains(missing, name) {
				continue
			}
			res, err := runMicro(name, s.duration)
			if err != nil {
				s.fail(name, err)
				continue
			}
			results[name] = res
			fmt.Fprintf(os.Stderr, "loop round %d  %-12s %v\n", round, name, res)
		}
		all = append(all, results)
	}
	return s.write(all, microTable(all, missing))
}

func runMicro(name string, d time.Duration) (res micro.Result, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := []string{"-c", "0,1", self, "micro", name, d.String()}
	if name == "uvloop" || name == "asyncio" {
		args = []string{"-c", "0,1", "/usr/bin/python3", "servers/python/loop.py", name, fmt.Sprint(d.Seconds())}
	}
	cmd := exec.Command("taskset", args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, err
	}
	return res, json.Unmarshal(out, &res)
}

// makeMicro is one runtime of ours or of Go, a process of its own.
func makeMicro(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("micro RUNTIME DURATION, not %q", args)
	}
	d, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	var res micro.Result
	if args[0] == "goroutines" {
		res, err = micro.Goroutines(d)
	} else {
		res, err = micro.Loop(args[0], d)
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(res)
}

// microTable shows the median of every case, and how many times as long the
// others take as we do on io_uring, the median over the rounds.
func microTable(all []loopRound, missing []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Nanoseconds per operation, median of %d rounds; in brackets the median of the ratios to io_uring.\n", len(all))
	writeMissing(&b, missing)
	b.WriteString("\n| operation | " + strings.Join(runtimes, " | ") + " |\n|---|" + strings.Repeat("---|", len(runtimes)) + "\n")
	for _, c := range micro.Cases {
		fmt.Fprintf(&b, "| %s |", c)
		for _, name := range runtimes {
			var ns, ratios []float64
			for _, round := range all {
				base, v := round[runtimes[0]][c], round[name][c]
				if base > 0 && v > 0 {
					ns, ratios = append(ns, v), append(ratios, v/base)
				}
			}
			if len(ns) == 0 {
				b.WriteString(" - |")
				continue
			}
			fmt.Fprintf(&b, " %.0f (%.2f) |", median(ns), median(ratios))
		}
		b.WriteString("\n")
	}
	return b.String()
}
