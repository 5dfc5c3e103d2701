package transport

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/loop"
)

// never is a delay that no test waits for.
const never = time.Hour

// attempts are connection attempts that a test lets succeed and fail.
type attempts struct {
	started   []int
	cancelled []int
	abandoned []int
	results   []*loop.Future[int]
}

func newAttempts(l *loop.Loop, n int) *attempts {
	a := &attempts{}
	for range n {
		a.results = append(a.results, loop.CreateFuture[int](l))
	}
	return a
}

func (a *attempts) race(co *loop.Coro, delay time.Duration) (int, []error) {
	return staggeredRace(co, len(a.results), delay, a.attempt, func(fd int) { a.abandoned = append(a.abandoned, fd) })
}

func (a *attempts) attempt(co *loop.Coro, i int) (int, error) {
	a.started = append(a.started, i)
	v, err := a.results[i].Await(co)
	if errors.Is(err, loop.ErrCancelled) {
		a.cancelled = append(a.cancelled, i)
	}
	return v, err
}

func (a *attempts) want(t *testing.T, started, cancelled string) {
	t.Helper()
	if fmt.Sprint(a.started) != started || fmt.Sprint(a.cancelled) != cancelled {
		t.Errorf("started %v, cancelled %v, want %s and %s", a.started, a.cancelled, started, cancelled)
	}
}

func TestTheFirstSuccessWinsTheRace(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		a := newAttempts(co.Loop(), 3)
		check(t, a.results[0].SetResult(7))
		if got, errs := a.race(co, never); got != 7 || errs != nil {
			t.Errorf("got %d, %v", got, errs)
		}
		turns(t, co)
		a.want(t, "[0]", "[]")
	})
}

func TestAFailureStartsTheNextAttemptAtOnce(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		a := newAttempts(co.Loop(), 3)
		check(t, a.results[0].SetException(errors.New("refused")))
		check(t, a.results[1].SetResult(8))
		if got, errs := a.race(co, never); got != 8 || errs != nil {
			t.Errorf("got %d, %v", got, errs)
		}
		turns(t, co)
		a.want(t, "[0 1]", "[]")
	})
}

func TestASlowAttemptIsOvertakenAfterTheDelayAndCancelled(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		a := newAttempts(co.Loop(), 2)
		check(t, a.results[1].SetResult(9))
		if got, errs := a.race(co, time.Millisecond); got != 9 || errs != nil {
			t.Errorf("got %d, %v", got, errs)
		}
		turns(t, co)
		a.want(t, "[0 1]", "[0]")
	})
}

func TestASlowAttemptCanStillWin(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		a := newAttempts(co.Loop(), 2)
		co.Loop().Go(func(co *loop.Coro) error {
			until(t, co, "the second attempt has started", func() bool { return len(a.started) == 2 })
			return a.results[0].SetResult(10)
		})
		if got, errs := a.race(co, time.Millisecond); got != 10 || errs != nil {
			t.Errorf("got %d, %v", got, errs)
		}
		turns(t, co)
		a.want(t, "[0 1]", "[1]")
	})
}

func TestWhenAllAttemptsFailEveryErrorIsKeptInOrder(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		a := newAttempts(co.Loop(), 3)
		for i, f := range a.results {
			check(t, f.SetException(fmt.Errorf("attempt %d", i)))
		}
		_, errs := a.race(co, never)
		if fmt.Sprint(errs) != "[attempt 0 attempt 1 attempt 2]" {
			t.Errorf("the errors are %v", errs)
		}
	})
}

func TestTwoSuccessesInOneTurnLeaveOneAbandoned(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		a := newAttempts(co.Loop(), 2)
		co.Loop().Go(func(co *loop.Coro) error {
			until(t, co, "both attempts have started", func() bool { return len(a.started) == 2 })
			check(t, a.results[0].SetResult(1))
			return a.results[1].SetResult(2)
		})
		got, errs := a.race(co, time.Millisecond)
		turns(t, co)
		if errs != nil || len(a.abandoned) != 1 || got+a.abandoned[0] != 3 {
			t.Errorf("got %d, %v, abandoned %v", got, errs, a.abandoned)
		}
	})
}

func TestCancellingTheRaceCancelsItsAttempts(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		a := newAttempts(co.Loop(), 2)
		var errs []error
		task := co.Loop().Go(func(co *loop.Coro) error {
			_, errs = a.race(co, time.Millisecond)
			return nil
		})
		until(t, co, "two attempts have started", func() bool { return len(a.started) == 2 })
		task.Cancel("")
		_, err := task.Await(co)
		check(t, err)
		turns(t, co)
		if len(errs) == 0 || !errors.Is(errs[len(errs)-1], loop.ErrCancelled) {
			t.Errorf("the errors are %v", errs)
		}
		a.want(t, "[0 1]", "[0 1]")
	})
}

func TestCancellingTheRaceInTheTurnOfASuccessAbandonsIt(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		a := newAttempts(co.Loop(), 1)
		racing := co.Loop().Go(func(co *loop.Coro) error {
			_, errs := a.race(co, never)
			return errors.Join(errs...)
		})
		turns(t, co)
		check(t, a.results[0].SetResult(5))
		ok[loop.Handle](t)(co.Loop().CallSoon(func() { racing.Cancel("") })) // after the attempt has gone on
		if _, err := racing.Await(co); !errors.Is(err, loop.ErrCancelled) {
			t.Errorf("the race ended with %v", err)
		}
		if fmt.Sprint(a.abandoned) != "[5]" {
			t.Errorf("abandoned %v, want [5]", a.abandoned)
		}
	})
}

func TestTheRaceEndsAfterItsLosers(t *testing.T) {
	for _, c := range []struct {
		what   string
		cancel bool // the race, while it waits for the loser
		late   bool // the loser connects nevertheless
	}{{what: "won"}, {what: "won and cancelled", cancel: true}, {what: "won twice", late: true}, {"won twice and cancelled", true, true}} {
		t.Run(c.what, func(t *testing.T) {
			inTask(t, func(t *testing.T, co *loop.Coro) {
				holds, release := false, loop.CreateFuture[struct{}](co.Loop())
				var abandoned []int
				ended := false
				attempt := func(co *loop.Coro, i int) (int, error) {
					if i == 1 {
						return 1, nil
					}
					err := loop.Sleep(co, never)
					holds = true
					_, herr := release.Await(co)
					check(t, herr)
					ended = true
					if c.late {
						err = nil
					}
					return 0, err
				}
				racing := loop.CreateTask(co.Loop(), func(co *loop.Coro) (int, error) {
					fd, errs := staggeredRace(co, 2, time.Millisecond, attempt, func(fd int) { abandoned = append(abandoned, fd) })
					if !ended {
						t.Error("an attempt is still under way")
					}
					return fd, errors.Join(errs...)
				}, nil)
				until(t, co, "the loser is cancelled", func() bool { return holds })
				if c.cancel {
					racing.Cancel("")
				}
				turns(t, co)
				check(t, release.SetResult(struct{}{}))
				fd, err := racing.Await(co)
				want := []int{}
				if c.late {
					want = append(want, 0)
				}
				if c.cancel {
					want = append(want, 1)
				}
				if c.cancel != errors.Is(err, loop.ErrCancelled) || !c.cancel && (fd != 1 || err != nil) || fmt.Sprint(abandoned) != fmt.Sprint(want) {
					t.Errorf("the race ended with %d, %v, abandoned %v, want %v", fd, err, abandoned, want)
				}
			})
		})
	}
}

func TestARaceOfAnotherTaskIsRefused(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		a := newAttempts(co.Loop(), 2)
		ok[loop.Handle](t)(co.Loop().CallSoon(func() {
			if _, errs := a.race(co, never); len(errs) != 1 || !errors.Is(errs[0], loop.ErrNotCurrent) {
				t.Errorf("the errors are %v", errs)
			}
		}))
		turns(t, co)
		a.want(t, "[]", "[]")
	})
}

func TestALoopThatIsClosedAfterTheRaceIsWonEndsItWithAnError(t *testing.T) {
	eachBackend(t, func(t *testing.T, name string) {
		l := ipcLoop(t, loop.WithBackend(name))
		a := newAttempts(l, 2)
		var raceErr error
		racing := l.Go(func(co *loop.Coro) error {
			_, errs := a.race(co, never)
			raceErr = (&ConnectOptions{}).combine(errs)
			return raceErr
		})
		winning := l.Go(func(co *loop.Coro) error {
			turns(t, co)
			ok[loop.Handle](t)(l.CallSoon(l.Stop))
			return a.results[0].SetResult(5) // the attempt goes on in the next turn, the race in the one after
		})
		check(t, l.RunForever())
		check(t, winning.Exception())
		if racing.Done() {
			t.Error("the race is over before the loop is closed")
		}
		l.SetExceptionHandler(func(*loop.Loop, *loop.ExceptionContext) {}) // the task is pending
		check(t, l.Close())
		if !errors.Is(raceErr, loop.ErrLoopClosed) || fmt.Sprint(a.abandoned) != "[5]" {
			t.Errorf("the race ended with %v, abandoned %v", raceErr, a.abandoned)
		}
	})
}

func TestTheTaskFactoryIsNotToldOfAttempts(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		co.Loop().SetTaskFactory(func(loop.AnyTask, *loop.TaskOptions) error { return errors.New("no more tasks") })
		defer co.Loop().SetTaskFactory(nil)
		for fails := range 3 {
			a := newAttempts(co.Loop(), 2)
			for i, f := range a.results {
				if i < fails {
					check(t, f.SetException(errors.New("refused")))
				} else {
					check(t, f.SetResult(i))
				}
			}
			got, errs := a.race(co, never)
			if fails < 2 && (got != fails || errs != nil) || fails == 2 && fmt.Sprint(errs) != "[refused refused]" {
				t.Errorf("after %d failures: %d, %v", fails, got, errs)
			}
		}
	})
}

func TestInterleaveAlternatesTheFamilies(t *testing.T) {
	four, six := unix.AF_INET, unix.AF_INET6
	infos := func(families ...int) (out []loop.AddrInfo) {
		for i, f := range families {
			out = append(out, loop.AddrInfo{Family: f, Proto: i})
		}
		return out
	}
	for _, c := range []struct {
		in    []loop.AddrInfo
		first int
		want  string
	}{
		{infos(six, six, six, four, four), 1, "[0 3 1 4 2]"},
		{infos(six, six, six, four, four), 2, "[0 1 3 2 4]"},
		{infos(six, six, six, four, four), 9, "[0 1 2 3 4]"},
		{infos(four, four), 1, "[0 1]"},
		{infos(four), 3, "[0]"},
		{nil, 1, "[]"},
	} {
		got := []int{}
		for _, ai := range interleave(c.in, c.first) {
			got = append(got, ai.Proto)
		}
		if fmt.Sprint(got) != c.want {
			t.Errorf("%d of the first family first: %v, want %s", c.first, got, c.want)
		}
	}
}

func TestHappyEyeballsConnects(t *testing.T) {
	inTask(t, func(t *testing.T, co *loop.Coro) {
		srv, port := localServer(t, co, newEcho, nil)
		p := &recorder{}
		tr, _, err := CreateConnection(co, protocolOf(p), "127.0.0.1", port, &ConnectOptions{HappyEyeballsDelay: 250 * time.Millisecond})
		check(t, err)
		check(t, tr.Write([]byte("x")))
		p.untilData(t, co, "x")
		tr.Close()
		check(t, p.untilLost(t, co))
		over(t, co, srv)
	})
}
