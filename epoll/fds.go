package epoll

import (
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
)

// entry is what the backend knows about one descriptor number. It is small,
// because there is one for every connection.
type entry struct {
	in, out, polls *backend.Op // waiting operations; polls includes OpWaitID

	fd      int32
	gen     int32  // goes up when the number is given back; see register
	mask    uint16 // the events registered with epoll, 0 for not registered
	revents uint16 // events that the polls have not been told of yet
	bits    bits
	kind    kind
	noted   uint8 // the turn in which revents were noted
}

// bits are the state of an entry. readable and writable mean "the call may
// succeed": they are set while nothing is known. A clear bit promises that an
// edge will set it, so it is only cleared when the events are registered.
type bits uint16

const (
	readable bits = 1 << iota
	writable
	hungUp   // end or error is behind the data: a short read does not mean dry
	closing  // OpClose is in flight
	listed   // in Backend.next or Backend.turn
	suspect  // in Backend.suspects
	stream   // registered for input or output, not only for polls
	blocking // O_NONBLOCK is not set
	regular  // a file whose calls never wait
	listens  // an accept was successful or had to wait
	owed     // a completion is to be delivered; see closeIdle
	fifo     // if blocking: a pipe

	unknown = readable | writable
)

// kind says what a short read means.
type kind uint8

const (
	kindUnknown kind = iota
	kindTCP          // a short read has emptied the socket
	kindUnix         // so it has, unless ancillary data cut it short
	kindOther        // only EAGAIN tells
)

const (
	inEvents  = unix.EPOLLIN | unix.EPOLLPRI | unix.EPOLLRDHUP
	endEvents = unix.EPOLLRDHUP | unix.EPOLLHUP | unix.EPOLLERR
	// pollEvents are the events of poll(2) that epoll(7) knows.
	pollEvents = 0x3fff
)

// Entries live in pages, so that they never move and high numbers are cheap.
const (
	pageShift = 6
	pageSize  = 1 << pageShift
)

type page [pageSize]entry

// find returns the entry of fd, or nil if fd lies outside of the table and is
// not open.
func (b *Backend) find(fd int32) *entry {
	if i := int(fd >> pageShift); i < len(b.pages) {
		if p := b.pages[i]; p != nil {
			return &p[fd&(pageSize-1)]
		}
	}
	return b.addPage(fd)
}

func (b *Backend) addPage(fd int32) *entry {
	if _, errno := fcntl(fd, unix.F_GETFD); errno != 0 {
		return nil
	}
	i := int(fd >> pageShift)
	for len(b.pages) <= i {
		b.pages = append(b.pages, nil)
	}
	p := new(page)
	for j := range p {
		p[j].fd = int32(i<<pageShift + j)
		p[j].bits = unknown
	}
	b.pages[i] = p
	return &p[fd&(pageSize-1)]
}

// idle reports whether nothing waits on e.
func (e *entry) idle() bool { return e.in == nil && e.out == nil && e.polls == nil }

// workable reports whether an operation that waits on e may be performed.
func (e *entry) workable() bool {
	return e.in != nil && e.bits&readable != 0 || e.out != nil && e.bits&writable != 0
}

func (e *entry) listOf(op *backend.Op) **backend.Op {
	switch {
	case op.Input():
		return &e.in
	case op.Output():
		return &e.out
	}
	return &e.polls
}

// forget makes e what it is for a number that was just opened. Operations that
// wait stay, and with them the mode that learnMode found for them. The generation
// lets events of the old descriptor be dropped.
func (e *entry) forget() {
	e.gen++
	e.mask, e.revents, e.kind = 0, 0, kindUnknown
	e.bits = e.bits&^(hungUp|stream|listens|closing) | unknown
}

// register tells epoll which events to report, edge-triggered, and lets it
// look at the present state: what is ready already is an edge.
func (b *Backend) register(e *entry, mask uint16) syscall.Errno {
	ev := unix.EpollEvent{Events: uint32(mask) | unix.EPOLLET, Fd: e.fd, Pad: e.gen}
	if e.mask != 0 {
		errno := epollCtl(b.epfd, unix.EPOLL_CTL_MOD, e.fd, &ev)
		if errno != syscall.ENOENT {
			if errno == 0 {
				e.mask = mask
			}
			return errno
		}
		e.forget() // closed behind our back, and the number is in use again
		ev.Pad = e.gen
	}
	if e.kind != kindUnknown {
		e.kind = kindOf(e.fd) // it may be that of another one, closed before it was registered
	}
	errno := epollCtl(b.epfd, unix.EPOLL_CTL_ADD, e.fd, &ev)
	if errno == syscall.EEXIST {
		errno = epollCtl(b.epfd, unix.EPOLL_CTL_MOD, e.fd, &ev)
	}
	if errno == 0 {
		e.mask = mask
	}
	return errno
}

// ensure registers the events of a direction unless they are.
func (b *Backend) ensure(e *entry, events uint16) syscall.Errno {
	if e.mask&events == events {
		return 0
	}
	errno := b.register(e, e.mask|events)
	if errno == 0 {
		e.bits |= stream
	}
	return errno
}

func (b *Backend) unregister(e *entry) {
	if e.mask != 0 {
		epollCtl(b.epfd, unix.EPOLL_CTL_DEL, e.fd, &unix.EpollEvent{})
	}
	e.forget()
}

// notReadable notes that a call on e found nothing to read.
func (b *Backend) notReadable(e *entry) syscall.Errno {
	errno := b.ensure(e, inEvents)
	if errno == 0 {
		e.bits &^= readable | hungUp
	}
	return errno
}

// notWritable notes that a call on e found no room.
func (b *Backend) notWritable(e *entry) syscall.Errno {
	errno := b.ensure(e, unix.EPOLLOUT)
	if errno == 0 {
		e.bits &^= writable
	}
	return errno
}

// shortRead notes that a call on e returned less than asked for. On a stream
// whose end is not in sight that says as much as EAGAIN, and saves the call
// that would return it.
func (e *entry) shortRead(cut bool) {
	if e.kind == kindUnknown && e.kindNow() == kindUnix {
		return // this read did not look for ancillary data yet
	}
	if !cut && e.kind != kindOther && e.bits&hungUp == 0 && e.mask&unix.EPOLLIN != 0 {
		e.bits &^= readable
	}
}

// kindNow finds out the kind when it is first needed.
func (e *entry) kindNow() kind {
	if e.kind == kindUnknown {
		e.kind = kindOf(e.fd)
	}
	return e.kind
}

func kindOf(fd int32) kind {
	if p, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PROTOCOL); err == nil && p == unix.IPPROTO_TCP {
		return kindTCP
	}
	domain, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil || domain != unix.AF_UNIX {
		return kindOther
	}
	if t, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_TYPE); err != nil || t != unix.SOCK_STREAM {
		return kindOther
	}
	return kindUnix
}

// learnMode finds out whether a call of this code could block the thread.
// Calls with MSG_DONTWAIT cannot. The others ask every time, also after they have
// waited, because the mode belongs to the open file, and others may change it.
func (e *entry) learnMode(op *backend.Op) {
	switch op.Code {
	case backend.OpAccept, backend.OpConnect, backend.OpSendfile:
	case backend.OpRead, backend.OpWrite:
		if op.Off >= 0 {
			return
		}
	default:
		return
	}
	e.bits &^= blocking | regular | fifo
	flags, errno := fcntl(e.fd, unix.F_GETFL)
	if errno != 0 || flags&unix.O_NONBLOCK != 0 || refused(op, flags) {
		return
	}
	e.bits |= blocking
	var st unix.Stat_t
	if unix.Fstat(int(e.fd), &st) != nil {
		return
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG, unix.S_IFDIR, unix.S_IFBLK:
		e.bits |= regular
	case unix.S_IFIFO:
		e.bits |= fifo
	}
}

// refused reports whether a call of this code fails at once on a file that was opened
// so, which is never ready for it either.
func refused(op *backend.Op, flags int) bool {
	switch mode := flags & unix.O_ACCMODE; op.Code {
	case backend.OpRead:
		return mode == unix.O_WRONLY
	case backend.OpWrite:
		return mode == unix.O_RDONLY
	}
	return false
}

// park lets op wait for its turn and for readiness.
func (b *Backend) park(e *entry, op *backend.Op, events uint16) {
	if e.mask&events != events {
		// The registration reports what is ready now, so the first attempt on an
		// accepted connection can wait for that. Without it, and for what may be
		// the wrong kind of socket, the call itself has to tell.
		if errno := b.ensure(e, events); errno == 0 && events == inEvents && e.kind != kindUnknown && e.bits&listens == 0 {
			e.bits &^= readable
		}
	} else if e.idle() || events == unix.EPOLLOUT && e.kindNow() == kindOther {
		b.suspect(e)
	}
	head := e.listOf(op)
	if *head != nil {
		op.State.Phase = backend.Queued
	}
	op.State.Mark = uint8(b.turnNo)
	push(head, op)
	if e.workable() {
		b.list(e)
	}
}

// suspect notes that the registration of e has to be proven, see the package
// comment.
func (b *Backend) suspect(e *entry) {
	if e.bits&suspect == 0 {
		e.bits |= suspect
		b.suspects = append(b.suspects, e)
	}
}

// proveSuspects asks the kernel whether the descriptors on which something
// waits are still the registered ones.
func (b *Backend) proveSuspects() {
	b.quiet = 0
	for _, e := range b.suspects {
		e.bits &^= suspect
		if e.idle() || e.mask == 0 {
			continue
		}
		gen := e.gen
		if errno := b.register(e, e.mask); errno != 0 {
			e.forget() // the calls will say what is wrong
		}
		if e.gen != gen {
			b.list(e)
		}
	}
	clear(b.suspects)
	b.suspects = b.suspects[:0]
}

// closeFD is the end of OpClose. EPOLL_CTL_DEL comes first, since close(2)
// leaves a registration behind if the open file has a duplicate.
func (b *Backend) closeFD(fd int32) syscall.Errno {
	if e := b.find(fd); e != nil {
		b.unregister(e)
	}
	err := unix.Close(int(fd))
	if errno, ok := err.(syscall.Errno); ok && errno != syscall.EINTR {
		return errno
	}
	return 0
}
