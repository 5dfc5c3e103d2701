package main

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/integration"
)

// alarms are what a line of the kernel's log contains when a program has made
// the kernel misbehave. Stall and lockup warnings are left out: a busy host is
// enough to cause them in an emulated machine.
var alarms = []string{
	"WARNING: CPU",
	"kernel BUG",
	"BUG: kernel",
	"BUG: unable",
	"BUG: KASAN",
	"Oops",
	"general protection fault",
	"refcount_t:",
	"Out of memory",
}

// kernelLog reads the kernel's log from where it was opened.
type kernelLog struct {
	fd  int
	buf [8192]byte
}

// openKernelLog opens the log behind what is in it now.
func openKernelLog() (*kernelLog, error) {
	fd, err := unix.Open("/dev/kmsg", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/kmsg: %w", err)
	}
	if _, err := unix.Seek(fd, 0, unix.SEEK_END); err != nil {
		return nil, fmt.Errorf("seek /dev/kmsg: %w", err)
	}
	return &kernelLog{fd: fd}, nil
}

// report sends the alarming lines that the kernel has logged since the last
// call.
func (l *kernelLog) report(rep *report, step string) {
	for {
		// Each read gives one record. EPIPE says that some were overwritten.
		n, err := unix.Read(l.fd, l.buf[:])
		if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return
		}
		line := string(l.buf[:n])
		for _, alarm := range alarms {
			if strings.Contains(line, alarm) {
				rep.send(integration.Event{Step: step, Kernel: strings.TrimSpace(line)})
				break
			}
		}
	}
}
