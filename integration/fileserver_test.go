//go:build integration

package integration

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// fillRoot fills a folder for the file server and returns its files by path.
func fillRoot(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	src := rand.NewChaCha8([32]byte{})
	files := map[string][]byte{}
	for name, size := range map[string]int{
		"empty":              0,
		"one":                1,
		"page.html":          10_000,
		"with space/ünï.txt": 70_000,
		"big.bin":            20_000_000,
	} {
		b := make([]byte, size)
		src.Read(b)
		writeFile(t, filepath.Join(dir, name), b)
		files[name] = b
	}
	return files
}

// listening finds the address in what the file server says at its start.
var listening = regexp.MustCompile(`127\.0\.0\.1:[1-9][0-9]*`)

// serveFiles starts the file server in the container, fetches every file and
// stops the server as an orchestrator would.
func (c container) serveFiles(t *testing.T, www map[string][]byte, refusal Refusal) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c.network = "host"
	name := containerName(t)
	cmd := c.command(ctx, name, "/", Program("examples/fileserver"), "-addr", "127.0.0.1:0", "-root", "/www")
	said, out := io.Pipe()
	cmd.Stdout = out
	cmd.Stderr = out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		ended <- cmd.Wait()
		out.Close()
	}()
	var log strings.Builder
	address := readAddress(t, said, &log)
	rest := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(said)
		rest <- string(b)
	}()
	for path, want := range www {
		fetch(ctx, t, address, path, want)
	}
	if out, err := exec.CommandContext(ctx, "docker", "stop", "--time", "20", name).CombinedOutput(); err != nil {
		t.Errorf("docker stop: %v\n%s", err, out)
	}
	log.WriteString(<-rest)
	if err := <-ended; err != nil {
		t.Errorf("the file server, asked to stop, ended with %v", err)
	}
	wantBackendSaid(t, log.String(), refusal)
}

// readAddress reads what the server says into log until it names the address.
func readAddress(t *testing.T, said io.Reader, log *strings.Builder) string {
	t.Helper()
	lines := bufio.NewReader(said)
	for {
		line, err := lines.ReadString('\n')
		log.WriteString(line)
		if address := listening.FindString(line); address != "" {
			// What is buffered behind the line is part of the log too.
			b, _ := lines.Peek(lines.Buffered())
			log.Write(b)
			return address
		}
		if err != nil {
			t.Fatalf("the file server has named no address: %v\n%s", err, log)
		}
	}
}

// fetch gets a file and compares it.
func fetch(ctx context.Context, t *testing.T, address, path string, want []byte) {
	t.Helper()
	u := url.URL{Scheme: "http", Host: address, Path: "/" + path}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Errorf("get %s: %v", u.String(), err)
		return
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || !bytes.Equal(got, want) {
		t.Errorf("get %s: %s, %d bytes, error %v; want 200 OK and the file's %d bytes", u.String(), resp.Status, len(got), err, len(want))
	}
}

// wantBackendSaid fails the test unless the server has said which backend it
// uses, and why if that is not io_uring.
func wantBackendSaid(t *testing.T, log string, refusal Refusal) {
	t.Helper()
	if !refusal.Happens() {
		if !strings.Contains(log, "io_uring") {
			t.Errorf("the file server does not say that it uses io_uring:\n%s", log)
		}
		return
	}
	if !strings.Contains(log, "epoll") || !refusal.Explains(log) {
		t.Errorf("the file server does not say that it uses epoll because of %q:\n%s", refusal.Words, log)
	}
}

// refuseToServe demands io_uring from the file server where it is refused.
func (c container) refuseToServe(t *testing.T, refusal Refusal) {
	out, exit := c.run(t, "/", time.Minute, Program("examples/fileserver"),
		"-addr", "127.0.0.1:0", "-root", "/www", "-backend", "io_uring")
	if exit == 0 || !refusal.Explains(string(out)) {
		t.Errorf("status %d, want another than 0 and all of %q in the output:\n%s", exit, refusal.Words, out)
	}
}
