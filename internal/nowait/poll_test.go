package nowait

import (
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestPollTellsWhatIsReadyNow(t *testing.T) {
	fd, addr := bound(t, filepath.Join(t.TempDir(), "own"))
	if got := Poll(fd, unix.POLLIN|unix.POLLOUT); got != unix.POLLOUT {
		t.Errorf("with nothing to receive: %#x", got)
	}
	if got := Poll(fd, unix.POLLIN); got != 0 {
		t.Errorf("with nothing to receive, asked for that alone: %#x", got)
	}
	if _, errno := SendTo(fd, []byte("x"), addr); errno != 0 {
		t.Fatal(errno)
	}
	if got := Poll(fd, unix.POLLIN); got != unix.POLLIN {
		t.Errorf("with a packet: %#x", got)
	}
	if got := Poll(1<<30, unix.POLLIN); got != unix.POLLNVAL {
		t.Errorf("of what is not open: %#x", got)
	}
}
