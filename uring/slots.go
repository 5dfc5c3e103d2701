package uring

import (
	"runtime"
	"unsafe"

	"github.com/seed-80cfe818/ringloop/backend"
)

// User data is made of a kind (8 bits), a generation (24) and a slot (32).
const (
	kindOp     = iota // a completion of the slot's operation
	kindCancel        // the answer to a request to cancel the slot's operation
	kindWake          // the eventfd of Wake
)

const genMask = 1<<24 - 1

// stage is what the kernel is doing for a slot.
type stage uint8

const (
	stageOp    stage = iota // the operation itself
	stagePoll               // waiting until the descriptor is ready for it
	stageEdge               // the same, told of new readiness only
	stageFound              // ready or failed; the poll ends, or has ended
)

// slot holds everything about an operation in flight that is not in its Op.
// It is in use from Submit to the terminal completion, and its memory outside
// the heap and its pins are released then, whatever the submitter does.
type slot struct {
	op  *backend.Op
	aux unsafe.Pointer // a block of the arena, nil if there is none
	gen uint32
	// next and prev link the slots of one descriptor; next links free ones.
	next, prev uint32
	pins       uint32
	sent       int // how much of a WaitAll send is out
	auxClass   uint8
	stage      stage
	onFD       bool  // is in the descriptor's lists
	cancelled  bool  // was asked to end, by Cancel or by OpClose
	shut       bool  // the last poll found an end: of a listener, of a connection or by shutdown(2)
	again      bool  // an output that is tried again before it waits, for a shutdown came between
	begun      bool  // a connect that was under way already, for another one has begun it
	erred      bool  // the last poll found an error and nothing else
	dropped    uint8 // how often in a row the kernel has ended it though nobody asked
}

// Slots live in pages, so that a slot never moves.
const (
	slotShift    = 7
	slotsPerPage = 1 << slotShift
)

type slotPage [slotsPerPage]slot

// slots is the table of operations. Number 0 is never used.
type slots struct {
	pages []*slotPage
	n     uint32 // how many were ever used, with number 0
	free  uint32
	inUse int
}

// at returns a slot that was taken before.
func (t *slots) at(idx uint32) *slot { return &t.pages[idx>>slotShift][idx&(slotsPerPage-1)] }

// take finds a slot for op.
func (t *slots) take(op *backend.Op) uint32 {
	idx := t.free
	if idx == 0 {
		idx = t.grow()
	} else {
		t.free = t.at(idx).next
	}
	s := t.at(idx)
	*s = slot{op: op, gen: s.gen}
	op.State.Slot = idx
	t.inUse++
	return idx
}

// grow adds a slot.
func (t *slots) grow() uint32 {
	idx := max(t.n, 1)
	t.n = idx + 1
	if int(idx>>slotShift) == len(t.pages) {
		t.pages = append(t.pages, new(slotPage))
	}
	return idx
}

// release frees a slot. What is still to come for it will be dropped.
func (t *slots) release(idx uint32) {
	s := t.at(idx)
	*s = slot{gen: (s.gen + 1) & genMask, next: t.free}
	t.free = idx
	t.inUse--
}

// userData names the operation that is now in slot idx.
func (t *slots) userData(kind uint64, idx uint32) uint64 {
	return kind<<56 | uint64(t.at(idx).gen)<<32 | uint64(idx)
}

// find returns the slot that user data names, 0 if it has a new life.
func (t *slots) find(userData uint64) uint32 {
	idx := uint32(userData)
	if idx >= t.n {
		return 0
	}
	if s := t.at(idx); s.op == nil || s.gen != uint32(userData>>32)&genMask {
		return 0
	}
	return idx
}

// pinsPerSet is how many objects a runtime.Pinner holds without allocating.
const pinsPerSet = 5

// pins is a pool of pinners. A pin set is a chain of them, named by the
// number of the first; 0 is the empty set.
type pins struct {
	tab  []pinSet
	free uint32
}

type pinSet struct {
	pinner runtime.Pinner
	next   uint32
	n      uint8
}

// add pins the memory of b for set and returns the set.
func (p *pins) add(set uint32, b []byte) uint32 {
	if len(b) == 0 {
		return set
	}
	if set == 0 || p.tab[set].n == pinsPerSet {
		first := p.free
		if first == 0 {
			if len(p.tab) == 0 {
				p.tab = make([]pinSet, 1, 16)
			}
			first = uint32(len(p.tab))
			p.tab = append(p.tab, pinSet{})
		} else {
			p.free = p.tab[first].next
		}
		p.tab[first].next = set
		set = first
	}
	s := &p.tab[set]
	s.pinner.Pin(&b[0])
	s.n++
	return set
}

// drop unpins a set.
func (p *pins) drop(set uint32) {
	for set != 0 {
		s := &p.tab[set]
		s.pinner.Unpin()
		s.n = 0
		set, s.next, p.free = s.next, p.free, set
	}
}
