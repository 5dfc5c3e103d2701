package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// fileSizes are the files that are served. As for most files, the name tells the
// type, so that nobody has to look into them for it.
var fileSizes = []struct {
	name  string
	bytes int
}{{"1KiB.bin", 1 << 10}, {"100KiB.bin", 100 << 10}, {"10MiB.bin", 10 << 20}}

// nginxConfig serves a directory from one process.
const nginxConfig = `daemon off; master_process off; pid %[1]s/nginx.pid; error_log %[1]s/nginx.err;
events { worker_connections 4096; }
http {
	access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000;
	client_body_temp_path %[1]s; proxy_temp_path %[1]s; fastcgi_temp_path %[1]s; uwsgi_temp_path %[1]s; scgi_temp_path %[1]s;
	server { listen 127.0.0.1:PORT; root %[2]s; }
}
`

// compareHTTP lets wrk fetch files from every server.
func compareHTTP(args []string) error {
	s := settings{name: "http", rounds: 5, duration: time.Second}
	if err := s.parse(args); err != nil {
		return err
	}
	if _, err := exec.LookPath("wrk"); err != nil {
		return s.write([]measurement{}, "wrk is missing on this machine: files over HTTP were not measured.\n")
	}
	dir, err := os.MkdirTemp("", "ringloop-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	root := filepath.Join(dir, "files")
	if err := writeFiles(root); err != nil {
		return err
	}
	all := fileCandidates("bin", root)
	for i := range all {
		all[i].config = fmt.Sprintf(nginxConfig, dir, root)
		all[i].dir = dir
	}
	servers, missing, err := build(all, s.servers)
	if err != nil {
		return err
	}
	var results []measurement
	var list []shape
	for _, f := range fileSizes {
		sh := shape{Connections: 50, Size: f.bytes, Depth: 1}
		list = append(list, sh)
		results = append(results, fetch(&s, servers, f.name, sh)...)
	}
	if err := s.write(results, table(results, servers, list, missing, &s)); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(s.out, s.file()+".svg"), plot(results, servers, list, &s), 0o644)
}

func writeFiles(root string) error {
	if err := os.Mkdir(root, 0o755); err != nil {
		return err
	}
	for _, f := range fileSizes {
		if err := os.WriteFile(filepath.Join(root, f.name), make([]byte, f.bytes), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// fetch runs every server for one file.
func fetch(s *settings, servers []candidate, file string, sh shape) (all []measurement) {
	for round := range s.rounds {
		for i := range servers {
			c := &servers[(i+round)%len(servers)]
			m, err := fetchOnce(s, c, file)
			if err != nil {
				s.fail(fmt.Sprintf("%s, %s, round %d", c.name, file, round), err)
				continue
			}
			m.Server, m.Kind, m.Shape, m.Round = c.name, c.kind, sh.String(), round
			all = append(all, *m)
			fmt.Fprintf(os.Stderr, "%-8s round %d  %-26s %10.0f requests/s\n", file, round, c.name, m.Rate)
		}
	}
	return all
}

func fetchOnce(s *settings, c *candidate, file string) (*measurement, error) {
	p, err := c.start(s.cpus, s.cores)
	if err != nil {
		return nil, err
	}
	defer p.stop()
	before, err := p.cpuSeconds()
	if err != nil {
		return nil, err
	}
	seconds := max(1, int(s.duration.Seconds()))
	threads := len(strings.Split(s.loadCPUs, ","))
	out, err := exec.Command("taskset", "-c", s.loadCPUs, "wrk", "-t", strconv.Itoa(threads), "-c", "50", "--latency",
		"-d", strconv.Itoa(seconds)+"s", "http://"+p.addr+"/"+file).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("wrk: %w: %s", err, out)
	}
	after, err := p.cpuSeconds()
	if err != nil {
		return nil, err
	}
	m, requests, err := parseWrk(string(out))
	if err != nil {
		return nil, err
	}
	m.CPU = (after - before) / requests * 1e6
	m.RSS, err = p.rssBytes()
	return m, err
}

var (
	wrkRate     = regexp.MustCompile(`Requests/sec:\s+([\d.]+)`)
	wrkRequests = regexp.MustCompile(`(\d+) requests in`)
	wrkQuantile = regexp.MustCompile(`(50|99)%\s+([\d.]+)(us|ms|s)\b`)
	wrkTrouble  = regexp.MustCompile(`(Non-2xx|Socket errors).*`)
)

// parseWrk reads the report of wrk.
func parseWrk(out string) (m *measurement, requests float64, err error) {
	if t := wrkTrouble.FindString(out); t != "" {
		return nil, 0, fmt.Errorf("wrk: %s", t)
	}
	rate, n := wrkRate.FindStringSubmatch(out), wrkRequests.FindStringSubmatch(out)
	if rate == nil || n == nil {
		return nil, 0, fmt.Errorf("wrk: unexpected report: %q", out)
	}
	m = &measurement{}
	if m.Rate, err = strconv.ParseFloat(rate[1], 64); err != nil {
		return nil, 0, err
	}
	if requests, err = strconv.ParseFloat(n[1], 64); err != nil {
		return nil, 0, err
	}
	units := map[string]float64{"us": 1, "ms": 1e3, "s": 1e6}
	for _, q := range wrkQuantile.FindAllStringSubmatch(out, -1) {
		v, err := strconv.ParseFloat(q[2], 64)
		if err != nil {
			return nil, 0, err
		}
		if v *= units[q[3]]; q[1] == "50" {
			m.P50 = v
		} else {
			m.P99 = v
		}
	}
	return m, requests, nil
}
