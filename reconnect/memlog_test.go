package reconnect_test

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"ssegate/internal/gatetest/logtest"
	"ssegate/reconnect"
	"ssegate/sse"
)

// clock is a clock that tests move.
type clock struct{ ns atomic.Int64 }

func newClock() *clock {
	c := new(clock)
	c.ns.Store(1_790_000_000_000_000_000)
	return c
}

func (c *clock) now() time.Time          { return time.Unix(0, c.ns.Load()) }
func (c *clock) advance(d time.Duration) { c.ns.Add(int64(d)) }

func TestMemoryConforms(t *testing.T) {
	c := newClock()
	const room = 32 << 20
	var follow sync.Map // stream to nodes
	logtest.Run(t, logtest.Driver{
		New: func(t *testing.T) reconnect.Journal {
			return reconnect.NewMemory(reconnect.MemoryConfig{
				MaxBytes: room, Now: c.now,
				Followers: func(streams []sse.StreamID) [][]string {
					all := make([][]string, len(streams))
					for i, id := range streams {
						if who, ok := follow.Load(id); ok {
							all[i] = who.([]string)
						}
					}
					return all
				},
			})
		},
		Follow: func(_ *testing.T, stream sse.StreamID, node string) {
			who, _ := follow.LoadOrStore(stream, []string(nil))
			follow.Store(stream, append(who.([]string), node))
		},
		Elapse: c.advance,
		// Somebody else takes all the room.
		Empty: func(t *testing.T, log reconnect.Log, stream sse.StreamID) {
			c.advance(1)
			errs := log.Append(t.Context(), []reconnect.Batch{{
				Stream: sse.NewStreamID(),
				Runs:   logtest.Runs([]sse.Frame{{Pos: sse.Pos{Epoch: 1, Seq: 1}, Kind: sse.KindEvent, Block: make([]byte, room)}}),
			}})
			if errs != nil {
				t.Fatal(errs)
			}
		},
	})
}

func BenchmarkMemory(b *testing.B) {
	logtest.Benchmark(b, func(b *testing.B) reconnect.Journal {
		return reconnect.NewMemory(reconnect.MemoryConfig{MaxBytes: 1 << 30})
	})
}
