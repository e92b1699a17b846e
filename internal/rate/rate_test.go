package rate

import (
	"fmt"
	"testing"
	"time"
)

func TestLimiter(t *testing.T) {
	var l Limiter
	now := time.Unix(1_000, 0)
	take := func(key string, n int) time.Duration { return l.Take(key, n, 10, 20, now) }
	for i, n := range []int{1, 9, 10} {
		if wait := take("a", n); wait != 0 {
			t.Fatalf("piece %d of a burst waits %v", i, wait)
		}
	}
	for range 2 { // a refusal takes nothing
		if wait := take("a", 3); wait != 300*time.Millisecond {
			t.Fatalf("3 behind a burst wait %v", wait)
		}
	}
	if wait := take("b", 20); wait != 0 {
		t.Fatalf("somebody else waits %v", wait)
	}
	now = now.Add(300 * time.Millisecond)
	if wait := take("a", 3); wait != 0 {
		t.Fatalf("after the wait that it was told: %v", wait)
	}
	if wait := take("a", 1); wait != 100*time.Millisecond {
		t.Fatalf("one more waits %v", wait)
	}
}

// Whose bucket is full again is forgotten, and nobody else.
func TestForgotten(t *testing.T) {
	var l Limiter
	now := time.Unix(1_000, 0)
	l.Take("owes", 50, 10, 50, now)
	for i := range 1000 {
		l.Take(fmt.Sprint(i), 1, 10, 50, now)
	}
	now = now.Add(3 * time.Second)
	l.Take("late", 1, 10, 50, now)
	if n := len(l.full); n != 2 {
		t.Errorf("%d are remembered", n)
	}
	if wait := l.Take("owes", 50, 10, 50, now); wait != 2*time.Second {
		t.Errorf("who still owes waits %v", wait)
	}
}
