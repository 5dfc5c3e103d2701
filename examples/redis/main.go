// Command redis is a server for Redis clients: it keeps strings in memory and
// speaks RESP2, with pipelining, deadlines and inline commands.
//
//	redis -addr 127.0.0.1:6379 &
//	redis-cli set greeting hello ex 60
//	redis-benchmark -t set,get -P 16
//
// A connection is a protocol that is called back; reading this program shows
// how such code looks:
//
//	main.go       flags
//	server.go     listens and stops
//	conn.go       one client: commands in, replies out, flow control
//	parser.go     takes commands out of a stream, in pieces of any size
//	inline.go     commands that people type
//	commands.go   what the commands do
//	set.go        SET with its options
//	lifetime.go   EXPIRE, TTL and their like
//	store.go      keys, values and deadlines
//
// Everything runs on one thread, so nothing is locked, as in Redis.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// settings is what the command line says.
type settings struct {
	addr    string
	unix    string
	backend string
	maxBulk int
	grace   time.Duration
	verbose bool
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
		fmt.Fprintln(stderr, "redis:", err)
		return 2
	}
	if err := serve(ctx, cfg, stderr); err != nil {
		fmt.Fprintln(stderr, "redis:", err)
		return 1
	}
	return 0
}

func parseFlags(args []string, stderr io.Writer) (*settings, error) {
	cfg := &settings{}
	fs := flag.NewFlagSet("redis", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.Usage = func() {
		fmt.Fprint(stderr, `Usage: redis [flags]

Keeps strings in memory for Redis clients: PING, ECHO, SET, GET, DEL, EXISTS,
INCR, DECR, MGET, MSET, EXPIRE, EXPIREAT, TTL and a few more. Nothing is saved.

`)
		fs.PrintDefaults()
	}
	fs.StringVar(&cfg.addr, "addr", "127.0.0.1:6379", "`address` to listen on, empty for none; port 0 picks a free one")
	fs.StringVar(&cfg.unix, "unix", "", "`path` of a Unix socket to listen on")
	fs.StringVar(&cfg.backend, "backend", "", "auto, io_uring or epoll (default: $RINGLOOP_BACKEND, else auto)")
	fs.IntVar(&cfg.maxBulk, "max-bulk", 512<<20, "largest key or value, in `bytes`")
	fs.DurationVar(&cfg.grace, "grace", 5*time.Second, "how `long` clients may take to read their replies when the server stops")
	fs.BoolVar(&cfg.verbose, "v", false, "say who connects, and which features are in use")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	switch {
	case fs.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	case cfg.addr == "" && cfg.unix == "":
		return nil, errors.New("-addr or -unix is needed")
	case cfg.maxBulk < 1 || cfg.maxBulk > 512<<20:
		return nil, fmt.Errorf("-max-bulk %d: must be between 1 and %d", cfg.maxBulk, 512<<20)
	}
	return cfg, nil
}
