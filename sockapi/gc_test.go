package sockapi

import (
	"bytes"
	"fmt"
	"io"
	"runtime"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/loop"
)

func TestShortLivedBuffersSurviveTheGarbageCollector(t *testing.T) {
	const pairs = 20
	rounds := 30
	if testing.Short() {
		rounds = 5
	}
	forEachBackend(t, func(t *testing.T, l *loop.Loop) {
		stop := collectGarbage()
		defer stop()
		run(t, l, func(co *loop.Coro) error {
			var tasks []*loop.Task[struct{}]
			for i := range pairs {
				a, b := pair(t, unix.SOCK_STREAM)
				tasks = append(tasks, echoFresh(co, b), spawn(co, func(co *loop.Coro) (struct{}, error) {
					for round := range rounds {
						if err := roundTripFresh(co, a, byte(i+round)); err != nil {
							return struct{}{}, err
						}
					}
					return struct{}{}, CloseWait(co, a)
				}))
			}
			for _, task := range tasks {
				if _, err := task.Await(co); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

// collectGarbage runs the garbage collector all the time until stop is called.
func collectGarbage() (stop func()) {
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
				runtime.GC()
			}
		}
	})
	return func() {
		close(done)
		wg.Wait()
	}
}

// echoFresh sends back what comes, each time with a new buffer.
func echoFresh(co *loop.Coro, s *Socket) *loop.Task[struct{}] {
	return spawn(co, func(co *loop.Coro) (struct{}, error) {
		for {
			p, err := Recv(co, s, 64<<10)
			if err == io.EOF {
				return struct{}{}, nil
			}
			if err != nil {
				return struct{}{}, err
			}
			if err := SendAllV(co, s, [][]byte{bytes.Clone(p[:len(p)/2]), bytes.Clone(p[len(p)/2:])}); err != nil {
				return struct{}{}, err
			}
		}
	})
}

// roundTripFresh sends and receives with new buffers, while another task that
// waits on the socket is cancelled.
func roundTripFresh(co *loop.Coro, s *Socket, mark byte) error {
	cancelled := spawn(co, func(co *loop.Coro) (int, error) { return RecvInto(co, s, make([]byte, 8000)) })
	if err := loop.Sleep(co, 0); err != nil {
		return err
	}
	cancelled.Cancel("")
	const size = 20000
	if err := SendAll(co, s, bytes.Repeat([]byte{mark}, size)); err != nil {
		return err
	}
	for got := 0; got < size; {
		p := make([]byte, size-got)
		n, err := RecvInto(co, s, p)
		if err != nil {
			return err
		}
		if i := bytes.IndexFunc(p[:n], func(r rune) bool { return r != rune(mark) }); i >= 0 && mark < 128 {
			return fmt.Errorf("byte %d is %d, want %d", got+i, p[i], mark)
		}
		got += n
	}
	return nil
}
