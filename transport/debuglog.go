package transport

import (
	"fmt"

	"github.com/seed-80cfe818/ringloop/loop"
)

// debugLog logs in debug mode what becomes of a transport, a server or a process.
func debugLog(l *loop.Loop, what string, about fmt.Stringer) {
	if l.Debug() {
		l.Logger().Debug(what, "of", about.String())
	}
}
