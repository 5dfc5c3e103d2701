package integration

import (
	"path"
	"time"
)

// Suite is a package whose tests are run in every place.
type Suite struct {
	// Package is the package's path in the module, as in "uring".
	Package string
	// Limit is how long its tests may take on real hardware.
	Limit time.Duration
}

// Suites lists the packages whose tests are run in every place.
var Suites = []Suite{
	{"backend", time.Minute},
	{"uring", 5 * time.Minute},
	{"epoll", 5 * time.Minute},
	{"loop", 5 * time.Minute},
	{"sockapi", 5 * time.Minute},
	{"transport", 5 * time.Minute},
}

// Programs lists the packages of the commands that are run in every place.
var Programs = []string{"cmd/ringloop"}

// Examples lists the packages of the examples that are run in containers.
var Examples = []string{
	"examples/echo",
	"examples/fileserver",
	"examples/proxy",
	"examples/redis",
}

// Binary returns the path of the suite's test binary, from the root of the
// container or machine. It is started in its own folder, as go test does.
func (s Suite) Binary() string {
	return "/" + s.Package + "/" + path.Base(s.Package) + ".test"
}

// Program returns the path of the command of package pkg, from the root of the
// container or machine.
func Program(pkg string) string {
	return "/bin/" + path.Base(pkg)
}
