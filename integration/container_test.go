//go:build integration

package integration

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// container says how to start a container.
type container struct {
	image string
	// seccomp is the file of its seccomp profile, and empty for the engine's.
	seccomp string
	// network is its network, and empty for a loopback interface only.
	network string
	// unprivileged takes away root and every capability.
	unprivileged bool
	// memlock is the limit on locked memory in bytes, and empty for the engine's.
	memlock string
	// lockMemory gives the capability that makes that limit void.
	lockMemory bool
	env        []string
}

// with returns the same container with one more variable in its environment.
func (c container) with(env string) container {
	c.env = append(c.env[:len(c.env):len(c.env)], env)
	return c
}

// command returns the command that runs args in a new container.
func (c container) command(ctx context.Context, name, dir string, args ...string) *exec.Cmd {
	docker := []string{"run", "--rm", "--name", name, "--tmpfs", "/tmp:exec", "--workdir", dir}
	if c.network != "" {
		docker = append(docker, "--network", c.network)
	} else {
		// The engine takes the IPv6 address from the loopback interface.
		docker = append(docker, "--network", "none", "--sysctl", "net.ipv6.conf.all.disable_ipv6=0")
	}
	if c.seccomp != "" {
		docker = append(docker, "--security-opt", "seccomp="+c.seccomp)
	}
	if c.unprivileged {
		docker = append(docker, "--user", "65534:65534", "--cap-drop", "ALL")
	}
	if c.memlock != "" {
		docker = append(docker, "--ulimit", "memlock="+c.memlock)
	}
	if c.lockMemory {
		docker = append(docker, "--cap-add", "IPC_LOCK")
	}
	for _, v := range c.env {
		docker = append(docker, "--env", v)
	}
	docker = append(docker, c.image)
	return exec.CommandContext(ctx, "docker", append(docker, args...)...)
}

// run runs args in a new container and returns the output and the status.
func (c container) run(t *testing.T, dir string, limit time.Duration, args ...string) ([]byte, int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	name := containerName(t)
	var out bytes.Buffer
	cmd := c.command(ctx, name, dir, args...)
	cmd.Stdout = &out
	cmd.Stderr = &out
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		t.Fatalf("%s was stopped after %v; the last of its output:\n%s", args[0], limit, tail(out.Bytes(), 4000))
	case err != nil && !errors.As(err, &exit):
		t.Fatal(err)
	// These are docker's own, see docker run's documentation.
	case cmd.ProcessState.ExitCode() >= 125 && cmd.ProcessState.ExitCode() <= 127:
		t.Fatalf("docker run %s: %v\n%s", args[0], err, out.Bytes())
	}
	return out.Bytes(), cmd.ProcessState.ExitCode()
}

// containerName returns a new name. Whatever is left of the container at the
// end of the test is removed.
func containerName(t *testing.T) string {
	t.Helper()
	name := "ringloop-" + strings.ToLower(rand.Text())
	t.Cleanup(func() {
		// It is usually gone by then, and docker says so with an error.
		_ = exec.Command("docker", "rm", "--force", name).Run()
	})
	return name
}

// buildImage makes an image FROM scratch of everything in root, and removes it
// at the end of the test.
func buildImage(t *testing.T, root string) string {
	t.Helper()
	writeFile(t, filepath.Join(root, "Dockerfile"), []byte("FROM scratch\nCOPY . /\n"))
	image := "ringloop-integration:" + strings.ToLower(rand.Text())
	cmd := exec.Command("docker", "build", "--quiet", "--tag", image, root)
	// BuildKit would want a component that Debian 12 does not have.
	cmd.Env = append(os.Environ(), "DOCKER_BUILDKIT=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("docker build: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("docker", "rmi", "--force", image).CombinedOutput(); err != nil {
			t.Errorf("docker rmi: %v\n%s", err, out)
		}
	})
	return image
}
