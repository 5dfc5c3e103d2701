package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/seed-80cfe818/ringloop/bench/load"
)

// measurement is one server under one shape in one round.
type measurement struct {
	Server, Kind, Shape string
	Round               int
	Rate                float64 // messages a second
	P50, P99, P999      float64 // microseconds
	CPU                 float64 // seconds per million messages
	RSS                 float64 // bytes after the run
	Mismatches          uint64
}

type settings struct {
	rounds   int
	duration time.Duration
	servers  string
	shapes   string
	cpus     string // of the server
	loadCPUs string
	cores    int
	out      string
}

func compare(args []string) error {
	var s settings
	fs := flag.NewFlagSet("bench", flag.ExitOnError)
	fs.IntVar(&s.rounds, "rounds", 5, "rounds, in each of which every server runs once per shape")
	fs.DurationVar(&s.duration, "d", time.Second, "counted time of a run")
	fs.StringVar(&s.servers, "servers", "", "servers to compare, by `name`, comma-separated")
	fs.StringVar(&s.shapes, "shapes", "", "shapes of load, by `name`, comma-separated")
	fs.IntVar(&s.cores, "cores", 1, "cores for the server; the others make the load")
	fs.StringVar(&s.out, "out", "results", "`directory` for the results")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if err := s.split(runtime.NumCPU()); err != nil {
		return err
	}
	list, err := pickShapes(s.shapes)
	if err != nil {
		return err
	}
	servers, missing, err := build(s.servers)
	if err != nil {
		return err
	}
	all, err := measure(&s, servers, list)
	if err != nil {
		return err
	}
	return report(&s, all, servers, list, missing)
}

// split gives the server the first cores and the load the others.
func (s *settings) split(cpus int) error {
	if s.cores < 1 || s.cores >= cpus {
		return fmt.Errorf("-cores %d: the server and the load need a core each, of %d", s.cores, cpus)
	}
	names := make([]string, cpus)
	for i := range names {
		names[i] = fmt.Sprint(i)
	}
	s.cpus, s.loadCPUs = strings.Join(names[:s.cores], ","), strings.Join(names[s.cores:], ",")
	return nil
}

// build builds the servers and tells which cannot be had here.
func build(names string) (servers []candidate, missing []string, err error) {
	if err := os.MkdirAll("bin", 0o755); err != nil {
		return nil, nil, err
	}
	picked, err := pickCandidates(candidates("bin"), names)
	if err != nil {
		return nil, nil, err
	}
	for _, c := range picked {
		if err := c.prepare(); err != nil {
			missing = append(missing, c.name)
			fmt.Fprintf(os.Stderr, "bench: %s is missing: %v\n", c.name, err)
			continue
		}
		servers = append(servers, c)
	}
	return servers, missing, nil
}

// measure runs every server once per shape and round. The order within a round
// changes, so that nobody always runs after the same neighbour.
func measure(s *settings, servers []candidate, list []shape) ([]measurement, error) {
	var all []measurement
	for _, sh := range list {
		for round := range s.rounds {
			for i := range servers {
				c := &servers[(i+round)%len(servers)]
				m, err := runOnce(s, c, sh)
				if err != nil {
					return nil, fmt.Errorf("%s under %s: %w", c.name, sh, err)
				}
				m.Round = round
				all = append(all, *m)
				fmt.Fprintf(os.Stderr, "%-12s round %d  %-26s %10.0f msg/s  p99 %8.0f us\n", sh, round, c.name, m.Rate, m.P99)
			}
		}
	}
	return all, nil
}

func runOnce(s *settings, c *candidate, sh shape) (*measurement, error) {
	p, err := c.start(s.cpus, s.cores)
	if err != nil {
		return nil, err
	}
	defer p.stop()
	before, err := p.cpuSeconds()
	if err != nil {
		return nil, err
	}
	res, err := runLoad(s, p.addr, sh)
	if err != nil {
		return nil, err
	}
	after, err := p.cpuSeconds()
	if err != nil {
		return nil, err
	}
	rss, err := p.rssBytes()
	if err != nil {
		return nil, err
	}
	total := float64(res.Messages) * (res.Seconds + warmup.Seconds()) / res.Seconds
	return &measurement{
		Server: c.name, Kind: c.kind, Shape: sh.String(), Rate: float64(res.Messages) / res.Seconds,
		P50: float64(res.P50) / 1e3, P99: float64(res.P99) / 1e3, P999: float64(res.P999) / 1e3,
		CPU: (after - before) / total * 1e6, RSS: rss, Mismatches: res.Mismatches,
	}, nil
}

const warmup = 300 * time.Millisecond

func runLoad(s *settings, addr string, sh shape) (*load.Result, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "load", "-addr", addr, "-c", fmt.Sprint(sh.Connections), "-size", fmt.Sprint(sh.Size),
		"-depth", fmt.Sprint(sh.Depth), "-warmup", warmup.String(), "-d", s.duration.String(), "-cpus", s.loadCPUs)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	var res load.Result
	if err := json.Unmarshal(out, &res); err != nil {
		return nil, fmt.Errorf("load: %w: %q", err, out)
	}
	if res.Mismatches > 0 {
		return nil, fmt.Errorf("%d bytes came back wrong", res.Mismatches)
	}
	return &res, nil
}

// report writes the table and the raw figures.
func report(s *settings, all []measurement, servers []candidate, list []shape, missing []string) error {
	if err := os.MkdirAll(s.out, 0o755); err != nil {
		return err
	}
	raw, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(s.out, "echo.json"), raw, 0o644); err != nil {
		return err
	}
	md := table(all, servers, list, missing, s)
	fmt.Print(md)
	return os.WriteFile(filepath.Join(s.out, "echo.md"), []byte(md), 0o644)
}

// median returns the middle of the values.
func median(v []float64) float64 {
	v = slices.Clone(v)
	slices.Sort(v)
	if len(v) == 0 {
		return 0
	}
	return (v[len(v)/2] + v[(len(v)-1)/2]) / 2
}
