package hub

import (
	"sort"

	"ssegate/sse"
)

// Frames returns numbered frames of the ring whose Seq is above after: at most
// maxFrames, and no more than maxBytes of blocks unless the first alone is
// bigger. They share the ring's memory. The result is empty when after is the
// tail; it begins later than after+1 when those frames are gone. Notes and
// fences, which belong into no log, are not among them.
func (s *Stream) Frames(after uint64, maxFrames, maxBytes int) []sse.Frame {
	var few [8]sse.Run
	runs := s.AppendRuns(few[:0], after, maxFrames, maxBytes)
	n := 0
	for i := range runs {
		n += runs[i].Len()
	}
	if n == 0 {
		return nil
	}
	frames := make([]sse.Frame, 0, n)
	for i := range runs {
		frames = runs[i].Append(frames)
	}
	return frames
}

// AppendRuns appends the same frames as Frames, as they lie in the ring. They
// keep its memory alive, and that of what came behind them.
func (s *Stream) AppendRuns(dst []sse.Run, after uint64, maxFrames, maxBytes int) []sse.Run {
	s.mu.Lock()
	defer s.mu.Unlock()
	if after >= s.tail.Seq || maxFrames <= 0 {
		return dst
	}
	first := true
	for seg := s.head; seg != nil; seg = seg.next.Load() {
		n := seg.n.Load()
		for i := seg.after(after, n); i < n; {
			if !seg.index[i].numbered() {
				i++
				continue
			}
			end := seg.run(i, n)
			to := seg.within(i, min(end, i+int32(min(maxFrames, int(n)))), maxBytes)
			if first {
				to = max(to, i+1)
			}
			if to > i {
				dst = append(dst, sse.RunOf(seg, i, to))
				maxFrames -= int(to - i)
				maxBytes -= int(seg.index[to-1].end - seg.index[i].start)
			}
			if to < end || maxFrames == 0 {
				return dst
			}
			first, i = false, to
		}
	}
	return dst
}

// Frame implements [sse.Page]: it returns a frame as it was appended.
func (seg *segment) Frame(i int32) sse.Frame {
	e := &seg.index[i]
	f := sse.Frame{Kind: e.kind, End: e.how}
	f.ID, f.Time, f.Meta = seg.beside(e)
	if e.kind != sse.KindNote {
		f.Pos = sse.Pos{Epoch: seg.epoch, Seq: e.seq}
	}
	if from, to := e.block(); from < to {
		f.Block = seg.buf[from:to:to]
	}
	return f
}

// Size implements [sse.Page].
func (seg *segment) Size(from, to int32) int64 {
	before := uint32(len(seg.buf))
	if from > 0 {
		before = seg.index[from-1].at
	}
	last := &seg.index[to-1]
	return int64(last.end-seg.index[from].start) + int64(before-last.at) + entrySize*int64(to-from)
}

// Moved implements [sse.Page].
func (seg *segment) Moved() sse.Page {
	if to := seg.moved.Load(); to != nil {
		return to
	}
	return nil
}

// run returns the end of the numbered frames in a row that begin at i, of
// which n are published.
func (seg *segment) run(i, n int32) int32 {
	first := &seg.index[i]
	if seg.index[n-1].seq-first.seq == uint64(n-1-i) {
		return n // no note bears a number of its own
	}
	for i++; seg.index[i].numbered(); i++ {
	}
	return i
}

// within returns the end of those from i up to n whose blocks are not more than
// so many bytes.
func (seg *segment) within(i, n int32, bytes int) int32 {
	start := seg.index[i].start
	if int(seg.index[n-1].end-start) <= bytes {
		return n
	}
	return i + int32(sort.Search(int(n-i), func(k int) bool { return int(seg.index[i+int32(k)].end-start) > bytes }))
}
