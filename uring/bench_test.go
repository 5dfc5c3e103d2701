package uring

import (
	"fmt"
	"testing"

	"github.com/seed-80cfe818/ringloop/backend"
)

// countOp counts the bytes that came.
type countOp struct {
	backend.Op
	n    int
	done bool
}

func (c *countOp) Complete(_ *backend.Op, r backend.Result) {
	c.n += r.N
	c.done = !r.More
}

func turn(b *testing.B, be *Backend) {
	if err := be.Wait(-1); err != nil {
		b.Fatal(err)
	}
	be.Dispatch()
}

func BenchmarkNop(b *testing.B) {
	be := open(b, nil)
	op := &countOp{}
	op.Receiver = op
	b.ReportAllocs()
	for b.Loop() {
		if err := be.Submit(&op.Op); err != nil {
			b.Fatal(err)
		}
		turn(b, be)
	}
}

func BenchmarkNopBatchOf64(b *testing.B) {
	be := open(b, nil)
	ops := make([]countOp, 64)
	b.ReportAllocs()
	for b.Loop() {
		for i := range ops {
			ops[i].Receiver = &ops[i]
			if err := be.Submit(&ops[i].Op); err != nil {
				b.Fatal(err)
			}
		}
		for be.InFlight() > 0 {
			turn(b, be)
		}
	}
}

// BenchmarkPingPong sends and receives 64 bytes there and back through
// buffers on the heap.
func BenchmarkPingPong(b *testing.B) {
	be := open(b, nil)
	x, y := pair(b)
	fds := [2]int32{x, y}
	var send, recv [2]countOp
	for i := range fds {
		send[i].Op = backend.Op{Code: backend.OpSend, FD: fds[i], Buf: make([]byte, 64), Receiver: &send[i]}
		recv[i].Op = backend.Op{Code: backend.OpRecv, FD: fds[i], Buf: make([]byte, 64), Receiver: &recv[i]}
	}
	b.ReportAllocs()
	for b.Loop() {
		for from := range fds {
			recv[1-from].done = false
			if err := be.Submit(&recv[1-from].Op); err != nil {
				b.Fatal(err)
			}
			if err := be.Submit(&send[from].Op); err != nil {
				b.Fatal(err)
			}
			for !recv[1-from].done {
				turn(b, be)
			}
		}
		for be.InFlight() > 0 {
			turn(b, be)
		}
	}
}

func BenchmarkMultishotRecv(b *testing.B) {
	for _, size := range []int{64, 4 << 10, 16 << 10} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			be := open(b, nil)
			r, w := pair(b)
			msg := make([]byte, size)
			in := &countOp{Op: backend.Op{Code: backend.OpRecv, FD: r, Flags: backend.Multishot}}
			in.Receiver = in
			out := &countOp{Op: backend.Op{Code: backend.OpSend, FD: w, Buf: msg, Flags: backend.WaitAll}}
			out.Receiver = out
			if err := be.Submit(&in.Op); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				in.n, out.done = 0, false
				if err := be.Submit(&out.Op); err != nil {
					b.Fatal(err)
				}
				for in.n < size || !out.done {
					turn(b, be)
				}
			}
		})
	}
}
