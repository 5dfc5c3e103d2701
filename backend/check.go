package backend

import "fmt"

// Check reports whether the operands of op fit its code, as an [OpError] of
// ErrInFlight, ErrBadFD or ErrInvalid. Every backend calls it in Submit and
// Try, so that all refuse the same things with the same words.
func Check(op *Op) error {
	switch {
	case op.State.Phase != Idle:
		return &OpError{op.String(), ErrInFlight}
	case op.Receiver == nil:
		return invalid(op, "Receiver is nil")
	case op.FD < 0 && op.Code != OpNop:
		return &OpError{op.String(), ErrBadFD}
	}
	if why := misfit(op); why != "" {
		return invalid(op, why)
	}
	return nil
}

// misfit says what is wrong with the operands of op, "" if nothing is.
func misfit(op *Op) string {
	if op.Flags&Multishot != 0 && op.Code != OpAccept && op.Code != OpRecv && op.Code != OpPoll {
		return "Multishot is for accept, recv and poll"
	}
	if op.Flags&AtDelivery != 0 && op.Code != OpRecvMsg && (op.Code != OpRecv || op.Buf == nil) {
		return "AtDelivery is for a recv into Buf and recvmsg"
	}
	switch op.Code {
	case OpNop, OpAccept, OpShutdown, OpClose:
	case OpConnect:
		if op.Ext == nil || op.Ext.Addr.Len == 0 {
			return "Ext.Addr is empty"
		}
	case OpRecv:
		if op.Flags&Multishot != 0 && op.Buf != nil {
			return "a multishot recv has no buffer of its own"
		}
		if op.Buf != nil && len(op.Buf) == 0 {
			return "Buf is empty"
		}
	case OpRecvMsg:
		if op.Ext == nil {
			return "Ext is nil"
		}
	case OpSend:
	case OpRead, OpWrite:
		switch {
		case op.Code == OpRead && len(op.Buf) == 0:
			return "Buf is empty"
		case op.Off < -1:
			return "Off is less than -1"
		}
	case OpSendMsg:
		if op.Ext == nil {
			return "Ext is nil"
		}
		if n := len(op.Ext.Bufs); n > MaxBufs {
			return fmt.Sprintf("%d pieces in Ext.Bufs, more than %d", n, MaxBufs)
		}
	case OpPoll:
		if op.Arg == 0 {
			return "Arg names no events"
		}
	case OpSendfile:
		switch {
		case op.FD2 < 0:
			return "FD2 is negative"
		case op.Off < 0:
			return "Off is negative"
		case op.Len <= 0:
			return "Len is not positive"
		}
	case OpWaitID:
		if op.Ext == nil {
			return "Ext is nil"
		}
	default:
		return "unknown code"
	}
	return ""
}

func invalid(op *Op, why string) error {
	return &OpError{op.String() + ": " + why, ErrInvalid}
}
