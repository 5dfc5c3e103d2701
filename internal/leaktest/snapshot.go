package leaktest

import (
	"fmt"
	"os"
	"slices"
	"time"
)

// Snapshot is what was open and running at one moment.
type Snapshot struct {
	fds        map[int]string
	goroutines map[string]string
}

// Take makes a snapshot of the process. It fails if /proc is not mounted. A
// look-up of a name that an earlier test has cancelled goes on in package net for a
// moment, with a socket that belongs to no snapshot: Take waits for its end.
func Take() (*Snapshot, error) {
	if err := startPoller(); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(patience); lookingUp(goroutines()) && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	fds, err := FDs()
	if err != nil {
		return nil, err
	}
	return &Snapshot{fds: fds, goroutines: goroutines()}, nil
}

// startPoller lets the Go runtime open its own epoll instance and eventfd now,
// so that they belong to every snapshot and are never taken for a leak.
func startPoller() error {
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("opening a pipe: %w", err)
	}
	if err := r.Close(); err != nil {
		return err
	}
	return w.Close()
}

// Leaks describes everything that appeared since the snapshot and is still
// there after patience, and every descriptor that was closed or replaced, which
// is the mark of a double close elsewhere. The calling goroutine is no leak.
func (s *Snapshot) Leaks(patience time.Duration) []string {
	deadline := time.Now().Add(patience)
	for pause := time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		leaks := s.leaksNow()
		if len(leaks) == 0 || time.Now().After(deadline) {
			return leaks
		}
		time.Sleep(pause)
	}
}

func (s *Snapshot) leaksNow() []string {
	fds, err := FDs()
	if err != nil {
		return []string{err.Error()}
	}
	var leaks []string
	for fd, what := range fds {
		switch was, ok := s.fds[fd]; {
		case !ok:
			leaks = append(leaks, fmt.Sprintf("fd %d is open: %s", fd, describe(fd, what)))
		case was != what:
			leaks = append(leaks, fmt.Sprintf("fd %d was %s and is now %s", fd, was, describe(fd, what)))
		}
	}
	for fd, was := range s.fds {
		if _, ok := fds[fd]; !ok {
			leaks = append(leaks, fmt.Sprintf("fd %d was closed by someone who does not own it: %s", fd, was))
		}
	}
	slices.Sort(leaks)
	for id, stack := range goroutines() {
		if _, ok := s.goroutines[id]; !ok {
			leaks = append(leaks, stack)
		}
	}
	return leaks
}
