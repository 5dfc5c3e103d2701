package sockapi

import (
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/internal/nowait"
	"github.com/seed-80cfe818/ringloop/internal/unixgram"
	"github.com/seed-80cfe818/ringloop/loop"
)

// toNamed is what a task waits for that sends a packet to the name of a Unix
// socket: not for the backend, but for the time of the next attempt. See package
// unixgram.
type toNamed struct {
	ln    *lane
	co    *loop.Coro
	data  []byte
	to    *backend.Addr
	pause unixgram.Backoff
	timer loop.TimerHandle
	err   error // why there is no next attempt
}

var toNamedPool = sync.Pool{New: func() any { return new(toNamed) }}

// sendsToNamed reports whether what the socket sends to addr is sent by
// sendToNamed.
func (s *Socket) sendsToNamed(addr Addr) bool {
	return addr.IsValid() && s.family == unix.AF_UNIX && s.typ == unix.SOCK_DGRAM
}

// sendToNamed sends while the call has the lane.
func (s *Socket) sendToNamed(co *loop.Coro, p []byte, to *backend.Addr) (int, error) {
	w := toNamedPool.Get().(*toNamed)
	w.ln, w.co, w.data, w.to = &s.out, co, p, to
	err := w.send()
	*w = toNamed{}
	toNamedPool.Put(w)
	if err == nil && s.out.errno != 0 {
		err = s.out.errno
	}
	return s.out.n, err
}

// send makes attempts until one of them has an outcome.
func (w *toNamed) send() error {
	ln := w.ln
	for {
		if ln.sock.state >= stateClosing {
			return ErrSocketClosed
		}
		ln.n, ln.errno = 0, syscall.EAGAIN
		ln.co = w.co // for Close to wake
		err := w.co.SuspendStart(w)
		ln.co = nil
		w.timer.Cancel()
		if err == nil {
			err = w.err
		}
		if err != nil || ln.errno != syscall.EAGAIN {
			return err
		}
	}
}

// Start makes an attempt, on the loop's stack. If it has to be repeated, the
// task waits.
func (w *toNamed) Start() bool {
	ln := w.ln
	s := ln.sock
	if s.home == nil {
		s.home = homeOf(s.loop)
	}
	var pause time.Duration // let the rest of the loop run
	if s.tries < maxTries {
		s.tries++
		if ln.n, ln.errno = nowait.SendTo(s.fd, w.data, w.to); ln.errno != syscall.EAGAIN {
			return false
		}
		pause = w.pause.Next()
	}
	s.tries = 0
	w.timer, w.err = s.loop.CallLater(pause, w.co.Wake)
	return w.err == nil
}

// CancelWait wakes the task; Suspend tells it why.
func (w *toNamed) CancelWait(co *loop.Coro) bool {
	co.Wake()
	return false
}

// String says what a task waits for.
func (w *toNamed) String() string {
	return "room for a packet to " + addrOf(w.to).String() + ", sent on fd " + strconv.Itoa(int(w.ln.sock.fd))
}
