package transport

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/loop"
)

// counted counts what costs a system call on the loop's thread.
type counted struct {
	backend.Backend
	waits, tries int
}

func (c *counted) Wait(d time.Duration) error {
	c.waits++
	return c.Backend.Wait(d)
}

func (c *counted) Try(op *backend.Op) (backend.Result, bool) {
	r, ok := c.Backend.Try(op)
	if ok {
		c.tries++
	}
	return r, ok
}

// echoServer runs an echo server on a loop of its own.
type echoServer struct {
	loop *loop.Loop
	srv  *Server
	port int
	be   *counted
	done chan error
}

func startEchoServer(tb testing.TB, name string) *echoServer {
	tb.Helper()
	e := &echoServer{done: make(chan error, 1)}
	l, err := loop.NewEventLoop(loop.WithBackendFactory(func() (backend.Backend, error) {
		e.be = &counted{}
		var err error
		e.be.Backend, err = newBackend(name)
		return e.be, err
	}))
	if err != nil {
		tb.Skipf("%s: %v", name, err)
	}
	e.loop = l
	ready := make(chan error, 1)
	l.Go(func(co *loop.Coro) error {
		srv, err := CreateServer(co, newEcho, []string{"127.0.0.1"}, "0", &ServerOptions{Backlog: 4096})
		if err == nil {
			e.srv = srv
			addr, _ := srv.Sockets()[0].LocalAddr()
			e.port = int(addr.Port())
		}
		ready <- err
		return err
	})
	go func() { e.done <- l.RunForever() }()
	if err := <-ready; err != nil {
		tb.Fatal(err)
	}
	return e
}

// stop closes the server and its connections.
func (e *echoServer) stop(tb testing.TB) {
	tb.Helper()
	_, err := e.loop.CallSoonThreadsafe(func() {
		e.loop.Go(func(co *loop.Coro) error {
			e.srv.Close()
			e.srv.AbortClients()
			err := e.srv.WaitClosed(co)
			e.loop.Stop()
			return err
		})
	})
	if err != nil {
		tb.Error(err)
	}
	if err := <-e.done; err != nil {
		tb.Error(err)
	}
	if err := e.loop.Close(); err != nil {
		tb.Error(err)
	}
}

// rawClients are connections of plain system calls, which allocate nothing.
type rawClients struct {
	fds []int
	buf []byte
}

func dialRaw(tb testing.TB, port, n, size int) *rawClients {
	tb.Helper()
	c := &rawClients{buf: make([]byte, size)}
	for range n {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			tb.Fatal(err)
		}
		c.fds = append(c.fds, fd)
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			tb.Fatal(err)
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
			tb.Fatal(err)
		}
	}
	return c
}

// round sends one message on every connection and receives them back.
func (c *rawClients) round(tb testing.TB) {
	for _, fd := range c.fds {
		if _, err := unix.Write(fd, c.buf); err != nil {
			tb.Fatal(err)
		}
	}
	for _, fd := range c.fds {
		for got := 0; got < len(c.buf); {
			n, err := unix.Read(fd, c.buf[got:])
			if err != nil || n == 0 {
				tb.Fatalf("read: %d, %v", n, err)
			}
			got += n
		}
	}
}

func (c *rawClients) close() {
	for _, fd := range c.fds {
		_ = unix.Close(fd)
	}
}

func BenchmarkEcho(b *testing.B) {
	for _, name := range []string{"io_uring", "epoll"} {
		for _, shape := range []struct{ conns, size int }{{1, 64}, {50, 512}, {50, 8192}, {50, 16384}, {16, 65536}, {4, 262144}, {1000, 512}} {
			b.Run(fmt.Sprintf("%s/%dx%d", name, shape.conns, shape.size), func(b *testing.B) {
				e := startEchoServer(b, name)
				defer e.stop(b)
				c := dialRaw(b, e.port, shape.conns, shape.size)
				defer c.close()
				for range 20 {
					c.round(b)
				}
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				waits, tries := e.be.waits, e.be.tries
				b.ResetTimer()
				for range b.N {
					c.round(b)
				}
				b.StopTimer()
				runtime.ReadMemStats(&after)
				messages := float64(b.N * shape.conns)
				b.ReportMetric(float64(after.Mallocs-before.Mallocs)/messages, "allocs/msg")
				b.ReportMetric(float64(e.be.waits-waits+e.be.tries-tries)/messages, "calls/msg")
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/messages, "ns/msg")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// BenchmarkIdleConnection reports the Go heap that an idle connection of a
// server costs, with everything that the loop and the backend keep for it, but
// without the protocol's own 16 bytes.
func BenchmarkIdleConnection(b *testing.B) {
	const n = 5000
	for _, name := range []string{"io_uring", "epoll"} {
		b.Run(name, func(b *testing.B) {
			for range b.N {
				e := startEchoServer(b, name)
				warm := dialRaw(b, e.port, 10, 64)
				warm.round(b)
				before := heapInUse()
				c := dialRaw(b, e.port, n, 64)
				c.round(b)
				b.ReportMetric(float64(heapInUse()-before)/n, "B/conn")
				c.close()
				warm.close()
				e.stop(b)
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

func heapInUse() int64 {
	collect()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
