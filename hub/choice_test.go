package hub

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"ssegate/sse"
)

// marked is an event that bears meta.
func marked(seq uint64, meta string, pad int) sse.Frame {
	f := event(seq, pad)
	f.Meta, f.Time = []byte(meta), int64(1e12+seq)
	return f
}

// wants is a Want that takes what bears one of some words.
func wants(words ...string) func(FrameMeta) bool {
	return func(m FrameMeta) bool { return slices.Contains(words, string(m.Meta)) }
}

// What bears no meta is for everybody and nobody is asked; what does is for
// who wants it; what ends the stream is for all.
func TestWant(t *testing.T) {
	for _, chunked := range []bool{true, false} {
		h := running(t, Config{})
		l := newLeaver()
		log := &memLog{}
		s := h.Open(l.options(StreamOptions{Source: log}))
		all, none, some := newFake(-1), newFake(-1), newFake(-1)
		o := FollowOptions{Chunked: chunked, Retry: time.Second}
		s.Follow(all, o)
		o.Want = wants()
		f := s.Follow(none, o)
		var metas []FrameMeta
		o.Want = func(m FrameMeta) bool { metas = append(metas, m); return string(m.Meta) == "a" }
		s.Follow(some, o)
		bare := sse.Frame{Pos: sse.Pos{Epoch: 1, Seq: 3}, Kind: sse.KindBare, Block: []byte("id: b\n\n"), Meta: []byte("b")}
		s.Append([]sse.Frame{marked(1, "b", 0), marked(2, "a", 0), bare, event(4, 0), note(":n\n"), marked(5, "", 0)})
		s.Flush()
		if p := f.Pos(); p != s.Tail() {
			t.Errorf("who skips is at %v, the tail is %v", p, s.Tail())
		}
		end := endFrame(6, sse.EndClean)
		end.Meta = []byte("b")
		s.Append([]sse.Frame{end})
		s.Flush()
		for range 3 {
			if why := l.next(t); why != ReasonEnded {
				t.Fatal("left:", why)
			}
		}
		for name, c := range map[string]struct {
			conn *fakeConn
			want string
		}{
			"all":  {all, "retry: 1000\ndata: 1 \n\ndata: 2 \n\nid: b\n\ndata: 4 \n\n:n\ndata: 5 \n\n"},
			"none": {none, "retry: 1000\ndata: 4 \n\n:n\n"},
			"some": {some, "retry: 1000\ndata: 2 \n\ndata: 4 \n\n:n\n"},
		} {
			got := string(c.conn.bytes())
			if chunked {
				got = c.conn.text()
			}
			if got != c.want {
				t.Errorf("%s: got %q, want %q", name, got, c.want)
			}
		}
		if n := h.Stats().Skipped; n != 4+3 {
			t.Errorf("%d skipped", n)
		}
		want := []FrameMeta{{[]byte("b"), 1e12 + 1, 5}, {[]byte("a"), 1e12 + 2, 4}, {[]byte("b"), 0, 3}, {[]byte{}, 1e12 + 5, 0}}
		if fmt.Sprint(metas) != fmt.Sprint(want) {
			t.Errorf("asked about %v, want %v", metas, want)
		}
	}
}

// A goodbye stands behind what was half written, wanted or not what follows;
// the rest is not sent.
func TestWantThenKick(t *testing.T) {
	h := still(t, Config{})
	l := newLeaver()
	s := h.Open(l.options(StreamOptions{}))
	for room := range 50 {
		c := newFake(0)
		f := s.Follow(c, FollowOptions{Chunked: true, After: s.Tail(), Want: wants("a")})
		c.open(room)
		n := s.Tail().Seq
		s.Append([]sse.Frame{marked(n+1, "b", 0), marked(n+2, "a", 0), marked(n+3, "b", 0), marked(n+4, "a", 0)})
		s.Flush()
		f.Kick("kicked:test", []byte("retry: 7\n"), true)
		c.open(-1)
		l.next(t)
		text, whole := body(c.bytes())
		events, bye := strings.CutSuffix(text, "retry: 7\n")
		seqs, rest := numbers(events)
		if !whole || !bye || rest != "" || len(seqs) > 2 || len(seqs) > 0 && seqs[0] != n+2 || len(seqs) > 1 && seqs[1] != n+4 {
			t.Fatalf("room for %d: %q", room, text)
		}
	}
}

// An answer about a frame that counts no more is none about the one that has
// its number now.
func TestWantOfAnotherEpoch(t *testing.T) {
	h := still(t, Config{})
	s := h.Open(StreamOptions{Source: &memLog{}})
	c := newFake(5)
	s.Follow(c, FollowOptions{Chunked: true, Want: wants("a")})
	s.Append([]sse.Frame{marked(1, "a", 0), marked(2, "a", 0), marked(3, "a", 0)})
	s.Flush() // into the first
	next := []sse.Frame{{Kind: sse.KindFence, Pos: sse.Pos{Epoch: 2, Seq: 1}}, marked(2, "b", 0), marked(3, "a", 0)}
	next[1].Pos.Epoch, next[2].Pos.Epoch = 2, 2
	s.Append(next)
	s.Flush()
	c.open(-1)
	if seqs, _ := numbers(c.text()); !slices.Equal(seqs, []uint64{1, 3}) {
		t.Errorf("got %v", seqs)
	}
}

// Who wants nothing has got everything: it holds nobody back and is not slow.
func TestWaitForOneWhoWantsNothing(t *testing.T) {
	h := still(t, Config{RingEvents: 40})
	s := h.Open(StreamOptions{Slow: SlowCut})
	f := s.Follow(newFake(0), FollowOptions{Chunked: true, Want: wants()})
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	defer cancel()
	for seq := uint64(1); seq <= 1000; seq++ {
		if err := s.Wait(ctx); err != nil {
			t.Fatal("held back:", err)
		}
		s.Append([]sse.Frame{marked(seq, "b", 10)})
		s.Flush()
	}
	if p := f.Pos(); p.Seq != 1000 || h.Stats().Deliveries != 0 || h.Stats().Skipped != 1000 {
		t.Errorf("at %v, %+v", p, h.Stats())
	}
}

// What is skipped is silence: heartbeats go on.
func TestHeartbeatWhileSkipping(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, h *Hub) {
		s := h.Open(StreamOptions{Heartbeat: []byte(":\n")})
		c := newFake(-1)
		s.Follow(c, FollowOptions{Chunked: true, Heartbeat: 15 * time.Second, Want: wants()})
		for seq := range uint64(60) {
			time.Sleep(time.Second)
			s.Append([]sse.Frame{marked(seq+1, "b", 0)})
			s.Flush()
		}
		if got := c.text(); got != ":\n:\n:\n" {
			t.Errorf("%q", got)
		}
	})
}

// A chooser is a client that decides by chance, and remembers.
type chooser struct {
	c       *fakeConn
	after   uint64
	slow    bool
	chunked bool
	answers map[uint64]bool
	wrong   []string
}

func (c *chooser) follow(s *Stream, rng *rand.Rand) {
	c.answers = map[uint64]bool{}
	share := rng.IntN(5)
	s.Follow(c.c, FollowOptions{
		After: sse.Pos{Epoch: 1, Seq: c.after}, Chunked: c.chunked,
		Heartbeat: time.Duration(rng.IntN(3)) * 5 * time.Second, WriteTimeout: time.Hour,
		Want: func(m FrameMeta) bool {
			var seq uint64
			fmt.Sscan(string(m.Meta), &seq)
			if _, again := c.answers[seq]; again || m.Time != int64(1e12+seq) || m.Behind < 0 {
				c.wrong = append(c.wrong, fmt.Sprintf("asked about %s, %+v", m.Meta, m))
			}
			c.answers[seq] = rng.IntN(4) < share
			return c.answers[seq]
		},
	})
}

// Whatever is appended, refused, blocked, read from the Source, or moved to a
// smaller segment meanwhile: each gets what it wants, in order, and is asked
// once about what there is to ask.
func TestRandomChoices(t *testing.T) {
	var catchUps int64
	var moved int
	for seed := range uint64(60) {
		bubble(t, Config{RingEvents: 10 + 90*int(seed%2), RingBytes: 8 << 10, CatchUps: 2}, func(t *testing.T, h *Hub) {
			rng := rand.New(rand.NewPCG(seed, 31))
			l := newLeaver()
			log := &memLog{}
			s := h.Open(l.options(StreamOptions{Source: log, Heartbeat: []byte(":\n")}))
			var clients []*chooser
			plain := map[uint64]bool{}
			var late []sse.Frame // that the log does not have yet
			const last = 600
			asks := 1 + rng.IntN(4) // of 4 frames
			for seq := uint64(0); seq < last; {
				var batch []sse.Frame
				for range min(rng.Uint64N(12), last-seq) {
					seq++
					f := event(seq, rng.IntN(120))
					if rng.IntN(10) == 0 {
						f.ID = fmt.Append(nil, "id", seq/5)
					}
					if plain[seq] = rng.IntN(4) >= asks; !plain[seq] {
						f.Meta, f.Time = fmt.Append(nil, seq), int64(1e12+seq)
					}
					batch = append(batch, f)
					late = append(late, f)
				}
				s.Append(batch)
				if rng.IntN(4) > 0 {
					s.Flush()
				}
				last, _ := ring(s)
				if rng.IntN(2) == 0 {
					log.add(late)
					s.Flushed(seq)
					late = nil
				}
				if rng.IntN(8) == 0 && len(clients) < 15 {
					c := &chooser{slow: rng.IntN(2) == 0, chunked: rng.IntN(3) > 0, after: rng.Uint64N(seq + 1)}
					c.c = newFake(-1)
					if c.slow {
						c.c = newFake(0)
						c.c.rng = rand.New(rand.NewPCG(seed, seq))
					}
					clients = append(clients, c)
					c.follow(s, rand.New(rand.NewPCG(seed, seq)))
				}
				for _, c := range clients {
					if rng.IntN(4) == 0 && c.slow {
						c.c.open(rng.IntN(1500))
					}
				}
				switch rng.IntN(12) {
				case 0, 1, 2:
					synctest.Wait()
				case 3:
					log.add(late)
					s.Flushed(seq)
					late = nil
					time.Sleep(time.Duration(rng.IntN(40)) * time.Second)
					if last.moved.Load() != nil {
						moved++
					}
				}
			}
			log.add(append(late, endFrame(last+1, sse.EndFinished)))
			s.Append([]sse.Frame{endFrame(last+1, sse.EndFinished)})
			s.Flush()
			for _, c := range clients {
				c.c.mu.Lock()
				c.c.rng = nil
				c.c.mu.Unlock()
				c.c.open(-1)
			}
			for range clients {
				if why := l.next(t); why != ReasonFinished {
					t.Fatal("left:", why)
				}
			}
			skipped := int64(0)
			for i, c := range clients {
				var want []uint64
				for seq := c.after + 1; seq <= last; seq++ {
					yes, asked := c.answers[seq]
					if asked == plain[seq] {
						t.Fatalf("seed %d: client %d, event %d: plain %v, asked %v", seed, i, seq, plain[seq], asked)
					}
					if yes || plain[seq] {
						want = append(want, seq)
					} else {
						skipped++
					}
				}
				text := string(c.c.bytes())
				if c.chunked {
					text = c.c.text()
				}
				got, rest := numbers(text)
				if !slices.Equal(got, want) || strings.Trim(rest, ":\n") != "" {
					t.Fatalf("seed %d: client %d of %+v: got %d events, wants %d; besides: %q", seed, i, c, len(got), len(want), rest)
				}
				if len(c.wrong) > 0 {
					t.Fatalf("seed %d: %s", seed, c.wrong[0])
				}
			}
			if n := h.Stats().Skipped; n != skipped {
				t.Errorf("%d skipped, %d counted", skipped, n)
			}
			catchUps += h.Stats().CatchUps
		})
	}
	if catchUps < 100 || moved < 10 {
		t.Errorf("only %d catch-ups, %d segments made smaller", catchUps, moved)
	}
}

// What a frame bears comes out of the ring as it went in, also when that has
// become smaller.
func TestFramesKeepMeta(t *testing.T) {
	h := still(t, Config{})
	s := h.Open(StreamOptions{})
	var want []sse.Frame
	for seq := uint64(1); seq <= 300; seq++ {
		f := event(seq, int(seq%7))
		if seq%3 > 0 {
			f.ID = fmt.Append(nil, "id", seq/4)
		}
		if seq%4 > 0 {
			f.Time = int64(seq * seq * seq * seq)
		}
		if seq%5 > 0 {
			f.Meta = bytes.Repeat([]byte("m"), int(seq%200))
		}
		s.Append([]sse.Frame{f})
		want = append(want, f)
	}
	check := func(got []sse.Frame) {
		t.Helper()
		if len(got) == 0 || len(got) < len(want) {
			t.Fatalf("%d frames", len(got))
		}
		for i, w := range want {
			if g := got[i]; fmt.Sprintf("%#v", g) != fmt.Sprintf("%#v", w) {
				t.Fatalf("got %+v, want %+v", g, w)
			}
		}
	}
	check(s.Frames(0, 1000, 1<<20))
	n := s.last.n.Load()
	c := s.last.tight()
	if c.spare() != 0 || c.cost() >= s.last.cost() {
		t.Errorf("costs %d, of that spare %d; before %d", c.cost(), c.spare(), s.last.cost())
	}
	want = want[300-int(n):]
	var got []sse.Frame
	for i := range n {
		got = append(got, c.Frame(i))
	}
	check(got)
}

// Expired comes at its time, once, without locks, and only to who is there.
func TestExpired(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, h *Hub) {
		l := newLeaver()
		s := h.Open(l.options(StreamOptions{}))
		from := time.Now()
		type call struct {
			f  *Follower
			at time.Duration
		}
		calls := make(chan call, 10)
		o := FollowOptions{Chunked: true, Heartbeat: 15 * time.Second, Expired: func(f *Follower) {
			f.Pos()
			s.Append(events(s.Tail().Seq+1, s.Tail().Seq+1, 0))
			s.Flush()
			for range s.All() {
			}
			calls <- call{f, time.Since(from)}
		}}
		at := func(d time.Duration) *Follower {
			o.Until = from.Add(d)
			return s.Follow(newFake(-1), o)
		}
		time.Sleep(70 * time.Millisecond) // between two ticks
		past, soon, later, gone := at(-time.Hour), at(10050*time.Millisecond), at(200*time.Second), at(20*time.Second)
		at(8 * 365 * 24 * time.Hour)
		at(290 * 365 * 24 * time.Hour)
		o.Until = time.Time{}
		s.Follow(newFake(-1), o)
		o.Until, o.Expired = from.Add(time.Second), nil
		s.Follow(newFake(-1), o)
		gone.Kick("kicked:test", nil, true)
		o.Expired = func(f *Follower) { f.Kick("kicked:old", []byte(":bye\n"), true) }
		old := newFake(-1)
		o.Until = from.Add(30 * time.Second)
		of := s.Follow(old, o)
		time.Sleep(time.Hour)
		synctest.Wait()
		for _, want := range []call{{past, 100 * time.Millisecond}, {soon, 10050 * time.Millisecond}, {later, 200 * time.Second}} {
			select {
			case got := <-calls:
				if got.f != want.f || got.at < want.at || got.at > want.at+200*time.Millisecond {
					t.Errorf("called at %v, want at %v (the same: %v)", got.at, want.at, got.f == want.f)
				}
			default:
				t.Fatal("not called for", want.at)
			}
		}
		if len(calls) > 0 {
			t.Error("called again, or for one that left, or that has no end:", (<-calls).at)
		}
		if l.why(of) != "kicked:old" || !strings.HasSuffix(old.text(), ":bye\n") {
			t.Errorf("left: %s after %q", l.why(of), old.text())
		}
	})
}

// Since is where a follower began, however far it is.
func TestSince(t *testing.T) {
	h := still(t, Config{})
	s := h.Open(StreamOptions{})
	s.Append(events(1, 5, 0))
	p := sse.Pos{Epoch: 1, Seq: 2}
	f := s.Follow(newFake(-1), FollowOptions{After: p})
	if f.Since() != p || f.Pos() != s.Tail() {
		t.Errorf("since %v, at %v", f.Since(), f.Pos())
	}
}
