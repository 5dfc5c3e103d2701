// Command echo sends back what it gets, over TCP, Unix sockets and UDP, with or
// without TLS. It is the shortest complete server with the callback API.
//
//	echo -addr :7777
//	echo -addr :7777 -loops 4
//	echo -addr :7777 -cert cert.pem -key key.pem
//	echo -unix /run/echo.sock -udp :7777
//
// With -tls and no certificate it makes one for itself. SIGINT and SIGTERM end
// it: clients have five seconds to take what is still to be sent.
//
//	main.go       flags, loops and signals
//	services.go   what a loop listens on
//	echo.go       the protocols
package main

import (
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/seed-80cfe818/ringloop/examples/internal/tlsflag"
	"github.com/seed-80cfe818/ringloop/loop"
)

// grace is how long clients have to take what is still to be sent.
const grace = 5 * time.Second

// config is what the flags say.
type config struct {
	tcp       []string // one address, or all that the first loop has bound
	unix, udp string
	tls       *tls.Config
	backend   string
	loops     int
}

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run is the program; it returns the exit status.
func run(args []string, stdout, stderr io.Writer) int {
	cfg, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "echo:", err)
		return 2
	}
	if err := serveAll(cfg, stdout); err != nil {
		fmt.Fprintln(stderr, "echo:", err)
		return 1
	}
	return 0
}

func parse(args []string, stderr io.Writer) (*config, error) {
	cfg := &config{}
	var tlsFlags tlsflag.Flags
	fs := flag.NewFlagSet("echo", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {
		fmt.Fprint(stderr, `Usage: echo [flags]

Sends back what it gets over TCP, a Unix socket or UDP; at least one of -addr,
-unix and -udp is needed. With -cert or -tls, streams speak TLS.

`)
		fs.PrintDefaults()
	}
	addr := fs.String("addr", "", "serve TCP on this `host:port`")
	fs.StringVar(&cfg.unix, "unix", "", "serve a Unix stream socket at this `path`; a leading @ means an abstract name")
	fs.StringVar(&cfg.udp, "udp", "", "serve UDP on this `host:port`")
	tlsFlags.Register(fs)
	fs.StringVar(&cfg.backend, "backend", "", "auto, io_uring or epoll (default: $RINGLOOP_BACKEND, else auto)")
	fs.IntVar(&cfg.loops, "loops", 1, "how many event loops share the TCP and UDP ports")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if *addr != "" {
		cfg.tcp = []string{*addr}
	}
	switch {
	case fs.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	case cfg.tcp == nil && cfg.unix == "" && cfg.udp == "":
		return nil, errors.New("nothing to serve: give -addr, -unix or -udp")
	case cfg.loops < 1:
		return nil, fmt.Errorf("-loops %d: at least one is needed", cfg.loops)
	}
	var err error
	cfg.tls, err = tlsFlags.Config()
	return cfg, err
}

// program is what the loops share.
type program struct {
	stopped chan struct{}
	stop    func() // closes stopped, once
	bound   chan *config
	ended   chan error
}

// serveAll runs the loops until they have ended.
func serveAll(cfg *config, stdout io.Writer) error {
	p := &program{stopped: make(chan struct{}), bound: make(chan *config, 1), ended: make(chan error)}
	p.stop = sync.OnceFunc(func() { close(p.stopped) })
	go p.loop(cfg, stdout, true)
	running := 1
	var errs []error
	for running > 0 {
		select {
		case others := <-p.bound:
			for range cfg.loops - 1 {
				go p.loop(others, io.Discard, false)
				running++
			}
		case err := <-p.ended:
			running--
			errs = append(errs, err)
			p.stop()
		}
	}
	return errors.Join(errs...)
}

// loop runs one loop. The first one handles the signals, and binds the ports
// that the others are to share.
func (p *program) loop(cfg *config, out io.Writer, first bool) {
	p.ended <- loop.Run(func(co *loop.Coro) error {
		if first {
			for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
				if err := co.Loop().AddSignalHandler(sig, p.stop); err != nil {
					return err
				}
			}
		}
		var sv services
		others, err := sv.listen(co, cfg, out)
		if err == nil {
			if first {
				p.bound <- others
			}
			_, err = loop.RunInExecutor(co.Loop(), nil, func() (struct{}, error) {
				<-p.stopped
				return struct{}{}, nil
			}).Await(co)
		}
		return errors.Join(err, sv.end(co))
	}, loop.WithBackend(cfg.backend))
}
