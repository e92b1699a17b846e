package reconnect

import (
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"ssegate/sse"
)

// world is a Memory with a clock and streams that have names.
type world struct {
	*Memory
	t   *testing.T
	now time.Time
}

func newWorld(t *testing.T, maxBytes int64) *world {
	w := &world{t: t, now: time.Unix(1_790_000_000, 0)}
	w.Memory = NewMemory(MemoryConfig{MaxBytes: maxBytes, Now: func() time.Time { return w.now }})
	return w
}

func named(name string) (id sse.StreamID) {
	copy(id[:], name)
	return id
}

// runs is frames as a single run.
func runs(frames ...sse.Frame) []sse.Run {
	r, err := sse.NewRun(frames)
	if err != nil {
		panic(err) // the test is wrong
	}
	return []sse.Run{r}
}

// add appends to a stream as many frames of size bytes each, a second later.
func (w *world) add(name string, frames, size int, end sse.End) {
	w.t.Helper()
	w.now = w.now.Add(time.Second)
	tails, _ := w.Tails(w.t.Context(), []sse.StreamID{named(name)})
	all := make([]sse.Frame, 0, frames)
	for i := range frames {
		all = append(all, sse.Frame{
			Pos:   sse.Pos{Epoch: 1, Seq: tails[0].Pos.Seq + uint64(i) + 1},
			Kind:  sse.KindEvent,
			Block: make([]byte, size),
		})
	}
	if end != sse.EndNone {
		last := &all[frames-1]
		last.Kind, last.End = sse.KindEnd, end
	}
	b := Batch{Stream: named(name), Limits: Limits{TTL: time.Hour}, Runs: runs(all...)}
	if err := errors.Join(w.Append(w.t.Context(), []Batch{b})...); err != nil {
		w.t.Fatal(err)
	}
	w.check()
}

// check holds the books against what is really there.
func (w *world) check() {
	w.t.Helper()
	var logs, frames, size int64
	for i := range w.shards {
		for _, l := range w.shards[i].logs {
			logs++
			mine := logCost
			for i := range l.frames.runs {
				r := &l.frames.runs[i]
				frames += int64(r.Len())
				mine += r.Size()
			}
			if mine != l.bytes {
				w.t.Errorf("%s: %d bytes in the books, %d there", l.id[:3], l.bytes, mine)
			}
			size += mine
		}
	}
	if s := w.Stats(); s.Logs != logs || s.Frames != frames || s.Bytes != size {
		w.t.Errorf("books say %+v, there are %d logs, %d frames, %d bytes", s, logs, frames, size)
	}
	if w.max > 0 && size > w.max {
		w.t.Errorf("%d bytes, more than %d", size, w.max)
	}
}

// kept is how many frames each stream has; -1 for those that are unknown.
func (w *world) kept(names ...string) (kept []int) {
	for _, name := range names {
		got, err := w.Read(w.t.Context(), named(name), sse.Pos{}, 1<<20)
		n := len(got)
		if errors.Is(err, ErrUnknown) {
			n = -1
		}
		kept = append(kept, n)
	}
	return kept
}

func (w *world) want(kept []int, want ...int) {
	w.t.Helper()
	for i := range want {
		if kept[i] != want[i] {
			w.t.Fatalf("frames kept: %v, want %v", kept, want)
		}
	}
}

func TestMemoryBudget(t *testing.T) {
	const block = 100_000
	w := newWorld(t, 12*block) // room for eleven blocks, and all that goes with them
	w.add("old", 2, block, sse.EndNone)
	w.add("end1", 2, block, sse.EndClean)
	w.add("live", 2, block, sse.EndNone)
	w.add("end2", 2, block, sse.EndFinished)
	w.add("old", 2, block, sse.EndNone) // not so old any more
	names := []string{"old", "end1", "live", "end2", "new"}
	w.want(w.kept(names...), 4, 2, 2, 2, -1)

	// What has ended goes first, whole, the oldest end first.
	w.add("new", 2, block, sse.EndNone)
	w.want(w.kept(names...), 4, -1, 2, 2, 2)
	w.add("new", 2, block, sse.EndNone)
	w.want(w.kept(names...), 4, -1, 2, -1, 4)
	s := w.Stats()
	if got := s.Dropped[ReasonEnded]; got != (Drops{Logs: 2, Frames: 4}) {
		t.Errorf("dropped because ended: %+v", got)
	}

	// Then the live one that was quiet for longest, its oldest frames first;
	// it stays known.
	w.add("new", 2, block, sse.EndNone)
	w.want(w.kept(names...), 4, -1, 1, -1, 6)
	w.add("new", 1, block, sse.EndNone)
	w.want(w.kept(names...), 4, -1, 0, -1, 7)
	if _, err := w.Read(t.Context(), named("live"), sse.Pos{}, 9); !errors.Is(err, ErrGap) {
		t.Errorf("live: %v", err)
	}
	w.add("live", 1, block, sse.EndNone) // takes its place again
	w.want(w.kept(names...), 3, -1, 1, -1, 7)
	if got, err := w.Read(t.Context(), named("live"), sse.Pos{}, 9); len(got) != 1 || got[0].Pos.Seq != 3 || !errors.Is(err, ErrGap) {
		t.Errorf("live: %v, %v", len(got), err)
	}
	if got := w.Stats().Dropped[ReasonLive]; got != (Drops{Frames: 3}) {
		t.Errorf("dropped from live logs: %+v", got)
	}

	// A single log has the room for itself, and no more.
	w.add("huge", 40, block, sse.EndNone)
	w.want(w.kept(names...), 0, -1, 0, -1, 0)
	w.want(w.kept("huge"), 11)
}

// TestMemoryBudgetTakenOver: a stream that was cut and taken over lives again
// and keeps its fence.
func TestMemoryBudgetTakenOver(t *testing.T) {
	const block = 100_000
	w := newWorld(t, 6*block)
	w.add("cut", 1, block, sse.EndCut)
	w.add("ended", 1, block, sse.EndCut)
	if _, err := w.Fence(t.Context(), named("cut"), 9, Limits{}); err != nil {
		t.Fatal(err)
	}
	w.add("live", 4, block, sse.EndNone)
	w.want(w.kept("cut", "ended", "live"), 1, -1, 4)
	w.add("live", 1, block, sse.EndNone)
	w.want(w.kept("cut", "ended", "live"), 0, -1, 5)
	tails, err := w.Tails(t.Context(), []sse.StreamID{named("cut")})
	if err != nil || tails[0] != (Tail{Pos: sse.Pos{Epoch: 9, Seq: 1}, Kind: sse.KindFence}) {
		t.Errorf("%v, %v", tails, err)
	}
}

// TestMemoryBudgetOfCrumbs: when the logs themselves take all the room, no
// frame stays, nothing loops, and what has ended makes room again.
func TestMemoryBudgetOfCrumbs(t *testing.T) {
	w := newWorld(t, 0)
	w.Memory.max = 10 * logCost
	for i := range 30 {
		b := Batch{Stream: sse.StreamID{byte(i), 1}, Runs: runs(sse.Frame{Pos: sse.Pos{Epoch: 1, Seq: 1}, Kind: sse.KindEvent})}
		if errs := w.Append(t.Context(), []Batch{b}); errs != nil {
			t.Fatal(errs)
		}
	}
	if s := w.Stats(); s.Frames != 0 || s.Logs != 30 {
		t.Errorf("%+v", s)
	}
	for i := range 30 {
		b := Batch{Stream: sse.StreamID{byte(i), 1}, Runs: runs(sse.Frame{Pos: sse.Pos{Epoch: 1, Seq: 2}, Kind: sse.KindEnd, End: sse.EndClean})}
		if errs := w.Append(t.Context(), []Batch{b}); errs != nil {
			t.Fatal(errs)
		}
	}
	w.check()
	if s := w.Stats(); s.Logs == 0 || s.Logs > 9 {
		t.Errorf("%+v", s)
	}
}

func TestMemorySweep(t *testing.T) {
	w := newWorld(t, 0)
	for i := range 100 {
		b := Batch{Stream: sse.StreamID{byte(i)}, Limits: Limits{TTL: time.Duration(i+1) * time.Second}}
		b.Runs = runs(sse.Frame{Pos: sse.Pos{Epoch: 1, Seq: 1}, Kind: sse.KindEvent})
		if errs := w.Append(t.Context(), []Batch{b}); errs != nil {
			t.Fatal(errs)
		}
	}
	if n := w.Sweep(); n != 0 {
		t.Errorf("swept %d before their time", n)
	}
	w.now = w.now.Add(30 * time.Second)
	// Asking for one frees it; those that nobody asks for wait for the sweep.
	if _, err := w.Read(t.Context(), sse.StreamID{4}, sse.Pos{}, 1); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
	if s := w.Stats(); s.Logs != 99 || s.Dropped[ReasonTTL] != (Drops{Logs: 1, Frames: 1}) {
		t.Errorf("%+v", s)
	}
	if n := w.Sweep(); n != 29 {
		t.Errorf("swept %d, want 29", n)
	}
	w.check()
	w.now = w.now.Add(time.Hour)
	if n := w.Sweep(); n != 70 {
		t.Errorf("swept %d, want 70", n)
	}
	if s := w.Stats(); s.Logs != 0 || s.Frames != 0 || s.Bytes != 0 || s.Dropped[ReasonTTL] != (Drops{Logs: 100, Frames: 100}) {
		t.Errorf("%+v", s)
	}
	if w.order.live != (queue{}) || w.order.ended != (queue{}) {
		t.Error("swept logs are still held")
	}
}

// TestMemoryShares: no copy goes in or out.
func TestMemoryShares(t *testing.T) {
	m := NewMemory(MemoryConfig{})
	in := sse.Frame{Pos: sse.Pos{Epoch: 1, Seq: 1}, Kind: sse.KindEvent, ID: []byte("a"), Block: []byte("data: x\n\n")}
	if errs := m.Append(t.Context(), []Batch{{Runs: runs(in)}}); errs != nil {
		t.Fatal(errs)
	}
	out, err := m.Read(t.Context(), sse.StreamID{}, sse.Pos{}, 1)
	if err != nil || &out[0].Block[0] != &in.Block[0] || &out[0].ID[0] != &in.ID[0] {
		t.Errorf("%v, %v: not the same bytes", out, err)
	}
}

// TestMemoryAllAtOnce: everything beside everything else, in too little room;
// for the race detector, and for locks taken in the wrong order.
func TestMemoryAllAtOnce(t *testing.T) {
	w := newWorld(t, 200_000)
	w.Memory.now = time.Now
	ctx := t.Context()
	var wg sync.WaitGroup
	for worker := range 6 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(worker), 7))
			for range 4000 {
				id := sse.StreamID{byte(r.IntN(30))}
				tails, _ := w.Tails(ctx, []sse.StreamID{id})
				pos := tails[0].Pos
				pos.Epoch = max(pos.Epoch, 1)
				switch r.IntN(8) {
				case 0:
					w.Fence(ctx, id, pos.Epoch+1, Limits{TTL: time.Microsecond})
				case 1:
					w.Sweep()
				case 2:
					w.Touch(ctx, []sse.StreamID{id}, time.Millisecond)
				case 3:
					w.Find(ctx, id, []byte("x"))
				case 4:
					w.Read(ctx, id, sse.Pos{}, 10)
				default:
					f := sse.Frame{Pos: sse.Pos{Epoch: pos.Epoch, Seq: pos.Seq + 1}, Kind: sse.KindEvent, Block: make([]byte, r.IntN(5000))}
					if r.IntN(4) == 0 {
						f.Kind, f.End = sse.KindEnd, sse.EndClean
					}
					w.Append(ctx, []Batch{{Stream: id, Limits: Limits{Length: 20, TTL: time.Duration(r.IntN(200)) * time.Microsecond}, Runs: runs(f)}})
				}
			}
		})
	}
	wg.Wait()
	w.Append(ctx, []Batch{{Stream: sse.StreamID{200}, Runs: runs(sse.Frame{Pos: sse.Pos{Epoch: 1, Seq: 1}, Kind: sse.KindEvent})}})
	w.check()
}
