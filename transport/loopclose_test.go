package transport

import (
	"fmt"
	"log/slog"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
)

// connectTo connects a blocking socket, which is closed when the test ends.
func connectTo(t *testing.T, addr Addr) {
	t.Helper()
	fd := ok[int](t)(unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0))
	t.Cleanup(func() { _ = unix.Close(fd) })
	check(t, unix.Connect(fd, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: [4]byte{127, 0, 0, 1}}))
}

// A loop that is closed delivers what its last run has found: a task goes on then,
// and closes a server for which there is a connection.
func TestAServerThatIsClosedWhileItsLoopIsClosedLeavesTheListenersOfOthersAlone(t *testing.T) {
	eachBackend(t, func(t *testing.T, name string) {
		l := ipcLoop(t, loop.WithBackend(name))
		others := ok[*sockapi.Socket](t)(sockapi.Listen("tcp4", "127.0.0.1:0", nil))
		t.Cleanup(func() { check(t, others.Close()) })
		connectTo(t, ok[Addr](t)(others.LocalAddr()))
		a, b, err := sockapi.Pair(unix.SOCK_STREAM)
		check(t, err)
		t.Cleanup(func() { check(t, a.Close()); check(t, b.Close()) })
		l.Go(func(co *loop.Coro) error {
			srv, _ := localServer(t, co, newEcho, nil)
			addr, fd := ok[Addr](t)(srv.Sockets()[0].LocalAddr()), srv.Sockets()[0].Fd()
			check(t, loop.Sleep(co, 0))
			_, _ = l.CallSoon(func() {
				l.Stop()
				_ = ok[int](t)(unix.Write(b.Fd(), []byte("x")))
				connectTo(t, addr)
			})
			_, err := sockapi.RecvInto(co, a, make([]byte, 1))
			srv.Close()
			same := ok[int](t)(unix.FcntlInt(uintptr(others.Fd()), unix.F_DUPFD_CLOEXEC, fd)) // has the number, if that is free
			t.Cleanup(func() { _ = unix.Close(same) })
			return err
		})
		check(t, l.RunForever())
		check(t, l.Close())
		if fd, _, err := unix.Accept4(others.Fd(), unix.SOCK_CLOEXEC); err != nil {
			t.Errorf("the connection of another listener: %v", err)
		} else {
			_ = unix.Close(fd)
		}
	})
}

// Closing is no wait, of which a task on a closed loop has only so many: the deferred
// function goes on to its end. It runs while the loop delivers what its last run has
// found, or when everything is over.
func TestATaskClosesAnyNumberOfTransportsWhileItsLoopIsClosed(t *testing.T) {
	for kind, open := range map[string]func(t *testing.T, co *loop.Coro) interface{ Close() }{
		"stream": func(t *testing.T, co *loop.Coro) interface{ Close() } {
			tr, _ := joined(t, co, &recorder{})
			return tr
		},
		"TLS": func(t *testing.T, co *loop.Coro) interface{ Close() } {
			tr, _ := secured(t, co, &recorder{}, serverTLS(), nil)
			return tr
		},
		"pipe": func(t *testing.T, co *loop.Coro) interface{ Close() } {
			r, w, err := os.Pipe()
			check(t, err)
			t.Cleanup(func() { _ = w.Close() })
			tr, _, err := ConnectReadPipe(co, protocolOf(&recorder{}), r)
			check(t, err)
			return tr
		},
	} {
		for _, found := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s found=%v", kind, found), func(t *testing.T) {
				eachBackend(t, func(t *testing.T, name string) {
					l := ipcLoop(t, loop.WithBackend(name), loop.WithLogger(slog.New(slog.DiscardHandler)))
					l.SetExceptionHandler(func(*loop.Loop, *loop.ExceptionContext) {}) // the task is pending
					a, b, err := sockapi.Pair(unix.SOCK_STREAM)
					check(t, err)
					t.Cleanup(func() { check(t, a.Close()); check(t, b.Close()) })
					const total = 101
					closed := 0
					l.Go(func(co *loop.Coro) error {
						var all []interface{ Close() }
						for range total {
							all = append(all, open(t, co))
						}
						_, _ = l.CallSoon(func() {
							l.Stop()
							if found {
								_ = ok[int](t)(unix.Write(b.Fd(), []byte("x")))
							}
						})
						defer func() {
							for _, tr := range all {
								tr.Close()
								closed++
							}
						}()
						_, err := sockapi.RecvInto(co, a, make([]byte, 1))
						return err
					})
					check(t, l.RunForever())
					check(t, l.Close())
					if closed != total {
						t.Errorf("only %d of %d were closed", closed, total)
					}
				})
			})
		}
	}
}
