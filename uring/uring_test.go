package uring

import (
	"net"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/backend/backendtest"
)

// configurations are the ways in which the backend can work: as it does on
// this kernel, and without the features that change what it does.
var configurations = []struct {
	name    string
	options *Options
}{
	{"default", nil},
	{"bare setup, one by one", &Options{Disable: []string{
		DeferTaskrun, SingleIssuer, CoopTaskrun, TaskrunFlag, SubmitAll, NoSQArray,
		MultishotAccept, MultishotRecv, WaitID, RegisteredRing,
	}}},
	{"cooperative without provided buffers", &Options{Disable: []string{DeferTaskrun, ProvidedBuffers}}},
	{"tiny queues and one buffer", &Options{SQEntries: 4, CQEntries: 8, Buffers: 1, BufferSize: 512}},
}

func TestConformance(t *testing.T) {
	run := backendtest.Run
	for _, c := range configurations {
		run(t, c.name, func() (backend.Backend, error) { return New(c.options) })
		if testing.Short() {
			return // the first is what a loop uses
		}
		run = backendtest.RunQuick
	}
}

func TestAnAbortedConnectionDoesNotEndAnAccept(t *testing.T) {
	b := open(t, nil)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, flags := range []backend.Flags{0, backend.Multishot} {
		op := newOp(backend.Op{Code: backend.OpAccept, FD: int32(f.Fd()), Flags: flags})
		idx := b.slots.take(&op.Op)
		op.State.Phase = backend.Armed
		b.complete(completion(b.slots.userData(kindOp, idx), -int32(syscall.ECONNABORTED)))
		c, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		run(t, b, func() bool { return len(op.got) > 0 })
		if r := op.last(); r.Errno != 0 {
			t.Fatalf("flags %d: %+v, want a connection", flags, r)
		}
		unix.Close(op.last().N)
		b.Cancel(&op.Op)
		run(t, b, op.ended)
	}
}
