package logtest

import (
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"ssegate/reconnect"
	"ssegate/sse"
)

// testOwnersRace: an old owner goes on appending while new ones take over.
// All that was acknowledged is there, nothing of an old owner is behind a
// fence, and no number is missing or there twice.
func testOwnersRace(t *testing.T, s *suite) {
	const owners = 5
	id := sse.NewStreamID()
	s.mustAppend(t, id, run(1, 1, 1))
	var wg sync.WaitGroup
	var mu sync.Mutex
	acked := run(1, 1, 1)
	begins := map[uint64]uint64{1: 1} // epoch to its first Seq
	own := func(epoch, seq uint64, enough chan<- struct{}) {
		enoughNow := sync.OnceFunc(func() { close(enough) })
		defer enoughNow()
		for n := 0; ; n++ {
			frames := run(epoch, seq, 1+n%7)
			err := s.append1(t, id, reconnect.Limits{}, frames)
			if errors.Is(err, reconnect.ErrFenced) {
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			acked = append(acked, frames...)
			mu.Unlock()
			seq += uint64(len(frames))
			if n == 20 {
				enoughNow()
			}
			if epoch == owners && n > 40 {
				return
			}
		}
	}
	seq := uint64(2)
	for epoch := uint64(1); epoch <= owners; epoch++ {
		enough := make(chan struct{})
		wg.Go(func() { own(epoch, seq, enough) })
		<-enough
		if epoch == owners {
			break
		}
		last, err := s.Fence(t.Context(), id, epoch+1, reconnect.Limits{})
		if err != nil {
			t.Error(err)
			break
		}
		seq = last.Pos.Seq + 1
		begins[epoch+1] = seq
	}
	wg.Wait()
	all := s.all(t, id, 100)
	for i, f := range all {
		if f.Pos.Seq != uint64(i)+1 {
			t.Fatalf("frame %d is %v", i, f.Pos)
		}
		if from, to := begins[f.Pos.Epoch], begins[f.Pos.Epoch+1]; f.Pos.Seq < from || to != 0 && f.Pos.Seq >= to {
			t.Fatalf("%v is outside of its owner's %d to %d", f.Pos, from, to)
		}
	}
	for _, f := range acked {
		if f.Pos.Seq > uint64(len(all)) || !sameFrame(all[f.Pos.Seq-1], f) {
			t.Fatalf("%v was acknowledged and is not there", f.Pos)
		}
	}
}

// testFencesRace: of several that fence in one epoch, one wins.
func testFencesRace(t *testing.T, s *suite) {
	id := sse.NewStreamID()
	s.mustAppend(t, id, run(1, 1, 3))
	for epoch := uint64(2); epoch < 12; epoch++ {
		var wg sync.WaitGroup
		var won atomic.Int32
		for range 8 {
			wg.Go(func() {
				last, err := s.Fence(t.Context(), id, epoch, reconnect.Limits{})
				switch {
				case err == nil && last.Pos == sse.Pos{Epoch: 1, Seq: 3}:
					won.Add(1)
				case !errors.Is(err, reconnect.ErrFenced):
					t.Errorf("%v, %v", last, err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Errorf("%d won epoch %d", won.Load(), epoch)
		}
	}
}

// testRetriesRace: the same batches, sent several times at once and in parts.
func testRetriesRace(t *testing.T, s *suite) {
	id := sse.NewStreamID()
	frames := run(1, 1, 300)
	var wg sync.WaitGroup
	for worker := range 4 {
		wg.Go(func() {
			step := 5 + 3*worker
			for i := 0; i < len(frames); i += step {
				// Each begins before what it has sent, so that none makes a hole.
				part := frames[max(0, i-20):min(len(frames), i+step)]
				if err := s.append1(t, id, reconnect.Limits{}, part); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	wantFrames(t, s.all(t, id, 1000), frames)
}

// testReadersRace: readers see a log that is written and trimmed as one run of
// numbers with honest gaps.
func testReadersRace(t *testing.T, s *suite) {
	const last = 4000
	id := sse.NewStreamID()
	s.mustAppend(t, id, run(1, 1, 1))
	var wg sync.WaitGroup
	for reader := range 3 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(reader), 1))
			var after sse.Pos
			for after.Seq < last {
				got, err := s.Read(t.Context(), id, after, 1+r.IntN(200))
				next := after.Seq + 1
				if gap, ok := errors.AsType[*reconnect.Gap](err); ok {
					if gap.From != next || gap.To < next || len(got) == 0 {
						t.Errorf("after %v: %v, then %s", after, gap, list(got))
						return
					}
					next = gap.To + 1
				} else if err != nil {
					t.Error(err)
					return
				}
				for _, f := range got {
					if !sameFrame(f, run(1, next, 1)[0]) {
						t.Errorf("got %v, want number %d", f.Pos, next)
						return
					}
					next++
				}
				after.Epoch, after.Seq = 1, next-1
			}
		})
	}
	for seq := uint64(2); seq <= last; {
		frames := run(1, seq, min(23, int(last-seq)+1))
		if err := s.append1(t, id, reconnect.Limits{Length: 60}, frames); err != nil {
			t.Error(err)
			break
		}
		seq += uint64(len(frames))
	}
	wg.Wait()
}

// testModel: what any order of calls gives, compared with the simplest log
// that could be.
func testModel(t *testing.T, s *suite) {
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 0))
		id := sse.NewStreamID()
		var m model
		for step := range 150 {
			switch op := r.IntN(10); {
			case op < 5:
				pos := m.tail.Pos
				if op == 0 { // an owner that is old, new, or mistaken
					pos.Epoch += uint64(r.IntN(4))
					pos.Epoch -= min(pos.Epoch, 1)
				}
				pos.Epoch = max(pos.Epoch, 1)
				if r.IntN(3) == 0 {
					// Some of it again, but not across a hole: whether what is
					// taken as written fills it is left open.
					pos.Seq -= min(uint64(r.IntN(9)), m.whole(pos.Epoch))
				} else if r.IntN(8) == 0 {
					pos.Seq += uint64(r.IntN(5))
				}
				frames := run(pos.Epoch, pos.Seq+1, 1+r.IntN(6))
				if r.IntN(2) == 0 {
					for i := range frames {
						frames[i].ID = []byte{'a' + byte(r.IntN(20))}
					}
				}
				// A batch that is sent again must be the same batch.
				for i := range frames {
					if was, ok := m.written[frames[i].Pos]; ok {
						frames[i] = was
					}
				}
				got := s.append1(t, id, reconnect.Limits{}, frames)
				if want := m.append(frames); !errors.Is(got, want) || want == nil && got != nil {
					t.Fatalf("seed %d step %d: append of %s: got %v, want %v", seed, step, list(frames), got, want)
				}
			case op == 5:
				epoch := m.tail.Pos.Epoch + uint64(r.IntN(3))
				got, err := s.Fence(t.Context(), id, epoch, reconnect.Limits{})
				want, werr := m.fence(epoch)
				if !errors.Is(err, werr) || werr == nil && (err != nil || !sameFrame(got, want)) {
					t.Fatalf("seed %d step %d: fence %d: got %v, %v; want %v, %v", seed, step, epoch, got, err, want, werr)
				}
			case op == 6:
				x := []byte{'a' + byte(r.IntN(20))}
				got, err := s.Find(t.Context(), id, x)
				if want, ok := m.find(x); ok != (err == nil) || got != want {
					t.Fatalf("seed %d step %d: find %q: got %v, %v; want %v", seed, step, x, got, err, want)
				}
			default:
				after := sse.Pos{Epoch: m.tail.Pos.Epoch + 1 - min(m.tail.Pos.Epoch+1, uint64(r.IntN(4))), Seq: uint64(r.IntN(int(m.tail.Pos.Seq) + 3))}
				most := 1 + r.IntN(12)
				got, err := s.Read(t.Context(), id, after, most)
				want, werr := m.read(after.Seq, most)
				if gap, ok := errors.AsType[*reconnect.Gap](err); ok {
					wgap, ok := errors.AsType[*reconnect.Gap](werr)
					if !ok || *gap != *wgap {
						t.Fatalf("seed %d step %d: read after %v: got %v, want %v", seed, step, after, err, werr)
					}
				} else if !errors.Is(err, werr) {
					t.Fatalf("seed %d step %d: read after %v: got %v, want %v", seed, step, after, err, werr)
				}
				wantFrames(t, got, want)
				s.wantTail(t, id, m.tail)
			}
		}
	}
}

// model is a log as a plain list.
type model struct {
	tail    reconnect.Tail
	frames  []sse.Frame
	written map[sse.Pos]sse.Frame
}

// whole is how many frames before the tail may be appended again, with one
// more before them.
func (m *model) whole(epoch uint64) (n uint64) {
	if epoch != m.tail.Pos.Epoch {
		return m.tail.Pos.Seq // a new owner may begin where it wants
	}
	for i := len(m.frames) - 1; i >= 0; i-- {
		if m.frames[i].Pos != (sse.Pos{Epoch: epoch, Seq: m.tail.Pos.Seq - n}) {
			break
		}
		n++
	}
	return n
}

func (m *model) append(frames []sse.Frame) error {
	if frames[0].Pos.Epoch < m.tail.Pos.Epoch {
		return reconnect.ErrFenced
	}
	if m.written == nil {
		m.written = map[sse.Pos]sse.Frame{}
	}
	for _, f := range frames {
		if f.Pos.Epoch == m.tail.Pos.Epoch && f.Pos.Seq <= m.tail.Pos.Seq {
			continue
		}
		m.frames = slices.DeleteFunc(m.frames, func(o sse.Frame) bool { return o.Pos.Seq >= f.Pos.Seq })
		m.frames = append(m.frames, f)
		m.written[f.Pos] = f
		m.tail = reconnect.Tail{Pos: f.Pos, Kind: f.Kind, End: f.End}
	}
	return nil
}

func (m *model) fence(epoch uint64) (sse.Frame, error) {
	if len(m.frames) == 0 {
		return sse.Frame{}, reconnect.ErrUnknown
	}
	if epoch <= m.tail.Pos.Epoch {
		return sse.Frame{}, reconnect.ErrFenced
	}
	m.tail = reconnect.Tail{Pos: sse.Pos{Epoch: epoch, Seq: m.tail.Pos.Seq}, Kind: sse.KindFence}
	return m.frames[len(m.frames)-1], nil
}

func (m *model) find(id []byte) (sse.Pos, bool) {
	for _, f := range m.frames {
		if slices.Equal(f.ID, id) {
			return f.Pos, true
		}
	}
	return sse.Pos{}, false
}

func (m *model) read(after uint64, most int) (out []sse.Frame, err error) {
	if len(m.frames) == 0 {
		return nil, reconnect.ErrUnknown
	}
	next := after + 1
	for _, f := range m.frames {
		if f.Pos.Seq < next {
			continue
		}
		if f.Pos.Seq > next && len(out) > 0 || len(out) == most {
			break
		}
		if f.Pos.Seq > next {
			err = &reconnect.Gap{From: next, To: f.Pos.Seq - 1}
		}
		out = append(out, f)
		next = f.Pos.Seq + 1
	}
	return out, err
}
