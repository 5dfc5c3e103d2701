package sockapi

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/loop"
)

// ToEnd, as the count of Sendfile, sends the file to its end.
const ToEnd = -1

// SendfileOptions are the optional arguments of Sendfile.
type SendfileOptions struct {
	// NoFallback makes Sendfile fail with ErrSendfileNotAvailable where the
	// kernel cannot do it by itself, instead of reading and sending.
	NoFallback bool
}

const (
	// fallbackBlock is how much the fallback reads at a time, as in asyncio.
	fallbackBlock = 256 << 10
	// sendfileBlock is how much of a file one operation is asked for.
	sendfileBlock = 1 << 30
)

// Sendfile sends count bytes of file, from offset on, over a stream socket, and
// returns how many it sent (loop.sock_sendfile, sendfile(2)). It stops at the
// end of the file; count is positive, or ToEnd. opts may be nil.
//
// A regular file is sent by the kernel: an *os.File, or anything else that is a
// syscall.Conn and so tells the descriptor of one, whatever its ReadAt does.
// Everything else, and what the kernel refuses at the first attempt, is read in
// blocks and sent; a source that is not a regular file is read in the loop's
// default executor, and in sequence if it is an *os.File or, with Read and Seek,
// like one, because it may have no positions, as a pipe has none. The file must
// stay open and must not be used otherwise until Sendfile returns, and, if that is
// ended early, until a read in the executor that has begun returns; of a closed one
// the error is os.ErrClosed. The kernel reads the file on the loop's thread: what is
// not in the page cache stops the loop while the disk is read.
//
// If anything was sent, also when an error or a cancellation ends the call, a
// file that can seek is left at offset plus what was sent. No other call's bytes
// come in between.
func Sendfile(co *loop.Coro, s *Socket, file io.ReaderAt, offset, count int64, opts *SendfileOptions) (int64, error) {
	if err := s.enter(co, "sendfile"); err != nil {
		return 0, err
	}
	if err := checkSendfile(s, file, offset, count); err != nil {
		return 0, s.fail("sendfile", err)
	}
	src, err := sourceOf(file)
	if err != nil {
		return 0, s.fail("sendfile", err)
	}
	ln := &s.out
	if err := ln.acquire(co); err != nil {
		return 0, s.wrap("sendfile", err)
	}
	sent, err := s.sendfile(co, &src, offset, count, opts != nil && opts.NoFallback)
	ln.release()
	if serr := src.seek(offset, sent); err == nil && serr != nil {
		err = s.fail("sendfile", serr)
	}
	return sent, err
}

// checkSendfile checks the arguments in asyncio's order.
func checkSendfile(s *Socket, file io.ReaderAt, offset, count int64) error {
	switch {
	case file == nil:
		return fmt.Errorf("%w: the file is nil", loop.ErrInvalidArgument)
	case !s.stream():
		return fmt.Errorf("%w: only sockets of type SOCK_STREAM are supported", loop.ErrInvalidArgument)
	case count <= 0 && count != ToEnd:
		return fmt.Errorf("%w: count must be positive or ToEnd, not %d", loop.ErrInvalidArgument, count)
	case offset < 0:
		return fmt.Errorf("%w: offset must not be negative, as %d is", loop.ErrInvalidArgument, offset)
	}
	return nil
}

// fileLike is an *os.File, or what wraps one.
type fileLike interface {
	io.ReadSeeker
	io.ReaderAt
	syscall.Conn
}

// source is what Sendfile reads from.
type source struct {
	at   io.ReaderAt
	file fileLike // nil if at is none
	fd   int      // of a regular file, else -1
}

// sourceOf finds out what file is.
func sourceOf(file io.ReaderAt) (source, error) {
	src := source{at: file, fd: -1}
	src.file, _ = file.(fileLike)
	c, ok := file.(syscall.Conn)
	if !ok {
		return src, nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return src, fmt.Errorf("file: %w", err)
	}
	src.fd, err = regularFD(raw)
	if err == nil {
		return src, nil
	}
	if f, ok := file.(interface{ Name() string }); ok {
		return src, fmt.Errorf("file %s: %w", f.Name(), err)
	}
	return src, fmt.Errorf("file: %w", err)
}

// regularFD returns the descriptor of a regular file, -1 of anything else.
func regularFD(raw syscall.RawConn) (fd int, err error) {
	fd = -1
	cerr := raw.Control(func(n uintptr) {
		var st unix.Stat_t
		if err = unix.Fstat(int(n), &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
			fd = int(n)
		}
	})
	if cerr != nil {
		// Control fails for one reason, by an error that os does not export.
		return -1, os.ErrClosed
	}
	return fd, err
}

// seek leaves the file behind what was sent.
func (src *source) seek(offset, sent int64) error {
	k, ok := src.at.(io.Seeker)
	if !ok || sent == 0 {
		return nil
	}
	_, err := k.Seek(offset+sent, io.SeekStart)
	if errors.Is(err, syscall.ESPIPE) {
		return nil
	}
	return err
}

// sendfile sends while the call has the lane.
func (s *Socket) sendfile(co *loop.Coro, src *source, offset, count int64, noFallback bool) (int64, error) {
	sent, err := s.sendfileNative(co, src, offset, count)
	if noFallback || !errors.Is(err, ErrSendfileNotAvailable) {
		return sent, err
	}
	return s.sendfileFallback(co, src, offset, count)
}

// sendfileNative lets the kernel do it.
func (s *Socket) sendfileNative(co *loop.Coro, src *source, offset, count int64) (sent int64, err error) {
	if src.fd < 0 {
		return 0, s.fail("sendfile", fmt.Errorf("%w: not a regular file", ErrSendfileNotAvailable))
	}
	ln := &s.out
	ln.op.Code, ln.op.FD, ln.op.FD2 = backend.OpSendfile, s.fd, int32(src.fd)
	for {
		ln.op.Off, ln.op.Len = offset+sent, int(block(count, sent, sendfileBlock))
		if ln.op.Len == 0 {
			return sent, nil
		}
		err := ln.perform(co)
		sent += int64(ln.n)
		switch {
		case err != nil:
			return sent, s.wrap("sendfile", err)
		case ln.errno != 0 && sent == 0:
			return 0, s.fail("sendfile", fmt.Errorf("%w: %w", ErrSendfileNotAvailable, ln.errno))
		case ln.errno != 0:
			return sent, s.fail("sendfile", ln.errno)
		case ln.n == 0:
			return sent, nil
		}
	}
}

// block returns how much to send next, 0 if everything was sent.
func block(count, sent, most int64) int64 {
	if count == ToEnd {
		return most
	}
	return min(count-sent, most)
}

var blocks = sync.Pool{New: func() any { return new([fallbackBlock]byte) }}

// sendfileFallback reads and sends one block after the other.
func (s *Socket) sendfileFallback(co *loop.Coro, src *source, offset, count int64) (sent int64, err error) {
	b := blocks.Get().(*[fallbackBlock]byte)
	for {
		size := block(count, sent, fallbackBlock)
		if size == 0 {
			break
		}
		n, err := s.readBlock(co, src, b[:size], offset+sent, sent == 0)
		if err != nil {
			// b is not used again: a reader may still be writing into it.
			return sent, s.wrap("sendfile: read", err)
		}
		if n == 0 {
			break
		}
		m, err := s.sendAll(co, b[:n])
		sent += int64(m)
		if err != nil {
			blocks.Put(b)
			return sent, err
		}
	}
	blocks.Put(b)
	return sent, nil
}

// readBlock reads what comes next, 0 bytes at the end.
func (s *Socket) readBlock(co *loop.Coro, src *source, p []byte, off int64, first bool) (int, error) {
	if src.fd >= 0 {
		ln := &s.out
		ln.op.Code, ln.op.FD, ln.op.Buf, ln.op.Off = backend.OpRead, int32(src.fd), p, off
		err := ln.perform(co)
		ln.op.Buf = nil
		if err == nil && ln.errno != 0 {
			err = ln.errno
		}
		return ln.n, err
	}
	read := func() (int, error) { return src.at.ReadAt(p, off) }
	if src.file != nil {
		read = func() (int, error) {
			if first {
				// What has no positions is read from its beginning.
				if _, err := src.file.Seek(off, io.SeekStart); err != nil && off > 0 {
					return 0, err
				}
			}
			return src.file.Read(p)
		}
	}
	f := loop.RunInExecutor(co.Loop(), nil, func() (int, error) {
		n, err := read()
		if err == io.EOF {
			err = nil // the last bytes may come with it
		}
		if n < 0 || n > len(p) {
			return 0, fmt.Errorf("%w: the file returned %d bytes for a buffer of %d", loop.ErrInvalidState, n, len(p))
		}
		return n, err
	})
	if err := s.out.await(co, f); err != nil {
		return 0, err
	}
	return f.Result()
}
