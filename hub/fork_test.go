package hub

import (
	"context"
	"testing"

	"ssegate/sse"
)

// An owner that was succeeded did not know it yet: its frames from 4 on count
// no more. Who has them is led back by the Source, or is cut where that has no
// word for it; nobody else notices, whether the new epoch comes with a fence,
// in line, or with frames whose numbers are taken.
func TestFork(t *testing.T) {
	second := func(from, to uint64) []sse.Frame {
		frames := events(from, to, 0)
		for i := range frames {
			frames[i].Pos.Epoch = 2
		}
		return frames
	}
	fence := sse.Frame{Kind: sse.KindFence, Pos: sse.Pos{Epoch: 2, Seq: 3}}
	end := sse.Frame{Kind: sse.KindEnd, Pos: sse.Pos{Epoch: 2, Seq: 9}, End: sse.EndFinished}
	for name, c := range map[string]struct{ before, then []sse.Frame }{
		"fence":          {events(1, 3, 0), append([]sse.Frame{fence}, second(4, 8)...)},
		"in line":        {events(1, 3, 0), second(4, 8)},
		"fence and back": {events(1, 6, 0), append([]sse.Frame{fence}, second(4, 8)...)},
		"back":           {events(1, 6, 0), second(4, 8)},
		"far back":       {events(1, 20, 0), second(4, 8)},
	} {
		t.Run(name, func(t *testing.T) {
			h := running(t, Config{RingEvents: 100})
			l := newLeaver()
			log := append(events(1, 3, 0), append(second(4, 8), end)...)
			said := true
			s := h.Open(l.options(StreamOptions{Source: sourceFunc(func(_ context.Context, after sse.Pos, _ int) ([]sse.Frame, error) {
				if after.Epoch == 1 && after.Seq > 3 {
					if !said {
						return log[3:], nil
					}
					return []sse.Frame{{Kind: sse.KindNote, Pos: sse.Pos{Epoch: 2, Seq: 3}, Block: []byte("event: replaced\n\n")}}, nil
				}
				return log[min(after.Seq, 9):], nil
			})}))
			want := map[*fakeConn]string{} // by client
			follow := func(from, to uint64) *fakeConn {
				c := newFake(-1)
				s.Follow(c, FollowOptions{Chunked: true, After: sse.Pos{Epoch: 1, Seq: from}})
				for seq := from + 1; seq <= to; seq++ {
					want[c] += string(event(seq, 0).Block)
				}
				if max(from, to) > 3 {
					want[c] += "event: replaced\n\n"
				}
				for seq := min(max(from, to), 3) + 1; seq <= 8; seq++ {
					want[c] += string(event(seq, 0).Block)
				}
				return c
			}
			s.Append(c.before)
			tail := s.Tail().Seq
			for _, from := range []uint64{0, 2, tail, tail + 4} {
				follow(from, tail)
			}
			s.Flush()
			s.Append(c.then)
			s.Flush()
			for _, from := range []uint64{1, 3, 5, 50} {
				follow(from, 0)
			}
			s.Append([]sse.Frame{end})
			s.Flush()
			for _, from := range []uint64{3, 7, 30} {
				follow(from, 0)
			}
			for range len(want) {
				if why := l.next(t); why != ReasonFinished {
					t.Fatal("left:", why)
				}
			}
			for c, want := range want {
				if got := c.text(); got != want {
					t.Errorf("a client got %q, want %q", got, want)
				}
			}
			said = false
			cut := follow(6, 0)
			if why := l.next(t); why != ReasonGap || cut.text() != "" {
				t.Fatalf("left: %v, after %q", why, cut.text())
			}
		})
	}
}
