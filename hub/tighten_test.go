package hub

import (
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ssegate/sse"
)

// ring returns the last segment of a ring and what the ring costs.
func ring(s *Stream) (last *segment, bytes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last, s.bytes
}

// A ring that is quiet gives back what it does not use, wherever its
// followers stand, and goes on as before.
func TestTighten(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, h *Hub) {
		l := newLeaver()
		s := h.Open(l.options(StreamOptions{}))
		ready, inside := newFake(-1), newFake(0)
		o := FollowOptions{Chunked: true, Heartbeat: 15 * time.Second, WriteTimeout: time.Hour}
		s.Follow(ready, o)
		s.Append(events(1, 3, 100))
		old, before := ring(s)
		f := s.Follow(inside, o)
		inside.open(150) // into the second event
		s.Append([]sse.Frame{note(":n\n")})
		s.Flush()
		time.Sleep(9 * time.Second)
		s.Append(events(4, 4, 20))
		s.Flush()
		if last, _ := ring(s); last != old {
			t.Fatal("a new segment already")
		}
		kept := s.AppendRuns(nil, 0, 100, 1<<20)
		if kept[len(kept)-1].Settle() {
			t.Fatal("a log is told of a smaller segment already")
		}
		time.Sleep(9 * time.Second)
		if _, bytes := ring(s); bytes != before {
			t.Fatal("made smaller while frames come")
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		c, bytes := ring(s)
		if old.moved.Load() != c || f.seg.Load() != c || c.readers.Load() != 2 || old.readers.Load() != 0 {
			t.Fatal("nobody, or not everybody, is in the smaller segment")
		}
		whole := kept[len(kept)-1]
		if !whole.Settle() || whole == kept[len(kept)-1] || whole.Size() != kept[len(kept)-1].Size() || !slices.EqualFunc(whole.Append(nil), kept[len(kept)-1].Append(nil), sameFrame) {
			t.Error("a log does not find its frames in the smaller segment")
		}
		if page, _, _ := whole.Page(); page != sse.Page(c) {
			t.Error("a log keeps another segment than the ring")
		}
		if bytes >= before*3/4 || bytes != c.cost() || h.Stats().RingBytes != bytes {
			t.Errorf("costs %d, before %d, counted %d", bytes, before, h.Stats().RingBytes)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if last, again := ring(s); last != c || again != bytes {
			t.Error("made smaller again and again")
		}
		s.Append(append(events(5, 30, 20), endFrame(31, sse.EndFinished)))
		s.Flush()
		inside.open(-1)
		for range 2 {
			if why := l.next(t); why != ReasonFinished {
				t.Fatal("left:", why)
			}
		}
		for _, c := range []*fakeConn{ready, inside} {
			seqs, rest := numbers(c.text())
			consecutive(t, seqs, 1, 30)
			if rest != ":n\n" {
				t.Errorf("besides: %q", rest)
			}
		}
	})
}

func sameFrame(a, b sse.Frame) bool {
	return a.Pos == b.Pos && a.Kind == b.Kind && string(a.Block) == string(b.Block)
}

// A follower that is blocked in a segment that was made smaller does not keep
// the ring in memory, nor does it lose its place.
func TestTightenThenFallOff(t *testing.T) {
	bubble(t, Config{RingEvents: 20}, func(t *testing.T, h *Hub) {
		l := newLeaver()
		log := &memLog{}
		s := h.Open(l.options(StreamOptions{Source: log}))
		c := newFake(20)
		f := s.Follow(c, FollowOptions{Chunked: true, WriteTimeout: time.Minute})
		s.Follow(newFake(-1), FollowOptions{Chunked: true})
		s.Append(events(1, 5, 20))
		s.Flush()
		old, _ := ring(s)
		time.Sleep(40 * time.Second)
		c.open(1) // not stuck, only slow
		time.Sleep(40 * time.Second)
		synctest.Wait()
		if last, _ := ring(s); old.moved.Load() != last || f.seg.Load() != last {
			t.Fatal("not made smaller")
		}
		log.add(append(events(1, 200, 20), endFrame(201, sse.EndFinished)))
		for seq := uint64(6); seq <= 200; seq++ {
			s.Append(events(seq, seq, 20))
			s.Flush()
		}
		s.Append([]sse.Frame{endFrame(201, sse.EndFinished)})
		s.Flush()
		if f.seg.Load() != nil {
			t.Fatal("a blocked follower pins the ring")
		}
		c.open(-1)
		for range 2 {
			if why := l.next(t); why != ReasonFinished {
				t.Fatal("left:", why)
			}
		}
		seqs, _ := numbers(c.text())
		consecutive(t, seqs, 1, 200)
	})
}

// Between the time when a segment is put in the place of another and the time
// when all followers know, they miss nothing and pin nothing.
func TestTightenSlowly(t *testing.T) {
	h := still(t, Config{RingEvents: 8, RingBytes: 2 << 10, CatchUps: 1})
	l := newLeaver()
	s := h.Open(l.options(StreamOptions{}))
	let := make(chan struct{})
	goOn := sync.OnceFunc(func() { close(let) })
	t.Cleanup(goOn)
	busy, ready, blocked := &hookConn{}, newFake(-1), newFake(40)
	first := s.Follow(busy, FollowOptions{Chunked: true})
	second := s.Follow(ready, FollowOptions{Chunked: true})
	third := s.Follow(blocked, FollowOptions{Chunked: true})
	s.Append(events(1, 2, 20))
	s.Flush()
	old, _ := ring(s)
	var wg sync.WaitGroup
	busy.hook = func() { <-let }
	wg.Go(func() { first.Kick("kicked:test", []byte(":bye\n"), true) })
	until(t, "the write", func() bool {
		if !first.mu.TryLock() {
			return true
		}
		first.mu.Unlock()
		return false
	})
	h.wheel.now.Store(1000)
	wg.Go(s.tighten) // as far as the busy one
	until(t, "the smaller segment", func() bool { return old.moved.Load() != nil })
	s.Append(append(events(3, 60, 100), endFrame(61, sse.EndFinished)))
	second.run()
	if why := l.next(t); why != ReasonFinished || l.why(second) != why {
		t.Fatal("left:", why)
	}
	seqs, _ := numbers(ready.text())
	consecutive(t, seqs, 1, 60)
	if c := old.moved.Load(); !c.gone.Load() || third.seg.Load() != old {
		t.Fatal("the ring has not gone on")
	}
	goOn()
	wg.Wait()
	if third.seg.Load() != nil {
		t.Error("a blocked follower pins what the ring has dropped")
	}
}

// What would gain little is left alone.
func TestTightenLittle(t *testing.T) {
	h := still(t, Config{})
	s := h.Open(StreamOptions{})
	for seq := uint64(1); s.bytes < 40<<10; seq++ {
		s.Append(events(seq, seq, 100))
	}
	for s.last.spare() < s.bytes/10 || s.last.spare() > s.bytes/5 {
		s.Append(events(s.tail.Seq+1, s.tail.Seq+1, 100))
	}
	h.wheel.now.Store(1000)
	last, bytes := ring(s)
	s.tighten()
	if now, b := ring(s); now != last || b != bytes || s.loose.Load() {
		t.Error("made smaller by", bytes-b)
	}
}

// The budgets of a stream with a follower that has nothing to read, and there
// are many of them: a user's topic each. Measured: 481 for the stream, 232 for
// a follower that chooses (its connection not counted), and 554 for a stream
// that had one short event some time ago.
const (
	idleStreamBytes  = 500
	chooserBytes     = 250
	quietStreamBytes = 600
)

func TestIdleStreamMemory(t *testing.T) {
	const n = 4000
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	bubble(t, Config{}, func(t *testing.T, h *Hub) {
		so := StreamOptions{Heartbeat: []byte(":\n")}
		fo := FollowOptions{Chunked: true, Heartbeat: 15 * time.Second, Want: wants("a"), Expired: func(*Follower) {}, Until: time.Now().Add(time.Hour)}
		streams := make([]*Stream, n)
		conns := make([]nullConn, n)
		before := heap()
		for i := range streams {
			streams[i] = h.Open(so)
		}
		open := heap()
		for i, s := range streams {
			s.Follow(&conns[i], fo)
		}
		followed := heap()
		for _, s := range streams {
			s.Append([]sse.Frame{marked(1, "a", 20)})
			s.Flush()
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		stream, follower, quiet := (open-before)/n, (followed-open)/n, (heap()-followed+open-before)/n
		t.Logf("a stream %d bytes, when it is quiet again %d, a follower %d", stream, quiet, follower)
		if stream > idleStreamBytes || quiet > quietStreamBytes || follower > chooserBytes {
			t.Error("that is too much")
		}
		runtime.KeepAlive(streams)
	})
}
