package transport

import (
	"errors"
	"time"

	"github.com/seed-80cfe818/ringloop/loop"
)

// interleave orders addresses so that their families alternate, after the first
// addresses of the first family, first of them in all (RFC 8305, section 4).
// Within a family the order stays.
func interleave(infos []loop.AddrInfo, first int) []loop.AddrInfo {
	var families []int
	of := map[int][]loop.AddrInfo{}
	for _, info := range infos {
		if of[info.Family] == nil {
			families = append(families, info.Family)
		}
		of[info.Family] = append(of[info.Family], info)
	}
	out := make([]loop.AddrInfo, 0, len(infos))
	if len(families) > 0 {
		lead := families[0]
		n := min(first-1, len(of[lead])-1)
		out = append(out, of[lead][:n]...)
		of[lead] = of[lead][n:]
	}
	for len(out) < len(infos) {
		for _, f := range families {
			if len(of[f]) > 0 {
				out = append(out, of[f][0])
				of[f] = of[f][1:]
			}
		}
	}
	return out
}

// race is a staggered race: attempts that are started one after the other until
// one has succeeded.
type race struct {
	attempt func(co *loop.Coro, i int) (int, error)
	abandon func(fd int)
	errs    []error
	tasks   []*loop.Task[struct{}]
	started int
	running int
	winner  int // what the attempt that succeeded has returned, -1 if none did
	over    bool
	hurry   bool // the next attempt is due
	changed waitList
}

// staggeredRace runs n attempts. Each starts when the one before has failed or
// the delay has passed since that was started; the first success cancels the
// others. It returns what that returned, or the errors of all attempts, in their
// order, or the error of the task's own wait, such as its cancellation. What an
// attempt has returned too late is given to abandon. When it returns, every
// attempt has ended.
func staggeredRace(co *loop.Coro, n int, delay time.Duration, attempt func(*loop.Coro, int) (int, error), abandon func(int)) (int, []error) {
	r := &race{attempt: attempt, abandon: abandon, errs: make([]error, n), winner: -1, hurry: true}
	r.changed.what = "one of several connection attempts"
	if err := co.CheckCurrent("connect"); err != nil {
		return -1, []error{err}
	}
	err := r.untilWon(co, delay)
	if last := r.stop(co); last != nil {
		err = last
	}
	if err == nil && r.winner >= 0 {
		return r.winner, nil
	}
	if err == nil {
		return -1, r.errs
	}
	if r.winner >= 0 {
		abandon(r.winner)
	}
	return -1, []error{err}
}

// untilWon starts attempts until one has succeeded or all have failed.
func (r *race) untilWon(co *loop.Coro, delay time.Duration) error {
	n := len(r.errs)
	for r.winner < 0 && (r.started < n || r.running > 0) {
		if r.hurry && r.started < n {
			timer, err := r.start(co, delay)
			if err != nil {
				return err
			}
			defer timer.Cancel()
			continue
		}
		if err := r.changed.wait(co); err != nil {
			return err
		}
	}
	return nil
}

// start begins the next attempt and the delay before the one after.
func (r *race) start(co *loop.Coro, delay time.Duration) (loop.TimerHandle, error) {
	i := r.started
	r.hurry = false
	r.started++
	r.running++
	r.tasks = append(r.tasks, co.Loop().GoInner("connection attempt", nil, func(co *loop.Coro) error {
		r.run(co, i)
		return nil
	}))
	return co.Loop().CallLater(delay, func() { r.next(i) })
}

// next makes the attempt after attempt i due.
func (r *race) next(i int) {
	if r.started == i+1 {
		r.hurry = true
		r.changed.wake()
	}
}

// run makes an attempt.
func (r *race) run(co *loop.Coro, i int) {
	err := errors.New("the attempt panicked")
	defer func() { r.ended(i, err) }()
	fd, aerr := r.attempt(co, i)
	err = aerr
	switch {
	case err != nil:
	case r.over || r.winner >= 0:
		r.abandon(fd)
	default:
		r.winner = fd
	}
}

// ended notes how attempt i has ended.
func (r *race) ended(i int, err error) {
	r.running--
	if r.errs[i] = err; err != nil {
		r.next(i)
	}
	r.changed.wake()
}

// stop ends the attempts that are under way and waits for their ends. The error
// is that of the wait, which only a cancellation does not cut short.
func (r *race) stop(co *loop.Coro) error {
	r.over = true
	for _, t := range r.tasks {
		t.Cancel("")
	}
	var cancelled error
	for r.running > 0 {
		err := r.changed.wait(co)
		if err != nil && !errors.Is(err, loop.ErrCancelled) {
			return err
		}
		if err != nil {
			cancelled = err
		}
	}
	return cancelled
}
