package sse

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestPosBefore(t *testing.T) {
	inOrder := []Pos{{}, {0, 1}, {1, 1}, {1, 2}, {2, 0}, {2, 1}, {10, 1}}
	for i, p := range inOrder {
		for k, q := range inOrder {
			if p.Before(q) != (i < k) {
				t.Errorf("%v before %v: %v", p, q, p.Before(q))
			}
		}
		if p.IsZero() != (i == 0) {
			t.Errorf("%v is zero: %v", p, p.IsZero())
		}
	}
	if got := (Pos{1793959948000, 42}).String(); got != "1793959948000-42" {
		t.Errorf("got %q", got)
	}
}

func TestStreamID(t *testing.T) {
	a, b := NewStreamID(), NewStreamID()
	if a == b || a.IsZero() || !(StreamID{}).IsZero() {
		t.Fatalf("%v, %v: not two ids", a, b)
	}
	if got, err := ParseStreamID(a.String()); got != a || err != nil || len(a.String()) != 22 {
		t.Errorf("%v is read as %v, %v", a, got, err)
	}
	s := a.String()
	for _, bad := range []string{
		"", s[1:], s + "A", s + "==", strings.Repeat("?", 22), "\n" + s[1:], s[:21] + "\n",
		strings.Repeat("A", 21) + "B", // bits that no id has: two names for one stream
	} {
		if got, err := ParseStreamID(bad); !errors.Is(err, ErrBadStreamID) || !got.IsZero() {
			t.Errorf("%q is read as %v, %v", bad, got, err)
		}
	}
}

func TestEnd(t *testing.T) {
	var names, clean []string
	for e := range EndLeft + 1 {
		names = append(names, e.String())
		if e.Clean() {
			clean = append(clean, e.String())
		}
	}
	// They stand in logs: their order must not change.
	if want := []string{"none", "finished", "ended", "cut", "stopped", "lost", "detached", "left"}; !slices.Equal(names, want) {
		t.Errorf("got %q, want %q", names, want)
	}
	if want := []string{"finished", "ended", "stopped", "lost"}; !slices.Equal(clean, want) {
		t.Errorf("clean are %q, want %q", clean, want)
	}
	if got := (EndLeft + 1).String(); got != "unknown" {
		t.Errorf("got %q", got)
	}
}
