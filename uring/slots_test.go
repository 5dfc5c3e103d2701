package uring

import (
	"testing"

	"github.com/seed-80cfe818/ringloop/backend"
)

func TestStaleCompletionsOfASlotAreDropped(t *testing.T) {
	b := open(t, nil)
	first := newOp(backend.Op{})
	submit(t, b, first)
	stale := b.slots.userData(kindOp, first.State.Slot)
	run(t, b, first.ended)

	r, w := pair(t)
	second := newOp(backend.Op{Code: backend.OpRecv, FD: r})
	submit(t, b, second)
	if second.State.Slot != first.State.Slot {
		t.Fatalf("slot %d was not used again, but %d", first.State.Slot, second.State.Slot)
	}
	b.complete(completion(stale, 0))
	b.complete(completion(uint64(1<<31), 0))
	if len(first.got) != 1 || len(second.got) != 0 || !second.InFlight() {
		t.Fatalf("a stale completion was delivered: %+v %+v", first.got, second.got)
	}
	write(t, w, []byte("x"))
	run(t, b, second.ended)
	if string(second.data) != "x" {
		t.Fatalf("got %q", second.data)
	}
}

func TestGenerationsWrapInsideTheirField(t *testing.T) {
	var s slots
	op := &backend.Op{}
	idx := s.take(op)
	s.at(idx).gen = genMask
	old := s.userData(kindOp, idx)
	s.release(idx)
	if got := s.take(op); got != idx || s.at(idx).gen != 0 {
		t.Fatalf("slot %d, generation %d", got, s.at(got).gen)
	}
	if s.find(old) != 0 || s.find(s.userData(kindOp, idx)) != idx {
		t.Fatal("the generations are mixed up")
	}
}

func TestPinSetsAreReused(t *testing.T) {
	var p pins
	bufs := make([][]byte, 23)
	for i := range bufs {
		bufs[i] = make([]byte, 64)
	}
	once := func() {
		set := uint32(0)
		for _, b := range bufs {
			set = p.add(set, b)
		}
		set = p.add(set, nil)
		p.drop(set)
	}
	once()
	n := len(p.tab)
	if avg := testing.AllocsPerRun(100, once); avg > 0 || len(p.tab) != n {
		t.Fatalf("%v allocations, %d pinners instead of %d", avg, len(p.tab), n)
	}
}
