package reconnect

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

func TestJitter(t *testing.T) {
	f := func(base time.Duration, r float64, want time.Duration) {
		t.Helper()
		if got := Jitter(base, func() float64 { return r }); got != want {
			t.Errorf("Jitter(%v, %v) = %v, want %v", base, r, got, want)
		}
	}
	f(2*time.Second, 0, time.Second)
	f(2*time.Second, 0.5, 2*time.Second)
	f(2*time.Second, 0.75, 2500*time.Millisecond)
	f(0, 0.5, 0)
	f(-time.Second, 0.5, 0)
	f(1, 0.5, 0)
}

// TestJitterSpreads: what a wave of clients does to the node they come back to.
func TestJitterSpreads(t *testing.T) {
	const clients, base = 10_000, 2 * time.Second
	r := rand.New(rand.NewPCG(1, 2))
	var slots [20]int // of a tenth of base each
	var sum time.Duration
	for range clients {
		d := Jitter(base, r.Float64)
		slots[d/(base/10)]++
		sum += d
	}
	for i, n := range slots {
		if in := i >= 5 && i < 15; in && math.Abs(float64(n)-clients/10) > clients/50 || !in && n != 0 {
			t.Errorf("%d clients came back in tenth %d of base", n, i)
		}
	}
	if mean := sum / clients; mean < base*98/100 || mean > base*102/100 {
		t.Errorf("mean %v, want %v", mean, base)
	}
	if a, b := Jitter(time.Hour, nil), Jitter(time.Hour, nil); a == b {
		t.Errorf("without a source of randomness every client waits %v", a)
	}
}

func TestBackoff(t *testing.T) {
	middle := func() float64 { return 0.5 }
	b := Backoff{Base: 100 * time.Millisecond, Max: time.Second, Steady: 10 * time.Second, Rand: middle}
	now := time.Unix(1_790_000_000, 0)
	next := func(want time.Duration) {
		t.Helper()
		if got := b.Next(now); got != want {
			t.Errorf("got %v, want %v", got, want)
		}
		now = now.Add(want)
	}
	for _, ms := range []time.Duration{100, 200, 400, 800, 1000, 1000, 1000} {
		next(ms * time.Millisecond)
	}

	// Up for a moment: still the long wait.
	b.Good(now)
	now = now.Add(9 * time.Second)
	next(time.Second)

	// Up for long enough, told several times.
	b.Good(now)
	now = now.Add(6 * time.Second)
	b.Good(now)
	now = now.Add(6 * time.Second)
	next(100 * time.Millisecond)
	next(200 * time.Millisecond)

	// "Good" is forgotten once it failed.
	now = now.Add(time.Hour)
	next(400 * time.Millisecond)

	var zero Backoff
	zero.Rand = middle
	for range 1000 {
		if d := zero.Next(now); d < 100*time.Millisecond || d > 30*time.Second {
			t.Fatalf("the zero Backoff waits %v", d)
		}
	}
	if d := zero.Next(now); d != 30*time.Second {
		t.Errorf("the zero Backoff ends at %v, want 30s", d)
	}
	huge := Backoff{Base: math.MaxInt64, Max: math.MaxInt64, Rand: func() float64 { return 0 }}
	for range 3 {
		if d := huge.Next(now); d <= 0 {
			t.Errorf("overflow: %v", d)
		}
	}
}
