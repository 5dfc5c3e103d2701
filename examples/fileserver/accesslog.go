package main

import (
	"bufio"
	"io"
	"strconv"
	"sync"
	"time"
)

// accessLog writes one line per request, in the common log format followed by
// the time the request took. Lines are collected and written once a second, so
// that a slow disk or terminal does not hold up the loops.
type accessLog struct {
	mu   sync.Mutex
	w    *bufio.Writer // nil: no log
	line []byte
	done chan struct{}
	over sync.WaitGroup
}

func newAccessLog(w io.Writer, quiet bool) *accessLog {
	a := &accessLog{done: make(chan struct{})}
	if quiet {
		return a
	}
	a.w = bufio.NewWriterSize(w, 64<<10)
	a.over.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				a.flush()
			case <-a.done:
				a.flush()
				return
			}
		}
	})
	return a
}

func (a *accessLog) flush() {
	a.mu.Lock()
	defer a.mu.Unlock()
	// Nobody is left to be told that the log cannot be written.
	_ = a.w.Flush()
}

// close writes what was collected.
func (a *accessLog) close() {
	close(a.done)
	a.over.Wait()
}

// write logs a request that was answered.
func (a *accessLog) write(w *response) {
	if a.w == nil {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	b := append(a.line[:0], w.c.peer...)
	b = append(b, " - - ["...)
	b = w.start.AppendFormat(b, "02/Jan/2006:15:04:05 -0700")
	b = append(b, "] "...)
	b = strconv.AppendQuote(b, w.req.Method+" "+w.req.RequestURI+" "+w.req.Proto)
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(w.status), 10)
	b = append(b, ' ')
	b = strconv.AppendInt(b, w.body, 10)
	b = append(b, ' ')
	b = strconv.AppendInt(b, time.Since(w.start).Microseconds(), 10)
	b = append(b, "us\n"...)
	a.line = b
	// As in flush.
	_, _ = a.w.Write(b)
}
