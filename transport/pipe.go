package transport

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/loop"
)

// pipe is what the two kinds of pipe transports have in common: a descriptor
// of their own, a protocol, and the way in which they end.
type pipe struct {
	caller
	self  Transport
	proto Protocol
	// file is what the user gave; fd is the transport's own descriptor of it.
	file *os.File
	fd   int32
	// closing is set when the end has begun, ended when ConnectionLost is queued
	// or was called.
	closing, ended bool
	release        backend.Op
}

func (p *pipe) init(l *loop.Loop, self Transport, fd int, file *os.File) {
	p.caller = newCaller(l)
	p.self, p.fd, p.file = self, int32(fd), file
	p.release = backend.Op{Code: backend.OpClose, FD: p.fd, Receiver: (*pipeRelease)(p)}
	openSetOf(l)[p] = struct{}{}
}

// Loop returns the loop that the transport belongs to.
func (p *pipe) Loop() *loop.Loop { return p.loop }

// IsClosing reports whether the end has begun.
func (p *pipe) IsClosing() bool { return p.closing }

// Protocol returns the current protocol, nil when the connection is gone.
func (p *pipe) Protocol() Protocol { return p.proto }

// replace gives the pipe another protocol; it reports whether the pipe still
// has one.
func (p *pipe) replace(proto Protocol) bool {
	if proto == nil {
		panic("transport: SetProtocol(nil)")
	}
	if p.ended && p.proto == nil {
		return false
	}
	p.proto = proto
	return true
}

// ExtraInfo knows "pipe", the *os.File given to ConnectReadPipe or
// ConnectWritePipe.
func (p *pipe) ExtraInfo(name string) (any, bool) {
	if name == "pipe" && p.file != nil {
		return p.file, true
	}
	return nil, false
}

// made tells the protocol that the connection is there.
func (p *pipe) made() {
	p.call("ConnectionMade", p.self, p.proto, func() { p.proto.ConnectionMade(p.self) })
}

// lose queues ConnectionLost.
func (p *pipe) lose(err error) {
	p.closing = true
	if p.ended {
		return
	}
	p.ended = true
	p.soon(func() { p.lost(err) })
}

// lost tells the protocol that the connection is over and lets go of the
// descriptor, which is open until then.
func (p *pipe) lost(err error) {
	defer func() {
		p.proto = nil
		p.close()
	}()
	p.call("ConnectionLost", p.self, p.proto, func() { p.proto.ConnectionLost(err) })
}

// close closes the descriptor when no operation is in flight on it any more.
func (p *pipe) close() {
	if p.loop.IsClosed() {
		return // orphaned will be called, or was
	}
	delete(openSetOf(p.loop), p)
	if p.loop.Submit(&p.release) != nil {
		p.closeNow()
	}
}

// orphaned closes the descriptor after the loop. A pipe of a child has no file; its
// subprocess is what was left open.
func (p *pipe) orphaned() {
	if p.file != nil {
		warnUnclosed(p.loop, p.self)
	}
	p.closing, p.ended = true, true
	p.closeNow()
}

// closeNow closes the descriptor of a pipe on which nothing is in flight. What
// was written is with the kernel already, so errors say nothing.
func (p *pipe) closeNow() {
	_ = unix.Close(int(p.fd))
	if p.file != nil {
		_ = p.file.Close()
	}
}

// pipeRelease is told that the descriptor of a pipe is closed.
type pipeRelease pipe

// Complete implements backend.Receiver.
func (r *pipeRelease) Complete(_ *backend.Op, res backend.Result) {
	switch {
	case res.Cancelled():
		(*pipe)(r).closeNow()
	case r.file != nil:
		_ = r.file.Close()
	}
}

// name names the pipe for messages.
func (p *pipe) name() string {
	if p.file != nil {
		return p.file.Name()
	}
	return fmt.Sprintf("fd %d", p.fd)
}
