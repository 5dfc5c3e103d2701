// Package loop is the event loop: callbacks, timers, futures, tasks, and what
// asyncio's low-level API puts around them, on io_uring or on epoll.
//
// A [Loop] owns one goroutine, locked to one thread from the first run to
// Close. Every callback and every step of a task runs there, one at a time, so
// code on the loop needs no locks. One turn of the loop is, in this order: the
// callbacks that were queued before, the completions of I/O, the timers that
// are due; what these schedule waits for the next turn.
//
// A task is a function that runs on a coroutine of the loop's goroutine. Its
// first parameter is the [Coro], which every function that may wait takes:
//
//	t := loop.CreateTask(l, func(co *loop.Coro) (int, error) {
//		if err := loop.Sleep(co, time.Second); err != nil {
//			return 0, err
//		}
//		return 42, nil
//	}, nil)
//	n, err := loop.RunUntilComplete(l, t)
//
// Code in a task reads like blocking Go, and other tasks and callbacks run only
// where it waits. It must not block the thread for long, and it must not call
// runtime.LockOSThread and then wait: Go aborts the process.
//
// [Run] is the entry point of most programs: it makes a loop, runs a task on it
// and cleans up. [RunInExecutor] calls functions that block, [Loop.Getaddrinfo]
// resolves names, [Loop.AddReader] and [Loop.AddWriter] watch descriptors of
// other libraries, and [Loop.AddSignalHandler] handles signals.
//
// Unless its documentation says otherwise, a method may be called on the
// loop's thread and, while the loop does not run, from the goroutine that will
// run it. [Loop.CallSoonThreadsafe] and [RunCoroutineThreadsafe] are for all
// others.
package loop
