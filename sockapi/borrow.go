package sockapi

import (
	"fmt"
	"io"
	"math/bits"
	"syscall"

	"github.com/seed-80cfe818/ringloop/loop"
)

// RecvBorrowed receives what there is on a stream, into memory that the loop
// lends: the bytes are valid until the next RecvBorrowed on s, also if s is
// closed meanwhile, and may be changed. It returns at least one byte, and io.EOF
// at the end of the stream. While it waits it needs no memory, so that it is the
// way to receive for servers with many connections. Much it lends without a copy,
// little is copied into memory that is used again, so that nothing is allocated in
// the long run. It is asyncio's sock_recv without a size.
//
// The loop goes on receiving between the calls, until it is 64 KiB ahead, which
// the next calls on s get, whichever they are. A socket for which it does so is in
// use: see [Settle].
func RecvBorrowed(co *loop.Coro, s *Socket) ([]byte, error) {
	if err := s.enter(co, "recv"); err != nil {
		return nil, err
	}
	if !s.stream() {
		return nil, s.fail("recv", fmt.Errorf("%w: only a stream can be received from into borrowed memory", loop.ErrInvalidArgument))
	}
	if err := s.in.acquire(co); err != nil {
		return nil, s.wrap("recv", err)
	}
	data, err := s.recvBorrowed(co)
	s.in.release()
	return data, err
}

// recvBorrowed receives while the call has the lane.
func (s *Socket) recvBorrowed(co *loop.Coro) ([]byte, error) {
	s.giveBack()
	if s.hasKept() {
		data, err := s.lendKept()
		return data, s.wrap("recv", err)
	}
	err := s.await(co)
	came := s.ahead&aheadCame != 0
	s.ahead &^= aheadCame
	ln := &s.in
	ln.co = nil
	switch {
	case err != nil && came:
		s.putAside()
		return nil, s.wrap("recv", err)
	case err == nil:
		err = errorOf(ln.errno)
	}
	if err != nil {
		return nil, s.wrap("recv", err)
	}
	if ln.n == 0 {
		return nil, io.EOF
	}
	return s.lent[:ln.n:ln.n], nil
}

func errorOf(errno syscall.Errno) error {
	switch errno {
	case 0:
		return nil
	case syscall.ECANCELED:
		return ErrSocketClosed
	}
	return errno
}

// lendKept gives what was put aside, its memory on loan.
func (s *Socket) lendKept() ([]byte, error) {
	k := s.kept
	if len(k.data) == 0 {
		s.kept = nil
		return nil, k.errno
	}
	data := k.data
	k.data = nil
	s.lent, k.mem = k.mem, nil
	if k.errno == 0 {
		s.kept = nil
	}
	return data, nil
}

// giveBack ends the loan, if there is one.
func (s *Socket) giveBack() {
	if s.lent == nil {
		return
	}
	if s.home != nil && !s.loop.IsClosed() {
		s.home.pool.put(s.lent)
	}
	s.lent = nil
}

// pool is the memory that sockets of one loop lend: the backend's large buffers,
// and free memory in sizes that are powers of two. What was given back last is
// used next, for it is warm.
type pool struct {
	loop *loop.Loop
	free [32][][]byte
}

const (
	leastClass = 6       // 64 bytes
	poolLimit  = 1 << 20 // bytes of each size that are kept for the next use
)

// take makes data, which is the backend's until the completion returns, the
// socket's own. The result begins with it.
func (p *pool) take(data []byte) []byte {
	if mem := p.loop.Keep(data); mem != nil {
		return mem
	}
	mem := p.get(len(data))
	copy(mem, data)
	return mem
}

func (p *pool) get(n int) []byte {
	class := max(bits.Len(uint(n-1)), leastClass)
	f := p.free[class]
	if len(f) == 0 {
		return make([]byte, 1<<class)
	}
	mem := f[len(f)-1]
	p.free[class] = f[:len(f)-1]
	return mem
}

// put takes memory back. The backend knows its own.
func (p *pool) put(mem []byte) {
	if p.loop.GiveBack(mem) {
		return
	}
	class := bits.Len(uint(len(mem) - 1))
	if len(p.free[class])<<class < poolLimit {
		p.free[class] = append(p.free[class], mem)
	}
}
