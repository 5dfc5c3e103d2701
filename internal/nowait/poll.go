package nowait

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Poll returns which of events fd has now, and errors that a call would return
// (poll(2)); all of events if nobody knows.
func Poll(fd int32, events int16) int16 {
	for {
		p := [1]unix.PollFd{{Fd: fd, Events: events}}
		_, err := unix.Poll(p[:], 0)
		switch err {
		case nil:
			return p[0].Revents
		case syscall.EINTR:
		default:
			return events
		}
	}
}
