package transport

import (
	"syscall"
	"time"

	"github.com/seed-80cfe818/ringloop/internal/nowait"
	"github.com/seed-80cfe818/ringloop/internal/unixgram"
)

// namedSends sends the packets of a Unix socket that is not connected: not by
// the backend, but with plain system calls at times of its own, because the
// kernel does not say when a peer has room again. See package unixgram.
type namedSends struct {
	t       *datagram
	pause   unixgram.Backoff
	waiting bool // for a timer
}

// now sends p if that is possible at once.
func (n *namedSends) now(p []byte, pkt *packet) bool {
	_, errno := nowait.SendTo(n.t.fd, p, &pkt.to)
	if errno == syscall.EAGAIN {
		return false
	}
	n.pause.Reset()
	n.t.failedNow(pkt, errno)
	return true
}

// later sends the queue after a pause, unless that is to be done already.
func (n *namedSends) later() {
	if !n.waiting {
		n.after(n.pause.Next())
	}
}

func (n *namedSends) after(pause time.Duration) {
	if _, err := n.t.loop.CallLaterContext(n.t.ctx, pause, n.flush); err != nil {
		n.t.end(err)
		return
	}
	n.waiting = true
}

// flush sends what the peers have room for, but not more at a time than lets
// the rest of the loop run.
func (n *namedSends) flush() {
	n.waiting = false
	t := n.t
	defer func() { // also after a runtime.Goexit in a callback
		if t.queue.first != nil && !t.ended && !n.waiting {
			n.after(0)
		}
	}()
	for range nowait.BatchSize {
		p := t.queue.first
		if p == nil || t.ended {
			return
		}
		_, errno := nowait.SendTo(t.fd, p.data, &p.to)
		if errno == syscall.EAGAIN {
			n.later()
			return
		}
		n.pause.Reset()
		t.sentFirst(errno)
	}
}
