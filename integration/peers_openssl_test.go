//go:build integration

package integration

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"io"
	"os/exec"
	"slices"
	"testing"
)

// tlsVersions are openssl's options for a version of TLS.
var tlsVersions = []string{"-tls1_2", "-tls1_3"}

// lines returns n bytes of text, in lines.
func lines(n int) [][]byte {
	text := []byte(base64.StdEncoding.EncodeToString(noise(n)))
	var all [][]byte
	for chunk := range slices.Chunk(text, 100) {
		all = append(all, append(chunk[:len(chunk):len(chunk)], '\n'))
	}
	return all
}

// testSClient lets openssl's client talk to the echo server.
func (p *peers) testSClient(t *testing.T) {
	addr := p.start(t, echoTCP, "echo", "-addr", "127.0.0.1:0", "-tls", "-cert", p.cert, "-key", p.key)
	want := bytes.Join(lines(3_000_000), nil)
	for _, version := range tlsVersions {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		cmd := exec.CommandContext(ctx, "openssl", "s_client", "-connect", addr, version, "-quiet",
			"-CAfile", p.cert, "-verify_return_error", "-verify_hostname", "localhost", "-servername", "localhost")
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = in.Write(want) }()
		got := make([]byte, len(want))
		n, err := io.ReadFull(out, got)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes came back, want %d: %v\n%s", version, n, len(want), err, stderr.String())
		}
		// With -quiet it does not end by itself.
		cancel()
		_ = cmd.Wait()
	}
}

// testSServer lets our TLS client talk to openssl's server, which reverses each
// line.
func (p *peers) testSServer(t *testing.T) {
	for _, version := range tlsVersions {
		addr := startOther(t, `ACCEPT (\S+)`, "openssl", "s_server", "-accept", "127.0.0.1:0", "-cert", p.cert, "-key", p.key, "-rev", version)
		var sent, want []byte
		for _, line := range lines(300_000) {
			sent = append(sent, line...)
			reversed := bytes.Clone(line[:len(line)-1])
			slices.Reverse(reversed)
			want = append(append(want, reversed...), '\n')
		}
		got := p.exchange(t, "tls", addr, sent, len(want))
		if !bytes.Equal(got, want) {
			_, first, _ := bufio.ScanLines(got, true)
			t.Errorf("%s: %d bytes came back, want %d; the first line is %q", version, len(got), len(want), first)
		}
	}
}
