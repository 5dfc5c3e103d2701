package integration

import "time"

// PlanFile is where vminit finds its Plan.
const PlanFile = "/plan.json"

// Plan is what vminit does before it powers the machine off.
type Plan struct {
	// Report is the device to which it writes its Events, as one JSON object a
	// line.
	Report string
	// Sysctl holds the settings to write under /proc/sys, by path.
	Sysctl map[string]string
	// Steps are the programs to run, one after the other.
	Steps []Step
}

// Step is one program to run.
type Step struct {
	Name string
	// Dir is the working directory.
	Dir  string
	Args []string
	// Env is added to vminit's own.
	Env []string
	// Limit is when the program is killed.
	Limit time.Duration
}

// Event is one line of vminit's report.
type Event struct {
	// Step names the step that the event is about.
	Step string `json:",omitempty"`
	// Output is what the step's program has written since the last event.
	Output []byte `json:",omitempty"`
	// Ended says that the step is over; Exit, Took and Err belong to it.
	Ended bool `json:",omitempty"`
	Exit  int  `json:",omitempty"`
	Took  time.Duration
	Err   string `json:",omitempty"`
	// Kernel is a line of the kernel's log that should not be there.
	Kernel string `json:",omitempty"`
	// Done says that every step is over.
	Done bool `json:",omitempty"`
}
