package backend_test

import (
	"errors"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-80cfe818/ringloop/backend"
)

func TestEveryCodeHasAName(t *testing.T) {
	seen := make(map[string]bool)
	for c := range backend.NumCodes {
		name := backend.Code(c).String()
		if name == "" || strings.HasPrefix(name, "Code(") || seen[name] {
			t.Errorf("code %d is %q", c, name)
		}
		seen[name] = true
	}
	if got := backend.Code(200).String(); got != "Code(200)" {
		t.Errorf("an unknown code is %q", got)
	}
}

func TestAnOpDescribesItself(t *testing.T) {
	op := backend.Op{Code: backend.OpRecv, FD: 7}
	if got := op.String(); got != "recv on fd 7" {
		t.Errorf("got %q", got)
	}
	if got := new(backend.Op).String(); got != "nop" {
		t.Errorf("the zero Op is %q", got)
	}
}

func TestEveryCodeHasAtMostOneDirection(t *testing.T) {
	const in, out, none = "input", "output", "none"
	want := map[backend.Code]string{
		backend.OpAccept: in, backend.OpRecv: in, backend.OpRecvMsg: in, backend.OpRead: in,
		backend.OpConnect: out, backend.OpSend: out, backend.OpSendMsg: out,
		backend.OpSendfile: out, backend.OpWrite: out,
	}
	for c := range backend.NumCodes {
		op := backend.Op{Code: backend.Code(c), Off: -1}
		got := none
		switch {
		case op.Input() && op.Output():
			got = "both"
		case op.Input():
			got = in
		case op.Output():
			got = out
		}
		expected, ok := want[op.Code]
		if !ok {
			expected = none
		}
		if got != expected {
			t.Errorf("%s: direction %s, want %s", op.Code, got, expected)
		}
	}
}

func TestAPositionedReadOrWriteHasNoDirection(t *testing.T) {
	read := backend.Op{Code: backend.OpRead, Off: 0}
	write := backend.Op{Code: backend.OpWrite, Off: 5}
	if read.Input() || write.Output() {
		t.Error("a positioned operation keeps a place in the queue")
	}
}

func TestAResultTellsItsError(t *testing.T) {
	if err := (backend.Result{N: 3}).Err(); err != nil {
		t.Errorf("a success has the error %v", err)
	}
	r := backend.Result{Errno: syscall.ECONNRESET}
	if err := r.Err(); !errors.Is(err, syscall.ECONNRESET) || r.Cancelled() {
		t.Errorf("got %v, cancelled %v", err, r.Cancelled())
	}
	if !(backend.Result{Errno: syscall.ECANCELED}).Cancelled() {
		t.Error("ECANCELED is not cancelled")
	}
}

func TestTheErrorsOfSubmitAreThoseOfTheKernelToo(t *testing.T) {
	for _, c := range []struct{ err, kernel error }{
		{backend.ErrBadFD, syscall.EBADF},
		{backend.ErrInvalid, syscall.EINVAL},
	} {
		if !errors.Is(c.err, c.kernel) {
			t.Errorf("%q is not %q", c.err, c.kernel)
		}
	}
}

func TestUnavailableErrorNamesBackendReasonAndHint(t *testing.T) {
	err := error(&backend.UnavailableError{Backend: "io_uring", Err: syscall.EPERM, Hint: "allow it"})
	for _, w := range []string{"io_uring", syscall.EPERM.Error(), "allow it"} {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q lacks %q", err, w)
		}
	}
	if !errors.Is(err, syscall.EPERM) {
		t.Error("it does not unwrap to EPERM")
	}
	bare := &backend.UnavailableError{Backend: "io_uring", Err: syscall.ENOSYS}
	if strings.Contains(bare.Error(), "(") {
		t.Errorf("without a hint it reads %q", bare)
	}
}

func TestFeaturesAreFoundByNameAndListed(t *testing.T) {
	fs := backend.Features{Backend: "b", List: []backend.Feature{
		{Name: "one", Since: "6.1", InUse: true},
		{Name: "two", Since: "6.7", Reason: syscall.ENOSYS, Instead: "plain calls"},
	}}
	if f, ok := fs.Lookup("two"); !ok || f.Since != "6.7" {
		t.Errorf("two: %+v, %v", f, ok)
	}
	if _, ok := fs.Lookup("three"); ok {
		t.Error("three is found")
	}
	want := "one: in use\ntwo: not in use: " + syscall.ENOSYS.Error() + "; instead: plain calls\n"
	if got := fs.String(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
