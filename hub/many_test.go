package hub

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"ssegate/sse"
)

// Two thousand clients on one stream, some of them slow, some leaving.
func TestManyFollowers(t *testing.T) {
	const n, last = 2000, 60
	h := running(t, Config{})
	l := newLeaver()
	s := h.Open(l.options(StreamOptions{}))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	before := runtime.NumGoroutine()
	clients := make([]net.Conn, n)
	for i := range clients {
		if clients[i], err = net.Dial("tcp", ln.Addr().String()); err != nil {
			t.Fatal(err)
		}
		defer clients[i].Close()
		server, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		s.Follow(h.Hold(server), FollowOptions{Chunked: true})
	}
	if s.Followers() != n || h.Stats().Followers != n {
		t.Fatal(s.Followers(), "followers")
	}
	count := 0
	for f := range s.All() {
		if f.Stream() != s {
			t.Fatal("another's follower")
		}
		count++
	}
	for range s.All() {
		break
	}
	if count != n || s.walkers != 0 {
		t.Fatalf("All has %d, %d walkers", count, s.walkers)
	}
	if now := runtime.NumGoroutine(); now > before+1 {
		t.Errorf("%d goroutines for %d clients", now-before, n)
	}
	var wg sync.WaitGroup
	gate := make(chan struct{}, 64)
	for i, c := range clients {
		wg.Go(func() {
			gate <- struct{}{}
			defer func() { <-gate }()
			if i%10 == 0 {
				c.Close()
				return
			}
			all, err := io.ReadAll(c)
			text, whole := body(all)
			if err != nil || !whole {
				t.Error(i, err, whole)
				return
			}
			seqs, _ := numbers(text)
			if uint64(len(seqs)) != last {
				t.Errorf("client %d has %d events", i, len(seqs))
			}
			c.Close()
		})
	}
	for seq := uint64(1); seq <= last; seq++ {
		s.Append(events(seq, seq, 20))
		s.Flush()
	}
	s.Append([]sse.Frame{endFrame(last+1, sse.EndFinished)})
	s.Flush()
	wg.Wait()
	until(t, "all to leave", func() bool { return s.Followers() == 0 })
	left := h.Stats().Left
	if left[ReasonFinished]+left[ReasonClient] != n || left[ReasonFinished] < n*9/10 {
		t.Errorf("left: %v", left)
	}
}

// Followers that come and go while others flush and walk: everybody who stays
// gets everything.
func TestComeAndGo(t *testing.T) {
	h := running(t, Config{})
	s := h.Open(StreamOptions{})
	stay := make([]*fakeConn, 50)
	for i := range stay {
		stay[i] = newFake(-1)
		s.Follow(stay[i], FollowOptions{Chunked: true})
	}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for w := range uint64(3) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(w, 8))
			var mine []*Follower
			for {
				select {
				case <-stop:
					return
				default:
				}
				if len(mine) < 300 && rng.IntN(3) > 0 {
					mine = append(mine, s.Follow(newFake(-1), FollowOptions{Chunked: true, After: s.Tail()}))
				} else {
					for _, f := range mine {
						f.Kick("kicked:test", nil, true)
					}
					mine = mine[:0]
				}
			}
		})
	}
	wg.Go(func() { // a second one that flushes
		for {
			select {
			case <-stop:
				return
			default:
				s.Flush()
			}
		}
	})
	const last = 2000
	for seq := uint64(1); seq <= last; seq++ {
		s.Append(events(seq, seq, 0))
		s.Flush()
	}
	close(stop)
	wg.Wait()
	until(t, "the last round", func() bool { return s.flushing.Load() == 0 })
	for _, c := range stay {
		seqs, _ := numbers(c.text())
		consecutive(t, seqs, 1, last)
	}
	// Slots are given back when the crowd has gone.
	for f := range s.All() {
		f.end(ReasonClosed)
	}
	f := s.Follow(newFake(-1), FollowOptions{})
	f.end(ReasonClosed)
	if len(s.slots) >= 64 {
		t.Errorf("%d slots for nobody", len(s.slots))
	}
}

// A Flush that comes while another is at work is not lost on those whom that
// one has passed already.
func TestFlushGoesRoundAgain(t *testing.T) {
	h := still(t, Config{})
	s := h.Open(StreamOptions{})
	first, second := newFake(-1), &hookConn{}
	s.Follow(first, FollowOptions{Chunked: true})
	s.Follow(second, FollowOptions{Chunked: true})
	s.Append(events(1, 1, 0))
	second.hook = func() {
		second.hook = nil
		s.Append(events(2, 2, 0))
		s.Flush() // by another goroutine, or from a callback
	}
	s.Flush()
	until(t, "the second round", func() bool { return s.flushing.Load() == 0 })
	seqs, _ := numbers(first.text())
	consecutive(t, seqs, 1, 2)
}

// Who flushes is not kept from its own work by others who do.
func TestFlushReturns(t *testing.T) {
	h := running(t, Config{})
	s := h.Open(StreamOptions{})
	busy := &hookConn{}
	stop := make(chan struct{})
	busy.hook = func() { // somebody always has something more
		select {
		case <-stop:
		default:
			s.Append(events(s.Tail().Seq+1, s.Tail().Seq+1, 0))
			s.Flush()
		}
	}
	s.Follow(newFake(-1), FollowOptions{Chunked: true})
	s.Follow(busy, FollowOptions{Chunked: true})
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.Append(events(1, 1, 0))
		s.Flush()
	}()
	select {
	case <-done:
	case <-time.After(testTime):
		t.Error("Flush works for others for ever")
	}
	close(stop)
}

// A hookConn takes everything and does something of its own.
type hookConn struct {
	nullConn
	hook func()
}

func (c *hookConn) TryWrite(p []byte) (int, error) {
	if c.hook != nil {
		c.hook()
	}
	return c.nullConn.TryWrite(p)
}

// Callbacks may call everything.
func TestCallbacksMayCallAnything(t *testing.T) {
	h := running(t, Config{})
	var s *Stream
	done := make(chan struct{})
	s = h.Open(StreamOptions{
		Joined: func(f *Follower, _ Reason) {
			f.Pos()
			s.Tail()
			s.Flush()
			if f.Tag() == "kick" {
				f.Kick("kicked:test", []byte("retry: 1\n"), true)
			}
		},
		Left: func(f *Follower, why Reason) {
			f.Pos()
			f.Kick(why, nil, true)
			s.Append(events(1, 1, 0))
			s.Flush()
			for range s.All() {
			}
			s.SetPace(0)
			s.Close()
			h.Stats()
			close(done)
		},
	})
	c := newFake(-1)
	s.Follow(c, FollowOptions{Chunked: true, Tag: "kick", Head: []byte("HEAD")})
	select {
	case <-done:
	case <-time.After(testTime):
		t.Fatal("a callback waits for a lock of its caller's")
	}
	if got := string(c.bytes()); got != "HEAD9\r\nretry: 1\n\r\n0\r\n\r\n" {
		t.Errorf("%q", got)
	}
}

// Append and Flush to one follower allocate nothing but segments.
func TestAllocs(t *testing.T) {
	h := still(t, Config{})
	s := h.Open(StreamOptions{})
	s.Follow(&nullConn{}, FollowOptions{Chunked: true})
	frames := events(1, 1, 50)
	seq := uint64(0)
	step := func() {
		seq++
		frames[0].Pos.Seq = seq
		s.Append(frames)
		s.Flush()
	}
	for range 5000 {
		step()
	}
	segments := 0
	seg := s.last
	const runs = 5000
	allocs := testing.AllocsPerRun(runs, func() {
		step()
		if s.last != seg {
			seg = s.last
			segments++
		}
	})
	if perRun := 3 * float64(segments) / runs; allocs > perRun+0.01 {
		t.Errorf("%.3f allocations an event, of them %.3f for segments", allocs, perRun)
	}
}

// idleBytes is the budget of a held follower that has nothing to read: all
// that the hub allocates for it, connection and lists included. Measured: 290.
const idleBytes = 320

func TestIdleFollowerMemory(t *testing.T) {
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	h := running(t, Config{})
	s := h.Open(StreamOptions{Heartbeat: []byte(":\n")})
	o := FollowOptions{Chunked: true, Head: []byte("HTTP/1.1 200 OK\r\n\r\n"), Heartbeat: 15 * time.Second}
	const n = 2000
	servers := make([]net.Conn, n)
	for i := range servers {
		server, client := pair(t, false)
		go io.Copy(io.Discard, client)
		servers[i] = server
	}
	s.Append(events(1, 1, 0))
	before := heap()
	for _, c := range servers {
		s.Follow(h.Hold(c), o)
	}
	s.Append(events(2, 2, 0))
	s.Flush()
	perHub := float64(heap()-before) / n
	t.Logf("%.0f bytes a follower in the hub", perHub)
	if perHub > idleBytes {
		t.Errorf("%.0f bytes a follower, the budget is %d", perHub, idleBytes)
	}
	runtime.KeepAlive(servers) // what net gives back is not ours
}

// A pump that waits reads no faster than the fastest follower.
func TestWait(t *testing.T) {
	h := running(t, Config{RingEvents: 40, RingBytes: 8 << 10})
	s := h.Open(StreamOptions{})
	ctx := t.Context()
	for seq := uint64(1); seq <= 1000; seq++ { // nobody follows
		if err := s.Wait(ctx); err != nil {
			t.Fatal(err)
		}
		s.Append(events(seq, seq, 0))
	}
	slow, slower := newFake(0), newFake(0)
	f := s.Follow(slow, FollowOptions{Chunked: true, After: s.Tail()})
	s.Follow(slower, FollowOptions{Chunked: true, After: s.Tail()})
	const last = 5000
	done := make(chan error, 1)
	go func() {
		for seq := uint64(1001); seq <= last; seq++ {
			if err := s.Wait(ctx); err != nil {
				done <- err
				return
			}
			if lag := seq - 1 - f.seq.Load(); lag > 40 {
				done <- fmt.Errorf("read %d events ahead", lag)
				return
			}
			s.Append(events(seq, seq, int(seq%100)))
			s.Flush()
		}
		done <- nil
	}()
	for waiting := true; waiting; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			waiting = false
		default:
			slow.open(300)
			runtime.Gosched()
		}
	}
	slow.open(-1)
	seqs, _ := numbers(slow.text())
	consecutive(t, seqs, 1001, last)

	// Bytes count as well as events.
	s.Append(events(last+1, last+1, 9000))
	slow.mu.Lock()
	slow.room = 0
	slow.mu.Unlock()
	s.Append(events(last+2, last+2, 9000))
	short, cancel := context.WithTimeout(ctx, 5*time.Millisecond)
	if err := s.Wait(short); err == nil {
		t.Error("18 kB ahead of a ring of 8 KiB")
	}
	cancel()
	// Each of these lets go.
	for what, let := range map[string]func(){
		"pace":  func() { s.SetPace(last + 2) },
		"leave": func() { f.end(ReasonClosed); slower.open(-1) },
	} {
		got := make(chan error, 1)
		go func() { got <- s.Wait(ctx) }()
		until(t, "waiting", func() bool { return s.want.Load() != 0 || len(got) > 0 })
		let()
		select {
		case err := <-got:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(testTime):
			t.Fatal("still waits after", what)
		}
		s.SetPace(0)
	}
}

// When the fastest leaves, the next one is waited for.
func TestWaitForTheNextFastest(t *testing.T) {
	h := still(t, Config{RingEvents: 40})
	s := h.Open(StreamOptions{})
	fast, slow := newFake(-1), newFake(0)
	f := s.Follow(fast, FollowOptions{Chunked: true})
	s.Follow(slow, FollowOptions{Chunked: true})
	s.Append(events(1, 100, 0))
	s.Flush()
	if err := s.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.end(ReasonClosed)
	got := make(chan error, 1)
	go func() { got <- s.Wait(t.Context()) }()
	until(t, "waiting", func() bool { return s.want.Load() != 0 })
	slow.open(-1)
	if err := <-got; err != nil {
		t.Fatal(err)
	}
}

// A remote follower counts like one here.
func TestPace(t *testing.T) {
	h := running(t, Config{RingEvents: 40})
	s := h.Open(StreamOptions{})
	s.SetPace(1)
	s.Append(events(1, 100, 0))
	got := make(chan error, 1)
	go func() { got <- s.Wait(t.Context()) }()
	until(t, "waiting", func() bool { return s.want.Load() != 0 })
	s.SetPace(60) // not far enough to be let go
	s.SetPace(75)
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	go func() { s.SetPace(1); got <- s.Wait(t.Context()) }()
	until(t, "waiting", func() bool { return s.want.Load() != 0 })
	s.Close()
	if err := <-got; err != nil {
		t.Fatal(err)
	}
}

// A goodbye stands between whole events, and nothing comes after it.
func TestKick(t *testing.T) {
	h := running(t, Config{})
	l := newLeaver()
	s := h.Open(l.options(StreamOptions{EOL: sse.CRLF}))
	for room := range 60 {
		c := newFake(0)
		f := s.Follow(c, FollowOptions{Chunked: room%2 == 0, After: s.Tail()})
		c.open(room)
		from := s.Tail().Seq + 1
		s.Append(events(from, from+2, 5))
		s.Flush()
		f.Kick("kicked:test", []byte("retry: 7\n"), room%3 == 0)
		f.Kick("kicked:again", []byte("no\n"), true)
		s.Append(events(from+3, from+4, 5))
		s.Flush()
		c.open(-1)
		if why := l.next(t); why != "kicked:test" {
			t.Fatal("left:", why)
		}
		text, whole := string(c.bytes()), c.how(t) == CloseFlush
		if room%2 == 0 {
			text, whole = body(c.bytes())
		}
		if whole != (room%3 == 0) {
			t.Errorf("room for %d: looks whole: %v, closed %v", room, whole, c.closed)
		}
		events, ok := strings.CutSuffix(text, "retry: 7\r\n")
		if !ok || strings.Contains(events, "retry") || events != "" && !strings.HasSuffix(events, "\n\n") {
			t.Fatalf("room for %d: %q", room, text)
		}
		seqs, _ := numbers(events)
		consecutive(t, seqs, from, from+uint64(len(seqs))-1)
		s.SetEOL(sse.CRLF)
	}
}
