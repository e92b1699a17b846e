package load

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestHistogram(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var h Histogram
	if h.Quantile(0.5) != 0 {
		t.Error("nothing has a median")
	}
	values := make([]int64, 10000)
	for i := range values {
		values[i] = int64(math.Exp(r.Float64() * 16)) // 1 µs to 9 s
		h.Add(values[i])
	}
	slices.Sort(values)
	for _, q := range []float64{0, 0.01, 0.5, 0.9, 0.99, 0.999, 1} {
		exact := float64(values[max(int(math.Ceil(q*float64(len(values)))), 1)-1]) / 1000
		got := h.Quantile(q)
		if got < exact || got > exact*1.04+0.001 {
			t.Errorf("quantile %g is %g ms, want %g", q, got, exact)
		}
	}
	if h.Quantile(1) != float64(values[len(values)-1])/1000 || h.Count() != int64(len(values)) {
		t.Errorf("the most is %g ms of %d values", h.Quantile(1), h.Count())
	}
}

func TestHistogramBuckets(t *testing.T) {
	last := int64(-1)
	for b := range 20 * histogramSteps {
		u := upper(b)
		if u <= last {
			t.Fatalf("bucket %d ends at %d, the one before at %d", b, u, last)
		}
		if bucket(u) != b || bucket(last+1) != b {
			t.Fatalf("bucket %d is %d to %d, which are in %d and %d", b, last+1, u, bucket(last+1), bucket(u))
		}
		last = u
	}
	if b := bucket(math.MaxInt64); b != histogramBuckets-1 {
		t.Errorf("the longest time is in bucket %d", b)
	}
	if b := bucket(-5); b != 0 { // clocks are read by two threads
		t.Errorf("a time before its own is in bucket %d", b)
	}
}
