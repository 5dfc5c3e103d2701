//go:build integration

package integration

import (
	"bytes"
	"math/rand/v2"
	"path/filepath"
	"testing"
)

const (
	echoTCP  = `^tcp (\S+)`
	echoUnix = `^unix (\S+)`
	echoUDP  = `^udp (\S+)`
)

// noise returns n random bytes.
func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{9}).Read(b)
	return b
}

// echoBySocat sends data to an address and expects it back, and then the end.
func echoBySocat(t *testing.T, address string, data []byte) {
	t.Helper()
	// socat shuts its sending side at the end of its input, and waits for the
	// other end for as long as -t says.
	if got := output(t, bytes.NewReader(data), "socat", "-t", "60", "-", address); !bytes.Equal(got, data) {
		t.Errorf("%s: %d bytes came back, want %d", address, len(got), len(data))
	}
}

func (p *peers) testSocat(t *testing.T) {
	tcp := p.start(t, echoTCP, "echo", "-addr", "127.0.0.1:0")
	path := p.start(t, echoUnix, "echo", "-unix", filepath.Join(t.TempDir(), "echo.sock"))
	abstract := p.start(t, echoUnix, "echo", "-unix", "@ringloop-"+p.backend+filepath.Base(t.TempDir()))
	for _, size := range []int{0, 1, 100_000, 50_000_000} {
		echoBySocat(t, "TCP:"+tcp, noise(size))
		echoBySocat(t, "UNIX-CONNECT:"+path, noise(size))
		echoBySocat(t, "ABSTRACT-CONNECT:"+abstract[1:], noise(size))
	}
}

// testSocatBehindProxy sends data through the proxy and back, where socat is the
// client as well as the server.
func (p *peers) testSocatBehindProxy(t *testing.T) {
	upstream := startOther(t, `listening on AF=2 (\S+)`, "socat", "-d", "-d", "-t", "60", "TCP-LISTEN:0,bind=127.0.0.1,fork", "PIPE")
	addr := p.start(t, `from (\S+) \(TCP\)`, "proxy", "-listen", "127.0.0.1:0", "-to", upstream, "-loops", "2", "-grace", "1s")
	for _, size := range []int{0, 1, 100_000, 50_000_000} {
		echoBySocat(t, "TCP:"+addr, noise(size))
	}
}
