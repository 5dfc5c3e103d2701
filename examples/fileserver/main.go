// Command fileserver serves the files of a directory over HTTP/1.1, on one event
// loop or as many as -loops says, with io_uring where the machine allows it and
// epoll where it does not.
//
// A connection is one task; reading this program shows how code in tasks looks:
//
//	main.go       flags, and one loop per -loops
//	server.go     accepts connections and stops gracefully
//	conn.go       the requests of one connection, one after the other
//	limits.go     ends what takes too long
//	response.go   an http.ResponseWriter that sends files with sendfile(2)
//	directory.go  opens the files below the root, and none outside
//	file.go       a regular file, served with few system calls
//	accesslog.go  one line per request
//
// Parsing, directory listings, ranges, conditions and MIME types are net/http's.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
)

// config is what the command line says.
type config struct {
	addr    string
	root    string
	backend string
	loops   int
	verbose bool
	quiet   bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// Files are served on, if nobody reads the log any more.
	signal.Ignore(syscall.SIGPIPE)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run is the program; it returns the exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cfg, err := parseFlags(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "fileserver:", err)
		return 2
	}
	if err := serve(ctx, cfg, stdout, stderr); err != nil {
		fmt.Fprintln(stderr, "fileserver:", err)
		return 1
	}
	return 0
}

func parseFlags(args []string, stderr io.Writer) (*config, error) {
	cfg := &config{}
	fs := flag.NewFlagSet("fileserver", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {
		fmt.Fprint(stderr, `Usage: fileserver [flags]

Serves the files of a directory over HTTP/1.1 and writes an access log to the
standard output. SIGINT or SIGTERM stops it; responses may finish.

`)
		fs.PrintDefaults()
	}
	fs.StringVar(&cfg.addr, "addr", "127.0.0.1:8080", "`address` to listen on; port 0 picks a free one")
	fs.StringVar(&cfg.root, "root", ".", "`directory` to serve")
	fs.StringVar(&cfg.backend, "backend", "", "auto, io_uring or epoll (default: $RINGLOOP_BACKEND, else auto)")
	fs.IntVar(&cfg.loops, "loops", 1, "`number` of event loops, each with a thread of its own")
	fs.BoolVar(&cfg.verbose, "v", false, "say what happens to every connection, and which features are in use")
	fs.BoolVar(&cfg.quiet, "q", false, "write no access log")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if cfg.loops < 1 {
		return nil, fmt.Errorf("-loops %d: at least one loop is needed", cfg.loops)
	}
	return cfg, nil
}

// serve serves until ctx is cancelled.
func serve(ctx context.Context, cfg *config, stdout, stderr io.Writer) error {
	files, err := openDirectory(cfg.root)
	if err != nil {
		return fmt.Errorf("-root: %w", err)
	}
	defer files.close()
	log := newAccessLog(stdout, cfg.quiet)
	defer log.close()
	handler := onlyReads(http.FileServer(files))

	servers := make([]*server, 0, cfg.loops)
	defer func() {
		for _, s := range servers {
			s.close()
		}
	}()
	addr := cfg.addr
	for range cfg.loops {
		s, err := newServer(cfg, addr, handler, log, stderr)
		if err != nil {
			return err
		}
		servers = append(servers, s)
		addr = s.addr.String() // the port that the first one got
	}
	l := servers[0].l
	dir, err := filepath.Abs(cfg.root)
	if err != nil {
		dir = cfg.root
	}
	fmt.Fprintf(stderr, "fileserver: serving %s on http://%s with %d loop(s), backend %s: %s\n",
		dir, addr, cfg.loops, l.Features().Backend, l.BackendReason())
	if cfg.verbose {
		fmt.Fprint(stderr, l.Features())
	}
	return runAll(ctx, servers)
}

// runAll runs the servers, each on its loop, until ctx is cancelled or one of
// them fails.
func runAll(ctx context.Context, servers []*server) error {
	var wg sync.WaitGroup
	errs := make([]error, len(servers))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for i, s := range servers {
		wg.Go(func() {
			defer cancel()
			errs[i] = s.run(ctx)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// maxRanges is how many ranges a request may ask for. net/http writes every one
// of them as a part of its own, on another goroutine, for which the loop waits.
const maxRanges = 16

// onlyReads refuses the methods that a file server has no use for, and sends who
// asks for too many ranges the whole file (RFC 9110, 14.2).
func onlyReads(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "405 method not allowed", http.StatusMethodNotAllowed)
			return
		}
		if strings.Count(r.Header.Get("Range"), ",") >= maxRanges {
			r.Header.Del("Range")
		}
		h.ServeHTTP(w, r)
	})
}

// newServer makes a loop and its listening socket.
func newServer(cfg *config, addr string, handler http.Handler, log *accessLog, stderr io.Writer) (*server, error) {
	l, err := loop.NewEventLoop(loop.WithBackend(cfg.backend))
	if err != nil {
		return nil, err
	}
	ln, err := sockapi.Listen("tcp", addr, &sockapi.ListenOptions{ReusePort: cfg.loops > 1, Backlog: 1024})
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	s := &server{l: l, ln: ln, handler: handler, log: log, limits: usualLimits, conns: map[*conn]struct{}{}}
	if cfg.verbose {
		s.verbose = stderr
	}
	if s.addr, err = ln.LocalAddr(); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}
