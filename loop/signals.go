package loop

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrUncatchable is the error for a signal that no program can catch, or no Go
// program.
var ErrUncatchable = errors.New("signal cannot be caught")

// maxSignal is the highest signal number of Linux.
const maxSignal = 64

// signalHandler passes a signal on to the loop.
type signalHandler struct {
	l   *Loop
	sig syscall.Signal
	ch  chan os.Signal
	fn  func() // nil when removed
	ctx *Context
	// debug describes fn, in debug mode. It is read by the forwarding goroutine.
	debug atomic.Pointer[origin]
}

// pendingSignals is how many deliveries may wait for the forwarding goroutine;
// the kernel merges signals too.
const pendingSignals = 16

// AddSignalHandler calls fn on the loop whenever the process receives sig
// (loop.add_signal_handler). fn is an ordinary callback of the next turn, called
// once per delivered signal, in a copy of the current context. A handler that
// the loop has already for sig is replaced. Several loops, and os/signal, may
// handle the same signal; each of them is told.
//
// The error is ErrInvalidArgument for a number that is no signal's or a nil fn,
// ErrUncatchable for SIGKILL, SIGSTOP and the signals that the Go runtime keeps
// for itself (SIGURG, SIGPROF, those of hardware errors, and 32 to 34), or
// ErrLoopClosed. Loop's thread only.
func (l *Loop) AddSignalHandler(sig syscall.Signal, fn func()) error {
	if err := l.checkCall("AddSignalHandler", fn); err != nil {
		return err
	}
	if err := checkSignal(sig); err != nil {
		return fmt.Errorf("AddSignalHandler: %w", err)
	}
	if err := catchable(sig); err != nil {
		return fmt.Errorf("AddSignalHandler: %w", err)
	}
	h := l.signals[sig]
	if h == nil {
		h = &signalHandler{l: l, sig: sig, ch: make(chan os.Signal, pendingSignals)}
		if l.signals == nil {
			l.signals = map[syscall.Signal]*signalHandler{}
		}
		l.signals[sig] = h
		go h.forward()
	}
	signal.Notify(h.ch, sig) // again: the program may have ignored the signal meanwhile, or reset it
	h.fn, h.ctx = fn, l.scope.copy()
	var o *origin
	if l.debug.Load() {
		o = l.originOf(fn)
	}
	h.debug.Store(o)
	return nil
}

// RemoveSignalHandler ends AddSignalHandler and reports whether the loop had a
// handler for sig (loop.remove_signal_handler). If nobody else handles the
// signal, it gets Go's default action again. The error is ErrInvalidArgument
// for a number that is no signal's. Loop's thread only.
func (l *Loop) RemoveSignalHandler(sig syscall.Signal) (bool, error) {
	if err := checkSignal(sig); err != nil {
		return false, fmt.Errorf("RemoveSignalHandler: %w", err)
	}
	h := l.signals[sig]
	if h == nil {
		return false, nil
	}
	if err := l.checkOpen("RemoveSignalHandler"); err != nil {
		return false, err
	}
	h.remove()
	return true, nil
}

// forward posts what the process receives to the loop.
func (h *signalHandler) forward() {
	for range h.ch {
		cb := &callback{loop: h.l, fn: h.call, shared: new(atomic.Int32), debug: h.debug.Load()}
		if _, err := h.l.post(cb); err != nil {
			return // the loop is closed
		}
	}
}

// call calls the handler that is installed now.
func (h *signalHandler) call() {
	if h.fn == nil {
		return
	}
	h.l.scope = scope{ctx: h.ctx}
	h.fn()
}

func (h *signalHandler) remove() {
	delete(h.l.signals, h.sig)
	h.fn = nil
	// Of this channel alone: others may handle the signal too.
	signal.Stop(h.ch)
	close(h.ch)
}

func (l *Loop) closeSignals() {
	for _, h := range l.signals {
		h.remove()
	}
}

func checkSignal(sig syscall.Signal) error {
	if sig <= 0 || sig > maxSignal {
		return fmt.Errorf("%w: %d is not a signal, they are 1 to %d", ErrInvalidArgument, int(sig), maxSignal)
	}
	return nil
}

func catchable(sig syscall.Signal) error {
	name := unix.SignalName(sig)
	if name == "" {
		name = sig.String()
	}
	switch sig {
	case syscall.SIGKILL, syscall.SIGSTOP:
		return fmt.Errorf("%w: %s", ErrUncatchable, name)
	case syscall.SIGURG, syscall.SIGPROF, syscall.SIGSEGV, syscall.SIGBUS, syscall.SIGFPE, syscall.SIGILL, syscall.SIGTRAP, 32, 33, 34:
		return fmt.Errorf("%w: the Go runtime uses %s itself", ErrUncatchable, name)
	}
	return nil
}
