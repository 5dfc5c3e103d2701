package transport

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/seed-80cfe818/ringloop/loop"
)

// pinger sends a message whenever one is back, left times.
type pinger struct {
	BaseStreamProtocol
	t       Transport
	message []byte
	got     int
	left    int
	done    waitList
}

func (p *pinger) ConnectionMade(t Transport) { p.t = t }

func (p *pinger) DataReceived(data []byte) {
	if p.got += len(data); p.got < len(p.message) {
		return
	}
	p.got = 0
	if p.left--; p.left <= 0 {
		p.done.wake()
		return
	}
	_ = p.t.Write(p.message)
}

// BenchmarkTLSEcho has both ends on one loop, so that it counts the work and the
// allocations of both.
func BenchmarkTLSEcho(b *testing.B) {
	for _, name := range []string{"io_uring", "epoll"} {
		for _, size := range []int{64, 512, 16384, 262144} {
			b.Run(fmt.Sprintf("%s/%d", name, size), func(b *testing.B) {
				l, err := loop.NewEventLoop(loop.WithBackend(name))
				if err != nil {
					b.Skipf("%s: %v", name, err)
				}
				_, err = loop.RunUntilComplete(l, l.Go(func(co *loop.Coro) error { return pingTLS(b, co, size) }))
				if err != nil {
					b.Error(err)
				}
				if err := l.Close(); err != nil {
					b.Error(err)
				}
			})
		}
	}
}

func pingTLS(b *testing.B, co *loop.Coro, size int) error {
	srv, err := CreateServer(co, newEcho, []string{"127.0.0.1"}, "0", &ServerOptions{TLS: serverTLS()})
	if err != nil {
		return err
	}
	addr, err := srv.Sockets()[0].LocalAddr()
	if err != nil {
		return err
	}
	p := &pinger{message: noise(size), done: waitList{what: "the messages"}}
	if _, _, err = CreateConnection(co, protocolOf(p), "127.0.0.1", fmt.Sprint(addr.Port()), &ConnectOptions{TLS: trusting()}); err != nil {
		return err
	}
	run := func(n int) error {
		p.left = n
		_ = p.t.Write(p.message)
		return p.done.wait(co)
	}
	if err := run(200); err != nil { // crypto/tls begins with small records
		return err
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	b.SetBytes(int64(2 * size))
	b.ResetTimer()
	if err := run(b.N); err != nil {
		return err
	}
	b.StopTimer()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.Mallocs-before.Mallocs)/float64(b.N), "mallocs/op")
	srv.Close()
	srv.AbortClients()
	p.t.Abort()
	return srv.WaitClosed(co)
}
