package transport

import (
	"syscall"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/internal/nowait"
)

// arrivals is room for the packets that are there at once, with a system call for
// all of them. The endpoints of a loop share it, for it is empty again when the
// callbacks have seen them.
type arrivals struct {
	batch nowait.Batch
	mem   []byte // outside of the heap: where no packet was, there is no memory
	from  [nowait.BatchSize]backend.Addr
}

// arrivalSize is the distance of two packets in bytes. They are not all to begin in
// the same set of the processor's caches.
const arrivalSize = unixBuffer + chunkStagger

func newArrivals() *arrivals {
	a := &arrivals{mem: mapMemory(nowait.BatchSize * arrivalSize)}
	for i := range a.from {
		a.batch.Set(i, a.room(i), &a.from[i])
	}
	return a
}

func (a *arrivals) room(i int) []byte {
	room := a.mem[i*arrivalSize:][:unixBuffer]
	return room[:unixBuffer:unixBuffer]
}

// packet returns what packet i holds, until the next Recv.
func (a *arrivals) packet(i int) []byte { return a.room(i)[:a.batch.Len(i):a.batch.Len(i)] }

func (a *arrivals) close() { unmapMemory(a.mem) }

// borrowArrivals returns the arrivals of the loop. Who borrows them while they are
// lent, because a callback is in the middle of them, gets others.
func (sh *shared) borrowArrivals() *arrivals {
	a := sh.arrivals
	sh.arrivals = nil
	if a == nil {
		a = newArrivals()
	}
	return a
}

func (sh *shared) returnArrivals(a *arrivals) {
	if sh.arrivals != nil || sh.over {
		a.close()
		return
	}
	sh.arrivals = a
}

// heldPacket is a packet that was received and may not be delivered yet.
type heldPacket struct {
	data []byte
	from Addr
}

// maxSkips is how many packets are received one by one at most before it is looked for
// more.
const maxSkips = 3

// receiveMore delivers what else is there. Where packets come one by one, each look would
// be a system call for nothing: the longer there was nothing, the more looks are left
// out.
func (t *datagram) receiveMore() {
	if t.skips > 0 {
		t.skips--
		return
	}
	a := t.sh.borrowArrivals()
	defer t.sh.returnArrivals(a)
	n, errno := a.batch.Recv(t.fd, nowait.BatchSize)
	t.patience = min(2*t.patience+1, maxSkips)
	t.skips = t.patience
	switch errno {
	case 0:
		t.patience, t.skips = 0, 0
		t.deliverArrivals(a, n)
	case syscall.EAGAIN, syscall.ENOSYS, syscall.EPERM: // nothing, or a filter of system calls
	default:
		t.received(backend.Result{Errno: errno})
	}
}

// deliverArrivals delivers n packets. Those that a pause, or a runtime.Goexit in a
// callback, leaves are held.
func (t *datagram) deliverArrivals(a *arrivals, n int) {
	i := 0
	defer func() {
		for ; i < n && !t.closing; i++ {
			t.held = append(t.held, heldPacket{append([]byte{}, a.packet(i)...), t.from(&a.from[i])})
		}
	}()
	for i < n && t.IsReading() {
		i++
		t.deliver(a.packet(i-1), t.from(&a.from[i-1]))
	}
}

// deliverHeld delivers what is held.
func (t *datagram) deliverHeld() {
	for len(t.held) > 0 && t.IsReading() {
		p := t.held[0]
		t.held[0] = heldPacket{}
		t.held = t.held[1:]
		t.deliver(p.data, p.from)
	}
}
