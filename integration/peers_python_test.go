//go:build integration

package integration

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"
)

// python is Debian's, which the script installs.
const (
	python = "/usr/bin/python3"
	script = "testdata/asyncio_peer.py"
)

// testAsyncioClients lets asyncio's clients talk to the echo server and, through
// the proxy, to asyncio's server.
func (p *peers) testAsyncioClients(t *testing.T) {
	dir := t.TempDir()
	tcp := p.start(t, echoTCP, "echo", "-addr", "127.0.0.1:0", "-loops", "2")
	tls := p.start(t, echoTCP, "echo", "-addr", "127.0.0.1:0", "-tls", "-cert", p.cert, "-key", p.key)
	unix := p.start(t, echoUnix, "echo", "-unix", filepath.Join(dir, "echo.sock"))
	udp := p.start(t, echoUDP, "echo", "-udp", "127.0.0.1:0")
	behind := startOther(t, `^listening on (\S+)`, python, script, "server", "tcp", "127.0.0.1:0")
	proxy := p.start(t, `from (\S+) \(TCP\)`, "proxy", "-listen", "127.0.0.1:0", "-to", behind, "-grace", "1s")
	tlsProxy := p.start(t, `from (\S+) \(TLS\)`, "proxy", "-listen", "127.0.0.1:0", "-to", behind, "-cert", p.cert, "-key", p.key, "-grace", "1s")
	for _, x := range []struct{ name, kind, addr string }{
		{"TCP", "tcp", tcp}, {"TLS", "tls", tls}, {"Unix", "unix", unix}, {"UDP", "udp", udp},
		{"through the proxy", "tcp", proxy}, {"through the proxy with TLS", "tls", tlsProxy},
	} {
		t.Run(x.name, func(t *testing.T) {
			t.Logf("%s", output(t, nil, python, script, "client", x.kind, x.addr, p.cert))
		})
	}
}

// testAsyncioServers lets our clients talk to asyncio's servers.
func (p *peers) testAsyncioServers(t *testing.T) {
	for _, x := range []struct{ kind, at string }{
		{"tcp", "127.0.0.1:0"}, {"tls", "127.0.0.1:0"}, {"unix", filepath.Join(t.TempDir(), "py.sock")}, {"udp", "127.0.0.1:0"},
	} {
		t.Run(x.kind, func(t *testing.T) {
			addr := startOther(t, `^listening on (\S+)`, python, script, "server", x.kind, x.at, p.cert, p.key)
			if x.kind == "udp" {
				p.exchangeDatagrams(t, addr)
				return
			}
			for _, data := range [][]byte{noise(1), []byte(strings.Repeat("asyncio", 1000)), noise(50_000_000)} {
				if got := p.exchange(t, x.kind, addr, data, len(data)); !bytes.Equal(got, data) {
					t.Errorf("%d bytes came back, want %d", len(got), len(data))
				}
			}
		})
	}
}
