// Package load is the closed-loop client of the benchmark: every connection
// keeps a number of messages under way and checks the bytes that come back.
package load

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Config says what load to make.
type Config struct {
	Addr        string        // of the echo server
	Connections int           // open at the same time
	Size        int           // bytes of a message
	Depth       int           // messages under way per connection
	Warmup      time.Duration // before counting begins
	Duration    time.Duration // of counting
	Connected   func()        // if not nil, RunRing calls it before the first message
	CPUs        []int         // one thread on each
}

// Result is what was counted.
type Result struct {
	Messages   uint64  // echoed while counting
	Total      uint64  // echoed, also while warming up
	Seconds    float64 // of counting
	P50, P99   uint64  // nanoseconds from sending a message to having it back
	P999, Max  uint64
	Mismatches uint64 // bytes that came back wrong, of those that were compared
}

// phases of a run, as every thread sees them.
const (
	warming int32 = iota
	counting
	ended
)

type runner struct {
	cfg   Config
	phase atomic.Int32
	data  []byte
}

func (c *Config) check() error {
	if c.Connections < 1 || c.Size < 1 || c.Depth < 1 || len(c.CPUs) < 1 {
		return fmt.Errorf("load: connections, size, depth and CPUs must be positive: %+v", *c)
	}
	return nil
}

// Limit is how long a run may take until it has failed, say because the server
// accepts no connection.
func (c *Config) Limit() time.Duration { return c.Warmup + c.Duration + time.Minute }

// share is how many of the connections thread i has.
func (c *Config) share(i int) int {
	threads := min(len(c.CPUs), c.Connections)
	return c.Connections/threads + b2i(i < c.Connections%threads)
}

// Run makes the load and returns what it measured. The error says which
// connection failed and how.
func Run(cfg Config) (*Result, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	r := &runner{cfg: cfg, data: pattern(cfg.Size)}
	threads := min(len(cfg.CPUs), cfg.Connections)
	workers := make([]*worker, threads)
	var connected, done sync.WaitGroup
	start := make(chan struct{})
	errs := make([]error, threads)
	for i := range workers {
		w := &worker{r: r, cpu: cfg.CPUs[i]}
		workers[i] = w
		connected.Add(1)
		done.Go(func() { errs[i] = w.work(cfg.share(i), &connected, start) })
	}
	connected.Wait()
	close(start)
	time.Sleep(cfg.Warmup)
	r.phase.Store(counting)
	from := time.Now()
	time.Sleep(cfg.Duration)
	r.phase.Store(ended)
	seconds := time.Since(from).Seconds()
	done.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return collect(workers, seconds), nil
}

func collect(workers []*worker, seconds float64) *Result {
	var h Histogram
	res := &Result{Seconds: seconds}
	for _, w := range workers {
		h.Merge(&w.hist)
		res.Messages += w.messages
		res.Total += w.total
		res.Mismatches += w.mismatches
	}
	res.quantiles(&h)
	return res
}

func (r *Result) quantiles(h *Histogram) {
	r.P50, r.P99, r.P999, r.Max = h.Quantile(0.5), h.Quantile(0.99), h.Quantile(0.999), h.max
}

// pattern returns the bytes of a message: their position, so that a shifted
// echo is noticed.
func pattern(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i*7 + i>>8)
	}
	return p
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// connection is one closed loop.
type connection struct {
	fd       int
	index    int32
	toSend   int // bytes of the messages under way that were not sent yet
	sendOff  int // position in the message being sent
	recvOff  int // position in the message being received
	wantsOut bool
	sentAt   []int64 // when each message under way was handed over, a ring
	head     int
}

// worker is one thread of the client.
type worker struct {
	r          *runner
	cpu        int
	ep         int
	conns      []*connection
	buf        []byte
	burst      []byte // Depth messages in a row, and one more
	hist       Histogram
	messages   uint64
	total      uint64
	mismatches uint64
}

func (w *worker) work(n int, connected *sync.WaitGroup, start chan struct{}) error {
	runtime.LockOSThread()
	err := w.prepare(n)
	connected.Done()
	defer w.close()
	if err != nil {
		return err
	}
	<-start
	for _, c := range w.conns {
		for range w.r.cfg.Depth {
			c.sentAt = append(c.sentAt, now())
		}
		c.toSend = w.r.cfg.Depth * w.r.cfg.Size
		if err := w.send(c); err != nil {
			return err
		}
	}
	return w.loop()
}

func (w *worker) prepare(n int) (err error) {
	var set unix.CPUSet
	set.Set(w.cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("load: pin to CPU %d: %w", w.cpu, err)
	}
	if w.ep, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("load: epoll_create1: %w", err)
	}
	size := w.r.cfg.Size
	w.buf = make([]byte, max(64<<10, min(size*w.r.cfg.Depth, 1<<20)))
	for len(w.burst) < size*(w.r.cfg.Depth+1) {
		w.burst = append(w.burst, w.r.data...)
	}
	for range n {
		c, err := w.dial()
		if err != nil {
			return err
		}
		w.conns = append(w.conns, c)
	}
	return nil
}

func (w *worker) dial() (*connection, error) {
	addr, err := net.ResolveTCPAddr("tcp4", w.r.cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("load: socket: %w", err)
	}
	c := &connection{fd: fd, index: int32(len(w.conns))}
	sa := &unix.SockaddrInet4{Port: addr.Port, Addr: [4]byte(addr.IP.To4())}
	if err := unix.Connect(fd, sa); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("load: connect to %s: %w", w.r.cfg.Addr, err)
	}
	if err := errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.SetNonblock(fd, true),
		unix.EpollCtl(w.ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: c.index}),
	); err != nil {
		_ = unix.Close(fd)
		return nil, fmt.Errorf("load: %w", err)
	}
	return c, nil
}

func (w *worker) close() {
	for _, c := range w.conns {
		_ = unix.Close(c.fd)
	}
	_ = unix.Close(w.ep)
}

func now() int64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return ts.Nano()
}

func (w *worker) loop() error {
	events := make([]unix.EpollEvent, 512)
	for w.r.phase.Load() != ended {
		n, err := unix.EpollWait(w.ep, events, 100)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("load: epoll_wait: %w", err)
		}
		for i := range max(n, 0) {
			c := w.conns[events[i].Fd]
			if events[i].Events&unix.EPOLLOUT != 0 {
				if err := w.send(c); err != nil {
					return err
				}
			}
			if events[i].Events&^uint32(unix.EPOLLOUT) != 0 {
				if err := w.receive(c, int(events[i].Fd)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// receive takes what came back, and sends as many messages as were completed.
func (w *worker) receive(c *connection, index int) error {
	n, err := unix.Read(c.fd, w.buf)
	if err == unix.EAGAIN || err == unix.EINTR {
		return nil
	}
	if err != nil || n == 0 {
		return fmt.Errorf("load: connection %d: receive: %d bytes, %v", index, n, err)
	}
	w.compare(c, w.buf[:n])
	size := w.r.cfg.Size
	complete := (c.recvOff + n) / size
	c.recvOff = (c.recvOff + n) % size
	if complete == 0 {
		return nil
	}
	w.total += uint64(complete)
	t := now()
	count := w.r.phase.Load() == counting
	for range complete {
		if count {
			w.hist.Add(uint64(t - c.sentAt[c.head]))
			w.messages++
		}
		c.sentAt[c.head] = t
		c.head = (c.head + 1) % len(c.sentAt)
	}
	c.toSend += complete * size
	return w.send(c)
}

// compare checks the first and the last bytes of what came back, and all of it
// every now and then: comparing everything would measure the client.
func (w *worker) compare(c *connection, got []byte) {
	size := w.r.cfg.Size
	if w.messages%64 == 0 {
		for i, b := range got {
			if b != w.r.data[(c.recvOff+i)%size] {
				w.mismatches++
			}
		}
		return
	}
	last := len(got) - 1
	if got[0] != w.r.data[c.recvOff%size] || got[last] != w.r.data[(c.recvOff+last)%size] {
		w.mismatches++
	}
}

// send sends what is due; what does not fit waits until the socket is writable.
func (w *worker) send(c *connection) error {
	for c.toSend > 0 {
		end := min(c.sendOff+c.toSend, len(w.burst))
		n, err := unix.Write(c.fd, w.burst[c.sendOff:end])
		if err == unix.EAGAIN {
			return w.watch(c, true)
		}
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("load: send: %w", err)
		}
		c.toSend -= n
		c.sendOff = (c.sendOff + n) % w.r.cfg.Size
	}
	return w.watch(c, false)
}

func (w *worker) watch(c *connection, out bool) error {
	if c.wantsOut == out {
		return nil
	}
	c.wantsOut = out
	events := uint32(unix.EPOLLIN)
	if out {
		events |= unix.EPOLLOUT
	}
	return unix.EpollCtl(w.ep, unix.EPOLL_CTL_MOD, c.fd, &unix.EpollEvent{Events: events, Fd: c.index})
}
