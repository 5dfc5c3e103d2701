package main

import (
	"golang.org/x/sys/unix"

	"github.com/seed-80cfe818/ringloop/transport"
)

// side is the protocol of one of the two connections of a pair.
type side struct {
	pair     *pair
	other    *side
	t        transport.Transport // nil before ConnectionMade and after ConnectionLost
	eof      bool                // nothing more will be received
	received int64               // bytes
	peak     int                 // most bytes that waited to be sent
}

// ConnectionMade begins.
func (s *side) ConnectionMade(t transport.Transport) {
	s.t = t
	if s == &s.pair.client {
		s.pair.begin()
	} else {
		s.pair.connected()
	}
}

// ConnectionLost ends the other side too.
func (s *side) ConnectionLost(err error) {
	s.t = nil
	s.pair.lost(s, err)
}

// DataReceived passes the data on.
func (s *side) DataReceived(data []byte) {
	s.received += int64(len(data))
	s.other.write(data)
}

// EOFReceived passes the end of the stream on. TLS cannot be half closed: there
// it is the end of the connection.
func (s *side) EOFReceived() (keepOpen bool) {
	s.eof = true
	o := s.other
	switch {
	case o.t == nil:
		return false
	case o.eof || !o.t.CanWriteEOF():
		o.t.Close()
		return false
	}
	// It cannot fail: it is supported, and there is no Sendfile.
	_ = o.t.WriteEOF()
	return s.t != nil && s.t.CanWriteEOF()
}

// PauseWriting stops reading what would have to be written here.
func (s *side) PauseWriting() { s.other.pauseReading() }

// ResumeWriting reads on.
func (s *side) ResumeWriting() { s.other.resumeReading() }

// What goes wrong with a connection comes with ConnectionLost; the calls of
// these methods cannot fail otherwise.

func (s *side) pauseReading() {
	if s.t != nil {
		_ = s.t.PauseReading()
	}
}

func (s *side) resumeReading() {
	if s.t != nil {
		_ = s.t.ResumeReading()
	}
}

func (s *side) write(data []byte) {
	if s.t != nil {
		_ = s.t.Write(data)
		s.peak = max(s.peak, s.t.WriteBufferSize())
	}
}

func (s *side) abort() {
	if s.t != nil {
		s.t.Abort()
	}
}

// cut aborts the connection, so that the peer does not take it for the end of
// the stream, unless that is on its way.
func (s *side) cut() {
	switch {
	case s.t == nil:
	case s.other.eof && s.t.WriteBufferSize() == 0:
		s.t.Abort()
	default:
		s.reset()
	}
}

// reset aborts the connection in a way that the peer cannot take for the end of
// the stream.
func (s *side) reset() {
	if sock, ok := s.t.ExtraInfo(transport.ExtraSocket); ok {
		// Without it, the connection ends as well.
		_ = unix.SetsockoptLinger(sock.(*transport.TransportSocket).Fd(), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	s.t.Abort()
}
