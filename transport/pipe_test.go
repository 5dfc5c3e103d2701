package transport

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/internal/leaktest"
	"github.com/seed-80cfe818/ringloop/loop"
)

// readPipeOf connects a file for reading.
func readPipeOf(t *testing.T, co *loop.Coro, p Protocol, f *os.File) Transport {
	t.Helper()
	tr, got, err := ConnectReadPipe(co, func() Protocol { return p }, f)
	if err != nil {
		t.Fatal(err)
	}
	if got != p || tr.Protocol() != p || !tr.IsReading() || tr.Loop() != co.Loop() {
		t.Error("the transport does not look right")
	}
	return tr
}

// writePipeOf connects a file for writing.
func writePipeOf(t *testing.T, co *loop.Coro, p Protocol, f *os.File) Transport {
	t.Helper()
	tr, got, err := ConnectWritePipe(co, func() Protocol { return p }, f)
	if err != nil {
		t.Fatal(err)
	}
	if got != p || tr.Protocol() != p || tr.IsReading() {
		t.Error("the transport does not look right")
	}
	return tr
}

func writeString(t *testing.T, f io.Writer, s string) {
	t.Helper()
	if _, err := io.WriteString(f, s); err != nil {
		t.Fatal(err)
	}
}

func closeFile(t *testing.T, c io.Closer) {
	t.Helper()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

// socketFiles makes two connected Unix stream sockets.
func socketFiles(t *testing.T) (a, b *os.File) {
	t.Helper()
	return unixFiles(t, unix.SOCK_STREAM)
}

// unixFiles makes two connected Unix sockets of a type.
func unixFiles(t *testing.T, typ int) (a, b *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	check(t, err)
	return filesOf(t, fds, "socket")
}

// filesOf makes files of two descriptors, until the test ends.
func filesOf(t *testing.T, fds [2]int, kind string) (a, b *os.File) {
	t.Helper()
	a, b = os.NewFile(uintptr(fds[0]), kind+" a"), os.NewFile(uintptr(fds[1]), kind+" b")
	t.Cleanup(func() {
		_ = a.Close()
		_ = b.Close()
	})
	return a, b
}

// fifo makes a FIFO and opens both ends.
func fifo(t *testing.T) (r, w *os.File) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "fifo")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	r = must2(os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0))(t)
	w = must2(os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK, 0))(t)
	t.Cleanup(func() {
		_ = r.Close()
		_ = w.Close()
	})
	return r, w
}

// eachPipe runs a test with every kind of pipe that reports its end.
func eachPipe(t *testing.T, test func(t *testing.T, co *loop.Coro, r, w *os.File)) {
	t.Helper()
	inTask(t, func(t *testing.T, co *loop.Coro) {
		for _, kind := range []struct {
			name string
			open func(t *testing.T) (r, w *os.File)
		}{{"pipe", osPipe}, {"fifo", fifo}, {"socket", socketFiles}} {
			r, w := kind.open(t)
			test(t, co, r, w)
			if t.Failed() {
				t.Fatalf("failed with a %s", kind.name)
			}
		}
	})
}

func TestAReadPipeDeliversDataThenTheEndThenLost(t *testing.T) {
	eachPipe(t, func(t *testing.T, co *loop.Coro, r, w *os.File) {
		p := &streamDiary{}
		tr := readPipeOf(t, co, p, r)
		if v, ok := tr.ExtraInfo("pipe"); !ok || v != any(r) {
			t.Errorf("ExtraInfo: %v, %v", v, ok)
		}
		writeString(t, w, "1")
		p.untilData(t, co, "1")
		writeString(t, w, "2345")
		p.untilData(t, co, "12345")
		closeFile(t, w)
		if err := p.untilLost(t, co); err != nil {
			t.Errorf("lost with %v", err)
		}
		p.want(t, "made", "eof", "lost")
		until(t, co, "the file is closed", func() bool { return errors.Is(r.Close(), os.ErrClosed) })
		if tr.Protocol() != nil || !tr.IsClosing() || tr.IsReading() {
			t.Error("the transport does not look closed")
		}
	})
}

func TestAWritePipeWritesInOrderAndCloseFlushes(t *testing.T) {
	eachPipe(t, func(t *testing.T, co *loop.Coro, r, w *os.File) {
		p := &streamDiary{}
		tr := writePipeOf(t, co, p, w)
		if v, ok := tr.ExtraInfo("pipe"); !ok || v != any(w) || !tr.CanWriteEOF() {
			t.Errorf("ExtraInfo: %v, %v", v, ok)
		}
		mine := []byte("12")
		if err := errors.Join(tr.Write(mine), tr.Write(nil), tr.Writelines([][]byte{[]byte("34"), nil, []byte("5")})); err != nil {
			t.Fatal(err)
		}
		clear(mine)
		if n := tr.WriteBufferSize(); n != 5 {
			t.Errorf("%d bytes are buffered", n)
		}
		tr.Close()
		if len(p.events) != 1 {
			t.Error("a callback from inside Close")
		}
		p.untilLost(t, co)
		p.want(t, "made", "lost")
		until(t, co, "the file is closed", func() bool { return errors.Is(w.Close(), os.ErrClosed) })
		if got := readToEnd(t, co, r); string(got) != "12345" || p.err != nil {
			t.Errorf("the reader got %q, lost with %v", got, p.err)
		}
	})
}

func TestAWritePipeNoticesThatTheReaderWentAway(t *testing.T) {
	eachPipe(t, func(t *testing.T, co *loop.Coro, r, w *os.File) {
		p := &streamDiary{}
		tr := writePipeOf(t, co, p, w)
		if err := tr.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		until(t, co, "it is written", func() bool { return tr.WriteBufferSize() == 0 })
		closeFile(t, r)
		if err := p.untilLost(t, co); err != nil {
			t.Errorf("lost with %v", err)
		}
		p.want(t, "made", "lost")
	})
}

// fill writes to a transport until the kernel takes no more and the protocol is
// paused.
func fill(t *testing.T, tr Transport, p *streamDiary) {
	t.Helper()
	if err := tr.Write(make([]byte, 4<<20)); err != nil {
		t.Fatal(err)
	}
	p.want(t, "made", "pause")
}

func TestAWritePipeIsPausedOnlyForWhatTheKernelDoesNotTake(t *testing.T) {
	eachPipe(t, func(t *testing.T, co *loop.Coro, r, w *os.File) {
		p := &streamDiary{}
		tr := writePipeOf(t, co, p, w)
		check(t, tr.Write([]byte("ab")))
		check(t, tr.SetWriteBufferLimits(0, 0))
		check(t, tr.Write([]byte("c")))
		check(t, tr.Writelines([][]byte{[]byte("d"), []byte("e")}))
		p.want(t, "made")
		if n := tr.WriteBufferSize(); n != 0 {
			t.Errorf("%d bytes are buffered", n)
		}
		tr.Close()
		if got := readToEnd(t, co, r); string(got) != "abcde" {
			t.Errorf("the reader got %q", got)
		}
		p.untilLost(t, co)
		p.want(t, "made", "lost")
	})
}

func TestAWritePipeThatSomebodyMadeBlockingKeepsNobodyWaiting(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		r, w := osPipe(t)
		p := &streamDiary{}
		tr := writePipeOf(t, co, p, w)
		check(t, onFD(w, func(fd int) error { return unix.SetNonblock(fd, false) }))
		fill(t, tr, p)
		turns(t, co)
		tr.Close()
		if got := readToEnd(t, co, r); len(got) != 4<<20 {
			t.Errorf("the reader got %d bytes", len(got))
		}
		p.untilLost(t, co)
	})
}

func TestAWritePipeNoticesItEvenWithAFullBufferAndAPausedProtocol(t *testing.T) {
	eachPipe(t, func(t *testing.T, co *loop.Coro, r, w *os.File) {
		p := &streamDiary{}
		tr := writePipeOf(t, co, p, w)
		fill(t, tr, p)
		turns(t, co)
		closeFile(t, r)
		if err := p.untilLost(t, co); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("lost with %v", err)
		}
		p.want(t, "made", "pause", "lost")
	})
}

func TestAReaderThatGoesAwayDuringAFlushIsTheErrorOfClose(t *testing.T) {
	eachPipe(t, func(t *testing.T, co *loop.Coro, r, w *os.File) {
		p := &streamDiary{}
		tr := writePipeOf(t, co, p, w)
		fill(t, tr, p)
		tr.Close()
		closeFile(t, r)
		if err := p.untilLost(t, co); !errors.Is(err, syscall.EPIPE) || !strings.Contains(err.Error(), w.Name()) {
			t.Errorf("lost with %v", err)
		}
	})
}

func TestWriteEOFOnAPipeIsCloseAfterTheFlush(t *testing.T) {
	eachPipe(t, func(t *testing.T, co *loop.Coro, r, w *os.File) {
		p := &streamDiary{}
		tr := writePipeOf(t, co, p, w)
		fill(t, tr, p)
		if err := errors.Join(tr.WriteEOF(), tr.WriteEOF()); err != nil {
			t.Fatal(err)
		}
		if !tr.IsClosing() || tr.WriteBufferSize() == 0 || p.lost {
			t.Error("not closing, or nothing left to flush")
		}
		in := &streamDiary{}
		readPipeOf(t, co, in, r)
		p.untilLost(t, co)
		in.untilLost(t, co)
		if in.data.Len() != 4<<20 || p.err != nil {
			t.Errorf("the reader got %d bytes, lost with %v", in.data.Len(), p.err)
		}
		p.want(t, "made", "pause", "resume", "lost")
	})
}

// readToEnd reads until the last writer has closed the pipe, and lets the loop
// go on meanwhile: it is the loop that closes the transport's end.
func readToEnd(t *testing.T, co *loop.Coro, r *os.File) (all []byte) {
	t.Helper()
	elsewhere(t, co, func() (err error) {
		all, err = io.ReadAll(r)
		return err
	})()
	return all
}

func TestAbortOfAWritePipeDropsTheBuffer(t *testing.T) {
	eachPipe(t, func(t *testing.T, co *loop.Coro, r, w *os.File) {
		p := &streamDiary{}
		tr := writePipeOf(t, co, p, w)
		fill(t, tr, p)
		tr.Close()
		tr.Abort()
		tr.Abort()
		if tr.WriteBufferSize() != 0 || p.lost {
			t.Error("the buffer is not empty, or a callback from inside Abort")
		}
		if err := loop.Sleep(co, 0); err != nil {
			t.Fatal(err)
		}
		p.want(t, "made", "pause", "lost")
		if p.err != nil {
			t.Errorf("lost with %v", p.err)
		}
		until(t, co, "the file is closed", func() bool { return errors.Is(w.Close(), os.ErrClosed) })
		if got := readToEnd(t, co, r); len(got) >= 4<<20 {
			t.Error("everything was written")
		}
	})
}

func TestWritingToAClosedPipeIsDroppedAndWarnedAboutFromTheFifthTime(t *testing.T) {
	inLoggedTask(t, func(t *testing.T, co *loop.Coro, log *logBuffer) {
		r, w := osPipe(t)
		p := &streamDiary{}
		tr := writePipeOf(t, co, p, w)
		tr.Close()
		for n := 1; n <= 6; n++ {
			if err := errors.Join(tr.Write([]byte("x")), tr.Write(nil)); err != nil {
				t.Error(err)
			}
			if n == 3 {
				p.untilLost(t, co)
			}
			if want := max(0, n-4); log.count("dropping") != want {
				t.Errorf("%d warnings after %d writes, want %d", log.count("dropping"), n, want)
			}
		}
		if err := tr.Writelines([][]byte{[]byte("x")}); err != nil || tr.WriteBufferSize() != 0 {
			t.Errorf("Writelines: %v, %d bytes buffered", err, tr.WriteBufferSize())
		}
		until(t, co, "the file is closed", func() bool { return errors.Is(w.Close(), os.ErrClosed) })
		if got := readToEnd(t, co, r); len(got) != 0 {
			t.Errorf("the reader got %q", got)
		}
	})
}

func TestAPausedReadPipeDeliversNothingAndNoEnd(t *testing.T) {
	eachPipe(t, func(t *testing.T, co *loop.Coro, r, w *os.File) {
		p := &streamDiary{}
		p.onMade = func() { _ = p.t.PauseReading() }
		tr, _, err := ConnectReadPipe(co, func() Protocol { return p }, r)
		if err != nil {
			t.Fatal(err)
		}
		writeString(t, w, "parked")
		for range 5 {
			if err := loop.Sleep(co, 0); err != nil {
				t.Fatal(err)
			}
		}
		if tr.IsReading() || p.data.Len() != 0 {
			t.Error("reading while paused")
		}
		p.onData = func([]byte) { _ = tr.PauseReading() }
		if err := tr.ResumeReading(); err != nil {
			t.Fatal(err)
		}
		if p.data.Len() != 0 {
			t.Error("data from inside ResumeReading")
		}
		p.untilData(t, co, "parked")
		closeFile(t, w)
		for range 5 {
			if err := loop.Sleep(co, 0); err != nil {
				t.Fatal(err)
			}
		}
		p.want(t, "made")
		if err := errors.Join(tr.ResumeReading(), tr.ResumeReading()); err != nil {
			t.Fatal(err)
		}
		p.untilLost(t, co)
		p.want(t, "made", "eof", "lost")
	})
}

func TestPausingWhileAReadIsInFlightKeepsWhatItBrings(t *testing.T) {
	eachPipe(t, func(t *testing.T, co *loop.Coro, r, w *os.File) {
		p := &streamDiary{}
		tr := readPipeOf(t, co, p, r)
		if err := tr.PauseReading(); err != nil {
			t.Fatal(err)
		}
		writeString(t, w, "in order")
		for range 5 {
			if err := loop.Sleep(co, 0); err != nil {
				t.Fatal(err)
			}
		}
		if p.data.Len() != 0 {
			t.Errorf("got %q while paused", p.data.String())
		}
		writeString(t, w, ", all of it")
		if err := tr.ResumeReading(); err != nil {
			t.Fatal(err)
		}
		p.untilData(t, co, "in order, all of it")
		tr.Close()
		p.untilLost(t, co)
		p.want(t, "made", "lost")
	})
}

// A program may let a child have its standard input, and pause its own reading
// meanwhile.
func TestWhatComesWhileAReadPipeIsPausedIsForWhoElseReadsIt(t *testing.T) {
	eachPipe(t, func(t *testing.T, co *loop.Coro, r, w *os.File) {
		other := must2(duplicateFile(r))(t)
		defer func() { check(t, unix.Close(other)) }()
		p := &streamDiary{}
		tr := readPipeOf(t, co, p, r)
		writeString(t, w, "mine,")
		p.untilData(t, co, "mine,")
		check(t, tr.PauseReading())
		turns := func() {
			for range 5 {
				check(t, loop.Sleep(co, 0))
			}
		}
		turns()
		writeString(t, w, "yours")
		turns()
		buf := make([]byte, 10)
		if n, err := unix.Read(other, buf); string(buf[:max(n, 0)]) != "yours" {
			t.Errorf("the other reader got %d, %v", n, err)
		}
		check(t, tr.ResumeReading())
		writeString(t, w, " mine again")
		p.untilData(t, co, "mine, mine again")
		tr.Close()
		p.untilLost(t, co)
	})
}

func TestNothingIsDeliveredAfterCloseOfAReadPipe(t *testing.T) {
	eachPipe(t, func(t *testing.T, co *loop.Coro, r, w *os.File) {
		p := &streamDiary{}
		tr := readPipeOf(t, co, p, r)
		writeString(t, w, "too late")
		tr.Close()
		tr.Abort()
		if p.lost || tr.IsReading() {
			t.Error("a callback from inside Close, or still reading")
		}
		p.untilLost(t, co)
		if p.data.Len() != 0 {
			t.Errorf("got %q", p.data.String())
		}
		p.want(t, "made", "lost")
		if err := errors.Join(tr.PauseReading(), tr.ResumeReading()); err != nil {
			t.Error(err)
		}
	})
}

// bufferProtocol receives into memory of its own.
type bufferProtocol struct {
	streamDiary
	buf   []byte
	empty bool
	got   bytes.Buffer
	onGet func()
}

func (p *bufferProtocol) GetBuffer(int) []byte {
	if p.onGet != nil {
		p.onGet()
	}
	if p.empty {
		return nil
	}
	return p.buf
}

func (p *bufferProtocol) BufferUpdated(n int) { p.got.Write(p.buf[:n]) }

func TestABufferedProtocolReceivesAPipeIntoItsOwnMemory(t *testing.T) {
	eachPipe(t, func(t *testing.T, co *loop.Coro, r, w *os.File) {
		p := &bufferProtocol{buf: make([]byte, 4)}
		readPipeOf(t, co, p, r)
		writeString(t, w, "more than the buffer")
		closeFile(t, w)
		p.untilLost(t, co)
		if p.got.String() != "more than the buffer" || p.data.Len() != 0 {
			t.Errorf("got %q, and %q by DataReceived", p.got.String(), p.data.String())
		}
		p.want(t, "made", "eof", "lost")
	})
}

func TestAnEmptyBufferIsReportedAndClosesThePipe(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		all := reports(co)
		r, w := osPipe(t)
		p := &bufferProtocol{empty: true}
		if _, _, err := ConnectReadPipe(co, func() Protocol { return p }, r); err != nil {
			t.Fatal(err)
		}
		writeString(t, w, "x")
		if err := p.untilLost(t, co); !errors.Is(err, loop.ErrInvalidArgument) {
			t.Errorf("lost with %v", err)
		}
		if len(*all) != 1 || (*all)[0].Protocol != any(p) {
			t.Errorf("%d reports", len(*all))
		}
	})
}

func TestTheMemoryOfABufferedProtocolIsItsOwnAgainWhenThePipeIsLost(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		r, w := osPipe(t)
		defer again(t, r).Close() // so that writing is no error
		p := &bufferProtocol{buf: make([]byte, 8)}
		tr := readPipeOf(t, co, p, r)
		writeString(t, w, "ahead")
		until(t, co, "a read is in flight again", func() bool { return p.got.String() == "ahead" && tr.(*readPipe).read.InFlight() })
		clear(p.buf)
		tr.Close()
		p.untilLost(t, co)
		writeString(t, w, "leftover")
		if err := loop.Sleep(co, 0); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(p.buf, make([]byte, 8)) {
			t.Errorf("the buffer was written to after ConnectionLost: %q", p.buf)
		}
	})
}

func TestTheNextReadOfAPipeGoesToTheProtocolThatReplacedTheFirst(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		for _, to := range []bool{false, true} {
			r, w := osPipe(t)
			plain, buffered := &streamDiary{}, &bufferProtocol{buf: make([]byte, 3)}
			var first, second Protocol = buffered, plain
			if to {
				first, second = plain, buffered
			}
			tr := readPipeOf(t, co, first, r)
			writeString(t, w, "1")
			until(t, co, "a read for the first is in flight", func() bool {
				return plain.data.Len()+buffered.got.Len() == 1 && tr.(*readPipe).read.InFlight()
			})
			plain.data.Reset()
			buffered.got.Reset()
			tr.SetProtocol(second)
			writeString(t, w, "abc")
			if !to {
				plain.untilData(t, co, "abc")
			} else {
				until(t, co, "the data arrives", func() bool { return buffered.got.String() == "abc" })
			}
			writeString(t, w, "defgh")
			closeFile(t, w)
			if !to {
				plain.untilLost(t, co)
			} else {
				buffered.untilLost(t, co)
			}
			if plain.data.String()+buffered.got.String() != "abcdefgh" {
				t.Errorf("plain got %q, buffered %q", plain.data.String(), buffered.got.String())
			}
		}
	})
}

func TestTheMemoryOfAProtocolThatAPipeHasReplacedIsItsOwnAgain(t *testing.T) {
	eachPipe(t, func(t *testing.T, co *loop.Coro, r, w *os.File) {
		first := &bufferProtocol{buf: make([]byte, 16)}
		plain, buffered := &streamDiary{}, &bufferProtocol{buf: make([]byte, 16)}
		tr := readPipeOf(t, co, first, r).(*readPipe)
		inFlight := func() bool { return tr.read.InFlight() && unsafe.SliceData(tr.read.Buf) == unsafe.SliceData(first.buf) }
		replace := func(next Protocol) {
			tr.SetProtocol(next)
			until(t, co, "the read for the first has ended", func() bool { return !inFlight() })
			clear(first.buf)
		}
		for _, next := range []Protocol{plain, buffered} {
			tr.SetProtocol(first)
			first.got.Reset()
			writeString(t, w, "ahead")
			until(t, co, "a read for the first is in flight", func() bool {
				return first.got.String() == "ahead" && inFlight()
			})
			replace(next)
			writeString(t, w, "next")
			until(t, co, "the data arrives", func() bool { return plain.data.Len()+buffered.got.Len() >= 4 })
			if got := plain.data.String() + buffered.got.String(); got != "next" || first.got.String() != "ahead" {
				t.Errorf("the first got %q, the next %q", first.got.String(), got)
			}
			if !bytes.Equal(first.buf, make([]byte, 16)) {
				t.Errorf("the buffer of the first was written to: %q", first.buf)
			}
			plain.data.Reset()
			buffered.got.Reset()
		}
		tr.SetProtocol(first)
		tr.SetProtocol(plain)
		tr.SetProtocol(first) // before the read has ended
		until(t, co, "a read for the first is in flight", inFlight)
		check(t, tr.PauseReading())
		replace(plain)
		writeString(t, w, "paused")
		turns(t, co)
		if !bytes.Equal(first.buf, make([]byte, 16)) {
			t.Errorf("the buffer of the first was written to: %q", first.buf)
		}
		check(t, tr.ResumeReading())
		plain.untilData(t, co, "paused")
		closeFile(t, w)
		check(t, plain.untilLost(t, co))
	})
}

func TestGetBufferMayReplaceTheProtocolOfAPipe(t *testing.T) {
	eachPipe(t, func(t *testing.T, co *loop.Coro, r, w *os.File) {
		first, second, third := &bufferProtocol{buf: make([]byte, 16)}, &bufferProtocol{buf: make([]byte, 16)}, &streamDiary{}
		tr := readPipeOf(t, co, first, r)
		first.onGet = func() {
			if first.got.Len() > 0 {
				clear(first.buf)
				tr.SetProtocol(second)
			}
		}
		second.onGet = func() {
			if second.got.Len() > 0 {
				tr.SetProtocol(third)
			}
		}
		writeString(t, w, "one")
		until(t, co, "the first has it", func() bool { return first.got.String() == "one" })
		writeString(t, w, "two")
		until(t, co, "the second has it", func() bool { return second.got.String() == "two" })
		if !bytes.Equal(first.buf, make([]byte, 16)) {
			t.Errorf("the first has %q in its memory", first.buf)
		}
		writeString(t, w, "three")
		third.untilData(t, co, "three")
		closeFile(t, w)
		third.untilLost(t, co)
		third.want(t, "eof", "lost")
	})
}

func TestGetBufferOfAPipeIsNotCalledFromInsideResumeReading(t *testing.T) {
	eachPipe(t, func(t *testing.T, co *loop.Coro, r, w *os.File) {
		p := &bufferProtocol{buf: make([]byte, 16)}
		p.onMade = func() { check(t, p.t.PauseReading()) }
		tr, _, err := ConnectReadPipe(co, func() Protocol { return p }, r)
		check(t, err)
		resuming := false
		p.onGet = func() {
			if resuming {
				t.Error("GetBuffer was called from inside ResumeReading")
			}
		}
		resuming = true
		check(t, tr.ResumeReading())
		resuming = false
		writeString(t, w, "one")
		until(t, co, "it reads", func() bool { return p.got.String() == "one" })

		// A pause that is over when GetBuffer returns leaves one read, not two.
		p.onGet = func() {
			check(t, tr.PauseReading())
			check(t, tr.ResumeReading())
		}
		for _, all := range []string{"one2", "one23", "one234"} {
			writeString(t, w, all[len(all)-1:])
			until(t, co, all+" arrives", func() bool { return p.got.String() == all })
		}

		// One that is not leaves none.
		p.onGet = func() { check(t, tr.PauseReading()) }
		writeString(t, w, "5")
		until(t, co, "the last read brings something", func() bool { return p.got.String() == "one2345" })
		writeString(t, w, "6")
		turns(t, co)
		if got := p.got.String(); got != "one2345" {
			t.Errorf("%q was delivered while paused", got)
		}
		p.onGet = nil
		check(t, tr.ResumeReading())
		until(t, co, "it reads on", func() bool { return p.got.String() == "one23456" })
		tr.Abort()
		p.untilLost(t, co)
		p.want(t, "made", "lost")
	})
}

// parkedPipe connects a pipe, and pauses it when data was read for p and not
// delivered.
func parkedPipe(t *testing.T, co *loop.Coro, p Protocol, r, w *os.File, data string) Transport {
	t.Helper()
	tr := readPipeOf(t, co, p, r)
	writeString(t, w, "x") // until something comes it does not read, but polls
	until(t, co, "a read is in flight behind the first", func() bool {
		return received(p) == "x" && tr.(*readPipe).read.InFlight()
	})
	check(t, tr.PauseReading())
	writeString(t, w, data)
	until(t, co, "it is read", func() bool { return tr.(*readPipe).keeping })
	return tr
}

// received returns what was delivered to a protocol of either kind.
func received(p Protocol) string {
	if p, ok := p.(*bufferProtocol); ok {
		return p.got.String()
	}
	return p.(*streamDiary).data.String()
}

func TestGetBufferMayPauseOrReplaceWhileAPipeDeliversWhatWasKept(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		r, w := osPipe(t)
		tr := parkedPipe(t, co, &streamDiary{}, r, w, "kept while paused")
		p, last := &bufferProtocol{buf: make([]byte, 4)}, &streamDiary{}
		tr.SetProtocol(p)
		p.onGet = func() {
			if p.got.Len() == 4 {
				check(t, tr.PauseReading())
			}
		}
		check(t, tr.ResumeReading())
		turns(t, co)
		if got := p.got.String(); got != "kept" {
			t.Errorf("%q was delivered before and after the pause", got)
		}
		p.onGet = func() {
			if p.got.Len() == 8 {
				tr.SetProtocol(last)
			}
		}
		check(t, tr.ResumeReading())
		last.untilData(t, co, "le paused")
		if got := p.got.String(); got != "kept whi" {
			t.Errorf("%q was delivered before the protocol was replaced", got)
		}
		tr.Abort()
		last.untilLost(t, co)
	})
}

func TestWhatAPipeKeepsDoesNotStayInTheMemoryOfAReplacedProtocol(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		r, w := osPipe(t)
		first, second := &bufferProtocol{buf: make([]byte, 16)}, &streamDiary{}
		tr := parkedPipe(t, co, first, r, w, "kept")
		tr.SetProtocol(second)
		clear(first.buf)
		check(t, tr.ResumeReading())
		second.untilData(t, co, "kept")
		tr.Abort()
		second.untilLost(t, co)
	})
}

func TestAPanicInDataReceivedClosesThePipeAndIsReported(t *testing.T) {
	eachPipe(t, func(t *testing.T, co *loop.Coro, r, w *os.File) {
		all := reports(co)
		p := &streamDiary{onData: func([]byte) { panic("no more") }}
		tr := readPipeOf(t, co, p, r)
		writeString(t, w, "x")
		err := p.untilLost(t, co)
		var pe *loop.PanicError
		if !errors.As(err, &pe) || pe.Value != "no more" {
			t.Errorf("lost with %v", err)
		}
		if len(*all) != 1 || (*all)[0].Protocol != any(p) || (*all)[0].Transport != any(tr) {
			t.Errorf("%d reports", len(*all))
		}
		p.want(t, "made", "lost")
	})
}

func TestALoopExitInACallbackOfAReadPipeClosesIt(t *testing.T) {
	eachBackend(t, func(t *testing.T, name string) {
		for _, what := range []string{"DataReceived", "GetBuffer"} {
			l := ipcLoop(t, loop.WithBackend(name))
			reason := errors.New("enough")
			p := &bufferProtocol{buf: make([]byte, 16)}
			p.onData = func([]byte) { panic(loop.LoopExit{Err: reason}) }
			p.onGet = func() {
				if p.got.Len() > 0 {
					panic(loop.LoopExit{Err: reason})
				}
			}
			exits(t, l, reason, func(co *loop.Coro) error {
				r, w := osPipe(t)
				if what == "GetBuffer" {
					readPipeOf(t, co, p, r)
				} else {
					readPipeOf(t, co, &p.streamDiary, r)
				}
				turns(t, co)
				writeString(t, w, "x")
				return nil
			})
			runTask(t, l, func(co *loop.Coro) error {
				var pe *loop.PanicError
				if err := p.untilLost(t, co); !errors.As(err, &pe) {
					t.Errorf("%s: lost with %v", what, err)
				}
				return nil
			})
		}
	})
}

func TestALoopExitInResumeWritingDoesNotStopAWritePipe(t *testing.T) {
	eachBackend(t, func(t *testing.T, name string) {
		l := ipcLoop(t, loop.WithBackend(name))
		reason := errors.New("enough")
		in, out := &streamDiary{}, &recorder{}
		out.onResume = func() { panic(loop.LoopExit{Err: reason}) }
		exits(t, l, reason, func(co *loop.Coro) error {
			r, w := osPipe(t)
			tr := writePipeOf(t, co, out, w)
			check(t, tr.SetWriteBufferLimits(2<<20, 1<<20)) // so that it is resumed with something left to write
			fill(t, tr, &out.streamDiary)
			readPipeOf(t, co, in, r)
			return nil
		})
		runTask(t, l, func(co *loop.Coro) error {
			out.t.Close()
			check(t, out.untilLost(t, co))
			check(t, in.untilLost(t, co))
			if in.data.Len() != 4<<20 {
				t.Errorf("the reader got %d bytes", in.data.Len())
			}
			return nil
		})
	})
}

func TestErrorsOfAReadPipeAreReportedAndCloseIt(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		all := reports(co)
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		c, err := net.Dial("tcp4", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		peer, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		f, err := c.(*net.TCPConn).File()
		if err != nil {
			t.Fatal(err)
		}
		p := &streamDiary{}
		tr := readPipeOf(t, co, p, f)
		// A reset is the simplest error that a descriptor can have.
		if err := peer.(*net.TCPConn).SetLinger(0); err != nil {
			t.Fatal(err)
		}
		closeFile(t, peer)
		if err := p.untilLost(t, co); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("lost with %v", err)
		}
		p.want(t, "made", "lost")
		if len(*all) != 1 || (*all)[0].Transport != any(tr) || !errors.Is((*all)[0].Exception, syscall.ECONNRESET) {
			t.Errorf("%d reports", len(*all))
		}
	})
}

func TestAReadPipeThatSomebodyElseEmptiedWaitsOn(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		r, w := fifo(t)
		rival := must2(os.OpenFile(r.Name(), os.O_RDONLY|unix.O_NONBLOCK, 0))(t)
		p := &streamDiary{}
		readPipeOf(t, co, p, r)
		q := &streamDiary{}
		readPipeOf(t, co, q, rival)
		const each = "0123456789"
		for range 50 {
			writeString(t, w, each)
			if err := loop.Sleep(co, 0); err != nil {
				t.Fatal(err)
			}
		}
		until(t, co, "everything arrives somewhere", func() bool { return p.data.Len()+q.data.Len() == 50*len(each) })
		closeFile(t, w)
		p.untilLost(t, co)
		q.untilLost(t, co)
		p.want(t, "made", "eof", "lost")
		q.want(t, "made", "eof", "lost")
	})
}

func TestAFIFOWithoutAWriterHasNotEnded(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		path := filepath.Join(t.TempDir(), "fifo")
		if err := unix.Mkfifo(path, 0o600); err != nil {
			t.Fatal(err)
		}
		p := &streamDiary{}
		readPipeOf(t, co, p, must2(os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0))(t))
		for range 5 {
			if err := loop.Sleep(co, 0); err != nil {
				t.Fatal(err)
			}
		}
		p.want(t, "made")
		w := must2(os.OpenFile(path, os.O_WRONLY, 0))(t)
		writeString(t, w, "at last")
		p.untilData(t, co, "at last")
		closeFile(t, w)
		p.untilLost(t, co)
		p.want(t, "made", "eof", "lost")
		q := &streamDiary{}
		tr := readPipeOf(t, co, q, must2(os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0))(t))
		tr.Close()
		q.untilLost(t, co)
		q.want(t, "made", "lost")
		tr.SetProtocol(q)
		if tr.Protocol() != nil {
			t.Error("a closed transport has a protocol again")
		}
	})
}

func TestARegularFileIsNoPipe(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		dir := t.TempDir()
		path := filepath.Join(dir, "regular")
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		factory := func() Protocol {
			t.Error("the factory was called")
			return nil
		}
		for _, name := range []string{path, dir} {
			for _, connect := range []func(*loop.Coro, func() Protocol, *os.File) (Transport, Protocol, error){ConnectReadPipe, ConnectWritePipe} {
				f := must2(os.Open(name))(t)
				_, _, err := connect(co, factory, f)
				if !errors.Is(err, loop.ErrInvalidArgument) || !errors.Is(err, syscall.EPERM) || !strings.Contains(err.Error(), name) {
					t.Errorf("%s: %v", name, err)
				}
				if !errors.Is(f.Close(), os.ErrClosed) {
					t.Error("the file is left open")
				}
			}
		}
	})
}

func TestPipeArgumentsThatMakeNoSenseAreInvalid(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		plain := func() Protocol { return &streamDiary{} }
		r, _ := osPipe(t)
		_, w := osPipe(t)
		for what, err := range map[string]error{
			"no file":     second(ConnectReadPipe(co, plain, nil)),
			"no factory":  second(ConnectReadPipe(co, nil, r)),
			"no protocol": second(ConnectWritePipe(co, func() Protocol { return nil }, w)),
		} {
			if !errors.Is(err, loop.ErrInvalidArgument) {
				t.Errorf("%s: %v", what, err)
			}
		}
		if err := second(ConnectReadPipe(co, plain, r)); !errors.Is(err, os.ErrClosed) {
			t.Errorf("a closed file: %v", err)
		}
	})
}

func second(_ Transport, _ Protocol, err error) error { return err }

func TestCharacterDevicesAreRead(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		p := &streamDiary{}
		readPipeOf(t, co, p, must2(os.Open(os.DevNull))(t))
		p.untilLost(t, co)
		p.want(t, "made", "eof", "lost")
		zero := &streamDiary{}
		zero.onData = func(data []byte) {
			if zero.data.Len() > 100_000 {
				zero.t.Close()
			}
		}
		readPipeOf(t, co, zero, must2(os.Open("/dev/zero"))(t))
		zero.untilLost(t, co)
		zero.want(t, "made", "lost")
		null := &streamDiary{}
		tr := writePipeOf(t, co, null, must2(os.OpenFile(os.DevNull, os.O_WRONLY, 0))(t))
		if err := tr.Write(make([]byte, 1<<20)); err != nil {
			t.Fatal(err)
		}
		tr.Close()
		if err := null.untilLost(t, co); err != nil {
			t.Errorf("lost with %v", err)
		}
	})
}

func TestAMegabyteThroughAPipeArrivesWhole(t *testing.T) {
	eachPipe(t, func(t *testing.T, co *loop.Coro, r, w *os.File) {
		in, out := &streamDiary{}, &streamDiary{}
		readPipeOf(t, co, in, r)
		tr := writePipeOf(t, co, out, w)
		sent := sha256.New()
		piece := make([]byte, 1013)
		for i := range 1035 {
			for j := range piece {
				piece[j] = byte(i + j)
			}
			sent.Write(piece)
			if err := tr.Write(piece); err != nil {
				t.Fatal(err)
			}
			if i%100 == 0 {
				if err := loop.Sleep(co, 0); err != nil {
					t.Fatal(err)
				}
			}
		}
		tr.Close()
		in.untilLost(t, co)
		if got := sha256.Sum256(in.data.Bytes()); !bytes.Equal(got[:], sent.Sum(nil)) {
			t.Errorf("%d bytes arrived, and not those that were sent", in.data.Len())
		}
		if n := len(slices.DeleteFunc(out.events, func(e string) bool { return e != "pause" })); n > 0 && in.err != nil {
			t.Errorf("paused %d times, lost with %v", n, in.err)
		}
	})
}

func TestCancellingTheConnectionOfAPipeClosesTheFile(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		before := must2(leaktest.FDs())(t)
		for turns := range 4 {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			in, out := &streamDiary{}, &streamDiary{}
			tasks := []loop.AnyTask{
				co.Loop().Go(func(co *loop.Coro) error { return second(ConnectReadPipe(co, func() Protocol { return in }, r)) }),
				co.Loop().Go(func(co *loop.Coro) error { return second(ConnectWritePipe(co, func() Protocol { return out }, w)) }),
			}
			for range turns {
				if err := loop.Sleep(co, 0); err != nil {
					t.Fatal(err)
				}
			}
			for _, task := range tasks {
				task.Cancel("enough")
			}
			until(t, co, "the tasks have ended", func() bool { return tasks[0].Done() && tasks[1].Done() })
			for i, p := range []*streamDiary{in, out} {
				if p.t != nil {
					p.t.Close() // it may have been too late
					p.untilLost(t, co)
				} else if f := []*os.File{r, w}[i]; f.Close() != nil {
					t.Error("the file of a task that did not begin was closed")
				}
			}
		}
		noNewFDs(t, co, before)
	})
}

func TestWhatAPipeBringsComesBeforeTimersThatAreDueLater(t *testing.T) {
	eachPipe(t, func(t *testing.T, co *loop.Coro, r, w *os.File) {
		var order []string
		p := &recorder{}
		p.onData = func([]byte) { order = append(order, "data") }
		_, _, err := ConnectReadPipe(co, protocolOf(p), r)
		check(t, err)
		for range 2 { // the first data of a pipe comes in another way
			order = nil
			_, err = co.Loop().CallSoon(func() {
				writeString(t, w, "x")
				_, err := co.Loop().CallLater(time.Nanosecond, func() { order = append(order, "timer") })
				check(t, err)
			})
			check(t, err)
			until(t, co, "both have come", func() bool { return len(order) == 2 })
			if order[0] != "data" {
				t.Errorf("the order is %q", order)
			}
		}
		closeFile(t, w)
		check(t, p.untilLost(t, co))
	})
}

func TestAPipeOnAClosedLoopIsRefusedAndClosed(t *testing.T) {
	eachBackend(t, func(t *testing.T, name string) {
		for kind, connect := range map[string]func(*loop.Coro, func() Protocol, *os.File) (Transport, Protocol, error){
			"read": ConnectReadPipe, "write": ConnectWritePipe,
		} {
			l := ipcLoop(t, loop.WithBackend(name))
			l.SetExceptionHandler(func(*loop.Loop, *loop.ExceptionContext) {}) // the task is pending
			r, w, err := os.Pipe()
			check(t, err)
			pipe, other := r, w
			if kind == "write" {
				pipe, other = w, r
			}
			runTask(t, l, func(co *loop.Coro) error {
				l.Go(func(co *loop.Coro) error {
					_, _ = loop.CreateFuture[struct{}](l).Await(co)
					_, _, err = connect(co, mustNotCall(t), pipe)
					return nil
				})
				return loop.Sleep(co, 0)
			})
			check(t, l.Close())
			if !errors.Is(err, loop.ErrLoopClosed) {
				t.Errorf("%s: %v", kind, err)
			}
			if err := pipe.Close(); !errors.Is(err, os.ErrClosed) {
				t.Errorf("%s: the file was left open", kind)
			}
			check(t, other.Close())
		}
	})
}

func TestAPipeWhoseFactoryPanicsIsClosed(t *testing.T) {
	eachPipe(t, func(t *testing.T, co *loop.Coro, r, w *os.File) {
		for pipe, connect := range map[*os.File]func(*loop.Coro, func() Protocol, *os.File) (Transport, Protocol, error){
			r: ConnectReadPipe, w: ConnectWritePipe,
		} {
			func() {
				defer func() {
					if recover() != "no protocol" {
						t.Error("the panic was swallowed")
					}
				}()
				_, _, _ = connect(co, func() Protocol { panic("no protocol") }, pipe)
			}()
			if err := pipe.Close(); !errors.Is(err, os.ErrClosed) {
				t.Error("the file was left open")
			}
		}
	})
}

func TestClosingTheLoopClosesThePipesThatAreLeft(t *testing.T) {
	eachBackend(t, func(t *testing.T, name string) {
		before := must2(leaktest.Take())(t)
		l, err := loop.NewEventLoop(loop.WithBackend(name))
		if err != nil {
			t.Skipf("%s: %v", name, err)
		}
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		idle, other, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		in, out, paused := &streamDiary{}, &streamDiary{}, &streamDiary{}
		paused.onMade = func() { _ = paused.t.PauseReading() }
		runTask(t, l, func(co *loop.Coro) error {
			readPipeOf(t, co, in, r)
			writePipeOf(t, co, out, w)
			return second(ConnectReadPipe(co, func() Protocol { return paused }, idle))
		})
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		in.t.Close()
		out.t.Close()
		in.want(t, "made")
		out.want(t, "made")
		closeFile(t, other)
		if leaks := before.Leaks(patience); len(leaks) != 0 {
			t.Errorf("left behind: %q", leaks)
		}
	})
}

// brokenLogger is a slog.Handler that panics.
type brokenLogger struct{ slog.Handler }

func (brokenLogger) Enabled(context.Context, slog.Level) bool  { return true }
func (brokenLogger) Handle(context.Context, slog.Record) error { panic("the logger is broken") }

func TestClosingTheLoopClosesWhatIsLeftAlsoIfTheLoggerPanics(t *testing.T) {
	eachBackend(t, func(t *testing.T, name string) {
		before := must2(leaktest.Take())(t)
		l, err := loop.NewEventLoop(loop.WithBackend(name), loop.WithLogger(slog.New(brokenLogger{})))
		if err != nil {
			t.Skipf("%s: %v", name, err)
		}
		reports := 0
		l.SetExceptionHandler(func(_ *loop.Loop, c *loop.ExceptionContext) {
			if reports++; c.Message != "Panic in the logger" || c.Transport == nil {
				t.Errorf("reported: %s: %v", c.Message, c.Exception)
			}
		})
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		runTask(t, l, func(co *loop.Coro) error {
			readPipeOf(t, co, &streamDiary{}, r)
			writePipeOf(t, co, &streamDiary{}, w)
			return nil
		})
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if leaks := before.Leaks(patience); len(leaks) != 0 || reports != 2 {
			t.Errorf("left behind: %q, %d reports", leaks, reports)
		}
	})
}

func TestAPipeAllocatesNothingPerMessage(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		r, w := osPipe(t)
		data := make([]byte, 512)
		in, out := &pong{}, &streamDiary{}
		in.write = writePipeOf(t, co, out, w)
		in.data = data
		readPipeOf(t, co, in, r)
		play := func(n int) {
			in.left, in.done = n, loop.CreateFuture[struct{}](co.Loop())
			if err := in.write.Write(data); err != nil {
				t.Fatal(err)
			}
			if _, err := in.done.Await(co); err != nil {
				t.Fatal(err)
			}
		}
		play(100)
		const messages = 1000
		if perRun := testing.AllocsPerRun(5, func() { play(messages) }); perRun > messages/20 {
			t.Errorf("%v allocations for %d messages", perRun, messages)
		}
		in.write.Close()
		out.untilLost(t, co)
	})
}

// pong writes to one pipe whenever something comes from the other.
type pong struct {
	BaseStreamProtocol
	write Transport
	data  []byte
	left  int
	done  *loop.Future[struct{}]
}

func (p *pong) DataReceived([]byte) {
	if p.left--; p.left == 0 {
		_ = p.done.SetResult(struct{}{})
		return
	}
	_ = p.write.Write(p.data)
}

// values is a protocol that cannot be compared, for it is not a pointer.
type values struct {
	BaseProtocol
	buf []byte
	got *int
}

func (p values) GetBuffer(int) []byte { return p.buf }
func (p values) BufferUpdated(n int)  { *p.got += n }

func TestAPipeTakesAProtocolThatCannotBeCompared(t *testing.T) {
	eachPipe(t, func(t *testing.T, co *loop.Coro, r, w *os.File) {
		got := 0
		tr, _, err := ConnectReadPipe(co, protocolOf(values{buf: make([]byte, 2), got: &got}), r)
		check(t, err)
		ok[int](t)(w.WriteString("abc"))
		until(t, co, "everything is received", func() bool { return got == 3 })
		tr.SetProtocol(values{buf: make([]byte, 2), got: &got})
		ok[int](t)(w.WriteString("de"))
		until(t, co, "the other one has the rest", func() bool { return got == 5 })
		tr.Close()
		turns(t, co)
	})
}

// packetFiles makes two connected Unix sockets that keep packets apart.
func packetFiles(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w = unixFiles(t, unix.SOCK_SEQPACKET)
	// Whatever the machine's default is: room for a large packet, not for many.
	check(t, onFD(w, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 100<<10) }))
	return r, w
}

// packetPipe makes a pipe that keeps packets apart.
func packetPipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	var fds [2]int
	check(t, unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK|unix.O_DIRECT))
	return filesOf(t, fds, "packet pipe")
}

// readPacket waits for the next packet.
func readPacket(t *testing.T, co *loop.Coro, r *os.File) string {
	t.Helper()
	buf := make([]byte, 4096)
	n := 0
	until(t, co, "a packet arrives", func() bool {
		err := onFD(r, func(fd int) (err error) {
			n, err = unix.Read(fd, buf)
			return err
		})
		if err != nil && err != syscall.EAGAIN {
			t.Fatal(err)
		}
		return err == nil
	})
	return string(buf[:n])
}

func TestAWritePipeKeepsPacketsApart(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		for _, open := range []func(t *testing.T) (r, w *os.File){packetFiles, packetPipe} {
			r, w := open(t)
			p := &streamDiary{}
			tr := writePipeOf(t, co, p, w)
			check(t, tr.Write([]byte("one")))
			check(t, tr.Writelines([][]byte{[]byte("t"), []byte("wo")}))
			// The kernel does not take all of these at once.
			const many = 600
			for i := range many {
				check(t, tr.Write(fmt.Appendf(nil, "%04d", i)))
			}
			if tr.WriteBufferSize() == 0 {
				t.Error("nothing is left to be written")
			}
			tr.Close()
			if one, two := readPacket(t, co, r), readPacket(t, co, r); one != "one" || two != "two" {
				t.Errorf("got %q and %q", one, two)
			}
			for i := range many {
				if got, want := readPacket(t, co, r), fmt.Sprintf("%04d", i); got != want {
					t.Fatalf("got %q, want %q", got, want)
				}
			}
			p.untilLost(t, co)
		}
	})
}

func TestAReadPipeTakesALargePacketWhole(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		r, w := packetFiles(t)
		p := &streamDiary{}
		tr := readPipeOf(t, co, p, r)
		packet := strings.Repeat("0123456789", 10_000)
		check(t, onFD(w, func(fd int) error {
			_, err := unix.Write(fd, []byte(packet))
			return err
		}))
		until(t, co, "the packet arrives", func() bool { return p.data.Len() > 0 })
		if p.data.String() != packet {
			t.Errorf("got %d of %d bytes", p.data.Len(), len(packet))
		}
		tr.Close()
		p.untilLost(t, co)
	})
}
