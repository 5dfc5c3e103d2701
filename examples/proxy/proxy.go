package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
	"github.com/seed-80cfe818/ringloop/transport"
)

// backlog is how many connections wait to be accepted.
const backlog = 1024

// proxy serves the connections of one listening socket on one loop.
type proxy struct {
	cfg  *config
	l    *loop.Loop
	ln   *sockapi.Socket // nil when the transport.Server has it
	addr sockapi.Addr
	log  io.Writer

	// The rest belongs to the loop's thread.
	pairs   map[*pair]struct{}
	fewer   *loop.Future[struct{}] // done when a pair is over, if somebody waits
	stopped bool                   // no more time is given
}

// newProxy makes a loop and its listening socket.
func newProxy(cfg *config, addr string, log io.Writer) (*proxy, error) {
	l, err := loop.NewEventLoop(loop.WithBackend(cfg.backend))
	if err != nil {
		return nil, err
	}
	p := &proxy{cfg: cfg, l: l, log: log, pairs: map[*pair]struct{}{}}
	if p.ln, err = sockapi.Listen("tcp", addr, &sockapi.ListenOptions{ReusePort: cfg.loops > 1, Backlog: backlog}); err == nil {
		p.addr, err = p.ln.LocalAddr()
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("-listen: %w", err), p.close())
	}
	return p, nil
}

// close releases what a proxy that does not run has.
func (p *proxy) close() error {
	var err error
	if p.ln != nil {
		err = p.ln.Close()
	}
	return errors.Join(err, p.l.Close())
}

// run serves until ctx is cancelled.
func (p *proxy) run(ctx context.Context) error {
	task := p.l.Go(p.serve)
	unhook := context.AfterFunc(ctx, func() {
		// The loop may be closed already; then there is nothing left to stop.
		_, _ = p.l.CallSoonThreadsafe(func() { task.Cancel("stopping") })
	})
	defer unhook()
	_, err := loop.RunUntilComplete(p.l, task)
	if errors.Is(err, loop.ErrCancelled) {
		return nil // before it began
	}
	return err
}

// serve serves until its task is cancelled.
func (p *proxy) serve(co *loop.Coro) error {
	ln := p.ln
	p.ln = nil
	srv, err := transport.CreateServer(co, p.newClient, nil, "", &transport.ServerOptions{Sock: ln, Backlog: backlog, TLS: p.cfg.tls})
	if err != nil {
		return err
	}
	if _, err := loop.CreateFuture[struct{}](p.l).Await(co); !errors.Is(err, loop.ErrCancelled) {
		return err
	}
	return p.stop(co, srv)
}

// newClient makes the protocol of a client.
func (p *proxy) newClient() transport.Protocol {
	pr := &pair{p: p}
	pr.client = side{pair: pr, other: &pr.upstream}
	pr.upstream = side{pair: pr, other: &pr.client}
	return &pr.client
}

// stop waits for the connections to finish, but not longer than the time of
// grace.
func (p *proxy) stop(co *loop.Coro, srv *transport.Server) error {
	srv.Close()
	err := loop.Timeout(co, p.cfg.grace, func() error { return p.finished(co) })
	if err != nil && !errors.Is(err, loop.ErrTimeout) {
		return err
	}
	p.stopped = true
	for pr := range p.pairs {
		pr.cut()
	}
	srv.AbortClients() // those whose TLS handshake is not over
	if err := p.finished(co); err != nil {
		return err
	}
	return srv.WaitClosed(co)
}

// finished waits until no connection is left.
func (p *proxy) finished(co *loop.Coro) error {
	for len(p.pairs) > 0 {
		p.fewer = loop.CreateFuture[struct{}](p.l)
		if _, err := p.fewer.Await(co); err != nil {
			return err
		}
	}
	return nil
}

// remove is called when a pair is over.
func (p *proxy) remove(pr *pair) {
	delete(p.pairs, pr)
	if p.fewer != nil {
		// Whoever waited may have given up.
		_ = p.fewer.SetResult(struct{}{})
		p.fewer = nil
	}
}

// trace says what happens to a connection, with -v.
func (p *proxy) trace(format string, args ...any) {
	if p.cfg.verbose {
		fmt.Fprintf(p.log, "proxy: "+format+"\n", args...)
	}
}
