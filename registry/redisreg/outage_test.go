//go:build unix

package redisreg_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"ssegate/internal/gatetest/service"
	"ssegate/registry"
	"ssegate/registry/redisreg"
	"ssegate/sse"
)

// calls are all methods of a registry, each with something to do.
func calls(r *redisreg.Registry) map[string]func(context.Context) error {
	id := sse.NewStreamID()
	rec := registry.Record{Stream: id, Owner: "a", Epoch: 1}
	newer := rec
	newer.Epoch = 2
	return map[string]func(context.Context) error{
		"Beat":  func(ctx context.Context) error { return second(r.Beat(ctx, registry.Node{ID: "a"}, time.Minute)) },
		"List":  func(ctx context.Context) error { return second(r.List(ctx)) },
		"Leave": func(ctx context.Context) error { return r.Leave(ctx, "a") },
		"Sweep": func(ctx context.Context) error { return second(r.Sweep(ctx)) },
		"Lead":  func(ctx context.Context) error { return second(r.Lead(ctx, "a", time.Minute)) },
		"Put": func(ctx context.Context) error {
			return errors.Join(r.Put(ctx, []registry.Record{rec}, time.Minute)...)
		},
		"Get":       func(ctx context.Context) error { return second(r.Get(ctx, id)) },
		"Claim":     func(ctx context.Context) error { return r.Claim(ctx, newer, 1, time.Minute) },
		"Touch":     func(ctx context.Context) error { return r.Touch(ctx, []sse.StreamID{id}, time.Minute) },
		"Follow":    func(ctx context.Context) error { return r.Follow(ctx, id, "a", time.Minute) },
		"Unfollow":  func(ctx context.Context) error { return r.Unfollow(ctx, id, "a") },
		"Followers": func(ctx context.Context) error { return second(r.Followers(ctx, []sse.StreamID{id})) },
		"Elect": func(ctx context.Context) error {
			_, _, err := r.Elect(ctx, "k", registry.Bid{Stream: id, Owner: "a"}, time.Minute)
			return err
		},
		"Extend":   func(ctx context.Context) error { return r.Extend(ctx, "k", id, time.Minute) },
		"Release":  func(ctx context.Context) error { return r.Release(ctx, "k", id) },
		"AddPrint": func(ctx context.Context) error { return r.AddPrint(ctx, "p", id, time.Minute) },
		"ByPrint":  func(ctx context.Context) error { return second(r.ByPrint(ctx, "p")) },
		"PutConns": func(ctx context.Context) error {
			return r.PutConns(ctx, "a", []*registry.Connection{{ID: "1", Node: "a"}})
		},
		"DropConns": func(ctx context.Context) error { return r.DropConns(ctx, "a", []string{"1"}) },
		"Conns":     func(ctx context.Context) error { return second(r.Conns(ctx)) },
		"PutNote":   func(ctx context.Context) error { return r.PutNote(ctx, "n", []byte("1"), time.Minute) },
		"GetNote":   func(ctx context.Context) error { return second(r.GetNote(ctx, "n")) },
		"TakeNote":  func(ctx context.Context) error { return second(r.TakeNote(ctx, "n")) },
		"Gather":    func(ctx context.Context) error { return r.Gather(ctx, "g", []byte("1"), time.Minute) },
		"Gathered":  func(ctx context.Context) error { return second(r.Gathered(ctx, "g")) },
		"PutDue":    func(ctx context.Context) error { return r.PutDue(ctx, time.Now(), [][]byte{{1}}) },
		"TakeDue": func(ctx context.Context) error {
			return second(r.TakeDue(ctx, time.Now(), time.Now().Add(time.Minute), 1))
		},
		"DropDue": func(ctx context.Context) error { return r.DropDue(ctx, [][]byte{{1}}) },
	}
}

func second[T any](_ T, err error) error { return err }

// away says that err tells of a registry that could not be reached.
func away(err error) bool {
	return err != nil && !errors.Is(err, registry.ErrUnknown) && !errors.Is(err, registry.ErrFenced) && !errors.Is(err, redisreg.ErrDamaged)
}

// TestPaused: a Redis that stands still (SIGSTOP) holds nobody longer than ctx
// allows, and all is well when it goes on.
func TestPaused(t *testing.T) {
	p := service.Redis(t)
	r := redisreg.New(dial(t, p), "test")
	if _, err := r.Beat(t.Context(), registry.Node{ID: "a"}, time.Hour); err != nil {
		t.Fatal(err)
	}
	p.Pause()
	const patience, slack = 50 * time.Millisecond, 2 * time.Second
	for name, call := range calls(r) {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		began := time.Now()
		err := call(ctx)
		cancel()
		if took := time.Since(began); took > patience+slack {
			t.Errorf("%s took %v, of %v", name, took, patience)
		}
		if !away(err) {
			t.Errorf("%s: %v, want an error that says nothing is known", name, err)
		}
	}
	p.Resume()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if lapsed, err := r.Beat(ctx, registry.Node{ID: "a"}, time.Hour); err != nil {
		t.Errorf("Beat after the pause: lapsed %t, %v", lapsed, err)
	}
}

// TestKilled: without a Redis every method says so.
func TestKilled(t *testing.T) {
	p := service.Redis(t)
	r := redisreg.New(dial(t, p), "test")
	p.Kill()
	for name, call := range calls(r) {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		if err := call(ctx); !away(err) {
			t.Errorf("%s: %v, want an error that says nothing is known", name, err)
		}
		cancel()
	}
}

// TestRestartedEmpty: a Redis that forgot everything, scripts too, makes the
// next beat say so, and everything works as in a new one.
func TestRestartedEmpty(t *testing.T) {
	p := service.Redis(t)
	r := redisreg.New(dial(t, p), "test")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	beat := func(want bool) {
		t.Helper()
		if lapsed, err := r.Beat(ctx, registry.Node{ID: "a"}, time.Hour); err != nil || lapsed != want {
			t.Fatalf("Beat: lapsed %t, %v; want %t", lapsed, err, want)
		}
	}
	beat(true)
	beat(false)
	for name, call := range calls(r) {
		if name == "Beat" || name == "Leave" {
			continue
		}
		if err := call(ctx); err != nil && away(err) {
			t.Fatalf("%s before: %v", name, err)
		}
	}
	p.Kill()
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	beat(true)
	beat(false)
	for name, call := range calls(r) {
		if name == "Beat" || name == "Leave" {
			continue
		}
		if err := call(ctx); err != nil && away(err) {
			t.Errorf("%s after: %v", name, err)
		}
	}
}

// TestScriptsAreTaughtAgain: each method survives a Redis that has just lost
// all scripts, in the middle of a pipeline too.
func TestScriptsAreTaughtAgain(t *testing.T) {
	c := dial(t, service.Redis(t))
	r := redisreg.New(c, "test")
	ctx := t.Context()
	for name, call := range calls(r) {
		if err := c.ScriptFlush(ctx).Err(); err != nil {
			t.Fatal(err)
		}
		if err := call(ctx); err != nil && away(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// A pipeline of which one script is known and the other is not.
	one, two := sse.NewStreamID(), sse.NewStreamID()
	if _, err := r.Beat(ctx, registry.Node{ID: "a"}, time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := r.Follow(ctx, one, "a", time.Hour); err != nil {
		t.Fatal(err)
	}
	if err := c.ScriptFlush(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	who, err := r.Followers(ctx, []sse.StreamID{one, two})
	if err != nil || len(who) != 2 || len(who[0]) != 1 || len(who[1]) != 0 {
		t.Errorf("Followers: %v, %v", who, err)
	}
}

// TestDamaged: what somebody else wrote under our keys is an error that names
// the key, never a panic and never taken for an answer.
func TestDamaged(t *testing.T) {
	c := dial(t, service.Redis(t))
	r := redisreg.New(c, "test")
	ctx := t.Context()
	id := sse.NewStreamID()
	tag := "test:{" + id.String() + "}"
	live := func() {
		t.Helper()
		if err := c.FlushAll(ctx).Err(); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Beat(ctx, registry.Node{ID: "a"}, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []struct {
		name string
		key  string
		do   func(key string) error
		call func() error
	}{
		{"node without a time", "test:{node:a}:node", func(k string) error { return c.Set(ctx, k, "x", 0).Err() },
			func() error { return second(r.List(ctx)) }},
		{"node with a bad time", "test:{node:a}:node", func(k string) error { return c.Set(ctx, k, "x {}", 0).Err() },
			func() error { return second(r.List(ctx)) }},
		{"node that is no JSON", "test:{node:a}:node", func(k string) error { return c.Set(ctx, k, "1 [", 0).Err() },
			func() error { return second(r.List(ctx)) }},
		{"record that is no JSON", tag + ":record", func(k string) error { return c.HSet(ctx, k, "data", "{{").Err() },
			func() error { return second(r.Get(ctx, id)) }},
		{"record that names no stream", tag + ":record", func(k string) error { return c.HSet(ctx, k, "data", `{"owner":"a"}`).Err() },
			func() error { return second(r.Get(ctx, id)) }},
		{"record with a wrong field", tag + ":record", func(k string) error { return c.HSet(ctx, k, "data", `{"epoch":-1}`).Err() },
			func() error { return second(r.Get(ctx, id)) }},
		{"bid without a stream", "test:key:k", func(k string) error { return c.Set(ctx, k, "x", 0).Err() },
			func() error {
				_, _, err := r.Elect(ctx, "k", registry.Bid{Stream: id, Owner: "a"}, time.Minute)
				return err
			}},
		{"bid that is no JSON", "test:key:k", func(k string) error { return c.Set(ctx, k, id.String()+" null{", 0).Err() },
			func() error {
				_, _, err := r.Elect(ctx, "k", registry.Bid{Stream: id, Owner: "a"}, time.Minute)
				return err
			}},
		{"print of no stream", "test:print:p", func(k string) error { return c.RPush(ctx, k, "9999999999999 zz").Err() },
			func() error { return second(r.ByPrint(ctx, "p")) }},
		{"connection that is no JSON", "test:{node:a}:conns", func(k string) error { return c.HSet(ctx, k, "1", "null x").Err() },
			func() error { return second(r.Conns(ctx)) }},
	} {
		live()
		if err := d.do(d.key); err != nil {
			t.Fatal(err)
		}
		err := d.call()
		if !errors.Is(err, redisreg.ErrDamaged) || !strings.Contains(err.Error(), d.key) {
			t.Errorf("%s: %v, want ErrDamaged and the key %s", d.name, err, d.key)
		}
	}

	// A key of another type is Redis' own error.
	for name, call := range calls(r) {
		live()
		for _, k := range []string{"test:nodes", "test:cleaner", "test:key:k", "test:print:p", "test:{node:a}:conns", "test:{node:a}:node", "test:note:n", "test:gathered:g", "test:due"} {
			if err := c.Del(ctx, k).Err(); err != nil {
				t.Fatal(err)
			}
			if err := c.XAdd(ctx, xadd(k)).Err(); err != nil {
				t.Fatal(err)
			}
		}
		switch err := call(ctx); name {
		case "Put", "Get", "Claim", "Follow", "Unfollow", "PutNote": // touch none of these keys, or not what is in it
		case "PutConns": // a lease without an end is none
			if !errors.Is(err, registry.ErrUnknown) {
				t.Errorf("%s of damaged keys: %v, want ErrUnknown", name, err)
			}
		case "Leave": // removes them all, but for the index and the cleaner
			if err == nil {
				t.Errorf("%s of a damaged index: no error", name)
			}
		default:
			if !away(err) {
				t.Errorf("%s of damaged keys: %v, want an error", name, err)
			}
		}
	}
}

// TestNewerVersion: fields that a newer version wrote are passed over.
func TestNewerVersion(t *testing.T) {
	c := dial(t, service.Redis(t))
	r := redisreg.New(c, "test")
	ctx := t.Context()
	id := sse.NewStreamID()
	if _, err := r.Beat(ctx, registry.Node{ID: "a"}, time.Hour); err != nil {
		t.Fatal(err)
	}
	for key, write := range map[string]func(string) error{
		"test:{node:a}:node": func(k string) error {
			return c.Set(ctx, k, `1763800000000 {"id":"a","streams":3,"weather":{"rain":true}}`, time.Hour).Err()
		},
		"test:{" + id.String() + "}:record": func(k string) error {
			return c.HSet(ctx, k, "epoch", 5, "owner", "a", "mood", "good",
				"data", `{"stream":"`+id.String()+`","owner":"a","epoch":5,"state":77,"mood":[1]}`).Err()
		},
		"test:{node:a}:conns": func(k string) error {
			return c.HSet(ctx, k, "1", `{"id":"1","stream":"`+id.String()+`","mood":"good"}`).Err()
		},
		"test:key:k": func(k string) error {
			return c.Set(ctx, k, id.String()+` {"owner":"a","mood":"good"}`, time.Hour).Err()
		},
	} {
		if err := write(key); err != nil {
			t.Fatal(err)
		}
	}
	if list, err := r.List(ctx); err != nil || len(list) != 1 || list[0].Streams != 3 || list[0].Seen.UnixMilli() != 1_763_800_000_000 {
		t.Errorf("List: %+v, %v", list, err)
	}
	if rec, err := r.Get(ctx, id); err != nil || rec.Epoch != 5 || rec.State != 77 {
		t.Errorf("Get: %+v, %v", rec, err)
	}
	if all, err := r.Conns(ctx); err != nil || len(all) != 1 || all[0].Stream != id {
		t.Errorf("Conns: %+v, %v", all, err)
	}
	now, won, err := r.Elect(ctx, "k", registry.Bid{Stream: sse.NewStreamID(), Owner: "b"}, time.Minute)
	if err != nil || won || now.Stream != id || now.Owner != "a" {
		t.Errorf("Elect: %+v, %t, %v", now, won, err)
	}
}

// xadd makes a key a stream, which nothing here is.
func xadd(key string) *redis.XAddArgs {
	return &redis.XAddArgs{Stream: key, Values: []string{"a", "b"}}
}
