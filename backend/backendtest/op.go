package backendtest

import (
	"bytes"
	"syscall"

	"github.com/seed-80cfe818/ringloop/backend"
	"golang.org/x/sys/unix"
)

// result is what a Receiver is told.
type result = backend.Result

// op is an operation that records its completions and checks each of them.
type op struct {
	backend.Op
	d *driver
	// on is called for every completion, on the backend's thread, with Data
	// still borrowed. It may be nil.
	on func(r result)
	// more are the completions before the terminal one, Data copied unless on
	// takes it.
	more []backend.Result
	// last is the terminal completion, once done.
	last backend.Result
	// flying says that the terminal completion is due, done that it came.
	flying, done bool
	// seq is the place of the last completion among all of the driver.
	seq int
}

// op returns an operation of the driver; it is not submitted.
func (d *driver) op(code backend.Code, fd int) *op {
	o := &op{d: d}
	o.Code, o.FD, o.Off, o.Receiver = code, int32(fd), -1, o
	return o
}

// Complete records and checks one completion.
func (o *op) Complete(same *backend.Op, r backend.Result) {
	d := o.d
	if same != &o.Op {
		d.t.Errorf("%s: Complete got the Op %p, not %p", o, same, &o.Op)
	}
	if d.where != inRun && d.where != inClose {
		d.t.Errorf("%s completed during %s", o, d.where)
	}
	if !o.flying {
		d.t.Errorf("%s completed after its terminal completion: %+v", o, r)
		return
	}
	o.check(r)
	d.seq++
	o.seq = d.seq
	if !r.More {
		d.flying--
		o.flying, o.done = false, true
		if o.Code == backend.OpClose {
			delete(d.closes, o.FD)
		}
	}
	kept := r
	kept.Data = nil
	if o.on == nil {
		kept.Data = bytes.Clone(r.Data)
	}
	if r.More {
		o.more = append(o.more, kept)
	} else {
		o.last = kept
	}
	// A test that has failed is being ended: what goes on there may end the
	// goroutine, and with it Close, of which everything else is to hear yet.
	if o.on != nil && !(d.closed && d.t.Failed()) {
		defer d.enter(outside)()
		o.on(r)
	}
}

// check proves what the contract says about every result.
func (o *op) check(r backend.Result) {
	t := o.d.t
	if r.More == !o.Op.InFlight() {
		t.Errorf("%s: More is %v, but Op.InFlight %v", o, r.More, o.Op.InFlight())
	}
	if r.More && o.Flags&backend.Multishot == 0 {
		t.Errorf("%s is single-shot and will have more completions", o)
	}
	if r.More && r.Errno != 0 {
		t.Errorf("%s: more completions after the error %v", o, r.Errno)
	}
	if r.Errno != 0 && (r.N != 0 && o.Flags&backend.WaitAll == 0 || r.Data != nil) {
		t.Errorf("%s failed with %v and has N %d and %d bytes of data", o, r.Errno, r.N, len(r.Data))
	}
	if r.N < 0 {
		t.Errorf("%s: N is %d", o, r.N)
	}
	switch r.Errno {
	case syscall.EINTR, syscall.ENOBUFS, syscall.EALREADY, syscall.EINPROGRESS, unix.EBUSY, unix.EBADR:
		t.Errorf("%s: %v is not for the receiver", o, r.Errno)
	case syscall.EAGAIN:
		if o.Code != backend.OpConnect {
			t.Errorf("%s: %v is not for the receiver", o, r.Errno)
		}
	case syscall.ECANCELED:
		if !o.CancelRequested() && o.d.where != inClose && !o.d.closes[o.FD] {
			t.Errorf("%s: cancelled though nobody asked", o)
		}
	}
	own := o.Code == backend.OpRecv && o.Buf == nil
	switch {
	case own && r.Errno == 0 && len(r.Data) != r.N:
		t.Errorf("%s: N is %d with %d bytes of data", o, r.N, len(r.Data))
	case !own && r.Data != nil:
		t.Errorf("%s: %d bytes of data nobody asked for", o, len(r.Data))
	}
	if own && r.More && r.N == 0 {
		t.Errorf("%s: an empty completion that is not the last", o)
	}
	o.checkCount(r)
}

// checkCount checks N against what was asked for.
func (o *op) checkCount(r backend.Result) {
	limit := -1
	switch o.Code {
	case backend.OpRecv, backend.OpRead, backend.OpRecvMsg, backend.OpSend, backend.OpWrite:
		if o.Code != backend.OpRecv || o.Buf != nil {
			limit = len(o.Buf)
		}
	case backend.OpSendfile:
		limit = o.Len
	case backend.OpSendMsg:
		limit = 0
		for _, b := range o.Ext.Bufs {
			limit += len(b)
		}
	case backend.OpNop, backend.OpConnect, backend.OpShutdown, backend.OpClose, backend.OpWaitID:
		limit = 0
	}
	if limit >= 0 && r.N > limit {
		o.d.t.Errorf("%s: N is %d, more than %d", o, r.N, limit)
	}
}

// wantN turns until o has completed and checks that it succeeded with n.
func (d *driver) wantN(o *op, n int) {
	d.t.Helper()
	if r := d.outcome(o); r.Errno != 0 || r.N != n {
		d.t.Fatalf("%s: N %d, errno %v; want N %d", o, r.N, r.Errno, n)
	}
}

// wantErr turns until o has completed and checks that it failed with one of
// errnos.
func (d *driver) wantErr(o *op, errnos ...syscall.Errno) {
	d.t.Helper()
	r := d.outcome(o)
	for _, e := range errnos {
		if r.Errno == e {
			return
		}
	}
	d.t.Fatalf("%s: N %d, errno %v; want %v", o, r.N, r.Errno, errnos)
}

// wantBytes turns until o has completed and checks what it received.
func (d *driver) wantBytes(o *op, want []byte) {
	d.t.Helper()
	d.wantN(o, len(want))
	if got := o.bytes(); !bytes.Equal(got, want) {
		d.t.Fatalf("%s: got %.80q, want %.80q", o, got, want)
	}
}

// bytes returns what a completed receive or read got.
func (o *op) bytes() []byte {
	if o.Code == backend.OpRecv && o.Buf == nil {
		return o.last.Data
	}
	return o.Buf[:o.last.N]
}
