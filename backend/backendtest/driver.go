package backendtest

import (
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/seed-80cfe818/ringloop/backend"
)

// safety is how long anything may take before the test fails. No test passes
// because time went by.
const safety = 2 * time.Minute

// Where the driver's thread is within the backend. Completions may be delivered
// in Dispatch and in Close only.
const (
	outside  = "no call of the backend"
	inSubmit = "Submit"
	inTry    = "Try"
	inCancel = "Cancel"
	inWait   = "Wait"
	inRun    = "Dispatch"
	inClose  = "Close"
)

// driver runs one test on the backend's thread: it submits operations, turns
// the backend, and checks the contract for every completion.
type driver struct {
	t       *testing.T
	be      backend.Backend
	factory Factory

	// where is the call of the backend that is running.
	where string
	// flying is the number of operations whose terminal completion is due.
	flying int
	// seq counts the completions.
	seq    int
	closed bool

	// closes are the operations that close a descriptor, in flight.
	closes map[int32]bool
	fds    map[int]bool
	dirs   []string
	peers  []*peer
	stop   atomic.Bool
}

func newDriver(t *testing.T, factory Factory) *driver {
	t.Helper()
	d := &driver{t: t, factory: factory, where: outside, fds: make(map[int]bool), closes: make(map[int32]bool)}
	d.be = d.make()
	return d
}

func (d *driver) make() backend.Backend {
	d.t.Helper()
	be, err := d.factory()
	if err != nil {
		d.t.Fatalf("making the backend: %v", err)
	}
	return be
}

func (d *driver) enable() {
	d.t.Helper()
	if err := d.be.Enable(); err != nil {
		d.t.Fatalf("Enable: %v", err)
	}
}

// enter notes that the thread is in a call of the backend and returns what
// notes that it has left it.
func (d *driver) enter(where string) func() {
	was := d.where
	d.where = where
	return func() { d.where = was }
}

// finish checks what holds at the end of every test that got so far.
func (d *driver) finish() {
	d.t.Helper()
	d.join()
	if !d.closed {
		d.checkInFlight()
		if n := d.be.InFlight(); n != 0 {
			d.t.Errorf("at the end of the test %d operations are in flight", n)
		}
		d.close()
	}
}

// end releases everything, also after a failure.
func (d *driver) end() {
	if !d.closed {
		d.close()
	}
	d.stop.Store(true)
	for _, p := range d.peers {
		<-p.done
	}
	d.closeAll()
	d.removeDirs()
}

// close closes the backend, twice, and checks that everything was delivered.
func (d *driver) close() {
	d.t.Helper()
	d.closed = true
	leave := d.enter(inClose)
	defer leave()
	for range 2 {
		if err := d.be.Close(); err != nil {
			d.t.Errorf("Close: %v", err)
		}
		if n := d.be.InFlight(); n != 0 || d.flying != 0 {
			d.t.Errorf("after Close InFlight is %d and %d terminal completions are missing", n, d.flying)
		}
	}
}

func (d *driver) checkInFlight() {
	d.t.Helper()
	if n := d.be.InFlight(); n != d.flying {
		d.t.Fatalf("InFlight is %d, but %d operations have not completed", n, d.flying)
	}
}

// wait calls Wait, which must not fail and not deliver anything.
func (d *driver) wait(timeout time.Duration) {
	d.t.Helper()
	defer d.enter(inWait)()
	if err := d.be.Wait(timeout); err != nil {
		d.t.Fatalf("Wait(%v): %v", timeout, err)
	}
}

// dispatch calls Dispatch and checks the number of operations after it.
func (d *driver) dispatch() {
	d.t.Helper()
	d.dispatchOnly()
	d.checkInFlight()
}

func (d *driver) dispatchOnly() {
	defer d.enter(inRun)()
	d.be.Dispatch()
}

// turn waits and dispatches once.
func (d *driver) turn(timeout time.Duration) {
	d.t.Helper()
	d.wait(timeout)
	d.dispatch()
}

// until turns the backend until cond holds. It waits as long as the safety
// limit allows, so that a backend that misses an event is found out.
func (d *driver) until(what string, cond func() bool) {
	d.t.Helper()
	deadline := time.Now().Add(safety)
	for !cond() {
		left := time.Until(deadline)
		if left <= 0 {
			d.t.Fatalf("%s: it did not happen within %v; %d operations in flight\n%s", what, safety, d.be.InFlight(), dump())
		}
		d.turn(left)
	}
}

// settle gives the backend a few turns in which it could do what it must not.
func (d *driver) settle() {
	d.t.Helper()
	for range 3 {
		d.do(d.op(backend.OpNop, -1))
		d.turn(0)
	}
}

// submit hands over o, which must be taken without a completion.
func (d *driver) submit(o *op) *op {
	d.t.Helper()
	if err := d.trySubmit(o); err != nil {
		d.t.Fatalf("Submit %s: %v", o, err)
	}
	return o
}

func (d *driver) trySubmit(o *op) error {
	d.t.Helper()
	defer d.enter(inSubmit)()
	was := o.flying
	before := d.be.InFlight()
	o.flying = true
	err := d.be.Submit(&o.Op)
	if err != nil {
		o.flying = was
		if n := d.be.InFlight(); n != before {
			d.t.Errorf("Submit of %s was refused and changed InFlight from %d to %d", o, before, n)
		}
		return err
	}
	d.flying++
	if o.Code == backend.OpClose {
		d.closes[o.FD] = true
	}
	o.done = false
	o.more = nil
	if !o.Op.InFlight() || o.CancelRequested() {
		d.t.Errorf("after Submit of %s: InFlight %v, CancelRequested %v", o, o.Op.InFlight(), o.CancelRequested())
	}
	if n := d.be.InFlight(); n != before+1 {
		d.t.Errorf("Submit of %s changed InFlight from %d to %d", o, before, n)
	}
	return nil
}

// refuse submits o, which must be refused for the reason want.
func (d *driver) refuse(o *op, want error) {
	d.t.Helper()
	err := d.trySubmit(o)
	var oe *backend.OpError
	if !errors.Is(err, want) || !errors.As(err, &oe) {
		d.t.Errorf("Submit %s: got %v, want an OpError of %q", o, err, want)
	}
}

// try calls Try.
func (d *driver) try(o *op) (backend.Result, bool) {
	d.t.Helper()
	defer d.enter(inTry)()
	before := d.be.InFlight()
	r, ok := d.be.Try(&o.Op)
	if n := d.be.InFlight(); n != before || o.Op.InFlight() {
		d.t.Errorf("Try of %s changed InFlight from %d to %d, the op's is %v", o, before, n, o.Op.InFlight())
	}
	return r, ok
}

func (d *driver) cancel(o *op) {
	d.t.Helper()
	defer d.enter(inCancel)()
	flying := o.Op.InFlight()
	was := o.CancelRequested()
	d.be.Cancel(&o.Op)
	if got := o.CancelRequested(); got != (was || flying) && o.Code != backend.OpClose {
		d.t.Errorf("after Cancel of %s, in flight: %v, CancelRequested is %v", o, flying, got)
	}
}

// do submits o and returns its outcome.
func (d *driver) do(o *op) backend.Result {
	d.t.Helper()
	d.submit(o)
	return d.outcome(o)
}

// outcome turns the backend until o has its terminal completion.
func (d *driver) outcome(o *op) backend.Result {
	d.t.Helper()
	d.until("completion of "+o.String(), func() bool { return o.done })
	return o.last
}

// all turns the backend until every one of ops has its terminal completion.
func (d *driver) all(ops ...*op) {
	d.t.Helper()
	for _, o := range ops {
		d.outcome(o)
	}
}

// pending turns the backend a few times and checks that ops still wait.
func (d *driver) pending(ops ...*op) {
	d.t.Helper()
	d.settle()
	for _, o := range ops {
		if o.done {
			d.t.Fatalf("%s completed with N %d, errno %v; it has to wait", o, o.last.N, o.last.Errno)
		}
	}
}

// dump returns the stacks of all goroutines.
func dump() string {
	buf := make([]byte, 1<<20)
	return string(buf[:runtime.Stack(buf, true)])
}
