//go:build integration

package integration

import (
	"bytes"
	"debug/elf"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// etc holds the few files in which the resolver and the user lookup of the
// standard library look.
var etc = map[string]string{
	"hosts":         "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n",
	"passwd":        "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
	"group":         "root:x:0:\nnogroup:x:65534:\n",
	"nsswitch.conf": "hosts: files dns\n",
}

// target is what a tree is built for.
type target struct {
	// arch is the processor, by Go's name.
	arch string
	// system is the root of a Debian of that architecture.
	system string
}

// libraries has the folders of libraries in a system, by architecture.
var libraries = map[string]string{"amd64": "lib/x86_64-linux-gnu", "arm64": "lib/aarch64-linux-gnu"}

// thisMachine is the target of the containers.
var thisMachine = target{runtime.GOARCH, "/"}

// buildTree fills a folder with the static binaries of all suites and of the
// programs, and the files they need, laid out as in the root of a container or
// machine.
func buildTree(t *testing.T, to target, programs []string) string {
	t.Helper()
	root := t.TempDir()
	for _, s := range Suites {
		copyPackage(t, s.Package, root)
		goBuild(t, to.arch, "test", "-c", "-o", filepath.Join(root, s.Binary()), "../"+s.Package)
	}
	for _, pkg := range programs {
		goBuild(t, to.arch, "build", "-o", filepath.Join(root, Program(pkg)), "../"+pkg)
	}
	installShell(t, to, root)
	for name, text := range etc {
		writeFile(t, filepath.Join(root, "etc", name), []byte(text))
	}
	return root
}

// goBuild runs the go command without cgo, so that what it builds is static.
func goBuild(t *testing.T, arch string, args ...string) {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOARCH="+arch)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// copyPackage copies a package's folder: a test may read its testdata and even
// its source.
func copyPackage(t *testing.T, pkg, root string) {
	t.Helper()
	if err := os.CopyFS(filepath.Join(root, pkg), os.DirFS(filepath.Join("..", pkg))); err != nil {
		t.Fatal(err)
	}
}

// installShell gives the tests of child processes a shell and the usual small
// programs.
func installShell(t *testing.T, to target, root string) {
	t.Helper()
	const busybox = "/bin/busybox"
	copyProgram(t, to, busybox, root)
	// This machine's own busybox can be asked for the list.
	applets, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		t.Fatalf("%s --list: %v; it is in Debian's package busybox-static", busybox, err)
	}
	for _, name := range strings.Fields(string(applets)) {
		link(t, busybox, filepath.Join(root, "bin", name))
	}
	// Busybox goes by the name it is called by. A shell may have any.
	copyProgram(t, to, "/bin/dash", root)
	if err := os.Remove(filepath.Join(root, "bin/sh")); err != nil {
		t.Fatal(err)
	}
	link(t, "/bin/dash", filepath.Join(root, "bin/sh"))
}

// link makes a symbolic link unless there is a file of that name.
func link(t *testing.T, to, name string) {
	t.Helper()
	if err := os.Symlink(to, name); err != nil && !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
}

// copyProgram copies a program of the target's system, and the libraries it needs.
func copyProgram(t *testing.T, from target, program, root string) {
	t.Helper()
	for _, name := range append(needs(t, from, program), program) {
		b, err := os.ReadFile(filepath.Join(from.system, name))
		if err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(root, name)
		writeFile(t, to, b)
		if err := os.Chmod(to, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// needs returns the paths of the libraries that a program is linked with when it is
// started, which need no others, and of what links it.
func needs(t *testing.T, from target, program string) []string {
	t.Helper()
	f, err := elf.Open(filepath.Join(from.system, program))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	interp := f.Section(".interp")
	if interp == nil {
		return nil // it is static
	}
	linker, err := interp.Data()
	if err != nil {
		t.Fatal(err)
	}
	names, err := f.ImportedLibraries()
	if err != nil {
		t.Fatal(err)
	}
	paths := []string{string(bytes.TrimRight(linker, "\x00"))}
	for _, name := range names {
		paths = append(paths, filepath.Join("/", libraries[from.arch], name))
	}
	return paths
}

// writeFile writes a file and the folders above it.
func writeFile(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

// check fails the test unless the output of a suite is as it should be.
func check(t *testing.T, output []byte, exit int, refusal Refusal) {
	t.Helper()
	o, err := Judge(output, exit, refusal)
	if err != nil {
		t.Fatal(err)
	}
	t.Log(o)
	if len(o.Problems) > 0 {
		t.Logf("the last of the output:\n%s", tail(output, 4000))
	}
	for _, p := range o.Problems {
		if p.Test == "" {
			t.Error(p.Text)
			continue
		}
		// As a test of its own, it is named where go test sums up.
		t.Run(p.Test, func(t *testing.T) { t.Error(p.Text) })
	}
}

// tail returns the last n bytes of b.
func tail(b []byte, n int) []byte {
	return b[max(0, len(b)-n):]
}
