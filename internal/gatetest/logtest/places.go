package logtest

import (
	"errors"
	"slices"
	"testing"
	"time"

	"ssegate/reconnect"
	"ssegate/sse"
)

// testSince: every position between the times of two posts.
func testSince(t *testing.T, s *suite) {
	id := sse.NewStreamID()
	if pos, err := s.Since(t.Context(), id, time.Unix(1, 0)); !errors.Is(err, reconnect.ErrUnknown) {
		t.Fatalf("since, of no topic: %v, %v", pos, err)
	}
	tail := s.open(t, id, sse.Pos{})
	since := func(ms int64, want sse.Pos) {
		t.Helper()
		if pos, err := s.Since(t.Context(), id, time.UnixMilli(ms)); err != nil || pos != want {
			t.Errorf("since %d: %v, %v; want %v", ms, pos, err, want)
		}
	}
	since(0, tail)
	since(int64(tail.Epoch)+1_000_000, tail)
	var frames []sse.Frame
	for i := range 40 {
		list := posts(1 + i%3)
		d := s.publish(t, id, reconnect.Limits{}, list)
		frames = append(frames, framesOf(d, list)...)
		if i%4 != 0 {
			s.later(t, d.Time)
		}
	}
	check := func() {
		t.Helper()
		for _, f := range frames {
			for _, ms := range []int64{f.Time, f.Time + 1} {
				want := frames[len(frames)-1].Pos
				if at := slices.IndexFunc(frames, func(f sse.Frame) bool { return f.Time >= ms }); at == 0 {
					want = tail
				} else if at > 0 {
					want = frames[at].Pos
					want.Seq--
				}
				since(ms, want)
			}
		}
	}
	check()
	since(0, tail)

	// The same over two numberings.
	ahead := frames[len(frames)-1].Pos
	ahead.Seq += 500_000
	s.later(t, frames[len(frames)-1].Time)
	tail2 := s.open(t, id, ahead)
	lost := reconnect.Origin(tail2.Epoch) // what was lost may be of any time before
	since(frames[len(frames)-1].Time+1, lost)
	since(int64(tail2.Epoch), lost)
	since(int64(tail2.Epoch)+1, tail2)
	list := posts(4)
	d := s.publish(t, id, reconnect.Limits{}, list)
	since(d.Time, lost)
	since(d.Time+1, d.Pos[3])
	since(frames[0].Time, tail)
	since(frames[10].Time+1, func() sse.Pos {
		at := slices.IndexFunc(frames, func(f sse.Frame) bool { return f.Time > frames[10].Time })
		return sse.Pos{Epoch: tail.Epoch, Seq: frames[at].Pos.Seq - 1}
	}())
}

// testSinceGone: what was there of that time, and is not any more, is told.
func testSinceGone(t *testing.T, s *suite) {
	const ttl = 100 * time.Millisecond
	id := sse.NewStreamID()
	limits := reconnect.Limits{TTL: ttl}
	d := s.publish(t, id, limits, posts(3))
	s.outlive(t, ttl)
	gaps := func(ms int64, want ...reconnect.Gap) {
		t.Helper()
		pos, err := s.Since(t.Context(), id, time.UnixMilli(ms))
		if err != nil {
			t.Fatal(err)
		}
		if _, gaps := s.readFrom(t, id, pos); !slices.Equal(gaps, want) {
			t.Errorf("since %d: from %v there are gaps %v, want %v", ms, pos, gaps, want)
		}
	}
	gone := reconnect.Gap{From: d.Pos[0].Seq, To: d.Pos[2].Seq}
	gaps(d.Time, gone)
	gaps(d.Time + 1)

	limits.TTL = time.Hour
	limits.Length = 50
	d2 := s.publish(t, id, limits, posts(3))
	gaps(d.Time, gone)
	gaps(d.Time + 1) // what went was older
	gaps(d2.Time + 1)
	for range 100 {
		s.publish(t, id, limits, posts(10))
	}
	pos, err := s.Since(t.Context(), id, time.UnixMilli(d2.Time))
	if err != nil {
		t.Fatal(err)
	}
	if _, gaps := s.readFrom(t, id, pos); len(gaps) != 1 {
		t.Errorf("since %d, of which much was trimmed: from %v there are gaps %v", d2.Time, pos, gaps)
	}
}

func testBack(t *testing.T, s *suite) {
	id := sse.NewStreamID()
	if pos, err := s.Back(t.Context(), id, 3); !errors.Is(err, reconnect.ErrUnknown) {
		t.Fatalf("back, of no topic: %v, %v", pos, err)
	}
	tail := s.open(t, id, sse.Pos{})
	back := func(n int, want sse.Pos) {
		t.Helper()
		if pos, err := s.Back(t.Context(), id, n); err != nil || pos != want {
			t.Errorf("%d back: %v, %v; want %v", n, pos, err, want)
		}
	}
	back(0, tail)
	back(5, tail)
	last := tail
	for i := range 30 {
		d := s.publish(t, id, reconnect.Limits{}, posts(1+i%9))
		last = d.Pos[len(d.Pos)-1]
	}
	back(-1, last)
	for n := range int(last.Seq - tail.Seq) {
		back(n, sse.Pos{Epoch: last.Epoch, Seq: last.Seq - uint64(n)})
	}
	back(int(last.Seq-tail.Seq), tail)
	back(10_000, tail)
}

func testPass(t *testing.T, s *suite) {
	const ttl = 100 * time.Millisecond
	id := sse.NewStreamID()
	tail := s.open(t, id, sse.Pos{})
	passed := func(want sse.Pos) {
		t.Helper()
		if pos, err := s.Passed(t.Context(), id); err != nil || pos != want {
			t.Errorf("passed: %v, %v; want %v", pos, err, want)
		}
	}
	pass := func(pos sse.Pos, ttl time.Duration) {
		t.Helper()
		if err := s.Pass(t.Context(), id, pos, ttl); err != nil {
			t.Error("pass:", err)
		}
	}
	at := func(epoch, seq uint64) sse.Pos { return sse.Pos{Epoch: tail.Epoch + epoch, Seq: tail.Seq + seq} }
	passed(sse.Pos{})
	pass(at(0, 9), time.Hour)
	passed(at(0, 9))
	pass(at(0, 8), time.Hour)
	passed(at(0, 9))
	pass(at(0, 10), ttl) // and the end is not nearer for it
	pass(at(5, 5000), ttl)
	pass(at(0, 4999), ttl)
	passed(at(5, 5000))
	s.outlive(t, ttl)
	passed(at(5, 5000))

	id = sse.NewStreamID()
	s.open(t, id, sse.Pos{})
	pass(at(0, 9), ttl)
	s.outlive(t, ttl)
	passed(sse.Pos{})
	pass(at(0, 3), time.Hour)
	passed(at(0, 3))
}
