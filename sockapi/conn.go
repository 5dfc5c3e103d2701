package sockapi

import (
	"io"
	"math"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/loop"
)

// Conn is a socket as a net.Conn for one task: code that reads and writes a
// connection, such as net/http's ReadRequest, runs in the task as it is, and
// suspends the task where it would block. Only that task may use it, but for
// Close; another task makes a Conn of its own. A tls.Conn around it is for that
// task alone, too: where one task reads and another writes, package transport
// speaks TLS.
type Conn struct {
	co    *loop.Coro
	s     *Socket
	read  deadline
	write deadline
	// local and remote are the addresses of a Conn that was closed.
	local, remote net.Addr
}

var (
	_ net.Conn      = (*Conn)(nil)
	_ io.ReaderFrom = (*Conn)(nil)
)

// NewConn returns a Conn of the socket for the running task.
func NewConn(co *loop.Coro, s *Socket) *Conn {
	c := &Conn{co: co, s: s}
	c.read.init(co, &s.in)
	c.write.init(co, &s.out)
	return c
}

// Socket returns the socket.
func (c *Conn) Socket() *Socket { return c.s }

// Read is RecvInto. The error of a cancelled one is a *loop.CancelledError to
// errors.As, and a temporary net.Error, because nothing is lost: a tls.Conn goes on
// with the next Read.
func (c *Conn) Read(p []byte) (int, error) {
	if err := c.late(&c.read, "recv"); err != nil {
		return 0, err
	}
	c.read.limits = true
	n, err := RecvInto(c.co, c.s, p)
	c.read.limits = false
	if cancelled, ok := err.(*loop.CancelledError); ok {
		err = &cancelledRead{cancelled}
	}
	return n, err
}

// cancelledRead is what ends a Read that was cancelled.
type cancelledRead struct{ *loop.CancelledError }

func (e *cancelledRead) Unwrap() error   { return e.CancelledError }
func (e *cancelledRead) Timeout() bool   { return false }
func (e *cancelledRead) Temporary() bool { return true }

// late reports that the deadline has passed, or, first, that the socket cannot be
// used.
func (c *Conn) late(d *deadline, op string) error {
	if !d.passed() {
		return nil
	}
	if err := c.s.enter(c.co, op); err != nil {
		return err
	}
	return c.s.fail(op, os.ErrDeadlineExceeded)
}

// Write is SendAll, and says how much was sent of what could not be sent
// entirely.
func (c *Conn) Write(p []byte) (int, error) {
	s := c.s
	if err := c.late(&c.write, "send"); err != nil {
		return 0, err
	}
	if err := s.enter(c.co, "send"); err != nil || len(p) == 0 {
		return 0, err
	}
	c.write.limits = true
	defer func() { c.write.limits = false }()
	if err := s.out.acquire(c.co); err != nil {
		return 0, s.wrap("send", err)
	}
	n, err := s.sendAll(c.co, p)
	s.out.release()
	return n, err
}

// ReadFrom sends all that r has. A file, or an io.LimitedReader of one, is sent by
// Sendfile from its position on: an *os.File, or anything else that is an
// io.ReadSeeker, an io.ReaderAt and a syscall.Conn, whatever its Read does, such
// as that in which io.Copy wraps an *os.File.
func (c *Conn) ReadFrom(r io.Reader) (int64, error) {
	f, count := fileOf(r)
	if f == nil || count == 0 || c.s.typ != unix.SOCK_STREAM {
		return io.Copy(onlyWriter{c}, r)
	}
	if err := c.late(&c.write, "sendfile"); err != nil {
		return 0, err
	}
	at, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		at = 0 // a pipe, which has no positions
	}
	c.write.limits = true
	defer func() { c.write.limits = false }() // also after a panic of the file
	n, err := Sendfile(c.co, c.s, f, at, count, nil)
	if limited, ok := r.(*io.LimitedReader); ok {
		limited.N -= n
	}
	return n, err
}

// onlyWriter hides ReadFrom from io.Copy.
type onlyWriter struct{ io.Writer }

// fileOf returns the file behind r and how much of it r gives.
func fileOf(r io.Reader) (fileLike, int64) {
	switch r := r.(type) {
	case fileLike:
		return r, ToEnd
	case *io.LimitedReader:
		if f, ok := r.R.(fileLike); ok {
			return f, max(r.N, 0)
		}
	}
	return nil, 0
}

// Close is Socket.Close; a deadline has no effect any more. The addresses stay
// known. Other than the rest, it may be called from any goroutine, as crypto/tls
// does when the context of a handshake is cancelled, perhaps when the handshake
// has ended. Then it returns nil, and the socket is closed on the loop's next
// turn, or with the loop, or at once if that is closed already. While the loop does
// not run, every caller counts as another goroutine; Socket.Close closes at once.
func (c *Conn) Close() error {
	var err error
	if c.co.Loop().CallSurely(func() { err = c.close() }) {
		return err
	}
	return nil
}

func (c *Conn) close() error {
	if c.s.Fd() >= 0 {
		c.local, c.remote = c.LocalAddr(), c.RemoteAddr()
	}
	c.read.stop()
	c.write.stop()
	return c.s.Close()
}

// CloseWrite ends the output: the peer sees the end of the stream.
func (c *Conn) CloseWrite() error { return c.s.Shutdown(unix.SHUT_WR) }

// LocalAddr returns a *net.TCPAddr, *net.UDPAddr or *net.UnixAddr, nil if the
// address is not known.
func (c *Conn) LocalAddr() net.Addr {
	a, err := c.s.LocalAddr()
	if err != nil {
		return c.local
	}
	return a.netAddr(c.s.Type())
}

// RemoteAddr returns the address of the peer, also of one that has broken the
// connection; see LocalAddr.
func (c *Conn) RemoteAddr() net.Addr {
	a, err := c.s.PeerAddr()
	if err != nil {
		a = c.s.formerPeer()
	}
	if !a.IsValid() {
		return c.remote
	}
	return a.netAddr(c.s.Type())
}

// SetDeadline sets both deadlines. Of a closed Conn the error is ErrSocketClosed.
func (c *Conn) SetDeadline(t time.Time) error { return c.limit(t, &c.read, &c.write) }

// SetReadDeadline sets the time after which Read, also one that waits already,
// fails with os.ErrDeadlineExceeded; the zero time means never. What had
// arrived before is still read.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.limit(t, &c.read) }

// SetWriteDeadline sets the time after which Write and ReadFrom fail with
// os.ErrDeadlineExceeded; see SetReadDeadline.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.limit(t, &c.write) }

func (c *Conn) limit(t time.Time, ds ...*deadline) error {
	if err := c.s.direct("set deadline"); err != nil {
		return err
	}
	for _, d := range ds {
		d.set(t)
	}
	return nil
}

// deadline interrupts the calls of a Conn on a lane at a time. Its timer is left
// alone when the deadline is moved back or taken away, which is what servers do
// all the time: when it fires too early, it is set anew.
type deadline struct {
	loop   *loop.Loop
	co     *loop.Coro
	lane   *lane
	fire   func()
	timer  loop.TimerHandle
	at     time.Duration // on the loop's clock, 0 for none
	armed  bool
	limits bool // a call of the Conn is under way
}

func (d *deadline) init(co *loop.Coro, ln *lane) { d.loop, d.co, d.lane = co.Loop(), co, ln }

func (d *deadline) set(t time.Time) {
	if t.IsZero() {
		d.at = 0
		return
	}
	now := d.loop.Time()
	d.at = max(now+min(time.Until(t), math.MaxInt64-now), 1)
	if d.armed && d.timer.When() > d.at {
		d.stopTimer()
	}
	d.arm()
}

// stop ends the deadline for good.
func (d *deadline) stop() {
	d.at = 0
	d.stopTimer()
}

func (d *deadline) stopTimer() {
	if d.armed {
		d.timer.Cancel()
		d.armed = false
	}
}

// arm sets the timer, unless it is set.
func (d *deadline) arm() {
	if d.armed {
		return
	}
	if d.fire == nil {
		d.fire = d.fired
	}
	var err error
	d.timer, err = d.loop.CallAt(d.at, d.fire)
	d.armed = err == nil // on a closed loop nothing waits
}

// fired interrupts the call, if the deadline is not later by now. Calls of others
// on the same socket go on.
func (d *deadline) fired() {
	d.armed = false
	switch {
	case d.at == 0:
	case !d.passed():
		d.arm()
	case d.limits:
		d.lane.expire(d.co)
	}
}

// passed reports whether it is too late.
func (d *deadline) passed() bool { return d.at != 0 && d.loop.Time() >= d.at }
