package backendtest

import (
	"errors"
	"fmt"
	"io"
	"time"

	"golang.org/x/sys/unix"
)

// peer is the other side of a test: a goroutine that makes plain system calls.
type peer struct {
	what string
	err  error
	done chan struct{}
}

// spawn runs f on a goroutine. The test fails with its error.
func (d *driver) spawn(what string, f func() error) *peer {
	p := &peer{what: what, done: make(chan struct{})}
	d.peers = append(d.peers, p)
	go func() {
		defer d.be.Wake()
		defer close(p.done)
		p.err = f()
	}()
	return p
}

// ended reports whether the goroutine has returned.
func (p *peer) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// join turns the backend until the goroutines of the test have returned.
func (d *driver) join() {
	d.t.Helper()
	for _, p := range d.peers {
		if !d.closed {
			d.until("end of "+p.what, p.ended)
		}
		<-p.done
		if p.err != nil {
			d.t.Errorf("%s: %v", p.what, p.err)
		}
	}
	d.peers = nil
}

// ready waits until fd is ready for events, on any goroutine.
func (d *driver) ready(fd int, events int16) error {
	deadline := time.Now().Add(safety)
	for !d.stop.Load() {
		fds := []unix.PollFd{{Fd: int32(fd), Events: events}}
		n, err := unix.Poll(fds, 100)
		switch {
		case n > 0:
			return nil
		case err != nil && err != unix.EINTR:
			return fmt.Errorf("poll of fd %d: %w", fd, err)
		case time.Now().After(deadline):
			return fmt.Errorf("fd %d was not ready for %#x within %v", fd, events, safety)
		}
	}
	return errors.New("the test is over")
}

// put writes all of b to fd, on any goroutine.
func (d *driver) put(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		switch err {
		case nil:
			b = b[n:]
		case unix.EINTR:
		case unix.EAGAIN:
			if err := d.ready(fd, unix.POLLOUT); err != nil {
				return err
			}
		default:
			return fmt.Errorf("write to fd %d: %w", fd, err)
		}
	}
	return nil
}

// get reads once from fd into b, on any goroutine; n is 0 at the end.
func (d *driver) get(fd int, b []byte) (n int, err error) {
	for {
		n, err := unix.Read(fd, b)
		switch err {
		case nil:
			return n, nil
		case unix.EINTR:
		case unix.EAGAIN:
			if err := d.ready(fd, unix.POLLIN); err != nil {
				return 0, err
			}
		default:
			return 0, fmt.Errorf("read from fd %d: %w", fd, err)
		}
	}
}

// reader reads a descriptor to its end.
type reader struct {
	d  *driver
	fd int
}

func (r reader) Read(b []byte) (int, error) {
	n, err := r.d.get(r.fd, b)
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}

// feed writes b on the test's own goroutine. It must fit into the descriptor.
func (d *driver) feed(fd int, b []byte) {
	d.t.Helper()
	n, err := unix.Write(fd, b)
	if err != nil || n != len(b) {
		d.t.Fatalf("write of %d bytes to fd %d: %d, %v", len(b), fd, n, err)
	}
}

// take reads n bytes on the test's own goroutine; they have been written.
func (d *driver) take(fd, n int) []byte {
	d.t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(reader{d, fd}, b); err != nil {
		d.t.Fatalf("reading %d bytes from fd %d: %v", n, fd, err)
	}
	return b
}

// empty reads everything that fd has on another goroutine.
func (d *driver) empty(fd int) {
	d.spawn("reading everything", func() error {
		buf := make([]byte, 64<<10)
		for !d.stop.Load() {
			if _, err := unix.Read(fd, buf); err == unix.EAGAIN {
				return nil
			}
		}
		return nil
	})
}

// atEnd checks that the next thing on fd is the end of the stream.
func (d *driver) atEnd(fd int) {
	d.t.Helper()
	if n, err := d.get(fd, make([]byte, 1)); n != 0 || err != nil {
		d.t.Errorf("fd %d: %d bytes, %v; want the end of the stream", fd, n, err)
	}
}

// pattern fills b with the bytes from position pos of an endless stream whose
// every window is different, and returns it.
func pattern(b []byte, pos int64) []byte {
	for i := range b {
		b[i] = patternAt(pos + int64(i))
	}
	return b
}

func patternAt(pos int64) byte {
	return byte(pos) ^ byte(pos>>8)*31 ^ byte(pos>>16)*17
}

// bytesOf returns n bytes of the pattern from position pos.
func bytesOf(n int, pos int64) []byte { return pattern(make([]byte, n), pos) }

// follows reports whether b is the pattern from position pos.
func follows(b []byte, pos int64) bool {
	for i, c := range b {
		if c != patternAt(pos+int64(i)) {
			return false
		}
	}
	return true
}

// putPattern writes the pattern from position 0 up to n and closes nothing.
func (d *driver) putPattern(fd int, n int64) error { return d.putPatternFrom(fd, 0, n) }

func (d *driver) putPatternFrom(fd int, pos, n int64) error {
	buf := make([]byte, 32<<10)
	for pos < n {
		b := buf[:min(int64(len(buf)), n-pos)]
		if err := d.put(fd, pattern(b, pos)); err != nil {
			return fmt.Errorf("after %d bytes: %w", pos, err)
		}
		pos += int64(len(b))
	}
	return nil
}

// getPattern reads n bytes of the pattern.
func (d *driver) getPattern(fd int, n int64) error {
	buf := make([]byte, 64<<10)
	for pos := int64(0); pos < n; {
		k, err := d.get(fd, buf[:min(int64(len(buf)), n-pos)])
		switch {
		case err != nil:
			return fmt.Errorf("after %d bytes: %w", pos, err)
		case k == 0:
			return fmt.Errorf("the stream ended after %d of %d bytes", pos, n)
		case !follows(buf[:k], pos):
			return fmt.Errorf("wrong bytes between %d and %d", pos, pos+int64(k))
		}
		pos += int64(k)
	}
	return nil
}
