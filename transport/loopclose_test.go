package transport

import (
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
