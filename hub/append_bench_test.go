package hub

import (
	"fmt"
	"testing"

	"ssegate/sse"
)

// BenchmarkAppend is the ring alone, with nobody to write to: what an event
// costs the pump before the first follower.
//
//	go test -run - -bench 'Append$' ./hub
func BenchmarkAppend(b *testing.B) {
	for _, bb := range []struct{ size, events int }{{64, 1}, {64, 20}, {1024, 1}, {1024, 20}} {
		b.Run(fmt.Sprintf("%dB/%d", bb.size, bb.events), func(b *testing.B) {
			s := still(b, Config{}).Open(StreamOptions{})
			frames := sized(bb.events, bb.size)
			seq := uint64(0)
			b.ReportAllocs()
			for b.Loop() {
				seq = number(frames, seq)
				s.Append(frames)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(seq), "ns/event")
		})
	}
}

// sized are so many events with a block of so many bytes, which number gives
// their places.
func sized(events, size int) []sse.Frame {
	block := fmt.Appendf(nil, "data: %0*d\n\n", size-len("data: \n\n"), 0)
	frames := make([]sse.Frame, events)
	for i := range frames {
		frames[i] = sse.Frame{Kind: sse.KindEvent, Block: block}
	}
	return frames
}

// number numbers the frames from seq on, and returns the last number.
func number(frames []sse.Frame, seq uint64) uint64 {
	for i := range frames {
		seq++
		frames[i].Pos = sse.Pos{Epoch: 1, Seq: seq}
	}
	return seq
}
