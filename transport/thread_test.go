package transport

import (
	"errors"
	"testing"

	"github.com/seed-80cfe818/ringloop/loop"
)

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
