package backendtest

import (
	"os"
	"os/signal"
	"runtime"
	"testing"
	"time"

	"github.com/seed-80cfe818/ringloop/backend"
	"golang.org/x/sys/unix"
)

func signalTests() []test {
	return single("signal", []test{
		{name: "operations are exact in a storm of signals", fn: stormExact},
		{name: "a timeout is kept in a storm of signals", fn: stormTimeout},
		{name: "a Wait without a limit survives a storm of signals", fn: stormForever},
		{name: "submitting thousands in a storm of signals loses none", fn: stormSubmit},
		{name: "a send to a closed peer raises no SIGPIPE", fn: noSigpipe},
	})
}

// storm interrupts the calling thread all the time with the signal that the Go
// runtime uses to preempt goroutines and ignores otherwise, until the returned
// function is called.
func (d *driver) storm() (end func()) {
	tid, pid := unix.Gettid(), os.Getpid()
	stop := make(chan struct{})
	p := d.spawn("sending signals", func() error {
		for {
			select {
			case <-stop:
				return nil
			default:
			}
			if err := unix.Tgkill(pid, tid, unix.SIGURG); err != nil {
				return err
			}
			runtime.Gosched()
		}
	})
	return func() {
		close(stop)
		<-p.done
	}
}

func stormExact(d *driver) {
	end := d.storm()
	defer end()
	a, b := d.tcp(inet4)
	const n = 1 << 20
	d.spawn("writing", func() error { return d.putPattern(b, n) })
	d.spawn("reading", func() error { return d.getPattern(b, n) })
	recv, send := d.recv(a, 8<<10), d.whole(d.send(a, nil))
	d.submit(recv)
	var got, sent int64
	for got < n || sent < n {
		if sent < n && !send.flying {
			send.Buf = bytesOf(16<<10, sent)
			d.submit(send)
			sent += int64(len(send.Buf))
		}
		if got < n {
			r := d.outcome(recv)
			if r.Errno != 0 || r.N == 0 || !follows(recv.bytes(), got) {
				d.t.Fatalf("after %d bytes: N %d, errno %v, or wrong bytes", got, r.N, r.Errno)
			}
			if got += int64(r.N); got < n {
				d.submit(recv)
			}
		} else {
			d.wantN(send, len(send.Buf))
		}
	}
	d.wantN(send, len(send.Buf))
}

func stormTimeout(d *driver) {
	defer d.storm()()
	for range 3 {
		deadline := time.Now().Add(50 * time.Millisecond)
		for left := time.Until(deadline); left > 0; left = time.Until(deadline) {
			d.turn(left)
		}
	}
}

func stormForever(d *driver) {
	defer d.storm()()
	expired := d.guard()
	a, b := d.socketpair(unix.SOCK_STREAM)
	recv := d.recv(a, 1)
	rounds := 100
	if testing.Short() {
		rounds = 20
	}
	for range rounds {
		d.submit(recv)
		p := d.spawn("writing", func() error { return d.put(b, []byte("x")) })
		for !recv.done && !expired() {
			d.turn(-1)
		}
		d.wantBytes(recv, []byte("x"))
		<-p.done
	}
}

func stormSubmit(d *driver) {
	defer d.storm()()
	rounds := 5
	if testing.Short() {
		rounds = 1
	}
	for range rounds {
		nops := make([]*op, 5000)
		for i := range nops {
			nops[i] = d.submit(d.op(backend.OpNop, -1))
		}
		d.all(nops...)
	}
}

func noSigpipe(d *driver) {
	const fence = unix.SIGUSR2
	got := make(chan os.Signal, 16)
	signal.Notify(got, unix.SIGPIPE, fence)
	defer signal.Stop(got)
	for _, k := range streams {
		if k.name == "tcp6" {
			continue // the same code as tcp4, and not everywhere available
		}
		a, b := k.pair(d)
		d.closeFD(b)
		for _, o := range []*op{d.send(a, []byte("x")), d.sendmsg(a, []byte("x"))} {
			// The first on TCP is answered by a reset, the next must fail.
			for i := 0; i < 10000 && d.do(o).Errno == 0; i++ {
			}
			d.wantErr(o, unix.EPIPE, unix.ECONNRESET)
		}
	}
	// Signals are passed on in batches: after the second fence every signal that
	// came before the first has been passed on.
	for range 2 {
		d.ok(unix.Kill(os.Getpid(), fence), "kill")
		for s := <-got; s != fence; s = <-got {
			d.t.Errorf("the process got %v", s)
		}
	}
}
