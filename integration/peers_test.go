//go:build integration

package integration

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed-80cfe818/ringloop/uring"
)

// patience is how long one program may take.
const patience = 2 * time.Minute

// peers is what the tests of one backend have.
type peers struct {
	backend   string
	bin       string // folder of our programs
	www       *site
	cert, key string // PEM files for localhost
}

// TestPeers lets our programs and transports talk to other people's, on both
// backends. It is started by ci/peers.
func TestPeers(t *testing.T) {
	p := &peers{bin: t.TempDir(), www: newSite(t)}
	for _, name := range []string{"echo", "fileserver", "proxy", "redis"} {
		goBuild(t, runtime.GOARCH, "build", "-o", filepath.Join(p.bin, name), "../examples/"+name)
	}
	dir := t.TempDir()
	p.cert, p.key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	output(t, nil, "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
		"-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", p.key, "-out", p.cert)
	for _, backend := range []string{"io_uring", "epoll"} {
		t.Run(backend, func(t *testing.T) {
			if backend == "io_uring" {
				if err := uring.Available(); err != nil {
					t.Fatalf("io_uring: %v", err)
				}
			}
			p := *p
			p.backend = backend
			t.Run("curl", p.testCurl)
			t.Run("curl through TLS", p.testCurlTLS)
			t.Run("wrk", p.testWrk)
			t.Run("redis-cli", p.testRedisCLI)
			t.Run("redis-benchmark", p.testRedisBenchmark)
			t.Run("socat", p.testSocat)
			t.Run("socat behind proxy", p.testSocatBehindProxy)
			t.Run("openssl s_client", p.testSClient)
			t.Run("openssl s_server", p.testSServer)
			t.Run("asyncio clients", p.testAsyncioClients)
			t.Run("asyncio servers", p.testAsyncioServers)
		})
	}
}

// start starts one of our programs until the test ends and returns the address
// that it says it listens on, the first group of the pattern.
func (p *peers) start(t *testing.T, pattern, name string, args ...string) string {
	t.Helper()
	args = append(args, "-backend", p.backend)
	addr, stop := startServer(t, pattern, filepath.Join(p.bin, name), args...)
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Errorf("%s, asked to stop, ended with %v", name, err)
		}
	})
	return addr
}

// startOther starts another program in the same way. How it ends does not
// matter.
func startOther(t *testing.T, pattern, name string, args ...string) string {
	t.Helper()
	addr, stop := startServer(t, pattern, name, args...)
	t.Cleanup(func() { _ = stop() })
	return addr
}

// startServer starts a server, waits for the line that has its address and
// returns that and a function that stops it.
func startServer(t *testing.T, pattern, name string, args ...string) (addr string, stop func() error) {
	t.Helper()
	cmd := exec.Command(name, args...)
	said, out := io.Pipe()
	cmd.Stdout, cmd.Stderr = out, out
	cmd.WaitDelay = patience
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		ended <- cmd.Wait()
		out.Close()
	}()
	end := func() error {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			return errors.Join(err, <-ended)
		}
		// It is killed if it does not obey.
		defer time.AfterFunc(30*time.Second, func() { _ = cmd.Process.Kill() }).Stop()
		return <-ended
	}
	var log strings.Builder
	lines := bufio.NewScanner(said)
	for re := regexp.MustCompile(pattern); addr == ""; {
		if !lines.Scan() {
			t.Fatalf("%s has named no address: %v\n%s", name, <-ended, log.String())
		}
		log.WriteString(lines.Text() + "\n")
		if m := re.FindStringSubmatch(lines.Text()); m != nil {
			addr = m[1]
		}
	}
	var drained sync.WaitGroup
	drained.Go(func() {
		for lines.Scan() {
			log.WriteString(lines.Text() + "\n")
		}
	})
	return addr, func() error {
		err := end()
		drained.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%s", filepath.Base(name), log.String())
		}
		return err
	}
}

// output runs a program to its end and returns its standard output. It fails the
// test if the program does.
func output(t *testing.T, stdin io.Reader, name string, args ...string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = stdin, &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(cmd.Args, " "), err, stderr.String())
	}
	return out
}
