package hub

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"ssegate/sse"
)

// bubble runs a test in fake time with a hub that runs, and ends it.
func bubble(t *testing.T, cfg Config, f func(t *testing.T, h *Hub)) {
	synctest.Test(t, func(t *testing.T) {
		h, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { h.Run(ctx) })
		defer wg.Wait()
		defer cancel()
		f(t, h)
	})
}

// A timedReader notes what arrives on a pipe, and when.
type timedReader struct {
	mu   sync.Mutex
	from time.Time
	got  strings.Builder
	at   []time.Duration // of each read
	done chan struct{}
}

func readPipe(c net.Conn) *timedReader {
	r := &timedReader{from: time.Now(), done: make(chan struct{})}
	go func() {
		defer close(r.done)
		buf := make([]byte, 1000)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			r.mu.Lock()
			r.got.Write(buf[:n])
			r.at = append(r.at, time.Since(r.from))
			r.mu.Unlock()
		}
	}()
	return r
}

func (r *timedReader) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, _ := body([]byte(r.got.String()))
	return s
}

// Heartbeats come after silence, and only then, over a connection that the
// hub serves with goroutines.
func TestHeartbeatPipe(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, h *Hub) {
		l := newLeaver()
		s := h.Open(l.options(StreamOptions{Heartbeat: []byte(":\n"), EOL: sse.CRLF}))
		server, client := net.Pipe()
		r := readPipe(client)
		s.Follow(h.Hold(server), FollowOptions{Chunked: true, Heartbeat: 15 * time.Second})
		seq := uint64(0)
		for range 100 { // an event every second: no silence
			time.Sleep(time.Second)
			seq++
			s.Append(events(seq, seq, 0))
			s.Flush()
		}
		synctest.Wait()
		if _, rest := numbers(r.text()); rest != "" || h.Stats().Heartbeats != 0 {
			t.Fatalf("a heartbeat without silence: %q", rest)
		}
		r.mu.Lock()
		r.from, r.at = time.Now(), nil
		r.mu.Unlock()
		time.Sleep(time.Hour)
		synctest.Wait()
		r.mu.Lock()
		at := r.at
		r.mu.Unlock()
		if len(at) < 235 || len(at) > 240 {
			t.Fatalf("%d heartbeats in an hour", len(at))
		}
		last := time.Duration(0)
		for _, d := range at {
			if gap := d - last; gap < 15*time.Second || gap > 15*time.Second+300*time.Millisecond {
				t.Fatalf("a heartbeat after %v of silence", gap)
			}
			last = d
		}
		if _, rest := numbers(r.text()); rest != strings.Repeat(":\r\n", len(at)) {
			t.Fatalf("heartbeats: %.40q", rest)
		}
		client.Close()
		if why := l.next(t); why != ReasonClient {
			t.Fatal("left:", why)
		}
		<-r.done
	})
}

// A heartbeat never stands inside an event, nor before what is half written.
func TestHeartbeatBetweenEvents(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, h *Hub) {
		s := h.Open(StreamOptions{Heartbeat: []byte("data: heartbeat\n\n")})
		c := newFake(0)
		s.Follow(c, FollowOptions{Chunked: true, Heartbeat: time.Second, WriteTimeout: time.Hour, Head: []byte("HEAD")})
		time.Sleep(time.Minute)
		c.open(2) // half a head
		time.Sleep(time.Minute)
		c.open(2)
		time.Sleep(3*time.Second + 500*time.Millisecond) // there is no room for heartbeats
		s.Append(events(1, 2, 100))
		s.Flush()
		for range 40 {
			c.open(3)
			time.Sleep(5 * time.Second)
		}
		c.open(-1)
		time.Sleep(10*time.Second + 500*time.Millisecond)
		got := string(c.bytes())
		if !strings.HasPrefix(got, "HEAD") {
			t.Fatalf("%.20q", got)
		}
		text, _ := body([]byte(got[4:]))
		beats := strings.Count(text, "data: heartbeat\n\n")
		clean := strings.ReplaceAll(text, "data: heartbeat\n\n", "")
		want := string(event(1, 100).Block) + string(event(2, 100).Block)
		if clean != want {
			t.Fatalf("events are %q", clean)
		}
		if beats < 9 || beats > 12 {
			t.Errorf("%d heartbeats", beats)
		}
		if n := h.Stats().Heartbeats; n != int64(beats) {
			t.Errorf("%d heartbeats counted, %d seen", n, beats)
		}
	})
}

// No progress for the write timeout ends a follower, some progress does not;
// one that has nothing to write is never slow.
func TestWriteTimeout(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, h *Hub) {
		l := newLeaver()
		s := h.Open(l.options(StreamOptions{}))
		idle, slow, stuck := newFake(-1), newFake(0), newFake(0)
		o := FollowOptions{Chunked: true, WriteTimeout: 10 * time.Second}
		s.Follow(idle, o)
		s.Follow(slow, o)
		f := s.Follow(stuck, o)
		time.Sleep(time.Hour)
		s.Append(events(1, 1, 1000))
		s.Flush()
		for range 30 {
			time.Sleep(5 * time.Second)
			slow.open(10)
		}
		if why := l.next(t); why != ReasonSlow || l.why(f) != why {
			t.Fatal("left:", why)
		}
		if s.Followers() != 2 {
			t.Fatal("others left too")
		}
		if stuck.how(t) != CloseNow {
			t.Error("closed", stuck.closed)
		}
		from := time.Now()
		l.next(t) // the slow one stops
		if d := time.Since(from); d < 4*time.Second || d > 11*time.Second {
			t.Errorf("cut after %v", d)
		}
	})
}

// A Source that lacks what comes next is asked again, more often when it is
// known to have grown, and for 10 s at most; heartbeats go on meanwhile.
func TestPatience(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, h *Hub) {
		l := newLeaver()
		log := &memLog{}
		s := h.Open(l.options(StreamOptions{Source: log, First: sse.Pos{Epoch: 1, Seq: 10}, Heartbeat: []byte(":\n")}))
		s.Append(events(10, 12, 0))
		c := newFake(-1)
		from := time.Now()
		s.Follow(c, FollowOptions{Chunked: true, After: sse.Pos{Seq: 3}, Heartbeat: 2 * time.Second})
		time.Sleep(5 * time.Second)
		synctest.Wait()
		log.mu.Lock()
		reads := log.reads
		log.mu.Unlock()
		if reads < 5 || reads > 50 {
			t.Errorf("%d reads in 5 s", reads)
		}
		if _, rest := numbers(c.text()); rest != ":\n:\n" {
			t.Errorf("heartbeats while waiting: %q", rest)
		}
		if why := l.next(t); why != ReasonGap {
			t.Fatal("left:", why)
		}
		if d := time.Since(from); d < patience || d > patience+time.Second {
			t.Errorf("cut after %v", d)
		}
		// It comes late: told by Flushed, it is taken at once.
		c = newFake(-1)
		s.Follow(c, FollowOptions{Chunked: true, After: sse.Pos{Seq: 3}})
		time.Sleep(3*time.Second + 10*time.Millisecond)
		synctest.Wait()
		log.add(events(4, 9, 0))
		s.Flushed(12)
		synctest.Wait()
		seqs, _ := numbers(c.text())
		consecutive(t, seqs, 4, 12)
		// A Source that fails has another name.
		log.mu.Lock()
		log.err = errAway
		log.mu.Unlock()
		s.Follow(newFake(-1), FollowOptions{Chunked: true})
		if why := l.next(t); why != ReasonSource {
			t.Fatal("left:", why)
		}
	})
}

// A Source that hangs is left alone after a while, and does not keep Run from
// ending.
func TestSourceHangs(t *testing.T) {
	bubble(t, Config{CatchUps: 1}, func(t *testing.T, h *Hub) {
		l := newLeaver()
		log := &memLog{gate: make(chan struct{})}
		s := h.Open(l.options(StreamOptions{Source: log, First: sse.Pos{Epoch: 1, Seq: 10}}))
		from := time.Now()
		s.Follow(newFake(-1), FollowOptions{Chunked: true})
		if why := l.next(t); why != ReasonSource {
			t.Fatal("left:", why)
		}
		if d := time.Since(from); d < patience || d > patience+readTimeout+time.Second {
			t.Errorf("cut after %v", d)
		}
		s.Follow(newFake(-1), FollowOptions{Chunked: true})
		time.Sleep(time.Second)
	})
}

// What a goroutine connection was given arrives before its end; a peer that
// takes nothing does not hold up the end for ever.
func TestPipeEnd(t *testing.T) {
	bubble(t, Config{}, func(t *testing.T, h *Hub) {
		l := newLeaver()
		s := h.Open(l.options(StreamOptions{}))
		server, client := net.Pipe()
		s.Follow(h.Hold(server), FollowOptions{Chunked: true})
		deaf, deafClient := net.Pipe()
		s.Follow(h.Hold(deaf), FollowOptions{Chunked: true, WriteTimeout: 5 * time.Second})
		s.Append(append(events(1, 2000, 100), endFrame(2001, sse.EndFinished)))
		s.Flush()
		time.Sleep(time.Second)
		all, err := io.ReadAll(client)
		if err != nil {
			t.Fatal(err)
		}
		text, whole := body(all)
		if !whole {
			t.Error("not whole")
		}
		seqs, _ := numbers(text)
		consecutive(t, seqs, 1, 2000)
		l.next(t)
		if why := l.next(t); why != ReasonSlow {
			t.Error("who reads nothing left:", why)
		}
		synctest.Wait()
		if n, err := deafClient.Read(make([]byte, 10)); err == nil {
			t.Error("still open,", n)
		}
	})
}

// Run ends everybody, and whoever comes after it.
func TestShutdown(t *testing.T) {
	l := newLeaver()
	var s *Stream
	bubble(t, Config{}, func(t *testing.T, h *Hub) {
		s = h.Open(l.options(StreamOptions{Source: &memLog{gate: make(chan struct{})}, First: sse.Pos{Seq: 5}}))
		for i := range 20 {
			server, client := net.Pipe()
			t.Cleanup(func() { client.Close() })
			s.Follow(h.Hold(server), FollowOptions{Chunked: true, After: sse.Pos{Seq: uint64(i % 5)}})
			s.Follow(newFake(i%3), FollowOptions{Chunked: true, Head: []byte("head")})
		}
		time.Sleep(time.Second)
	})
	if len(l.left) != 40 || l.joined != 40 {
		t.Fatalf("%d of %d left", len(l.left), l.joined)
	}
	for _, why := range l.left {
		if why != ReasonShutdown {
			t.Fatal("left:", why)
		}
	}
	c := newFake(-1)
	f := s.Follow(c, FollowOptions{})
	if l.joined != 41 || l.why(f) != ReasonShutdown || c.how(t) != CloseNow {
		t.Error("who comes after Run:", l.joined, l.why(f), c.closed)
	}
	server, client := net.Pipe()
	defer client.Close()
	f = s.Follow(s.h.Hold(server), FollowOptions{})
	if l.why(f) != ReasonShutdown {
		t.Error("a pipe after Run:", l.why(f))
	}
}
