package cluster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"ssegate/bus/redisbus"
	"ssegate/hub"
	"ssegate/internal/gatetest/service"
	"ssegate/reconnect"
	"ssegate/reconnect/redislog"
	"ssegate/registry"
	"ssegate/registry/redisreg"
	"ssegate/sse"
)

// onRedis starts a node on a real Redis, in real time.
func onRedis(t *testing.T, p *service.Proc, name string) *node {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: p.Addr, DialTimeout: time.Second})
	reg := redisreg.New(client, "test")
	log := redislog.New(client, "test", redislog.WithInterest(reg.FollowKey))
	h, err := hub.New(hub.Config{Tick: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	n := &node{w: &world{T: t}, hub: h, done: make(chan struct{}), hubEnd: make(chan struct{})}
	n.Node = New(Config{
		Self: registry.Node{ID: name}, Hub: h, Log: log, Journal: log, Registry: reg, Bus: redisbus.New(client, "test", name),
		Heartbeat: 300 * time.Millisecond, DeadAfter: 2 * time.Second, CheckEvery: 200 * time.Millisecond, TailCheck: 500 * time.Millisecond,
	})
	ctx, cancel := context.WithCancel(context.Background())
	hubCtx, end := context.WithCancel(context.Background())
	n.cancel, n.end = cancel, end
	go func() { defer close(n.hubEnd); h.Run(hubCtx) }()
	go func() {
		defer close(n.done)
		if err := n.Run(ctx); err != nil {
			t.Errorf("%s: Run: %v", name, err)
		}
	}()
	t.Cleanup(func() { n.leave(); log.Close(); client.Close() })
	return n
}

// until waits until ok, at most for ten seconds.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited in vain: ", what)
		}
	}
}

// TestTopicsOnRedis: with a real Redis that is stopped for a while, all
// subscribers, those that hop included, see what three nodes publish to one
// topic, each message once and in one order; so they do when it is killed and
// comes back with its data, without being told of a gap; and when it comes back
// empty, all of them are told and go on.
func TestTopicsOnRedis(t *testing.T) {
	p := service.Redis(t)
	p.KeepData = true
	var nodes []*node
	for _, name := range []string{"a", "b", "c"} {
		nodes = append(nodes, onRedis(t, p, name))
	}
	until(t, "the nodes know each other", func() bool {
		return !slices.ContainsFunc(nodes, func(n *node) bool { return len(n.Peers()) < 3 || !n.Stats().BusUp })
	})
	var all, several []*reader
	for _, n := range nodes {
		for range 3 {
			all = append(all, n.subscribe(CursorFrom{Last: 1 << 20}, nil, "channel/x"))
			several = append(several, n.subscribe(CursorFrom{Last: 1 << 20}, nil, "channel/x", "channel/quiet"))
		}
	}
	began := nodes[0].publish("channel/x", "begin")[0].Pos.Epoch
	var stop atomic.Bool
	sent := make([]int, len(nodes))
	var wg sync.WaitGroup
	for at, n := range nodes {
		wg.Go(func() {
			for i := 0; !stop.Load(); i++ {
				sent[at]++
				m := message("channel/x", fmt.Sprint(n.ID(), i))
				m.ID, m.Once = fmt.Append(nil, n.ID(), "-", i), time.Minute
				for {
					ctx, cancel := context.WithTimeout(context.Background(), time.Second)
					r := n.Publish(ctx, []Outgoing{m})
					cancel()
					if r[0].Err == nil {
						break
					}
					if !errors.Is(r[0].Err, ErrFate) && !errors.Is(r[0].Err, ErrNotStored) {
						t.Error(r[0].Err)
						return
					}
				}
				time.Sleep(2 * time.Millisecond)
			}
		})
	}
	wg.Go(func() {
		time.Sleep(200 * time.Millisecond)
		p.Pause()
		time.Sleep(1500 * time.Millisecond)
		p.Resume()
		for range 2 {
			time.Sleep(400 * time.Millisecond)
			p.Kill()
			p.Start()
		}
	})
	var hopped []string
	hop := nodes[0].subscribe(CursorFrom{Last: 1 << 20}, nil, "channel/x", "channel/quiet", "channel/more")
	for i := range 24 {
		time.Sleep(150 * time.Millisecond)
		hop.leave()
		hopped = append(hopped, hop.said()...)
		if gaps := hop.gaps(); len(gaps) > 0 {
			t.Errorf("the one that hops was told %q", gaps)
		}
		id := hop.lastID()
		from := CursorFrom{ID: id}
		if id == nil && len(hopped) == 0 {
			from = CursorFrom{Last: 1 << 20}
		} else if id == nil {
			t.Fatal("nothing arrived between two hops, so there is no id to come back with")
		}
		hop = nodes[i%3].subscribe(from, nil, "channel/x", "channel/quiet", "channel/more")
		until(t, "something to arrive", func() bool { return len(hop.said()) > 0 })
	}
	stop.Store(true)
	wg.Wait()
	total := 1 + sent[0] + sent[1] + sent[2]
	until(t, "everything to arrive", func() bool {
		return !slices.ContainsFunc(slices.Concat(all, several), func(r *reader) bool { return len(r.said()) < total })
	})
	want := all[0].said()
	for _, r := range slices.Concat(all, several) {
		r.says(want...)
	}
	until(t, "the one that hops to have everything", func() bool { return len(hopped)+len(hop.said()) >= total })
	if hopped = append(hopped, hop.said()...); !slices.Equal(hopped, want) {
		t.Errorf("the one that hopped got %d", len(hopped))
	}
	for at, n := range nodes {
		for i := range sent[at] {
			if at := slices.Index(want, fmt.Sprint(n.ID(), i)); at < 0 {
				t.Fatalf("%s%d is missing", n.ID(), i)
			}
		}
	}

	if tail, _, _ := nodes[0].topics.get(TopicOf("channel/x").ID).position(); tail.Epoch == began {
		t.Error("it was not numbered anew, so this proves nothing")
	}

	p.Kill()
	p.KeepData = false
	p.Start()
	until(t, "all to be told", func() bool {
		return !slices.ContainsFunc(slices.Concat(all, several), func(r *reader) bool { return len(r.gaps()) < len(r.s.Topics()) })
	})
	until(t, "publishing to go on", func() bool {
		return nodes[1].Publish(t.Context(), []Outgoing{message("channel/x", "the end")})[0].Err == nil
	})
	until(t, "the end to arrive", func() bool {
		return !slices.ContainsFunc(slices.Concat(all, several), func(r *reader) bool {
			said := r.said()
			return !strings.HasPrefix(said[len(said)-1], "the end")
		})
	})
	for _, r := range slices.Concat(all, several) {
		if said := r.said(); len(said) != len(want)+1 || len(r.gaps()) != len(r.s.Topics()) {
			t.Errorf("got %d, gaps %q", len(said)-len(want), r.gaps())
		}
	}
}

// TestQuietTopicsOnRedis: a Redis comes back with its data, and topics are
// numbered anew before anything is said in them. Nobody is told of a gap: who
// follows, whether they have a message or none, and who comes back.
func TestQuietTopicsOnRedis(t *testing.T) {
	p := service.Redis(t)
	p.KeepData = true
	nodes := []*node{onRedis(t, p, "a"), onRedis(t, p, "b")}
	until(t, "the nodes know each other", func() bool {
		return !slices.ContainsFunc(nodes, func(n *node) bool { return len(n.Peers()) < 2 || !n.Stats().BusUp })
	})
	names := []string{"user/1", "user/2"}
	var topics []Topic
	var asked []reconnect.OpenTopic
	for _, name := range names {
		topics = append(topics, TopicOf(name))
		asked = append(asked, reconnect.OpenTopic{Stream: TopicOf(name).ID, TTL: time.Hour})
	}
	one := nodes[0].subscribe(CursorFrom{}, nil, "user/1")
	none := nodes[1].subscribe(CursorFrom{}, nil, "user/2")
	both := nodes[1].subscribe(CursorFrom{}, nil, names...)
	for _, n := range nodes {
		n.Await(t.Context(), topics, SubscribeOptions{Limits: topicLimits})
	}
	until(t, "they follow", func() bool { return both.s.Pos(topics[0]).Seq > 0 && both.s.Pos(topics[1]).Seq > 0 })
	nodes[0].publish("user/1", "1")
	until(t, "it to arrive", func() bool { return len(one.said())+len(both.said()) == 2 })
	id, ids := one.lastID(), both.lastID()
	var back []*reader
	for range 3 {
		p.Kill()
		p.Start()
		var tails []sse.Pos
		until(t, "the topics to be opened", func() bool {
			var err error
			tails, err = nodes[0].cfg.Journal.Open(t.Context(), asked)
			return err == nil
		})
		for i, at := range tails {
			if at != reconnect.Origin(at.Epoch) {
				t.Errorf("%s is at %v, where nothing is lost", names[i], at)
			}
			until(t, "the followers to be there", func() bool {
				return !slices.ContainsFunc([]*reader{one, none, both}, func(r *reader) bool {
					return slices.Contains(r.s.Topics(), topics[i]) && r.s.Pos(topics[i]).Seq != at.Seq
				})
			})
		}
		back = append(back, nodes[1].subscribe(CursorFrom{ID: id}, nil, "user/1"), nodes[0].subscribe(CursorFrom{ID: ids}, nil, names...))
	}
	nodes[1].publish("user/1", "2")
	nodes[0].publish("user/2", "x")
	until(t, "all to arrive", func() bool {
		return len(one.said())+len(none.said())+len(both.said()) == 6 && !slices.ContainsFunc(back, func(r *reader) bool {
			return len(r.said()) < len(r.s.Topics())
		})
	})
	one.says("1", "2")
	none.says("x")
	for _, r := range append(back, both) {
		if gaps := r.gaps(); len(gaps) > 0 {
			t.Errorf("told %q", gaps)
		}
	}
}

// TestLostOnRedis: a Redis comes back without the last message, and somebody who
// knows nothing of that publishes at once. Who followed says so; then everybody
// who has been there before is told of a gap, also who comes back to a node that
// never saw the message.
func TestLostOnRedis(t *testing.T) {
	p := service.Redis(t)
	p.KeepData = true
	a, b := onRedis(t, p, "a"), onRedis(t, p, "b")
	until(t, "the nodes know each other", func() bool { return len(a.Peers()) == 2 && len(b.Peers()) == 2 })
	topic := TopicOf("user/1")
	r := a.subscribe(CursorFrom{}, nil, topic.Name)
	a.Await(t.Context(), []Topic{topic}, SubscribeOptions{Limits: topicLimits})
	client := redis.NewClient(&redis.Options{Addr: p.Addr, DialTimeout: time.Second})
	defer client.Close()
	stranger := redislog.New(client, "test")
	publish := func(data string) sse.Pos {
		t.Helper()
		var d reconnect.Posted
		until(t, data+" to be published", func() bool {
			d = stranger.Publish(t.Context(), []reconnect.Posts{{
				Stream: topic.ID, Limits: topicLimits, Posts: []reconnect.Post{{ID: []byte(data), Once: time.Minute, Block: []byte("data: " + data + "\n\n")}},
			}})[0]
			return d.Err == nil
		})
		return d.Pos[0]
	}
	publish("1")
	until(t, "1 to arrive", func() bool { return len(r.said()) == 1 })
	id := r.lastID()
	if err := client.ConfigSet(t.Context(), "appendonly", "no").Err(); err != nil {
		t.Fatal(err)
	}
	lost := publish("2")
	until(t, "2 to arrive", func() bool { return len(r.said()) == 2 })
	p.Kill()
	p.Start()
	if at := publish("3"); at.Epoch <= lost.Epoch {
		t.Fatalf("3 is at %v, and 2 was at %v", at, lost)
	}
	until(t, "3 to arrive behind a gap", func() bool { return len(r.said()) == 3 && len(r.gaps()) > 0 })
	until(t, "the log to know", func() bool {
		back := b.subscribe(CursorFrom{ID: id}, nil, topic.Name)
		until(t, "3 to arrive", func() bool { return len(back.said()) == 1 })
		time.Sleep(50 * time.Millisecond)
		back.leave()
		return len(back.gaps()) > 0
	})
	publish("4")
	back := b.subscribe(CursorFrom{ID: id}, nil, topic.Name)
	until(t, "4 to arrive", func() bool { return len(back.said()) == 2 && len(r.said()) == 4 })
	if said := fmt.Sprint(r.said(), back.said()); said != "[1 2 3 4] [3 4]" || len(back.gaps()) != 1 {
		t.Errorf("got %s, gaps %q", said, back.gaps())
	}
}
