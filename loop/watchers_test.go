package loop

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/backend"
)

// stuck is how long a test waits for something that must happen.
const stuck = time.Minute

// socketPair returns two connected stream sockets, closed when the test ends.
func socketPair(t testing.TB) (a, b int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("socketpair: %v", err)
	}
	t.Cleanup(func() {
		unix.Close(fds[0])
		unix.Close(fds[1])
	})
	return fds[0], fds[1]
}

func send(t testing.TB, fd int, s string) {
	t.Helper()
	if n, err := unix.Write(fd, []byte(s)); err != nil || n != len(s) {
		t.Fatalf("write to fd %d: %d, %v", fd, n, err)
	}
}

// receive returns what can be read from fd now.
func receive(t testing.TB, fd int) string {
	t.Helper()
	buf := make([]byte, 64)
	n, err := unix.Read(fd, buf)
	if err != nil {
		t.Fatalf("read from fd %d: %v", fd, err)
	}
	return string(buf[:n])
}

func addReader(t testing.TB, l *Loop, fd int, fn func()) {
	t.Helper()
	if err := l.AddReader(fd, fn); err != nil {
		t.Fatalf("AddReader: %v", err)
	}
}

func addWriter(t testing.TB, l *Loop, fd int, fn func()) {
	t.Helper()
	if err := l.AddWriter(fd, fn); err != nil {
		t.Fatalf("AddWriter: %v", err)
	}
}

// removeReader removes a reader that must exist.
func removeReader(t testing.TB, l *Loop, fd int) {
	t.Helper()
	if was, err := l.RemoveReader(fd); !was || err != nil {
		t.Fatalf("RemoveReader: %v, %v", was, err)
	}
}

func removeWriter(t testing.TB, l *Loop, fd int) {
	t.Helper()
	if was, err := l.RemoveWriter(fd); !was || err != nil {
		t.Fatalf("RemoveWriter: %v, %v", was, err)
	}
}

// runLoop runs until Stop, or fails if that takes too long.
func runLoop(t testing.TB, l *Loop) {
	t.Helper()
	timedOut := false
	guard, err := l.CallLater(stuck, func() { timedOut = true; l.Stop() })
	if err != nil {
		t.Fatal(err)
	}
	if err := l.RunForever(); err != nil {
		t.Fatalf("RunForever: %v", err)
	}
	guard.Cancel()
	if timedOut {
		t.Fatal("nothing stopped the loop")
	}
}

func TestAReaderFiresForEveryArrivalUntilItIsRemoved(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		a, b := socketPair(t)
		var got []string
		addReader(t, l, a, func() {
			got = append(got, receive(t, a))
			if len(got) < 3 {
				send(t, b, "more")
				return
			}
			removeReader(t, l, a)
			send(t, b, "unseen")
			l.Stop()
		})
		send(t, b, "first")
		runLoop(t, l)
		for range 3 {
			runOnce(t, l)
		}
		if want := []string{"first", "more", "more"}; !slices.Equal(got, want) {
			t.Errorf("the reader got %q, want %q", got, want)
		}
	})
}

func TestUnreadDataTriggersTheReaderOnEveryTurn(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		a, b := socketPair(t)
		send(t, b, "x")
		fired := 0
		addReader(t, l, a, func() {
			if fired++; fired == 5 {
				l.Stop()
			}
		})
		runLoop(t, l)
		if fired != 5 {
			t.Errorf("the reader was called %d times", fired)
		}
	})
}

func TestASecondReaderReplacesTheFirstAndKeepsTheWriter(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		a, b := socketPair(t)
		send(t, b, "x")
		first, second, writer := 0, 0, 0
		addReader(t, l, a, func() { first++ })
		addWriter(t, l, a, func() { writer++ })
		addReader(t, l, a, func() { second++ })
		soon(t, l, func() {
			addReader(t, l, a, func() {
				second++
				if second > 2 && writer > 2 {
					l.Stop()
				}
			})
		})
		runLoop(t, l)
		if first != 0 {
			t.Errorf("the replaced reader was called %d times", first)
		}
	})
}

func TestASecondWriterReplacesTheFirstAndKeepsTheReader(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		a, b := socketPair(t)
		send(t, b, "x")
		first, second, reader := 0, 0, 0
		addWriter(t, l, a, func() { first++ })
		addReader(t, l, a, func() { reader++ })
		addWriter(t, l, a, func() {
			second++
			if second > 2 && reader > 2 {
				l.Stop()
			}
		})
		runLoop(t, l)
		if first != 0 {
			t.Errorf("the replaced writer was called %d times", first)
		}
	})
}

func TestRemovingOneDirectionKeepsTheOther(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		a, b := socketPair(t)
		send(t, b, "x")
		readers, writers := 0, 0
		addReader(t, l, a, func() { readers++ })
		addWriter(t, l, a, func() {
			if writers++; writers == 3 {
				l.Stop()
			}
		})
		removeReader(t, l, a)
		runLoop(t, l)
		if readers != 0 {
			t.Errorf("the removed reader was called %d times", readers)
		}
		addReader(t, l, a, func() {
			if readers++; readers == 3 {
				l.Stop()
			}
		})
		removeWriter(t, l, a)
		writers = 0
		runLoop(t, l)
		if writers != 0 {
			t.Errorf("the removed writer was called %d times", writers)
		}
	})
}

func TestRemovingAnUnknownDescriptorReturnsFalse(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		a, _ := socketPair(t)
		if was, err := l.RemoveReader(a); was || err != nil {
			t.Errorf("RemoveReader of an unwatched fd: %v, %v", was, err)
		}
		addReader(t, l, a, func() {})
		if was, err := l.RemoveWriter(a); was || err != nil {
			t.Errorf("RemoveWriter of an fd with a reader: %v, %v", was, err)
		}
		removeReader(t, l, a)
		if was, err := l.RemoveReader(a); was || err != nil {
			t.Errorf("the second RemoveReader: %v, %v", was, err)
		}
	})
}

func TestDescriptorsThatCannotBeWatchedAreRefused(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		file, err := os.Create(filepath.Join(t.TempDir(), "regular"))
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		null, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		defer null.Close()
		mounts, err := os.Open("/proc/self/mounts")
		if err != nil {
			t.Fatal(err)
		}
		defer mounts.Close()
		const notOpen = 1 << 19
		socket, _ := socketPair(t)
		for _, c := range []struct {
			what string
			fd   int
			want error
		}{
			{"a regular file", int(file.Fd()), unix.EPERM},
			{"/dev/null", int(null.Fd()), unix.EPERM},
			{"a closed fd", notOpen, unix.EBADF},
			{"a file of /proc that can be watched", int(mounts.Fd()), nil},
			{"a negative fd", -1, ErrInvalidArgument},
			{"a number whose lower half is a socket", 1<<32 + socket, ErrInvalidArgument},
		} {
			wantErr(t, "AddReader of "+c.what, l.AddReader(c.fd, func() {}), c.want)
			err := l.AddWriter(c.fd, func() {})
			wantErr(t, "AddWriter of "+c.what, err, c.want)
			if errors.Is(err, unix.EPERM) && !strings.Contains(err.Error(), "always ready") {
				t.Errorf("the error for %s does not say why: %v", c.what, err)
			}
		}
		_, err = l.RemoveReader(int(mounts.Fd()))
		wantErr(t, "RemoveReader", err, nil)
		_, err = l.RemoveWriter(int(mounts.Fd()))
		wantErr(t, "RemoveWriter", err, nil)
		_, err = l.RemoveReader(-1)
		wantErr(t, "RemoveReader of a negative fd", err, ErrInvalidArgument)
		wantErr(t, "AddReader of a nil callback", l.AddReader(socket, nil), ErrInvalidArgument)
	})
}

func TestAnEventfdCanBeWatched(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		fd, err := unix.Eventfd(1, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		addReader(t, l, fd, func() {
			removeReader(t, l, fd)
			l.Stop()
		})
		runLoop(t, l)
	})
}

func TestADescriptorOfATransportIsRefused(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		a, _ := socketPair(t)
		if err := l.ClaimFD(a, "<the transport>"); err != nil {
			t.Fatal(err)
		}
		_, errReader := l.RemoveReader(a)
		_, errWriter := l.RemoveWriter(a)
		for what, err := range map[string]error{
			"AddReader": l.AddReader(a, func() {}), "AddWriter": l.AddWriter(a, func() {}),
			"RemoveReader": errReader, "RemoveWriter": errWriter, "ClaimFD": l.ClaimFD(a, "another"),
		} {
			wantErr(t, what, err, ErrTransportFD)
			if !strings.Contains(err.Error(), "<the transport>") {
				t.Errorf("%s: %q does not name the owner", what, err)
			}
		}
		wantErr(t, "ClaimFD of a negative fd", l.ClaimFD(-1, "another"), ErrInvalidArgument)
		wantErr(t, "ClaimFD for nobody", l.ClaimFD(a, nil), ErrInvalidArgument)
		l.ReleaseFD(a)
		l.ReleaseFD(-1)
		l.ReleaseFD(1 << 20)
		addReader(t, l, a, func() {})
		removeReader(t, l, a)
	})
}

func TestWhoClaimsADescriptorEndsItsWatchers(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		a, b := socketPair(t)
		send(t, b, "x")
		addReader(t, l, a, func() { t.Error("the reader was called") })
		addWriter(t, l, a, func() { t.Error("the writer was called") })
		if err := l.ClaimFD(a, "the transport"); err != nil {
			t.Fatal(err)
		}
		wantErr(t, "AddReader", l.AddReader(a, func() {}), ErrTransportFD)
		runOnce(t, l)
		runOnce(t, l)
		l.ReleaseFD(a)
		calls := 0
		addReader(t, l, a, func() { calls++; l.Stop() })
		runLoop(t, l)
		if calls != 1 {
			t.Errorf("%d calls of a new reader", calls)
		}
		removeReader(t, l, a)
	})
}

func TestAReaderRemovedByAnotherOfTheSameTurnIsNotCalled(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		a, a2 := socketPair(t)
		b, b2 := socketPair(t)
		calls := 0
		remover := func(own, other int) func() {
			return func() {
				calls++
				removeReader(t, l, own)
				removeReader(t, l, other)
				l.Stop()
			}
		}
		addReader(t, l, a, remover(a, b))
		addReader(t, l, b, remover(b, a))
		runOnce(t, l)
		send(t, a2, "x")
		send(t, b2, "x")
		runLoop(t, l)
		runOnce(t, l)
		if calls != 1 {
			t.Errorf("%d readers were called", calls)
		}
	})
}

func TestADescriptorCanBeClosedAndReusedRightAfterRemoveReader(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		runMain(t, l, func(co *Coro) error {
			reused := 0
			for round := range 200 {
				a, b := pair(t)
				stale := func() { t.Errorf("round %d: the removed reader was called", round) }
				addReader(t, l, a, stale)
				if round%2 == 0 { // arm it in the kernel
					if err := Sleep(co, 0); err != nil {
						return err
					}
				}
				if round%3 == 0 {
					send(t, b, "x")
				}
				removeReader(t, l, a)
				unix.Close(a)
				c, d := pair(t)
				if c == a {
					reused++
				}
				got := CreateFuture[string](l)
				addReader(t, l, c, func() {
					removeReader(t, l, c)
					got.complete(receive(t, c), nil)
				})
				send(t, d, "new")
				if s, err := got.Await(co); s != "new" || err != nil {
					t.Errorf("round %d: the new reader got %q, %v", round, s, err)
				}
				for _, fd := range []int{b, c, d} {
					unix.Close(fd)
				}
			}
			if reused == 0 {
				t.Error("no number was used anew")
			}
			return nil
		})
	})
}

// pair is socketPair for a test that closes the sockets itself.
func pair(t testing.TB) (a, b int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("socketpair: %v", err)
	}
	return fds[0], fds[1]
}

// A duplicate keeps the old file open, and with it whatever the kernel still
// has registered for the old number.
func TestAStaleRegistrationDoesNotTriggerTheNewOwnerOfItsNumber(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		for _, between := range []bool{false, true} {
			a, b := pair(t)
			dup, err := unix.Dup(a)
			if err != nil {
				t.Fatal(err)
			}
			addReader(t, l, a, func() { t.Error("the removed reader was called") })
			runOnce(t, l)
			fds := [2]int{-1, -1}
			reuse := func() {
				removeReader(t, l, a)
				if fds, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK, 0); err != nil {
					t.Errorf("socketpair: %v", err)
					return
				}
				if err = unix.Dup3(fds[0], a, unix.O_CLOEXEC); err != nil { // closes the old a
					t.Errorf("dup3: %v", err)
				}
				addReader(t, l, a, func() { t.Error("the new reader was called for the old file") })
				send(t, b, "x")
			}
			if between {
				reuse()
			} else {
				soon(t, l, reuse)
			}
			for range 5 {
				runOnce(t, l)
			}
			addReader(t, l, a, l.Stop)
			send(t, fds[1], "x")
			runLoop(t, l)
			removeReader(t, l, a)
			runOnce(t, l)
			for _, fd := range []int{a, b, dup, fds[0], fds[1]} {
				unix.Close(fd)
			}
		}
	})
}

func TestASocketClosedAfterRemoveReaderIsReallyClosed(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		a, b := pair(t)
		defer unix.Close(b)
		addReader(t, l, a, func() {})
		runOnce(t, l)
		soon(t, l, func() {
			removeReader(t, l, a)
			unix.Close(a)
		})
		addReader(t, l, b, func() {
			if s := receive(t, b); s != "" {
				t.Errorf("read %q instead of the end", s)
			}
			removeReader(t, l, b)
			l.Stop()
		})
		runLoop(t, l)
	})
}

func TestASocketClosedAfterRemoveReaderIsClosedByTheEndOfTheTurn(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		for _, own := range []bool{false, true} { // removed by the reader itself
			a, b := pair(t)
			closed := false
			end := func() {
				removeReader(t, l, a)
				unix.Close(a)
				closed = true
			}
			if own {
				send(t, b, "x")
				addReader(t, l, a, func() { receive(t, a); end() })
			} else {
				addReader(t, l, a, func() { t.Error("the reader was called") })
				runOnce(t, l) // arms it in the kernel
				soon(t, l, end)
			}
			for range 5 {
				if runOnce(t, l); closed {
					break
				}
			}
			if n, err := unix.Read(b, make([]byte, 8)); n != 0 || err != nil {
				t.Errorf("removed by the reader itself: %v: the peer reads %d, %v, want the end", own, n, err)
			}
			unix.Close(b)
		}
	})
}

func TestAHangUpWakesReaderAndWriter(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		a, b := pair(t)
		defer unix.Close(a)
		// A full socket, so that only the hang-up makes it writable.
		for {
			if _, err := unix.Write(a, make([]byte, 1<<16)); err != nil {
				break
			}
		}
		reader, writer := false, false
		done := func() {
			if reader && writer {
				l.Stop()
			}
		}
		addReader(t, l, a, func() { reader = true; done() })
		addWriter(t, l, a, func() { writer = true; done() })
		runOnce(t, l)
		if reader || writer {
			t.Fatalf("called before the hang-up: reader %v, writer %v", reader, writer)
		}
		unix.Close(b)
		runLoop(t, l)
	})
}

func TestTheReaderOfADescriptorIsCalledBeforeItsWriter(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		for _, readerFirst := range []bool{true, false} {
			a, b := socketPair(t)
			send(t, b, "x")
			var order []string
			reader, writer := func() { order = append(order, "reader") }, func() { order = append(order, "writer") }
			if readerFirst {
				addReader(t, l, a, reader)
				addWriter(t, l, a, writer)
			} else {
				addWriter(t, l, a, writer)
				addReader(t, l, a, reader)
			}
			for range 3 {
				runOnce(t, l)
			}
			if want := []string{"reader", "writer", "reader", "writer", "reader", "writer"}; !slices.Equal(order, want) {
				t.Errorf("reader added first: %v: the order is %v", readerFirst, order)
			}
			removeReader(t, l, a)
			removeWriter(t, l, a)
		}
	})
}

func TestAReaderKeepsTheWriterOfItsDescriptorFromBeingCalled(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		a, b := socketPair(t)
		send(t, b, "x")
		addWriter(t, l, a, func() { t.Error("the writer was called, which the reader had removed") })
		addReader(t, l, a, func() {
			removeWriter(t, l, a)
			removeReader(t, l, a)
		})
		for range 3 {
			runOnce(t, l)
		}
	})
}

func TestAWriterThatALoopExitHasHeldUpIsCalledInTheNextRun(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		a, b := socketPair(t)
		send(t, b, "x")
		addWriter(t, l, a, l.Stop)
		addReader(t, l, a, func() {
			removeReader(t, l, a)
			panic(LoopExit{})
		})
		if err := l.RunForever(); err != nil {
			t.Fatal(err)
		}
		runLoop(t, l)
	})
}

func TestWatchersOnAClosedLoop(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		a, b := socketPair(t)
		send(t, b, "x")
		addReader(t, l, a, func() {})
		runOnce(t, l)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if was, err := l.RemoveReader(a); was || err != nil {
			t.Errorf("RemoveReader: %v, %v", was, err)
		}
		if was, err := l.RemoveWriter(a); was || err != nil {
			t.Errorf("RemoveWriter: %v, %v", was, err)
		}
		wantErr(t, "AddReader", l.AddReader(a, func() {}), ErrLoopClosed)
		wantErr(t, "AddWriter", l.AddWriter(a, func() {}), ErrLoopClosed)
	})
}

func TestAReaderIsNotCalledForWhatWasReadBeforeTheTurn(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		a, b := socketPair(t)
		calls := 0
		addReader(t, l, a, func() { calls++ })
		runOnce(t, l)
		pass := func() {
			send(t, b, "x")
			receive(t, a)
		}
		pass() // between runs
		runOnce(t, l)
		soon(t, l, pass)
		for range 3 {
			runOnce(t, l)
		}
		soon(t, l, func() { send(t, b, "x") }) // found when the run ends
		runOnce(t, l)
		receive(t, a)
		for range 3 {
			runOnce(t, l)
		}
		if calls != 0 {
			t.Errorf("the reader was called %d times, with nothing to read", calls)
		}
		removeReader(t, l, a)
	})
}

func TestAReaderInPlaceOfAnotherIsCalledInTheNextTurn(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		a, b := socketPair(t)
		addReader(t, l, a, func() { t.Error("the former reader was called") })
		runOnce(t, l)
		send(t, b, "x")
		called := false
		soon(t, l, func() { addReader(t, l, a, func() { called = true }) })
		runOnce(t, l)
		runOnce(t, l)
		if !called {
			t.Error("the reader was not called, though there is something to read")
		}
		removeReader(t, l, a)
	})
}

func TestWatchersCanBeChangedBetweenRuns(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		a, b := socketPair(t)
		send(t, b, "x")
		early := func() { t.Error("a removed reader was called") }
		addReader(t, l, a, early) // removed before the loop ever ran
		removeReader(t, l, a)
		runOnce(t, l)
		c, _ := socketPair(t)
		addReader(t, l, c, early) // armed by one run, removed before the next
		runOnce(t, l)
		removeReader(t, l, c)
		addReader(t, l, a, l.Stop)
		runLoop(t, l)
		removeReader(t, l, a)
		runOnce(t, l)
	})
}

func TestAPanicInAReaderIsReportedAndTheReaderStays(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		a, b := socketPair(t)
		send(t, b, "x")
		var reported []error
		l.SetExceptionHandler(func(_ *Loop, c *ExceptionContext) { reported = append(reported, c.Exception) })
		calls := 0
		addReader(t, l, a, func() {
			if calls++; calls == 1 {
				panic(errors.New("broken reader"))
			}
			l.Stop()
		})
		runLoop(t, l)
		if len(reported) != 1 || !strings.Contains(reported[0].Error(), "broken reader") {
			t.Errorf("reported: %v", reported)
		}
	})
}

func TestALoopExitInAReaderEndsTheRunAndKeepsTheReader(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		a, b := socketPair(t)
		send(t, b, "x")
		leaving := errors.New("leaving")
		own := l.CurrentContext()
		addReader(t, l, a, func() { panic(LoopExit{Err: leaving}) })
		for range 2 {
			wantErr(t, "RunForever", l.RunForever(), leaving)
			if l.CurrentContext() != own {
				t.Error("the reader's context outlives the run")
			}
		}
	})
}

func TestReadersRunAfterQueuedCallbacksAndBeforeDueTimers(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		a, b := socketPair(t)
		var order []string
		note := func(s string) func() { return func() { order = append(order, s) } }
		addReader(t, l, a, func() {
			removeReader(t, l, a)
			note("reader")()
			soon(t, l, func() { note("nested")(); l.Stop() })
		})
		runOnce(t, l)
		soon(t, l, func() {
			mustCall[TimerHandle](t)(l.CallLater(0, note("timer")))
			soon(t, l, note("queued"))
			send(t, b, "x")
		})
		runLoop(t, l)
		if want := []string{"queued", "reader", "timer", "nested"}; !slices.Equal(order, want) {
			t.Errorf("the order is %v, want %v", order, want)
		}
	})
}

func TestWatchersAreRefusedOnAForeignThreadInDebugMode(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		l.SetDebug(true)
		a, _ := socketPair(t)
		runMain(t, l, func(co *Coro) error {
			errs := make(chan error, 1)
			go func() { errs <- l.AddReader(a, func() {}) }()
			wantErr(t, "AddReader", <-errs, ErrWrongThread)
			return nil
		})
	})
}

func TestAnAddReaderRunsInTheContextOfItsCaller(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		a, b := socketPair(t)
		send(t, b, "x")
		name := NewContextVar[string]("name")
		runMain(t, l, func(co *Coro) error {
			name.Set(l.CurrentContext(), "caller")
			got := CreateFuture[string](l)
			addReader(t, l, a, func() {
				s, _ := name.Get(l.CurrentContext())
				removeReader(t, l, a)
				got.complete(s, nil)
			})
			if s, err := got.Await(co); s != "caller" || err != nil {
				t.Errorf("the variable is %q in the callback, %v", s, err)
			}
			return nil
		})
	})
}

func TestAReaderKeepsItsContextFromCallToCall(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		a, b := socketPair(t)
		send(t, b, "x")
		calls := NewContextVar[int]("calls")
		seen := 0
		addReader(t, l, a, func() {
			before, _ := calls.Get(l.CurrentContext())
			calls.Set(l.CurrentContext(), before+1)
			if seen++; seen < 3 {
				return
			}
			if before != 2 {
				t.Errorf("the third call finds %d calls in its context", before)
			}
			removeReader(t, l, a)
			l.Stop()
		})
		runLoop(t, l)
	})
}

// highFD moves fd to a number that nothing else in the process uses.
func highFD(t testing.TB, fd int) int {
	t.Helper()
	high, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 700)
	if err != nil {
		t.Fatalf("dup: %v", err)
	}
	unix.Close(fd)
	return high
}

func TestAWatcherOfADescriptorThatWasClosedIsReportedAndDropped(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		a, b := pair(t)
		defer unix.Close(b)
		a = highFD(t, a)
		send(t, b, "x")
		reports := collectReports(l)
		addReader(t, l, a, func() { unix.Close(a) }) // without RemoveReader
		for range 3 {
			runOnce(t, l)
		}
		if len(*reports) != 1 || !errors.Is((*reports)[0].Exception, unix.EBADF) {
			t.Errorf("reports: %v", *reports)
		}
		if was, err := l.RemoveReader(a); was || err != nil {
			t.Errorf("RemoveReader: %v, %v", was, err)
		}
	})
}

// receiver is a backend.Receiver made of a function.
type receiver func(backend.Result)

func (f receiver) Complete(_ *backend.Op, r backend.Result) { f(r) }

func TestAnOpCloseDropsTheWatchersOfItsDescriptor(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		a, b := pair(t)
		defer unix.Close(b)
		reports := collectReports(l)
		addReader(t, l, a, func() { t.Error("the reader was called") })
		runOnce(t, l)
		op := backend.Op{Code: backend.OpClose, FD: int32(a), Receiver: receiver(func(r backend.Result) {
			if r.Errno != 0 {
				t.Errorf("close: %v", r.Errno)
			}
			l.Stop()
		})}
		if err := l.Submit(&op); err != nil {
			t.Fatal(err)
		}
		runLoop(t, l)
		if was, err := l.RemoveReader(a); was || err != nil {
			t.Errorf("RemoveReader: %v, %v", was, err)
		}
		if len(*reports) != 0 {
			t.Errorf("reports: %v", *reports)
		}
	})
}

func TestDebugModeLogsASlowReader(t *testing.T) {
	forEachBackend(t, func(t *testing.T, l *Loop) {
		logged := logTo(l)
		l.SetDebug(true)
		l.SetSlowCallbackDuration(0)
		a, b := socketPair(t)
		send(t, b, "x")
		addReader(t, l, a, func() {
			removeReader(t, l, a)
			l.Stop()
		})
		runLoop(t, l)
		if !strings.Contains(logged.String(), "TestDebugModeLogsASlowReader") {
			t.Errorf("logged: %s", logged)
		}
	})
}

// BenchmarkReader is the cost of a turn on which a reader is called, because
// its descriptor stays readable.
func BenchmarkReader(b *testing.B) {
	for _, name := range backends {
		b.Run(name, func(b *testing.B) {
			l := newTestLoop(b, name)
			fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				b.Fatal(err)
			}
			defer unix.Close(fds[0])
			defer unix.Close(fds[1])
			send(b, fds[1], "x")
			n := 0
			addReader(b, l, fds[0], func() {
				if n++; n >= b.N {
					l.Stop()
				}
			})
			b.ReportAllocs()
			b.ResetTimer()
			if err := l.RunForever(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
