package loop_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/loop"
)

func ExampleRun() {
	err := loop.Run(func(co *loop.Coro) error {
		fmt.Println("hello")
		if err := loop.Sleep(co, time.Millisecond); err != nil {
			return err
		}
		fmt.Println("world")
		return nil
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// hello
	// world
}

func ExampleRunInExecutor() {
	err := loop.Run(func(co *loop.Coro) error {
		// Reading a file may block: it must not happen on the loop's thread.
		read := loop.RunInExecutor(co.Loop(), nil, func() ([]byte, error) {
			return os.ReadFile("example_parts_test.go")
		})
		b, err := read.Await(co)
		if err != nil {
			return err
		}
		line, _, _ := strings.Cut(string(b), "\n")
		fmt.Println(line)
		return nil
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output: package loop_test
}

func ExampleLoop_Getaddrinfo() {
	err := loop.Run(func(co *loop.Coro) error {
		infos, err := co.Loop().Getaddrinfo("::1", "8080", &loop.AddrInfoHints{Type: unix.SOCK_STREAM}).Await(co)
		if err != nil {
			return err
		}
		for _, ai := range infos {
			ip, _, _, _ := ai.Addr.IP()
			fmt.Println(ip)
		}
		return nil
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output: [::1]:8080
}

func ExampleLoop_AddReader() {
	fds := make([]int, 2)
	if err := unix.Pipe2(fds, unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		fmt.Println(err)
		return
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	err := loop.Run(func(co *loop.Coro) error {
		l := co.Loop()
		line := loop.CreateFuture[string](l)
		err := l.AddReader(fds[0], func() {
			buf := make([]byte, 64)
			n, err := unix.Read(fds[0], buf)
			if err != nil {
				_ = line.SetException(err)
				return
			}
			_ = line.SetResult(string(buf[:n]))
		})
		if err != nil {
			return err
		}
		if _, err := unix.Write(fds[1], []byte("through the pipe")); err != nil {
			return err
		}
		s, err := line.Await(co)
		fmt.Println(s)
		if _, rerr := l.RemoveReader(fds[0]); err == nil {
			err = rerr
		}
		return err
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output: through the pipe
}

func ExampleRunCoroutineThreadsafe() {
	l, err := loop.NewEventLoop()
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close()
	go func() {
		f := loop.RunCoroutineThreadsafe(l, func(co *loop.Coro) (int, error) {
			return 42, loop.Sleep(co, time.Millisecond)
		})
		fmt.Println(f.Result(context.Background()))
		if _, err := l.CallSoonThreadsafe(l.Stop); err != nil {
			fmt.Println(err)
		}
	}()
	if err := l.RunForever(); err != nil {
		fmt.Println(err)
	}
	// Output: 42 <nil>
}

func ExampleNewAsyncGen() {
	ticks := loop.NewAsyncGen(func(co *loop.Coro, yield func(int) error) error {
		for i := range 3 {
			if err := loop.Sleep(co, time.Millisecond); err != nil {
				return err
			}
			if err := yield(i); err != nil {
				return err
			}
		}
		return nil
	})
	err := loop.Run(func(co *loop.Coro) error {
		for {
			i, ok, err := ticks.Next(co)
			if !ok {
				return err
			}
			fmt.Println("tick", i)
		}
	})
	if err != nil {
		fmt.Println(err)
	}
	// Output:
	// tick 0
	// tick 1
	// tick 2
}
