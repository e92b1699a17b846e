package proxy

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"

	"ssegate/sse"
)

// mallocs is how many allocations n rounds make in the whole process.
func mallocs(n int, round func()) float64 {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // pools keep what they have
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range n {
		round()
	}
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs - before.Mallocs)
}

// segmentAllocs is the ring's share, an event: three things for each segment,
// and a segment is at least a hundred events of 64 bytes with their ids.
const segmentAllocs = 0.03

// TestPumpAllocs: between the bytes that were read and the write to each
// follower an event allocates nothing of its own.
func TestPumpAllocs(t *testing.T) {
	for _, followers := range []int{1, 10} {
		for _, events := range []int{1, 20} {
			t.Run(fmt.Sprintf("%d followers, %d events", followers, events), func(t *testing.T) {
				defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // one pool, see below
				p, taps := newTapped(t, followers)
				read := plain(events, 64)
				round := func() {
					if err := p.take(read); err != nil {
						t.Fatal(err)
					}
				}
				for range 3000 / events {
					round() // the ring is full
				}
				// The race detector makes a pool throw away a quarter of what
				// it is given, and the collector what lies there. Filled so, it
				// lasts.
				defer debug.SetGCPercent(debug.SetGCPercent(-1))
				const rounds = 2000
				for range 2 * rounds {
					p.drafts.put(&draft{id: make([]byte, 0, 128), arena: make([]byte, 0, 8<<10), frames: make([]sse.Frame, 0, 64), cuts: make([]int, 0, 64)})
				}
				before := taps[0].bytes
				each := mallocs(rounds, round) / float64(rounds*events)
				t.Logf("%.4f allocations an event", each)
				if each > segmentAllocs {
					t.Errorf("%.4f allocations an event, the ring's share is %.2f", each, segmentAllocs)
				}
				for i, c := range taps {
					if got := c.bytes; got < before+rounds*len(read) || got != taps[0].bytes {
						t.Errorf("follower %d has %d bytes", i, got)
					}
				}
			})
		}
	}
}

// TestStreamAllocs: through the whole gate, from socket to socket, log and
// background included.
func TestStreamAllocs(t *testing.T) {
	// The ring's and, for many events at once, the log's.
	const event = 0.5
	// What the race detector makes pools throw away, a quarter of each round's:
	// a draft with all that grew in it, and an attempt to write for each follower.
	lost := func(followers int) float64 {
		if !raced() {
			return 0
		}
		return float64(20+2*followers) / 4
	}
	for _, followers := range []int{1, 10} {
		for _, events := range []int{1, 20} {
			t.Run(fmt.Sprintf("%d followers, %d events", followers, events), func(t *testing.T) {
				w := newThinWorld(t)
				pass := w.passing(events, 64, followers)
				const rounds = 200 // the intake rests between them
				for range rounds {
					pass()
				}
				each := mallocs(rounds, pass) / rounds
				most := event*float64(events) + lost(followers)
				t.Logf("%.2f allocations a read, the budget is %.2f", each, most)
				if each > most {
					t.Errorf("%.2f allocations a read of %d events, the budget is %.2f", each, events, most)
				}
			})
		}
	}
}

// raced reports whether the race detector watches.
func raced() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// Budgets of what the gate holds for a client that has nothing to read, heap
// and stacks together, in bytes. The kernel's part is not in it.
const (
	idleStream     = 8000 // of its own, upstream side included; measured: 5450
	idleSubscriber = 2800 // of one topic for all; measured: 1870
	idleTopic      = 5700 // of a topic each; measured: 3840
)

// TestIdleClients: a client that is held costs so many bytes and no goroutine,
// whether it follows a stream of its own, upstream side included, or a topic.
func TestIdleClients(t *testing.T) {
	for _, tt := range []struct {
		name   string
		budget int64
		hold   func(w *thinWorld, i int)
	}{
		{"stream", idleStream, func(w *thinWorld, _ int) { w.stream() }},
		{"subscriber", idleSubscriber, func(w *thinWorld, _ int) {
			w.until(w.ask("/sse/stream/news"), w.buf, headEnd, 1)
		}},
		{"topic", idleTopic, func(w *thinWorld, i int) {
			w.until(w.ask(fmt.Sprintf("/sse/user/%06d", i)), w.buf, headEnd, 1)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const n = 1000
			w := newThinWorld(t)
			for i := range 50 { // what is made once is made
				tt.hold(w, i)
			}
			bytes, goroutines := inUse(), runtime.NumGoroutine()
			for i := range n {
				tt.hold(w, 50+i)
			}
			// The server keeps a few workers for who comes next.
			eventually(t, "no goroutine a client", func() bool { return runtime.NumGoroutine() <= goroutines+5 })
			each := (inUse() - bytes) / n
			t.Logf("%d bytes a client, the budget is %d", each, tt.budget)
			if each > tt.budget {
				t.Errorf("%d bytes a client, the budget is %d", each, tt.budget)
			}
			w.p.streams.mu.Lock()
			defer w.p.streams.mu.Unlock()
			if held := len(w.p.streams.held); held != n+50 {
				t.Errorf("%d clients are held", held)
			}
		})
	}
}

// inUse is what heap and stacks hold after a collection, more than one for what
// pools keep. Holes that earlier tests left in the heap are not counted: they
// would be filled for nothing.
func inUse() int64 {
	for range 3 {
		runtime.GC()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// newClient is the budget of what a new subscriber makes the process allocate,
// in bytes: less than the buffer into which its request was read, of 64 KiB,
// which must be used again.
const newClient = 48 << 10

// TestNewClients: the buffers of a request are used again when its connection
// has been taken over. The race detector makes pools throw away a quarter.
func TestNewClients(t *testing.T) {
	const n = 300
	w := newThinWorld(t)
	hold := func() { w.until(w.ask("/sse/stream/news"), w.buf, headEnd, 1) }
	for range 50 {
		hold()
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range n {
		hold()
	}
	runtime.ReadMemStats(&after)
	each := (after.TotalAlloc - before.TotalAlloc) / n
	t.Logf("%d bytes a client, the budget is %d", each, newClient)
	if each > newClient {
		t.Errorf("%d bytes a client, the budget is %d", each, newClient)
	}
}
