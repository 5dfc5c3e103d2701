package loop

import (
	"errors"
	"fmt"
	"math"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
)

// ErrTransportFD is the error for watching a descriptor that belongs to a
// transport or an operation.
var ErrTransportFD = errors.New("file descriptor is used by a transport")

// watchTable knows who watches and who owns descriptors.
type watchTable struct {
	fds    map[int]*watched
	owners []any      // by descriptor, nil for none
	late   []*watcher // ready writers that let a reader go first
}

// watched is a descriptor with at least one watcher.
type watched struct {
	watchers [2]*watcher // reader, writer
}

// direction is an index of watched.watchers.
type direction int

const (
	reading direction = iota
	writing
)

var (
	addNames    = [...]string{reading: "AddReader", writing: "AddWriter"}
	removeNames = [...]string{reading: "RemoveReader", writing: "RemoveWriter"}
	pollEvents  = [...]uint32{reading: unix.POLLIN, writing: unix.POLLOUT}
)

// watcher calls a function while a descriptor is ready, by one poll after the
// other. Every registration has a watcher of its own, and completions reach it
// by its address and not by the descriptor's number: those of a removed one are
// dropped, whatever has become of the number.
type watcher struct {
	op     backend.Op
	l      *Loop
	fn     func() // nil when removed
	ctx    *Context
	origin *origin
	fd     int
	dir    direction
}

// AddReader calls fn on every turn on which fd can be read, is at its end, was
// hung up or has an error, until RemoveReader (loop.add_reader). It is
// level-triggered: data that fn leaves is announced again. fn runs in a copy of
// the current context. A reader that fd has already is replaced; a writer stays.
//
// fd stays the caller's, who removes the watchers before closing it. The error
// is ErrLoopClosed, ErrTransportFD, ErrInvalidArgument for a negative fd or a
// nil fn, EBADF, or EPERM for files that are always ready, as regular files
// (epoll_ctl(2)). Loop's thread only.
func (l *Loop) AddReader(fd int, fn func()) error { return l.addWatcher(fd, reading, fn) }

// AddWriter is AddReader for writing: fn is called while fd can be written to,
// was hung up or has an error, and behind a reader that fd has (loop.add_writer).
func (l *Loop) AddWriter(fd int, fn func()) error { return l.addWatcher(fd, writing, fn) }

// RemoveReader ends AddReader and reports whether fd had a reader
// (loop.remove_reader). From then on the callback is not called, not even for
// readiness that was found before. fd may be closed, and its number used anew,
// right after.
//
// With epoll the kernel has forgotten fd when RemoveReader returns, or, if the
// watcher's own callback called it, at the end of the turn. With io_uring the
// poll keeps the open file, not the number, until the end of the turn, so that a
// socket closed right after is really closed a moment later. While the loop does
// not run, that moment is the next run or Close.
//
// The error is ErrTransportFD, or ErrInvalidArgument for a negative fd. On a
// closed loop it returns false. Loop's thread only.
func (l *Loop) RemoveReader(fd int) (bool, error) { return l.removeWatcher(fd, reading) }

// RemoveWriter ends AddWriter (loop.remove_writer); see RemoveReader.
func (l *Loop) RemoveWriter(fd int) (bool, error) { return l.removeWatcher(fd, writing) }

// ClaimFD makes owner the owner of fd: AddReader and its kin refuse fd with
// ErrTransportFD until ReleaseFD. Watchers that fd has are removed. It fails with
// ErrTransportFD if fd has an owner. owner is for messages and is printed with %v.
// It is for packages that submit operations on fd, and costs them nothing to
// speak of. The error is ErrInvalidArgument for a negative fd or a nil owner.
// Loop's thread only.
func (l *Loop) ClaimFD(fd int, owner any) error {
	if owner == nil {
		return fmt.Errorf("%w: fd %d has no owner", ErrInvalidArgument, fd)
	}
	if err := l.checkFD(fd); err != nil {
		return err
	}
	if d := l.watches.fds[fd]; d != nil {
		for _, w := range d.watchers {
			if w != nil {
				w.unlink()
				w.remove()
			}
		}
	}
	for fd >= len(l.watches.owners) {
		l.watches.owners = append(l.watches.owners, nil)
	}
	l.watches.owners[fd] = owner
	return nil
}

// ReleaseFD ends ClaimFD; it must be called before fd is closed. It does nothing
// if fd has no owner. Loop's thread only.
func (l *Loop) ReleaseFD(fd int) {
	if fd >= 0 && fd < len(l.watches.owners) {
		l.watches.owners[fd] = nil
	}
}

// CheckFD returns ErrTransportFD, with the owner's description, if fd has an
// owner. Loop's thread only.
func (l *Loop) CheckFD(fd int) error {
	if fd >= 0 && fd < len(l.watches.owners) && l.watches.owners[fd] != nil {
		return fmt.Errorf("fd %d: %w: %v", fd, ErrTransportFD, l.watches.owners[fd])
	}
	return nil
}

// addWatcher registers a callback for one direction of fd.
func (l *Loop) addWatcher(fd int, dir direction, fn func()) error {
	what := addNames[dir]
	if err := l.checkCall(what, fn); err != nil {
		return err
	}
	if err := l.checkFD(fd); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if err := checkPollable(fd); err != nil {
		return fmt.Errorf("%s: fd %d: %w", what, fd, err)
	}
	w := &watcher{l: l, fn: fn, fd: fd, dir: dir}
	w.op = backend.Op{Receiver: w, Code: backend.OpPoll, FD: int32(fd), Arg: pollEvents[dir]}
	w.ctx = l.scope.copy()
	if l.debug.Load() {
		w.origin = l.originOf(fn)
	}
	if err := l.Submit(&w.op); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if l.watches.fds == nil {
		l.watches.fds = map[int]*watched{}
	}
	d := l.watches.fds[fd]
	if d == nil {
		d = &watched{}
		l.watches.fds[fd] = d
	}
	if old := d.watchers[dir]; old != nil {
		old.remove()
	}
	d.watchers[dir] = w
	return nil
}

// checkFD refuses descriptors that nobody may watch.
func (l *Loop) checkFD(fd int) error {
	if fd < 0 || fd > math.MaxInt32 {
		return fmt.Errorf("%w: %d is not a file descriptor", ErrInvalidArgument, fd)
	}
	return l.CheckFD(fd)
}

// removeWatcher ends the registration of one direction of fd.
func (l *Loop) removeWatcher(fd int, dir direction) (bool, error) {
	what := removeNames[dir]
	if l.closed.Load() {
		return false, nil
	}
	if err := l.checkOpen(what); err != nil {
		return false, err
	}
	if err := l.checkFD(fd); err != nil {
		return false, fmt.Errorf("%s: %w", what, err)
	}
	d := l.watches.fds[fd]
	if d == nil || d.watchers[dir] == nil {
		return false, nil
	}
	w := d.watchers[dir]
	w.unlink()
	w.remove()
	return true, nil
}

// unlink takes the watcher out of the table.
func (w *watcher) unlink() {
	d := w.l.watches.fds[w.fd]
	d.watchers[w.dir] = nil
	if d.watchers == [2]*watcher{} {
		delete(w.l.watches.fds, w.fd)
	}
}

// remove makes sure that the callback is not called again and ends the poll.
func (w *watcher) remove() {
	w.fn = nil
	if !w.l.withdraw(&w.op) {
		w.l.CancelOp(&w.op)
	}
}

// Complete calls the callback, or lists it to be called later in the turn.
func (w *watcher) Complete(_ *backend.Op, r backend.Result) {
	switch {
	case w.fn == nil:
	case r.Cancelled():
		// The loop is closing, or closes the descriptor by OpClose.
		w.unlink()
		w.fn = nil
	case r.Errno != 0:
		w.fail(r.Errno)
	case w.dir == writing && w.l.watches.fds[w.fd].watchers[reading] != nil:
		w.l.watches.late = append(w.l.watches.late, w)
	default:
		w.call()
	}
}

// callLate calls the writers of descriptors that have a reader too: it comes
// first, whichever of the two the backend has told first. After a LoopExit those
// that are left wait for the next run.
func (l *Loop) callLate() {
	for i, w := range l.watches.late {
		if l.exit != nil {
			return
		}
		l.watches.late[i] = nil
		if w != nil && w.fn != nil {
			w.call()
		}
	}
	l.watches.late = l.watches.late[:0]
}

// call calls the callback and polls again.
func (w *watcher) call() {
	// Deferred, because a runtime.Goexit in the callback ends this call too.
	defer w.rearm()
	w.l.call(Handle{debug: w.origin}, w.fn, scope{ctx: w.ctx})
}

// rearm polls again, unless the callback has removed the watcher.
func (w *watcher) rearm() {
	if w.fn == nil {
		return
	}
	if err := w.l.Submit(&w.op); err != nil {
		w.fail(err)
	}
}

// fail ends a watcher whose descriptor cannot be polled any longer, mostly
// because it was closed without removing the watcher.
func (w *watcher) fail(err error) {
	w.unlink()
	w.fn = nil
	w.l.CallExceptionHandler(&ExceptionContext{
		Message:         fmt.Sprintf("fd %d cannot be watched any longer", w.fd),
		Exception:       err,
		SourceTraceback: w.origin.trace(),
	})
}

// closeWatchers forgets all watchers. Their polls end with the backend.
func (l *Loop) closeWatchers() {
	for _, d := range l.watches.fds {
		for _, w := range d.watchers {
			if w != nil {
				w.fn = nil
			}
		}
	}
	l.watches = watchTable{}
}

// checkPollable reports what epoll_ctl(2) would say of fd: EBADF if it is not
// open, EPERM if its readiness means nothing. Sockets and pipes, the usual
// case, are recognized by one fstat(2).
func checkPollable(fd int) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if kind := st.Mode & unix.S_IFMT; kind == unix.S_IFSOCK || kind == unix.S_IFIFO {
		return nil
	}
	// Of others only the kernel knows: some files of /proc can be watched.
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("epoll_create1: %w", err)
	}
	defer unix.Close(ep)
	err = unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{})
	if err == unix.EPERM {
		return fmt.Errorf("such a file is always ready and cannot be watched: %w", err)
	}
	return err
}
