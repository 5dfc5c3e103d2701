package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-80cfe818/ringloop/backend"
)

// fakeTry stands for a machine on which io_uring is refused with an error.
func fakeTry(refused error) tryFunc {
	uring := backend.Features{Backend: "io_uring", List: []backend.Feature{
		{Name: "multishot-recv", Since: "6.0", InUse: true},
		{Name: "waitid", Since: "6.7", Reason: errors.New("invalid argument"), Instead: "pidfd and poll"},
	}}
	return func(demand string) (backend.Features, string, error) {
		switch {
		case demand == "epoll":
			return backend.Features{Backend: "epoll"}, "forced", nil
		case refused == nil:
			return uring, "io_uring is available", nil
		case demand == "io_uring":
			return backend.Features{}, "", refused
		}
		return backend.Features{Backend: "epoll"}, refused.Error(), nil
	}
}

func TestTheReportGivesTheChoiceAndEveryBackend(t *testing.T) {
	r := examine(fstest.MapFS{}, nil, fakeTry(nil))
	if r.Backend != "io_uring" || r.Reason != "io_uring is available" {
		t.Errorf("backend %q because %q", r.Backend, r.Reason)
	}
	want := []backendReport{
		{Name: "io_uring", Works: true, Features: []featureReport{
			{Name: "multishot-recv", Since: "6.0", InUse: true},
			{Name: "waitid", Since: "6.7", Reason: "invalid argument", Instead: "pidfd and poll"},
		}},
		{Name: "epoll", Works: true},
	}
	if diff := cmp.Diff(want, r.Backends); diff != "" {
		t.Errorf("backends (-want +got):\n%s", diff)
	}
}

func TestARefusedBackendIsReportedWithItsReason(t *testing.T) {
	r := examine(fstest.MapFS{}, nil, fakeTry(errors.New("refused by seccomp")))
	if r.Backend != "epoll" || r.Reason != "refused by seccomp" {
		t.Errorf("backend %q because %q, want epoll because of the refusal", r.Backend, r.Reason)
	}
	if b := r.Backends[0]; b.Works || b.Error != "refused by seccomp" {
		t.Errorf("io_uring: %+v, want the refusal", b)
	}
}

func TestADemandThatCannotBeMetLeavesNoBackend(t *testing.T) {
	refused := errors.New("refused by seccomp")
	try := func(demand string) (backend.Features, string, error) {
		if demand == "" {
			demand = "io_uring"
		}
		return fakeTry(refused)(demand)
	}
	r := examine(fstest.MapFS{}, []string{"RINGLOOP_BACKEND=io_uring"}, try)
	if r.Demand != "io_uring" || r.Backend != "" || r.Reason != "refused by seccomp" {
		t.Errorf("demand %q, backend %q because %q", r.Demand, r.Backend, r.Reason)
	}
}

func TestTheTextNamesEverythingInTheReport(t *testing.T) {
	root := fstest.MapFS{
		".dockerenv":                        {},
		"proc/self/status":                  {Data: []byte("Name:\tx\nSeccomp:\t2\n")},
		"proc/sys/kernel/io_uring_disabled": {Data: []byte("1\n")},
	}
	r := examine(root, []string{"RINGLOOP_BACKEND=auto"}, fakeTry(nil))
	r.LockedMemory = limit{Soft: 4096, Hard: unlimited}
	var out bytes.Buffer
	if err := r.writeText(&out); err != nil {
		t.Fatal(err)
	}
	// The columns are padded with spaces.
	text := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{
		"kernel " + r.Kernel,
		"container docker",
		"seccomp filter",
		"kernel.io_uring_disabled 1",
		"locked memory 4096, at most unlimited (bytes)",
		"RINGLOOP_BACKEND auto",
		"backend io_uring because io_uring is available",
		"multishot-recv in use",
		"waitid not in use: invalid argument; instead: pidfd and poll",
		"epoll works",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in:\n%s", want, out.String())
		}
	}
}

func TestTheTextDoesNotGuessWhatCannotBeRead(t *testing.T) {
	r := examine(fstest.MapFS{}, nil, fakeTry(nil))
	r.Kernel = "6.18.0"
	var out bytes.Buffer
	if err := r.writeText(&out); err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(out.String()), " ")
	for _, want := range []string{"container none found", "seccomp unknown", "kernel.io_uring_disabled not found (Linux has it since 6.6)"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in:\n%s", want, out.String())
		}
	}
}

func TestTheJSONHoldsTheWholeReport(t *testing.T) {
	r := examine(fstest.MapFS{}, nil, fakeTry(errors.New("refused by seccomp")))
	var out bytes.Buffer
	if err := r.writeJSON(&out); err != nil {
		t.Fatal(err)
	}
	var got report
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r, &got, cmp.AllowUnexported(report{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for _, key := range []string{`"kernel"`, `"backend"`, `"reason"`, `"backends"`, `"lockedMemory"`} {
		if !strings.Contains(out.String(), key) {
			t.Errorf("no %s in the JSON", key)
		}
	}
}

func TestDoctorFindsAWorkingBackendHere(t *testing.T) {
	t.Setenv("RINGLOOP_BACKEND", "")
	features, reason, err := tryLoop("")
	if err != nil {
		t.Fatal(err)
	}
	if features.Backend == "" || reason == "" {
		t.Errorf("backend %q because %q", features.Backend, reason)
	}
}

func TestDoctorTriesTheBackendThatIsAskedFor(t *testing.T) {
	features, _, err := tryLoop("epoll")
	if err != nil {
		t.Fatal(err)
	}
	if features.Backend != "epoll" {
		t.Errorf("got a loop on %q", features.Backend)
	}
	if _, _, err := tryLoop("kqueue"); err == nil {
		t.Error("there is a loop on a backend that does not exist")
	}
}
