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
