package loop_test

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/seed-80cfe818/ringloop/loop"
)

// run runs fn as the main task of a new loop.
func run(fn func(co *loop.Coro) error) {
	if err := loop.Run(fn); err != nil {
		fmt.Println(err)
	}
}

// Two tasks wait at the same time, and a third for their results.
func ExampleCreateTask() {
	square := func(n int) *loop.Task[int] {
		l, _ := loop.RunningLoop()
		return loop.CreateTask(l, func(co *loop.Coro) (int, error) {
			if err := loop.Sleep(co, time.Millisecond); err != nil {
				return 0, err
			}
			return n * n, nil
		}, nil)
	}
	run(func(co *loop.Coro) error {
		three, four := square(3), square(4)
		a, err := three.Await(co)
		if err != nil {
			return err
		}
		b, err := four.Await(co)
		fmt.Println(a + b)
		return err
	})
	// Output: 25
}

// The task that waits sees its cancellation as an error.
func ExampleTask_Cancel() {
	run(func(co *loop.Coro) error {
		task := co.Loop().Go(func(co *loop.Coro) error {
			err := loop.Sleep(co, time.Hour)
			fmt.Println("the sleep ended:", err)
			return err
		})
		if err := loop.Sleep(co, 0); err != nil { // lets the task begin
			return err
		}
		task.Cancel("no time left")
		_, err := task.Await(co)
		fmt.Println(errors.Is(err, loop.ErrCancelled), task.Cancelled())
		return nil
	})
	// Output:
	// the sleep ended: cancelled: no time left
	// true true
}

// A callback completes what a task waits for.
func ExampleCreateFuture() {
	run(func(co *loop.Coro) error {
		f := loop.CreateFuture[string](co.Loop())
		f.AddDoneCallback(func(loop.AnyFuture) { fmt.Println("done") })
		_, err := co.Loop().CallLater(time.Millisecond, func() { _ = f.SetResult("the result") })
		if err != nil {
			return err
		}
		s, err := f.Await(co)
		fmt.Println(s)
		return err
	})
	// Output:
	// done
	// the result
}

// What a callback schedules runs on the next turn.
func ExampleLoop_CallSoon() {
	l, err := loop.NewEventLoop()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close()
	soon := func(fn func()) {
		if _, err := l.CallSoon(fn); err != nil {
			fmt.Println(err)
		}
	}
	soon(func() {
		fmt.Println("first")
		soon(func() {
			fmt.Println("on the next turn")
			l.Stop()
		})
	})
	soon(func() { fmt.Println("second") })
	if err := l.RunForever(); err != nil {
		fmt.Println(err)
	}
	// Output:
	// first
	// second
	// on the next turn
}

// Timers run in the order of their times; a cancelled one never does.
func ExampleLoop_CallLater() {
	run(func(co *loop.Coro) error {
		l := co.Loop()
		done := loop.CreateFuture[struct{}](l)
		print := func(s string) func() { return func() { fmt.Println(s) } }
		_, err1 := l.CallLater(20*time.Millisecond, func() { fmt.Println("later"); _ = done.SetResult(struct{}{}) })
		_, err2 := l.CallLater(time.Millisecond, print("sooner"))
		never, err3 := l.CallLater(2*time.Millisecond, print("never"))
		if err := errors.Join(err1, err2, err3); err != nil {
			return err
		}
		never.Cancel()
		_, err := done.Await(co)
		return err
	})
	// Output:
	// sooner
	// later
}

// A signal handler is a callback like any other.
func ExampleLoop_AddSignalHandler() {
	run(func(co *loop.Coro) error {
		l := co.Loop()
		hangUp := loop.CreateFuture[string](l)
		if err := l.AddSignalHandler(syscall.SIGHUP, func() { _ = hangUp.SetResult("reload") }); err != nil {
			return err
		}
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			return err
		}
		s, err := hangUp.Await(co)
		fmt.Println(s)
		if err != nil {
			return err
		}
		_, err = l.RemoveSignalHandler(syscall.SIGHUP)
		return err
	})
	// Output: reload
}

// Whatever fn waits for is cancelled when it takes too long.
func ExampleTimeout() {
	run(func(co *loop.Coro) error {
		err := loop.Timeout(co, time.Millisecond, func() error { return loop.Sleep(co, time.Hour) })
		fmt.Println(err)
		return nil
	})
	// Output: timed out after 1ms, waiting for a timer
}

// Panics of callbacks, and other errors that nobody waits for, go to the
// exception handler. The loop goes on.
func ExampleLoop_SetExceptionHandler() {
	run(func(co *loop.Coro) error {
		l := co.Loop()
		l.SetDebug(false) // it would add to the message where the callback comes from
		l.SetExceptionHandler(func(_ *loop.Loop, c *loop.ExceptionContext) {
			fmt.Printf("%s: %v\n", c.Message, c.Exception)
		})
		if _, err := l.CallSoon(func() { panic("oops") }); err != nil {
			return err
		}
		return loop.Sleep(co, time.Millisecond)
	})
	// Output: Exception in callback: panic: oops
}

// Each task runs in a copy of the context of the code that made it.
func ExampleNewContextVar() {
	user := loop.NewContextVar[string]("user")
	run(func(co *loop.Coro) error {
		l := co.Loop()
		user.Set(l.CurrentContext(), "root")
		task := l.Go(func(co *loop.Coro) error {
			name, _ := user.Get(l.CurrentContext())
			fmt.Println("the task inherits", name)
			user.Set(l.CurrentContext(), "nobody")
			return nil
		})
		if _, err := task.Await(co); err != nil {
			return err
		}
		name, _ := user.Get(l.CurrentContext())
		fmt.Println("its maker still has", name)
		return nil
	})
	// Output:
	// the task inherits root
	// its maker still has root
}

// A loop that is made by hand can be run many times, and says which backend it
// took, and why.
func ExampleNewEventLoop() {
	l, err := loop.NewEventLoop(loop.WithBackend("epoll"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close()
	for i := range 2 {
		n, err := loop.RunUntilComplete(l, loop.CreateTask(l, func(co *loop.Coro) (int, error) {
			return i, loop.Sleep(co, time.Millisecond)
		}, nil))
		fmt.Println(l.Backend().Name(), n, err)
	}
	// Output:
	// epoll 0 <nil>
	// epoll 1 <nil>
}
