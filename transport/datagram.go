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

// datagram is the transport of a datagram socket. One receive is in flight
// while reading is wanted; when it has brought a packet, what else is there is
// received at once, see datagram_arrivals.go. What is sent in a turn is queued and
// goes out together at its end, see datagram_send.go, unless it goes to the name of a
// Unix socket, see datagram_named.go.
type datagram struct {
	caller
	sh      *shared
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
	held    []heldPacket
	// skips is how many looks for more packets are left out, of patience at first.
	skips, patience int
	sender          Addr // of the last packet, as the kernel has written it in rawFrom
	rawFrom         backend.Addr
	send            backend.Op
	sendExt         backend.Ext
	pieces          [1][]byte
	queue           packetQueue
	named           *namedSends // of a Unix socket that is not connected, or nil
	drops           int
	atEnd           bool // EndTurn will be called
	// started is set when reading may begin, keeping when kept is to be
	// delivered, ended when ConnectionLost is queued or was called, deaf when the
	// socket was shut down for reading.
	started, paused, keeping, closing, ended, deaf bool
}

// newDatagram makes the transport of a socket. If it is connected, remote is
// its peer.
func newDatagram(l *loop.Loop, fd, family int, remote Addr, p DatagramProtocol) *datagram {
	t := &datagram{caller: newCaller(l), sh: sharedOf(l), fd: int32(fd), family: family, remote: remote, marks: newWaterMarks()}
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
	t.deliverHeld()
	if t.mayReceive() {
		t.receiveMore()
	}
	if !t.mayReceive() {
		return
	}
	if err := t.loop.Submit(&t.recv); err != nil {
		t.end(err)
	}
}

// mayReceive reports whether the kernel is to be asked for packets.
func (t *datagram) mayReceive() bool {
	return t.started && t.IsReading() && !t.keeping && !t.deaf && !t.recv.InFlight()
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
		t.deliver(t.recv.Buf[:r.N], t.from(&t.recvExt.Addr))
	case syscall.EINTR, syscall.EAGAIN, syscall.ECANCELED:
	case syscall.EBADF, syscall.ENOTSOCK, syscall.EFAULT, syscall.EINVAL, syscall.EOPNOTSUPP, syscall.ENOSPC:
		t.end(t.failure("receive from", t.remote, r.Errno)) // it would never end
	default:
		t.errorReceived(t.failure("receive from", t.remote, r.Errno))
	}
}

// from returns the sender that the kernel has written. One that comes again costs
// nothing.
func (t *datagram) from(raw *backend.Addr) Addr {
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
	t.proto, t.flow, t.held = nil, nil, nil
	if t.loop.IsClosed() || t.fd < 0 {
		return // orphaned will close it, or has
	}
	delete(openSetOf(t.loop), t)
	t.sh.closePort(t.forget())
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
