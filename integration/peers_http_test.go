//go:build integration

package integration

import (
	"bytes"
	"crypto/sha256"
	"io"
	"maps"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// site is what the file server serves.
type site struct {
	root string
	sums map[string][]byte // SHA-256 by path
}

// newSite makes files of all kinds.
func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{root: t.TempDir(), sums: map[string][]byte{}}
	src := rand.NewChaCha8([32]byte{7})
	for name, size := range map[string]int64{
		"empty":                      0,
		"one":                        1,
		"page.html":                  10_000,
		"with two spaces.txt":        70_000,
		"grüße/日本語 & 100% +more.txt": 70_001,
		"deep/er/and/deeper.css":     300,
		"a?b#c":                      4096,
		"middle.bin":                 3_000_000,
		"big.bin":                    100_000_000,
	} {
		path := filepath.Join(s.root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		hash := sha256.New()
		if _, err := io.CopyN(io.MultiWriter(f, hash), src, size); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		s.sums[name] = hash.Sum(nil)
	}
	return s
}

// fetchAll gets every file with one curl, over one connection, and compares
// their sums.
func (s *site) fetchAll(t *testing.T, base string, options ...string) {
	t.Helper()
	dir := t.TempDir()
	names := slices.Sorted(maps.Keys(s.sums))
	args := append([]string{"-sS", "--fail-early", "-f"}, options...)
	for i, name := range names {
		args = append(args, "-o", filepath.Join(dir, strconv.Itoa(i)), base+(&url.URL{Path: "/" + name}).EscapedPath())
	}
	args = append(args, "-w", "%{num_connects} ")
	connects := strings.Fields(string(output(t, nil, "curl", args...)))
	if n := strings.Count(strings.Join(connects, ""), "1"); n != 1 && !slices.Contains(options, "--http1.0") {
		t.Errorf("curl connected %d times: %v", n, connects)
	}
	for i, name := range names {
		if got := fileSum(t, filepath.Join(dir, strconv.Itoa(i))); !bytes.Equal(got, s.sums[name]) {
			t.Errorf("%s: sum %x, want %x", name, got, s.sums[name])
		}
	}
}

func fileSum(t *testing.T, path string) []byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		t.Fatal(err)
	}
	return hash.Sum(nil)
}

const fileserverAddress = `http://(\S+)`

func (p *peers) testCurl(t *testing.T) {
	base := "http://" + p.start(t, fileserverAddress, "fileserver", "-addr", "127.0.0.1:0", "-root", p.www.root, "-q")
	p.www.fetchAll(t, base)
	p.www.fetchAll(t, base, "--http1.0")
	p.www.fetchAll(t, base, "--limit-rate", "200M")

	// A download that was interrupted goes on.
	part := filepath.Join(t.TempDir(), "part")
	whole, err := os.ReadFile(filepath.Join(p.www.root, "middle.bin"))
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, part, whole[:1_000_000])
	output(t, nil, "curl", "-sSf", "-C", "-", "-o", part, base+"/middle.bin")
	if got := fileSum(t, part); !bytes.Equal(got, p.www.sums["middle.bin"]) {
		t.Errorf("the second part does not go with the first")
	}
	for _, x := range []struct {
		want string
		args []string
	}{
		{"200", []string{"-I", base + "/big.bin"}},
		{"404", []string{base + "/missing"}},
		{"206", []string{"-r", "10-19", base + "/page.html"}},
		{"416", []string{"-r", "10001-", base + "/page.html"}},
		{"405", []string{"-d", "x=y", base + "/page.html"}},
	} {
		args := append([]string{"-sS", "-o", os.DevNull, "-w", "%{http_code}"}, x.args...)
		if got := string(output(t, nil, "curl", args...)); got != x.want {
			t.Errorf("curl %v: status %s, want %s", x.args, got, x.want)
		}
	}
}

func (p *peers) testCurlTLS(t *testing.T) {
	upstream := p.start(t, fileserverAddress, "fileserver", "-addr", "127.0.0.1:0", "-root", p.www.root, "-q")
	addr := p.start(t, `from (\S+) \(TLS\)`, "proxy", "-listen", "127.0.0.1:0", "-to", upstream, "-cert", p.cert, "-key", p.key, "-grace", "1s")
	for _, version := range []string{"1.2", "1.3"} {
		p.www.fetchAll(t, "https://"+addr, "--cacert", p.cert, "--tlsv"+version, "--tls-max", version)
	}
}

var (
	wrkRequests = regexp.MustCompile(`(\d+) requests in`)
	wrkErrors   = regexp.MustCompile(`Socket errors|Non-2xx`)
)

// testWrk sends at least 100 000 requests.
func (p *peers) testWrk(t *testing.T) {
	base := "http://" + p.start(t, fileserverAddress, "fileserver", "-addr", "127.0.0.1:0", "-root", p.www.root, "-q")
	for total, runs := 0, 0; total < 100_000; runs++ {
		if runs == 30 {
			t.Fatalf("only %d requests were answered in a minute", total)
		}
		out := string(output(t, nil, "wrk", "-t2", "-c50", "-d2s", base+"/page.html"))
		m := wrkRequests.FindStringSubmatch(out)
		if m == nil || wrkErrors.MatchString(out) {
			t.Fatalf("wrk said:\n%s", out)
		}
		n, err := strconv.Atoi(m[1])
		if err != nil {
			t.Fatal(err)
		}
		total += n
	}
}
