package backend

import (
	"fmt"
	"strings"
)

// Feature is something that a backend can use if the kernel has and allows it.
type Feature struct {
	// Name is short and stable, as in "multishot-recv".
	Name string
	// Since is the first kernel that has it, as in "6.0".
	Since string
	// InUse reports whether the backend uses it.
	InUse bool
	// Reason says why it is not in use, and is nil if it is. It is the error of
	// the probe that exercised the feature, or says that it was not asked for.
	Reason error
	// Instead says what the backend does without it.
	Instead string
}

// String describes the feature in one line.
func (f Feature) String() string {
	if f.InUse {
		return f.Name + ": in use"
	}
	return fmt.Sprintf("%s: not in use: %v; instead: %s", f.Name, f.Reason, f.Instead)
}

// Features is what a backend uses.
type Features struct {
	// Backend is the backend's name.
	Backend string
	// List holds every optional feature, in a fixed order.
	List []Feature
}

// Lookup returns the feature with the given name.
func (fs Features) Lookup(name string) (Feature, bool) {
	for _, f := range fs.List {
		if f.Name == name {
			return f, true
		}
	}
	return Feature{}, false
}

// String lists the features, one a line.
func (fs Features) String() string {
	var b strings.Builder
	for _, f := range fs.List {
		fmt.Fprintf(&b, "%s\n", f)
	}
	return b.String()
}
