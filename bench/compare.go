package main

import (
	"context"
	"encoding/json"
	"errors"
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

// settings are what the flags of every sub-command say.
type settings struct {
	name     string // of the sub-command, and of the files it writes
	rounds   int
	duration time.Duration
	servers  string
	shapes   string
	cpus     string // of the server
	loadCPUs string
	cores    int
	out      string
	client   string   // the client in C; without it, the one in Go makes the load
	failures []string // which servers failed, and how
}

// parse reads the flags of a sub-command and divides the processors.
func (s *settings) parse(args []string) error {
	fs := flag.NewFlagSet(s.name, flag.ExitOnError)
	fs.IntVar(&s.rounds, "rounds", s.rounds, "rounds, in each of which every server runs once")
	fs.DurationVar(&s.duration, "d", s.duration, "counted time of a run")
	fs.StringVar(&s.servers, "servers", s.servers, "servers to compare, by `name`, comma-separated")
	fs.StringVar(&s.shapes, "shapes", s.shapes, "shapes of load, by `name`, comma-separated")
	fs.IntVar(&s.cores, "cores", 1, "cores for the server; the others make the load")
	fs.StringVar(&s.out, "out", "results", "`directory` for the results")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if s.rounds < 1 {
		return fmt.Errorf("-rounds %d: at least one is needed", s.rounds)
	}
	return s.split(runtime.NumCPU())
}

func compareEcho(args []string) error {
	return compareServers(settings{name: "echo", rounds: 5, duration: 200 * time.Millisecond}, shapes, candidates("bin"), args)
}

func compareTLS(args []string) error {
	s := settings{name: "tls", rounds: 5, duration: 300 * time.Millisecond}
	return compareServers(s, []shape{{50, 512, 1}, {1000, 512, 1}, {50, 16 << 10, 1}}, tlsCandidates("bin"), args)
}

// compareAccept counts connections, each of which carries one message.
func compareAccept(args []string) error {
	s := settings{name: "accept", rounds: 3, duration: 200 * time.Millisecond}
	return compareServers(s, []shape{{50, 64, 1}, {1000, 64, 1}}, candidates("bin"), args)
}

// compareUDP compares servers that echo packets.
func compareUDP(args []string) error {
	s := settings{name: "udp", rounds: 5, duration: 200 * time.Millisecond}
	return compareServers(s, []shape{{1, 64, 1}, {50, 64, 1}, {50, 1200, 1}, {10, 64, 8}}, udpCandidates("bin"), args)
}

// compareServers runs the servers under the shapes, those that were picked, and
// writes a table and a plot.
func compareServers(s settings, list []shape, all []candidate, args []string) error {
	if err := s.parse(args); err != nil {
		return err
	}
	list, err := pickShapes(list, s.shapes)
	if err != nil {
		return err
	}
	servers, missing, err := build(all, s.servers)
	if err != nil {
		return err
	}
	if len(servers) == 0 {
		return errors.New("no server can be built")
	}
	if err := s.chooseClient(); err != nil {
		return err
	}
	results := measure(&s, servers, list)
	if err := s.write(results, table(results, servers, list, missing, &s)); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.out, s.file()+".svg"), plot(results, servers, list, &s), 0o644)
}

// kind is the kind of load.
func (s *settings) kind() string {
	switch s.name {
	case "tls":
		return "tls"
	case "accept":
		return "storm"
	case "udp":
		return "udp"
	}
	return "echo"
}

// chooseClient builds the client in C, if one makes that kind of load. Where that of
// connections cannot be had, say because io_uring is refused, the one in Go takes its
// place.
func (s *settings) chooseClient() error {
	source, exe := "client.c", filepath.Join("bin", "load_client")
	switch s.kind() {
	case "echo":
	case "udp":
		source, exe = "packets.c", filepath.Join("bin", "load_packets")
	default:
		return nil
	}
	err := load.BuildRing(filepath.Join("load", "c", source), exe)
	switch {
	case err == nil:
		s.client = exe
	case s.kind() == "udp":
		return err
	default:
		fmt.Fprintf(os.Stderr, "bench: the client in Go makes the load: %v\n", err)
	}
	return nil
}

// loadBy says in the results what made the load.
func (s *settings) loadBy() string {
	switch {
	case s.name == "http":
		return "Load by wrk."
	case s.name == "udp":
		return "Load by the client for packets in C, on epoll."
	case s.client != "":
		return "Load by the client in C, on io_uring."
	}
	return "Load by the client in Go."
}

// file is the name of the results without its extension.
func (s *settings) file() string {
	if s.cores > 1 {
		return fmt.Sprintf("%s-%dcores", s.name, s.cores)
	}
	return s.name
}

// write writes the table and the raw figures.
func (s *settings) write(raw any, md string) error {
	if err := os.MkdirAll(s.out, 0o755); err != nil {
		return err
	}
	for _, f := range s.failures {
		md += "\nFailed: " + f + "\n"
	}
	js, err := json.MarshalIndent(raw, "", " ")
	if err != nil {
		return err
	}
	fmt.Print(md, "\n")
	path := filepath.Join(s.out, s.file())
	if err := os.WriteFile(path+".json", append(js, '\n'), 0o644); err != nil {
		return err
	}
	return os.WriteFile(path+".md", []byte(md), 0o644)
}

// fail notes that a server could not be measured; the others go on.
func (s *settings) fail(what string, err error) {
	s.failures = append(s.failures, fmt.Sprintf("%s: %v", what, err))
	fmt.Fprintf(os.Stderr, "bench: %s: %v\n", what, err)
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
func build(all []candidate, names string) (servers []candidate, missing []string, err error) {
	if err := os.MkdirAll("bin", 0o755); err != nil {
		return nil, nil, err
	}
	picked, err := pickCandidates(all, names)
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
func measure(s *settings, servers []candidate, list []shape) (all []measurement) {
	for _, sh := range list {
		for round := range s.rounds {
			for i := range servers {
				c := &servers[(i+round)%len(servers)]
				m, err := runOnce(s, c, sh)
				if err != nil {
					s.fail(fmt.Sprintf("%s under %s, round %d", c.name, sh, round), err)
					continue
				}
				m.Round = round
				all = append(all, *m)
				fmt.Fprintf(os.Stderr, "%-12s round %d  %-26s %10.0f msg/s  p99 %8.0f us\n", sh, round, c.name, m.Rate, m.P99)
			}
		}
	}
	return all
}

func runOnce(s *settings, c *candidate, sh shape) (*measurement, error) {
	p, err := c.start(s.cpus, s.cores)
	if err != nil {
		return nil, err
	}
	defer p.stop()
	var before float64
	var beforeErr error
	used := func() { before, beforeErr = p.cpuSeconds() }
	used()
	res, err := runLoad(s, p.addr, sh, used)
	if err := errors.Join(err, beforeErr); err != nil {
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
	return &measurement{
		Server: c.name, Kind: c.kind, Shape: sh.String(), Rate: float64(res.Messages) / res.Seconds,
		P50: float64(res.P50) / 1e3, P99: float64(res.P99) / 1e3, P999: float64(res.P999) / 1e3,
		CPU: (after - before) / float64(res.Total) * 1e6, RSS: rss, Mismatches: res.Mismatches,
	}, nil
}

// runLoad makes the load of a shape and makes sure that it is what it should be.
// The client in C calls connected before the first message.
func runLoad(s *settings, addr string, sh shape, connected func()) (*load.Result, error) {
	run := runGo
	if s.client != "" {
		run = runRing
	}
	res, err := run(s, addr, sh, connected)
	if err != nil {
		return nil, err
	}
	if res.Mismatches > 0 {
		return nil, fmt.Errorf("%d bytes came back wrong", res.Mismatches)
	}
	if res.Messages == 0 {
		return nil, errors.New("no message came back while it counted")
	}
	return res, nil
}

func runRing(s *settings, addr string, sh shape, connected func()) (*load.Result, error) {
	cpus, err := parseCPUs(s.loadCPUs)
	if err != nil {
		return nil, err
	}
	cfg := s.load(addr, sh)
	cfg.CPUs, cfg.Connected = cpus, connected
	return load.RunRing(s.client, cfg)
}

// load is the load of a shape.
func (s *settings) load(addr string, sh shape) load.Config {
	return load.Config{
		Addr: addr, Connections: sh.Connections, Size: sh.Size, Depth: sh.Depth, Warmup: sh.warmup(), Duration: sh.counted(s.duration),
	}
}

// runGo runs a client in Go, in a process of its own. It does not tell when it is
// connected.
func runGo(s *settings, addr string, sh shape, _ func()) (*load.Result, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cfg := s.load(addr, sh)
	ctx, kill := context.WithTimeout(context.Background(), cfg.Limit())
	defer kill()
	cmd := exec.CommandContext(ctx, "taskset", "-c", s.loadCPUs, self, "load", "-kind", s.kind(), "-addr", addr, "-c", fmt.Sprint(cfg.Connections), "-size", fmt.Sprint(cfg.Size),
		"-depth", fmt.Sprint(cfg.Depth), "-warmup", cfg.Warmup.String(), "-d", cfg.Duration.String(), "-cpus", s.loadCPUs)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	var res load.Result
	if err := json.Unmarshal(out, &res); err != nil {
		return nil, fmt.Errorf("load: %w: %q", err, out)
	}
	return &res, nil
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
