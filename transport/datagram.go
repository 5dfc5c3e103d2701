package transport

import (
	"bytes"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/internal/nowait"
	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
)

// The sizes of the receive buffer in bytes: the largest UDP packet, and what
// fits into the send buffer of a Unix socket. What is larger is cut off.
const (
	udpBuffer  = 64 << 10
	unixBuffer = 256 << 10
)

// maxDatagramsAtOnce is how many packets are received without letting the rest
// of the loop run.
const maxDatagramsAtOnce = 16

// datagram is the transport of a datagram socket. One receive is in flight
// while reading is wanted, and one send while packets are queued, unless they go
// to the names of Unix sockets: see datagram_named.go.
type datagram struct {
	caller
	proto   DatagramProtocol
	flow    FlowController
	fd      int32 // -1 when the descriptor was given away
	family  int
	sock    *sockapi.Socket // the owner of the descriptor, or nil
	view    *TransportSocket
	local   Addr
	remote  Addr             // of a connected socket
	asked   Addr             // what it was connected to, or the zero Addr
	target  Addr             // where all packets go though the socket is not connected
	early   sockapi.Received // from before there was a transport
	marks   waterMarks
	recv    backend.Op
	recvExt backend.Ext
	kept    backend.Result // what came while reading was paused
	sender  Addr           // of the last packet, as the kernel has written it in rawFrom
	rawFrom backend.Addr
	send    backend.Op
	sendExt backend.Ext
	pieces  [1][]byte
	queue   packetQueue
	named   *namedSends // of a Unix socket that is not connected, or nil
	drops   int
	atEnd   bool // EndTurn will be called
	// started is set when reading may begin, keeping when kept is to be
	// delivered, ended when ConnectionLost is queued or was called, deaf when the
	// socket was shut down for reading.
	started, paused, keeping, closing, ended, deaf bool
}

// newDatagram makes the transport of a socket. If it is connected, remote is
// its peer.
func newDatagram(l *loop.Loop, fd, family int, remote Addr, p DatagramProtocol) *datagram {
	t := &datagram{caller: newCaller(l), fd: int32(fd), family: family, remote: remote, marks: newWaterMarks()}
	size := udpBuffer
	if family == unix.AF_UNIX {
		size = unixBuffer
		if !remote.IsValid() {
			t.named = &namedSends{t: t}
		}
	}
	t.recv = backend.Op{Code: backend.OpRecvMsg, FD: t.fd, Buf: make([]byte, size), Ext: &t.recvExt, Receiver: t}
	t.sendExt.Bufs = t.pieces[:]
	t.send = backend.Op{FD: t.fd, Receiver: t}
	var raw backend.Addr
	if socketName(unix.SYS_GETSOCKNAME, t.fd, &raw) == 0 {
		t.local = named(&raw)
	}
	t.SetProtocol(p)
	openSetOf(l)[t] = struct{}{}
	// It fails only for a descriptor that has an owner, and sockets that have one are
	// not adopted.
	_ = l.ClaimFD(fd, t)
	return t
}

// named returns the address that the kernel has written, the zero Addr for a
// Unix socket without a name.
func named(raw *backend.Addr) Addr { return unlessEmpty(addrOf(raw)) }

func unlessEmpty(a Addr) Addr {
	if a.Family() == unix.AF_UNIX && a.Path() == "" {
		return Addr{}
	}
	return a
}

// Loop returns the loop that the transport belongs to.
func (t *datagram) Loop() *loop.Loop { return t.loop }

// SetProtocol gives the next event to p.
func (t *datagram) SetProtocol(p DatagramProtocol) {
	if p == nil {
		panic("transport: SetProtocol(nil)")
	}
	if t.fd < 0 {
		return
	}
	t.proto = p
	t.flow, _ = p.(FlowController)
}

// Protocol returns the current protocol, nil when the transport is gone.
func (t *datagram) Protocol() DatagramProtocol { return t.proto }

// begin tells the protocol that the endpoint is there, and starts to receive.
func (t *datagram) begin() {
	defer func() { // also after a runtime.Goexit in the callback
		t.started = true
		t.resume()
	}()
	t.call("ConnectionMade", t, t.proto, func() { t.proto.ConnectionMade(t) })
}

// receive takes what is there, and then waits for the next packet.
func (t *datagram) receive() {
	over := false
	defer func() {
		if !over { // a callback has ended its goroutine
			t.soon(t.receive)
		}
	}()
	t.receiveSome()
	over = true
}

func (t *datagram) receiveSome() {
	for range maxDatagramsAtOnce {
		if !t.IsReading() || !t.started || t.keeping || t.deaf || t.recv.InFlight() {
			return
		}
		r, ok := t.loop.Try(&t.recv)
		if !ok {
			break
		}
		t.received(r)
	}
	if !t.IsReading() || t.deaf {
		return
	}
	if err := t.loop.Submit(&t.recv); err != nil {
		t.end(err)
	}
}

// Complete is called when a receive or a send has ended; it implements
// backend.Receiver.
func (t *datagram) Complete(op *backend.Op, r backend.Result) {
	switch {
	case t.ended || t.loop.IsClosed():
	case op == &t.send:
		t.sent(r.Errno)
	case t.closing:
	case t.paused:
		t.kept, t.keeping = r, true
	default:
		defer t.receive() // also after a runtime.Goexit in the callback
		t.received(r)
	}
}

// received delivers the result of a receive.
func (t *datagram) received(r backend.Result) {
	switch r.Errno {
	case 0:
		if r.N == 0 && nowait.Poll(t.fd, unix.POLLRDHUP)&unix.POLLRDHUP != 0 {
			t.deaf = true // that was the end, not a packet, and it would never end
			return
		}
		t.deliver(t.recv.Buf[:r.N], t.from())
	case syscall.EINTR, syscall.EAGAIN, syscall.ECANCELED:
	case syscall.EBADF, syscall.ENOTSOCK, syscall.EFAULT, syscall.EINVAL, syscall.EOPNOTSUPP, syscall.ENOSPC:
		t.end(t.failure("receive from", t.remote, r.Errno)) // it would never end
	default:
		t.errorReceived(t.failure("receive from", t.remote, r.Errno))
	}
}

// from returns the sender of the packet that was received last. A sender that
// comes again costs nothing.
func (t *datagram) from() Addr {
	raw := &t.recvExt.Addr
	if raw.Len != t.rawFrom.Len || !bytes.Equal(raw.Raw[:raw.Len], t.rawFrom.Raw[:raw.Len]) {
		t.rawFrom, t.sender = *raw, named(raw)
	}
	return t.sender
}

func (t *datagram) deliver(data []byte, from Addr) {
	t.callOrEnd(t.end, "DatagramReceived", t, t.proto, func() { t.proto.DatagramReceived(data, from) })
}

func (t *datagram) failure(op string, addr Addr, errno syscall.Errno) error {
	return &sockapi.OpError{Op: op, Addr: addr, FD: int(t.fd), Err: errno}
}

// errorReceived tells the protocol of an error with which the endpoint goes on.
func (t *datagram) errorReceived(err error) {
	if !t.ended {
		t.tellError(err)
	}
}

func (t *datagram) tellError(err error) {
	t.callOrEnd(t.end, "ErrorReceived", t, t.proto, func() { t.proto.ErrorReceived(err) })
}

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
	if t.queue.first == nil && t.sendNow(p, pkt) {
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

// flush sends what the kernel takes at once.
func (t *datagram) flush() {
	for p := t.queue.first; p != nil; p = t.queue.first {
		_, errno := nowait.SendTo(t.fd, p.data, &p.to)
		if errno == syscall.EAGAIN {
			return
		}
		t.failedNow(p, errno)
		t.queue.put(t.queue.pop())
	}
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

// end drops what is queued and loses the connection.
func (t *datagram) end(err error) {
	if !t.ended {
		t.queue = packetQueue{}
		t.lose(err)
	}
}

// lose queues ConnectionLost.
func (t *datagram) lose(err error) {
	if t.ended {
		return
	}
	t.stop()
	t.ended = true
	t.soon(func() { t.lost(err) })
}

func (t *datagram) lost(err error) {
	defer t.close()
	t.call("ConnectionLost", t, t.proto, func() { t.proto.ConnectionLost(err) })
}

// close gives the descriptor away, and with it what is in flight.
func (t *datagram) close() {
	t.proto, t.flow = nil, nil
	if t.loop.IsClosed() || t.fd < 0 {
		return // orphaned will close it, or has
	}
	delete(openSetOf(t.loop), t)
	sharedOf(t.loop).closePort(t.forget())
}

// forget returns the descriptor, which nobody sees any more.
func (t *datagram) forget() int32 {
	fd := t.fd
	t.fd = -1
	if t.view != nil {
		t.view.fd = -1
	}
	if t.sock != nil {
		t.sock.Surrender()
	}
	return fd
}

// orphaned closes the descriptor after the loop.
func (t *datagram) orphaned() {
	warnUnclosed(t.loop, t)
	t.closing, t.ended = true, true
	t.queue = packetQueue{}
	closeFD(t.forget())
}

// Close loses the connection when everything is sent.
func (t *datagram) Close() {
	if t.loop.Refuses("DatagramTransport.Close") {
		return
	}
	t.stop()
	t.loseIfSent()
}

// stop begins the end: nothing more is received or queued.
func (t *datagram) stop() {
	if !t.closing {
		t.closing = true
		t.loop.ReleaseFD(int(t.fd))
	}
}

// Abort drops what is queued.
func (t *datagram) Abort() {
	if !t.loop.Refuses("DatagramTransport.Abort") {
		t.end(nil)
	}
}

// IsClosing reports whether the end has begun.
func (t *datagram) IsClosing() bool { return t.closing }

// IsReading reports whether packets may be delivered.
func (t *datagram) IsReading() bool { return !t.paused && !t.closing }

// PauseReading stops the delivery of packets. The kernel keeps and finally
// drops what comes meanwhile.
func (t *datagram) PauseReading() error {
	t.paused = t.paused || !t.closing
	return nil
}

// ResumeReading undoes PauseReading.
func (t *datagram) ResumeReading() error {
	if err := t.loop.CheckThread("ResumeReading"); err != nil {
		return err
	}
	if t.paused && !t.closing {
		t.paused = false
		t.soon(t.resume)
	}
	return nil
}

// resume delivers what came before there was a transport and while reading was
// paused, and goes on.
func (t *datagram) resume() {
	defer t.receive() // also after a runtime.Goexit in a callback
	t.deliverEarly()
	if t.keeping && t.IsReading() {
		t.keeping = false
		t.received(t.kept)
	}
}

// deliverEarly delivers what came before there was a transport: a packet, and
// then an error.
func (t *datagram) deliverEarly() {
	if data := t.early.Data; data != nil && t.started && t.IsReading() {
		t.early.Data = nil
		t.deliver(data, unlessEmpty(t.early.From))
	}
	if err := t.early.Err; err != nil && t.started && t.IsReading() {
		t.early.Err = nil
		t.errorReceived(err)
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

// ExtraInfo knows "peername", "sockname" and "socket".
func (t *datagram) ExtraInfo(name string) (value any, ok bool) {
	switch name {
	case ExtraPeerName:
		return orNil(t.remote), true
	case ExtraSockName:
		return orNil(t.local), true
	case ExtraSocket:
		if t.view == nil {
			t.view = &TransportSocket{fd: t.fd}
		}
		return t.view, true
	}
	return nil, false
}

// String describes the transport.
func (t *datagram) String() string {
	state := "open"
	switch {
	case t.fd < 0:
		state = "closed"
	case t.closing:
		state = "closing"
	}
	return fmt.Sprintf("<Datagram %s fd=%d local=%v peer=%v queue=%d>", state, t.fd, t.local, t.remote, t.queue.size)
}
