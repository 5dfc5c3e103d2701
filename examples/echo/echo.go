package main

import (
	"github.com/seed-80cfe818/ringloop/loop"
	"github.com/seed-80cfe818/ringloop/transport"
)

// stream echoes a connection. It reads no faster than the client does.
type stream struct {
	transport.BaseStreamProtocol
	t transport.Transport
}

func newStream() transport.Protocol { return &stream{} }

func (s *stream) ConnectionMade(t transport.Transport) { s.t = t }

// DataReceived sends data back. Write copies it, so the borrowed slice may go.
func (s *stream) DataReceived(data []byte) {
	// The only errors are those of a program that uses WriteEOF or Sendfile.
	_ = s.t.Write(data)
}

// EOFReceived lets the transport send what is left and close.
func (s *stream) EOFReceived() bool { return false }

// PauseWriting is called when the client does not take what it has asked for.
func (s *stream) PauseWriting() { _ = s.t.PauseReading() }

// ResumeWriting is called when it does again.
func (s *stream) ResumeWriting() { _ = s.t.ResumeReading() }

// datagram echoes packets.
type datagram struct {
	transport.BaseDatagramProtocol
	t    transport.DatagramTransport
	lost *loop.Future[struct{}]
}

func (d *datagram) ConnectionMade(t transport.DatagramTransport) { d.t = t }

// ConnectionLost tells the main task. The future is new, so nothing can be wrong
// with it.
func (d *datagram) ConnectionLost(error) { _ = d.lost.SetResult(struct{}{}) }

// DatagramReceived sends the packet back. Packets may be lost anyway, so a full
// buffer loses them too.
func (d *datagram) DatagramReceived(data []byte, addr transport.Addr) {
	if _, high := d.t.WriteBufferLimits(); d.t.WriteBufferSize() <= high {
		_ = d.t.SendTo(data, addr)
	}
}
