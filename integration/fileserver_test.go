//go:build integration

package integration

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"path/filepath"
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

// serveFiles starts the file server in the container, fetches every file and
// stops the server as an orchestrator would.
func (c container) serveFiles(t *testing.T, www map[string][]byte, refusal Refusal) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	s := c.serve(ctx, t, Program("examples/fileserver"), "-addr", "127.0.0.1:0", "-root", "/www")
	for path, want := range www {
		fetch(ctx, t, s.address, path, want)
	}
	wantBackendSaid(t, s.stop(ctx, t), refusal)
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

// refuseToServe demands io_uring from the file server where it is refused.
func (c container) refuseToServe(t *testing.T, refusal Refusal) {
	out, exit := c.run(t, "/", time.Minute, Program("examples/fileserver"),
		"-addr", "127.0.0.1:0", "-root", "/www", "-backend", "io_uring")
	if exit == 0 || !refusal.Explains(string(out)) {
		t.Errorf("status %d, want another than 0 and all of %q in the output:\n%s", exit, refusal.Words, out)
	}
}
