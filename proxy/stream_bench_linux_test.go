package proxy

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"ssegate/bus"
	"ssegate/cluster"
	"ssegate/hub"
	"ssegate/reconnect"
	"ssegate/registry"
)

// tap is a client that takes everything and counts it.
type tap struct{ bytes int }

func (*tap) Start(hub.Peer, time.Duration) error { return nil }
func (c *tap) TryWrite(p []byte) (int, error)    { c.bytes += len(p); return len(p), nil }
func (*tap) Close(hub.Closing)                   {}

// newTapped is a pump whose stream has so many followers that cost nothing. The
// node does not run: nothing but the pump does anything.
func newTapped(t testing.TB, followers int) (*pump, []*tap) {
	t.Helper()
	h := newHub(t)
	log := reconnect.NewMemory(reconnect.MemoryConfig{})
	n := cluster.New(cluster.Config{
		Self: registry.Node{ID: "n1"}, Hub: h, Log: log, Journal: log, Registry: registry.NewMemory(nil), Bus: bus.NewMemory().Node("n1"),
		Linger: time.Second,
	})
	s := n.Begin(cluster.Spec{Limits: reconnect.Limits{Length: 2000, TTL: time.Minute}})
	s.SetHead(nil)
	taps := make([]*tap, followers)
	for i := range taps {
		taps[i] = new(tap)
		s.Follow(taps[i], hub.FollowOptions{Chunked: true})
	}
	return newPump(s, &Route{EventSize: 1 << 20, Done: []string{"[DONE]"}}, "", new(drafts)), taps
}

// plain are so many events of so many bytes, as the intake hands them on.
func plain(n, size int) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "data: %0*d\n\n", size-len("data: \n\n"), 0), n)
}

// BenchmarkPump is a read's way from its bytes to the followers' sockets, which
// cost nothing here: decoding, ids, frames, the ring, a write each.
//
//	go test -run - -bench Pump ./proxy
func BenchmarkPump(b *testing.B) {
	for _, bb := range []struct{ size, events, followers int }{
		{64, 1, 1}, {64, 20, 1}, {1024, 1, 1}, {1024, 20, 1}, {64, 1, 10}, {64, 20, 10},
	} {
		b.Run(fmt.Sprintf("%dB/%daRead/%d followers", bb.size, bb.events, bb.followers), func(b *testing.B) {
			p, taps := newTapped(b, bb.followers)
			read := plain(bb.events, bb.size)
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				if err := p.take(read); err != nil {
					b.Fatal(err)
				}
				n += bb.events
			}
			if got := taps[bb.followers-1].bytes; got < n*bb.size {
				b.Fatalf("%d bytes of %d events", got, n)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/event")
		})
	}
}

// BenchmarkStream is the whole way of an event through the gate, from the
// service's write to the client's read, one write under way at a time.
//
//	go test -run - -bench 'Stream$' ./proxy
func BenchmarkStream(b *testing.B) {
	for _, bb := range []struct{ size, events, followers int }{{64, 1, 1}, {64, 20, 1}, {1024, 1, 1}, {64, 1, 10}, {64, 20, 10}} {
		b.Run(fmt.Sprintf("%dB/%daWrite/%d followers", bb.size, bb.events, bb.followers), func(b *testing.B) {
			w := newThinWorld(b)
			pass := w.passing(bb.events, bb.size, bb.followers)
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				pass()
				n += bb.events
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/event")
		})
	}
}

// passing begins a stream with so many followers and returns what sends so many
// events through it and sees them arrive everywhere.
func (w *thinWorld) passing(events, size, followers int) (pass func()) {
	up, client, path := w.stream()
	clients := []int{client}
	for range followers - 1 {
		c := w.ask(path)
		w.until(c, w.buf, headEnd, 1)
		clients = append(clients, c)
	}
	raw := blocks(events, size)
	return func() {
		w.write(up, raw)
		for _, c := range clients {
			w.until(c, w.buf, blockEnd, events)
		}
	}
}
