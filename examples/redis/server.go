package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/transport"
)

// The limits of a command: as many arguments as Redis takes, and two large ones
// with some more.
const (
	maxArgs   = 1 << 20
	moreBytes = 16 << 20
)

// server is what the connections share. It belongs to the loop's thread.
type server struct {
	l        *loop.Loop
	cfg      *settings
	stderr   io.Writer
	verbose  io.Writer // nil unless -v
	commands map[string]command
	store    *store
	started  time.Duration
	clients  int
	executed int64

	// What the replies are collected in. It is empty between two callbacks.
	out   []byte
	parts [][]byte
}

// serve serves until ctx is cancelled.
func serve(ctx context.Context, cfg *settings, stderr io.Writer) error {
	l, err := loop.NewEventLoop(loop.WithBackend(cfg.backend))
	if err != nil {
		return err
	}
	s := &server{l: l, cfg: cfg, stderr: stderr, commands: commandTable(), store: newStore(l), started: l.Time()}
	if cfg.verbose {
		s.verbose = stderr
	}
	task := l.Go(s.run)
	unhook := context.AfterFunc(ctx, func() {
		// The loop may be closed already; then there is nothing left to stop.
		_, _ = l.CallSoonThreadsafe(func() { task.Cancel("stopping") })
	})
	defer unhook()
	_, err = loop.RunUntilComplete(l, task)
	if errors.Is(err, loop.ErrCancelled) {
		err = nil
	}
	return errors.Join(err, l.Close())
}

// run listens until its task is cancelled.
func (s *server) run(co *loop.Coro) error {
	var servers []*transport.Server
	defer func() {
		for _, srv := range servers {
			srv.Close()
		}
	}()
	if s.cfg.addr != "" {
		host, port, err := net.SplitHostPort(s.cfg.addr)
		if err != nil {
			return fmt.Errorf("-addr: %w", err)
		}
		srv, err := transport.CreateServer(co, s.newConn, []string{host}, port, &transport.ServerOptions{Backlog: 1024})
		if err != nil {
			return fmt.Errorf("-addr: %w", err)
		}
		servers = append(servers, srv)
	}
	if s.cfg.unix != "" {
		srv, err := transport.CreateUnixServer(co, s.newConn, s.cfg.unix, &transport.UnixServerOptions{Backlog: 1024})
		if err != nil {
			return fmt.Errorf("-unix: %w", err)
		}
		servers = append(servers, srv)
	}
	if err := s.announce(servers); err != nil {
		return err
	}
	if _, err := loop.CreateFuture[struct{}](s.l).Await(co); !errors.Is(err, loop.ErrCancelled) {
		return err
	}
	return stop(co, servers, s.cfg.grace)
}

// announce says where the server listens.
func (s *server) announce(servers []*transport.Server) error {
	for _, srv := range servers {
		for _, sock := range srv.Sockets() {
			addr, err := sock.LocalAddr()
			if err != nil {
				return err
			}
			fmt.Fprintf(s.stderr, "redis: listening on %s, backend %s: %s\n", addr, s.l.Features().Backend, s.l.BackendReason())
		}
	}
	if s.verbose != nil {
		fmt.Fprint(s.verbose, s.l.Features())
	}
	return nil
}

// stop closes the connections when their replies are sent, and aborts those
// where that takes longer than grace.
func stop(co *loop.Coro, servers []*transport.Server, grace time.Duration) error {
	for _, srv := range servers {
		srv.Close()
		srv.CloseClients()
	}
	closed := func() error {
		for _, srv := range servers {
			if err := srv.WaitClosed(co); err != nil {
				return err
			}
		}
		return nil
	}
	err := loop.Timeout(co, grace, closed)
	if !errors.Is(err, loop.ErrTimeout) {
		return err
	}
	for _, srv := range servers {
		srv.AbortClients()
	}
	return closed()
}

func (s *server) newConn() transport.Protocol {
	return &conn{srv: s, in: parser{limits: limits{args: maxArgs, bulk: s.cfg.maxBulk, command: 2*s.cfg.maxBulk + moreBytes}}}
}

// trace says what happens, with -v.
func (s *server) trace(format string, args ...any) {
	fmt.Fprintf(s.verbose, "redis: "+format+"\n", args...)
}
