//go:build unix

package consul_test

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ssegate/discover/consul"
	"ssegate/internal/gatetest/discovertest"
	"ssegate/internal/gatetest/service"
)

// lead waits until c answers so.
func lead(t *testing.T, c *consul.Consul, want bool) {
	t.Helper()
	eventually(t, func() string {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		got, err := c.Lead(ctx)
		if err != nil {
			return err.Error()
		}
		if got != want {
			return "Lead: " + strconv.FormatBool(got)
		}
		return ""
	})
}

// TestLeadRace: many ask at once, over and over: one node is told yes, always
// the same.
func TestLeadRace(t *testing.T) {
	p := service.Consul(t)
	discovertest.NoLeak(t)
	long := func(c *consul.Config) { c.SessionTTL = time.Minute }
	nodes := [2]*consul.Consul{open(t, p, "a", long), open(t, p, "b", long)}
	var yes [2]atomic.Int32
	const racers, rounds = 8, 5
	var wg sync.WaitGroup
	for g := range racers {
		wg.Go(func() {
			for range rounds {
				ok, err := nodes[g%2].Lead(t.Context())
				if err != nil {
					t.Error(err)
				} else if ok {
					yes[g%2].Add(1)
				}
			}
		})
	}
	wg.Wait()
	a, b := yes[0].Load(), yes[1].Load()
	if min(a, b) != 0 || max(a, b) != racers/2*rounds {
		t.Errorf("told yes: a %d times, b %d times; want one of them always", a, b)
	}
}

// TestLeadMoves: the lock moves when its holder is heard of no more, or leaves.
func TestLeadMoves(t *testing.T) {
	p := service.Consul(t)
	discovertest.NoLeak(t)
	a := open(t, p, "a", func(c *consul.Config) { c.SessionTTL = time.Second })
	b := open(t, p, "b", func(c *consul.Config) { c.SessionTTL = time.Minute })
	lead(t, a, true)
	leave := running(t, b.Register)
	lead(t, b, true) // a asks no more, so its session ends
	lead(t, a, false)
	leave()
	if ok, err := b.Lead(t.Context()); ok || err != nil {
		t.Errorf("Lead after leaving: %t, %v", ok, err)
	}
	// Not after b's minute: lead waits half as long. Not always at once either:
	// the delay that Consul lays on the lock when a session ends, as a's did,
	// may outlast b's time.
	lead(t, a, true)
}

// TestSessionLost: who loses the session behind the lock gets another.
func TestSessionLost(t *testing.T) {
	p := service.Consul(t)
	discovertest.NoLeak(t)
	c := open(t, p, "a")
	lead(t, c, true)
	adm := admin(t, p)
	list, _, err := adm.Session().List(nil)
	check(t, err)
	for _, s := range list {
		_, err := adm.Session().Destroy(s.ID, nil)
		check(t, err)
	}
	lead(t, c, true)
}
