package transport

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/loop"
)

// Stdio says what a standard stream of a child process is connected to. The
// zero Stdio is Pipe.
type Stdio struct {
	file *os.File
	fd   int
	kind stdioKind
}

type stdioKind uint8

const (
	stdioPipe stdioKind = iota
	stdioDevNull
	stdioInherit
	stdioStdout
	stdioFD
	stdioFile
)

// The streams that need no descriptor. They must not be changed.
var (
	// Pipe connects the stream to a transport, which PipeTransport returns
	// (subprocess.PIPE).
	Pipe = Stdio{kind: stdioPipe}
	// DevNull connects the stream to /dev/null (subprocess.DEVNULL).
	DevNull = Stdio{kind: stdioDevNull}
	// Inherit gives the child the stream of this process (None in asyncio). If that
	// is closed, or has been closed and its number is that of something else since,
	// which is close-on-exec, it is closed in the child.
	Inherit = Stdio{kind: stdioInherit}
	// Stdout, for the standard error only, makes it the same as the standard
	// output (subprocess.STDOUT).
	Stdout = Stdio{kind: stdioStdout}
)

// FromFD connects the stream to a descriptor of this process, which stays the
// caller's and must be open until the process was started. It is left as it is:
// most programs do not expect one in non-blocking mode, as sockets of this module
// are.
func FromFD(fd int) Stdio { return Stdio{kind: stdioFD, fd: fd} }

// FromFile connects the stream to an open file, which stays the caller's. It is
// put into blocking mode, which is what programs expect.
func FromFile(f *os.File) Stdio { return Stdio{kind: stdioFile, file: f} }

var stdioNames = [3]string{"stdin", "stdout", "stderr"}

// check reports why s cannot be the stream fd.
func (s Stdio) check(fd int) error {
	switch {
	case s.kind == stdioStdout && fd != 2:
		return fmt.Errorf("%w: %s cannot be Stdout, which is for the standard error", loop.ErrInvalidArgument, stdioNames[fd])
	case s.kind == stdioFD && s.fd < 0:
		return fmt.Errorf("%w: %s is the negative descriptor %d", loop.ErrInvalidArgument, stdioNames[fd], s.fd)
	case s.kind == stdioFile && s.file == nil:
		return fmt.Errorf("%w: %s is a nil file", loop.ErrInvalidArgument, stdioNames[fd])
	}
	return nil
}

// noFD stands for a descriptor that is not there.
const noFD = -1

// childStdio holds the descriptors of the standard streams while a child is
// being started. All but the inherited ones are copies that belong to it.
type childStdio struct {
	child  [3]int // what the child gets
	parent [3]int // our ends of pipes
}

// open prepares the streams. On an error nothing is left open.
func (c *childStdio) open(streams [3]Stdio) error {
	c.child, c.parent = [3]int{noFD, noFD, noFD}, [3]int{noFD, noFD, noFD}
	// First what is open already: a new descriptor may get the number of a
	// standard stream that is closed here.
	for _, anew := range []bool{false, true} {
		for fd, s := range streams {
			if s.opens() != anew {
				continue
			}
			if err := c.openOne(fd, s); err != nil {
				c.closeChild()
				c.closeParent()
				return fmt.Errorf("%s: %w", stdioNames[fd], err)
			}
		}
	}
	return nil
}

// opens reports whether a stream is something new, or a copy of that.
func (s Stdio) opens() bool {
	return s.kind == stdioPipe || s.kind == stdioDevNull || s.kind == stdioStdout
}

func (c *childStdio) openOne(fd int, s Stdio) (err error) {
	switch s.kind {
	case stdioPipe:
		err = c.pipe(fd)
	case stdioDevNull:
		c.child[fd], err = unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	case stdioInherit:
		if inheritable(fd) {
			c.child[fd], err = duplicate(fd)
		}
	case stdioStdout:
		if c.child[1] != noFD {
			c.child[fd], err = duplicate(c.child[1])
		}
	case stdioFD:
		if c.child[fd], err = duplicate(s.fd); err != nil {
			err = fmt.Errorf("descriptor %d: %w", s.fd, err)
		}
	case stdioFile:
		if c.child[fd], err = duplicate(int(s.file.Fd())); err != nil {
			err = &os.PathError{Op: "use", Path: s.file.Name(), Err: err}
		}
		runtime.KeepAlive(s.file)
		if err == nil {
			err = unix.SetNonblock(c.child[fd], false) // Fd does it only if package os made it so
		}
	}
	return err
}

// inheritable reports whether a standard stream is open here. What got its number
// when it had been closed is the loop's, a connection, or the like, and none of a
// child's business: it is close-on-exec.
func inheritable(fd int) bool {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil && flags&unix.FD_CLOEXEC == 0
}

// pipe makes a pipe for the stream fd. Our end does not block, the child's does.
func (c *childStdio) pipe(fd int) error {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("pipe: %w", err)
	}
	ours, theirs := ends[0], ends[1]
	if fd == 0 {
		ours, theirs = theirs, ours
	}
	c.parent[fd], c.child[fd] = ours, theirs
	if err := unix.SetNonblock(ours, true); err != nil {
		return fmt.Errorf("set a pipe non-blocking: %w", err)
	}
	return nil
}

// duplicate returns a close-on-exec copy of a descriptor. It is above the
// standard streams, so that starting the child need not move it away.
func duplicate(fd int) (int, error) {
	const aboveStdio = 3
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, aboveStdio)
	if err != nil {
		return noFD, err
	}
	return n, nil
}

func (c *childStdio) closeChild()  { closeAll(&c.child) }
func (c *childStdio) closeParent() { closeAll(&c.parent) }

func closeAll(fds *[3]int) {
	for i, fd := range fds {
		if fd != noFD {
			_ = unix.Close(fd)
			fds[i] = noFD
		}
	}
}
