// Package hot has the one large buffer into which a backend receives for every
// connection in turn, so that it stays in the processor's cache.
package hot

import (
	"unsafe"

	"github.com/seed-80cfe818/ringloop/internal/callcost"
)

// DefaultSize is the size in bytes that a backend's buffer has by default: as
// much as a fast peer has under way where system calls are dear, for there it is
// dear as well to wake the peer with every piece of what is sent back; where they
// are cheap, a part of it that stays in the cache, again and again.
func DefaultSize() int {
	if callcost.Dear() {
		return 256 << 10
	}
	return 64 << 10
}

// maxSpare is how many buffers are kept for the next use.
const maxSpare = 8

// Buffer is a buffer of a fixed size, made when it is first used. Who wants to
// keep what is in it can take it away; then another one takes its place. It is
// not safe for use by several goroutines.
type Buffer struct {
	size  int
	cur   []byte
	spare [][]byte // the last one was used last
	kept  int      // how many were kept and not given back
}

// New describes a buffer of size bytes.
func New(size int) Buffer { return Buffer{size: size} }

// Size returns the size of the buffer in bytes.
func (b *Buffer) Size() int { return b.size }

// Kept returns how many buffers were kept and not given back.
func (b *Buffer) Kept() int { return b.kept }

// Bytes returns the buffer.
func (b *Buffer) Bytes() []byte {
	if b.cur == nil {
		if n := len(b.spare); n > 0 {
			b.cur, b.spare[n-1] = b.spare[n-1], nil
			b.spare = b.spare[:n-1]
		} else {
			b.cur = make([]byte, b.size)
		}
	}
	return b.cur
}

// Leave makes the buffer another one, because somebody still reads what is in it.
func (b *Buffer) Leave() { b.cur = nil }

// keepFrom is the share of the buffer that has to be full for it to be kept. To
// copy less is cheaper than to go on with another buffer, which is cold.
const keepFrom = 8

// Keep takes the buffer away if data is its beginning and not too little, and
// returns the whole of it, else nil. GiveBack ends that.
func (b *Buffer) Keep(data []byte) []byte {
	if len(b.cur) == 0 || len(data) < len(b.cur)/keepFrom || unsafe.SliceData(data) != unsafe.SliceData(b.cur) {
		return nil
	}
	whole := b.cur
	b.cur = nil
	b.kept++
	return whole
}

// GiveBack puts back what Keep returned. It is the next to be used, for it is
// warm. It reports false for memory of another size, and for more memory than
// Keep has returned.
func (b *Buffer) GiveBack(whole []byte) bool {
	if b.kept == 0 || len(whole) != b.size {
		return false
	}
	b.kept--
	if b.cur != nil {
		b.cur, whole = whole, b.cur
	}
	if len(b.spare) < maxSpare {
		b.spare = append(b.spare, whole)
	}
	return true
}
