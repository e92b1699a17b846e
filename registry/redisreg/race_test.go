//go:build unix

package redisreg_test

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"ssegate/internal/gatetest/service"
	"ssegate/registry"
	"ssegate/registry/redisreg"
	"ssegate/sse"
)

// between is a client's hook that does something before the nth round trip:
// what another node may do between two of ours.
type between struct {
	n    int
	what func()
}

func (b *between) DialHook(next redis.DialHook) redis.DialHook          { return next }
func (b *between) ProcessHook(next redis.ProcessHook) redis.ProcessHook { return next }
func (b *between) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if cmds[0].Name() == "evalsha" { // and not the greeting of a new connection
			if b.n--; b.n == 0 {
				b.what()
			}
		}
		return next(ctx, cmds)
	}
}

// twoRegistries are one whose second round trip is preceded by what, and another.
func twoRegistries(t *testing.T, what func()) (a, b *redisreg.Registry) {
	t.Helper()
	p := service.Redis(t)
	ours, theirs := dial(t, p), dial(t, p)
	a, b = redisreg.New(ours, "test"), redisreg.New(theirs, "test")
	// The scripts are taught first, which takes a round trip of its own.
	for _, call := range calls(b) {
		_ = call(t.Context()) // some have nothing to do
	}
	if err := theirs.FlushAll(t.Context()).Err(); err != nil { // keeps the scripts
		t.Fatal(err)
	}
	for _, node := range []string{"back", "dead"} {
		if _, err := b.Beat(t.Context(), registry.Node{ID: node}, time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(5 * time.Millisecond)
	ours.AddHook(&between{2, what})
	return a, b
}

// TestSweepRace: who comes back while the dead are swept is not swept.
func TestSweepRace(t *testing.T) {
	var a, b *redisreg.Registry
	a, b = twoRegistries(t, func() {
		if _, err := b.Beat(t.Context(), registry.Node{ID: "back"}, time.Hour); err != nil {
			t.Error(err)
		}
	})
	if dead, err := a.Sweep(t.Context()); err != nil || len(dead) != 2 {
		t.Fatalf("Sweep: %v, %v", dead, err)
	}
	if list, err := b.List(t.Context()); err != nil || len(list) != 1 || list[0].ID != "back" {
		t.Errorf("List: %v, %v; want who came back", list, err)
	}
	if dead, err := b.Sweep(t.Context()); err != nil || len(dead) != 0 {
		t.Errorf("swept twice: %v, %v", dead, err)
	}
}

// TestElectRace: two find the bid of a dead node; who is later finds the
// other's in its place, and loses.
func TestElectRace(t *testing.T) {
	ctx := t.Context()
	mine := registry.Bid{Stream: sse.NewStreamID(), Owner: "mine"}
	theirs := registry.Bid{Stream: sse.NewStreamID(), Owner: "theirs"}
	var a, b *redisreg.Registry
	a, b = twoRegistries(t, func() {
		if _, won, err := b.Elect(ctx, "k", theirs, time.Hour); err != nil || !won {
			t.Errorf("Elect of theirs: %t, %v", won, err)
		}
	})
	for _, node := range []string{"mine", "theirs"} {
		if _, err := b.Beat(ctx, registry.Node{ID: node}, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := b.Elect(ctx, "k", registry.Bid{Stream: sse.NewStreamID(), Owner: "dead"}, time.Hour); err != nil {
		t.Fatal(err)
	}
	if now, won, err := a.Elect(ctx, "k", mine, time.Hour); err != nil || won || !now.Same(theirs) {
		t.Errorf("Elect of mine: %+v, %t, %v; want to lose to theirs", now, won, err)
	}
}
