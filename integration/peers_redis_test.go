//go:build integration

package integration

import (
	"bytes"
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const redisAddress = `listening on (127\.0\.0\.1:\d+),`

// startRedis starts the server and returns its address, as options of the
// clients: by TCP and by Unix socket.
func (p *peers) startRedis(t *testing.T) (tcp, unix []string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "redis.sock")
	addr := p.start(t, redisAddress, "redis", "-addr", "127.0.0.1:0", "-unix", path)
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	// TCP is announced first. By the first reply, the other one listens as well.
	tcp = []string{"-h", host, "-p", port}
	output(t, nil, "redis-cli", append(tcp, "ping")...)
	return tcp, []string{"-s", path}
}

func (p *peers) testRedisCLI(t *testing.T) {
	tcp, unix := p.startRedis(t)
	for _, at := range [][]string{tcp, unix} {
		cli := func(stdin string, args ...string) string {
			t.Helper()
			return strings.TrimSuffix(string(output(t, strings.NewReader(stdin), "redis-cli", append(at[:len(at):len(at)], args...)...)), "\n")
		}
		for _, x := range [][2]string{
			{"flushdb", "OK"}, {"ping", "PONG"}, {"set a 1", "OK"}, {"incr a", "2"}, {"get a", "2"}, {"mset b two c three", "OK"},
			{"--json mget a b c d", `["2","two","three",null]`}, {"expire a 100", "1"}, {"ttl a", "100"}, {"del a b nope", "2"}, {"dbsize", "1"},
			{"get", "ERR wrong number of arguments for 'get' command\n"}, {"nope", "ERR unknown command 'nope', with args beginning with: \n"},
		} {
			if got := cli("", strings.Fields(x[0])...); got != x[1] {
				t.Errorf("redis-cli %s: %q, want %q", x[0], got, x[1])
			}
		}
		value := strings.Repeat("\x00value\r\n\xff", 100_000)
		if got := cli(value, "-x", "set", "binary"); got != "OK" {
			t.Errorf("set: %q", got)
		}
		if got := cli("", "get", "binary"); got != value {
			t.Errorf("%d bytes came back, want %d", len(got), len(value))
		}
		// Commands by standard input, and as many as fit by --pipe.
		if got := cli("set x 'a b'\nget x\n"); got != "OK\na b" {
			t.Errorf("a script: %q", got)
		}
		const n = 50_000
		var many bytes.Buffer
		for i := range n {
			fmt.Fprintf(&many, "*3\r\n$3\r\nSET\r\n$8\r\nk%07d\r\n$1\r\nv\r\n", i)
		}
		if got := cli(many.String(), "--pipe"); !strings.Contains(got, fmt.Sprintf("errors: 0, replies: %d", n)) {
			t.Errorf("--pipe: %q", got)
		}
		if got := cli("", "dbsize"); got != fmt.Sprint(n+3) {
			t.Errorf("%s keys, want %d", got, n+3)
		}
	}
}

var benchmarkLine = regexp.MustCompile(`(?m)^"([^"]+)","(\d+\.\d+)"`)

func (p *peers) testRedisBenchmark(t *testing.T) {
	tcp, unix := p.startRedis(t)
	for _, x := range []struct {
		at    []string
		tests string
		n     int // lines that are wanted
		args  []string
	}{
		{tcp, "ping,set,get,incr,mset", 6, []string{"-n", "100000", "-P", "16", "-r", "10000"}},
		{tcp, "set,get", 2, []string{"-n", "20000", "-c", "200"}},
		{tcp, "set,get", 2, []string{"-n", "2000", "-d", "200000", "-P", "4"}},
		{unix, "ping,set,get", 4, []string{"-n", "100000", "-P", "16"}},
	} {
		args := append(append(x.at[:len(x.at):len(x.at)], "--csv", "-t", x.tests), x.args...)
		out := string(output(t, nil, "redis-benchmark", args...))
		lines := benchmarkLine.FindAllStringSubmatch(out, -1)
		if len(lines) != x.n || strings.Contains(strings.ToLower(out), "err") {
			t.Errorf("redis-benchmark %v said:\n%s", args, out)
		}
		for _, m := range lines {
			t.Logf("%s: %s requests/s (%s)", m[1], m[2], strings.Join(x.args, " "))
		}
	}
}
