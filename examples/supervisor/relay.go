package main

import (
	"bytes"
	"errors"
	"io"

	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/transport"
)

// maxLine is the longest line that is kept in one piece, in bytes.
const maxLine = 64 << 10

// relay passes the output of a process on, line by line. It writes with plain
// blocking writes: when nobody takes our output, the commands have to wait too.
type relay struct {
	transport.BaseSubprocessProtocol
	u    *unit
	rest [3][]byte // the beginning of a line of stdout and stderr
	lost bool
	wake *loop.Future[struct{}] // of the task that waits in ended, or nil
}

// PipeDataReceived writes the lines that are complete.
func (r *relay) PipeDataReceived(fd int, data []byte) {
	buf := append(r.rest[fd], data...)
	for {
		line, after, ok := bytes.Cut(buf, []byte("\n"))
		if !ok {
			break
		}
		r.write(fd, line)
		buf = after
	}
	if len(buf) >= maxLine {
		r.write(fd, buf)
		buf = nil
	}
	r.rest[fd] = append(r.rest[fd][:0], buf...)
}

// PipeConnectionLost writes the line that was begun.
func (r *relay) PipeConnectionLost(fd int, _ error) {
	if len(r.rest[fd]) > 0 {
		r.write(fd, r.rest[fd])
		r.rest[fd] = nil
	}
}

// ConnectionLost wakes the task that waits in ended.
func (r *relay) ConnectionLost(error) {
	r.lost = true
	if r.wake != nil && !r.wake.Done() {
		_ = r.wake.SetResult(struct{}{})
	}
}

// ended waits for the end of the process and of everything that holds on to its
// output.
func (r *relay) ended(co *loop.Coro) error {
	if r.lost {
		return nil
	}
	r.wake = loop.CreateFuture[struct{}](co.Loop())
	_, err := r.wake.Await(co)
	return err
}

// write writes a line with the name of the command in front.
func (r *relay) write(fd int, line []byte) {
	var to io.Writer = r.u.s.out
	if fd == 2 {
		to = r.u.s.log
	}
	// If nobody wants our output, the commands go on without it.
	_, _ = to.Write(append(append([]byte(r.u.name+" | "), line...), '\n'))
}

// finish waits for the rest of the output of a process that has ended.
func (r *relay) finish(co *loop.Coro, t transport.SubprocessTransport) error {
	err := loop.Timeout(co, drain, func() error { return r.ended(co) })
	t.Close()
	if errors.Is(err, loop.ErrTimeout) {
		return nil
	}
	return err
}
