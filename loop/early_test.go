package loop

import (
	"runtime"
	"testing"

	"github.com/seed-80cfe818/ringloop/backend"
)

// earlyOp is an operation that notes its completions.
type earlyOp struct {
	backend.Op
	got  []backend.Result
	then func()
}

func (p *earlyOp) Complete(_ *backend.Op, r backend.Result) {
	p.got = append(p.got, r)
	if p.then != nil {
		p.then()
	}
}

// early submits an operation; the loop does not run.
func early(t *testing.T, l *Loop, op backend.Op) *earlyOp {
	t.Helper()
	p := &earlyOp{Op: op}
	p.Receiver = p
	if err := l.Submit(&p.Op); err != nil {
		t.Fatal(err)
	}
	if !p.InFlight() {
		t.Error("the operation is not in flight")
	}
	return p
}

// refused submits a recv that the backend refuses, because its descriptor is being
// closed. What is submitted next is behind it.
func refused(t *testing.T, l *Loop) *earlyOp {
	t.Helper()
	a, _ := socketPair(t)
	early(t, l, backend.Op{Code: backend.OpClose, FD: int32(a)})
	return early(t, l, backend.Op{Code: backend.OpRecv, FD: int32(a)})
}

func TestAnEarlyOperationMayBeCancelledWhileTheyAreSubmitted(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		first := refused(t, l)
		a, _ := socketPair(t)
		second := early(t, l, backend.Op{Code: backend.OpRecv, FD: int32(a)})
		first.then = func() { l.CancelOp(&second.Op) }
		runOnce(t, l)
		if len(second.got) != 1 || !second.got[0].Cancelled() || !second.CancelRequested() {
			t.Errorf("it was told %+v", second.got)
		}
	})
}

func TestAGoexitWhileEarlyOperationsAreSubmittedKeepsTheRest(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		first := refused(t, l)
		second := early(t, l, backend.Op{Code: backend.OpNop})
		first.then = runtime.Goexit
		for range 3 {
			runOnce(t, l)
		}
		if len(second.got) != 1 {
			t.Errorf("it was told %+v, and is in flight: %v", second.got, second.InFlight())
		}
	})
}

func TestACancelOfAnEarlyOperationIsNotForItsNextFlight(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		a, _ := socketPair(t)
		p := refused(t, l)
		l.CancelOp(&p.Op)
		p.then = func() {
			p.then, p.FD = nil, int32(a)
			if err := l.Submit(&p.Op); err != nil {
				t.Error(err)
			}
		}
		for range 3 {
			runOnce(t, l)
		}
		if len(p.got) != 1 || !p.got[0].Cancelled() {
			t.Errorf("it was told %+v", p.got)
		}
	})
}

func TestClosingTheLoopEndsEarlyOperationsInSpiteOfPanics(t *testing.T) {
	for _, name := range backends {
		t.Run(name, func(t *testing.T) {
			l := newTestLoop(t, name)
			reported := 0
			l.SetExceptionHandler(func(*Loop, *ExceptionContext) { reported++ })
			first, second := early(t, l, backend.Op{Code: backend.OpNop}), early(t, l, backend.Op{Code: backend.OpNop})
			first.then = func() { panic("told") }
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if len(second.got) != 1 || !second.got[0].Cancelled() || reported != 1 {
				t.Errorf("it was told %+v, and %d panics were reported", second.got, reported)
			}
		})
	}
}

func TestAReaderThatLeavesTheLoopIsNotCalledForNothing(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		a, b := socketPair(t)
		calls := 0
		addReader(t, l, a, func() {
			calls++
			receive(t, a)
			panic(LoopExit{})
		})
		send(t, b, "x")
		if err := mustReturn(t, l, l.RunForever); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			runOnce(t, l)
		}
		if calls != 1 {
			t.Errorf("%d calls", calls)
		}
	})
}
