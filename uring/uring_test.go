package uring

import (
	"testing"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/backend/backendtest"
)

// configurations are the ways in which the backend can work: as it does on
// this kernel, and without the features that change what it does.
var configurations = []struct {
	name    string
	options *Options
}{
	{"default", nil},
	{"bare setup, one by one", &Options{Disable: []string{
		DeferTaskrun, SingleIssuer, CoopTaskrun, TaskrunFlag, SubmitAll, NoSQArray,
		MultishotAccept, MultishotRecv, WaitID, RegisteredRing,
	}}},
	{"cooperative without provided buffers", &Options{Disable: []string{DeferTaskrun, ProvidedBuffers}}},
	{"tiny queues and one buffer", &Options{SQEntries: 4, CQEntries: 8, Buffers: 1, BufferSize: 512}},
}

func TestConformance(t *testing.T) {
	run := backendtest.Run
	for _, c := range configurations {
		run(t, c.name, func() (backend.Backend, error) { return New(c.options) })
		if testing.Short() {
			return // the first is what a loop uses
		}
		run = backendtest.RunQuick
	}
}
