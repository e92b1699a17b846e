package hub

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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
// a round is over when it has arrived everywhere. cpu-ns/delivery is the CPU
// that Append and Flush took, the kernel's part included and nobody helping.
func BenchmarkFanOut(b *testing.B) {
	for _, c := range []struct{ followers, events int }{{1, 1}, {1, 20}, {100, 1}, {100, 20}, {1000, 1}, {1000, 20}} {
		b.Run(fmt.Sprintf("followers=%d/events=%d", c.followers, c.events), func(b *testing.B) {
			h, err := New(Config{})
			if err != nil {
				b.Fatal(err)
			}
			h.helpers = 0
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
			var cpu int64
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			for b.Loop() {
				for i := range frames {
					seq++
					frames[i].Pos = sse.Pos{Epoch: 1, Seq: seq}
				}
				from := threadTime()
				s.Append(frames)
				s.Flush()
				cpu += threadTime() - from
				want += int64(c.events*c.followers) * size
				for got.Load() < want {
					time.Sleep(20 * time.Microsecond)
				}
			}
			deliveries := float64(seq) * float64(c.followers)
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/deliveries, "ns/delivery")
			b.ReportMetric(float64(cpu)/deliveries, "cpu-ns/delivery")
		})
	}
}

// threadTime is the CPU time of this thread.
func threadTime() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts); err != nil {
		panic(err)
	}
	return ts.Nano()
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
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			b.ReportAllocs()
			from := threadTime()
			for b.Loop() {
				for i := range frames {
					seq++
					frames[i].Pos = sse.Pos{Epoch: 1, Seq: seq}
				}
				s.Append(frames)
				s.Flush()
			}
			b.ReportMetric(float64(threadTime()-from)/float64(seq), "cpu-ns/event")
		})
	}
}

// BenchmarkChoice is BenchmarkRing where every event bears meta, to a follower
// that does not choose, one that wants everything and one that wants nothing.
func BenchmarkChoice(b *testing.B) {
	yes := func(FrameMeta) bool { return true }
	no := func(FrameMeta) bool { return false }
	for name, want := range map[string]func(FrameMeta) bool{"none": nil, "yes": yes, "no": no} {
		b.Run(name, func(b *testing.B) {
			h, err := New(Config{})
			if err != nil {
				b.Fatal(err)
			}
			defer h.poller.close()
			s := h.Open(StreamOptions{})
			s.Follow(&nullConn{}, FollowOptions{Chunked: true, Want: want})
			block, meta := make([]byte, 64), []byte("session=0123456789")
			frames := make([]sse.Frame, 20)
			for i := range frames {
				frames[i] = sse.Frame{Kind: sse.KindEvent, Block: block, Meta: meta, Time: 1e12}
			}
			var seq uint64
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			b.ReportAllocs()
			from := threadTime()
			for b.Loop() {
				for i := range frames {
					seq++
					frames[i].Pos = sse.Pos{Epoch: 1, Seq: seq}
				}
				s.Append(frames)
				s.Flush()
			}
			b.ReportMetric(float64(threadTime()-from)/float64(seq), "cpu-ns/event")
		})
	}
}
