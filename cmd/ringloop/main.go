// Command ringloop tells what Ringloop finds on this machine.
//
//	ringloop doctor [-json]   the place, the backend that auto chooses, and why
//	ringloop version          the version
//
// Doctor ends with status 0 if a backend works, and 1 if none does or the one
// that RINGLOOP_BACKEND demands cannot be had. A mistake in the arguments is
// status 2.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/debug"
)

const usage = `Usage:
  ringloop doctor [-json]   say which backend an event loop would use here, and why
  ringloop version          print the version

The environment variable RINGLOOP_BACKEND (auto, io_uring or epoll) forces the
choice, for doctor as for every program that uses Ringloop.
`

// The statuses with which the command ends.
const (
	statusOK = iota
	statusNoBackend
	statusUsage
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run carries out the command and returns its status.
func run(args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return statusUsage
	}
	switch name, args := args[0], args[1:]; name {
	case "doctor":
		return runDoctor(args, stdout, stderr)
	case "version":
		return runVersion(args, stdout, stderr)
	case "help", "-h", "-help", "--help":
		fmt.Fprint(stdout, usage)
		return statusOK
	default:
		fmt.Fprintf(stderr, "ringloop: unknown command %q\n%s", name, usage)
		return statusUsage
	}
}

// parse parses a command's arguments, which may hold flags only. It returns
// false and the status if the command is over.
func parse(flags *flag.FlagSet, args []string, stdout, stderr io.Writer) (int, bool) {
	flags.SetOutput(io.Discard)
	err := flags.Parse(args)
	switch {
	case err == flag.ErrHelp:
		fmt.Fprint(stdout, usage)
		return statusOK, false
	case err == nil && flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if err != nil {
		fmt.Fprintf(stderr, "ringloop %s: %v\n%s", flags.Name(), err, usage)
		return statusUsage, false
	}
	return statusOK, true
}

func runDoctor(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("doctor", flag.ContinueOnError)
	asJSON := flags.Bool("json", false, "print JSON")
	if status, ok := parse(flags, args, stdout, stderr); !ok {
		return status
	}
	r := examine(os.DirFS("/"), os.Environ(), tryLoop)
	write := r.writeText
	if *asJSON {
		write = r.writeJSON
	}
	if err := write(stdout); err != nil {
		fmt.Fprintf(stderr, "ringloop doctor: %v\n", err)
		return statusNoBackend
	}
	if r.Backend == "" {
		return statusNoBackend
	}
	return statusOK
}

func runVersion(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("version", flag.ContinueOnError)
	if status, ok := parse(flags, args, stdout, stderr); !ok {
		return status
	}
	version := "(unknown)"
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Version + " " + info.GoVersion
	}
	fmt.Fprintln(stdout, "ringloop", version)
	return statusOK
}
