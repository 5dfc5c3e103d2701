package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"syscall"
	"time"

	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
)

// Limits that are not a connection's own; see also limits.go.
const (
	graceLimit  = 10 * time.Second // to finish responses when the server stops
	maxHeader   = 64 << 10         // bytes of a request's header
	acceptPause = time.Second      // after the process ran out of descriptors
)

// server serves the connections of one listening socket on one loop.
type server struct {
	l       *loop.Loop
	ln      *sockapi.Socket
	addr    sockapi.Addr
	handler http.Handler
	log     *accessLog
	limits  limits
	verbose io.Writer // nil unless -v

	// The rest belongs to the loop's thread.
	conns    map[*conn]struct{}
	watching bool // sweep is scheduled
	stopping bool
	date     httpDate
}

// close releases the loop and the listening socket of a server that is not
// running.
func (s *server) close() {
	// The socket first: closing it needs the loop.
	if err := s.ln.Close(); err != nil {
		s.trace("close listener: %v", err)
	}
	if err := s.l.Close(); err != nil {
		s.trace("close loop: %v", err)
	}
}

// run serves until ctx is cancelled, then lets the requests in progress finish.
func (s *server) run(ctx context.Context) error {
	accepting := s.l.Go(s.accept)
	unhook := context.AfterFunc(ctx, func() {
		// The loop may be closed already; then there is nothing left to stop.
		_, _ = s.l.CallSoonThreadsafe(func() { accepting.Cancel("stopping") })
	})
	defer unhook()
	_, err := loop.RunUntilComplete(s.l, s.l.Go(func(co *loop.Coro) error {
		_, err := accepting.Await(co)
		if !errors.Is(err, loop.ErrCancelled) {
			return err
		}
		return s.stop(co)
	}))
	return err
}

// accept makes a task of every connection.
func (s *server) accept(co *loop.Coro) error {
	for {
		sock, peer, err := sockapi.Accept(co, s.ln)
		switch {
		case err == nil:
			s.l.Go(func(co *loop.Coro) error {
				s.serveConn(co, sock, peer)
				return nil
			})
		case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ENOBUFS), errors.Is(err, syscall.ENOMEM):
			s.l.Logger().Warn("cannot accept, pausing", "error", err, "pause", acceptPause)
			if err := loop.Sleep(co, acceptPause); err != nil {
				return err
			}
		default:
			return err
		}
	}
}

// stop closes the idle connections and waits for the others, but not for ever.
func (s *server) stop(co *loop.Coro) error {
	s.stopping = true
	if err := sockapi.CloseWait(co, s.ln); err != nil {
		return err
	}
	for c := range s.conns {
		if c.idle {
			c.task.Cancel("stopping")
		}
	}
	err := loop.Timeout(co, graceLimit, func() error { return s.drained(co) })
	if !errors.Is(err, loop.ErrTimeout) {
		return err
	}
	for c := range s.conns {
		c.task.Cancel("stopping")
	}
	return s.drained(co)
}

// drained waits until no connection is left.
func (s *server) drained(co *loop.Coro) error {
	for len(s.conns) > 0 {
		for c := range s.conns {
			// Its outcome was dealt with where it happened.
			gone := loop.CreateFuture[struct{}](s.l)
			cb := c.task.AddDoneCallback(func(loop.AnyFuture) { _ = gone.SetResult(struct{}{}) })
			_, err := gone.Await(co)
			c.task.RemoveDoneCallback(cb)
			if err != nil {
				return err
			}
			break
		}
	}
	return nil
}

// trace says what happens to a connection, with -v.
func (s *server) trace(format string, args ...any) {
	if s.verbose != nil {
		fmt.Fprintf(s.verbose, "fileserver: "+format+"\n", args...)
	}
}
