package transport

import (
	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/loop"
)

// shared is what the transports of one loop have in common. It belongs to the
// loop's thread.
type shared struct {
	loop     *loop.Loop
	chunks   chunks
	outboxes []*outbox
	closers  []*closer
	clients  streamList // the streams without a server
	servers  *Server    // those that are not over, linked by next
}

type sharedKey struct{}

// sharedOf returns what the transports of l share.
func sharedOf(l *loop.Loop) *shared {
	return l.Attached(sharedKey{}, func() loop.Attachment { return &shared{loop: l} }).(*shared)
}

// LoopClosed closes the descriptors that are left, and releases the memory.
func (sh *shared) LoopClosed() {
	sh.clients.orphan()
	for srv := sh.servers; srv != nil; srv = srv.next {
		srv.orphan()
	}
	sh.chunks.close()
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
	op backend.Op
	sh *shared
}

// close hands a descriptor to the backend for closing.
func (sh *shared) close(fd int32) {
	var c *closer
	if n := len(sh.closers); n > 0 {
		c = sh.closers[n-1]
		sh.closers = sh.closers[:n-1]
	} else {
		c = &closer{sh: sh}
		c.op.Receiver, c.op.Code = c, backend.OpClose
	}
	c.op.FD = fd
	if err := sh.loop.Submit(&c.op); err != nil {
		closeFD(fd)
	}
}

// Complete takes the closer back.
func (c *closer) Complete(*backend.Op, backend.Result) { c.sh.closers = append(c.sh.closers, c) }
