//go:build integration

package integration

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// slowness is how much longer a test may take on an emulated processor that
// shares its host with others.
const slowness = 10

// TestKernels runs every suite on each kernel in RINGLOOP_KERNELS, a list of
// vmlinuz files separated by colons, whose names end with the architecture. A
// foreign one has its shell from a Debian that is unpacked in the folder
// "system-" and the architecture, beside the kernel. Machines that go at once are
// -parallel many.
func TestKernels(t *testing.T) {
	list := os.Getenv("RINGLOOP_KERNELS")
	if list == "" {
		t.Skip("RINGLOOP_KERNELS names no kernel: start this test with ci/kernels")
	}
	roots := map[string]string{} // by architecture
	for _, kernel := range strings.Split(list, ":") {
		arch := archOf(kernel)
		if _, ok := machines[arch]; !ok {
			t.Fatalf("RINGLOOP_KERNELS: there is no machine for %s", kernel)
		}
		if roots[arch] == "" {
			roots[arch] = machineTree(t, arch, filepath.Dir(kernel))
		}
		root := roots[arch]
		t.Run(filepath.Base(kernel), func(t *testing.T) {
			t.Parallel()
			t.Run("allowed", func(t *testing.T) {
				t.Parallel()
				bootSuites(t, root, kernel)
			})
			// The setting works alike everywhere: once is enough.
			if arch == runtime.GOARCH && hasDisabledSysctl(kernel) {
				t.Run("disabled", func(t *testing.T) {
					t.Parallel()
					bootDisabled(t, root, kernel)
				})
			}
		})
	}
}

// archOf returns the architecture of a kernel, with which its name ends.
func archOf(kernel string) string { return kernel[strings.LastIndexByte(kernel, '-')+1:] }

// machineTree is buildTree for machines. dir has the system of a foreign
// architecture.
func machineTree(t *testing.T, arch, dir string) string {
	t.Helper()
	to := thisMachine
	if arch != to.arch {
		to = target{arch, filepath.Join(dir, "system-"+arch)}
	}
	root := buildTree(t, to, Programs)
	goBuild(t, arch, "build", "-o", filepath.Join(root, "init"), "./vminit")
	return root
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

// refusedSuites are those that see why io_uring is not to be had. That all go on
// with epoll then is shown in containers.
var refusedSuites = slices.DeleteFunc(slices.Clone(Suites), func(s Suite) bool {
	return s.Package != "uring" && s.Package != "loop"
})

// bootDisabled forbids io_uring by the sysctl. The suites must say so and go on
// with epoll.
func bootDisabled(t *testing.T, root, kernel string) {
	refusal := Refusal{Words: []string{"operation not permitted", "kernel.io_uring_disabled"}}
	plan := Plan{
		Sysctl: map[string]string{"kernel/io_uring_disabled": "2"},
		Steps:  []Step{doctorStep("doctor"), doctorStep("doctor-forced", "RINGLOOP_BACKEND=io_uring")},
	}
	for _, s := range refusedSuites {
		plan.Steps = append(plan.Steps, suiteStep(s))
	}
	results := boot(t, root, kernel, plan)
	t.Run("doctor", func(t *testing.T) {
		wantRefused(t, results["doctor"].report(t), refusal)
	})
	t.Run("doctor forced", func(t *testing.T) {
		wantForcedRefused(t, results["doctor-forced"].report(t), results["doctor-forced"].exit, refusal)
	})
	for _, s := range refusedSuites {
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
