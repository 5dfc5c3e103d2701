package transport

import (
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/internal/nowait"
)

// SendTo queues a packet.
func (t *datagram) SendTo(p []byte, addr Addr) error {
	if err := t.loop.CheckThread("send"); err != nil {
		return err
	}
	if t.closing {
		t.drops++
		if t.drops >= warnWrites {
			t.loop.Logger().Warn("datagram endpoint is closed, dropping what is sent", "transport", t.String())
		}
		return nil
	}
	pkt := t.queue.take()
	if err := t.address(&pkt.to, addr); err != nil {
		t.queue.put(pkt)
		return fmt.Errorf("send to %v: %w", addr, err)
	}
	if t.queue.first == nil && !t.collects() && t.sendNow(p, pkt) {
		t.queue.put(pkt)
		return nil
	}
	pkt.data = append(pkt.data[:0], p...)
	t.queue.push(pkt)
	if t.marks.paused { // it is not resumed from inside its own call
		t.sendAtEnd()
		return nil
	}
	t.sendSoon()
	return nil
}

// sendSoon sees to it that the queue is sent: at once if it is more than the high
// water mark, so that the protocol is paused only for what the kernel does not
// take, else at the end of the turn.
func (t *datagram) sendSoon() {
	switch {
	case t.queue.first == nil, t.send.InFlight():
	case t.named != nil:
		t.named.later()
	default:
		if t.queue.size > t.marks.high {
			t.flush()
		}
		t.sendAtEnd()
	}
	t.checkMarks()
}

// sendAtEnd sends the queue at the end of the turn.
func (t *datagram) sendAtEnd() {
	if !t.atEnd {
		t.atEnd = true
		t.loop.AtTurnEnd(t)
	}
}

// EndTurn sends what was queued in this turn; it implements loop.TurnEnder. A
// single packet goes to the kernel together with what else the loop has for it;
// of several, the backend would send one in a turn.
func (t *datagram) EndTurn() {
	t.atEnd = false
	if t.ended || t.send.InFlight() {
		return
	}
	if t.queue.first != t.queue.last {
		t.flush()
	}
	defer t.loseIfSent() // also after a runtime.Goexit in the callback
	t.next()
	t.checkMarks()
}

// collects reports whether packets wait for others of the turn, to be sent with one
// call. Those of a connected socket do not: it tells of a packet that was refused by
// refusing another, once, and such a call may not pass that on.
func (t *datagram) collects() bool { return t.named == nil && !t.remote.IsValid() }

// flush sends what the kernel takes at once.
func (t *datagram) flush() {
	for t.queue.first != nil {
		if t.collects() && t.sendBatch() > 0 {
			continue
		}
		p := t.queue.first
		_, errno := nowait.SendTo(t.fd, p.data, &p.to)
		if errno == syscall.EAGAIN {
			return
		}
		t.failedNow(p, errno)
		t.queue.put(t.queue.pop())
	}
}

// sendBatch sends the first packets of the queue with one system call, if there are
// several, and returns how many the kernel has taken. Why it did not take another is
// found out with that packet alone.
func (t *datagram) sendBatch() int {
	if t.queue.first == t.queue.last || t.errorsAreKept() {
		return 0
	}
	batch, n := &t.sh.departures, 0
	for p := t.queue.first; p != nil && n < nowait.BatchSize; p = p.next {
		batch.Set(n, p.data, &p.to)
		n++
	}
	sent, _ := batch.Send(t.fd, n)
	batch.Clear(n)
	for range sent {
		t.queue.put(t.queue.pop())
	}
	return sent
}

// errorsAreKept reports whether the socket is one that tells also without a peer of what
// was refused, which only who had it in hands can have asked for (IP_RECVERR).
func (t *datagram) errorsAreKept() bool {
	if t.sock == nil && t.view == nil || t.family == unix.AF_UNIX {
		return false
	}
	v4, _ := unix.GetsockoptInt(int(t.fd), unix.SOL_IP, unix.IP_RECVERR)
	v6 := 0
	if t.family == unix.AF_INET6 {
		v6, _ = unix.GetsockoptInt(int(t.fd), unix.SOL_IPV6, unix.IPV6_RECVERR)
	}
	return v4|v6 != 0
}

// address writes where a packet goes: nowhere in particular if the socket is
// connected. An endpoint that was made for one address sends to no other.
func (t *datagram) address(to *backend.Addr, addr Addr) error {
	switch {
	case t.remote.IsValid():
		to.Len = 0
		if addr.IsValid() && addr != t.remote && !t.names(addr) {
			return invalid("the endpoint is connected to %v", t.remote)
		}
		return nil
	case !addr.IsValid() && t.target.IsValid():
		addr = t.target
	case !addr.IsValid():
		return invalid("the endpoint is not connected and no address is given")
	}
	err := rawAddr(to, addr, t.family)
	if err == nil && t.target.IsValid() && addrOf(to) != t.target {
		err = invalid("the endpoint sends to %v", t.target)
	}
	return err
}

// names reports whether addr is another name of the peer: the one that was asked for,
// or one with the name of an interface.
func (t *datagram) names(addr Addr) bool {
	var raw backend.Addr
	if rawAddr(&raw, addr, t.family) != nil {
		return false
	}
	same := addrOf(&raw)
	return same == t.remote || same == t.asked
}

// sendNow sends p without a copy if that is possible at once.
func (t *datagram) sendNow(p []byte, pkt *packet) bool {
	if t.named != nil {
		return t.named.now(p, pkt)
	}
	t.prepare(p, &pkt.to)
	r, ok := t.loop.Try(&t.send)
	t.pieces[0], t.send.Buf = nil, nil
	if !ok || r.Errno == syscall.EAGAIN || r.Errno == syscall.EINTR {
		return false
	}
	t.failedNow(pkt, r.Errno)
	return true
}

// failedNow tells the protocol, once SendTo has returned, that a packet was not
// sent; also if the endpoint was closed meanwhile, before ConnectionLost.
func (t *datagram) failedNow(pkt *packet, errno syscall.Errno) {
	if errno != 0 {
		err := t.sendFailure(pkt, errno)
		t.soon(func() {
			if t.proto != nil {
				t.tellError(err)
			}
		})
	}
}

// prepare makes send an operation that sends data.
func (t *datagram) prepare(data []byte, to *backend.Addr) {
	if to.Len == 0 {
		t.send.Code, t.send.Buf, t.send.Ext = backend.OpSend, data, nil
		return
	}
	t.pieces[0], t.sendExt.Addr = data, *to
	t.send.Code, t.send.Buf, t.send.Ext = backend.OpSendMsg, nil, &t.sendExt
}

// next submits the first packet of the queue.
func (t *datagram) next() {
	p := t.queue.first
	if p == nil || t.ended || t.send.InFlight() {
		return
	}
	if t.named != nil {
		t.named.later()
		return
	}
	t.prepare(p.data, &p.to)
	if err := t.loop.Submit(&t.send); err != nil {
		t.end(err)
	}
}

// sent goes on after the first packet of the queue was sent or refused.
func (t *datagram) sent(errno syscall.Errno) {
	if errno == syscall.EINTR || errno == syscall.EAGAIN {
		t.next()
		return
	}
	defer func() { // also after a runtime.Goexit in the callback
		if !t.ended {
			t.sendSoon()
		}
	}()
	t.sentFirst(errno)
}

// sentFirst takes the first packet, which was sent or refused, out of the queue.
func (t *datagram) sentFirst(errno syscall.Errno) {
	defer t.loseIfSent()
	p := t.queue.pop()
	defer func() { // also after a runtime.Goexit in the callback
		t.queue.put(p)
		t.checkMarks()
	}()
	if errno != 0 {
		t.errorReceived(t.sendFailure(p, errno))
	}
}

// loseIfSent ends what Close began when everything is sent.
func (t *datagram) loseIfSent() {
	if t.closing && t.queue.first == nil {
		t.lose(nil)
	}
}

func (t *datagram) sendFailure(p *packet, errno syscall.Errno) error {
	if p.to.Len == 0 {
		return t.failure("send to", t.remote, errno)
	}
	return t.failure("send to", named(&p.to), errno)
}

// checkMarks tells the protocol to send less, or more again.
func (t *datagram) checkMarks() {
	if t.ended {
		return
	}
	pause, resume := t.marks.turn(t.queue.size)
	switch {
	case t.flow == nil:
	case pause:
		t.call("PauseWriting", t, t.proto, t.flow.PauseWriting)
	case resume:
		t.call("ResumeWriting", t, t.proto, t.flow.ResumeWriting)
	}
}

// SetWriteBufferLimits sets the water marks.
func (t *datagram) SetWriteBufferLimits(high, low int) error {
	if err := t.marks.set(high, low); err != nil {
		return err
	}
	if !t.ended {
		t.sendSoon()
	}
	return nil
}

// WriteBufferLimits returns the water marks.
func (t *datagram) WriteBufferLimits() (low, high int) { return t.marks.low, t.marks.high }

// WriteBufferSize returns the size of the queue: 8 bytes more for each packet.
func (t *datagram) WriteBufferSize() int { return t.queue.size }
