package cluster

import (
	"testing"
	"testing/synctest"
	"time"

	"ssegate/sse"
)

// TestLinger: frames that nobody elsewhere waits for go to the log together;
// the followers here never notice, and what is much, or wanted elsewhere, or
// the end, goes at once.
func TestLinger(t *testing.T) {
	const linger = 500 * time.Millisecond
	inWorld(t, func(w *world) {
		n := w.join(func(c *Config) { c.Linger = linger }, "a", "b")
		s := n[0].begin(nil)
		near := n[0].follow(s.Stream, 0)
		has := func(what string, want int) {
			t.Helper()
			synctest.Wait()
			tails, err := w.log.Tails(t.Context(), []sse.StreamID{s.ID})
			if err != nil {
				t.Fatal(err)
			}
			if got := tails[0].Pos.Seq; got != uint64(want) {
				t.Fatalf("%s: the log has %d frames, want %d", what, got, want)
			}
		}
		s.send(1)
		has("at once", 0)
		near.has(1, 1)
		wait(linger / 2)
		s.send(1)
		has("a little later", 0)
		near.has(1, 2)
		wait(linger / 2)
		has("when the time is over", 2)

		s.send(outboxHurry)
		has("much", 2+outboxHurry)

		far := n[1].open(s.ID, "a", 0)
		has("wanted elsewhere", 2+outboxHurry)
		s.send(1)
		has("wanted elsewhere", 3+outboxHurry)
		far.has(1, 3+outboxHurry)
		far.leave()
		wait(30 * time.Second) // until a knows that b no longer follows
		s.send(1)
		has("no longer wanted", 3+outboxHurry)

		s.End(sse.EndClean, nil)
		has("the end", 5+outboxHurry)
	})
}

// TestTurns: those that linger do not go to the log all at once, which would
// keep what is read meanwhile from the clients, but each when its time is over.
func TestTurns(t *testing.T) {
	const linger = 500 * time.Millisecond
	inWorld(t, func(w *world) {
		n := w.join(func(c *Config) { c.Linger = linger }, "a")
		var ids []sse.StreamID
		logged := func() (n int) {
			synctest.Wait()
			for _, id := range ids {
				if tails, err := w.log.Tails(t.Context(), []sse.StreamID{id}); err != nil {
					t.Fatal(err)
				} else if tails[0].Pos.Seq > 0 {
					n++
				}
			}
			return n
		}
		for range 5 {
			s := n[0].begin(nil)
			s.send(1)
			ids = append(ids, s.ID)
			wait(linger / 5)
		}
		for want := 1; want <= 5; want++ {
			if got := logged(); got != want {
				t.Errorf("%d streams are in the log, want %d", got, want)
			}
			wait(linger / 5)
		}
	})
}
