package hub

import (
	"math/rand/v2"
	"testing"

	"ssegate/sse"
)

// A log gets what lies in the ring as it lies there: what is numbered, without
// the notes between, each frame at what it costs, for as long as it wants.
func TestRuns(t *testing.T) {
	h := still(t, Config{RingEvents: 5000, RingBytes: 1 << 20})
	s := h.Open(StreamOptions{})
	r := rand.New(rand.NewPCG(3, 0))
	var want []sse.Frame
	seq := uint64(0)
	for range 300 {
		batch := []sse.Frame{note(":n\n")}[:r.IntN(100)/99]
		for range 1 + r.IntN(5) {
			seq++
			f := event(seq, r.IntN(200))
			switch r.IntN(3) {
			case 0:
				f.ID = []byte("same")
			case 1:
				f.ID = f.Block[:r.IntN(10)]
			}
			batch, want = append(batch, f), append(want, f)
		}
		s.Append(batch)
	}
	s.Append([]sse.Frame{note(":n\n")})
	runs := s.AppendRuns(nil, 0, 1<<20, 1<<30)
	if pages := 20; len(runs) < 5 || len(runs) > pages {
		t.Errorf("%d runs of a few segments and about 4 notes", len(runs))
	}
	check := func(what string) {
		t.Helper()
		i := 0
		for k := range runs {
			run := &runs[k]
			if run.First() != want[i].Pos || run.Last() != want[i+run.Len()-1].Pos {
				t.Fatalf("%s: run %d is from %v to %v", what, k, run.First(), run.Last())
			}
			var size, least int64
			for j := range run.Len() {
				f, part := run.At(j), run.Part(j, j+1)
				if f.Pos != want[i].Pos || string(f.Block) != string(want[i].Block) || string(f.ID) != string(want[i].ID) || (f.ID == nil) != (want[i].ID == nil) {
					t.Fatalf("%s: frame %v", what, f.Pos)
				}
				size += part.Size()
				least += entrySize + int64(len(f.Block))
				i++
			}
			if run.Size() != size || size <= least {
				t.Errorf("%s: run %d has %d bytes, its frames %d, at least %d", what, k, run.Size(), size, least)
			}
		}
		if i != len(want) {
			t.Fatalf("%s: %d frames, want %d", what, i, len(want))
		}
	}
	check("in the ring")
	if last := s.last; last.tight().Size(0, last.n.Load()) != last.Size(0, last.n.Load()) {
		t.Error("what is made smaller costs another size")
	}
	s.Append(events(seq+1, seq+20_000, 100))
	s.Close()
	check("when the ring is gone")
}

// AppendRuns keeps to its limits, and goes on where it ended.
func TestRunsLimited(t *testing.T) {
	s := still(t, Config{RingEvents: 10_000, RingBytes: 64 << 20}).Open(StreamOptions{})
	s.Append(events(1, 500, 100))
	s.Append([]sse.Frame{note(":n\n")})
	s.Append(events(501, 1000, 100))
	one := len(events(1, 1, 100)[0].Block)
	for _, limits := range [][2]int{{1, 1 << 20}, {17, 1 << 20}, {1 << 20, 1}, {1 << 20, 10 * one}, {1 << 20, 50_000}, {300, 20_000}, {1 << 20, 1 << 20}} {
		var runs []sse.Run
		for at := uint64(0); at < 1000; at = runs[len(runs)-1].Last().Seq {
			had := len(runs)
			runs = s.AppendRuns(runs, at, limits[0], limits[1])
			frames, bytes := 0, 0
			for i := range runs[had:] {
				run := &runs[had+i]
				if run.First().Seq != at+uint64(frames)+1 {
					t.Fatalf("limits %v: a run begins at %v behind %d and %d", limits, run.First(), at, frames)
				}
				frames += run.Len()
				bytes += run.Len() * one
			}
			if frames == 0 || frames > limits[0] || frames > 1 && bytes > limits[1] {
				t.Fatalf("limits %v: %d frames, %d bytes", limits, frames, bytes)
			}
		}
	}
	if got := s.AppendRuns(nil, 0, 0, 1<<20); len(got) != 0 {
		t.Errorf("%d runs of nothing", len(got))
	}
	if got := s.AppendRuns(nil, 1000, 10, 1<<20); len(got) != 0 {
		t.Errorf("%d runs behind the last", len(got))
	}
}
