package hub

import (
	"testing"
	"testing/synctest"
)

// TestReady: an appender that must not block is told to wait when even the
// fastest follower is far behind, and told once when it has come near.
func TestReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := running(t, Config{RingEvents: 8})
		s := h.Open(StreamOptions{Hold: 100})
		if !s.Ready(func() { t.Error("called for nothing") }) {
			t.Error("not ready without a follower")
		}
		c := newFake(0)
		s.Follow(c, FollowOptions{Chunked: true})
		calls := 0
		for seq := uint64(1); ; seq++ {
			s.Append(events(seq, seq, 0))
			s.Flush()
			if !s.Ready(func() { calls++ }) {
				break
			}
			if seq > 20 {
				t.Fatal("ready, whatever the follower reads")
			}
		}
		synctest.Wait()
		if calls != 0 {
			t.Fatal("called while the follower read nothing")
		}
		c.open(1 << 20)
		synctest.Wait()
		if calls != 1 {
			t.Errorf("called %d times", calls)
		}
		if !s.Ready(func() { t.Error("called for nothing") }) {
			t.Error("not ready behind a follower that has everything")
		}
	})
}
