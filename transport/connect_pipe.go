package transport

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/loop"
)

// ConnectReadPipe makes a transport that reads from a FIFO, a pipe, a socket, a
// pseudo-terminal or another character device (loop.connect_read_pipe), and
// returns it with the protocol that factory made. The protocol should be a
// DataReceiver or BufferReceiver.
//
// The transport owns pipe from the call on, also when that fails, and closes it
// after ConnectionLost. It reads from a duplicate, which it makes non-blocking;
// since that is a property of the open file, pipe then is non-blocking too. A
// terminal that is to be used for both directions needs a file for each, as from
// dup(2).
//
// A DataReceiver gets packets, as of a packet socket, of up to 256 KiB whole.
//
// While reading is paused, nothing is read: a child that shares the file, as one that
// inherits the standard input, gets what comes then.
//
// EOFReceived and then ConnectionLost(nil) follow the end of the stream. A FIFO
// that nobody has opened for writing yet has not ended.
// Errors of the kernel are reported to the exception handler and end the
// connection; of them EIO, which means that the other side of a
// pseudo-terminal is closed, is not reported. A panic of DataReceived closes
// the pipe, as it closes a socket.
//
// A regular file or directory is refused with loop.ErrInvalidArgument, which is
// EPERM as well: it is always ready, so there is nothing to wait for.
func ConnectReadPipe(co *loop.Coro, factory func() Protocol, pipe *os.File) (Transport, Protocol, error) {
	p, fd, err := adoptPipe(co, "connect read pipe", factory, pipe)
	if err != nil {
		return nil, nil, err
	}
	t := newReadPipe(co.Loop(), fd.fd, pipe, p, fd.kind == unix.S_IFIFO)
	if fd.hasPackets() {
		t.size = readPackets
	}
	if err := announcePipe(co, &t.pipe, t.start); err != nil {
		t.Close()
		return nil, nil, err
	}
	debugLog(co.Loop(), "connected", t)
	return t, p, nil
}

// ConnectWritePipe makes a transport that writes to a FIFO, a pipe, a socket, a
// pseudo-terminal or another character device (loop.connect_write_pipe). The
// rules for pipe are those of ConnectReadPipe.
//
// When nobody can read from a FIFO, pipe or Unix socket any more, the connection is
// lost at once: with nil if everything was written, else with EPIPE.
//
// A terminal or other device that somebody made blocking since is non-blocking
// again when it is written to. A packet socket, a pipe with O_DIRECT, and a device
// that is no terminal get what each Write or Writelines writes with a call of its
// own, as one packet.
func ConnectWritePipe(co *loop.Coro, factory func() Protocol, pipe *os.File) (Transport, Protocol, error) {
	p, fd, err := adoptPipe(co, "connect write pipe", factory, pipe)
	if err != nil {
		return nil, nil, err
	}
	t := newWritePipe(co.Loop(), fd.fd, pipe, p, fd.kind != unix.S_IFCHR)
	t.packets = fd.hasPackets()
	if err := announcePipe(co, &t.pipe, t.start); err != nil {
		t.Abort()
		return nil, nil, err
	}
	debugLog(co.Loop(), "connected", t)
	return t, p, nil
}

// pipeFD is a transport's own descriptor and the kind of its file (S_IFIFO...).
type pipeFD struct {
	fd   int
	kind uint32
}

// hasPackets reports whether the file may tell what one call writes from the next:
// of devices, network interfaces (/dev/net/tun) do.
func (f pipeFD) hasPackets() bool {
	switch f.kind {
	case unix.S_IFSOCK:
		typ, err := unix.GetsockoptInt(f.fd, unix.SOL_SOCKET, unix.SO_TYPE)
		return err == nil && typ != unix.SOCK_STREAM
	case unix.S_IFIFO:
		flags, err := unix.FcntlInt(uintptr(f.fd), unix.F_GETFL, 0)
		return err == nil && flags&unix.O_DIRECT != 0
	}
	_, err := unix.IoctlGetTermios(f.fd, unix.TCGETS)
	return err != nil
}

// adoptPipe makes the protocol and the transport's own descriptor of a file. On
// an error, or if factory does not return, the file is closed.
func adoptPipe(co *loop.Coro, what string, factory func() Protocol, pipe *os.File) (Protocol, pipeFD, error) {
	if pipe == nil {
		return nil, pipeFD{}, fmt.Errorf("%s: %w: the file is nil", what, loop.ErrInvalidArgument)
	}
	adopted := false
	defer func() {
		if !adopted {
			_ = pipe.Close() // what made it useless is reported already
		}
	}()
	p, fd, err := tryAdoptPipe(co, factory, pipe)
	if err != nil {
		return nil, pipeFD{}, fmt.Errorf("%s %s: %w", what, pipe.Name(), err)
	}
	adopted = true
	return p, fd, nil
}

func tryAdoptPipe(co *loop.Coro, factory func() Protocol, pipe *os.File) (Protocol, pipeFD, error) {
	if factory == nil {
		return nil, pipeFD{}, fmt.Errorf("%w: the protocol factory is nil", loop.ErrInvalidArgument)
	}
	if co.Loop().IsClosed() {
		return nil, pipeFD{}, closedError(co)
	}
	kind, err := pipeKind(pipe)
	if err != nil {
		return nil, pipeFD{}, err
	}
	p := factory()
	if p == nil {
		return nil, pipeFD{}, fmt.Errorf("%w: the protocol factory returned nil", loop.ErrInvalidArgument)
	}
	fd, err := duplicateFile(pipe)
	if err != nil {
		return nil, pipeFD{}, err
	}
	return p, pipeFD{fd, kind}, nil
}

// pipeKind returns what kind of file a pipe is, or why it is none.
func pipeKind(pipe *os.File) (uint32, error) {
	var st unix.Stat_t
	if err := onFD(pipe, func(fd int) error { return unix.Fstat(fd, &st) }); err != nil {
		return 0, err
	}
	switch kind := st.Mode & unix.S_IFMT; kind {
	case unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFCHR:
		return kind, nil
	}
	return 0, fmt.Errorf("%w: pipe transport is for pipes, sockets and character devices only: %w", loop.ErrInvalidArgument, syscall.EPERM)
}

// duplicateFile returns a non-blocking copy of the descriptor of a file.
func duplicateFile(f *os.File) (fd int, err error) {
	err = onFD(f, func(orig int) (err error) {
		fd, err = duplicate(orig)
		return err
	})
	if err != nil {
		return noFD, err
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return noFD, fmt.Errorf("make it non-blocking: %w", err)
	}
	return fd, nil
}

// onFD calls fn with the descriptor of a file, without making the file
// blocking as its method Fd does.
func onFD(f *os.File, fn func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if conn.Control(func(fd uintptr) { ferr = fn(int(fd)) }) != nil {
		return os.ErrClosed
	}
	return ferr
}

// announcePipe tells the protocol that the connection is there, starts the
// transport, and waits until both were done.
func announcePipe(co *loop.Coro, p *pipe, start func()) error {
	done := loop.CreateFuture[struct{}](p.loop)
	p.soon(p.made)
	p.soon(start)
	p.soon(func() {
		if !done.Done() {
			_ = done.SetResult(struct{}{})
		}
	})
	_, err := done.Await(co)
	return err
}
