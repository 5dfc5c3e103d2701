package uring

import (
	"errors"
	"fmt"
	"slices"

	"github.com/seed-80cfe818/ringloop/backend"
)

// The names of the optional features, for Options.Disable and in
// backend.Features.
const (
	DeferTaskrun    = "defer-taskrun"
	SingleIssuer    = "single-issuer"
	CoopTaskrun     = "coop-taskrun"
	TaskrunFlag     = "taskrun-flag"
	SubmitAll       = "submit-all"
	NoSQArray       = "no-sqarray"
	RegisteredRing  = "registered-ring"
	ProvidedBuffers = "provided-buffers"
	MultishotAccept = "multishot-accept"
	MultishotRecv   = "multishot-recv"
	WaitID          = "waitid"
)

// featureList says of each feature since when the kernel has it and what the
// backend does without it.
var featureList = []backend.Feature{
	{Name: DeferTaskrun, Since: "6.1", Instead: "completions are posted whenever the thread enters the kernel"},
	{Name: SingleIssuer, Since: "6.0", Instead: "the kernel expects submissions from any thread"},
	{Name: CoopTaskrun, Since: "5.19", Instead: "the kernel interrupts the thread to post completions"},
	{Name: TaskrunFlag, Since: "5.19", Instead: "every wait enters the kernel"},
	{Name: SubmitAll, Since: "5.18", Instead: "a refused entry ends a batch, and the next call goes on behind it"},
	{Name: NoSQArray, Since: "6.6", Instead: "entries are submitted through an index array"},
	{Name: RegisteredRing, Since: "5.18", Instead: "the kernel looks up the ring's descriptor on every call"},
	{Name: ProvidedBuffers, Since: "5.19", Instead: "poll, then recv(2) into one buffer"},
	{Name: MultishotAccept, Since: "5.19", Instead: "one accept after the other"},
	{Name: MultishotRecv, Since: "6.0", Instead: "one recv after the other"},
	{Name: WaitID, Since: "6.7", Instead: "poll the pidfd, then waitid(2)"},
}

// abilities are the features that decide what is written into an entry.
type abilities struct {
	registeredRing, multishotAccept, multishotRecv, waitID bool
}

// Options configure a Backend. The zero value is the default.
type Options struct {
	// SQEntries is the number of entries of the submission queue, 128 if 0: a
	// short one stays in the processor's cache. More operations than that may be
	// submitted in one turn; they cost a system call per queue length. The kernel
	// rounds up to a power of two. Both queues are smaller where the process may
	// not lock enough memory.
	SQEntries uint32
	// CQEntries is the number of entries of the completion queue, 8192 if 0.
	// More completions are kept by the kernel and cost an extra system call.
	CQEntries uint32
	// BufferSize is the size in bytes of one provided buffer, 32 KiB if 0. One
	// completion of a recv without a buffer of its own delivers at most that, or
	// 64 KiB if much arrives on the connection, 256 KiB where system calls are
	// dear. A packet that is larger than a provided buffer is cut off.
	BufferSize int
	// Buffers is the number of provided buffers, a power of two up to 32768,
	// 256 if 0. Memory that no message ever reached is not used.
	Buffers int
	// Disable names features that are not to be used, as on a kernel that lacks
	// them.
	Disable []string
}

// withDefaults returns the options with their defaults filled in.
func (o *Options) withDefaults() (Options, error) {
	var opt Options
	if o != nil {
		opt = *o
	}
	fill := func(p *int, def int) {
		if *p == 0 {
			*p = def
		}
	}
	if opt.SQEntries == 0 {
		opt.SQEntries = 128
	}
	if opt.CQEntries == 0 {
		opt.CQEntries = 8192
	}
	fill(&opt.BufferSize, 32<<10)
	fill(&opt.Buffers, 256)
	if opt.CQEntries < opt.SQEntries {
		return opt, fmt.Errorf("uring.Options: CQEntries %d is less than SQEntries %d: %w", opt.CQEntries, opt.SQEntries, backend.ErrInvalid)
	}
	if opt.BufferSize < 0 || opt.BufferSize > 1<<30 {
		return opt, fmt.Errorf("uring.Options: BufferSize %d is not between 1 and 1 GiB: %w", opt.BufferSize, backend.ErrInvalid)
	}
	if n := opt.Buffers; n < 1 || n > 1<<15 || n&(n-1) != 0 {
		return opt, fmt.Errorf("uring.Options: Buffers %d is not a power of two up to 32768: %w", n, backend.ErrInvalid)
	}
	for _, name := range opt.Disable {
		if !slices.ContainsFunc(featureList, func(f backend.Feature) bool { return f.Name == name }) {
			return opt, fmt.Errorf("uring.Options: Disable names the unknown feature %q: %w", name, backend.ErrInvalid)
		}
	}
	return opt, nil
}

var errDisabled = errors.New("disabled by Options.Disable")

// refused returns the reasons for features that the options rule out, also
// because they build on one that is ruled out.
func (o *Options) refused() map[string]error {
	m := map[string]error{}
	for _, name := range o.Disable {
		m[name] = errDisabled
	}
	return m
}

// lose notes that a feature turned out not to work.
func (b *Backend) lose(name string, why error) {
	fs := *b.features.Load()
	fs.List = slices.Clone(fs.List)
	for i := range fs.List {
		if fs.List[i].Name == name {
			fs.List[i].InUse, fs.List[i].Reason = false, why
		}
	}
	b.features.Store(&fs)
}

// setFeatures fixes what is used, from the reasons for what is not.
func (b *Backend) setFeatures(missing map[string]error) {
	if why := missing[ProvidedBuffers]; why != nil && missing[MultishotRecv] == nil {
		missing[MultishotRecv] = fmt.Errorf("it needs %s: %w", ProvidedBuffers, why)
	}
	fs := &backend.Features{Backend: b.Name(), List: slices.Clone(featureList)}
	for i := range fs.List {
		f := &fs.List[i]
		f.Reason = missing[f.Name]
		f.InUse = f.Reason == nil
	}
	b.features.Store(fs)
	b.use = abilities{
		registeredRing:  missing[RegisteredRing] == nil,
		multishotAccept: missing[MultishotAccept] == nil,
		multishotRecv:   missing[MultishotRecv] == nil,
		waitID:          missing[WaitID] == nil,
	}
}
