package transport

import "fmt"

// waterMarks decides when a protocol is to write less.
type waterMarks struct {
	marks
	paused bool
}

func newWaterMarks() waterMarks { return waterMarks{marks: marks{low: defaultLow, high: defaultHigh}} }

// set changes the marks; see Conn.SetWriteBufferLimits.
func (m *waterMarks) set(high, low int) error {
	to, err := makeMarks(high, low, defaultHigh)
	if err != nil {
		return fmt.Errorf("set write buffer limits: %w", err)
	}
	m.marks = to
	return nil
}

// turn reports what the protocol is to be told now that size bytes are
// buffered: to pause or to resume, or nothing.
func (m *waterMarks) turn(size int) (pause, resume bool) {
	switch {
	case !m.paused && size > m.high:
		m.paused = true
		return true, false
	case m.paused && size <= m.low:
		m.paused = false
		return false, true
	}
	return false, false
}
