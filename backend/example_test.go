package backend_test

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/epoll"
	"github.com/seed-80cfe818/ringloop/uring"
)

// reception is an operation with what is to be done when it has completed.
type reception struct {
	backend.Op
	text string
	err  error
}

func (r *reception) Complete(_ *backend.Op, res backend.Result) {
	r.text, r.err = string(res.Data), res.Err() // Data is borrowed: it is copied here
}

// receive waits for what arrives on fd.
func receive(b backend.Backend, fd int) (string, error) {
	r := &reception{Op: backend.Op{Code: backend.OpRecv, FD: int32(fd)}}
	r.Receiver = r
	if err := b.Submit(&r.Op); err != nil {
		return "", err
	}
	for r.InFlight() {
		if err := b.Wait(-1); err != nil {
			return "", err
		}
		b.Dispatch()
	}
	return r.text, r.err
}

// The smallest driver of a backend: submit, wait, dispatch.
func Example() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var b backend.Backend
	var err error
	if uring.Available() == nil {
		b, err = uring.New(nil)
	} else {
		b, err = epoll.New(nil)
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	defer b.Close()
	if err := b.Enable(); err != nil {
		fmt.Println(err)
		return
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	if _, err := unix.Write(fds[0], []byte("hello")); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(receive(b, fds[1]))
	// Output: hello <nil>
}
