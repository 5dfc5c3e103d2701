package loop

import "time"

// timerEntry is a place in the heap; seq keeps equal times in the order in
// which they were scheduled.
type timerEntry struct {
	when time.Duration
	seq  uint64
	cb   *callback
}

func (a *timerEntry) before(b *timerEntry) bool {
	return a.when < b.when || a.when == b.when && a.seq < b.seq
}

// timerHeap is a heap with four children per node, which is shallower, and
// kinder to caches, than one with two. Cancelled timers stay until they come to
// the top or are more than half of the heap.
type timerHeap struct {
	entries   []timerEntry
	seq       uint64
	cancelled int
}

const heapArity = 4

func (h *timerHeap) push(when time.Duration, cb *callback) {
	h.seq++
	h.entries = append(h.entries, timerEntry{when, h.seq, cb})
	h.up(len(h.entries) - 1)
}

func (h *timerHeap) pop() *callback {
	cb := h.entries[0].cb
	last := len(h.entries) - 1
	h.entries[0] = h.entries[last]
	h.entries[last] = timerEntry{}
	h.entries = h.entries[:last]
	if last > 0 {
		h.down(0)
	}
	return cb
}

func (h *timerHeap) up(i int) {
	e := h.entries[i]
	for i > 0 {
		parent := (i - 1) / heapArity
		if !e.before(&h.entries[parent]) {
			break
		}
		h.entries[i] = h.entries[parent]
		i = parent
	}
	h.entries[i] = e
}

func (h *timerHeap) down(i int) {
	e := h.entries[i]
	n := len(h.entries)
	for {
		first := heapArity*i + 1
		if first >= n {
			break
		}
		least := first
		for c := first + 1; c < min(first+heapArity, n); c++ {
			if h.entries[c].before(&h.entries[least]) {
				least = c
			}
		}
		if !h.entries[least].before(&e) {
			break
		}
		h.entries[i] = h.entries[least]
		i = least
	}
	h.entries[i] = e
}

// The bounds of asyncio: a heap with few timers, or with few cancelled ones,
// is not worth rebuilding.
const minTimersToPurge = 100

// purge removes the cancelled timers: all, if they are more than half of many,
// else those at the top.
func (h *timerHeap) purge() {
	if len(h.entries) > minTimersToPurge && 2*h.cancelled > len(h.entries) {
		kept := h.entries[:0]
		for _, e := range h.entries {
			if !e.cb.cancelled {
				kept = append(kept, e)
			}
		}
		clear(h.entries[len(kept):])
		h.entries = kept
		h.cancelled = 0
		for i := (len(kept) - 2) / heapArity; i >= 0 && len(kept) > 1; i-- {
			h.down(i)
		}
		return
	}
	for len(h.entries) > 0 && h.entries[0].cb.cancelled {
		h.pop()
		h.cancelled--
	}
}

// CallLater calls fn after delay, on the loop's clock; a zero or negative one
// means the next turn, where callbacks run in the order of their times, and
// those of equal times in the order in which they were scheduled
// (loop.call_later). Errors are those of CallSoon.
func (l *Loop) CallLater(delay time.Duration, fn func()) (TimerHandle, error) {
	return l.callAt("CallLater", addTime(l.Time(), delay), fn, nil)
}

// CallLaterContext is CallLater with the context in which fn is called.
func (l *Loop) CallLaterContext(ctx *Context, delay time.Duration, fn func()) (TimerHandle, error) {
	return l.callAt("CallLater", addTime(l.Time(), delay), fn, ctx)
}

// CallAt calls fn at the time when of the loop's clock (loop.call_at). See
// CallLater.
func (l *Loop) CallAt(when time.Duration, fn func()) (TimerHandle, error) {
	return l.callAt("CallAt", when, fn, nil)
}

// CallAtContext is CallAt with the context in which fn is called.
func (l *Loop) CallAtContext(ctx *Context, when time.Duration, fn func()) (TimerHandle, error) {
	return l.callAt("CallAt", when, fn, ctx)
}

func (l *Loop) callAt(what string, when time.Duration, fn func(), ctx *Context) (TimerHandle, error) {
	if err := l.checkCall(what, fn); err != nil {
		return TimerHandle{}, err
	}
	cb := l.newCallback(fn, ctx)
	cb.timer = true
	if cb.debug != nil {
		at := when // a copy, so that only debug mode allocates
		cb.debug.timer = &at
	}
	l.timers.push(when, cb)
	return TimerHandle{Handle{cb, cb.gen, cb.debug}, when}, nil
}

// addTime adds a delay to a time and stays at the largest time instead of
// wrapping around.
func addTime(t, delay time.Duration) time.Duration {
	if delay > 0 && t+delay < t {
		return 1<<63 - 1
	}
	return t + delay
}
