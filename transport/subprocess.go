package transport

import (
	"fmt"
	"os"
	"syscall"

	"github.com/seed-80cfe818/ringloop/loop"
)

// subprocess is the transport of a child process. Its pipes are transports with
// a protocol of their own, which passes on what happens.
type subprocess struct {
	caller
	proc  *Process
	proto SubprocessProtocol
	flow  FlowController
	pipes [3]childEnd
	// open is how many pipes are not lost. made is set after ConnectionMade:
	// until then nothing is told. told is set after ProcessExited.
	open                          int
	made, told, closing, finished bool
}

// connectSubprocess makes the transport of a child that was just started, and
// takes over our ends of its pipes.
func connectSubprocess(l *loop.Loop, pid, pidfd int, stdio *childStdio, p SubprocessProtocol) *subprocess {
	t := &subprocess{caller: newCaller(l)}
	t.SetProtocol(p)
	t.proc = newProcess(l, pid, pidfd, t.exited)
	openSetOf(l)[t] = struct{}{}
	for fd, end := range stdio.parent {
		if end == noFD {
			continue
		}
		stdio.parent[fd] = noFD
		t.open++
		pp := childPipe{t, fd}
		if fd == 0 {
			t.pipes[fd] = newWritePipe(l, end, nil, &childInput{pp}, true)
		} else {
			t.pipes[fd] = newReadPipe(l, end, nil, &childOutput{pp}, false)
		}
	}
	return t
}

// connected tells the protocol that the process runs, and then what has
// happened meanwhile.
func (t *subprocess) connected() {
	defer func() { // also after a runtime.Goexit in the callback
		t.made = true
		for _, p := range t.pipes {
			if p != nil {
				p.start()
			}
		}
		if t.proc.ended {
			t.exited()
		}
	}()
	t.call("ConnectionMade", t, t.proto, func() { t.proto.ConnectionMade(t) })
}

// exited tells the protocol that the process has ended.
func (t *subprocess) exited() {
	if !t.made || t.told {
		return
	}
	t.told = true
	defer t.tryFinish() // also after a runtime.Goexit in the callback
	t.call("ProcessExited", t, t.proto, t.proto.ProcessExited)
}

// pipeLost tells the protocol that a pipe has ended.
func (t *subprocess) pipeLost(fd int, err error) {
	t.open--
	defer t.tryFinish() // also after a runtime.Goexit in the callback
	t.call("PipeConnectionLost", t, t.proto, func() { t.proto.PipeConnectionLost(fd, err) })
}

// tryFinish loses the connection when the process and every pipe have ended.
func (t *subprocess) tryFinish() {
	if t.told && t.open == 0 && !t.finished {
		t.finished = true
		delete(openSetOf(t.loop), t)
		t.soon(t.lost)
	}
}

func (t *subprocess) lost() {
	// Also after a runtime.Goexit in the callback.
	defer func() { t.closing, t.proto, t.flow = true, nil, nil }()
	t.call("ConnectionLost", t, t.proto, func() { t.proto.ConnectionLost(nil) })
}

// orphaned ends the process after the loop.
func (t *subprocess) orphaned() {
	if !t.closing {
		warnUnclosed(t.loop, t)
	}
	t.closing = true
	t.proc.orphaned()
}

// PID returns the number of the process.
func (t *subprocess) PID() int { return t.proc.PID() }

// ReturnCode returns how the process ended.
func (t *subprocess) ReturnCode() (code int, ok bool) { return t.proc.ReturnCode() }

// Wait suspends the task until the process has ended.
func (t *subprocess) Wait(co *loop.Coro) (int, error) { return t.proc.Wait(co) }

// PipeTransport returns the transport of a stream that is a pipe.
func (t *subprocess) PipeTransport(fd int) Transport {
	if fd < 0 || fd >= len(t.pipes) || t.pipes[fd] == nil {
		return nil // not a childEnd that is nil
	}
	return t.pipes[fd]
}

// SendSignal sends a signal through the pidfd.
func (t *subprocess) SendSignal(sig syscall.Signal) error {
	if t.proto == nil {
		return fmt.Errorf("send signal %d (%v) to process %d: %w", int(sig), sig, t.PID(), errProcessLookup)
	}
	return t.proc.signal(sig)
}

// Terminate sends SIGTERM.
func (t *subprocess) Terminate() error { return t.SendSignal(syscall.SIGTERM) }

// Kill sends SIGKILL.
func (t *subprocess) Kill() error { return t.SendSignal(syscall.SIGKILL) }

// Close kills the process if it runs and closes the pipes.
func (t *subprocess) Close() {
	if t.closing || t.loop.Refuses("SubprocessTransport.Close") {
		return
	}
	t.closing = true
	for _, p := range t.pipes {
		if p != nil {
			// Not Close: who else has the other end may never read what is left.
			p.Abort()
		}
	}
	if t.proc.ended {
		return
	}
	if t.loop.Debug() {
		t.loop.Logger().Warn("closing the transport of a running process kills it", "process", t.proc.String())
	}
	if err := t.proc.signal(syscall.SIGKILL); err != nil {
		t.loop.CallExceptionHandler(&loop.ExceptionContext{
			Message: "Cannot kill the process of a closed transport", Exception: err, Transport: t, Protocol: t.proto,
		})
	}
}

// IsClosing reports whether Close was called or the process is gone.
func (t *subprocess) IsClosing() bool { return t.closing }

// ExtraInfo knows "subprocess", the *Process.
func (t *subprocess) ExtraInfo(name string) (any, bool) {
	if name == "subprocess" {
		return t.proc, true
	}
	return nil, false
}

// SetProtocol gives the next event to p.
func (t *subprocess) SetProtocol(p SubprocessProtocol) {
	if p == nil {
		panic("transport: SetProtocol(nil)")
	}
	if t.finished && t.proto == nil {
		return
	}
	t.proto = p
	t.flow, _ = p.(FlowController)
}

// Protocol returns the current protocol, nil when everything is over.
func (t *subprocess) Protocol() SubprocessProtocol { return t.proto }

// Loop returns the loop that the transport belongs to.
func (t *subprocess) Loop() *loop.Loop { return t.loop }

// String describes the transport.
func (t *subprocess) String() string {
	return fmt.Sprintf("<SubprocessTransport %s open pipes=%d>", t.proc, t.open)
}

// errProcessLookup is os.ErrProcessDone and syscall.ESRCH to errors.Is.
var errProcessLookup = fmt.Errorf("%w: %w", os.ErrProcessDone, syscall.ESRCH)

// childEnd is our end of a pipe of a child: a *writePipe or a *readPipe.
type childEnd interface {
	Transport
	start()
	end(err error)
}

// childPipe is the protocol of one pipe of a child. It calls the child's own
// protocol, so that reports name that.
type childPipe struct {
	t  *subprocess
	fd int
}

// ConnectionMade does nothing: the child's own comes for all of its pipes.
func (p *childPipe) ConnectionMade(Transport) {}

// ConnectionLost passes the end of the pipe on.
func (p *childPipe) ConnectionLost(err error) { p.t.pipeLost(p.fd, err) }

// childOutput is the protocol of a child's output.
type childOutput struct{ childPipe }

// DataReceived passes output on. A panic closes the pipe.
func (p *childOutput) DataReceived(data []byte) {
	t := p.t
	t.callOrEnd(t.pipes[p.fd].end, "PipeDataReceived", t, t.proto, func() { t.proto.PipeDataReceived(p.fd, data) })
}

// childInput is the protocol of a child's input.
type childInput struct{ childPipe }

// PauseWriting passes flow control on.
func (p *childInput) PauseWriting() {
	if t := p.t; t.flow != nil {
		t.call("PauseWriting", t, t.proto, t.flow.PauseWriting)
	}
}

// ResumeWriting passes flow control on.
func (p *childInput) ResumeWriting() {
	if t := p.t; t.flow != nil {
		t.call("ResumeWriting", t, t.proto, t.flow.ResumeWriting)
	}
}
