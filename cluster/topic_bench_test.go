package cluster

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"ssegate/bus"
	"ssegate/hub"
	"ssegate/reconnect"
	"ssegate/registry"
	"ssegate/sse"
)

// counter is a client that reads everything and counts it.
type counter struct {
	bytes atomic.Int64
}

func (c *counter) Start(hub.Peer, time.Duration) error { return nil }
func (c *counter) TryWrite(p []byte) (int, error)      { c.bytes.Add(int64(len(p))); return len(p), nil }
func (c *counter) Close(hub.Closing)                   {}

// BenchmarkPublish: one publisher, batches of so many messages of 64 bytes, one
// subscriber to each of so many topics on this node. It is over when all have
// been handed over.
//
//	go test -bench Publish -benchmem ./cluster
func BenchmarkPublish(b *testing.B) {
	for _, size := range []int{1, 100} {
		for _, topics := range []int{1, 100} {
			b.Run(fmt.Sprintf("%d in %d topics", size, topics), func(b *testing.B) { benchPublish(b, size, topics) })
		}
	}
}

func benchPublish(b *testing.B, size, topics int) {
	h, err := hub.New(hub.Config{})
	if err != nil {
		b.Fatal(err)
	}
	reg := registry.NewMemory(nil)
	log := reconnect.NewMemory(reconnect.MemoryConfig{MaxBytes: 64 << 20, Followers: func(ids []sse.StreamID) [][]string {
		nodes, _ := reg.Followers(context.Background(), ids)
		return nodes
	}})
	n := New(Config{Self: registry.Node{ID: "a"}, Hub: h, Log: log, Journal: log, Registry: reg, Bus: bus.NewMemory().Node("a")})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); n.Run(ctx) }()
	ran := make(chan struct{})
	go func() { defer close(ran); h.Run(ctx) }()
	defer func() { cancel(); <-done; <-ran }()
	limits := reconnect.Limits{Length: 1000, TTL: time.Hour}
	var readers []*counter
	var posts []Outgoing
	block := fmt.Appendf(nil, "data: %058d\n\n", 0)
	for i := range topics {
		c := &counter{}
		t := TopicOf(fmt.Sprint("user/", i))
		if _, err := n.Subscribe(t, From{}, c, SubscribeOptions{ID: fmt.Sprint(i), Limits: limits}); err != nil {
			b.Fatal(err)
		}
		readers = append(readers, c)
	}
	for i := range size {
		posts = append(posts, Outgoing{Topic: TopicOf(fmt.Sprint("user/", i%topics)), Block: block, Limits: limits})
	}
	got := func() (sum int64) {
		for _, c := range readers {
			sum += c.bytes.Load()
		}
		return sum
	}
	time.Sleep(50 * time.Millisecond)
	before := got()
	n.Publish(ctx, posts)
	each := got() - before // of a batch, once it was handed over
	rounds := int64(0)
	b.ReportAllocs()
	for b.Loop() {
		for _, r := range n.Publish(ctx, posts) {
			if r.Err != nil {
				b.Fatal(r.Err)
			}
		}
		rounds++
	}
	for got() < before+each*(rounds+1) {
		time.Sleep(time.Millisecond)
	}
	b.ReportMetric(float64(rounds)*float64(size)/b.Elapsed().Seconds(), "messages/s")
}
