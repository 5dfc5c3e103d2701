//go:build integration

package integration

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
)

// doctorReport is the part of what ringloop doctor -json prints that is checked
// here.
type doctorReport struct {
	Kernel    string `json:"kernel"`
	Container string `json:"container"`
	Backend   string `json:"backend"`
	Reason    string `json:"reason"`
	Backends  []struct {
		Name     string `json:"name"`
		Works    bool   `json:"works"`
		Features []struct {
			Name    string `json:"name"`
			Since   string `json:"since"`
			InUse   bool   `json:"inUse"`
			Reason  string `json:"reason"`
			Instead string `json:"instead"`
		} `json:"features"`
	} `json:"backends"`
}

// parseDoctor decodes what ringloop doctor -json has printed.
func parseDoctor(t *testing.T, output []byte) doctorReport {
	t.Helper()
	var d doctorReport
	if err := json.Unmarshal(output, &d); err != nil {
		t.Fatalf("output of ringloop doctor: %v\n%s", err, output)
	}
	t.Logf("kernel %s, backend %q, because %s", d.Kernel, d.Backend, d.Reason)
	return d
}

// report returns what doctor has printed in a machine.
func (r *result) report(t *testing.T) doctorReport {
	t.Helper()
	r.wantEnded(t)
	return parseDoctor(t, r.output)
}

// wantBackend fails the test unless auto has chosen the backend.
func wantBackend(t *testing.T, d doctorReport, backend string) {
	t.Helper()
	if d.Backend != backend {
		t.Errorf("auto has chosen %q, want %q; reason: %s", d.Backend, backend, d.Reason)
	}
	if d.Reason == "" {
		t.Error("doctor gives no reason for the backend")
	}
}

// wantRefused fails the test unless auto has chosen epoll and said why.
func wantRefused(t *testing.T, d doctorReport, refusal Refusal) {
	t.Helper()
	wantBackend(t, d, "epoll")
	wantReason(t, d, refusal)
}

// wantForcedRefused fails the test unless the demand for io_uring was refused
// for the reason.
func wantForcedRefused(t *testing.T, d doctorReport, exit int, refusal Refusal) {
	t.Helper()
	if exit != 1 || d.Backend != "" {
		t.Errorf("io_uring is demanded and refused here, but doctor ended with status %d and backend %q, want 1 and none", exit, d.Backend)
	}
	wantReason(t, d, refusal)
}

// wantReason fails the test unless doctor's reason is the refusal.
func wantReason(t *testing.T, d doctorReport, refusal Refusal) {
	t.Helper()
	if !refusal.Explains(d.Reason) {
		t.Errorf("the reason is %q, want all of %q in it", d.Reason, refusal.Words)
	}
}

// wantFeatures fails the test unless the backend works and each of its features
// is either in use on a kernel that has it, or not in use for a stated reason.
func wantFeatures(t *testing.T, d doctorReport, backend string) {
	t.Helper()
	for _, b := range d.Backends {
		if b.Name != backend {
			continue
		}
		if !b.Works {
			t.Errorf("%s does not work", backend)
		}
		for _, f := range b.Features {
			switch {
			case f.InUse && older(t, d.Kernel, f.Since):
				t.Errorf("%s: %s is said to be in use on %s, but came with %s", backend, f.Name, d.Kernel, f.Since)
			case !f.InUse && (f.Reason == "" || f.Instead == ""):
				t.Errorf("%s: %s is not in use because %q, instead: %q; want both", backend, f.Name, f.Reason, f.Instead)
			case !f.InUse:
				t.Logf("%s: %s is not in use: %s", backend, f.Name, f.Reason)
			}
		}
		return
	}
	t.Errorf("doctor does not report on %s", backend)
}

// older reports whether a kernel release is older than a version such as "6.7".
func older(t *testing.T, release, version string) bool {
	t.Helper()
	parse := func(s string) [2]int {
		var v [2]int
		if _, err := fmt.Sscanf(s, "%d.%d", &v[0], &v[1]); err != nil {
			t.Fatalf("version %q: %v", s, err)
		}
		return v
	}
	a, b := parse(release), parse(version)
	return slices.Compare(a[:], b[:]) < 0
}
