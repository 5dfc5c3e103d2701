package transport

import (
	"fmt"

	"github.com/seed-80cfe818/ringloop/loop"
)

// The water marks of streams, datagrams and pipes, in bytes.
const (
	defaultHigh = 64 << 10
	defaultLow  = 16 << 10
)

// marks are the water marks of a write buffer, in bytes.
type marks struct{ low, high int }

// makeMarks completes and checks marks: Default stands for one that is not
// given.
func makeMarks(high, low, defaultHigh int) (marks, error) {
	switch {
	case high == Default && low == Default:
		high = defaultHigh
		low = high / 4
	case high == Default:
		high = 4 * low
	case low == Default:
		low = high / 4
	}
	if low < 0 || high < low {
		return marks{}, fmt.Errorf("%w: high (%d) must be >= low (%d) must be >= 0", loop.ErrInvalidArgument, high, low)
	}
	return marks{low: low, high: high}, nil
}

// SetWriteBufferLimits sets the water marks and acts on them at once.
func (s *stream) SetWriteBufferLimits(high, low int) error {
	m, err := makeMarks(high, low, defaultHigh)
	if err != nil {
		return err
	}
	s.rarely().marks = m
	s.flags |= flagMarks
	if s.out != nil {
		s.wrote()
	}
	if s.flags&flagLost == 0 {
		s.checkMarks()
	}
	return nil
}

// WriteBufferLimits returns the water marks.
func (s *stream) WriteBufferLimits() (low, high int) {
	if s.flags&flagMarks == 0 {
		return defaultLow, defaultHigh
	}
	return s.cold.marks.low, s.cold.marks.high
}

// checkMarks pauses or resumes the protocol if the buffer calls for it.
func (s *stream) checkMarks() {
	low, high := s.WriteBufferLimits()
	n := s.WriteBufferSize()
	switch {
	case s.flags&flagFull == 0 && n > high:
		s.callPause()
	case s.flags&flagFull != 0 && n <= low:
		s.callResume()
	}
}

// callFlow tells the protocol once more whether the buffer is full.
func (s *stream) callFlow(full bool) {
	if full {
		s.callPause()
	} else {
		s.callResume()
	}
}

func (s *stream) callPause() {
	s.flags |= flagFull
	p, ok := s.proto.(FlowController)
	if !ok {
		return
	}
	before := s.sh.loop.EnterContext(s.ctx)
	defer s.returned(before, "protocol.PauseWriting() failed", false)
	p.PauseWriting()
}

func (s *stream) callResume() {
	s.flags &^= flagFull
	p, ok := s.proto.(FlowController)
	if !ok {
		return
	}
	before := s.sh.loop.EnterContext(s.ctx)
	defer s.returned(before, "protocol.ResumeWriting() failed", false)
	p.ResumeWriting()
}
