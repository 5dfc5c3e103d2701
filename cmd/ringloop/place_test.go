package main

import (
	"testing"
	"testing/fstest"
)

func TestContainersAreRecognised(t *testing.T) {
	file := func(name, text string) fstest.MapFS {
		return fstest.MapFS{name: {Data: []byte(text)}}
	}
	for _, c := range []struct {
		name    string
		root    fstest.MapFS
		environ []string
		want    string
	}{
		{"no sign", fstest.MapFS{}, []string{"HOME=/"}, ""},
		{"docker's mark", file(".dockerenv", ""), nil, "docker"},
		{"podman's mark", file("run/.containerenv", ""), nil, "podman"},
		{"a pod's variable", file(".dockerenv", ""), []string{"KUBERNETES_SERVICE_HOST=10.0.0.1"}, "kubernetes"},
		{"a pod's secrets", file("var/run/secrets/kubernetes.io/serviceaccount/token", "x"), nil, "kubernetes"},
		{"an engine's variable", fstest.MapFS{}, []string{"container=podman"}, "podman"},
		{"an empty variable", fstest.MapFS{}, []string{"container="}, ""},
		{"process 1's variable", file("proc/1/environ", "TERM=linux\x00container=lxc\x00"), nil, "lxc"},
		{"systemd's file", file("run/systemd/container", "systemd-nspawn\n"), nil, "systemd-nspawn"},
		{"docker's control group", file("proc/self/cgroup", "2:cpu:/docker/1f2e\n"), nil, "docker"},
		{"docker's systemd scope", file("proc/self/cgroup", "0::/system.slice/docker-1f2e.scope\n"), nil, "docker"},
		{"a pod's control group", file("proc/self/cgroup", "0::/kubepods.slice/pod1/cri-1\n"), nil, "kubernetes"},
		{"lxc's control group", file("proc/self/cgroup", "0::/lxc.payload.web/init.scope\n"), nil, "lxc"},
		{"an ordinary control group", file("proc/self/cgroup", "0::/user.slice/session-1.scope\n"), nil, ""},
		{"the engine on its host", file("proc/self/cgroup", "0::/system.slice/docker.service\n"), nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := container(c.root, c.environ); got != c.want {
				t.Errorf("container is %q, want %q", got, c.want)
			}
		})
	}
}

func TestSeccompModesAreRead(t *testing.T) {
	for status, want := range map[string]string{
		"Name:\tx\nSeccomp:\t0\n":                      "off",
		"Seccomp:\t1\n":                                "strict",
		"Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n": "filter",
		"Name:\tx\n":                                   "",
	} {
		root := fstest.MapFS{"proc/self/status": {Data: []byte(status)}}
		if got := seccompMode(root); got != want {
			t.Errorf("of %q: %q, want %q", status, got, want)
		}
	}
	if got := seccompMode(fstest.MapFS{}); got != "" {
		t.Errorf("without /proc: %q, want nothing", got)
	}
}

func TestThePlaceIsInspected(t *testing.T) {
	p := inspect(fstest.MapFS{}, nil)
	if p.Kernel == "" || p.Arch == "" || p.CPUs < 1 || p.OpenFiles.Soft == 0 {
		t.Errorf("something is missing: %+v", p)
	}
}
