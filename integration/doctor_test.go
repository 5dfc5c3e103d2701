//go:build integration

package integration

import (
	"encoding/json"
	"testing"
)

// doctorReport is the part of what ringloop doctor -json prints that is checked
// here.
type doctorReport struct {
	Kernel    string `json:"kernel"`
	Container string `json:"container"`
	Backend   string `json:"backend"`
	Reason    string `json:"reason"`
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
