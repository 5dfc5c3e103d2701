package uring

import (
	"strings"
	"testing"

	"github.com/seed-80cfe818/ringloop/backend"
	"github.com/seed-80cfe818/ringloop/backend/backendtest"
)

// configurations are the ways in which the backend can work: as it does on
// this kernel, and without each feature that changes what it does.
var configurations = map[string]*Options{
	"default":                    nil,
	"without-defer-taskrun":      {Disable: []string{DeferTaskrun}},
	"without-single-issuer":      {Disable: []string{SingleIssuer}},
	"without-taskrun-flag":       {Disable: []string{TaskrunFlag}},
	"bare-setup":                 {Disable: []string{DeferTaskrun, SingleIssuer, CoopTaskrun, TaskrunFlag, SubmitAll, NoSQArray}},
	"without-registered-ring":    {Disable: []string{RegisteredRing}},
	"without-provided-buffers":   {Disable: []string{ProvidedBuffers}},
	"without-multishot":          {Disable: []string{MultishotAccept, MultishotRecv}},
	"without-waitid":             {Disable: []string{WaitID}},
	"tiny-queues-and-one-buffer": {SQEntries: 4, CQEntries: 8, Buffers: 1, BufferSize: 512},
}

func TestConformance(t *testing.T) {
	for name, o := range configurations {
		if testing.Short() && strings.HasPrefix(name, "without-") {
			continue
		}
		backendtest.Run(t, name, func() (backend.Backend, error) { return New(o) })
	}
}
