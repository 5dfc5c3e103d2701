package transport

import (
	"slices"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/internal/nowait"
	"github.com/seed-80cfe818/ringloop/loop"
)

// shared is what the transports of one loop have in common. It belongs to the
// loop's thread.
type shared struct {
	loop     *loop.Loop
	chunks   chunks
	arrivals *arrivals // nil while they are lent, or nobody has needed them
	// departures are the packets that one system call sends.
	departures nowait.Batch
	outboxes   []*outbox
	closers    []*closer
	// directSend is the size in bytes from which on a send by itself is not dearer
	// than one that is submitted with others; see backend.Backend.DirectSend.
	directSend int
	clients    streamList // the streams without a server
	servers    *Server    // those that are not over, linked by next
	ports      portList
	late       []*closer // what was closed while the loop was being closed
	over       bool      // nothing is in flight any more, for the loop is closed
}

// portList counts the sockets that are being closed whose addresses others may want:
// listening and datagram sockets, and those that connected from a given address.
type portList struct {
	begun   uint64 // how many closes there have been
	closing int    // how many have not ended
	waits   []*portWait
}

// portWait is a task that waits for the closes that had begun before it: others that
// begin all the time do not keep it waiting.
type portWait struct {
	waitList
	upTo uint64 // the last of them
	left int
}

// begin notes that a close has begun, and returns its number.
func (p *portList) begin() uint64 {
	p.begun++
	p.closing++
	return p.begun
}

// ended notes that the close with a number has ended.
func (p *portList) ended(number uint64) {
	p.closing--
	for _, w := range p.waits {
		if number > w.upTo {
			continue
		}
		if w.left--; w.left == 0 {
			w.wake()
		}
	}
	p.waits = slices.DeleteFunc(p.waits, func(w *portWait) bool { return w.left == 0 })
}

// wait suspends the task until the sockets that are being closed are closed, so
// that their addresses are free.
func (p *portList) wait(co *loop.Coro) error {
	if p.closing == 0 {
		return nil
	}
	w := &portWait{waitList: waitList{what: "a socket with the address to be closed"}, upTo: p.begun, left: p.closing}
	p.waits = append(p.waits, w)
	for w.left > 0 {
		if err := w.waitList.wait(co); err != nil {
			p.waits = slices.DeleteFunc(p.waits, func(other *portWait) bool { return other == w })
			return err
		}
	}
	return nil
}

type sharedKey struct{}

// sharedOf returns what the transports of l share.
func sharedOf(l *loop.Loop) *shared {
	return l.Attached(sharedKey{}, func() loop.Attachment {
		return &shared{loop: l, directSend: l.Backend().DirectSend(), over: l.IsClosed()}
	}).(*shared)
}

// LoopClosed closes the descriptors that are left, and releases the memory.
func (sh *shared) LoopClosed() {
	sh.over = true
	for _, c := range sh.late {
		c.closeNow(c.op.FD)
	}
	sh.late = nil
	sh.clients.orphan()
	for srv := sh.servers; srv != nil; srv = srv.next {
		srv.orphan()
	}
	sh.chunks.close()
	if sh.arrivals != nil {
		sh.arrivals.close()
	}
}

// streamList is a list of streams, linked by their own fields.
type streamList struct {
	first *stream
	n     int
}

func (l *streamList) add(s *stream) {
	s.next = l.first
	if s.next != nil {
		s.next.prev = s
	}
	l.first = s
	l.n++
}

func (l *streamList) remove(s *stream) {
	if s.prev != nil {
		s.prev.next = s.next
	} else {
		l.first = s.next
	}
	if s.next != nil {
		s.next.prev = s.prev
	}
	s.next, s.prev = nil, nil
	l.n--
}

// orphan closes the descriptors of streams whose loop is closed.
func (l *streamList) orphan() {
	for s := l.first; s != nil; s = s.next {
		s.orphan()
	}
}

// closer closes a descriptor when the backend has let go of it.
type closer struct {
	op   backend.Op
	sh   *shared
	port uint64  // its number in sh.ports, or 0
	srv  *Server // whose listening socket it is, or nil
}

// close hands a descriptor to the backend for closing.
func (sh *shared) close(fd int32) { sh.closer().begin(fd) }

// closePort is close for a socket whose address others may wait for.
func (sh *shared) closePort(fd int32) {
	c := sh.closer()
	c.port = sh.ports.begin()
	c.begin(fd)
}

// closeListener is closePort for a listening socket of srv, which is told of it.
func (sh *shared) closeListener(fd int32, srv *Server) {
	c := sh.closer()
	c.port, c.srv = sh.ports.begin(), srv
	srv.closing++
	c.begin(fd)
}

func (sh *shared) closer() *closer {
	var c *closer
	if n := len(sh.closers); n > 0 {
		c = sh.closers[n-1]
		sh.closers = sh.closers[:n-1]
	} else {
		c = &closer{sh: sh}
		c.op.Receiver, c.op.Code = c, backend.OpClose
	}
	return c
}

func (c *closer) begin(fd int32) {
	c.op.FD = fd
	switch closed := c.sh.loop.IsClosed(); {
	case closed && !c.sh.over:
		c.sh.late = append(c.sh.late, c) // its backend may still use fd
	case closed || c.sh.loop.Submit(&c.op) != nil: // a closed loop is not asked: it may unwind the task, and leave fd open
		c.closeNow(fd)
	}
}

func (c *closer) closeNow(fd int32) {
	closeFD(fd)
	c.closed()
}

// Complete takes the closer back. A close that the end of the loop has
// prevented is made up for.
func (c *closer) Complete(op *backend.Op, r backend.Result) {
	if r.Cancelled() {
		closeFD(op.FD)
	}
	c.closed()
}

func (c *closer) closed() {
	port, srv := c.port, c.srv
	c.port, c.srv = 0, nil
	c.sh.closers = append(c.sh.closers, c)
	if port != 0 {
		c.sh.ports.ended(port)
	}
	if srv != nil {
		srv.closing--
		srv.detached()
	}
}
