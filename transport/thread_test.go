package transport

import (
	"errors"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/loop"
)

func TestDebugModeRefusesAPacketFromAnotherGoroutine(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := endpoint(t, co, DatagramOptions{LocalAddr: anyPort})
		co.Loop().SetDebug(true)
		defer co.Loop().SetDebug(false)
		self := p.addr(t)
		errs := make(chan error)
		go func() { errs <- p.t.SendTo([]byte("stray"), self) }()
		if err := <-errs; !errors.Is(err, loop.ErrWrongThread) {
			t.Errorf("got %v, want %v", err, loop.ErrWrongThread)
		}
		check(t, p.t.SendTo([]byte("own"), self))
		p.untilGot(t, co, "own")
		finish(t, co, p)
	})
}

func TestDebugModeRefusesAWriteFromAnotherGoroutine(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		tr, theirs := joined(t, co, &recorder{})
		co.Loop().SetDebug(true)
		defer co.Loop().SetDebug(false)
		errs := make(chan error)
		go func() { errs <- tr.Write([]byte("stray")) }()
		if err := <-errs; !errors.Is(err, loop.ErrWrongThread) {
			t.Errorf("got %v, want %v", err, loop.ErrWrongThread)
		}
		check(t, tr.Write([]byte("own")))
		if got := receive(t, co, theirs, 3); string(got) != "own" {
			t.Errorf("the peer received %q", got)
		}
	})
}

func TestDebugModeRefusesAWriteToAPipeFromAnotherGoroutine(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		r, w := osPipe(t)
		p := &streamDiary{}
		tr := writePipeOf(t, co, p, w)
		co.Loop().SetDebug(true)
		defer co.Loop().SetDebug(false)
		errs := make(chan error)
		for _, write := range []func() error{
			func() error { return tr.Write([]byte("stray")) },
			func() error { return tr.Writelines([][]byte{[]byte("stray")}) },
		} {
			go func() { errs <- write() }()
			if err := <-errs; !errors.Is(err, loop.ErrWrongThread) {
				t.Errorf("got %v, want %v", err, loop.ErrWrongThread)
			}
		}
		check(t, tr.Write([]byte("own")))
		tr.Close()
		if got := readToEnd(t, co, r); string(got) != "own" {
			t.Errorf("the reader got %q", got)
		}
		p.untilLost(t, co)
	})
}

func TestDebugModeRefusesToCloseOnAnotherGoroutine(t *testing.T) {
	inLoggedTask(t, func(t *testing.T, co *loop.Coro, log *logBuffer) {
		p := &recorder{}
		tr, theirs := joined(t, co, p)
		ep := endpoint(t, co, DatagramOptions{LocalAddr: anyPort})
		_, w := osPipe(t)
		pipe := &streamDiary{}
		out := writePipeOf(t, co, pipe, w)
		srv := must2(CreateServer(co, mustNotCall(t), []string{"127.0.0.1"}, "0", nil))(t)
		co.Loop().SetDebug(true)
		defer co.Loop().SetDebug(false)
		stray := []func(){
			tr.Close, tr.Abort, ep.t.Close, ep.t.Abort, out.Close, out.Abort, srv.Close, srv.CloseClients, srv.AbortClients,
			co.Loop().Stop, func() { co.Task().Cancel("") },
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			for _, fn := range stray {
				fn()
			}
		}()
		<-done
		if got := log.count(loop.ErrWrongThread.Error()); got != len(stray) {
			t.Errorf("%d calls were logged, want %d", got, len(stray))
		}
		if tr.IsClosing() || ep.t.IsClosing() || out.IsClosing() || !srv.IsServing() {
			t.Error("a call that was refused has closed something")
		}
		turns(t, co)
		srv.Close()
		out.Close()
		pipe.untilLost(t, co)
		finish(t, co, ep)
		check(t, theirs.Close())
		check(t, p.untilLost(t, co))
	})
}

func TestDebugModeLogsASlowProtocol(t *testing.T) {
	inLoggedTask(t, func(t *testing.T, co *loop.Coro, log *logBuffer) {
		const slow = "Executing *transport.recorder of <Stream open"
		co.Loop().SetSlowCallbackDuration(time.Nanosecond)
		for _, debug := range []bool{false, true} {
			co.Loop().SetDebug(debug)
			ended := loop.CreateFuture[struct{}](co.Loop())
			p := &recorder{keepOpen: true, onEOF: func() { check(t, ended.SetResult(struct{}{})) }}
			tr, theirs := joined(t, co, p)
			check(t, theirs.Shutdown(unix.SHUT_WR))
			_, err := ended.Await(co)
			check(t, err)
			if got := log.count(slow) > 0; got != debug {
				t.Errorf("debug %v: logged is %v", debug, got)
			}
			tr.Abort()
			check(t, p.untilLost(t, co))
			co.Loop().SetDebug(false)
		}
	})
}
