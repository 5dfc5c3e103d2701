// Package unixgram says when to try again to send a datagram from a Unix socket to
// a named peer.
//
// If the peer's queue is full, poll(2) and epoll(7) call the sender writable
// all the same, unless it is connected to that peer: whoever waits for
// writability tries again and again. So the packet is sent with a plain system
// call, which never waits, and tried again after a while.
package unixgram

import "time"

const (
	firstPause = 32 * time.Microsecond
	// maxPause bounds how late it is noticed that the peer has room again.
	maxPause = 4096 * time.Microsecond
)

// Backoff says how long to wait before the next attempt. The zero value is for
// the first one.
type Backoff time.Duration

// Next returns the pause: none at first, because a peer on the same loop gets
// its turn before the next attempt, and then ever longer ones.
func (b *Backoff) Next() time.Duration {
	pause := time.Duration(*b)
	*b = Backoff(min(max(2*pause, firstPause), maxPause))
	return pause
}

// Reset says that an attempt has succeeded.
func (b *Backoff) Reset() { *b = 0 }
