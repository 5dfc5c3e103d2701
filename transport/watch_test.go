package transport

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/sockapi"
)

func TestTheDescriptorOfAnOpenStreamCannotBeWatched(t *testing.T) {
	for _, how := range []string{"Close", "Abort"} {
		inTask(t, func(t *testing.T, co *loop.Coro) {
			ours, theirs, err := sockapi.Pair(unix.SOCK_STREAM)
			if err != nil {
				t.Fatal(err)
			}
			defer theirs.Close()
			p := &streamDiary{}
			tr, _, err := CreateConnection(co, func() Protocol { return p }, "", "", &ConnectOptions{Sock: ours})
			if err != nil {
				t.Fatal(err)
			}
			l, fd := co.Loop(), int(tr.(*stream).fd)
			_, errReader := l.RemoveReader(fd)
			_, errWriter := l.RemoveWriter(fd)
			for what, err := range map[string]error{
				"AddReader": l.AddReader(fd, func() {}), "RemoveReader": errReader,
				"AddWriter": l.AddWriter(fd, func() {}), "RemoveWriter": errWriter,
			} {
				if !errors.Is(err, loop.ErrTransportFD) || !strings.Contains(err.Error(), tr.(*stream).String()) {
					t.Errorf("%s: %v", what, err)
				}
			}
			if how == "Close" {
				tr.Close()
			} else {
				tr.Abort()
			}
			if err := l.AddReader(fd, func() {}); err != nil {
				t.Errorf("AddReader after %s: %v", how, err)
			}
			if was, err := l.RemoveReader(fd); !was || err != nil {
				t.Errorf("RemoveReader after %s: %v, %v", how, was, err)
			}
		})
	}
}

// Who adopts a socket takes over from whoever watched it.
func TestAWatcherEndsWhenATransportAdoptsItsSocket(t *testing.T) {
	for kind, what := range map[int]string{unix.SOCK_STREAM: "stream", unix.SOCK_DGRAM: "datagram"} {
		t.Run(what, func(t *testing.T) {
			inTask(t, func(t *testing.T, co *loop.Coro) {
				l := co.Loop()
				ours, theirs, err := sockapi.Pair(kind)
				check(t, err)
				defer theirs.Close()
				fd := ours.Fd()
				watched := func() { t.Error("a watcher was called") }
				check(t, l.AddReader(fd, watched))
				check(t, l.AddWriter(fd, watched))
				p := &recorder{}
				var end func()
				if kind == unix.SOCK_STREAM {
					tr, _, err := CreateConnection(co, protocolOf(p), "", "", &ConnectOptions{Sock: ours})
					check(t, err)
					end = tr.Abort
				} else {
					tr, _, err := CreateDatagramEndpoint(co, func() DatagramProtocol { return &BaseDatagramProtocol{} }, &DatagramOptions{Sock: ours})
					check(t, err)
					end = tr.Abort
				}
				if err := l.AddReader(fd, watched); !errors.Is(err, loop.ErrTransportFD) {
					t.Errorf("AddReader: %v", err)
				}
				err = sockapi.SendAll(co, theirs, []byte("x"))
				check(t, err)
				turns(t, co)
				end()
				turns(t, co)
			})
		})
	}
}
