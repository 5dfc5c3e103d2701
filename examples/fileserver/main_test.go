package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed-80cfe818/ringloop/internal/leaktest"
	"github.com/seed-80cfe818/ringloop/sockapi"
	"github.com/seed-80cfe818/ringloop/uring"
)

// asProgram makes the test binary the program itself.
const asProgram = "RINGLOOP_FILESERVER"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		main()
	}
	leaktest.Main(m)
}

// running is a file server under test.
type running struct {
	url  string
	root string
	log  *syncBuffer
	stop func() int // stops it and returns the exit status
}

// syncBuffer is a bytes.Buffer for several goroutines.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// files are what the server under test serves.
var files = map[string]int{
	"empty": 0, "one.txt": 1, "small.html": 1000, "page.css": 16 << 10, "block.bin": 100_000,
	"large.bin": 9<<20 + 7, "with space.txt": 300, "grüße & mehr.txt": 301, "sub/deep.json": 40_000,
}

func content(name string) []byte {
	p := make([]byte, files[name])
	rnd := rand.NewChaCha8(sha256.Sum256([]byte(name)))
	_, _ = rnd.Read(p)
	return p
}

func makeRoot(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for name := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// forEachBackend runs a test against a server on every backend.
func forEachBackend(t *testing.T, test func(t *testing.T, s *running)) {
	for _, backend := range []string{"io_uring", "epoll"} {
		t.Run(backend, func(t *testing.T) {
			if backend == "io_uring" {
				if err := uring.Available(); err != nil {
					t.Skipf("io_uring: %v", err)
				}
			}
			test(t, start(t, "-backend", backend))
		})
	}
}

var urlPattern = regexp.MustCompile(`http://\S+`)

// start runs a server until the test ends.
func start(t *testing.T, args ...string) *running {
	t.Helper()
	s := &running{root: makeRoot(t), log: &syncBuffer{}}
	ctx, cancel := context.WithCancel(context.Background())
	stderrR, stderrW := io.Pipe()
	status := make(chan int, 1)
	go func() {
		status <- run(ctx, append([]string{"-addr", "127.0.0.1:0", "-root", s.root}, args...), s.log, stderrW)
		_ = stderrW.Close()
	}()
	lines := bufio.NewScanner(stderrR)
	if !lines.Scan() {
		t.Fatalf("the server said nothing and ended with %d", <-status)
	}
	s.url = urlPattern.FindString(lines.Text())
	if s.url == "" {
		t.Fatalf("the server said %q", lines.Text())
	}
	var drained sync.WaitGroup
	drained.Go(func() { _, _ = io.Copy(io.Discard, stderrR) })
	s.stop = sync.OnceValue(func() int {
		cancel()
		code := <-status
		drained.Wait()
		return code
	})
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		if code := s.stop(); code != 0 {
			t.Errorf("the server ended with status %d", code)
		}
	})
	return s
}

func (s *running) at(name string) string { return s.url + "/" + (&url.URL{Path: name}).EscapedPath() }

func (s *running) addr() string { return strings.TrimPrefix(s.url, "http://") }

// do sends a request and returns the response with its body.
func do(t testing.TB, method, url string, header ...string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequest(method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, body
}

func TestFilesArriveUnchanged(t *testing.T) {
	forEachBackend(t, func(t *testing.T, s *running) {
		for name := range files {
			want := content(name)
			res, body := do(t, "GET", s.at(name))
			if res.StatusCode != 200 || !bytes.Equal(body, want) {
				t.Errorf("%s: status %d, %d bytes, want %d", name, res.StatusCode, len(body), len(want))
			}
			res, body = do(t, "HEAD", s.at(name))
			if res.StatusCode != 200 || len(body) != 0 || res.ContentLength != int64(len(want)) {
				t.Errorf("HEAD %s: status %d, length %d", name, res.StatusCode, res.ContentLength)
			}
		}
		for name, want := range map[string]string{"page.css": "text/css; charset=utf-8", "sub/deep.json": "application/json", "small.html": "text/html; charset=utf-8"} {
			if res, _ := do(t, "HEAD", s.at(name)); res.Header.Get("Content-Type") != want {
				t.Errorf("%s has type %q", name, res.Header.Get("Content-Type"))
			}
		}
	})
}

func TestRangesAndConditions(t *testing.T) {
	forEachBackend(t, func(t *testing.T, s *running) {
		want := content("block.bin")
		res, body := do(t, "GET", s.at("block.bin"), "Range", "bytes=10-70009")
		if res.StatusCode != 206 || !bytes.Equal(body, want[10:70010]) {
			t.Errorf("range: status %d, %d bytes", res.StatusCode, len(body))
		}
		res, body = do(t, "GET", s.at("block.bin"), "Range", "bytes=-5")
		if res.StatusCode != 206 || !bytes.Equal(body, want[len(want)-5:]) {
			t.Errorf("suffix range: status %d, %d bytes", res.StatusCode, len(body))
		}
		res, body = do(t, "GET", s.at("block.bin"), "Range", "bytes=0-9,50000-99999")
		if res.StatusCode != 206 || !bytes.Contains(body, want[50000:]) || !strings.HasPrefix(res.Header.Get("Content-Type"), "multipart/byteranges") {
			t.Errorf("two ranges: status %d, type %q", res.StatusCode, res.Header.Get("Content-Type"))
		}
		for n, want := range map[int]int{maxRanges: 206, maxRanges + 1: 200} {
			res, _ = do(t, "GET", s.at("block.bin"), "Range", "bytes=0-0"+strings.Repeat(",0-0", n-1))
			if res.StatusCode != want {
				t.Errorf("%d ranges: status %d, want %d", n, res.StatusCode, want)
			}
		}
		res, _ = do(t, "GET", s.at("block.bin"), "Range", "bytes=100000-")
		if res.StatusCode != 416 || res.Header.Get("Content-Range") != "bytes */100000" {
			t.Errorf("range past the end: status %d, %q", res.StatusCode, res.Header.Get("Content-Range"))
		}
		res, _ = do(t, "GET", s.at("block.bin"))
		modified := res.Header.Get("Last-Modified")
		res, body = do(t, "GET", s.at("block.bin"), "If-Modified-Since", modified)
		if res.StatusCode != 304 || len(body) != 0 {
			t.Errorf("not modified: status %d, %d bytes", res.StatusCode, len(body))
		}
		res, _ = do(t, "GET", s.at("block.bin"), "If-Modified-Since", "Mon, 02 Jan 2006 15:04:05 GMT")
		if res.StatusCode != 200 {
			t.Errorf("modified: status %d", res.StatusCode)
		}
	})
}

func TestRefusals(t *testing.T) {
	forEachBackend(t, func(t *testing.T, s *running) {
		if err := os.Symlink("/etc/passwd", filepath.Join(s.root, "escape")); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mkfifo(filepath.Join(s.root, "fifo"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("loop", filepath.Join(s.root, "loop")); err != nil {
			t.Fatal(err)
		}
		sock, err := net.Listen("unix", filepath.Join(s.root, "socket"))
		if err != nil {
			t.Fatal(err)
		}
		defer sock.Close()
		for request, want := range map[string]string{
			"GET /loop HTTP/1.1\r\nHost: x\r\n\r\n":                                           "404",
			"GET /socket HTTP/1.1\r\nHost: x\r\n\r\n":                                         "403",
			"GET /one%00.txt HTTP/1.1\r\nHost: x\r\n\r\n":                                     "404",
			"GET /one.txt HTTP/2.0\r\nHost: x\r\n\r\n":                                        "505",
			"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n":                                                "505",
			"GET /one.txt HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n":                "200",
			"GET /one.txt HTTP/1.1\r\nHost: x\r\nExpect: miracles\r\n\r\n":                    "417",
			"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n": "405",
			"GET /fifo HTTP/1.1\r\nHost: x\r\n\r\n":                                           "403",
			"GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n":                                        "404",
			"GET /one.txt/x HTTP/1.1\r\nHost: x\r\n\r\n":                                      "404",
			"POST /one.txt HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n":                  "405",
			"DELETE / HTTP/1.1\r\nHost: x\r\n\r\n":                                            "405",
			"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n":                               "40",
			"GET /..%2f..%2fetc/passwd HTTP/1.1\r\nHost: x\r\n\r\n":                           "40",
			"GET /escape HTTP/1.1\r\nHost: x\r\n\r\n":                                         "403",
			"GET /one.txt HTTP/1.1\r\n\r\n":                                                   "400",
			"\x16\x03\x01\x02garbage\r\n\r\n":                                                 "400",
			"GET /one.txt HTTP/1.1\r\nHost: x\r\nContent-Length : 5\r\n\r\nhello":             "400",
			"GET /one.txt HTTP/1.0\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n":           "400",
			"GET /one.txt HTTP/1.1\r\nHost: [fe80::1%25eth0]:8080\r\n\r\n":                    "200",
			"GET http://ex%C3%A4mple/one.txt HTTP/1.1\r\nHost: x\r\n\r\n":                     "200",
			"GET /one.txt HTTP/1.1\r\nHost: a b\r\n\r\n":                                      "400",
			"GET /one.txt HTTP/1.1\r\nHost: a/b\r\n\r\n":                                      "400",
			"GET /one.txt HTTP/1.1\r\nHost: a\r\n\tX: b\r\n\r\n":                              "400",
			"GET /one.txt HTTP/1.0\r\nHost: a<b\r\n\r\n":                                      "400",
			"GET /one.txt HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n":                             "400",
			"GET\r\n\r\n": "400",
			"GET / HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("y", 2*maxHeader) + "\r\n\r\n":    "431",
			"GET / HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("Many: y\r\n", maxHeader/8) + "\r\n": "431",
		} {
			status := statusOf(t, s, request)
			if !strings.HasPrefix(status, want) {
				t.Errorf("%.40q: status %q, want %s", request, status, want)
			}
		}
	})
}

// statusOf sends a raw request and returns the status of the answer.
func statusOf(t *testing.T, s *running, request string) string {
	t.Helper()
	c, err := net.Dial("tcp", s.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// The server may answer and close before it has read all of it.
	_, _ = io.WriteString(c, request)
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil && line == "" {
		return err.Error()
	}
	_, status, _ := strings.Cut(strings.TrimSpace(line), " ")
	return status
}

func TestDirectoryListing(t *testing.T) {
	forEachBackend(t, func(t *testing.T, s *running) {
		res, body := do(t, "GET", s.url+"/")
		if res.StatusCode != 200 || !bytes.Contains(body, []byte(`href="with%20space.txt"`)) || !bytes.Contains(body, []byte(`href="sub/"`)) {
			t.Errorf("status %d: %s", res.StatusCode, body)
		}
		for i := range 2000 {
			if err := os.WriteFile(filepath.Join(s.root, "sub", fmt.Sprintf("file-%04d-with-a-long-name", i)), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		res, body = do(t, "GET", s.url+"/sub/")
		if res.StatusCode != 200 || bytes.Count(body, []byte("file-")) != 4000 {
			t.Errorf("large listing: status %d, %d names", res.StatusCode, bytes.Count(body, []byte("file-")))
		}
	})
}

func TestManyRequestsOnOneConnection(t *testing.T) {
	forEachBackend(t, func(t *testing.T, s *running) {
		c, err := net.Dial("tcp", s.addr())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		const n = 100
		// All at once: they are answered in order.
		if _, err := io.WriteString(c, strings.Repeat("GET /small.html HTTP/1.1\r\nHost: x\r\n\r\n", n)); err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(c)
		for i := range n {
			res, err := http.ReadResponse(in, nil)
			if err != nil {
				t.Fatalf("response %d: %v", i, err)
			}
			body, err := io.ReadAll(res.Body)
			if err != nil || !bytes.Equal(body, content("small.html")) {
				t.Fatalf("response %d: %d bytes, %v", i, len(body), err)
			}
		}
		if _, err := io.WriteString(c, "GET /one.txt HTTP/1.0\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		rest, err := io.ReadAll(in)
		if err != nil || !bytes.HasSuffix(rest, content("one.txt")) || !bytes.Contains(rest, []byte("Connection: close")) {
			t.Errorf("HTTP/1.0: %q, %v", rest, err)
		}
	})
}

// A proxy that goes by the Content-Length takes what follows the last chunk for
// the body of one request, of somebody who may not ask for the other.
func TestNoRequestIsFoundBehindOneWhoseLengthIsAmbiguous(t *testing.T) {
	forEachBackend(t, func(t *testing.T, s *running) {
		c, err := net.Dial("tcp", s.addr())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		const second = "GET /small.html HTTP/1.1\r\nHost: x\r\n\r\n"
		if _, err := fmt.Fprintf(c, "GET /one.txt HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: %d\r\n\r\n0\r\n\r\n%s",
			len("0\r\n\r\n"+second), second); err != nil {
			t.Fatal(err)
		}
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		in := bufio.NewReader(c)
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != 200 || !res.Close || !bytes.Equal(body, content("one.txt")) {
			t.Errorf("status %d, close %v, %q, %v", res.StatusCode, res.Close, body, err)
		}
		if rest, err := io.ReadAll(in); err != nil || len(rest) > 0 {
			t.Errorf("then came %.80q, %v", rest, err)
		}
	})
}

func TestBadClientsCostTheOthersNothing(t *testing.T) {
	forEachBackend(t, func(t *testing.T, s *running) {
		for i := range 60 {
			c, err := net.Dial("tcp", s.addr())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			switch i % 4 {
			case 0: // stalls in the middle of a request
				_, _ = io.WriteString(c, "GET /large.bin HT")
			case 1: // asks and does not read
				_, _ = io.WriteString(c, "GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n")
			case 2: // resets
				_, _ = io.WriteString(c, "GET /large.bin HTTP/1.1\r\nHost: x\r\n\r\n")
				_ = c.(*net.TCPConn).SetLinger(0)
				_ = c.Close()
			case 3: // garbage
				_, _ = c.Write(content("block.bin"))
			}
		}
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for name := range files {
					res, err := http.Get(s.at(name))
					if err != nil {
						t.Error(err)
						return
					}
					body, err := io.ReadAll(res.Body)
					res.Body.Close()
					if err != nil || !bytes.Equal(body, content(name)) {
						t.Errorf("%s: %d bytes, %v", name, len(body), err)
					}
				}
			})
		}
		wg.Wait()
	})
}

func TestAStopLetsResponsesFinish(t *testing.T) {
	forEachBackend(t, func(t *testing.T, s *running) {
		idle, err := net.Dial("tcp", s.addr())
		if err != nil {
			t.Fatal(err)
		}
		defer idle.Close()
		res, err := http.Get(s.at("large.bin"))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		stopped := make(chan int)
		go func() { stopped <- s.stop() }()
		_ = idle.SetReadDeadline(time.Now().Add(30 * time.Second))
		if n, err := idle.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the idle connection: %d, %v", n, err)
		}
		body, err := io.ReadAll(res.Body)
		if err != nil || !bytes.Equal(body, content("large.bin")) {
			t.Errorf("the response in progress: %d bytes, %v", len(body), err)
		}
		if code := <-stopped; code != 0 {
			t.Errorf("status %d", code)
		}
		if _, err := net.Dial("tcp", s.addr()); err == nil {
			t.Error("it still accepts connections")
		}
	})
}

// The client sends a request that is no longer served: a connection that was
// closed with that unread would be reset, and the end of the response lost.
func TestAStopLetsAResponseFinishThoughMoreRequestsHaveCome(t *testing.T) {
	forEachBackend(t, func(t *testing.T, s *running) {
		idle, err := net.Dial("tcp", s.addr()) // ends when the stop has begun
		if err != nil {
			t.Fatal(err)
		}
		defer idle.Close()
		c, err := net.Dial("tcp", s.addr())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		const get = "GET /%s HTTP/1.1\r\nHost: test\r\n\r\n"
		fmt.Fprintf(c, get, "large.bin")
		in := bufio.NewReader(c)
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, get, "one.txt")
		stopped := make(chan int)
		go func() { stopped <- s.stop() }()
		if _, err := idle.Read(make([]byte, 1)); err != io.EOF {
			t.Fatalf("the idle connection: %v", err)
		}
		body, err := io.ReadAll(res.Body)
		if err != nil || !bytes.Equal(body, content("large.bin")) {
			t.Errorf("the response in progress: %d bytes, %v", len(body), err)
		}
		if _, err := in.ReadByte(); err != io.EOF {
			t.Errorf("after the response: %v, want the end", err)
		}
		_ = c.Close()
		if code := <-stopped; code != 0 {
			t.Errorf("status %d", code)
		}
	})
}

func TestANameAddsNoHeader(t *testing.T) {
	forEachBackend(t, func(t *testing.T, s *running) {
		if err := os.Mkdir(filepath.Join(s.root, "a\r\nX-Evil: 1"), 0o755); err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", s.addr())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		fmt.Fprint(c, "GET /a%0d%0aX-Evil:%201 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != http.StatusMovedPermanently || res.Header.Get("Location") == "" || res.Header.Get("X-Evil") != "" {
			t.Errorf("status %d, header %v", res.StatusCode, res.Header)
		}
	})
}

func TestAccessLog(t *testing.T) {
	forEachBackend(t, func(t *testing.T, s *running) {
		do(t, "GET", s.at("with space.txt"))
		do(t, "GET", s.at("nothing"))
		do(t, "HEAD", s.at("nothing"))
		statusOf(t, s, "GET /one.txt HTTP/1.1\r\n\r\n")
		statusOf(t, s, "nonsense\r\n\r\n")
		s.stop()
		log := s.log.String()
		for _, want := range []string{
			`"GET /with%20space.txt HTTP/1.1" 200 300 `, `"GET /nothing HTTP/1.1" 404 19 `, `"HEAD /nothing HTTP/1.1" 404 0 `,
			`"GET /one.txt HTTP/1.1" 400 `, `"-" 400 `,
		} {
			if !strings.Contains(log, want) {
				t.Errorf("%s is not in the log:\n%s", want, log)
			}
		}
	})
}

func TestFilesAreServedOnIfNobodyReadsTheLog(t *testing.T) {
	logR, logW, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	logR.Close()
	cmd := exec.Command(os.Args[0], "-addr", "127.0.0.1:0", "-root", makeRoot(t))
	cmd.Env = append(os.Environ(), asProgram+"=1")
	cmd.Stdout = logW
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	logW.Close()
	lines := bufio.NewScanner(stderr)
	lines.Scan()
	do(t, "GET", urlPattern.FindString(lines.Text())+"/block.bin")
	http.DefaultClient.CloseIdleConnections()
	// At the end, if not before, it tries to write its log.
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() {
		t.Error(lines.Text())
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

func TestAPeerThatSpeaksIPv4IsNamedSo(t *testing.T) {
	for peer, want := range map[string]string{
		"[::ffff:192.0.2.7]:80": "192.0.2.7:80",
		"192.0.2.7:80":          "192.0.2.7:80",
		"[2001:db8::7]:80":      "[2001:db8::7]:80",
	} {
		if got := peerName(sockapi.IPAddr(netip.MustParseAddrPort(peer))); got != want {
			t.Errorf("%s is called %s", peer, got)
		}
	}
}

func TestSeveralLoopsShareThePort(t *testing.T) {
	s := start(t, "-loops", "3", "-q")
	for range 30 {
		http.DefaultClient.CloseIdleConnections() // a new connection, perhaps on another loop
		if _, body := do(t, "GET", s.at("block.bin")); !bytes.Equal(body, content("block.bin")) {
			t.Fatalf("%d bytes", len(body))
		}
	}
	if s.stop(); s.log.String() != "" {
		t.Errorf("-q wrote a log: %q", s.log.String())
	}
}

func TestBadArgumentsAreNamed(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"-root", fifo}, 1, "fifo: not a directory"},
		{[]string{"-root", "/does/not/exist"}, 1, "/does/not/exist"},
		{[]string{"-root", plain}, 1, "plain"},
		{[]string{"-addr", busy.Addr().String()}, 1, busy.Addr().String()},
		{[]string{"-addr", "nonsense"}, 1, "nonsense"},
		{[]string{"-backend", "kqueue"}, 1, "kqueue"},
		{[]string{"-loops", "0"}, 2, "-loops 0"},
		{[]string{"-unknown"}, 2, "unknown"},
		{[]string{"extra"}, 2, "extra"},
		{[]string{"-h"}, 0, "-root"},
	} {
		var stderr bytes.Buffer
		args := append([]string{"-addr", "127.0.0.1:0"}, c.args...)
		if got := run(context.Background(), args, io.Discard, &stderr); got != c.status || !strings.Contains(stderr.String(), c.says) {
			t.Errorf("%q: status %d, want %d; said %q", c.args, got, c.status, stderr.String())
		}
	}
}
