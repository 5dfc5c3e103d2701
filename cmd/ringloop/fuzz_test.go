package main

import (
	"bytes"
	"encoding/json"
	"slices"
	"testing"
	"testing/fstest"
)

// FuzzPlace has anything in the files that tell where the process runs.
func FuzzPlace(f *testing.F) {
	f.Add("Seccomp:\t2\n", "0::/docker/1\n", "container=lxc\x00", "2\n", "container=podman")
	f.Add("Seccomp:", "", "container=", "", "KUBERNETES_SERVICE_HOST=")
	f.Add("Seccomp:\t7\nSeccomp:\t1\n", "\x00", "\x00\x00", "\n\n", "")
	f.Fuzz(func(t *testing.T, status, cgroup, environ, disabled, variable string) {
		root := fstest.MapFS{
			"proc/self/status":                  {Data: []byte(status)},
			"proc/self/cgroup":                  {Data: []byte(cgroup)},
			"proc/1/environ":                    {Data: []byte(environ)},
			"proc/sys/kernel/io_uring_disabled": {Data: []byte(disabled)},
		}
		p := inspect(root, []string{variable})
		if !slices.Contains([]string{"", "off", "strict", "filter"}, p.Seccomp) {
			t.Errorf("seccomp is %q", p.Seccomp)
		}
		if bytes.ContainsRune([]byte(p.IOUringDisabled), '\n') {
			t.Errorf("the sysctl is %q", p.IOUringDisabled)
		}
		if b, err := json.Marshal(p); err != nil || !json.Valid(b) {
			t.Errorf("as JSON: %s, %v", b, err)
		}
	})
}
