package reconnect

import (
	"math/rand/v2"
	"time"
)

// Jitter spreads a wait evenly over base ± 50 %. Thousands of clients that
// lose their node in the same instant then come back at a level rate over a
// whole base, none of them sooner than half of it, and the mean is what was
// configured. A wider spread would send some back at once, a narrower one
// makes a wave. r returns numbers in [0, 1); nil means math/rand/v2.
func Jitter(base time.Duration, r func() float64) time.Duration {
	if base <= 0 {
		return 0
	}
	if r == nil {
		r = rand.Float64
	}
	return base/2 + time.Duration(r()*float64(base))
}

// Backoff is how long to wait before trying an outside service again: Base,
// doubled with each failure up to Max, each wait with Jitter. It keeps no
// clock; whoever waits says what time it is. It must not be used
// concurrently. The zero value of a field means its default.
type Backoff struct {
	Base   time.Duration // of the first wait; 100 ms
	Max    time.Duration // before jitter; 30 s
	Steady time.Duration // how long it must go well before waits are short again; 10 s
	Rand   func() float64

	failures int
	good     time.Time // since when it goes well; zero when it does not
}

// Good says that it goes well since now. Repeated calls keep the first time.
func (b *Backoff) Good(now time.Time) {
	if b.good.IsZero() {
		b.good = now
	}
}

// Next says that it failed at now, and returns how long to wait before the
// next attempt. A connection that breaks as soon as it is made does not bring
// the short waits back; one that held for Steady does.
func (b *Backoff) Next(now time.Time) time.Duration {
	base, top, steady := b.Base, b.Max, b.Steady
	if base <= 0 {
		base = 100 * time.Millisecond
	}
	if top <= 0 {
		top = 30 * time.Second
	}
	if steady <= 0 {
		steady = 10 * time.Second
	}
	if !b.good.IsZero() && now.Sub(b.good) >= steady {
		b.failures = 0
	}
	b.good = time.Time{}
	wait := min(base, top)
	for range b.failures {
		if wait > top/2 {
			wait = top
			break
		}
		wait *= 2
	}
	if wait < top {
		b.failures++ // no further than it changes something
	}
	return Jitter(wait, b.Rand)
}
