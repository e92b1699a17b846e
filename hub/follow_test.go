package hub

import (
	"bytes"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"ssegate/sse"
)

// What a follower gets is every event once, framed, whatever the connection
// takes at a time and however the frames come.
func TestRandomPartialWrites(t *testing.T) {
	for seed := range uint64(30) {
		h := running(t, Config{})
		l := newLeaver()
		s := h.Open(l.options(StreamOptions{}))
		rng := rand.New(rand.NewPCG(seed, 1))
		c := newFake(0)
		c.rng = rand.New(rand.NewPCG(seed, 2))
		s.Follow(c, FollowOptions{Chunked: true})
		const last = 300
		for seq := uint64(1); seq <= last; {
			n := uint64(rng.IntN(9))
			upTo := min(seq+n, last+1)
			s.Append(events(seq, upTo-1, rng.IntN(200)))
			seq = upTo
			if rng.IntN(3) > 0 {
				s.Flush()
			}
			c.open(rng.IntN(1500))
		}
		s.Append([]sse.Frame{endFrame(last+1, sse.EndFinished)})
		s.Flush()
		for {
			select {
			case <-c.done:
			default:
				c.open(1 + rng.IntN(1500))
				continue
			}
			break
		}
		if why := l.next(t); why != ReasonFinished {
			t.Fatal("left:", why)
		}
		text, whole := body(c.bytes())
		if !whole {
			t.Fatal("no last chunk")
		}
		seqs, rest := numbers(text)
		consecutive(t, seqs, 1, last)
		if rest != "" {
			t.Fatalf("between the events: %q", rest)
		}
	}
}

// The same over a real socket with tiny buffers and a reader that dawdles.
func TestSlowReaderTCP(t *testing.T) {
	h := running(t, Config{})
	l := newLeaver()
	s := h.Open(l.options(StreamOptions{}))
	server, client := pair(t, true)
	f := s.Follow(h.Hold(server), FollowOptions{Chunked: true})
	const last = 3000
	got := make(chan []byte)
	go func() {
		var all []byte
		buf := make([]byte, 3000)
		for {
			n, err := client.Read(buf)
			all = append(all, buf[:n]...)
			if err != nil {
				got <- all
				return
			}
			if rand.IntN(20) == 0 {
				time.Sleep(time.Millisecond)
			}
		}
	}()
	for seq := uint64(1); seq <= last; seq += 10 {
		if err := s.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.Append(events(seq, seq+9, 50))
		s.Flush()
	}
	s.Append([]sse.Frame{endFrame(last+1, sse.EndClean)})
	s.Flush()
	if why := l.next(t); why != ReasonEnded {
		t.Fatal("left:", why)
	}
	if f.Pos().Seq != last+1 {
		t.Fatal("position", f.Pos())
	}
	text, whole := body(<-got)
	if !whole {
		t.Fatal("not whole")
	}
	seqs, _ := numbers(text)
	consecutive(t, seqs, 1, last)
}

// A client that goes is noticed without anything being written to it.
func TestClientLeaves(t *testing.T) {
	h := running(t, Config{})
	l := newLeaver()
	s := h.Open(l.options(StreamOptions{}))
	server, client := pair(t, false)
	s.Follow(h.Hold(server), FollowOptions{Chunked: true, Head: []byte("HEAD")})
	head := make([]byte, 4)
	if _, err := io.ReadFull(client, head); err != nil || string(head) != "HEAD" {
		t.Fatal(err, head)
	}
	client.Close()
	if why := l.next(t); why != ReasonClient {
		t.Fatal("left:", why)
	}
	if s.Followers() != 0 {
		t.Fatal("still counted")
	}
}

// The client that started a stream may join when its upstream has said
// something already: it misses no comment from before the first event. Who
// comes to a later place gets only what follows it.
func TestNotesFromTheBeginning(t *testing.T) {
	for name, later := range map[string][]sse.Frame{
		"nothing yet": nil,
		"an event":    events(1, 1, 0),
	} {
		t.Run(name, func(t *testing.T) {
			h := running(t, Config{})
			s := h.Open(StreamOptions{})
			s.Append([]sse.Frame{note(": one\n")})
			s.Append([]sse.Frame{note(": two\n")})
			s.Append(later)
			c, b := newFake(1<<20), newFake(1<<20)
			s.Follow(c, FollowOptions{})
			s.Append(events(uint64(len(later)+1), 3, 0))
			s.Follow(b, FollowOptions{After: sse.Pos{Epoch: 1, Seq: 2}})
			s.Flush()
			want := []byte(": one\n: two\n")
			for _, f := range events(1, 3, 0) {
				want = append(want, f.Block...)
			}
			if got := c.bytes(); !bytes.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
			if got, want := string(b.bytes()), string(events(3, 3, 0)[0].Block); got != want {
				t.Errorf("later: got %q, want %q", got, want)
			}
		})
	}
}
