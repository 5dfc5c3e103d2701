package transport

import (
	"runtime"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/epoll"
	"github.com/seed-80cfe818/ringloop/uring"
)

// newBackend makes a backend by its name.
func newBackend(name string) (backend.Backend, error) {
	if name == "epoll" {
		return epoll.New(nil)
	}
	return uring.New(nil)
}

// collect lets the garbage collector take everything that nobody refers to.
func collect() {
	runtime.GC()
	runtime.GC()
}
