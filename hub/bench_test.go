package hub

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"ssegate/sse"
)

// readers gives a stream n followers over TCP and counts what arrives.
func readers(b *testing.B, h *Hub, s *Stream, n int) *atomic.Int64 {
	b.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	var got atomic.Int64
	for range n {
		client, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { client.Close() })
		server, err := ln.Accept()
		if err != nil {
			b.Fatal(err)
		}
		go func() {
			buf := make([]byte, 16<<10)
			for {
				n, err := client.Read(buf)
				if err != nil {
					return
				}
				got.Add(int64(n))
			}
		}()
		s.Follow(h.Hold(server), FollowOptions{Chunked: true})
	}
	return &got
}

// BenchmarkFanOut is the whole way of an event of 64 bytes to all followers:
// a round is over when it has arrived everywhere. flush-ns/delivery is what
// Append and Flush alone took.
func BenchmarkFanOut(b *testing.B) {
	for _, c := range []struct{ followers, events int }{{1, 1}, {1, 20}, {100, 1}, {100, 20}, {1000, 1}, {1000, 20}} {
		b.Run(fmt.Sprintf("followers=%d/events=%d", c.followers, c.events), func(b *testing.B) {
			h, err := New(Config{})
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(context.Background())
			done := make(chan struct{})
			go func() { defer close(done); h.Run(ctx) }()
			defer func() { cancel(); <-done }()
			s := h.Open(StreamOptions{})
			got := readers(b, h, s, c.followers)
			block := make([]byte, 64)
			copy(block, "data: ")
			frames := make([]sse.Frame, c.events)
			for i := range frames {
				frames[i] = sse.Frame{Kind: sse.KindEvent, Block: block}
			}
			size := int64(len(appendChunk(nil, block)))
			var seq uint64
			var want int64
			var flushing time.Duration
			for b.Loop() {
				for i := range frames {
					seq++
					frames[i].Pos = sse.Pos{Epoch: 1, Seq: seq}
				}
				from := time.Now()
				s.Append(frames)
				s.Flush()
				flushing += time.Since(from)
				want += int64(c.events*c.followers) * size
				for got.Load() < want {
					runtime.Gosched()
				}
			}
			deliveries := float64(seq) * float64(c.followers)
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/deliveries, "ns/delivery")
			b.ReportMetric(float64(flushing.Nanoseconds())/deliveries, "flush-ns/delivery")
		})
	}
}

// BenchmarkRing is Append and Flush to one follower whose connection costs
// nothing.
func BenchmarkRing(b *testing.B) {
	for _, events := range []int{1, 20} {
		b.Run(fmt.Sprintf("events=%d", events), func(b *testing.B) {
			h, err := New(Config{})
			if err != nil {
				b.Fatal(err)
			}
			defer h.poller.close()
			s := h.Open(StreamOptions{})
			s.Follow(&nullConn{}, FollowOptions{Chunked: true})
			block := make([]byte, 64)
			frames := make([]sse.Frame, events)
			for i := range frames {
				frames[i] = sse.Frame{Kind: sse.KindEvent, Block: block}
			}
			var seq uint64
			b.ReportAllocs()
			for b.Loop() {
				for i := range frames {
					seq++
					frames[i].Pos = sse.Pos{Epoch: 1, Seq: seq}
				}
				s.Append(frames)
				s.Flush()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(seq), "ns/event")
		})
	}
}

// A nullConn takes everything.
type nullConn struct{ n int }

func (*nullConn) Start(Peer, time.Duration) error { return nil }
func (c *nullConn) TryWrite(p []byte) (int, error) {
	c.n += len(p)
	return len(p), nil
}
func (*nullConn) Close(Closing) {}
