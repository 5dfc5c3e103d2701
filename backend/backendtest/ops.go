package backendtest

import "github.com/seed-80cfe818/ringloop/backend"

// The functions below return operations that are not submitted yet.

// recv receives n bytes into memory of its own, or if n is 0 into memory of
// the backend.
func (d *driver) recv(fd, n int) *op {
	o := d.op(backend.OpRecv, fd)
	if n > 0 {
		o.Buf = make([]byte, n)
	}
	return o
}

func (d *driver) recvmsg(fd, n int) *op {
	o := d.op(backend.OpRecvMsg, fd)
	o.Buf = make([]byte, n)
	o.Ext = new(backend.Ext)
	return o
}

func (d *driver) send(fd int, b []byte) *op {
	o := d.op(backend.OpSend, fd)
	o.Buf = b
	return o
}

func (d *driver) sendmsg(fd int, bufs ...[]byte) *op {
	o := d.op(backend.OpSendMsg, fd)
	o.Ext = &backend.Ext{Bufs: bufs}
	return o
}

// whole lets o send everything.
func (d *driver) whole(o *op) *op {
	o.Flags |= backend.WaitAll
	return o
}

// multi makes o a multishot operation.
func (d *driver) multi(o *op) *op {
	o.Flags |= backend.Multishot
	return o
}

func (d *driver) accept(fd int) *op {
	o := d.op(backend.OpAccept, fd)
	o.Ext = new(backend.Ext)
	return o
}

func (d *driver) connect(fd int, to backend.Addr) *op {
	o := d.op(backend.OpConnect, fd)
	o.Ext = &backend.Ext{Addr: to}
	return o
}

func (d *driver) read(fd, n int) *op {
	o := d.op(backend.OpRead, fd)
	o.Buf = make([]byte, n)
	return o
}

func (d *driver) readAt(fd, n int, off int64) *op {
	o := d.read(fd, n)
	o.Off = off
	return o
}

func (d *driver) write(fd int, b []byte) *op {
	o := d.op(backend.OpWrite, fd)
	o.Buf = b
	return o
}

func (d *driver) writeAt(fd int, b []byte, off int64) *op {
	o := d.write(fd, b)
	o.Off = off
	return o
}

func (d *driver) poll(fd int, events uint32) *op {
	o := d.op(backend.OpPoll, fd)
	o.Arg = events
	return o
}

func (d *driver) sendfile(fd, file int, off int64, n int) *op {
	o := d.op(backend.OpSendfile, fd)
	o.FD2, o.Off, o.Len = int32(file), off, n
	return o
}

func (d *driver) shutdown(fd, how int) *op {
	o := d.op(backend.OpShutdown, fd)
	o.Arg = uint32(how)
	return o
}

func (d *driver) closeOp(fd int) *op { return d.op(backend.OpClose, fd) }

func (d *driver) waitid(pidfd int) *op {
	o := d.op(backend.OpWaitID, pidfd)
	o.Ext = new(backend.Ext)
	return o
}
