package transport

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/loop"
)

// openPTY returns the two sides of a new pseudo-terminal that passes bytes on
// as they are.
func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	master = os.NewFile(uintptr(fd), "master")
	slave = must2(os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0))(t)
	t.Cleanup(func() {
		_ = master.Close()
		_ = slave.Close()
	})
	err = onFD(slave, func(fd int) error {
		term, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err != nil {
			return err
		}
		term.Lflag &^= unix.ECHO | unix.ICANON | unix.ISIG
		term.Oflag &^= unix.OPOST
		term.Iflag &^= unix.ICRNL
		return unix.IoctlSetTermios(fd, unix.TCSETS, term)
	})
	if err != nil {
		t.Fatal(err)
	}
	return master, slave
}

// again returns another file of the same terminal.
func again(t *testing.T, f *os.File) *os.File {
	t.Helper()
	fd, err := duplicateFile(f)
	if err != nil {
		t.Fatal(err)
	}
	return os.NewFile(uintptr(fd), f.Name())
}

func TestTheOutputOfAPseudoTerminalIsRead(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		master, slave := openPTY(t)
		p := &streamDiary{}
		readPipeOf(t, co, p, master)
		writeString(t, slave, "1")
		p.untilData(t, co, "1")
		writeString(t, slave, "2345")
		p.untilData(t, co, "12345")
		closeFile(t, slave)
		// The kernel says EIO here. It is not reported: see inTask.
		if err := p.untilLost(t, co); !errors.Is(err, syscall.EIO) {
			t.Errorf("lost with %v", err)
		}
		p.want(t, "made", "lost")
	})
}

func TestAPseudoTerminalIsWritten(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		master, slave := openPTY(t)
		p := &streamDiary{}
		tr := writePipeOf(t, co, p, slave)
		if err := tr.Write([]byte("12345")); err != nil {
			t.Fatal(err)
		}
		q := &streamDiary{}
		in := readPipeOf(t, co, q, master)
		q.untilData(t, co, "12345")
		tr.Close()
		if err := p.untilLost(t, co); err != nil {
			t.Errorf("lost with %v", err)
		}
		p.want(t, "made", "lost")
		in.Close()
		q.untilLost(t, co)
	})
}

func TestAPseudoTerminalWorksInBothDirectionsAtOnce(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		master, slave := openPTY(t)
		masterIn, slaveIn := again(t, master), again(t, slave)
		out, back := &streamDiary{}, &streamDiary{}
		w := writePipeOf(t, co, out, slave)
		r := readPipeOf(t, co, back, slaveIn)
		mOut, mIn := &streamDiary{}, &streamDiary{}
		mw := writePipeOf(t, co, mOut, master)
		mr := readPipeOf(t, co, mIn, masterIn)
		total := 0
		for i := range 100 {
			line := fmt.Sprintf("line %d\n", i)
			total += len(line)
			if err := errors.Join(w.Write([]byte(line)), mw.Write([]byte(line))); err != nil {
				t.Fatal(err)
			}
			if err := loop.Sleep(co, 0); err != nil {
				t.Fatal(err)
			}
		}
		until(t, co, "all lines arrive", func() bool { return mIn.data.Len() >= total && back.data.Len() >= total })
		if !slices.Equal(mIn.data.Bytes(), back.data.Bytes()) || mIn.data.Len() != total {
			t.Errorf("%d and %d bytes", mIn.data.Len(), back.data.Len())
		}
		for _, tr := range []Transport{r, w, mr, mw} {
			tr.Close()
		}
		for _, p := range []*streamDiary{out, back, mOut, mIn} {
			if err := p.untilLost(t, co); err != nil {
				t.Errorf("lost with %v", err)
			}
			p.want(t, "made", "lost")
		}
	})
}

func TestATerminalThatSomebodyMadeBlockingKeepsNobodyWaiting(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		for _, side := range []string{"master", "slave"} {
			w, r := openPTY(t)
			if side == "slave" {
				w, r = r, w
			}
			in, out := &streamDiary{}, &streamDiary{}
			tr := writePipeOf(t, co, out, w)
			check(t, onFD(w, func(fd int) error { return unix.SetNonblock(fd, false) }))
			data := bytes.Repeat([]byte("0123456789"), 20_000)
			check(t, tr.Write(data[:60_000])) // less than the high water mark
			turns(t, co)
			check(t, tr.Write(data[60_000:]))
			back := readPipeOf(t, co, in, r)
			until(t, co, "everything arrives", func() bool { return in.data.Len() >= len(data) })
			if !bytes.Equal(in.data.Bytes(), data) {
				t.Errorf("%s: got %d other bytes", side, in.data.Len())
			}
			tr.Close()
			out.untilLost(t, co)
			back.Close()
			in.untilLost(t, co)
		}
	})
}
