//go:build integration

package integration

import (
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// How a container may refuse io_uring.
var (
	byEPERM   = Refusal{Words: []string{"operation not permitted", "seccomp"}}
	byENOSYS  = Refusal{Words: []string{"function not implemented", "seccomp"}}
	byMemlock = Refusal{Words: []string{"cannot allocate memory", "RLIMIT_MEMLOCK"}}
)

// containerCase is a kind of container and what to expect of it.
type containerCase struct {
	name  string
	where container
	// refusals are the ways in which io_uring may be refused there.
	refusals []Refusal
	// refused says that it is refused there for certain.
	refused bool
	// noSuites leaves the suites out: they make rings by the hundred, and the
	// kernel takes its time to release their locked memory.
	noSuites bool
}

// containerCases lists the kinds of containers.
func containerCases() []containerCase {
	// What the engine's default profile does depends on the engine's version,
	// and whether rings count as locked memory on the kernel's.
	byDefault := []Refusal{byEPERM, byENOSYS}
	return []containerCase{
		{name: "default profile", refusals: byDefault},
		{name: "unprivileged", where: container{unprivileged: true}, refusals: byDefault, noSuites: true},
		{name: "little locked memory", where: container{unprivileged: true, memlock: "65536"}, refusals: append(byDefault, byMemlock), noSuites: true},
		{name: "EPERM", where: container{seccomp: "testdata/seccomp-EPERM.json"}, refusals: []Refusal{byEPERM}, refused: true},
		{name: "ENOSYS", where: container{seccomp: "testdata/seccomp-ENOSYS.json"}, refusals: []Refusal{byENOSYS}, refused: true},
	}
}

// TestContainers runs everything in containers made FROM scratch, under the
// engine's default seccomp profile and under profiles that refuse io_uring.
// It is started by ci/containers.
func TestContainers(t *testing.T) {
	root := buildTree(t, thisMachine, slices.Concat(Programs, Examples))
	www := fillRoot(t, filepath.Join(root, "www"))
	image := buildImage(t, root)
	for _, c := range containerCases() {
		c.where.image = image
		t.Run(c.name, func(t *testing.T) {
			refusal := c.examine(t)
			t.Run("fileserver", func(t *testing.T) { c.where.serveFiles(t, www, refusal) })
			t.Run("echo, proxy and redis", func(t *testing.T) { c.where.serveExamples(t, refusal) })
			if refusal.Happens() {
				t.Run("fileserver forced", func(t *testing.T) { c.where.refuseToServe(t, refusal) })
			}
			if c.noSuites {
				return
			}
			for _, s := range Suites {
				t.Run(s.Package, func(t *testing.T) { c.where.runSuite(t, s, refusal) })
			}
		})
	}
}

// examine asks doctor whether io_uring is refused in the container, checks what
// it says, and returns the refusal.
func (c containerCase) examine(t *testing.T) Refusal {
	t.Helper()
	out, exit := c.where.run(t, "/", time.Minute, Program("cmd/ringloop"), "doctor", "-json")
	d := parseDoctor(t, out)
	if exit != 0 {
		t.Errorf("doctor ended with status %d, want 0", exit)
	}
	if d.Container != "docker" {
		t.Errorf("doctor takes the container for %q, want docker", d.Container)
	}
	wantFeatures(t, d, "epoll")
	if !c.refused && d.Backend == "io_uring" {
		wantFeatures(t, d, "io_uring")
		return Refusal{}
	}
	i := slices.IndexFunc(c.refusals, func(r Refusal) bool { return r.Explains(d.Reason) })
	refusal := c.refusals[max(i, 0)]
	wantRefused(t, d, refusal)
	forced := c.where.with("RINGLOOP_BACKEND=io_uring")
	out, exit = forced.run(t, "/", time.Minute, Program("cmd/ringloop"), "doctor", "-json")
	wantForcedRefused(t, parseDoctor(t, out), exit, refusal)
	return refusal
}

// runSuite runs a suite's tests in the container, without a limit on locked
// memory: see noSuites.
func (c container) runSuite(t *testing.T, s Suite, refusal Refusal) {
	limit := 3 * s.Limit
	c.lockMemory = true
	start := time.Now()
	// The shell becomes process 1, which inherits the orphans that tests leave.
	out, exit := c.run(t, "/"+s.Package, limit+time.Minute, "/bin/sh", "-c", `"$@"; exit $?`, "sh",
		s.Binary(), "-test.v=test2json", "-test.short", "-test.timeout="+limit.String())
	t.Logf("took %v", time.Since(start).Round(time.Millisecond))
	check(t, out, exit, refusal)
}
