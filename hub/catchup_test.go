package hub

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"ssegate/sse"
)

// A memLog is a Source in memory that has what it was given.
type memLog struct {
	mu     sync.Mutex
	frames []sse.Frame // numbered, consecutive
	first  uint64      // frames before it are no longer kept; told by a note
	err    error
	reads  int
	gate   chan struct{} // when set, each Read takes one
}

func (l *memLog) add(frames []sse.Frame) {
	l.mu.Lock()
	l.frames = append(l.frames, frames...)
	l.mu.Unlock()
}

func (l *memLog) Read(ctx context.Context, after sse.Pos, max int) ([]sse.Frame, error) {
	l.mu.Lock()
	gate := l.gate
	l.reads++
	l.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return nil, l.err
	}
	var out []sse.Frame
	for _, f := range l.frames {
		if f.Pos.Seq > after.Seq && f.Pos.Seq >= l.first && len(out) < max {
			if len(out) == 0 && l.first > after.Seq+1 {
				out = append(out, note(": gap\n"))
			}
			out = append(out, f)
		}
	}
	return out, nil
}

// Followers come and go with any position while frames are appended, trimmed
// and logged late; each gets exactly what follows its position.
func TestReplayThenLive(t *testing.T) {
	for seed := range uint64(6) {
		h := running(t, Config{RingEvents: 20, RingBytes: 16 << 10, CatchUps: 3, Tick: 5 * time.Millisecond})
		l := newLeaver()
		log := &memLog{}
		s := h.Open(l.options(StreamOptions{Source: log}))
		const last = 3000
		type client struct {
			c     *fakeConn
			after uint64
		}
		var clients []client
		var wg sync.WaitGroup
		stop := make(chan struct{})
		rng := rand.New(rand.NewPCG(seed, 5))
		logged := make(chan []sse.Frame, 16)
		wg.Go(func() { // the outbox: late
			for frames := range logged {
				log.add(frames)
				s.Flushed(frames[len(frames)-1].Pos.Seq)
			}
		})
		follow := func() {
			c := newFake(0)
			c.rng = rand.New(rand.NewPCG(seed, uint64(len(clients))))
			after := uint64(0)
			if tail := s.Tail().Seq; tail > 0 {
				after = rng.Uint64N(tail + 1)
			}
			s.Follow(c, FollowOptions{After: sse.Pos{Seq: after}, Chunked: true, Retry: time.Duration(len(clients)%2) * time.Second})
			clients = append(clients, client{c, after})
			pace := rand.New(rand.NewPCG(seed, uint64(len(clients))))
			wg.Go(func() {
				for {
					select {
					case <-c.done:
						return
					case <-stop:
						c.open(-1)
						return
					default:
						c.open(1 + pace.IntN(3000))
						if pace.IntN(8) == 0 {
							time.Sleep(time.Duration(pace.IntN(300)) * time.Microsecond)
						}
					}
				}
			})
		}
		for seq := uint64(1); seq <= last; {
			n := min(1+rng.Uint64N(30), last-seq+1)
			frames := events(seq, seq+n-1, rng.IntN(100))
			seq += n
			s.Append(frames)
			if rng.IntN(4) > 0 {
				s.Flush()
			}
			logged <- frames
			if rng.IntN(3) == 0 && len(clients) < 40 {
				follow()
			}
		}
		end := []sse.Frame{endFrame(last+1, sse.EndFinished)}
		s.Append(end)
		logged <- end
		close(logged)
		s.Flush()
		follow()
		for range clients {
			if why := l.next(t); why != ReasonFinished {
				t.Fatal("left:", why)
			}
		}
		close(stop)
		wg.Wait()
		for i, c := range clients {
			text, whole := body(c.c.bytes())
			if !whole {
				t.Fatal("not whole")
			}
			seqs, rest := numbers(text)
			consecutive(t, seqs, c.after+1, last)
			if want := strings.Repeat("retry: 1000\n", i%2); rest != want && len(seqs) > 0 {
				t.Fatalf("client %d: besides the events: %q, want %q", i, rest, want)
			}
		}
		if st := h.Stats(); st.CatchUps == 0 || st.CatchingUp != 0 {
			t.Errorf("catch-ups: %+v", st)
		}
	}
}

// A client of HTTP/1.0 gets the same, without framing.
func TestReplayUnchunked(t *testing.T) {
	h := running(t, Config{RingEvents: 20})
	l := newLeaver()
	log := &memLog{}
	s := h.Open(l.options(StreamOptions{Source: log}))
	frames := events(1, 500, 30)
	log.add(frames)
	s.Append(frames)
	c := newFake(0)
	c.rng = rand.New(rand.NewPCG(9, 9))
	s.Follow(c, FollowOptions{})
	slow := newFake(0)
	slow.rng = rand.New(rand.NewPCG(9, 10))
	s.Follow(slow, FollowOptions{After: sse.Pos{Seq: 490}})
	for seq := uint64(501); seq <= 1000; seq++ {
		log.add(events(seq, seq, 30))
		s.Append([]sse.Frame{event(seq, 30), note(":n\n")})
		s.Flush()
		c.open(100)
		if seq%50 == 0 {
			slow.open(100)
		}
	}
	s.Append([]sse.Frame{endFrame(1001, sse.EndClean)})
	s.Flush()
	for done := 0; done < 2; {
		select {
		case why := <-l.all:
			if why != ReasonEnded {
				t.Fatal("left:", why)
			}
			done++
		default:
			c.open(1000)
			slow.open(1000)
		}
	}
	seqs, _ := numbers(string(c.bytes()))
	consecutive(t, seqs, 1, 1000)
	seqs, _ = numbers(string(slow.bytes()))
	consecutive(t, seqs, 491, 1000)
	if c.how(t) != CloseFlush {
		t.Error("closed", c.closed)
	}
}

// Whom the ring leaves behind is cut, or goes on from the Source, by policy;
// either way the event it was in the middle of is finished.
func TestSlowPolicies(t *testing.T) {
	log := &memLog{}
	for name, c := range map[string]struct {
		o    StreamOptions
		why  Reason
		last uint64
	}{
		"cut":       {StreamOptions{Slow: SlowCut, Source: log}, ReasonSlow, 1},
		"log":       {StreamOptions{Source: log}, ReasonFinished, 500},
		"no source": {StreamOptions{}, ReasonGap, 1},
	} {
		for _, chunked := range []bool{true, false} {
			h := running(t, Config{RingEvents: 20, RingBytes: 4 << 10})
			l := newLeaver()
			s := h.Open(l.options(c.o))
			fast, slow := newFake(-1), newFake(10) // inside the first event
			s.Follow(fast, FollowOptions{Chunked: chunked})
			f := s.Follow(slow, FollowOptions{Chunked: chunked})
			log.mu.Lock()
			log.frames = append(events(1, 500, 20), endFrame(501, sse.EndFinished))
			log.mu.Unlock()
			for seq := uint64(1); seq <= 500; seq++ {
				s.Append(events(seq, seq, 20))
				s.Flush()
			}
			if f.seg.Load() != nil {
				t.Fatal("a blocked follower pins the ring")
			}
			s.Append([]sse.Frame{endFrame(501, sse.EndFinished)})
			s.Flush()
			if why := l.next(t); why != ReasonFinished {
				t.Fatal("the fast one left:", why)
			}
			slow.open(-1)
			if why := l.next(t); why != c.why {
				t.Fatalf("%s: left: %s, want %s", name, why, c.why)
			}
			text, whole := string(slow.bytes()), slow.how(t) == CloseFlush
			if chunked {
				text, whole = body(slow.bytes())
			}
			if whole != (c.why == ReasonFinished) {
				t.Error(name, "whole:", whole)
			}
			seqs, rest := numbers(text)
			consecutive(t, seqs, 1, c.last)
			if rest != "" {
				t.Errorf("%s: besides the events: %q", name, rest)
			}
		}
	}
}

// A follower that is not blocked is not slow, however much is appended at
// once.
func TestBigAppendIsNotSlow(t *testing.T) {
	h := still(t, Config{RingEvents: 20, RingBytes: 4 << 10})
	s := h.Open(StreamOptions{Slow: SlowCut})
	c := newFake(-1)
	s.Follow(c, FollowOptions{Chunked: true})
	for seq := uint64(1); seq < 10_000; seq += 1000 {
		s.Append(events(seq, seq+999, 20))
	}
	s.Flush()
	seqs, _ := numbers(c.text())
	consecutive(t, seqs, 1, 10_000)
}

// A hole in what is appended is filled from the Source before anything newer
// goes out; what comes again is not sent again.
func TestHoleIsFilled(t *testing.T) {
	h := running(t, Config{Tick: time.Millisecond})
	log := &memLog{}
	l := newLeaver()
	s := h.Open(l.options(StreamOptions{Source: log, First: sse.Pos{Epoch: 1, Seq: 5}}))
	if s.Tail() != (sse.Pos{Epoch: 1, Seq: 4}) {
		t.Fatal("tail", s.Tail())
	}
	old, live := newFake(-1), newFake(-1)
	s.Follow(live, FollowOptions{Chunked: true, After: sse.Pos{Seq: 4}})
	s.Follow(old, FollowOptions{Chunked: true, After: sse.Pos{Seq: 2}})
	s.Append(events(5, 7, 0))
	s.Append(events(6, 7, 0))
	s.Append(events(10, 12, 0))
	s.Flush()
	seqs, _ := numbers(live.text())
	consecutive(t, seqs, 5, 7)
	log.add(events(3, 8, 0))
	s.Flushed(0)
	until(t, "8 from the log", func() bool { seqs, _ := numbers(live.text()); return len(seqs) == 4 })
	log.add(events(9, 12, 0))
	s.Append(append(events(13, 13, 0), endFrame(14, sse.EndClean)))
	s.Flush()
	l.next(t)
	l.next(t)
	seqs, _ = numbers(live.text())
	consecutive(t, seqs, 5, 13)
	seqs, _ = numbers(old.text())
	consecutive(t, seqs, 3, 13)
}

// Who has more than the ring gets only what is newer than that.
func TestAheadOfTheRing(t *testing.T) {
	h := still(t, Config{})
	s := h.Open(StreamOptions{})
	s.Append(events(1, 5, 0))
	c := newFake(-1)
	s.Follow(c, FollowOptions{Chunked: true, After: sse.Pos{Epoch: 1, Seq: 10}})
	s.Append(append(append(events(6, 9, 0), note(":old\n")), events(10, 10, 0)...))
	s.Append([]sse.Frame{note(":new\n"), event(11, 0), event(12, 0)})
	s.Flush()
	if got, want := c.text(), ":new\n"+string(event(11, 0).Block)+string(event(12, 0).Block); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A gap is said in the stream by the Source, or ends the follower: never
// silence.
func TestGap(t *testing.T) {
	h := running(t, Config{RingEvents: 8})
	l := newLeaver()
	log := &memLog{first: 50}
	s := h.Open(l.options(StreamOptions{Source: log}))
	all := append(events(1, 100, 0), endFrame(101, sse.EndFinished))
	log.add(all)
	s.Append(all)
	told := newFake(-1)
	s.Follow(told, FollowOptions{Chunked: true, After: sse.Pos{Seq: 10}})
	if why := l.next(t); why != ReasonFinished {
		t.Fatal("left:", why)
	}
	seqs, rest := numbers(told.text())
	consecutive(t, seqs, 50, 100)
	if !strings.HasPrefix(told.text(), ": gap\n") || rest != ": gap\n" {
		t.Fatalf("the gap is told as %q", rest)
	}
	// A Source that leaves something out and does not say so.
	log.mu.Lock()
	log.first, log.frames = 0, append(events(1, 20, 0), events(30, 100, 0)...)
	log.mu.Unlock()
	hushed := newFake(-1)
	s.Follow(hushed, FollowOptions{Chunked: true})
	if why := l.next(t); why != ReasonGap {
		t.Fatal("left:", why)
	}
	seqs, _ = numbers(hushed.text())
	consecutive(t, seqs, 1, 20)
	if _, whole := body(hushed.bytes()); whole {
		t.Error("a cut looks like a clean end")
	}
}

// sourceFunc is a Source made of a function.
type sourceFunc func(ctx context.Context, after sse.Pos, max int) ([]sse.Frame, error)

func (f sourceFunc) Read(ctx context.Context, after sse.Pos, max int) ([]sse.Frame, error) {
	return f(ctx, after, max)
}

// A note that bears a position leads a follower over a gap to where the ring
// begins.
func TestGapUpToTheRing(t *testing.T) {
	h := running(t, Config{})
	l := newLeaver()
	gap := sse.Frame{Kind: sse.KindNote, Pos: sse.Pos{Epoch: 1, Seq: 19}, Block: []byte("event: gap\n\n")}
	s := h.Open(l.options(StreamOptions{First: sse.Pos{Epoch: 1, Seq: 20}, Source: sourceFunc(
		func(context.Context, sse.Pos, int) ([]sse.Frame, error) { return []sse.Frame{gap}, nil })}))
	c := newFake(-1)
	s.Append(append(events(20, 30, 0), endFrame(31, sse.EndFinished)))
	s.Follow(c, FollowOptions{Chunked: true})
	if why := l.next(t); why != ReasonFinished {
		t.Fatal("left:", why)
	}
	seqs, rest := numbers(c.text())
	consecutive(t, seqs, 20, 30)
	if rest != "event: gap\n" {
		t.Fatalf("besides: %q", rest)
	}
}

// Clients that are stuck in a catch-up hold no slot of the pool.
func TestStuckCatchUpsStarveNobody(t *testing.T) {
	h := running(t, Config{RingEvents: 8, CatchUps: 2})
	l := newLeaver()
	log := &memLog{}
	s := h.Open(l.options(StreamOptions{Source: log}))
	all := append(events(1, 1000, 100), endFrame(1001, sse.EndFinished))
	log.add(all)
	s.Append(all)
	for range 10 {
		s.Follow(newFake(50), FollowOptions{Chunked: true})
	}
	c := newFake(-1)
	s.Follow(c, FollowOptions{Chunked: true})
	if why := l.next(t); why != ReasonFinished {
		t.Fatal("left:", why)
	}
	seqs, _ := numbers(c.text())
	consecutive(t, seqs, 1, 1000)
	if st := h.Stats(); st.CatchingUp != 10 || st.Left[ReasonFinished] != 1 {
		t.Errorf("%+v", st)
	}
}

// No more than CatchUps read at once, and all get their turn.
func TestCatchUpLimit(t *testing.T) {
	h := running(t, Config{RingEvents: 8, CatchUps: 3})
	l := newLeaver()
	var mu sync.Mutex
	now, most := 0, 0
	log := &memLog{}
	all := append(events(1, 300, 10), endFrame(301, sse.EndFinished))
	log.add(all)
	s := h.Open(l.options(StreamOptions{Source: sourceFunc(func(ctx context.Context, after sse.Pos, n int) ([]sse.Frame, error) {
		mu.Lock()
		now++
		most = max(most, now)
		mu.Unlock()
		time.Sleep(100 * time.Microsecond)
		defer func() { mu.Lock(); now--; mu.Unlock() }()
		return log.Read(ctx, after, n)
	})}))
	s.Append(all)
	for range 50 {
		s.Follow(newFake(-1), FollowOptions{Chunked: true})
	}
	for range 50 {
		if why := l.next(t); why != ReasonFinished {
			t.Fatal("left:", why)
		}
	}
	if most > 3 || most < 2 {
		t.Errorf("%d read at once", most)
	}
}

// Close serves who is behind from the Source, and cuts who has everything of
// a stream without an end.
func TestClose(t *testing.T) {
	h := running(t, Config{})
	l := newLeaver()
	log := &memLog{}
	s := h.Open(l.options(StreamOptions{Source: log}))
	behind, ready := newFake(3), newFake(-1)
	fb := s.Follow(behind, FollowOptions{Chunked: true})
	fr := s.Follow(ready, FollowOptions{Chunked: true})
	log.add(events(1, 100, 10))
	s.Append(events(1, 100, 10))
	s.Flush()
	s.Close()
	s.Close()
	l.next(t)
	if why := l.why(fr); why != ReasonClosed || ready.how(t) != CloseFlush {
		t.Fatal("who has everything left:", why)
	}
	log.add(append(events(101, 120, 10), endFrame(121, sse.EndFinished)))
	behind.open(-1)
	l.next(t)
	if why := l.why(fb); why != ReasonFinished {
		t.Fatal("who was behind left:", why)
	}
	seqs, _ := numbers(behind.text())
	consecutive(t, seqs, 1, 120)
	// Who comes after Close, too.
	late := newFake(-1)
	s.Follow(late, FollowOptions{Chunked: true, After: sse.Pos{Seq: 90}})
	if why := l.next(t); why != ReasonFinished {
		t.Fatal("who came later left:", why)
	}
	seqs, _ = numbers(late.text())
	consecutive(t, seqs, 91, 120)
	if n := h.Stats().Streams; n != 0 {
		t.Error(n, "streams")
	}
}

var errAway = errors.New("log is away")
