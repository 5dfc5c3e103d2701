// Command supervisor runs commands side by side: it shows their output line by
// line with the command's name in front, starts them again when they end,
// passes signals on, and stops them gracefully.
//
//	supervisor 'web=./server -port 8080' 'worker=./worker'
//	supervisor -config Procfile -restart on-failure
//
// SIGINT and SIGTERM stop everything: each command gets SIGTERM and, after the
// time of grace or at a second signal, SIGKILL. SIGHUP, SIGUSR1 and SIGUSR2 are
// passed on. Each command is a line for the shell and a process group, which
// gets the signals; one program with arguments takes the shell's place. What it
// leaves behind in its group when it ends is killed. When nobody reads the output
// any more, the commands go on without it.
//
//	main.go     flags, signals and the exit status
//	config.go   what to run
//	unit.go     one command: running, restarting, stopping it
//	relay.go    its output, as a subprocess protocol
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/seed-80cfe818/ringloop/loop"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run is the program; it returns the exit status: 0 after a signal and when
// every command has ended well, else the status of the first that did not.
func run(args []string, stdout, stderr io.Writer) int {
	cfg, err := parseConfig(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintln(stderr, "supervisor:", err)
		return 2
	}
	l, err := loop.NewEventLoop(loop.WithBackend(cfg.backend))
	if err != nil {
		fmt.Fprintln(stderr, "supervisor:", err)
		return 1
	}
	status, err := supervise(l, cfg, stdout, stderr)
	if cerr := l.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		fmt.Fprintln(stderr, "supervisor:", err)
		return 1
	}
	return status
}

// supervise runs the commands until none is left.
func supervise(l *loop.Loop, cfg *config, stdout, stderr io.Writer) (int, error) {
	s := &supervisor{cfg: cfg, out: stdout, log: stderr}
	for _, c := range cfg.commands {
		s.units = append(s.units, &unit{s: s, name: c.name, command: c.line})
	}
	if err := s.handleSignals(l); err != nil {
		return 0, err
	}
	for _, u := range s.units {
		u.task = l.Go(u.run)
	}
	_, err := loop.RunUntilComplete(l, l.Go(func(co *loop.Coro) error {
		for _, u := range s.units {
			if _, err := u.task.Await(co); err != nil && !errors.Is(err, loop.ErrCancelled) {
				return err
			}
		}
		return nil
	}))
	if s.stops > 0 {
		return 0, err
	}
	return s.status, err
}

// supervisor is what the units share.
type supervisor struct {
	cfg      *config
	units    []*unit
	out, log io.Writer
	status   int // of the first command that failed
	stops    int // how often we were asked to stop
}

// handleSignals stops everything at some signals and passes others on.
func (s *supervisor) handleSignals(l *loop.Loop) error {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		if err := l.AddSignalHandler(sig, s.stop); err != nil {
			return err
		}
	}
	// Without a handler, writing to a pipe that nobody reads would end this
	// process and leave the commands alone. A signal that is ignored instead would
	// be ignored by the commands too.
	if err := l.AddSignalHandler(syscall.SIGPIPE, func() {}); err != nil {
		return err
	}
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2} {
		if err := l.AddSignalHandler(sig, func() { s.relay(sig) }); err != nil {
			return err
		}
	}
	return nil
}

// stop asks every unit to end, by cancelling its task.
func (s *supervisor) stop() {
	s.stops++
	for _, u := range s.units {
		u.task.Cancel("stop")
	}
}

// relay passes a signal on to every command that runs.
func (s *supervisor) relay(sig syscall.Signal) {
	for _, u := range s.units {
		if u.process != nil {
			u.signal(sig)
		}
	}
}
