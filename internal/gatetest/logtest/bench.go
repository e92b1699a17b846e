package logtest

import (
	"errors"
	"strconv"
	"testing"
	"time"

	"ssegate/reconnect"
	"ssegate/sse"
)

// Benchmark measures a driver: appends of few streams with many frames and of
// many with few, the same published to topics, reads, tails, and finding an id.
func Benchmark(b *testing.B, open func(b *testing.B) reconnect.Journal) {
	block := []byte("id: sg1.AAECA_r7_P3-_z4_QEFCQ8yvmlo_YvLBaDEUGx7.BAAA-mus7\ndata: {\"choices\":[{\"delta\":{\"content\":\" word\"}}]}\n\n")
	limits := reconnect.Limits{Length: 5000, TTL: time.Hour}
	grow := func(streams, frames int) func(b *testing.B) {
		return func(b *testing.B) {
			log := open(b)
			batches := make([]reconnect.Batch, streams)
			for i := range batches {
				batches[i] = reconnect.Batch{Stream: sse.NewStreamID(), Limits: limits}
			}
			seq := uint64(1)
			b.ReportAllocs()
			for b.Loop() {
				for i := range batches {
					all := make([]sse.Frame, frames)
					for j := range all {
						all[j] = sse.Frame{Pos: sse.Pos{Epoch: 1_790_000_000_123, Seq: seq + uint64(j)}, Kind: sse.KindEvent, Block: block}
					}
					batches[i].Runs = []sse.Run{whole(all)}
				}
				seq += uint64(frames)
				if err := errors.Join(log.Append(b.Context(), batches)...); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*streams*frames), "ns/frame")
		}
	}
	b.Run("Append/1x1", grow(1, 1))
	b.Run("Append/1x100", grow(1, 100))
	b.Run("Append/10x10", grow(10, 10))
	b.Run("Append/100x1", grow(100, 1))
	b.Run("Append/1000x1", grow(1000, 1))

	publish := func(topics, posts int, once time.Duration) func(b *testing.B) {
		return func(b *testing.B) {
			log := open(b)
			batch := make([]reconnect.Posts, topics)
			for i := range batch {
				batch[i] = reconnect.Posts{Stream: sse.NewStreamID(), Limits: limits, Posts: make([]reconnect.Post, posts)}
			}
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				for i := range batch {
					for j := range batch[i].Posts {
						n++
						batch[i].Posts[j] = reconnect.Post{ID: strconv.AppendInt(nil, int64(n), 10), Once: once, Block: block}
					}
				}
				for _, d := range log.Publish(b.Context(), batch) {
					if d.Err != nil {
						b.Fatal(d.Err)
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(n), "ns/post")
		}
	}
	b.Run("Publish/1x1", publish(1, 1, 0))
	b.Run("Publish/1x100", publish(1, 100, 0))
	b.Run("Publish/100x1", publish(100, 1, 0))
	b.Run("PublishOnce/1x100", publish(1, 100, 5*time.Minute))
	b.Run("PublishOnce/100x1", publish(100, 1, 5*time.Minute))

	fill := func(b *testing.B) (reconnect.Journal, sse.StreamID, []sse.Frame) {
		log, id := open(b), sse.NewStreamID()
		frames := run(1_790_000_000_123, 1, 5000)
		for i := range frames {
			frames[i].Block = block
		}
		frames[4000].ID = []byte("upstream id")
		if err := errors.Join(log.Append(b.Context(), []reconnect.Batch{{Stream: id, Limits: limits, Runs: Runs(frames)}})...); err != nil {
			b.Fatal(err)
		}
		return log, id, frames
	}
	b.Run("Read/1000", func(b *testing.B) {
		log, id, frames := fill(b)
		b.ReportAllocs()
		for b.Loop() {
			got, err := log.Read(b.Context(), id, frames[2999].Pos, 1000)
			if err != nil || len(got) != 1000 {
				b.Fatal(len(got), err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*1000), "ns/frame")
	})
	b.Run("Read/tail", func(b *testing.B) {
		log, id, frames := fill(b)
		b.ReportAllocs()
		for b.Loop() {
			if got, err := log.Read(b.Context(), id, frames[4999].Pos, 1000); err != nil || len(got) != 0 {
				b.Fatal(len(got), err)
			}
		}
	})
	b.Run("Tails/100", func(b *testing.B) {
		log, id, _ := fill(b)
		ids := make([]sse.StreamID, 100)
		for i := range ids {
			ids[i] = id
		}
		b.ReportAllocs()
		for b.Loop() {
			if _, err := log.Tails(b.Context(), ids); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Find/4000", func(b *testing.B) {
		log, id, _ := fill(b)
		b.ReportAllocs()
		for b.Loop() {
			if pos, err := log.Find(b.Context(), id, []byte("upstream id")); err != nil || pos.Seq != 4001 {
				b.Fatal(pos, err)
			}
		}
	})
}
