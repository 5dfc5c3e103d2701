// Command proxy passes TCP connections on to another server.
//
//	proxy -listen :443 -to 10.0.0.7:8080 -cert chain.pem -key key.pem
//
// It keeps little: when one side does not read, it stops reading from the other.
// It passes on the end of each direction, and resets. With -cert or -tls it
// speaks TLS with the clients. When it is asked to stop, it lets connections
// finish for the time of -grace.
//
//	main.go     flags, and one loop per -loops
//	proxy.go    accepts connections and stops gracefully
//	pair.go     a client and its connection to the server
//	side.go     one of the two, as a protocol
//	header.go   the header of the PROXY protocol
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/seed-80cfe818/ringloop/examples/internal/tlsflag"
)

// config is what the command line says.
type config struct {
	listen         string
	host, port     string // to connect to
	tls            *tls.Config
	backend        string
	loops          int
	grace          time.Duration
	connectTimeout time.Duration
	header         bool
	verbose        bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], os.Stderr))
}

// run is the program; it returns the exit status.
func run(ctx context.Context, args []string, stderr io.Writer) int {
	cfg, err := parseFlags(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "proxy:", err)
		return 2
	}
	if err := serve(ctx, cfg, stderr); err != nil {
		fmt.Fprintln(stderr, "proxy:", err)
		return 1
	}
	return 0
}

func parseFlags(args []string, stderr io.Writer) (*config, error) {
	cfg := &config{}
	var to string
	var tlsFlags tlsflag.Flags
	fs := flag.NewFlagSet("proxy", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {
		fmt.Fprint(stderr, `Usage: proxy [flags]

Passes TCP connections on to another server. With -cert or -tls it speaks TLS
with the clients. SIGINT or SIGTERM stops it; connections may finish.

`)
		fs.PrintDefaults()
	}
	fs.StringVar(&cfg.listen, "listen", "127.0.0.1:8081", "`address` to listen on; port 0 picks a free one")
	fs.StringVar(&to, "to", "127.0.0.1:8080", "`address` of the server to connect to")
	tlsFlags.Register(fs)
	fs.BoolVar(&cfg.header, "proxy-protocol", false, "tell the server who the client is, by a header of the PROXY protocol, version 1")
	fs.DurationVar(&cfg.connectTimeout, "connect-timeout", 10*time.Second, "how `long` to try to connect to the server")
	fs.DurationVar(&cfg.grace, "grace", 10*time.Second, "how `long` connections may take to finish when the proxy stops")
	fs.StringVar(&cfg.backend, "backend", "", "auto, io_uring or epoll (default: $RINGLOOP_BACKEND, else auto)")
	fs.IntVar(&cfg.loops, "loops", 1, "`number` of event loops, each with a thread of its own")
	fs.BoolVar(&cfg.verbose, "v", false, "say what becomes of every connection, and which features are in use")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if cfg.loops < 1 {
		return nil, fmt.Errorf("-loops %d: at least one loop is needed", cfg.loops)
	}
	if cfg.connectTimeout <= 0 {
		return nil, fmt.Errorf("-connect-timeout %v: it must be positive", cfg.connectTimeout)
	}
	var err error
	if cfg.host, cfg.port, err = net.SplitHostPort(to); err != nil {
		return nil, fmt.Errorf("-to: %w", err)
	}
	switch port, err := net.LookupPort("tcp", cfg.port); {
	case err != nil:
		return nil, fmt.Errorf("-to: %w", err)
	case port == 0:
		return nil, fmt.Errorf("-to %s: a server has no port 0", to)
	}
	cfg.tls, err = tlsFlags.Config()
	return cfg, err
}

// serve serves until ctx is cancelled.
func serve(ctx context.Context, cfg *config, stderr io.Writer) error {
	proxies := make([]*proxy, 0, cfg.loops)
	log := &syncWriter{w: stderr}
	addr := cfg.listen
	var err error
	for range cfg.loops {
		var p *proxy
		if p, err = newProxy(cfg, addr, log); err != nil {
			break
		}
		proxies = append(proxies, p)
		addr = p.addr.String() // the port that the first one got
	}
	if err == nil {
		l := proxies[0].l
		kind := "TCP"
		if cfg.tls != nil {
			kind = "TLS"
		}
		fmt.Fprintf(log, "proxy: from %s (%s) to %s with %d loop(s), backend %s: %s\n",
			addr, kind, net.JoinHostPort(cfg.host, cfg.port), cfg.loops, l.Features().Backend, l.BackendReason())
		if cfg.verbose {
			fmt.Fprint(log, l.Features())
		}
		err = runAll(ctx, proxies)
	}
	for _, p := range proxies {
		err = errors.Join(err, p.close())
	}
	return err
}

// runAll runs the proxies, each on its loop, until ctx is cancelled or one of
// them fails.
func runAll(ctx context.Context, proxies []*proxy) error {
	var wg sync.WaitGroup
	errs := make([]error, len(proxies))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	for i, p := range proxies {
		wg.Go(func() {
			defer cancel()
			errs[i] = p.run(ctx)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// syncWriter lets the loops share a writer.
type syncWriter struct {
	mu sync.Mutex
	w  io.Writer
}

func (s *syncWriter) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(p)
}
