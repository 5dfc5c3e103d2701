package backend_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/seed-80cfe818/ringloop/backend"
)

type deaf struct{}

func (deaf) Complete(*backend.Op, backend.Result) {}

func TestCheckNamesWhatDoesNotFit(t *testing.T) {
	buf := make([]byte, 1)
	ext := new(backend.Ext)
	for _, tc := range []struct {
		name string
		op   backend.Op
		want error
		word string
	}{
		{"unknown code", backend.Op{Code: 99}, backend.ErrInvalid, "unknown code"},
		{"negative fd", backend.Op{Code: backend.OpRecv, FD: -1, Buf: buf}, backend.ErrBadFD, "fd -1"},
		{"in flight", backend.Op{State: backend.State{Phase: backend.Armed}}, backend.ErrInFlight, "nop"},
		{"multishot send", backend.Op{Code: backend.OpSend, Flags: backend.Multishot}, backend.ErrInvalid, "Multishot"},
		{"multishot recv with memory", backend.Op{Code: backend.OpRecv, Flags: backend.Multishot, Buf: buf}, backend.ErrInvalid, "buffer"},
		{"empty recv", backend.Op{Code: backend.OpRecv, Buf: buf[:0]}, backend.ErrInvalid, "Buf"},
		{"empty read", backend.Op{Code: backend.OpRead}, backend.ErrInvalid, "Buf"},
		{"read before the file", backend.Op{Code: backend.OpRead, Buf: buf, Off: -2}, backend.ErrInvalid, "Off"},
		{"write before the file", backend.Op{Code: backend.OpWrite, Off: -2}, backend.ErrInvalid, "Off"},
		{"connect without ext", backend.Op{Code: backend.OpConnect}, backend.ErrInvalid, "Ext.Addr"},
		{"connect to nothing", backend.Op{Code: backend.OpConnect, Ext: ext}, backend.ErrInvalid, "Ext.Addr"},
		{"recvmsg without ext", backend.Op{Code: backend.OpRecvMsg, Buf: buf}, backend.ErrInvalid, "Ext"},
		{"sendmsg without ext", backend.Op{Code: backend.OpSendMsg}, backend.ErrInvalid, "Ext"},
		{"too many pieces", backend.Op{Code: backend.OpSendMsg, Ext: &backend.Ext{Bufs: make([][]byte, backend.MaxBufs+1)}}, backend.ErrInvalid, "1025 pieces"},
		{"poll for nothing", backend.Op{Code: backend.OpPoll}, backend.ErrInvalid, "Arg"},
		{"sendfile from no fd", backend.Op{Code: backend.OpSendfile, FD2: -1, Len: 1}, backend.ErrInvalid, "FD2"},
		{"sendfile before the file", backend.Op{Code: backend.OpSendfile, Off: -1, Len: 1}, backend.ErrInvalid, "Off"},
		{"sendfile of nothing", backend.Op{Code: backend.OpSendfile}, backend.ErrInvalid, "Len"},
		{"waitid without ext", backend.Op{Code: backend.OpWaitID}, backend.ErrInvalid, "Ext"},
	} {
		tc.op.Receiver = deaf{}
		err := backend.Check(&tc.op)
		var oe *backend.OpError
		if !errors.Is(err, tc.want) || !errors.As(err, &oe) || !strings.Contains(err.Error(), tc.word) {
			t.Errorf("%s: %v, want %v with %q", tc.name, err, tc.want, tc.word)
		}
	}
	if err := backend.Check(new(backend.Op)); !errors.Is(err, backend.ErrInvalid) || !strings.Contains(err.Error(), "Receiver") {
		t.Errorf("no receiver: %v", err)
	}
}

func TestCheckAcceptsEveryCodeWithItsOperands(t *testing.T) {
	buf := make([]byte, 1)
	addr := new(backend.Ext)
	if err := addr.Addr.SetUnix("/x"); err != nil {
		t.Fatal(err)
	}
	for _, op := range []backend.Op{
		{Code: backend.OpNop, FD: -1},
		{Code: backend.OpAccept},
		{Code: backend.OpAccept, Flags: backend.Multishot},
		{Code: backend.OpConnect, Ext: addr},
		{Code: backend.OpRecv, Buf: buf},
		{Code: backend.OpRecv},
		{Code: backend.OpRecv, Flags: backend.Multishot},
		{Code: backend.OpRecvMsg, Ext: new(backend.Ext)},
		{Code: backend.OpSend},
		{Code: backend.OpSendMsg, Ext: &backend.Ext{Bufs: make([][]byte, backend.MaxBufs)}},
		{Code: backend.OpRead, Buf: buf, Off: -1},
		{Code: backend.OpWrite},
		{Code: backend.OpPoll, Arg: 1, Flags: backend.Multishot},
		{Code: backend.OpSendfile, Len: 1},
		{Code: backend.OpShutdown},
		{Code: backend.OpClose},
		{Code: backend.OpWaitID, Ext: new(backend.Ext)},
	} {
		op.Receiver = deaf{}
		if err := backend.Check(&op); err != nil {
			t.Error(err)
		}
	}
}
