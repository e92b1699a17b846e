package bustest

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"ssegate/bus"
	"ssegate/sse"
)

// Bench measures a transport between two nodes of this process: each figure
// has both nodes' work in it, and the broker's on the same machine.
//
//	go test -run '^$' -bench . ./bus/...
func Bench(b *testing.B, w World) {
	b.Run("200 B", func(b *testing.B) {
		w.throughput(b, bus.Message{Kind: 1, Stream: sse.NewStreamID(), Body: make([]byte, 200)}, "msg/s", 1, nil)
	})
	b.Run("64 frames", func(b *testing.B) {
		frames := make([]sse.Frame, 64)
		for i := range frames {
			frames[i] = sse.Frame{
				Pos:   sse.Pos{Epoch: 1795000000000, Seq: uint64(i + 1)},
				Kind:  sse.KindEvent,
				Block: append(bytes.Repeat([]byte("x"), 198), "\n\n"...),
			}
		}
		m := bus.Message{Kind: 1, Stream: sse.NewStreamID(), Body: bus.AppendFrames(nil, frames)}
		w.throughput(b, m, "frame/s", len(frames), func(m bus.Message) {
			if got, err := bus.DecodeFrames(m.Body); err != nil || len(got) != len(frames) {
				b.Errorf("%d frames, %v", len(got), err)
			}
		})
	})
	b.Run("idle", w.latency)
}

// inFlight is how many bytes the sender is ahead of the receiver: below what
// any driver keeps.
const inFlight = 8 << 20

// throughput sends m again and again, and is over when the last has arrived.
func (w World) throughput(b *testing.B, m bus.Message, unit string, each int, handle func(bus.Message)) {
	from, to := w.node(b, "a"), w.node(b, "b")
	arrived := make(chan struct{}, inFlight/len(m.Body))
	to.Each(func(m bus.Message) {
		if handle != nil {
			handle(m)
		}
		arrived <- struct{}{}
	})
	b.ReportAllocs()
	ahead, n := 0, 0
	msgs := []bus.Message{m}
	began := time.Now()
	for b.Loop() {
		from.Say(b, "b", msgs...)
		ahead, n = ahead+1, n+1
		for ahead == cap(arrived) || len(arrived) > 0 {
			<-arrived
			ahead--
		}
	}
	for ; ahead > 0; ahead-- {
		<-arrived
	}
	b.ReportMetric(float64(n*each)/time.Since(began).Seconds(), unit)
	if lost := from.Losses(); len(lost) > 0 {
		b.Fatalf("lost %v", lost)
	}
}

// latency is that of a single message with nothing else under way.
func (w World) latency(b *testing.B) {
	from, to := w.node(b, "a"), w.node(b, "b")
	arrived := make(chan struct{}, 1)
	to.Each(func(bus.Message) { arrived <- struct{}{} })
	m := bus.Message{Kind: 1, Stream: sse.NewStreamID(), Body: make([]byte, 200)}
	var took []time.Duration
	for b.Loop() {
		began := time.Now()
		from.Say(b, "b", m)
		<-arrived
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}
