package redislog_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"ssegate/internal/gatetest/logtest"
	"ssegate/internal/gatetest/service"
	"ssegate/reconnect"
	"ssegate/reconnect/redislog"
	"ssegate/registry/redisreg"
	"ssegate/sse"
)

// shared is the Redis of all tests that leave it running.
var shared *service.Proc

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if shared, err = service.StartRedis(""); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		code := m.Run()
		if err := shared.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return code
	}())
}

// connect returns a client of p as a user has one, with the client's defaults.
func connect(t testing.TB, p *service.Proc) *redis.Client {
	t.Helper()
	opt, err := redis.ParseURL(p.URL)
	if err != nil {
		t.Fatal(err)
	}
	c := redis.NewClient(opt)
	t.Cleanup(func() { c.Close() })
	return c
}

var prefixes atomic.Int64

// open returns a log under a prefix of its own.
func open(t testing.TB, c redis.UniversalClient, options ...redislog.Option) (log *redislog.Log, prefix string) {
	t.Helper()
	prefix = fmt.Sprint("test", prefixes.Add(1))
	log = redislog.New(c, prefix, options...)
	t.Cleanup(func() {
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	})
	return log, prefix
}

func keyOf(prefix string, id sse.StreamID) string { return prefix + ":{" + id.String() + "}:log" }

// driver is the suite's driver on a client.
func driver(c redis.UniversalClient) logtest.Driver {
	var prefix string
	interest := redisreg.New(c, "interest")
	return logtest.Driver{
		New: func(t *testing.T) reconnect.Journal {
			var log *redislog.Log
			log, prefix = open(t, c, redislog.WithInterest(interest.FollowKey))
			return log
		},
		Follow: func(t *testing.T, stream sse.StreamID, node string) {
			if err := interest.Follow(t.Context(), stream, node, time.Hour); err != nil {
				t.Fatal(err)
			}
		},
		Empty: func(t *testing.T, _ reconnect.Log, stream sse.StreamID) {
			if err := c.XTrimMaxLen(t.Context(), keyOf(prefix, stream), 0).Err(); err != nil {
				t.Fatal(err)
			}
		},
		Slack: 400, // Redis drops several entries at once, of several frames each
	}
}

func TestRedisConforms(t *testing.T) { logtest.Run(t, driver(connect(t, shared))) }

// TestRedisClusterConforms: the same on Redis Cluster.
func TestRedisClusterConforms(t *testing.T) {
	c, nodes := cluster(t)
	logtest.Run(t, driver(c))
	for i, node := range nodes {
		if n, err := node.DBSize(t.Context()).Result(); err != nil || n == 0 {
			t.Errorf("node %d has %d keys, %v", i, n, err)
		}
	}
}

// cluster is two nodes that have half of the slots each, spoken to in the older
// protocol.
func cluster(t *testing.T) (c *redis.ClusterClient, nodes [2]*redis.Client) {
	t.Helper()
	var addrs [2]string
	for i := range nodes {
		p := service.Redis(t, "--cluster-enabled", "yes")
		nodes[i], addrs[i] = connect(t, p), p.Addr
	}
	ctx := t.Context()
	host, port, _ := strings.Cut(addrs[1], ":")
	if err := errors.Join(
		nodes[0].ClusterAddSlotsRange(ctx, 0, 8191).Err(),
		nodes[1].ClusterAddSlotsRange(ctx, 8192, 16383).Err(),
		nodes[0].ClusterMeet(ctx, host, port).Err(),
	); err != nil {
		t.Fatal(err)
	}
	for _, node := range nodes {
		wait(t, "the cluster to come together", func() bool {
			info, err := node.ClusterInfo(ctx).Result()
			return err == nil && strings.Contains(info, "cluster_state:ok") && strings.Contains(info, "cluster_slots_ok:16384")
		})
	}
	c = redis.NewClusterClient(&redis.ClusterOptions{Addrs: addrs[:], Protocol: 2})
	t.Cleanup(func() { c.Close() })
	return c, nodes
}

// wait waits until something is so.
func wait(t *testing.T, what string, is func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for !is() {
		select {
		case <-ctx.Done():
			t.Fatal("waited in vain for ", what)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func run(epoch, seq uint64, n int) []sse.Frame {
	frames := make([]sse.Frame, n)
	for i := range frames {
		p := sse.Pos{Epoch: epoch, Seq: seq + uint64(i)}
		frames[i] = sse.Frame{Pos: p, Kind: sse.KindEvent, Block: fmt.Appendf(nil, "data: %v\n\n", p)}
	}
	return frames
}

func one(id sse.StreamID, frames []sse.Frame) []reconnect.Batch {
	return []reconnect.Batch{{Stream: id, Runs: logtest.Runs(frames)}}
}

func mustAppend(t *testing.T, log reconnect.Log, id sse.StreamID, frames []sse.Frame) {
	t.Helper()
	if errs := log.Append(t.Context(), one(id, frames)); errs != nil {
		t.Fatal(errs)
	}
}

// TestPaused: with a Redis that holds its connections and says nothing, every
// call ends with its context, whether that has a deadline or is cancelled,
// though the client would wait for seconds.
func TestPaused(t *testing.T) {
	p := service.Redis(t)
	log, _ := open(t, connect(t, p))
	id := sse.NewStreamID()
	mustAppend(t, log, id, run(1, 1, 3))
	calls := map[string]func(ctx context.Context) error{
		"append": func(ctx context.Context) error { return errors.Join(log.Append(ctx, one(id, run(1, 4, 2)))...) },
		"read":   func(ctx context.Context) error { _, err := log.Read(ctx, id, sse.Pos{}, 10); return err },
		"tails":  func(ctx context.Context) error { _, err := log.Tails(ctx, []sse.StreamID{id}); return err },
		"find":   func(ctx context.Context) error { _, err := log.Find(ctx, id, []byte("x")); return err },
		"fence":  func(ctx context.Context) error { _, err := log.Fence(ctx, id, 1, reconnect.Limits{}); return err },
		"touch":  func(ctx context.Context) error { return log.Touch(ctx, []sse.StreamID{id}, time.Hour) },
	}
	p.Pause()
	for name, call := range calls {
		f := func(how string, ctx context.Context, want error) {
			t.Helper()
			begin := time.Now()
			err := call(ctx)
			if took := time.Since(begin); took > time.Second {
				t.Errorf("%s: %s after 50ms, back after %v", name, how, took)
			}
			if !errors.Is(err, want) {
				t.Errorf("%s: %s: %v", name, how, err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		f("deadline", ctx, context.DeadlineExceeded)
		cancel()
		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(50*time.Millisecond, cancel)
		f("cancel", ctx, context.Canceled)
	}
	p.Resume()

	// The fate of those appends is not known; sent again they are there once.
	mustAppend(t, log, id, run(1, 4, 2))
	got, err := log.Read(t.Context(), id, sse.Pos{}, 10)
	if err != nil || len(got) != 5 || got[4].Pos.Seq != 5 {
		t.Errorf("%v, %v", got, err)
	}
}

// TestClose: what outlived its call has ended when Close returns, and closing
// the client ends it at once.
func TestClose(t *testing.T) {
	p := service.Redis(t)
	c := redis.NewClient(&redis.Options{Addr: p.Addr, ReadTimeout: time.Minute})
	log := redislog.New(c, "test")
	mustAppend(t, log, sse.NewStreamID(), run(1, 1, 1))
	p.Pause()
	for range 5 {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		if _, err := log.Tails(ctx, []sse.StreamID{{}}); !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		cancel()
	}
	left := func() int {
		buf := make([]byte, 1<<20)
		return strings.Count(string(buf[:runtime.Stack(buf, true)]), "redislog.(*Log).exec")
	}
	if left() == 0 {
		t.Error("nothing is left to wait for")
	}
	begin := time.Now()
	if err := errors.Join(c.Close(), log.Close()); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > 20*time.Second {
		t.Errorf("took %v", took)
	}
	if n := left(); n != 0 {
		t.Errorf("%d goroutines are left", n)
	}
	p.Resume()
}

// TestRestartedEmpty: Redis comes back without data and scripts.
func TestRestartedEmpty(t *testing.T) {
	p := service.Redis(t)
	log, _ := open(t, connect(t, p))
	var ids []sse.StreamID
	for range 20 {
		id := sse.NewStreamID()
		ids = append(ids, id)
		mustAppend(t, log, id, run(1, 1, 40))
	}
	append20 := func(seq uint64) []error {
		var batches []reconnect.Batch
		for i, id := range ids {
			batches = append(batches, reconnect.Batch{Stream: id, Limits: reconnect.Limits{Length: 600}, Runs: logtest.Runs(run(1, seq, 1+i*30))})
		}
		return log.Append(t.Context(), batches)
	}
	if errs := append20(41); errs != nil {
		t.Fatal(errs)
	}
	p.Kill()
	p.Start()
	tails, err := log.Tails(t.Context(), ids)
	for i, tail := range tails {
		if tail != (reconnect.Tail{}) {
			t.Errorf("tail %d is %v", i, tail)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := log.Read(t.Context(), ids[0], sse.Pos{Epoch: 1, Seq: 41}, 10); !errors.Is(err, reconnect.ErrUnknown) {
		t.Errorf("read: %v", err)
	}
	if _, err := log.Fence(t.Context(), ids[0], 2, reconnect.Limits{}); !errors.Is(err, reconnect.ErrUnknown) {
		t.Errorf("fence: %v", err)
	}

	p.Kill()
	p.Start() // without the scripts again, for Append to bring them
	if errs := append20(5000); errs != nil {
		t.Fatal(errs)
	}
	for i, id := range ids {
		got, err := log.Read(t.Context(), id, sse.Pos{Epoch: 1, Seq: 41}, 1000)
		gap, ok := errors.AsType[*reconnect.Gap](err)
		if !ok || gap.From != 42 || gap.To != 4999 || len(got) != 1+i*30 {
			t.Errorf("read %d: %d frames, %v", i, len(got), err)
		}
	}
}

// TestDown: nobody listens; what is not reached is no sentinel.
func TestDown(t *testing.T) {
	p := service.Redis(t)
	c := redis.NewClient(&redis.Options{Addr: p.Addr, MaxRetries: -1, DialerRetries: 1})
	t.Cleanup(func() { c.Close() })
	log, _ := open(t, c)
	id := sse.NewStreamID()
	mustAppend(t, log, id, run(1, 1, 1))
	p.Kill()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	errs := log.Append(ctx, []reconnect.Batch{{Stream: id, Runs: logtest.Runs(run(1, 2, 1))}, {Stream: sse.NewStreamID(), Runs: logtest.Runs(run(1, 1, 900))}})
	_, err := log.Read(ctx, id, sse.Pos{}, 10)
	_, terr := log.Tails(ctx, []sse.StreamID{id})
	for _, err := range append(errs, err, terr) {
		if err == nil || errors.Is(err, reconnect.ErrUnknown) || errors.Is(err, reconnect.ErrFenced) || errors.Is(err, reconnect.ErrGap) {
			t.Errorf("%v", err)
		}
	}
	if len(errs) != 2 || ctx.Err() != nil {
		t.Errorf("%v, %v", errs, ctx.Err())
	}
	p.Start()
	mustAppend(t, log, id, run(1, 2, 1))
}

// TestNoKeysLeft: whatever was done, nothing outlives its TTL.
func TestNoKeysLeft(t *testing.T) {
	c := connect(t, shared)
	log, prefix := open(t, c)
	limits := reconnect.Limits{Length: 10, TTL: 300 * time.Millisecond}
	for i := range 50 {
		id := sse.NewStreamID()
		for _, frames := range [][]sse.Frame{run(1, 1, 1+i*20), run(1, 1, 1+i*20), run(1, 2+uint64(i)*20, 1)} {
			if errs := log.Append(t.Context(), []reconnect.Batch{{Stream: id, Limits: limits, Runs: logtest.Runs(frames)}}); errs != nil {
				t.Fatal(errs)
			}
		}
		if i%3 == 0 {
			if _, err := log.Fence(t.Context(), id, 2, limits); err != nil {
				t.Fatal(err)
			}
			log.Append(t.Context(), []reconnect.Batch{{Stream: id, Limits: limits, Runs: logtest.Runs(run(1, 3+uint64(i)*20, 1))}})
		}
		if err := log.Touch(t.Context(), []sse.StreamID{id}, limits.TTL); err != nil {
			t.Fatal(err)
		}
		if _, err := log.Find(t.Context(), id, []byte("x")); !errors.Is(err, reconnect.ErrUnknown) {
			t.Fatal(err)
		}
	}
	keys := func() int {
		n, err := c.Keys(t.Context(), prefix+":*").Result()
		if err != nil {
			t.Fatal(err)
		}
		return len(n)
	}
	if n := keys(); n < 1 || n > 50 {
		t.Errorf("%d keys for 50 streams", n)
	}
	wait(t, "the keys to go", func() bool { return keys() == 0 })
}

// TestGarbage: what somebody else wrote is an error that says so.
func TestGarbage(t *testing.T) {
	c := connect(t, shared)
	log, prefix := open(t, c)
	f := func(what string, spoil func(ctx context.Context, key string) error) {
		t.Helper()
		id := sse.NewStreamID()
		if err := spoil(t.Context(), keyOf(prefix, id)); err != nil {
			t.Fatal(what, err)
		}
		broken := func(call string, err error) {
			t.Helper()
			if !errors.Is(err, reconnect.ErrBroken) || !strings.Contains(err.Error(), id.String()) {
				t.Errorf("%s: %s: %v", what, call, err)
			}
		}
		got, err := log.Read(t.Context(), id, sse.Pos{}, 10)
		broken("read", err)
		if len(got) != 0 {
			t.Errorf("%s: read: %v", what, got)
		}
		_, err = log.Find(t.Context(), id, []byte("x"))
		broken("find", err)
		if _, err = log.Fence(t.Context(), id, 1<<62, reconnect.Limits{}); err != nil {
			broken("fence", err)
		}
		for _, err := range log.Append(t.Context(), one(id, run(1, 1, 2))) {
			if !errors.Is(err, reconnect.ErrFenced) {
				broken("append", err)
			}
		}
		log.Tails(t.Context(), []sse.StreamID{id})
		log.Touch(t.Context(), []sse.StreamID{id}, time.Second)
	}
	f("a string", func(ctx context.Context, key string) error { return c.Set(ctx, key, "x", 0).Err() })
	f("a list", func(ctx context.Context, key string) error { return c.LPush(ctx, key, "x").Err() })
	add := func(what, id string, values ...any) {
		t.Helper()
		f(what, func(ctx context.Context, key string) error {
			return c.XAdd(ctx, &redis.XAddArgs{Stream: key, ID: id, Values: values}).Err()
		})
	}
	add("an id from the clock", "*", "data", "x")
	add("no field of ours", "1-1", "data", "x")
	add("a version to come", "1-1", "2e0", "x")
	add("two fields", "1-1", "1e0", "x", "1e0", "y")
	add("a frame 0", "1-0", "1e0", "x")
	add("an entry that was cut", "1-3", "1e0*1", "\x01\x02ab\x01")
	add("an empty field", "1-1", "", "x")
	f("garbage behind frames", func(ctx context.Context, key string) error {
		return errors.Join(
			c.XAdd(ctx, &redis.XAddArgs{Stream: key, ID: "1-1", Values: []any{"1e0", "data: x\n\n"}}).Err(),
			c.XAdd(ctx, &redis.XAddArgs{Stream: key, ID: "1-2", Values: []any{"hello", "world"}}).Err(),
		)
	})
}

// TestOutOfMemory: a batch that Redis has room for only in part leaves no
// hole, and can be sent again.
func TestOutOfMemory(t *testing.T) {
	p := service.Redis(t, "--maxmemory", "12mb")
	c := connect(t, p)
	log, _ := open(t, c)
	id, other := sse.NewStreamID(), sse.NewStreamID()
	mustAppend(t, log, id, run(1, 1, 2))
	mustAppend(t, log, other, run(1, 1, 2))
	frames := run(1, 3, 600)
	for i := range frames {
		frames[i].Block = make([]byte, 60_000)
	}
	batches := append(one(id, frames), one(other, run(1, 3, 4))...)
	errs := log.Append(t.Context(), batches)
	if errs == nil || errs[0] == nil || errors.Is(errs[0], reconnect.ErrFenced) || !strings.Contains(errs[0].Error(), "OOM") {
		t.Fatalf("36 MB into 12: %v", errs)
	}
	check := func() (kept int) {
		t.Helper()
		var after sse.Pos
		for {
			got, err := log.Read(t.Context(), id, after, 1000)
			if err != nil {
				t.Fatal(err)
			}
			if len(got) == 0 {
				return kept
			}
			kept += len(got)
			after = got[len(got)-1].Pos
		}
	}
	kept := check()
	if kept >= 600 {
		t.Errorf("%d frames are in", kept)
	}
	if err := c.ConfigSet(t.Context(), "maxmemory", "200mb").Err(); err != nil {
		t.Fatal(err)
	}
	if errs := log.Append(t.Context(), batches); errs != nil {
		t.Fatal(errs)
	}
	if n := check(); n != 602 {
		t.Errorf("%d frames, want 602 (%d were in before)", n, kept)
	}
}

func BenchmarkRedis(b *testing.B) {
	c := connect(b, shared)
	logtest.Benchmark(b, func(b *testing.B) reconnect.Journal {
		log, _ := open(b, c)
		return log
	})
}
