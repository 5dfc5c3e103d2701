package transport

import (
	"fmt"
	"runtime/debug"

	"github.com/seed-80cfe818/ringloop/loop"
)

// orphan is something that must let go of descriptors or processes when its
// loop is closed without it.
type orphan interface {
	// orphaned is called when the loop is closed and no operation is in flight.
	orphaned()
}

// openSet holds the pipes, datagram endpoints, subprocesses and processes without
// one of one loop that are not over.
type openSet map[orphan]struct{}

type openSetKey struct{}

func openSetOf(l *loop.Loop) openSet {
	return l.Attached(openSetKey{}, func() loop.Attachment { return openSet{} }).(openSet)
}

// warnUnclosed warns about a transport that was left to its loop's Close.
func warnUnclosed(l *loop.Loop, t any) {
	guardLogger(l, &loop.ExceptionContext{Transport: t}, func() {
		l.Logger().Warn("unclosed transport", "transport", fmt.Sprint(t))
	})
}

// guardLogger calls log about something that is let go of also if the logger, which
// is the program's, panics.
func guardLogger(l *loop.Loop, about *loop.ExceptionContext, log func()) {
	defer func() {
		if r := recover(); r != nil {
			about.Message = "Panic in the logger"
			l.HandlePanic(r, debug.Stack(), about)
		}
	}()
	log()
}

// LoopClosed implements loop.Attachment.
func (s openSet) LoopClosed() {
	for o := range s {
		o.orphaned()
	}
	clear(s)
}
