package load

import "math/bits"

// Histogram counts durations in nanoseconds in buckets whose width is at most
// 1/64 of their value.
type Histogram struct {
	counts [64 * subBuckets]uint64
	total  uint64
	max    uint64
}

const (
	subBits    = 6
	subBuckets = 1 << subBits
)

// Add counts one duration.
func (h *Histogram) Add(ns uint64) { h.AddMany(ns, 1) }

// AddMany counts a duration n times.
func (h *Histogram) AddMany(ns, n uint64) {
	h.counts[bucket(ns)] += n
	h.total += n
	h.max = max(h.max, ns)
}

// Merge adds the counts of another histogram.
func (h *Histogram) Merge(o *Histogram) {
	for i, n := range o.counts {
		h.counts[i] += n
	}
	h.total += o.total
	h.max = max(h.max, o.max)
}

// Quantile returns the duration that a share q of all does not exceed.
func (h *Histogram) Quantile(q float64) uint64 {
	rank := uint64(q * float64(h.total))
	var seen uint64
	for i, n := range h.counts {
		if seen += n; seen > rank {
			return min(upper(i), h.max)
		}
	}
	return h.max
}

func bucket(ns uint64) int {
	if ns < subBuckets {
		return int(ns)
	}
	shift := bits.Len64(ns) - subBits - 1
	return (shift+1)*subBuckets + int(ns>>shift) - subBuckets
}

func upper(i int) uint64 {
	if i < subBuckets {
		return uint64(i)
	}
	shift := i/subBuckets - 1
	return uint64(i%subBuckets+subBuckets+1)<<shift - 1
}
