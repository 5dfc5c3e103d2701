package main

import (
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"text/tabwriter"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/loop"
)

// report is what doctor found.
type report struct {
	place
	// Demand is the value of RINGLOOP_BACKEND, and empty if it is not set.
	Demand string `json:"demand"`
	// Backend is the backend that a loop uses here, and empty if none works or
	// the demand cannot be met.
	Backend string `json:"backend"`
	// Reason says why it is that one, or why it is none.
	Reason string `json:"reason"`
	// Backends holds every backend.
	Backends []backendReport `json:"backends"`
}

// backendReport says whether a backend works and what it uses.
type backendReport struct {
	Name  string `json:"name"`
	Works bool   `json:"works"`
	// Error says why it does not work.
	Error    string          `json:"error,omitempty"`
	Features []featureReport `json:"features,omitempty"`
}

// featureReport is a backend.Feature.
type featureReport struct {
	Name    string `json:"name"`
	Since   string `json:"since"`
	InUse   bool   `json:"inUse"`
	Reason  string `json:"reason,omitempty"`
	Instead string `json:"instead,omitempty"`
}

// examine looks at the place and tries every backend.
func examine(root fs.FS, environ []string, try tryFunc) *report {
	r := &report{place: inspect(root, environ)}
	for _, v := range environ {
		if demand, ok := strings.CutPrefix(v, loop.BackendEnv+"="); ok {
			r.Demand = demand
		}
	}
	features, reason, err := try("")
	if err != nil {
		r.Reason = err.Error()
	} else {
		r.Backend, r.Reason = features.Backend, reason
	}
	for _, name := range candidates {
		b := backendReport{Name: name}
		if features, _, err := try(name); err != nil {
			b.Error = err.Error()
		} else {
			b.Works, b.Features = true, describe(features)
		}
		r.Backends = append(r.Backends, b)
	}
	return r
}

// describe turns features into what is printed.
func describe(fs backend.Features) []featureReport {
	var list []featureReport
	for _, f := range fs.List {
		d := featureReport{Name: f.Name, Since: f.Since, InUse: f.InUse}
		if !f.InUse {
			d.Instead = f.Instead
			if f.Reason != nil {
				d.Reason = f.Reason.Error()
			}
		}
		list = append(list, d)
	}
	return list
}

// writeJSON prints the report for machines.
func (r *report) writeJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// writeText prints the report for people.
func (r *report) writeText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	r.place.writeText(t)
	if r.Demand != "" {
		fmt.Fprintf(t, "%s\t%s\n", loop.BackendEnv, r.Demand)
	}
	fmt.Fprintf(t, "backend\t%s\n", or(r.Backend, "none"))
	fmt.Fprintf(t, "because\t%s\n", r.Reason)
	for _, b := range r.Backends {
		b.writeText(t)
	}
	return t.Flush()
}

// writeText prints what was found about the machine and the process.
func (p place) writeText(w io.Writer) {
	fmt.Fprintf(w, "kernel\t%s\n", or(p.Kernel, "unknown"))
	fmt.Fprintf(w, "architecture\t%s, %d CPUs\n", p.Arch, p.CPUs)
	fmt.Fprintf(w, "container\t%s\n", or(p.Container, "none found"))
	fmt.Fprintf(w, "seccomp\t%s\n", or(p.Seccomp, "unknown"))
	fmt.Fprintf(w, "kernel.io_uring_disabled\t%s\n", or(p.IOUringDisabled, "not found (Linux has it since 6.6)"))
	fmt.Fprintf(w, "open files\t%s\n", p.OpenFiles)
	fmt.Fprintf(w, "locked memory\t%s (bytes)\n", p.LockedMemory)
}

// writeText prints whether the backend works and what it uses.
func (b backendReport) writeText(w io.Writer) {
	if !b.Works {
		fmt.Fprintf(w, "\n%s\tdoes not work: %s\n", b.Name, b.Error)
		return
	}
	fmt.Fprintf(w, "\n%s\tworks\n", b.Name)
	for _, f := range b.Features {
		if f.InUse {
			fmt.Fprintf(w, "  %s\tin use\n", f.Name)
			continue
		}
		fmt.Fprintf(w, "  %s\tnot in use: %s; instead: %s\n", f.Name, f.Reason, f.Instead)
	}
}

// String returns the soft and the hard limit.
func (l limit) String() string {
	name := func(n uint64) string {
		if n == unlimited {
			return "unlimited"
		}
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%s, at most %s", name(l.Soft), name(l.Hard))
}

// or returns s, and other if s is empty.
func or(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
