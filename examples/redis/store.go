package main

import (
	"container/heap"
	"math"
	"time"

	"github.com/seed-80cfe818/ringloop/loop"
)

// purgeBatch is how many keys that are over are removed in one turn of the
// loop, so that many at once do not hold up the clients.
const purgeBatch = 1000

// entry is a key with its value.
type entry struct {
	key      string
	value    []byte
	deadline int64 // by store.now, the last millisecond; 0 if it lives for ever
	index    int   // in store.mortal, if it has a deadline
}

// store has the keys. A key that is over is removed when somebody asks for it,
// and by a timer for the earliest deadline.
type store struct {
	l      *loop.Loop
	epoch  int64 // what now says at the loop's time 0
	keys   map[string]*entry
	mortal deadlines
	timer  loop.TimerHandle
	armed  time.Duration // when the timer is due; 0 if it is not set
}

func newStore(l *loop.Loop) *store {
	return &store{l: l, epoch: time.Now().UnixMilli() - l.Time().Milliseconds(), keys: map[string]*entry{}}
}

// now returns the time in milliseconds since 1970, as Redis counts it: the loop's
// clock, whose nanoseconds end after 292 years, could not hold its lifetimes. It
// goes on steadily when somebody sets the system's clock.
func (s *store) now() int64 { return s.epoch + s.l.Time().Milliseconds() }

// base returns from when on a span counts.
func (s *store) base(sp span) int64 {
	if sp.moment {
		return 0
	}
	return s.now()
}

// deadline returns the time at the end of n units, unless it is more than can be
// counted.
func (s *store) deadline(n int64, sp span) (deadline int64, ok bool) {
	base := s.base(sp)
	if n > math.MaxInt64/sp.unit || n < math.MinInt64/sp.unit || n*sp.unit > math.MaxInt64-base {
		return 0, false
	}
	return base + n*sp.unit, true
}

// get returns the entry of a key, nil if there is none.
func (s *store) get(key []byte) *entry {
	e := s.keys[string(key)]
	if e != nil && e.deadline != 0 && e.deadline < s.now() {
		s.remove(e)
		return nil
	}
	return e
}

// set makes value the key's value, for ever. value is copied unless it is
// owned, that is, nobody else uses its memory.
func (s *store) set(key, value []byte, owned bool) *entry {
	e := s.keys[string(key)]
	if e == nil {
		e = &entry{key: string(key)}
		s.keys[e.key] = e
	}
	s.persist(e)
	switch {
	case owned:
		e.value = value
	case cap(e.value) > 2*len(value)+64:
		e.value = append([]byte{}, value...)
	default:
		e.value = append(e.value[:0], value...)
	}
	return e
}

// remove removes an entry.
func (s *store) remove(e *entry) {
	s.persist(e)
	delete(s.keys, e.key)
}

// clear removes all entries.
func (s *store) clear() {
	clear(s.keys)
	s.mortal = nil
}

// size returns the number of keys.
func (s *store) size() int {
	for s.purge(purgeBatch) {
	}
	return len(s.keys)
}

// persist lets an entry live for ever.
func (s *store) persist(e *entry) {
	if e.deadline != 0 {
		heap.Remove(&s.mortal, e.index)
		e.deadline = 0
	}
}

// expire lets an entry live until the deadline.
func (s *store) expire(e *entry, deadline int64) {
	was := e.deadline
	e.deadline = deadline
	if was == 0 {
		heap.Push(&s.mortal, e)
	} else {
		heap.Fix(&s.mortal, e.index)
	}
	s.arm()
}

// arm sets the timer to the earliest deadline, unless it is set to an earlier
// time: when it is due in vain, it is set anew.
func (s *store) arm() {
	if len(s.mortal) == 0 {
		return
	}
	// A timer that the loop's clock has no time for is due at its end.
	const end = math.MaxInt64 / int64(time.Millisecond)
	first := time.Duration(min(s.mortal[0].deadline-s.epoch, end-1)+1) * time.Millisecond
	if s.armed != 0 && s.armed <= first {
		return
	}
	if s.armed != 0 {
		s.timer.Cancel()
	}
	s.armed = first
	var err error
	if s.timer, err = s.l.CallAt(first, s.due); err != nil {
		s.armed = 0 // the loop is closed
	}
}

// due is called when the timer is due.
func (s *store) due() {
	s.armed = 0
	s.purge(purgeBatch)
	s.arm()
}

// purge removes at most n entries that are over. It reports whether there may
// be more.
func (s *store) purge(n int) (more bool) {
	now := s.now()
	for ; n > 0 && len(s.mortal) > 0 && s.mortal[0].deadline < now; n-- {
		s.remove(s.mortal[0])
	}
	return n == 0
}

// deadlines is a heap.Interface of the entries that have a deadline, the
// earliest first.
type deadlines []*entry

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].deadline < d[j].deadline }
func (d deadlines) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].index, d[j].index = i, j
}

// Push is heap.Push's.
func (d *deadlines) Push(x any) {
	e := x.(*entry)
	e.index = len(*d)
	*d = append(*d, e)
}

// Pop is heap.Pop's.
func (d *deadlines) Pop() any {
	last := len(*d) - 1
	e := (*d)[last]
	(*d)[last] = nil
	*d = (*d)[:last]
	return e
}
