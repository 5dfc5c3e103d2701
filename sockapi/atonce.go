package sockapi

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/internal/nowait"
	"github.com/seed-80cfe818/ringloop/loop"
)

// atOnce reports whether a call that has the lane may do something before it
// suspends its task, so that the two switches of a suspension are saved.
func (ln *lane) atOnce(co *loop.Coro) bool {
	s := ln.sock
	return s.home != nil && s.tries < maxTries && s.state < stateClosing && !ln.expired && co.Unhindered()
}

// sendsAtOnce reports whether a call that has the lane is to try to send n bytes
// before it suspends its task. Mostly the kernel takes them. What costs less of a
// stream together with others is left to the backend, although a task would gain by
// sending it at once too: the first send of a turn wakes a client on the same machine
// that sleeps, and this would wake it again for every one. Packets are the traffic of
// many, but of one socket and mostly one task, which would send one in a turn.
func (s *Socket) sendsAtOnce(co *loop.Coro, n int) bool {
	return s.out.atOnce(co) && (n >= s.home.direct || !s.stream())
}

// sendNow sends what the kernel takes at once, if that is worth it. It needs
// little of the task's stack. Of an error the kernel tells only once.
func (s *Socket) sendNow(co *loop.Coro, p []byte) (int, syscall.Errno) {
	if !s.sendsAtOnce(co, len(p)) {
		return 0, 0
	}
	return s.sentNow(nowait.Send(s.fd, p))
}

// fewBufs is how many slices are sent at once; more would need too much of the
// stack.
const fewBufs = 8

// sendNowV is sendNow for the concatenation of bufs.
func (s *Socket) sendNowV(co *loop.Coro, bufs [][]byte) (int, syscall.Errno) {
	var iov [fewBufs]unix.Iovec
	if len(bufs) > len(iov) {
		return 0, 0
	}
	total := 0
	for i, p := range bufs {
		iov[i].Base = unsafe.SliceData(p)
		iov[i].SetLen(len(p))
		total += len(p)
	}
	if total == 0 || !s.sendsAtOnce(co, total) {
		return 0, 0
	}
	msg := unix.Msghdr{Iov: &iov[0]}
	msg.SetIovlen(len(bufs))
	return s.sentNow(nowait.SendMsg(s.fd, &msg))
}

// sentNow is what has become of an attempt to send at once.
func (s *Socket) sentNow(n int, errno syscall.Errno) (int, syscall.Errno) {
	if errno == syscall.EAGAIN {
		return 0, 0
	}
	s.tries++ // also of an error: who ignores it and goes on lets others run
	return n, errno
}

// sendToNow is sendNow for a message to an address. It returns EAGAIN if nothing
// was sent.
func (s *Socket) sendToNow(co *loop.Coro, p []byte, to *backend.Addr) (int, syscall.Errno) {
	if !s.sendsAtOnce(co, len(p)) {
		return 0, syscall.EAGAIN
	}
	s.tries++
	return nowait.SendTo(s.fd, p, to)
}

// receive performs the lane's operation, which receives. A packet that is there is
// taken before the task is suspended. A stream is not asked: what a task receives
// there it mostly waits for.
func (ln *lane) receive(co *loop.Coro) error {
	if ln.op.Flags&backend.AtDelivery != 0 && ln.atOnce(co) && ln.packetNow() {
		return nil
	}
	return ln.perform(co)
}

// packetNow does the lane's operation if a packet is there.
func (ln *lane) packetNow() bool {
	ln.n, ln.errno = nowait.Receive(&ln.op)
	if ln.errno == syscall.EAGAIN {
		ln.sock.tries = maxTries // Start need not ask again
		return false
	}
	ln.sock.tries++
	return true
}
