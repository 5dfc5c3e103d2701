package main

import (
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestMistakesInTheArgumentsAreStatus2(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "Usage:"},
		{[]string{"nurse"}, `unknown command "nurse"`},
		{[]string{"-json"}, `unknown command "-json"`},
		{[]string{"doctor", "-xml"}, "doctor: flag provided but not defined: -xml"},
		{[]string{"doctor", "now"}, `doctor: unexpected argument "now"`},
		{[]string{"version", "-v"}, "version: flag provided but not defined: -v"},
	} {
		var out, errs strings.Builder
		status := run(c.args, &out, &errs)
		if status != statusUsage || out.Len() > 0 || !strings.Contains(errs.String(), c.want) {
			t.Errorf("%q: status %d, output %q, errors %q; want status 2, no output and an error with %q", c.args, status, out.String(), errs.String(), c.want)
		}
	}
}

func TestHelpIsPrinted(t *testing.T) {
	for _, args := range [][]string{{"help"}, {"-h"}, {"doctor", "-h"}, {"version", "-help"}} {
		var out strings.Builder
		if status := run(args, &out, io.Discard); status != statusOK || out.String() != usage {
			t.Errorf("%q: status %d and %q", args, status, out.String())
		}
	}
}

func TestVersionNamesTheProgramAndGo(t *testing.T) {
	var out strings.Builder
	if status := run([]string{"version"}, &out, io.Discard); status != statusOK {
		t.Errorf("status %d", status)
	}
	if !strings.HasPrefix(out.String(), "ringloop ") || !strings.Contains(out.String(), " go1.") {
		t.Errorf("got %q", out.String())
	}
}

func TestDoctorPrintsForPeopleAndForMachines(t *testing.T) {
	t.Setenv("RINGLOOP_BACKEND", "epoll")
	var out strings.Builder
	if status := run([]string{"doctor"}, &out, io.Discard); status != statusOK || !strings.Contains(out.String(), "kernel") {
		t.Errorf("status %d and:\n%s", status, out.String())
	}
	out.Reset()
	status := run([]string{"doctor", "-json"}, &out, io.Discard)
	var r report
	if err := json.Unmarshal([]byte(out.String()), &r); err != nil || status != statusOK || r.Backend != "epoll" {
		t.Errorf("status %d, backend %q, error %v; want 0, epoll, nil", status, r.Backend, err)
	}
}

func TestDoctorEndsWithStatus1WithoutABackend(t *testing.T) {
	t.Setenv("RINGLOOP_BACKEND", "kqueue")
	var out strings.Builder
	if status := run([]string{"doctor"}, &out, io.Discard); status != statusNoBackend || !strings.Contains(out.String(), "kqueue") {
		t.Errorf("status %d, want 1 and the demand in:\n%s", status, out.String())
	}
}

// brokenWriter fails, like a full disk.
type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errors.New("disk is full") }

func TestDoctorSaysWhenItCannotPrint(t *testing.T) {
	var errs strings.Builder
	if status := run([]string{"doctor"}, brokenWriter{}, &errs); status != statusNoBackend || !strings.Contains(errs.String(), "disk is full") {
		t.Errorf("status %d and errors %q", status, errs.String())
	}
}
