package load

import (
	"math"
	"math/bits"
)

// Histogram counts times in buckets that are 3 % wide at most, in fixed room.
// The zero value is ready. It is not safe for concurrent use.
type Histogram struct {
	counts [histogramBuckets]uint32
	n      int64
	most   int64
}

// Up to 64 the buckets are one µs wide; above, each doubling has 32.
const (
	histogramSteps   = 32
	histogramBuckets = 32 * histogramSteps
)

func bucket(us int64) int {
	if us < 2*histogramSteps {
		return int(max(us, 0))
	}
	shift := bits.Len64(uint64(us)) - 6 // leaves 32..63
	return min(histogramSteps*shift+int(us>>shift), histogramBuckets-1)
}

// upper is the largest time of a bucket, in µs.
func upper(b int) int64 {
	if b < 2*histogramSteps {
		return int64(b)
	}
	shift := b/histogramSteps - 1
	return int64(b-histogramSteps*shift+1)<<shift - 1
}

// Add counts one time of us microseconds.
func (h *Histogram) Add(us int64) {
	h.counts[bucket(us)]++
	h.n++
	h.most = max(h.most, us)
}

// Count is how many times were added.
func (h *Histogram) Count() int64 { return h.n }

// Quantile is the time in milliseconds that a share q of all, between 0 and 1,
// did not exceed, rounded up to its bucket's end; 0 when there are none.
func (h *Histogram) Quantile(q float64) float64 {
	if h.n == 0 {
		return 0
	}
	rank, sum := max(int64(math.Ceil(q*float64(h.n))), 1), int64(0)
	for b, c := range h.counts {
		if sum += int64(c); sum >= rank {
			return float64(min(upper(b), h.most)) / 1000
		}
	}
	return float64(h.most) / 1000
}

// Times sums up a histogram, in milliseconds.
type Times struct {
	P50, P99, Max float64
}

func (h *Histogram) times() Times {
	return Times{P50: h.Quantile(0.5), P99: h.Quantile(0.99), Max: float64(h.most) / 1000}
}
