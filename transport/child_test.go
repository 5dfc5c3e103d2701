package transport

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// childEnv makes the test binary do one of the things below instead of testing.
const childEnv = "RINGLOOP_TEST_CHILD"

func init() {
	if what := os.Getenv(childEnv); what != "" {
		os.Exit(child(what, os.Args[1:]))
	}
}

// child is what a child process of the tests does.
func child(what string, args []string) int {
	switch what {
	case "cat":
		if _, err := io.Copy(os.Stdout, os.Stdin); err != nil {
			return 1
		}
	case "both":
		fmt.Print("to stdout")
		fmt.Fprint(os.Stderr, "to stderr")
	case "exit":
		code, err := strconv.Atoi(args[0])
		if err != nil {
			panic(err)
		}
		return code
	case "forever":
		fmt.Print("ready")
		time.Sleep(time.Hour)
	case "usr1":
		c := make(chan os.Signal, 1)
		signal.Notify(c, syscall.SIGUSR1)
		fmt.Print("ready")
		<-c
		fmt.Print(" usr1")
	case "ids":
		sid, err := unix.Getsid(0)
		if err != nil {
			panic(err)
		}
		fmt.Print(os.Getpid() == sid, os.Getpid() == unix.Getpgrp(), os.Getuid(), os.Getgid())
	case "place":
		wd, err := os.Getwd()
		if err != nil {
			panic(err)
		}
		fmt.Print(wd, " ", os.Getenv("PLACE"), " ", len(os.Environ()))
	case "fds":
		return listFDs()
	case "readfd":
		return readFD(args[0])
	case "endless":
		return endless()
	case "spew":
		n, err := strconv.Atoi(args[0])
		if err != nil {
			panic(err)
		}
		fmt.Print(strings.Repeat("x", n))
	case "closestdin":
		_ = os.Stdin.Close()
		fmt.Print("closed")
		time.Sleep(time.Hour)
	case "grandchild":
		return grandchild(args[0])
	case "hold":
		_, _ = io.Copy(io.Discard, os.NewFile(3, "until"))
	default:
		panic("no such child: " + what)
	}
	return 0
}

// listFDs prints the numbers of the descriptors that the child inherited: those
// that are not close-on-exec, since all that Go opens by itself are.
func listFDs() int {
	for fd := range 256 {
		flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if err == nil && (fd < 3 || flags&unix.FD_CLOEXEC == 0) {
			fmt.Print(fd, " ")
		}
	}
	return 0
}

func readFD(number string) int {
	fd, err := strconv.Atoi(number)
	if err != nil {
		panic(err)
	}
	if _, err := io.Copy(os.Stdout, os.NewFile(uintptr(fd), "given")); err != nil {
		return 1
	}
	return 0
}

// endless writes until nobody reads any more, and reports the error as its exit
// status.
func endless() int {
	// Without this, the signal of a broken standard output ends a Go program.
	signal.Ignore(syscall.SIGPIPE)
	line := []byte("more\n")
	for {
		if _, err := unix.Write(1, line); err == unix.EPIPE {
			return 32
		} else if err != nil {
			return 1
		}
	}
}

// grandchild starts a process that holds the standard output until the pipe of
// descriptor 3 ends, prints its number, and exits before it.
func grandchild(code string) int {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"=hold")
	cmd.Stdout = os.Stdout
	cmd.ExtraFiles = []*os.File{os.NewFile(3, "until")}
	if err := cmd.Start(); err != nil {
		panic(err)
	}
	fmt.Print(cmd.Process.Pid)
	n, err := strconv.Atoi(code)
	if err != nil {
		panic(err)
	}
	return n
}
