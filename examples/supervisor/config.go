package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
)

// config is what to run, and how.
type config struct {
	commands []command
	restart  restartPolicy
	backoff  time.Duration
	grace    time.Duration
	backend  string
}

// command is a line for the shell, and the name in front of its output.
type command struct{ name, line string }

// restartPolicy says when a command that ended is started again.
type restartPolicy string

const (
	restartAlways    restartPolicy = "always"
	restartOnFailure restartPolicy = "on-failure"
	restartNever     restartPolicy = "never"
)

// Set implements flag.Value.
func (p *restartPolicy) Set(s string) error {
	switch r := restartPolicy(s); r {
	case restartAlways, restartOnFailure, restartNever:
		*p = r
		return nil
	}
	return errors.New("it is always, on-failure or never")
}

func (p *restartPolicy) String() string { return string(*p) }

// again reports whether a command that ended with the code is to be started
// again.
func (p restartPolicy) again(code int) bool {
	return p == restartAlways || p == restartOnFailure && code != 0
}

// parseConfig reads the command line and the file that it names.
func parseConfig(args []string, stderr io.Writer) (*config, error) {
	cfg := &config{restart: restartAlways}
	flags := flag.NewFlagSet("supervisor", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(stderr, `Usage: supervisor [flags] [name=command ...]

Runs commands, which are lines for the shell, side by side: relays their output
with the name in front, starts them again when they end, passes SIGHUP, SIGUSR1
and SIGUSR2 on, and stops them all at SIGINT or SIGTERM.

`)
		flags.PrintDefaults()
	}
	file := flags.String("config", "", "`file` of commands, one a line, as in name: command")
	flags.Var(&cfg.restart, "restart", "start commands again: always, on-failure or never")
	flags.DurationVar(&cfg.backoff, "backoff", time.Second, "wait before a restart; doubled, up to a minute, each time that a command fails at once")
	flags.DurationVar(&cfg.grace, "grace", 10*time.Second, "time between SIGTERM and SIGKILL")
	flags.StringVar(&cfg.backend, "backend", "", "auto, io_uring or epoll (default: $RINGLOOP_BACKEND, else auto)")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	switch {
	case cfg.backoff < 0:
		return nil, fmt.Errorf("-backoff %v: it must not be negative", cfg.backoff)
	case cfg.grace < 0:
		return nil, fmt.Errorf("-grace %v: it must not be negative", cfg.grace)
	}
	if *file != "" {
		if err := cfg.readFile(*file); err != nil {
			return nil, err
		}
	}
	for _, arg := range flags.Args() {
		if err := cfg.add(arg, "="); err != nil {
			return nil, err
		}
	}
	if len(cfg.commands) == 0 {
		return nil, errors.New("there is no command to run; see -help")
	}
	return cfg, nil
}

// readFile reads lines of the form name: command. Empty lines and those that
// begin with # are skipped.
func (cfg *config) readFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	scanner := bufio.NewScanner(f)
	for n := 1; scanner.Scan(); n++ {
		line := strings.TrimSpace(scanner.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		if err := cfg.add(line, ":"); err != nil {
			return fmt.Errorf("%s:%d: %w", name, n, err)
		}
	}
	return scanner.Err()
}

// add adds a command of the form name, separator, line.
func (cfg *config) add(s, separator string) error {
	name, line, ok := strings.Cut(s, separator)
	name, line = strings.TrimSpace(name), strings.TrimSpace(line)
	if !ok || name == "" || line == "" {
		return fmt.Errorf("%q is not of the form name%scommand", s, separator)
	}
	for _, c := range cfg.commands {
		if c.name == name {
			return fmt.Errorf("there are two commands with the name %q", name)
		}
	}
	cfg.commands = append(cfg.commands, command{name, line})
	return nil
}
