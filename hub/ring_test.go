package hub

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"ssegate/sse"
)

// still returns a hub that nobody runs: what needs no time needs no wheel.
func still(t testing.TB, cfg Config) *Hub {
	t.Helper()
	h, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.shutdown)
	return h
}

func TestChunk(t *testing.T) {
	for _, n := range []int{0, 1, 15, 16, 255, 256, 4095, 4096, 65535, 65536, 1 << 20} {
		want := ""
		if n > 0 {
			want = fmt.Sprintf("%x\r\n%s\r\n", n, bytes.Repeat([]byte("a"), n))
		}
		got := appendChunk(nil, bytes.Repeat([]byte("a"), n))
		if string(got) != want {
			t.Fatalf("chunk of %d bytes begins %.20q", n, got)
		}
		if n > 0 && len(got) != chunkHead(n)+n+2 {
			t.Fatalf("head of %d bytes is not %d long", n, chunkHead(n))
		}
	}
}

// What goes in comes out: blocks of all sizes, ids, epochs, ends; only notes,
// fences and duplicates stay out.
func TestFrames(t *testing.T) {
	h := still(t, Config{RingEvents: 10_000, RingBytes: 64 << 20})
	s := h.Open(StreamOptions{})
	rng := rand.New(rand.NewPCG(1, 1))
	var want []sse.Frame
	var scratch []byte // used again and again, as a pump does
	seq, epoch := uint64(0), uint64(7)
	for range 400 {
		var batch []sse.Frame
		scratch = scratch[:0]
		put := func(f sse.Frame, size int) {
			from := len(scratch)
			for range size {
				scratch = append(scratch, byte('a'+rng.IntN(26)))
			}
			f.Block = scratch[from:len(scratch):len(scratch)]
			batch = append(batch, f)
		}
		scratch = make([]byte, 0, 3<<20)
		for range rng.IntN(8) {
			switch rng.IntN(12) {
			case 0:
				put(sse.Frame{Kind: sse.KindNote}, 5)
			case 1:
				epoch++
				put(sse.Frame{Kind: sse.KindFence, Pos: sse.Pos{Epoch: epoch, Seq: seq}}, 0)
			case 2:
				if seq > 0 {
					put(sse.Frame{Kind: sse.KindEvent, Pos: sse.Pos{Epoch: epoch, Seq: seq}}, 9) // again
				}
			default:
				seq++
				f := sse.Frame{Kind: sse.KindEvent, Pos: sse.Pos{Epoch: epoch, Seq: seq}}
				size := rng.IntN(200)
				switch rng.IntN(40) {
				case 0:
					size = 200_000
				case 1:
					f.Kind, size = sse.KindBare, 0
				}
				if rng.IntN(2) == 0 {
					f.ID = fmt.Append(nil, rng.IntN(1000)) // now and then the same as before
				} else if rng.IntN(3) == 0 {
					f.ID = []byte{}
				}
				put(f, size)
				last := &batch[len(batch)-1]
				kept := *last
				kept.Block, kept.ID = bytes.Clone(last.Block), bytes.Clone(last.ID)
				want = append(want, kept)
			}
		}
		s.Append(batch)
		for i := range scratch {
			scratch[i] = '!'
		}
		for i := range batch {
			for j := range batch[i].ID {
				batch[i].ID[j] = '!'
			}
		}
	}
	if got := s.Tail(); got.Seq != seq || got.Epoch != epoch {
		t.Fatalf("tail %v, want %d-%d", got, epoch, seq)
	}
	var got []sse.Frame
	for after := uint64(0); ; {
		part := s.Frames(after, 17, 10_000)
		if len(part) == 0 {
			break
		}
		sum := 0
		for _, f := range part[:len(part)-1] {
			sum += len(f.Block)
		}
		if len(part) > 17 || sum > 10_000 {
			t.Fatalf("%d frames of %d bytes at once", len(part), sum)
		}
		got = append(got, part...)
		after = part[len(part)-1].Pos.Seq
	}
	if len(got) != len(want) {
		t.Fatalf("%d frames, want %d", len(got), len(want))
	}
	for i := range want {
		g, w := got[i], want[i]
		if g.Pos != w.Pos || g.Kind != w.Kind || !bytes.Equal(g.Block, w.Block) || !bytes.Equal(g.ID, w.ID) || (g.ID == nil) != (w.ID == nil) {
			t.Fatalf("frame %d: got %v %d %.20q id %q, want %v %d %.20q id %q", i, g.Pos, g.Kind, g.Block, g.ID, w.Pos, w.Kind, w.Block, w.ID)
		}
	}
	if h.Stats().Frames == 0 || h.Stats().Ignored == 0 {
		t.Error("not counted:", h.Stats())
	}
}

// A ring keeps at least RingEvents unless they are too many bytes, and not
// much more than it may.
func TestTrim(t *testing.T) {
	h := still(t, Config{RingEvents: 100, RingBytes: 64 << 10})
	small, big := h.Open(StreamOptions{}), h.Open(StreamOptions{})
	for seq := uint64(1); seq <= 3000; seq++ {
		small.Append(events(seq, seq, 10))
		big.Append(events(seq, seq, 5000))
		if seq >= 200 {
			if n := len(small.Frames(0, 1<<20, 1<<30)); n < 100 || n > 130 {
				t.Fatalf("the ring has %d frames", n)
			}
		}
	}
	if b := big.bytes; b > 64<<10 || b < 30<<10 {
		t.Fatalf("the ring costs %d bytes", b)
	}
	first := small.Frames(0, 1, 1<<20)[0].Pos.Seq
	if st := h.Stats(); st.Trimmed < int64(first-1) || st.TrimmedUnflushed != 0 || st.RingBytes != small.bytes+big.bytes {
		t.Errorf("%+v", st)
	}
	small.Close()
	big.Close()
	if st := h.Stats(); st.RingBytes != 0 || st.Streams != 0 {
		t.Errorf("after Close: %+v", st)
	}
	if big.Append(events(3001, 3001, 1)); len(big.Frames(0, 10, 1<<20)) != 0 {
		t.Error("appended after Close")
	}
}

// What the log does not have yet stays beyond the limits, up to Hold frames.
func TestHold(t *testing.T) {
	h := still(t, Config{RingEvents: 50})
	s := h.Open(StreamOptions{Hold: 1000})
	for seq := uint64(1); seq <= 1000; seq++ {
		s.Append(events(seq, seq, 10))
	}
	if n := len(s.Frames(0, 1<<20, 1<<30)); n != 1000 {
		t.Fatalf("%d frames are held", n)
	}
	s.Flushed(600)
	if n := len(s.Frames(0, 1<<20, 1<<30)); n < 400 || n > 420 {
		t.Fatalf("%d frames after 600 were flushed", n)
	}
	if n := len(s.Frames(600, 1<<20, 1<<30)); n != 400 {
		t.Fatalf("%d of 400 frames that are not flushed", n)
	}
	for seq := uint64(1001); seq <= 4000; seq++ {
		s.Append(events(seq, seq, 10))
	}
	if n := len(s.Frames(0, 1<<20, 1<<30)); n < 50 || n > 1100 {
		t.Fatalf("%d frames, beyond what may be held", n)
	}
	if h.Stats().TrimmedUnflushed == 0 {
		t.Error("frames that the log never got are not counted")
	}
}

// The rings of ended streams go first, then the biggest; what is gone is
// counted, and the budget is kept.
func TestMemory(t *testing.T) {
	const limit = 1 << 20
	h := still(t, Config{Memory: limit, RingEvents: 1 << 20, RingBytes: 4 << 20})
	ended, small, held := h.Open(StreamOptions{}), h.Open(StreamOptions{}), h.Open(StreamOptions{Hold: 1 << 20})
	ended.Append(append(events(1, 100, 1000), endFrame(101, sse.EndClean)))
	small.Append(events(1, 5, 1000))
	held.Append(events(1, 100, 1000))
	big := h.Open(StreamOptions{})
	for seq := uint64(1); seq <= 3000; seq++ {
		big.Append(events(seq, seq, 1000))
		if used := h.Stats().RingBytes; used > limit {
			t.Fatalf("%d bytes after %d frames", used, seq)
		}
		if n := len(ended.Frames(0, 1000, 1<<30)); n < 101 && seq < 500 {
			t.Fatal("trimmed too early")
		}
	}
	if n := len(ended.Frames(0, 1000, 1<<30)); n != 0 {
		t.Errorf("the ended stream still has %d frames", n)
	}
	if n := len(small.Frames(0, 1000, 1<<30)); n != 5 {
		t.Errorf("the small one has %d", n)
	}
	if n := len(held.Frames(0, 1000, 1<<30)); n != 100 {
		t.Errorf("the one that is held has %d", n)
	}
	if st := h.Stats(); st.TrimmedMemory < 2000 || st.TrimmedUnflushed != 0 {
		t.Errorf("%+v", st)
	}
	if _, over := ended.Ended(); !over || ended.Tail().Seq != 101 {
		t.Error("a trimmed stream forgot that it ended")
	}
	// A stream that lost its ring goes on.
	c := newFake(-1)
	small.relieve(&budget{})
	small.Follow(c, FollowOptions{After: sse.Pos{Seq: 5}, Chunked: true})
	small.Append(events(6, 7, 0))
	small.Flush()
	seqs, _ := numbers(c.text())
	consecutive(t, seqs, 6, 7)
}

// The budget holds whatever the number of streams, and each is found in its
// list.
func TestMemoryManyStreams(t *testing.T) {
	h := still(t, Config{Memory: 2 << 20})
	rng := rand.New(rand.NewPCG(3, 3))
	var open []*Stream
	next := map[*Stream]uint64{}
	for range 20_000 {
		if len(open) < 50 || rng.IntN(20) == 0 {
			open = append(open, h.Open(StreamOptions{}))
		}
		i := rng.IntN(len(open))
		s := open[i]
		switch rng.IntN(30) {
		case 0:
			s.Close()
			open[i] = open[len(open)-1]
			open = open[:len(open)-1]
			continue
		case 1:
			next[s]++
			s.Append([]sse.Frame{endFrame(next[s], sse.EndClean)})
			continue
		}
		n := uint64(rng.IntN(20))
		s.Append(events(next[s]+1, next[s]+n, rng.IntN(500)))
		next[s] += n
		if used := h.Stats().RingBytes; used > 2<<20 {
			t.Fatalf("%d bytes used", used)
		}
	}
	var sum int64
	for _, s := range open {
		sum += s.bytes
		s.Close()
	}
	if sum == 0 || h.Stats().RingBytes != 0 {
		t.Errorf("%d bytes, %d after Close", sum, h.Stats().RingBytes)
	}
	for class, s := range h.budget.lists {
		if s != nil {
			t.Errorf("list %d is not empty", class)
		}
	}
}
