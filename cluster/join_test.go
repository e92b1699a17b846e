package cluster

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ssegate/registry"
	"ssegate/sse"
)

// TestJoinersOfALateRecord: the registry still says that the upstream has not
// answered when the first one joins, who knows better from the owner. Neither
// that one nor those after it wait for what has been, and all get the head.
func TestJoinersOfALateRecord(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a", "b")
		first := n[0].ask("key", "body")
		synctest.Wait()
		w.reg.set(func(ctx context.Context, op string) error {
			if op == "put" {
				sleep(ctx, 100*time.Millisecond)
			}
			return nil
		})
		var wg sync.WaitGroup
		joined := make([]*client, 3)
		for i := range joined {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 20 * time.Millisecond)
				begun := time.Now()
				a := n[1].ask("key", "body")
				if a.got == nil {
					t.Errorf("joiner %d: %v after %v", i, a.err, time.Since(begun))
					return
				}
				if s := n[1].local(first.s.ID); string(s.Record().Head) != "head" {
					t.Errorf("joiner %d: the head is %q", i, s.Record().Head)
				}
				if d := time.Since(begun); d > 50*time.Millisecond {
					t.Errorf("joiner %d waited %v", i, d)
				}
				joined[i] = a.got
			})
		}
		time.Sleep(10 * time.Millisecond)
		first.s.SetHead([]byte("head"))
		first.s.send(3)
		wg.Wait()
		wait(tailCheck)
		for _, c := range joined {
			if c != nil {
				c.has(1, 3)
			}
		}
	})
}

// TestJoinByAnOldReplica: a replica that was opened from an old record, while
// its owner could not be asked, lets in who joins, and has the head then.
func TestJoinByAnOldReplica(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a", "b")
		first := n[0].ask("key", "body")
		old := first.s.Record()
		first.s.SetHead([]byte("head"))
		s, err := n[1].replicate(w.Context(), old, sse.Pos{}, w.local(old))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Release()
		asked := time.Now()
		a := n[1].ask("key", "body")
		if a.got == nil || a.got.f.Stream() != s.Hub() || string(s.Record().Head) != "head" {
			t.Fatalf("did not join the replica: %v, its record is %+v", a.err, s.Record())
		}
		if d := time.Since(asked); d > joinLook {
			t.Errorf("waited %v", d)
		}
		first.s.send(3)
		wait(tailCheck)
		a.got.has(1, 3)
	})
}

// TestJoinOfWhatNeverWas: a key in the registry may lead to a stream that gave
// up before it was told that it had won.
func TestJoinOfWhatNeverWas(t *testing.T) {
	inWorld(t, func(w *world) {
		n := w.join(nil, "a", "b")
		bid := registry.Bid{Stream: sse.NewStreamID(), Owner: "a", Sum: []byte("body")}
		if _, won, err := w.reg.Elect(w.Context(), "key", bid, time.Hour); err != nil || !won {
			t.Fatal(won, err)
		}
		for _, one := range n {
			asked := time.Now()
			if a := one.ask("key", "body"); !errors.Is(a.err, ErrUnknown) || time.Since(asked) > joinLook {
				t.Errorf("%s: %v after %v", one.ID(), a.err, time.Since(asked))
			}
		}
	})
}
