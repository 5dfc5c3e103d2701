package main

import (
	"io/fs"
	"strings"
)

// container names what the process runs in, by the marks that the engines
// leave, the most telling first. It is empty if there is none.
func container(root fs.FS, environ []string) string {
	for _, find := range []func(fs.FS, []string) string{
		byKubernetes, byVariable, byMarkFile, byCgroup,
	} {
		if name := find(root, environ); name != "" {
			return name
		}
	}
	return ""
}

// byKubernetes looks for what every pod is given.
func byKubernetes(root fs.FS, environ []string) string {
	for _, v := range environ {
		if strings.HasPrefix(v, "KUBERNETES_SERVICE_HOST=") {
			return "kubernetes"
		}
	}
	if exists(root, "var/run/secrets/kubernetes.io") || exists(root, "run/secrets/kubernetes.io") {
		return "kubernetes"
	}
	return ""
}

// byVariable looks for the variable "container", which systemd asks every
// engine to set: https://systemd.io/CONTAINER_INTERFACE.
func byVariable(root fs.FS, environ []string) string {
	for _, v := range environ {
		if name, ok := strings.CutPrefix(v, "container="); ok && name != "" {
			return name
		}
	}
	// Process 1 has it where this process does not, if it may be looked at.
	b, err := fs.ReadFile(root, "proc/1/environ")
	if err != nil {
		return firstLine(root, "run/systemd/container")
	}
	for v := range strings.SplitSeq(string(b), "\x00") {
		if name, ok := strings.CutPrefix(v, "container="); ok && name != "" {
			return name
		}
	}
	return firstLine(root, "run/systemd/container")
}

// byMarkFile looks for the files that engines put into the root.
func byMarkFile(root fs.FS, _ []string) string {
	switch {
	case exists(root, "run/.containerenv"):
		return "podman"
	case exists(root, ".dockerenv"):
		return "docker"
	}
	return ""
}

// byCgroup looks at the names of the control groups, which engines choose. A
// container with a cgroup namespace of its own sees none of them.
func byCgroup(root fs.FS, _ []string) string {
	b, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return ""
	}
	for _, c := range []struct{ mark, name string }{
		{"/kubepods", "kubernetes"},
		{"/libpod-", "podman"},
		{"/docker/", "docker"},
		{"/docker-", "docker"},
		{"/lxc/", "lxc"},
		{"/lxc.payload", "lxc"},
	} {
		if strings.Contains(string(b), c.mark) {
			return c.name
		}
	}
	return ""
}

// exists reports whether there is such a file.
func exists(root fs.FS, name string) bool {
	_, err := fs.Stat(root, name)
	return err == nil
}
