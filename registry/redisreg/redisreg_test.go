//go:build unix

package redisreg_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"ssegate/internal/gatetest/registrytest"
	"ssegate/internal/gatetest/service"
	"ssegate/registry"
	"ssegate/registry/redisreg"
	"ssegate/sse"
)

func dial(t *testing.T, p *service.Proc) *redis.Client {
	t.Helper()
	opt, err := redis.ParseURL(p.URL)
	if err != nil {
		t.Fatal(err)
	}
	opt.ContextTimeoutEnabled = true
	c := redis.NewClient(opt)
	t.Cleanup(func() { c.Close() })
	return c
}

// suite runs the conformance suite with a prefix a test.
func suite(t *testing.T, a, b redis.UniversalClient) {
	n := 0
	registrytest.Run(t, func(t *testing.T) registrytest.World {
		n++
		prefix := fmt.Sprint("test", n)
		return registrytest.World{
			A: redisreg.New(a, prefix), B: redisreg.New(b, prefix),
			// Redis counts whole milliseconds by the clock of this machine.
			Pass: func(d time.Duration) { time.Sleep(d + 5*time.Millisecond) },
		}
	})
}

func TestRedis(t *testing.T) {
	p := service.Redis(t)
	suite(t, dial(t, p), dial(t, p))
}

// TestRedisCluster: a Redis Cluster of three refuses every command and script
// whose keys have two slots, and each of the three must be taught the scripts.
func TestRedisCluster(t *testing.T) {
	addrs := startCluster(t, 3)
	a := redis.NewClusterClient(&redis.ClusterOptions{Addrs: addrs, ContextTimeoutEnabled: true})
	b := redis.NewClusterClient(&redis.ClusterOptions{Addrs: addrs, ContextTimeoutEnabled: true})
	t.Cleanup(func() { a.Close(); b.Close() })
	suite(t, a, b)
}

// startCluster starts n masters that share the slots.
func startCluster(t *testing.T, n int) (addrs []string) {
	t.Helper()
	const slots = 16384
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var nodes []*redis.Client
	for i := range n {
		p := service.Redis(t, "--cluster-enabled", "yes")
		c := dial(t, p)
		if err := c.ClusterAddSlotsRange(ctx, i*slots/n, (i+1)*slots/n-1).Err(); err != nil {
			t.Fatal(err)
		}
		// An epoch of its own for each, or the slots are not settled at once.
		if err := c.Do(ctx, "cluster", "set-config-epoch", i+1).Err(); err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			host, port, _ := strings.Cut(p.Addr, ":")
			if err := nodes[0].ClusterMeet(ctx, host, port).Err(); err != nil {
				t.Fatal(err)
			}
		}
		addrs, nodes = append(addrs, p.Addr), append(nodes, c)
	}
	for _, c := range nodes {
		for {
			info, err := c.ClusterInfo(ctx).Result()
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(info, "cluster_state:ok") && strings.Contains(info, fmt.Sprint("cluster_known_nodes:", n)) &&
				strings.Contains(info, fmt.Sprint("cluster_slots_assigned:", slots)) {
				break
			}
			select {
			case <-ctx.Done():
				t.Fatalf("no cluster in time: %s", info)
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	return addrs
}

// TestNothingIsLeft: once a node has left and the ttls are over, no key of
// ours is in Redis, and no key is ever without an end.
func TestNothingIsLeft(t *testing.T) {
	c := dial(t, service.Redis(t))
	r := redisreg.New(c, "test")
	ctx := t.Context()
	const ttl = 200 * time.Millisecond
	id := sse.NewStreamID()
	for _, node := range []string{"a", "b"} {
		if _, err := r.Beat(ctx, registry.Node{ID: node}, time.Minute); err != nil {
			t.Fatal(err)
		}
		if err := r.PutConns(ctx, node, []*registry.Connection{{ID: "1", Node: node}}); err != nil {
			t.Fatal(err)
		}
		if err := r.Follow(ctx, id, node, ttl); err != nil {
			t.Fatal(err)
		}
	}
	if ok, err := r.Lead(ctx, "a", time.Minute); err != nil || !ok {
		t.Fatal(ok, err)
	}
	if errs := r.Put(ctx, []registry.Record{{Stream: id, Owner: "a", Epoch: 1}}, ttl); errs != nil {
		t.Fatal(errs)
	}
	if err := r.Claim(ctx, registry.Record{Stream: id, Owner: "b", Epoch: 2}, 1, ttl); err != nil {
		t.Fatal(err)
	}
	if _, _, err := r.Elect(ctx, "k", registry.Bid{Stream: id, Owner: "b"}, ttl); err != nil {
		t.Fatal(err)
	}
	if err := r.AddPrint(ctx, "p", id, ttl); err != nil {
		t.Fatal(err)
	}
	keys := scan(t, c)
	if len(keys) != 10 {
		t.Errorf("%d keys, want 10: %q", len(keys), keys)
	}
	for _, k := range keys {
		// Gone in between is -2; -1 is without an end.
		if left, err := c.PTTL(ctx, k).Result(); err != nil || left == -1 {
			t.Errorf("%s: ttl %v, %v", k, left, err)
		}
	}
	for _, node := range []string{"a", "b"} {
		if err := r.Leave(ctx, node); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(ttl + 5*time.Millisecond)
	if keys := scan(t, c); len(keys) != 0 {
		t.Errorf("left behind: %q", keys)
	}
}

// TestTheDeadLeaveNothing: the same of a node that died, after a sweep.
func TestTheDeadLeaveNothing(t *testing.T) {
	c := dial(t, service.Redis(t))
	r := redisreg.New(c, "test")
	ctx := t.Context()
	const ttl = 300 * time.Millisecond
	for {
		if _, err := r.Beat(ctx, registry.Node{ID: "a"}, ttl); err != nil {
			t.Fatal(err)
		}
		err := r.PutConns(ctx, "a", []*registry.Connection{{ID: "1", Node: "a"}})
		if err == nil {
			break
		}
		if !errors.Is(err, registry.ErrUnknown) { // too late
			t.Fatal(err)
		}
	}
	if err := r.Follow(ctx, sse.NewStreamID(), "a", ttl); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Lead(ctx, "a", ttl); err != nil {
		t.Fatal(err)
	}
	time.Sleep(ttl + 5*time.Millisecond)
	if dead, err := r.Sweep(ctx); err != nil || len(dead) != 1 {
		t.Fatalf("Sweep: %v, %v", dead, err)
	}
	if keys := scan(t, c); len(keys) != 0 {
		t.Errorf("left behind: %q", keys)
	}
}

// TestHalfALease: a lease is in two places, which may be on two machines; it
// has lapsed when either has forgotten it.
func TestHalfALease(t *testing.T) {
	c := dial(t, service.Redis(t))
	r := redisreg.New(c, "test")
	ctx := t.Context()
	beat := func(want bool) {
		t.Helper()
		if lapsed, err := r.Beat(ctx, registry.Node{ID: "a"}, time.Hour); err != nil || lapsed != want {
			t.Fatalf("Beat: lapsed %t, %v; want %t", lapsed, err, want)
		}
	}
	beat(true)
	for _, lost := range []string{"test:nodes", "test:{node:a}:node"} {
		if n, err := c.Del(ctx, lost).Result(); err != nil || n != 1 {
			t.Fatalf("Del(%s): %d, %v", lost, n, err)
		}
		if list, err := r.List(ctx); err != nil || len(list) != 0 {
			t.Errorf("List without %s: %v, %v", lost, list, err)
		}
		beat(true)
		beat(false)
	}
}

func scan(t *testing.T, c *redis.Client) (keys []string) {
	t.Helper()
	iter := c.Scan(t.Context(), 0, "*", 1000).Iterator()
	for iter.Next(t.Context()) {
		keys = append(keys, iter.Val())
	}
	if err := iter.Err(); err != nil {
		t.Fatal(err)
	}
	return keys
}

// TestTouchForgetsTheDead: a stream that is touched for ever keeps no node
// that died long ago.
func TestTouchForgetsTheDead(t *testing.T) {
	c := dial(t, service.Redis(t))
	r := redisreg.New(c, "test")
	ctx := t.Context()
	id := sse.NewStreamID()
	const ttl = 200 * time.Millisecond
	for _, node := range []string{"live", "dead"} {
		if _, err := r.Beat(ctx, registry.Node{ID: node}, time.Minute); err != nil {
			t.Fatal(err)
		}
		if err := r.Follow(ctx, id, node, ttl); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Leave(ctx, "dead"); err != nil {
		t.Fatal(err)
	}
	if err := r.Touch(ctx, []sse.StreamID{id}, time.Minute); err != nil {
		t.Fatal(err)
	}
	time.Sleep(ttl + 5*time.Millisecond)
	if err := r.Follow(ctx, id, "live", time.Minute); err != nil {
		t.Fatal(err)
	}
	if who, err := c.ZRange(ctx, "test:{"+id.String()+"}:follow", 0, -1).Result(); err != nil || len(who) != 1 || who[0] != "live" {
		t.Errorf("kept %q, %v; want only the live one", who, err)
	}
}
