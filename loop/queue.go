package loop

// runnable is something that the ready queue holds.
type runnable interface {
	// run is called once, on the loop's thread, on the turn after it was queued.
	run(l *Loop)
}

// queue is a ring buffer of what runs next, first in, first out.
type queue struct {
	buf  []runnable // its length is a power of two, or 0
	head int
	n    int
}

func (q *queue) push(r runnable) {
	if q.n == len(q.buf) {
		q.grow()
	}
	q.buf[(q.head+q.n)&(len(q.buf)-1)] = r
	q.n++
}

func (q *queue) pop() runnable {
	r := q.buf[q.head]
	q.buf[q.head] = nil
	q.head = (q.head + 1) & (len(q.buf) - 1)
	q.n--
	return r
}

// rotate puts the first n behind all others.
func (q *queue) rotate(n int) {
	for range n {
		q.push(q.pop())
	}
}

func (q *queue) grow() {
	buf := make([]runnable, max(64, 2*len(q.buf)))
	for i := range q.n {
		buf[i] = q.buf[(q.head+i)&(len(q.buf)-1)]
	}
	q.buf, q.head = buf, 0
}

// maxKept is for how many callbacks, and timers, an idle loop keeps room that it
// does not use.
const maxKept = 1 << 16

// shrink lets go of the room that a burst has needed. Nothing is queued.
func (l *Loop) shrink() {
	if len(l.ready.buf) > maxKept {
		l.ready = queue{}
	}
	if cap(l.due) > maxKept {
		l.due = nil
	}
	if cap(l.turnEnders) > maxKept {
		l.turnEnders = nil
	}
	if n := len(l.timers.entries); cap(l.timers.entries) > maxKept && n < cap(l.timers.entries)/4 {
		l.timers.entries = append(make([]timerEntry, 0, 2*n), l.timers.entries...)
	}
}
