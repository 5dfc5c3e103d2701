package transport

import (
	"errors"
	"fmt"
	"io"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
)

// ToEnd, as the count of Sendfile, sends the file to its end.
const ToEnd = sockapi.ToEnd

// SendfileOptions are the optional arguments of Sendfile.
type SendfileOptions = sockapi.SendfileOptions

const (
	// sendfileBlock is how much of a file one operation is asked for.
	sendfileBlock = 1 << 30
	// sendfileRead is how much the fallback reads at a time.
	sendfileRead = 64 << 10
)

// fileSender is a transport that Sendfile can write to.
type fileSender interface {
	Transport
	// writeFile is Write while Sendfile is running.
	writeFile(p []byte)
	// beginSendfile keeps everybody else from reading, and from writing to a
	// socket, until the function that it returns is called. What PauseReading and
	// ResumeReading ask for meanwhile is done then.
	beginSendfile() (end func())
	// callFlow calls PauseWriting or ResumeWriting of the protocol, if it has them.
	callFlow(full bool)
	// writingPaused reports whether PauseWriting was called and ResumeWriting was
	// not.
	writingPaused() bool
	// lostError returns why the connection is lost, or about to be.
	lostError() error
}

// Sendfile sends count bytes of file, from offset on, after what is in the write
// buffer, and returns how many it sent (loop.sendfile). It stops at the end of
// the file; count is positive, or ToEnd. opts may be nil.
//
// On a socket the kernel sends a regular file by itself: an *os.File, or
// anything else that is a syscall.Conn and so tells the descriptor of one,
// whatever its ReadAt does. Where it cannot, and on TLS, the file is read in
// blocks and written, minding the flow control. Reading from the transport is
// paused meanwhile, and writing returns ErrSendfile. The file must stay open and
// must not be used otherwise until Sendfile returns; if that is cancelled or the
// connection lost, a read in the executor that has begun may go on for longer. The
// kernel reads a file on the loop's thread: what is not in the page cache stops the
// loop while the disk is read.
//
// If anything was sent, also when an error or a cancellation ends the call, a
// file that can seek is left at offset plus what was sent. The error is
// ErrClosing, ErrWriteEOF, ErrSendfile while another one runs, ErrUnsupported
// for pipes and, with NoFallback, for TLS, sockapi.ErrSendfileNotAvailable with
// NoFallback, loop.ErrInvalidArgument, that of the connection, or a
// CancelledError.
func Sendfile(co *loop.Coro, t Transport, file io.ReaderAt, offset, count int64, opts *SendfileOptions) (int64, error) {
	fallback := opts == nil || !opts.NoFallback
	to, ok := t.(fileSender)
	switch {
	case t == nil:
		return 0, fmt.Errorf("sendfile: %w", invalid("the transport is nil"))
	case !ok:
		return 0, fmt.Errorf("sendfile: %w", ErrUnsupported)
	case file == nil:
		return 0, fmt.Errorf("sendfile: %w", invalid("the file is nil"))
	case count <= 0 && count != ToEnd:
		return 0, fmt.Errorf("sendfile: %w", invalid("count must be positive or ToEnd, not %d", count))
	case offset < 0:
		return 0, fmt.Errorf("sendfile: %w", invalid("offset must not be negative, as %d is", offset))
	case t.IsClosing():
		return 0, fmt.Errorf("sendfile: %w", ErrClosing)
	}
	if s, ok := t.(*tlsStream); ok && s.sendfile {
		return 0, fmt.Errorf("sendfile: %w", ErrSendfile)
	}
	s, native := t.(*stream)
	if !native && !fallback {
		return 0, fmt.Errorf("sendfile without the fallback: %w", ErrUnsupported)
	}
	f := fileSending{to: to, file: file, offset: offset, count: count}
	err := sockapi.ErrSendfileNotAvailable
	if native {
		switch {
		case s.flags&flagSendfile != 0:
			return 0, fmt.Errorf("sendfile: %w", ErrSendfile)
		case s.flags&flagWriteEOF != 0:
			return 0, fmt.Errorf("sendfile: %w", ErrWriteEOF)
		}
	}
	defer to.beginSendfile()()
	if native {
		err = f.native(co, s)
	}
	if fallback && errors.Is(err, sockapi.ErrSendfileNotAvailable) {
		err = f.fallback(co)
	}
	if serr := f.seek(); err == nil {
		err = serr
	}
	if err != nil {
		return f.sent, fmt.Errorf("sendfile: %w", err)
	}
	return f.sent, nil
}

func (s *stream) beginSendfile() (end func()) {
	s.rarely().readLater = s.flags&flagPaused == 0
	_ = s.PauseReading() // it never fails
	s.flags |= flagSendfile
	return func() {
		s.flags &^= flagSendfile
		if s.cold.readLater {
			// It does nothing but schedule, unless the loop is closed.
			_ = s.ResumeReading()
		}
		if s.out == nil {
			s.emptied()
		}
	}
}

// fileSending is a Sendfile under way.
type fileSending struct {
	to     fileSender
	file   io.ReaderAt
	offset int64
	count  int64 // or ToEnd
	sent   int64
}

// next returns how much is to be sent next, but at most that much; 0 when
// everything is sent.
func (f *fileSending) next(most int64) int64 {
	if f.count == ToEnd {
		return most
	}
	return min(f.count-f.sent, most)
}

// seek leaves the file behind what was sent.
func (f *fileSending) seek() error {
	k, ok := f.file.(io.Seeker)
	if !ok || f.sent == 0 {
		return nil
	}
	if _, err := k.Seek(f.offset+f.sent, io.SeekStart); err != nil && !errors.Is(err, syscall.ESPIPE) {
		return err
	}
	return nil
}

// native lets the kernel send. The first error of the kernel means that it
// cannot do that with this file; a later one is the connection's.
func (f *fileSending) native(co *loop.Coro, s *stream) error {
	if err := s.flushed(co); err != nil {
		return err
	}
	fd := regularFD(f.file)
	if fd < 0 {
		return fmt.Errorf("%w: not a regular file", sockapi.ErrSendfileNotAvailable)
	}
	o := operation{op: backend.Op{Code: backend.OpSendfile, FD: s.fd, FD2: int32(fd)}}
	for {
		o.op.Off, o.op.Len = f.offset+f.sent, int(f.next(sendfileBlock))
		if o.op.Len == 0 {
			return nil
		}
		if s.flags&flagLost != 0 {
			return s.lostError()
		}
		err := o.perform(co)
		f.sent += int64(o.n)
		switch {
		case err != nil:
			return err
		case s.flags&flagLost != 0:
			return s.lostError()
		case o.errno != 0 && f.sent == 0:
			return fmt.Errorf("%w: %w", sockapi.ErrSendfileNotAvailable, o.errno)
		case o.errno != 0:
			s.sendFailed(o.errno)
			return s.lostError()
		case o.n == 0:
			return nil
		}
	}
}

// lostError returns the error of a connection that was lost meanwhile, or is
// being closed.
func (s *stream) lostError() error {
	if s.cold != nil && s.cold.err != nil {
		return s.cold.err
	}
	return &sockapi.OpError{Op: "send to", Addr: s.peerAddr(), FD: int(s.fd), Err: syscall.ECONNABORTED}
}

// flushed suspends the task until everything is sent.
func (s *stream) flushed(co *loop.Coro) error {
	w := waitList{what: "the write buffer of a transport"}
	for s.out != nil {
		s.rarely().wake = w.wake
		if err := w.wait(co); err != nil {
			s.cold.wake = nil
			return err
		}
	}
	if s.flags&flagLost != 0 {
		return s.lostError()
	}
	return nil
}

// regularFD returns the descriptor of a regular file, -1 for anything else.
func regularFD(file io.ReaderAt) int {
	f, ok := file.(syscall.Conn)
	if !ok {
		return -1
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return -1
	}
	fd := -1
	err = raw.Control(func(n uintptr) {
		var st unix.Stat_t
		if unix.Fstat(int(n), &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
			fd = int(n)
		}
	})
	if err != nil {
		return -1
	}
	return fd
}

func (s *stream) writingPaused() bool { return s.flags&flagFull != 0 }

func (s *stream) writeFile(p []byte) {
	if s.flags&flagLost == 0 {
		s.outbox().add(p)
		s.wrote()
	}
}

// fallback reads the file in blocks and writes them.
func (f *fileSending) fallback(co *loop.Coro) error {
	g := &fileProtocol{app: f.to.Protocol(), to: f.to, appPaused: f.to.writingPaused()}
	g.paused = g.appPaused
	g.writable.what = "a transport to have room for more of a file"
	f.to.SetProtocol(g)
	defer g.restore()
	buf := make([]byte, sendfileRead)
	for {
		if err := g.room(co); err != nil {
			return err
		}
		size := f.next(sendfileRead)
		if size == 0 {
			return nil
		}
		n, err := f.read(co, buf[:size])
		if err != nil || n == 0 {
			return err
		}
		if g.lost || f.to.IsClosing() {
			return g.lostError()
		}
		f.to.writeFile(buf[:n])
		f.sent += int64(n)
	}
}

// read reads the next block in the default executor, 0 bytes at the end.
func (f *fileSending) read(co *loop.Coro, p []byte) (int, error) {
	off := f.offset + f.sent
	return loop.RunInExecutor(co.Loop(), nil, func() (int, error) {
		n, err := f.file.ReadAt(p, off)
		if err == io.EOF {
			err = nil
		}
		if n < 0 || n > len(p) {
			return 0, fmt.Errorf("%w: the file returned %d bytes for a buffer of %d", loop.ErrInvalidState, n, len(p))
		}
		return n, err
	}).Await(co)
}

// fileProtocol stands in for the application's protocol while a file is
// written. A transport that has it passes SetProtocol on to it.
type fileProtocol struct {
	app       Protocol
	to        fileSender
	writable  waitList
	err       error
	appPaused bool // what the application was told last
	paused    bool
	lost      bool
	over      bool // the transport gets app back
}

// application returns the protocol that the application has given a transport.
func application(p Protocol) Protocol {
	if g, ok := p.(*fileProtocol); ok {
		return g.app
	}
	return p
}

// replaceBehind gives a stand-in another application's protocol; it reports
// whether p is a stand-in.
func replaceBehind(p, app Protocol) bool {
	g, ok := p.(*fileProtocol)
	if !ok || g.over {
		return false
	}
	g.app = app
	return true
}

// ConnectionMade is never called: the connection is there.
func (g *fileProtocol) ConnectionMade(Transport) {}

// ConnectionLost is passed on.
func (g *fileProtocol) ConnectionLost(err error) {
	g.lost, g.err = true, err
	g.writable.wake()
	g.app.ConnectionLost(err)
}

// PauseWriting notes that there is no room.
func (g *fileProtocol) PauseWriting() { g.paused = true }

// ResumeWriting notes that there is room.
func (g *fileProtocol) ResumeWriting() {
	g.paused = false
	g.writable.wake()
}

// room suspends the task until more may be written.
func (g *fileProtocol) room(co *loop.Coro) error {
	for g.paused && !g.lost {
		if err := g.writable.wait(co); err != nil {
			return err
		}
	}
	if g.lost || g.to.IsClosing() {
		return g.lostError()
	}
	return nil
}

func (g *fileProtocol) lostError() error {
	if g.err != nil {
		return g.err
	}
	return g.to.lostError() // which ConnectionLost has yet to tell
}

// restore gives the events to the application again, and tells it what has
// changed meanwhile.
func (g *fileProtocol) restore() {
	if g.lost {
		return
	}
	g.over = true
	g.to.SetProtocol(g.app)
	if g.paused != g.appPaused {
		g.to.callFlow(g.paused)
	}
}
