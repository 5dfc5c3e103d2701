//go:build integration

package integration

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// slowness is how much longer a test may take on an emulated processor that
// shares its host with others.
const slowness = 10

// TestKernels runs every suite on each kernel in RINGLOOP_KERNELS, a list of
// vmlinuz files separated by colons. Machines that go at once are -parallel many.
func TestKernels(t *testing.T) {
	list := os.Getenv("RINGLOOP_KERNELS")
	if list == "" {
		t.Skip("RINGLOOP_KERNELS names no kernel: start this test with ci/kernels")
	}
	root := buildTree(t, Programs)
	goBuild(t, "build", "-o", filepath.Join(root, "init"), "./vminit")
	for _, kernel := range strings.Split(list, ":") {
		t.Run(filepath.Base(kernel), func(t *testing.T) {
			t.Parallel()
			t.Run("allowed", func(t *testing.T) {
				t.Parallel()
				bootSuites(t, root, kernel)
			})
			if hasDisabledSysctl(kernel) {
				t.Run("disabled", func(t *testing.T) {
					t.Parallel()
					bootDisabled(t, root, kernel)
				})
			}
		})
	}
}

// hasDisabledSysctl reports whether the kernel has the setting
// kernel.io_uring_disabled, which came with 6.6.
func hasDisabledSysctl(kernel string) bool {
	return !strings.HasPrefix(filepath.Base(kernel), "vmlinuz-6.1.")
}

// bootSuites runs every suite and expects io_uring to be in use.
func bootSuites(t *testing.T, root, kernel string) {
	plan := Plan{Steps: []Step{doctorStep("doctor")}}
	for _, s := range Suites {
		plan.Steps = append(plan.Steps, suiteStep(s))
	}
	results := boot(t, root, kernel, plan)
	t.Run("doctor", func(t *testing.T) {
		d := results["doctor"].report(t)
		wantBackend(t, d, "io_uring")
		wantFeatures(t, d, "io_uring")
		wantFeatures(t, d, "epoll")
	})
	for _, s := range Suites {
		t.Run(s.Package, func(t *testing.T) {
			results[s.Package].check(t, Refusal{})
		})
	}
}

// bootDisabled forbids io_uring by the sysctl. The suites must say so and go on
// with epoll.
func bootDisabled(t *testing.T, root, kernel string) {
	refusal := Refusal{Words: []string{"operation not permitted", "kernel.io_uring_disabled"}}
	plan := Plan{
		Sysctl: map[string]string{"kernel/io_uring_disabled": "2"},
		Steps:  []Step{doctorStep("doctor"), doctorStep("doctor-forced", "RINGLOOP_BACKEND=io_uring")},
	}
	for _, s := range Suites {
		plan.Steps = append(plan.Steps, suiteStep(s))
	}
	results := boot(t, root, kernel, plan)
	t.Run("doctor", func(t *testing.T) {
		wantRefused(t, results["doctor"].report(t), refusal)
	})
	t.Run("doctor forced", func(t *testing.T) {
		wantForcedRefused(t, results["doctor-forced"].report(t), results["doctor-forced"].exit, refusal)
	})
	for _, s := range Suites {
		t.Run(s.Package, func(t *testing.T) {
			results[s.Package].check(t, refusal)
		})
	}
}

// suiteStep runs a suite's test binary.
func suiteStep(s Suite) Step {
	limit := slowness * s.Limit
	return Step{
		Name:  s.Package,
		Dir:   "/" + s.Package,
		Args:  []string{s.Binary(), "-test.v=test2json", "-test.short", "-test.timeout=" + limit.String()},
		Limit: limit + time.Minute,
	}
}

// doctorStep runs ringloop doctor.
func doctorStep(name string, env ...string) Step {
	return Step{
		Name:  name,
		Dir:   "/",
		Args:  []string{Program("cmd/ringloop"), "doctor", "-json"},
		Env:   env,
		Limit: slowness * 10 * time.Second,
	}
}

// encode returns v as JSON.
func encode(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	return b
}
