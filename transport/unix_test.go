package transport

import (
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/internal/leaktest"
	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
)

// connectEcho checks that an echo server answers at path.
func connectEcho(t *testing.T, co *loop.Coro, path string) {
	t.Helper()
	p := &recorder{}
	tr, _, err := CreateUnixConnection(co, protocolOf(p), path, nil)
	check(t, err)
	check(t, tr.Write([]byte("hello")))
	p.untilData(t, co, "hello")
	tr.Close()
	check(t, p.untilLost(t, co))
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func TestAUnixServerEchoesAtAPathAndAtAnAbstractName(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		abstract := fmt.Sprintf("\x00ringloop-test-%d-%d", os.Getpid(), abstractNames.Add(1))
		for _, path := range []string{filepath.Join(t.TempDir(), "s"), abstract} {
			srv, err := CreateUnixServer(co, newEcho, path, nil)
			check(t, err)
			connectEcho(t, co, path)
			over(t, co, srv)
		}
	})
}

var abstractNames atomic.Int64

func TestAStaleSocketFileIsReplacedAndAnyOtherFileIsInTheWay(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		stale := filepath.Join(t.TempDir(), "stale")
		s := ok[*sockapi.Socket](t)(sockapi.New(unix.AF_UNIX, unix.SOCK_STREAM, 0))
		check(t, s.Bind(sockapi.UnixAddr(stale)))
		check(t, s.Close())
		srv, err := CreateUnixServer(co, newEcho, stale, nil)
		check(t, err)
		connectEcho(t, co, stale)
		over(t, co, srv)

		file := filepath.Join(t.TempDir(), "file")
		check(t, os.WriteFile(file, []byte("precious"), 0o600))
		_, err = CreateUnixServer(co, newEcho, file, nil)
		if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), file) {
			t.Errorf("over a regular file: %v", err)
		}
		if b, err := os.ReadFile(file); string(b) != "precious" {
			t.Errorf("the file has %q, %v", b, err)
		}
	})
}

func TestTheSocketFileIsRemovedUnlessItIsAnothersOrCleanupIsOff(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		path := filepath.Join(t.TempDir(), "s")
		supplied := func(o UnixServerOptions) *Server {
			o.Sock = ok[*sockapi.Socket](t)(sockapi.New(unix.AF_UNIX, unix.SOCK_STREAM, 0))
			check(t, o.Sock.Bind(sockapi.UnixAddr(path)))
			return ok[*Server](t)(CreateUnixServer(co, newEcho, "", &o))
		}
		own := func(o UnixServerOptions) *Server {
			return ok[*Server](t)(CreateUnixServer(co, newEcho, path, &o))
		}
		for whose, make := range map[string]func(UnixServerOptions) *Server{"own": own, "supplied": supplied} {
			srv := make(UnixServerOptions{})
			connectEcho(t, co, path)
			over(t, co, srv)
			if exists(path) {
				t.Errorf("%s socket: the file is left behind", whose)
			}

			srv = make(UnixServerOptions{})
			check(t, os.Remove(path))
			check(t, os.WriteFile(path, nil, 0o600))
			over(t, co, srv)
			if !exists(path) {
				t.Errorf("%s socket: a file that is another's was removed", whose)
			}
			check(t, os.Remove(path))

			srv = make(UnixServerOptions{})
			check(t, os.Remove(path))
			over(t, co, srv)

			over(t, co, make(UnixServerOptions{NoCleanup: true}))
			if !exists(path) {
				t.Errorf("%s socket: the file was removed although cleanup is off", whose)
			}
			check(t, os.Remove(path))
		}
	})
}

func TestASecondServerTakesThePathOver(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		path := filepath.Join(t.TempDir(), "s")
		first := ok[*Server](t)(CreateUnixServer(co, newEcho, path, nil))
		second := ok[*Server](t)(CreateUnixServer(co, newEcho, path, nil))
		over(t, co, first)
		if !exists(path) {
			t.Error("closing the first server removed the file of the second")
		}
		connectEcho(t, co, path)
		over(t, co, second)
	})
}

func TestUnixConnectErrorsNameThePath(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		dir := t.TempDir()
		before := openFDs(t)
		missing := filepath.Join(dir, "missing")
		_, _, err := CreateUnixConnection(co, mustNotCall(t), missing, nil)
		if !errors.Is(err, syscall.ENOENT) || !strings.Contains(err.Error(), missing) {
			t.Errorf("no such path: %v", err)
		}
		dead := filepath.Join(dir, "dead")
		s := ok[*sockapi.Socket](t)(sockapi.New(unix.AF_UNIX, unix.SOCK_STREAM, 0))
		check(t, s.Bind(sockapi.UnixAddr(dead)))
		check(t, s.Close())
		_, _, err = CreateUnixConnection(co, mustNotCall(t), dead, nil)
		if !errors.Is(err, syscall.ECONNREFUSED) || !strings.Contains(err.Error(), dead) {
			t.Errorf("nobody listens: %v", err)
		}
		_, _, err = CreateUnixConnection(co, mustNotCall(t), dir+strings.Repeat("/long", 40), nil)
		if !errors.Is(err, syscall.ENAMETOOLONG) {
			t.Errorf("a path that is too long: %v", err)
		}
		until(t, co, "the sockets are closed", func() bool { return openFDs(t) <= before })
	})
}

// A file that is gone is no problem. Of another one nobody would know without the log,
// and the server is closed all the same.
func TestASocketFileThatCannotBeRemovedIsLogged(t *testing.T) {
	inLoggedTask(t, func(t *testing.T, co *loop.Coro, log *logBuffer) {
		before := must2(leaktest.FDs())(t)
		dir := filepath.Join(t.TempDir(), "dir")
		for _, inTheWay := range []bool{false, true} {
			check(t, os.Mkdir(dir, 0o700))
			srv := ok[*Server](t)(CreateUnixServer(co, newEcho, filepath.Join(dir, "s"), nil))
			check(t, os.RemoveAll(dir))
			if inTheWay {
				check(t, os.WriteFile(dir, nil, 0o600))
			}
			over(t, co, srv)
			if logged := log.count("unable to remove the unix socket") > 0; logged != inTheWay {
				t.Errorf("a file in place of the directory: %v, logged: %v", inTheWay, logged)
			}
		}
		noNewFDs(t, co, before)
	})
}

func TestAFullBacklogIsNeverASuccess(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		path := filepath.Join(t.TempDir(), "s")
		listener := ok[*sockapi.Socket](t)(sockapi.New(unix.AF_UNIX, unix.SOCK_STREAM, 0))
		defer listener.Close()
		check(t, listener.Bind(sockapi.UnixAddr(path)))
		check(t, listener.Listen(0))
		first := &recorder{}
		tr, _, err := CreateUnixConnection(co, protocolOf(first), path, nil)
		check(t, err)
		_, _, err = CreateUnixConnection(co, mustNotCall(t), path, nil)
		if !errors.Is(err, syscall.EAGAIN) {
			t.Errorf("with a full backlog: %v", err)
		}
		tr.Abort()
		check(t, first.untilLost(t, co))
	})
}

func TestWrongArgumentsOfUnixConnectionsAndServersAreRefused(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		path := filepath.Join(t.TempDir(), "s")
		socket := func(family, typ int) *sockapi.Socket {
			s := ok[*sockapi.Socket](t)(sockapi.New(family, typ, 0))
			t.Cleanup(func() { _ = s.Close() })
			return s
		}
		inet, dgram, good := socket(unix.AF_INET, unix.SOCK_STREAM), socket(unix.AF_UNIX, unix.SOCK_DGRAM), socket(unix.AF_UNIX, unix.SOCK_STREAM)
		config := &tls.Config{}
		for _, c := range []struct {
			what, path string
			o          UnixConnectOptions
		}{
			{"neither path nor socket", "", UnixConnectOptions{}},
			{"path and socket", path, UnixConnectOptions{Sock: good}},
			{"internet socket", "", UnixConnectOptions{Sock: inet}},
			{"datagram socket", "", UnixConnectOptions{Sock: dgram}},
			{"TLS without a name", path, UnixConnectOptions{TLS: config}},
			{"a name without TLS", path, UnixConnectOptions{ServerHostname: "x"}},
			{"timeout without TLS", path, UnixConnectOptions{HandshakeTimeout: time.Second}},
			{"shutdown timeout without TLS", path, UnixConnectOptions{ShutdownTimeout: time.Second}},
			{"any name without TLS", path, UnixConnectOptions{AnyHostname: true}},
			{"negative timeout", path, UnixConnectOptions{TLS: config, AnyHostname: true, HandshakeTimeout: -1}},
		} {
			if _, _, err := CreateUnixConnection(co, mustNotCall(t), c.path, &c.o); !errors.Is(err, loop.ErrInvalidArgument) {
				t.Errorf("connection, %s: %v", c.what, err)
			}
		}
		for _, c := range []struct {
			what, path string
			o          UnixServerOptions
		}{
			{"neither path nor socket", "", UnixServerOptions{}},
			{"path and socket", path, UnixServerOptions{Sock: good}},
			{"internet socket", "", UnixServerOptions{Sock: inet}},
			{"datagram socket", "", UnixServerOptions{Sock: dgram}},
			{"timeout without TLS", path, UnixServerOptions{HandshakeTimeout: time.Second}},
			{"shutdown timeout without TLS", path, UnixServerOptions{ShutdownTimeout: time.Second}},
			{"negative backlog", path, UnixServerOptions{Backlog: -1}},
		} {
			if _, err := CreateUnixServer(co, mustNotCall(t), c.path, &c.o); !errors.Is(err, loop.ErrInvalidArgument) {
				t.Errorf("server, %s: %v", c.what, err)
			}
		}
		unbound := socket(unix.AF_UNIX, unix.SOCK_STREAM)
		_, err := CreateUnixServer(co, mustNotCall(t), "", &UnixServerOptions{Sock: unbound})
		if !errors.Is(err, syscall.EINVAL) || !strings.HasPrefix(err.Error(), "create unix server: listen on") {
			t.Errorf("server, a socket without a name: %v", err)
		}
		if exists(path) {
			t.Error("a refused call made the file")
		}
	})
}

func TestNamesOfUnixConnections(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		path := filepath.Join(t.TempDir(), "s")
		onServer := &recorder{}
		srv, err := CreateUnixServer(co, protocolOf(onServer), path, nil)
		check(t, err)
		p := &recorder{}
		tr, _, err := CreateUnixConnection(co, protocolOf(p), path, nil)
		check(t, err)
		tr.Close()
		check(t, p.untilLost(t, co))
		check(t, onServer.untilLost(t, co))
		if peer, _ := tr.ExtraInfo(ExtraPeerName); peer != sockapi.UnixAddr(path) {
			t.Errorf("the client's peername is %v", peer)
		}
		if local, _ := onServer.t.ExtraInfo(ExtraSockName); local != sockapi.UnixAddr(path) {
			t.Errorf("the server's sockname is %v", local)
		}
		over(t, co, srv)
	})
}

func TestAnAbstractNameIsFreeAsSoonAsItsServerIsClosed(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		name := fmt.Sprintf("\x00ringloop-test-%d-%s", os.Getpid(), t.Name())
		for range 3 {
			srv, err := CreateUnixServer(co, newEcho, name, nil)
			check(t, err)
			srv.Close()
		}
	})
}

func TestCancellingAUnixServerClosesTheSocketItWasGiven(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		before := must2(leaktest.FDs())(t)
		first := ok[*Server](t)(CreateUnixServer(co, newEcho, filepath.Join(t.TempDir(), "first"), nil))
		sock := ok[*sockapi.Socket](t)(sockapi.New(unix.AF_UNIX, unix.SOCK_STREAM, 0))
		check(t, sock.Bind(sockapi.UnixAddr(filepath.Join(t.TempDir(), "second"))))
		first.Close() // which takes a turn
		task := co.Loop().Go(func(co *loop.Coro) error {
			co.Task().Cancel("")
			_, err := CreateUnixServer(co, newEcho, "", &UnixServerOptions{Sock: sock})
			return err
		})
		if _, err := task.Await(co); !errors.Is(err, loop.ErrCancelled) || sock.Fd() != -1 {
			t.Errorf("%v, and the socket is %v", err, sock)
		}
		noNewFDs(t, co, before)
	})
}
