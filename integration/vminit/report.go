package main

import (
	"encoding/json"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/integration"
)

// report writes events to the serial port.
type report struct {
	port *os.File
	enc  *json.Encoder
	err  error
}

// openReport opens the serial port.
func openReport(device string) (*report, error) {
	port, err := os.OpenFile(device, os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, err
	}
	return &report{port: port, enc: json.NewEncoder(port)}, nil
}

// send writes one event. After the first error it does nothing.
func (r *report) send(e integration.Event) {
	if r.err == nil {
		r.err = r.enc.Encode(e)
	}
}

// close waits until everything has left the port, and returns the first error.
func (r *report) close() error {
	if r.err != nil {
		return fmt.Errorf("report: %w", r.err)
	}
	// TCSBRK with an argument drains the port, as tcdrain(3) does.
	if err := unix.IoctlSetInt(int(r.port.Fd()), unix.TCSBRK, 1); err != nil {
		return fmt.Errorf("drain %s: %w", r.port.Name(), err)
	}
	return r.port.Close()
}
