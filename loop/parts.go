package loop

import "syscall"

// parts is the state of what stands on the callbacks: each has its own file.
type parts struct {
	defaultPool executorState
	resolver    resolverState
	watches     watchTable
	signals     map[syscall.Signal]*signalHandler
	gens        asyncGens
	closers     closers
	attached    attachments
	handling    *origin // of the callback that runs, in debug mode
	unseen      unseenReports
}

// initParts prepares the parts of a new loop.
func (l *Loop) initParts() {
	l.initResolver()
}

// closeParts releases the parts. It runs on the loop's thread, if there is one,
// while the backend still works.
func (l *Loop) closeParts() {
	l.closeWatchers()
	l.closeSignals()
	l.closeResolver()
	l.closeExecutor()
	l.tellClosed()
}
