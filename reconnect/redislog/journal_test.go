package redislog_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"ssegate/internal/gatetest/service"
	"ssegate/reconnect"
	"ssegate/reconnect/redislog"
	"ssegate/sse"
)

// note is posts for one topic, each with an id; once may be 0.
func note(id sse.StreamID, once time.Duration, ids ...string) []reconnect.Posts {
	posts := make([]reconnect.Post, len(ids))
	for i := range ids {
		posts[i] = reconnect.Post{ID: []byte(ids[i]), Once: once, Block: []byte("data: " + ids[i] + "\n\n")}
	}
	return []reconnect.Posts{{Stream: id, Limits: reconnect.Limits{TTL: time.Hour}, Posts: posts}}
}

func mustPublish(t *testing.T, log *redislog.Log, batch []reconnect.Posts) reconnect.Posted {
	t.Helper()
	d := log.Publish(t.Context(), batch)[0]
	if d.Err != nil {
		t.Fatal(d.Err)
	}
	return d
}

// TestFailover: a replica that had not got everything takes over.
func TestFailover(t *testing.T) {
	master := service.Redis(t)
	host, port, _ := strings.Cut(master.Addr, ":")
	second := service.Redis(t, "--replicaof", host+" "+port)
	c, r := connect(t, master), connect(t, second)
	log, prefix := open(t, c)
	id := sse.NewStreamID()
	mustPublish(t, log, note(id, 0, "a", "b"))
	wait(t, "the replica to have it", func() bool {
		n, err := r.XLen(t.Context(), keyOf(prefix, id)).Result()
		return err == nil && n == 1
	})
	if err := r.ReplicaOf(t.Context(), "NO", "ONE").Err(); err != nil {
		t.Fatal(err)
	}
	lost := mustPublish(t, log, note(id, 0, "c"))
	after := redislog.New(r, prefix)
	tails, err := after.Tails(t.Context(), []sse.StreamID{id})
	if err != nil || tails[0].Pos.Seq != lost.Pos[0].Seq-1 {
		t.Fatalf("the replica is at %v, %v", tails, err)
	}
	d := mustPublish(t, after, note(id, 0, "d"))
	if d.Pos[0].Epoch <= lost.Pos[0].Epoch {
		t.Errorf("published at %v, where the old master had %v", d.Pos, lost.Pos)
	}
}

// TestReplicas: who waits for replicas is told when they do not have it, and
// where it is all the same.
func TestReplicas(t *testing.T) {
	master := service.Redis(t, "--repl-diskless-sync-delay", "0")
	c := connect(t, master)
	log, prefix := open(t, c, redislog.WithReplicas(1, 50*time.Millisecond))
	id, other := sse.NewStreamID(), sse.NewStreamID()
	batch := append(note(id, 0, "a"), note(other, time.Hour, "b", "c")...)
	for i, d := range log.Publish(t.Context(), batch) { // the scripts are new as well
		if !errors.Is(d.Err, reconnect.ErrReplicas) || len(d.Pos) != i+1 || d.Pos[0].Seq == 0 {
			t.Errorf("%+v", d)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	slow := redislog.New(c, prefix, redislog.WithReplicas(1, time.Hour))
	begin := time.Now()
	if d := slow.Publish(ctx, note(id, 0, "d"))[0]; !errors.Is(d.Err, reconnect.ErrReplicas) || len(d.Pos) != 1 {
		t.Errorf("%+v", d)
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("took %v", took)
	}

	host, port, _ := strings.Cut(master.Addr, ":")
	service.Redis(t, "--replicaof", host+" "+port)
	wait(t, "the replica", func() bool {
		info, err := c.Info(t.Context(), "replication").Result()
		return err == nil && strings.Contains(info, "state=online")
	})
	patient := redislog.New(c, prefix, redislog.WithReplicas(1, 20*time.Second))
	d := patient.Publish(t.Context(), note(other, time.Hour, "c", "d"))[0]
	if d.Err != nil || !d.Dup[0] || d.Dup[1] {
		t.Errorf("with a replica: %+v", d)
	}
}

// TestReplicasOfCluster: each master is asked for its own replicas, and a topic
// whose slot has moved is followed there.
func TestReplicasOfCluster(t *testing.T) {
	c, nodes := cluster(t)
	log, prefix := open(t, c, redislog.WithReplicas(1, time.Millisecond))
	var batch []reconnect.Posts
	for range 40 {
		batch = append(batch, note(sse.NewStreamID(), 0, "a")...)
	}
	check := func(batch []reconnect.Posts) {
		t.Helper()
		for i, d := range log.Publish(t.Context(), batch) {
			if !errors.Is(d.Err, reconnect.ErrReplicas) || len(d.Pos) != 1 {
				t.Errorf("topic %d: %+v", i, d)
			}
		}
	}
	check(batch)
	if tails, err := log.Tails(t.Context(), []sse.StreamID{batch[0].Stream, batch[39].Stream}); err != nil || tails[0].Pos.Seq%1000 != 1 {
		t.Error(tails, err)
	}

	moved := note(sse.NewStreamID(), 0, "b")
	ctx := t.Context()
	slot := c.ClusterKeySlot(ctx, keyOf(prefix, moved[0].Stream)).Val()
	to := nodes[1]
	if slot >= 8192 {
		to = nodes[0]
	}
	id := to.Do(ctx, "cluster", "myid").Val()
	for _, node := range []*redis.Client{to, nodes[0], nodes[1]} {
		if err := node.Do(ctx, "cluster", "setslot", slot, "node", id).Err(); err != nil {
			t.Fatal(err)
		}
	}
	check(append(moved, batch[:5]...))
	if n, err := to.Exists(ctx, keyOf(prefix, moved[0].Stream)).Result(); n != 1 || err != nil {
		t.Errorf("it is not where its slot is: %d, %v", n, err)
	}
}

// TestLostAnswersToPublish: Redis took the posts, but the answer was lost. What
// may be there twice is not sent again, and the caller is told that its fate
// is not known; what is taken once is sent again by the client, and its
// position is known.
func TestLostAnswersToPublish(t *testing.T) {
	proxy := newLossy(t, shared.Addr)
	prefix := fmt.Sprint("test", prefixes.Add(1))
	// lossy publishes twice; the second answer is lost.
	lossy := func(first, second []reconnect.Posts) (reconnect.Posted, reconnect.Posted) {
		t.Helper()
		c := redis.NewClient(&redis.Options{Addr: proxy.Addr().String()})
		defer c.Close()
		log := redislog.New(c, prefix)
		defer log.Close()
		one := mustPublish(t, log, first) // the connection and the script are there
		proxy.cut.Store(true)
		two := log.Publish(t.Context(), second)[0]
		if proxy.cut.Load() {
			t.Fatal("no answer was lost")
		}
		return one, two
	}
	id := sse.NewStreamID()
	first, d := lossy(note(id, 0, "a"), note(id, 0, "b"))
	if d.Err == nil || errors.Is(d.Err, reconnect.ErrReplicas) || errors.Is(d.Err, reconnect.ErrBroken) || d.Pos != nil {
		t.Errorf("the answer was lost: %+v", d)
	}
	_, d = lossy(note(id, 0, "c"), note(id, time.Hour, "d"))
	if d.Err != nil || d.Pos[0].Seq != first.Pos[0].Seq+3 || len(d.Dup) != 1 || !d.Dup[0] {
		t.Errorf("taken once: %+v", d)
	}
	log := redislog.New(connect(t, shared), prefix)
	got, err := log.Read(t.Context(), id, first.Pos[0], 10)
	if err != nil || len(got) != 3 || string(got[0].ID) != "b" || string(got[2].ID) != "d" {
		t.Errorf("%v, %v", got, err)
	}
}

// TestJournalPaused: a Redis that holds its connections and says nothing.
func TestJournalPaused(t *testing.T) {
	p := service.Redis(t)
	log, _ := open(t, connect(t, p))
	id := sse.NewStreamID()
	d := mustPublish(t, log, note(id, 0, "a"))
	calls := map[string]func(ctx context.Context) error{
		"publish": func(ctx context.Context) error { return log.Publish(ctx, note(id, time.Hour, "b"))[0].Err },
		"open": func(ctx context.Context) error {
			_, err := log.Open(ctx, []reconnect.OpenTopic{{Stream: id}})
			return err
		},
		"since":  func(ctx context.Context) error { _, err := log.Since(ctx, id, time.Unix(1, 0)); return err },
		"back":   func(ctx context.Context) error { _, err := log.Back(ctx, id, 1); return err },
		"pass":   func(ctx context.Context) error { return log.Pass(ctx, id, d.Pos[0], time.Hour) },
		"passed": func(ctx context.Context) error { _, err := log.Passed(ctx, id); return err },
	}
	p.Pause()
	for name, call := range calls {
		begin := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		err := call(ctx)
		cancel()
		if took := time.Since(begin); !errors.Is(err, context.DeadlineExceeded) || took > 5*time.Second {
			t.Errorf("%s: %v after %v", name, err, took)
		}
	}
	p.Resume()
	// Its fate was not known; sent again it is there once.
	again := mustPublish(t, log, note(id, time.Hour, "b"))
	if again.Pos[0].Seq != d.Pos[0].Seq+1 {
		t.Errorf("%+v", again)
	}
}

// TestJournalDown: nobody listens; what is not reached is no sentinel.
func TestJournalDown(t *testing.T) {
	p := service.Redis(t)
	c := redis.NewClient(&redis.Options{Addr: p.Addr, MaxRetries: -1, DialerRetries: 1})
	t.Cleanup(func() { c.Close() })
	log, _ := open(t, c)
	id := sse.NewStreamID()
	mustPublish(t, log, note(id, 0, "a"))
	p.Kill()
	_, open := log.Open(t.Context(), []reconnect.OpenTopic{{Stream: id}})
	_, since := log.Since(t.Context(), id, time.Unix(1, 0))
	_, back := log.Back(t.Context(), id, 1)
	for what, err := range map[string]error{
		"publish": log.Publish(t.Context(), note(id, 0, "b"))[0].Err, "open": open, "since": since, "back": back,
	} {
		if err == nil || errors.Is(err, reconnect.ErrUnknown) || errors.Is(err, reconnect.ErrReplicas) || errors.Is(err, reconnect.ErrBroken) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestJournalGarbage: what somebody else wrote under a topic's keys is an error
// that says so and names the topic, and nothing is added.
func TestJournalGarbage(t *testing.T) {
	c := connect(t, shared)
	log, prefix := open(t, c)
	ctx := t.Context()
	f := func(what string, spoil func(tag string) error, broken ...string) {
		t.Helper()
		id := sse.NewStreamID()
		tag := prefix + ":{" + id.String() + "}:"
		d := mustPublish(t, log, note(id, time.Hour, "a"))
		if err := spoil(tag); err != nil {
			t.Fatal(what, err)
		}
		_, open := log.Open(ctx, []reconnect.OpenTopic{{Stream: id}})
		_, since := log.Since(ctx, id, time.UnixMilli(d.Time))
		_, back := log.Back(ctx, id, 1)
		_, passed := log.Passed(ctx, id)
		_, read := log.Read(ctx, id, reconnect.Origin(d.Pos[0].Epoch), 10)
		for call, err := range map[string]error{
			"publish": log.Publish(ctx, note(id, time.Hour, "b"))[0].Err,
			"open":    open, "since": since, "back": back, "passed": passed, "read": read,
			"pass": log.Pass(ctx, id, d.Pos[0], time.Hour),
		} {
			want := strings.Contains(strings.Join(broken, " ")+" ", call+" ")
			if want && (!errors.Is(err, reconnect.ErrBroken) || !strings.Contains(err.Error(), id.String())) {
				t.Errorf("%s: %s: %v, want ErrBroken", what, call, err)
			} else if !want && err != nil {
				t.Errorf("%s: %s: %v", what, call, err)
			}
		}
	}
	f("nothing", func(string) error { return nil })
	f("a numbering that is a string", func(tag string) error { return c.Set(ctx, tag+"seq", "x", 0).Err() },
		"publish", "open", "since", "back", "read")
	f("a numbering of words", func(tag string) error { return c.HSet(ctx, tag+"seq", "e", "x", "s", "y").Err() },
		"publish", "open", "since", "back", "read")
	f("a numbering behind its log", func(tag string) error {
		e, err := c.HGet(ctx, tag+"seq", "e").Uint64()
		return errors.Join(err, c.HSet(ctx, tag+"seq", "s", fmt.Sprint(e*1000)).Err())
	}, "publish")
	f("a log that is a list", func(tag string) error {
		return errors.Join(c.Del(ctx, tag+"log").Err(), c.LPush(ctx, tag+"log", "x").Err())
	}, "publish", "since", "back", "read")
	f("ids that are a list", func(tag string) error {
		return errors.Join(c.Del(ctx, tag+"once").Err(), c.LPush(ctx, tag+"once", "x").Err())
	}, "publish")
	f("a passed position of words", func(tag string) error { return c.Set(ctx, tag+"passed", "x", 0).Err() },
		"pass", "passed")
	f("a passed position that is a list", func(tag string) error { return c.LPush(ctx, tag+"passed", "x").Err() },
		"pass", "passed")
	f("an entry of somebody's", func(tag string) error {
		e, err := c.HGet(ctx, tag+"seq", "e").Uint64()
		return errors.Join(err, c.XAdd(ctx, &redis.XAddArgs{Stream: tag + "log", ID: fmt.Sprint(e, "-", e*1000+9), Values: []any{"a", "b"}}).Err())
	}, "publish", "since", "back", "read")
}

// TestJournalOutOfMemory: a Redis that takes nothing more takes all or nothing,
// and is no broken log.
func TestJournalOutOfMemory(t *testing.T) {
	c := connect(t, service.Redis(t))
	log, _ := open(t, c)
	id := sse.NewStreamID()
	first := mustPublish(t, log, note(id, time.Hour, "a"))
	if err := c.ConfigSet(t.Context(), "maxmemory", "1mb").Err(); err != nil {
		t.Fatal(err)
	}
	for _, once := range []time.Duration{0, time.Hour} {
		d := log.Publish(t.Context(), note(id, once, "b", "c"))[0]
		if d.Err == nil || errors.Is(d.Err, reconnect.ErrBroken) || !strings.Contains(d.Err.Error(), "OOM") {
			t.Errorf("%+v", d)
		}
	}
	if err := c.ConfigSet(t.Context(), "maxmemory", "0").Err(); err != nil {
		t.Fatal(err)
	}
	d := mustPublish(t, log, note(id, time.Hour, "a", "b", "c"))
	if !d.Dup[0] || d.Dup[1] || d.Pos[1].Seq != first.Pos[0].Seq+1 {
		t.Errorf("%+v", d)
	}
}

// TestNoTopicKeysLeft: every key of a topic has an end.
func TestNoTopicKeysLeft(t *testing.T) {
	c := connect(t, shared)
	log, prefix := open(t, c)
	id := sse.NewStreamID()
	for i := range 3 {
		d := mustPublish(t, log, note(id, time.Millisecond, fmt.Sprint(i)))
		if err := log.Pass(t.Context(), id, d.Pos[0], time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	keys, err := c.Keys(t.Context(), prefix+":*").Result()
	if err != nil || len(keys) < 3 {
		t.Fatal(keys, err)
	}
	for _, key := range keys {
		left, err := c.PTTL(t.Context(), key).Result()
		if err != nil || left == -1 || left > 24*time.Hour { // -1 is for ever
			t.Errorf("%s has %v, %v", key, left, err)
		}
	}
	if left := c.PTTL(t.Context(), prefix+":{"+id.String()+"}:seq").Val(); left < 23*time.Hour {
		t.Errorf("the numbering has %v", left)
	}
}
