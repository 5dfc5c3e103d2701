package epoll

import (
	"fmt"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/internal/nowait"
)

func BenchmarkNop(b *testing.B) {
	f := newFixture(b, nil)
	o := &counter{}
	o.Receiver = o
	b.ReportAllocs()
	for b.Loop() {
		if f.Submit(&o.Op) != nil || f.Wait(0) != nil {
			b.Fatal("failed")
		}
		f.Dispatch()
	}
}

// counter is an operation that only counts.
type counter struct {
	backend.Op
	n int
}

func (o *counter) Complete(_ *backend.Op, r backend.Result) { o.n += r.N }

// echoer answers what a multishot recv delivers, by Try as a transport would.
type echoer struct {
	backend.Op
	f    *fixture
	send counter
}

func (o *echoer) Complete(_ *backend.Op, r backend.Result) {
	if r.N == 0 {
		return
	}
	o.send.Buf = r.Data
	if sent, ok := o.f.Try(&o.send.Op); !ok || sent.N != r.N {
		panic(fmt.Sprintf("send: %+v", sent))
	}
}

// BenchmarkEcho is one message to and fro on a connection whose server side is
// a multishot recv and Try, and whose client calls send and recv.
func BenchmarkEcho(b *testing.B) {
	for _, size := range []int{64, 4 << 10, 16 << 10} {
		for name, domain := range map[string]int{"tcp": unix.AF_INET, "unix": unix.AF_UNIX} {
			b.Run(fmt.Sprintf("%s/%dB", name, size), func(b *testing.B) { benchmarkEcho(b, domain, size) })
		}
	}
}

func benchmarkEcho(b *testing.B, domain, size int) {
	f := newFixture(b, nil)
	server, client := pair(b, domain, unix.SOCK_STREAM)
	closeLater(b, server, client)
	e := &echoer{f: f}
	e.Op = backend.Op{Receiver: e, Code: backend.OpRecv, FD: int32(server), Flags: backend.Multishot}
	e.send.Op = backend.Op{Receiver: &e.send, Code: backend.OpSend, FD: int32(server)}
	if err := f.Submit(&e.Op); err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, size)
	b.SetBytes(int64(2 * size))
	b.ReportAllocs()
	for b.Loop() {
		nowait.Send(int32(client), buf)
		for got := 0; got < size; {
			if err := f.Wait(-1); err != nil {
				b.Fatal(err)
			}
			f.Dispatch()
			for {
				n, errno := nowait.Recv(int32(client), buf[got:])
				if errno != 0 || n == 0 {
					break
				}
				if got += n; got == size {
					break
				}
			}
		}
	}
	b.StopTimer()
}

// BenchmarkPingPong lets the two ends of a socket pair receive and answer in
// turns, as tasks do: by Try, and by Submit if that would wait, or by Submit
// alone.
func BenchmarkPingPong(b *testing.B) {
	for _, try := range []bool{true, false} {
		name := "submit"
		if try {
			name = "try"
		}
		b.Run(name, func(b *testing.B) { benchmarkPingPong(b, try) })
	}
}

func benchmarkPingPong(b *testing.B, try bool) {
	f := newFixture(b, nil)
	p, q := pair(b, unix.AF_UNIX, unix.SOCK_STREAM)
	closeLater(b, p, q)
	buf := make([]byte, 1024)
	var recv, send [2]counter
	for i, fd := range []int{p, q} {
		recv[i].Op = backend.Op{Receiver: &recv[i], Code: backend.OpRecv, FD: int32(fd), Buf: buf}
		send[i].Op = backend.Op{Receiver: &send[i], Code: backend.OpSend, FD: int32(fd), Buf: buf[:64]}
	}
	do := func(o *counter) {
		o.n = 0
		if try {
			if r, ok := f.Try(&o.Op); ok {
				o.n = r.N
				return
			}
		}
		if err := f.Submit(&o.Op); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		for i := range 2 {
			do(&recv[1-i])
			do(&send[i])
			for recv[1-i].n == 0 || send[i].n == 0 {
				if err := f.Wait(-1); err != nil {
					b.Fatal(err)
				}
				f.Dispatch()
			}
		}
	}
}
