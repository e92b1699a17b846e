package registry_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"ssegate/internal/gatetest/registrytest"
	"ssegate/registry"
	"ssegate/sse"
)

func TestMemory(t *testing.T) {
	registrytest.Run(t, func(t *testing.T) registrytest.World {
		now := time.Unix(1_763_800_000, 0)
		m := registry.NewMemory(func() time.Time { return now })
		return registrytest.World{A: m, B: m, Pass: func(d time.Duration) { now = now.Add(d) }}
	})
}

// TestMemoryInABubble: without a clock of its own it keeps the bubble's, and
// the races of the suite happen on fake time as well.
func TestMemoryInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := registry.NewMemory(nil)
		for i := range 3 {
			lapsed, err := m.Beat(t.Context(), registry.Node{ID: "a"}, time.Minute)
			if err != nil || lapsed != (i != 1) {
				t.Fatalf("beat %d: lapsed %t, %v", i, lapsed, err)
			}
			time.Sleep(time.Minute - 1 + time.Duration(i)) // in time after the first, too late after the second
		}
	})
}

// TestMemoryForgets: what has ended leaves no more behind than about what is
// alive, without anybody sweeping.
func TestMemoryForgets(t *testing.T) {
	now := time.Unix(1_763_800_000, 0)
	m := registry.NewMemory(func() time.Time { return now })
	ctx := t.Context()
	if _, err := m.Beat(ctx, registry.Node{ID: "a"}, 24*time.Hour); err != nil {
		t.Fatal(err)
	}
	const perSecond, seconds = 10, 1000
	for range seconds {
		now = now.Add(time.Second)
		for i := range perSecond {
			id := sse.NewStreamID()
			key := fmt.Sprint(id, i)
			m.Put(ctx, []registry.Record{{Stream: id, Owner: "a", Epoch: 1}}, time.Second)
			_, _, errElect := m.Elect(ctx, key, registry.Bid{Stream: id, Owner: "a"}, time.Second)
			errFollow := m.Follow(ctx, id, "a", time.Second)
			errPrint := m.AddPrint(ctx, key, id, time.Second)
			for _, err := range []error{errElect, errFollow, errPrint} {
				if err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if n := m.Entries(); n > 4*4*perSecond {
		t.Errorf("%d entries kept, of which at most %d can be alive", n, 4*perSecond)
	}
}
