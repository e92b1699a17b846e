package cluster

import (
	"context"
	"fmt"
	"testing"
	"time"

	"ssegate/bus"
	"ssegate/hub"
	"ssegate/reconnect"
	"ssegate/registry"
	"ssegate/sse"
)

// leaver is a counter that leaves once it has so many bytes.
type leaver struct {
	counter
	goal int64
	all  chan struct{}
}

func (c *leaver) TryWrite(p []byte) (int, error) {
	if c.bytes.Add(int64(len(p))) == c.goal {
		close(c.all)
	}
	return len(p), nil
}

// BenchmarkReplay is a client that comes back for 4 000 events of 64 bytes,
// which are still in the ring, or only in the log in memory.
//
//	go test -run - -bench Replay -benchmem ./cluster
func BenchmarkReplay(b *testing.B) {
	const events = 4000
	for name, ring := range map[string]int{"ring": 2 * events, "log": 64} {
		b.Run(name, func(b *testing.B) {
			h, err := hub.New(hub.Config{})
			if err != nil {
				b.Fatal(err)
			}
			reg := registry.NewMemory(nil)
			log := reconnect.NewMemory(reconnect.MemoryConfig{MaxBytes: 64 << 20})
			n := New(Config{Self: registry.Node{ID: "a"}, Hub: h, Log: log, Registry: reg, Bus: bus.NewMemory().Node("a")})
			ctx, cancel := context.WithCancel(context.Background())
			done, ran := make(chan struct{}), make(chan struct{})
			go func() { defer close(done); n.Run(ctx) }()
			go func() { defer close(ran); h.Run(ctx) }()
			defer func() { cancel(); <-done; <-ran }()
			s := n.Begin(Spec{
				Limits: reconnect.Limits{Length: 4 * events, TTL: time.Hour},
				Local:  Local{RingEvents: ring, RingBytes: 4 << 20},
			})
			s.SetHead(nil)
			block := fmt.Appendf(nil, "data: %056d\n\n", 0)
			for range events {
				s.Append([]sse.Frame{{Pos: s.Next(), Kind: sse.KindEvent, Block: block}})
			}
			for s.logged.Load() < events {
				time.Sleep(time.Millisecond)
			}
			chunk := int64(len("40\r\n") + len(block) + len("\r\n"))
			b.ReportAllocs()
			for b.Loop() {
				c := &leaver{goal: events * chunk, all: make(chan struct{})}
				f := s.Follow(c, hub.FollowOptions{Chunked: true})
				<-c.all
				f.Kick("kicked:left", nil, true)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*events), "ns/event")
			if got := h.Stats().CatchUps > 0; got != (name == "log") {
				b.Errorf("read from the log: %v", got)
			}
		})
	}
}
