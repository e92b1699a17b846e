package reconnect

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"ssegate/sse"
)

// places draws a place in each of n topics, as the log numbers them.
func places(rng *rand.Rand, n int) (ids []sse.StreamID, seqs []uint64) {
	for range n {
		ids = append(ids, sse.NewStreamID())
		seqs = append(seqs, Origin(1_700_000_000_000+rng.Uint64N(1<<36)).Seq+rng.Uint64N(1<<20))
	}
	return ids, seqs
}

// A cursor says where its topics were, alone and with a base, and says it of
// no other topics.
func TestCursor(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{1, 2, 4, 5, 40, 1000} {
		ids, was := places(rng, n)
		set := SortTopics(ids)
		id := AppendCursor(nil, set, was)
		if n <= 4 && len(id) > 64 {
			t.Errorf("%d topics take %d characters", n, len(id))
		}
		c, err := ParseCursor(id)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := c.Seqs(set, n, nil); !ok || !slices.Equal(got, was) {
			t.Fatalf("%d topics: %v %v, want %v", n, got, ok, was)
		}
		for _, other := range []CursorSet{{}, {1}, SortTopics([]sse.StreamID{sse.NewStreamID()})} {
			if _, ok := c.Seqs(other, n, nil); ok {
				t.Error("a cursor of other topics counts")
			}
		}
		if _, ok := c.Seqs(set, n+1, nil); ok {
			t.Error("a cursor of fewer topics counts")
		}

		base := NewCursorBase()
		kept, ok := ParseCursorBase(AppendCursorBase(nil, set, was), set, n)
		if !ok || !slices.Equal(kept, was) {
			t.Fatalf("base: %v %v, want %v", kept, ok, was)
		}
		now := slices.Clone(was)
		for range rng.IntN(8) {
			now[rng.IntN(n)] += rng.Uint64N(300)
		}
		id = AppendBasedCursor(nil, base, was, now)
		if len(id) > 70 {
			t.Errorf("with a base, %d of %d topics take %d characters", 8, n, len(id))
		}
		if c, err = ParseCursor(id); err != nil || c.Base != base {
			t.Fatal(c, err)
		}
		if got, ok := c.Seqs(set, n, kept); !ok || !slices.Equal(got, now) {
			t.Fatalf("%d topics with a base: %v %v, want %v", n, got, ok, now)
		}
		if _, ok := c.Seqs(set, n, nil); ok {
			t.Error("a cursor without its base counts")
		}
	}
}

// The order in which topics are named does not matter.
func TestSortTopics(t *testing.T) {
	ids, _ := places(rand.New(rand.NewPCG(3, 4)), 9)
	other := slices.Clone(ids)
	slices.Reverse(other)
	if SortTopics(ids) != SortTopics(other) || !slices.Equal(ids, other) {
		t.Error("two orders of one set differ")
	}
	if SortTopics(ids[1:]) == SortTopics(other) {
		t.Error("a part is the whole")
	}
}

// Ids that were changed or cut are known as damaged, and foreign ones as
// foreign.
func TestDamagedCursor(t *testing.T) {
	ids, seqs := places(rand.New(rand.NewPCG(5, 6)), 3)
	id := AppendCursor(nil, SortTopics(ids), seqs)
	for i := range id {
		bad := slices.Clone(id)
		bad[i] ^= 1
		if _, err := ParseCursor(bad); err == nil {
			t.Fatalf("%q, changed at %d, is taken", bad, i)
		}
		if _, err := ParseCursor(id[:i]); err == nil {
			t.Fatalf("%q, cut, is taken", id[:i])
		}
		if _, err := ParseCursor(slices.Insert(slices.Clone(id), i, '\n')); err == nil {
			t.Fatalf("a line end at %d is passed over", i)
		}
	}
	for _, foreign := range []string{"", "7", "sg1.x", "sg3.AAAA"} {
		if _, err := ParseCursor([]byte(foreign)); !errors.Is(err, ErrNotEdgeID) {
			t.Errorf("%q: %v", foreign, err)
		}
	}
}

func FuzzCursor(f *testing.F) {
	ids, seqs := places(rand.New(rand.NewPCG(7, 8)), 3)
	set := SortTopics(ids)
	f.Add(AppendCursor(nil, set, seqs))
	f.Add(AppendBasedCursor(nil, NewCursorBase(), []uint64{1, 2, 3}, []uint64{1, 9, 3}))
	f.Fuzz(func(t *testing.T, id []byte) {
		c, err := ParseCursor(id)
		if err != nil {
			return
		}
		c.Seqs(c.Set, len(c.Places), seqs)
		c.Seqs(set, 3, seqs)
	})
}
