package main

import (
	"fmt"
	"io"
	"strconv"
	"sync"
	"time"
)

const (
	logPause = 100 * time.Millisecond // between two writes of the log
	logRoom  = 8 << 20                // bytes of lines that may wait to be written
	logGrace = 5 * time.Second        // to write the rest at the end
)

// accessLog writes one line per request, in the common log format followed by
// the time the request took. Lines are collected and written by a goroutine, so
// that a slow disk or terminal does not hold up the loops: if it gets too slow,
// lines are lost, and the log says how many.
type accessLog struct {
	w    io.Writer // nil: no log
	done chan struct{}
	over chan struct{} // closed when everything is written

	mu    sync.Mutex
	lines []byte
	lost  int
}

func newAccessLog(w io.Writer, quiet bool) *accessLog {
	a := &accessLog{done: make(chan struct{}), over: make(chan struct{})}
	if quiet {
		close(a.over)
		return a
	}
	a.w = w
	go a.writeAll()
	return a
}

// writeAll is the goroutine.
func (a *accessLog) writeAll() {
	defer close(a.over)
	tick := time.NewTicker(logPause)
	defer tick.Stop()
	var spare []byte
	for last := false; !last; {
		select {
		case <-tick.C:
		case <-a.done:
			last = true
		}
		spare = a.writeSome(spare[:0])
	}
}

// writeSome writes the lines that have come; more are collected in spare
// meanwhile. It returns the memory of those that it has written.
func (a *accessLog) writeSome(spare []byte) []byte {
	a.mu.Lock()
	lines, lost := a.lines, a.lost
	a.lines, a.lost = spare, 0
	a.mu.Unlock()
	if lost > 0 {
		lines = fmt.Appendf(lines, "fileserver: %d lines of the log were lost\n", lost)
	}
	if len(lines) > 0 {
		// Nobody is left to be told that the log cannot be written.
		_, _ = a.w.Write(lines)
	}
	return lines
}

// close writes what was collected, unless nobody takes it.
func (a *accessLog) close() {
	close(a.done)
	select {
	case <-a.over:
	case <-time.After(logGrace):
	}
}

// write logs a request that was answered.
func (a *accessLog) write(w *response) {
	if a.w == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.lines) > logRoom {
		a.lost++
		return
	}
	b := append(a.lines, w.c.peer...)
	b = append(b, " - - ["...)
	b = w.start.AppendFormat(b, "02/Jan/2006:15:04:05 -0700")
	b = append(b, "] "...)
	b = strconv.AppendQuote(b, w.requestLine())
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(w.status), 10)
	b = append(b, ' ')
	b = strconv.AppendInt(b, w.sent(), 10)
	b = append(b, ' ')
	b = strconv.AppendInt(b, time.Since(w.start).Microseconds(), 10)
	a.lines = append(b, "us\n"...)
}
