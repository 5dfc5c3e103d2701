//go:build integration

package integration

import (
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// TestContainers runs everything in containers made FROM scratch, under the
// engine's default seccomp profile and under profiles that refuse io_uring.
// It is started by ci/containers.
func TestContainers(t *testing.T) {
	root := buildTree(t)
	www := fillRoot(t, filepath.Join(root, "www"))
	image := buildImage(t, root)
	for _, p := range []struct {
		name  string
		where container
		// errnos are what io_uring_setup may answer there, if it is refused.
		errnos  []syscall.Errno
		refused bool
	}{
		{"default profile", container{image: image}, []syscall.Errno{syscall.EPERM, syscall.ENOSYS}, false},
		{"default profile, unprivileged", container{image: image, unprivileged: true}, []syscall.Errno{syscall.EPERM, syscall.ENOSYS}, false},
		{"EPERM", container{image: image, seccomp: "testdata/seccomp-EPERM.json"}, []syscall.Errno{syscall.EPERM}, true},
		{"ENOSYS", container{image: image, seccomp: "testdata/seccomp-ENOSYS.json"}, []syscall.Errno{syscall.ENOSYS}, true},
	} {
		t.Run(p.name, func(t *testing.T) {
			refusal := examineContainer(t, p.where, p.errnos, p.refused)
			for _, s := range Suites {
				t.Run(s.Package, func(t *testing.T) { p.where.runSuite(t, s, refusal) })
			}
			t.Run("fileserver", func(t *testing.T) { p.where.serveFiles(t, www, refusal) })
			if len(refusal.Words) > 0 {
				t.Run("fileserver forced", func(t *testing.T) { p.where.refuseToServe(t, refusal) })
			}
		})
	}
}

// examineContainer asks doctor whether io_uring is refused in the container and
// checks what it says. It returns the refusal.
func examineContainer(t *testing.T, c container, errnos []syscall.Errno, refused bool) Refusal {
	t.Helper()
	out, exit := c.run(t, "/", time.Minute, Program("cmd/ringloop"), "doctor", "-json")
	d := parseDoctor(t, out)
	if exit != 0 {
		t.Errorf("doctor ended with status %d, want 0", exit)
	}
	if d.Container != "docker" {
		t.Errorf("doctor takes the container for %q, want docker", d.Container)
	}
	if !refused && d.Backend == "io_uring" {
		return Refusal{}
	}
	refusal := refusalOf(d, errnos)
	wantRefused(t, d, refusal)
	forced := c.with("RINGLOOP_BACKEND=io_uring")
	out, exit = forced.run(t, "/", time.Minute, Program("cmd/ringloop"), "doctor", "-json")
	wantForcedRefused(t, parseDoctor(t, out), exit, refusal)
	return refusal
}

// refusalOf returns the refusal by one of the errnos that doctor names, or the
// first if it names none.
func refusalOf(d doctorReport, errnos []syscall.Errno) Refusal {
	refusals := make([]Refusal, len(errnos))
	for i, e := range errnos {
		refusals[i] = Refusal{Words: []string{e.Error(), "seccomp"}}
	}
	i := slices.IndexFunc(refusals, func(r Refusal) bool { return r.Explains(d.Reason) })
	return refusals[max(i, 0)]
}

// runSuite runs a suite's tests in the container.
func (c container) runSuite(t *testing.T, s Suite, refusal Refusal) {
	limit := 3 * s.Limit
	out, exit := c.run(t, "/"+s.Package, limit+time.Minute,
		s.Binary(), "-test.v=test2json", "-test.timeout="+limit.String())
	check(t, out, exit, refusal)
}
