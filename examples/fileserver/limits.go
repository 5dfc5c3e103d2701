package main

import (
	"errors"
	"math"
	"time"

	"github.com/seed-80cfe818/ringloop/loop"
)

// limits are the times that a connection may take.
type limits struct {
	idle   time.Duration // between two requests
	header time.Duration // to receive a request's header, or the rest of its body
	write  time.Duration // to send one piece of a response, or some of a file
	linger time.Duration // to close its side after an answer that is the last
	sweep  time.Duration // between two looks at all connections
}

var usualLimits = limits{
	idle: 60 * time.Second, header: 10 * time.Second, write: 60 * time.Second, linger: 2 * time.Second, sweep: time.Second,
}

// never is when a connection without a limit is due.
const never time.Duration = math.MaxInt64

// limit says when what the connection begins now has to be over. A timer for
// each would cost more than the rest of a small request; instead, sweep looks
// at all connections now and then.
func (c *conn) limit(d time.Duration) { c.due = c.s.l.Time() + d }

// unlimit ends the limit. It returns err, or loop.ErrTimeout if the limit was
// the reason for it.
func (c *conn) unlimit(err error) error {
	c.due = never
	if !c.expired {
		return err
	}
	c.expired = false
	if c.task.Uncancel() == 0 && errors.Is(err, loop.ErrCancelled) {
		return loop.ErrTimeout
	}
	return err
}

// watch begins to look at the connections, unless it is done already.
func (s *server) watch() {
	if s.watching {
		return
	}
	// An error says that the loop ends, which ends the connections as well.
	_, err := s.l.CallLater(s.limits.sweep, s.sweep)
	s.watching = err == nil
}

// sweep cancels what takes too long, and comes again while there are
// connections.
func (s *server) sweep() {
	s.watching = false
	now := s.l.Time()
	for c := range s.conns {
		if now >= c.due && !c.expired {
			c.expired = true
			c.task.Cancel("timeout")
		}
	}
	if len(s.conns) > 0 {
		s.watch()
	}
}
