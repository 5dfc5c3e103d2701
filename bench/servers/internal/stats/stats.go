// Package stats lets the benchmark ask a server written in Go how much it has
// allocated.
package stats

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"
)

// OnSignal prints the number of heap objects allocated so far, on a line of
// standard output, whenever the process gets SIGUSR1.
func OnSignal() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGUSR1)
	go func() {
		var m runtime.MemStats
		for range c {
			runtime.ReadMemStats(&m)
			fmt.Println(m.Mallocs)
		}
	}()
}
