package hub

import (
	"bytes"
	"context"
	"sync"
	"sync/atomic"

	"ssegate/sse"
)

// Policy says what becomes of a follower whose place in the ring is dropped.
type Policy uint8

const (
	// SlowLog lets it go on from the Source.
	SlowLog Policy = iota
	// SlowCut cuts it with ReasonSlow.
	SlowCut
)

// A Source is where a follower reads what the ring no longer has: the log of
// its stream.
type Source interface {
	// Read returns up to max frames whose Seq is above after.Seq, in order.
	// An empty result means that there is nothing newer than after. KindNote
	// frames (unnumbered) are written as they are; where numbers are missing
	// a note must stand at the gap, else the follower is cut with ReasonGap.
	// A note of a newer epoch than after's whose Seq is not above takes the
	// follower back there; a frame of such an epoch without a note cuts it.
	// ErrNotYet has the follower wait; any other error does so for a time.
	// A KindEnd frame ends the follower. The frames are shared, never
	// changed. Calls are concurrent and must end with ctx.
	Read(ctx context.Context, after sse.Pos, max int) ([]sse.Frame, error)
}

// StreamOptions say how a stream is served.
type StreamOptions struct {
	// First is the position of the first frame that will be appended; only a
	// replica begins above 1. The zero Pos means Seq 1.
	First sse.Pos
	// Heartbeat is what is written in silence: whole lines, ended by "\n".
	// Nil means none. It is never changed.
	Heartbeat []byte
	// EOL is the line end of what the hub itself writes into the stream.
	EOL sse.EOL
	// Slow says what becomes of a follower that the ring leaves behind.
	Slow Policy
	// Source is where such a follower reads on; so does one that begins
	// before the ring, or is at a place of which the ring does not know
	// whether it is in this stream. Nil: it is cut with ReasonGap.
	Source Source
	// Hold is how many frames the ring keeps beyond its limits while they
	// are not Flushed; 0 for a stream without a log.
	Hold int
	// RingEvents and RingBytes are the limits of this stream's ring; 0 means
	// those of the Config.
	RingEvents, RingBytes int
	// Joined and Left tell of followers, Left once for each Joined. They are
	// called without locks held, from any goroutine, and must return soon:
	// others wait to be written to.
	Joined, Left func(f *Follower, why Reason)
}

// A Stream is one sequence of frames and its followers on this node. One
// goroutine at a time appends; all else may be called concurrently.
type Stream struct {
	h    *Hub
	o    StreamOptions
	beat atomic.Pointer[beat]

	end      atomic.Uint32 // endSet and the sse.End, after the last frame is published
	closed   atomic.Bool
	flushing atomic.Int32
	stuck    atomic.Int32          // len(waiters)
	loose    atomic.Bool           // the last segment may have more room than it needs
	count    atomic.Int64          // of followers
	best     atomic.Uint64         // no follower is further than this
	want     atomic.Uint64         // the Seq that the fastest must reach before Wait returns; 0: nobody waits
	waits    atomic.Pointer[waits] // nil until somebody waited
	appended atomic.Uint64         // frames; changes under mu, after they are published

	mu      sync.Mutex
	head    *segment
	last    *segment
	tail    sse.Pos
	total   uint64 // framed bytes appended
	bytes   int64  // that the ring costs
	frames  int32  // in it
	size    int32  // of the next segment's buffer
	flushed uint64
	pace    uint64
	at      uint32 // tick of the last Append
	begun   bool   // numbered frames of the last epoch were appended
	dirty   bool   // best may be too high

	class   int32                  // of the budget's lists, under its lock
	walkers int32                  // who go over slots now
	slots   []*Follower            // with holes
	holes   []int32                // in them
	waiters map[*Follower]struct{} // for their Source

	bigNext, bigPrev *Stream
}

const endSet = 1 << 8

// A beat is a heartbeat as it goes out, and the line end that holds now.
type beat struct {
	eol            sse.EOL
	plain, chunked []byte
}

// beatOf makes a beat, or finds it: idle streams are many and alike.
func (h *Hub) beatOf(lines []byte, eol sse.EOL) *beat {
	plain := withEOL(lines, eol)
	if b := h.beat.Load(); b != nil && b.eol == eol && bytes.Equal(b.plain, plain) {
		return b
	}
	b := &beat{eol: eol, plain: plain, chunked: appendChunk(nil, plain)}
	h.beat.Store(b)
	return b
}

// Open returns a new stream. It uses memory until Close.
func (h *Hub) Open(o StreamOptions) *Stream {
	if o.RingEvents <= 0 {
		o.RingEvents = h.cfg.RingEvents
	}
	if o.RingBytes <= 0 {
		o.RingBytes = h.cfg.RingBytes
	}
	s := &Stream{h: h, o: o}
	if o.First.Seq > 1 {
		s.tail = sse.Pos{Epoch: o.First.Epoch, Seq: o.First.Seq - 1}
	}
	s.flushed = s.tail.Seq
	s.head = newSegment(0, 0, 0, 0, o.First.Epoch)
	s.last = s.head
	s.SetEOL(o.EOL)
	h.count.streams.Add(1)
	return s
}

// SetEOL sets the line end of what the hub writes into the stream from now
// on.
func (s *Stream) SetEOL(eol sse.EOL) {
	s.beat.Store(s.h.beatOf(s.o.Heartbeat, eol))
}

// Append adds frames to the ring: numbered ones with consecutive Seq, fences
// and notes between them. All that they point to is copied. Frames at or before the
// tail, and all that come after the end of the stream or Close, are ignored
// and counted; but where they are of a newer epoch the ring begins anew with
// them, since what it had from there on counts no more. A fence says that its
// epoch begins behind its Seq. Nothing is written to anybody before Flush,
// except to a follower whose place in the ring has to go.
func (s *Stream) Append(frames []sse.Frame) {
	s.mu.Lock()
	before, bytes := s.appended.Load(), s.bytes
	need := 0
	for i := range frames {
		need += room(&frames[i])
	}
	evict := false
	for i := range frames {
		n := room(&frames[i])
		evict = s.push(&frames[i], n, need) || evict
		need -= n
	}
	added := s.appended.Load() - before
	grown := s.bytes > bytes
	evict = grown && s.trim() || evict
	if grown {
		s.relist()
	}
	s.at = s.h.now()
	s.mu.Unlock()
	c := &s.h.count
	c.frames.Add(int64(added))
	if n := len(frames) - int(added); n > 0 {
		c.ignored.Add(int64(n))
	}
	if evict {
		s.evict()
	}
	if grown {
		s.h.budget.relieve()
	}
}

// push adds one frame that needs room bytes; rest is what it and those behind
// it need. evict reports whether it took the place of what somebody still
// reads.
func (s *Stream) push(f *sse.Frame, room, rest int) (evict bool) {
	if s.end.Load() != 0 || s.closed.Load() {
		return false
	}
	last := s.last
	seq, epoch, before := s.tail.Seq, last.epoch, s.tail.Seq
	if f.Kind != sse.KindNote {
		seq, epoch = f.Pos.Seq, f.Pos.Epoch
		if before = seq; f.Kind != sse.KindFence {
			before--
		}
		if epoch <= last.epoch && (before < s.tail.Seq || f.Kind == sse.KindFence) {
			return false
		}
	}
	// A hole is only ever between two segments, see Follower.live.
	fresh, back := before != s.tail.Seq, before < s.tail.Seq
	s.tail = sse.Pos{Epoch: epoch, Seq: seq}
	seg := last
	if fresh || epoch != last.epoch || !last.fits(room) {
		seg = s.grow(room, rest, epoch)
		if epoch > last.epoch && (!fresh || f.Kind == sse.KindFence) {
			seg.old, seg.fork = last.epoch, before
		}
	}
	s.begun = s.begun && epoch == last.epoch || f.Kind != sse.KindNote && f.Kind != sse.KindFence
	if back {
		for s.head != seg {
			evict = s.drop() || evict
		}
		s.flushed = min(s.flushed, before)
	}
	used := seg.used
	seg.add(f, seq)
	s.total += uint64(seg.used - used)
	s.appended.Add(1)
	s.frames++
	if f.Kind == sse.KindEnd {
		s.end.Store(endSet | uint32(f.End))
	}
	return evict
}

// grow links a new segment that has room for need bytes. Segments of a quiet
// stream are small; they double up to a quarter of the ring.
func (s *Stream) grow(need, rest int, epoch uint64) *segment {
	most := min(max(s.o.RingBytes/4, minSegment), maxSegment)
	size := min(max(int(s.size), rest, minSegment), most)
	s.size = int32(min(2*size, most))
	average := 96
	if n := s.appended.Load(); n > 0 {
		average = max(int(s.total/n), 8)
	}
	frames := max(s.o.RingEvents/4, 1)
	enough := frames * average
	size = max(min(size, enough+enough/8), need)
	count := min(size/average+size/average/8+4, frames)
	if rest == 0 {
		size, count = 0, 1 // a fence, say, behind which nothing may come for long
	}
	seg := newSegment(size, count, s.appended.Load(), s.total, epoch)
	s.bytes += seg.cost()
	s.h.budget.used.Add(seg.cost())
	s.loose.Store(true)
	s.link(seg)
	return seg
}

func (s *Stream) link(seg *segment) {
	if seg.epoch == s.last.epoch {
		seg.old, seg.fork = s.last.old, s.last.fork
	}
	s.last.next.Store(seg)
	s.last = seg
	if s.head.n.Load() == 0 && s.head != seg {
		s.drop() // an empty place to wait at
	}
}

// trim drops from the head of the ring what is beyond its limits, and reports
// whether somebody was still there.
func (s *Stream) trim() (evict bool) {
	o := &s.o
	for s.head != s.last {
		n := int(s.head.n.Load())
		if int(s.frames)-n < o.RingEvents && s.bytes <= int64(o.RingBytes) {
			break
		}
		seq := uint64(0)
		if n > 0 {
			seq = s.head.index[n-1].seq
		}
		if s.held(seq) || s.unread(seq) && s.total-s.head.base <= 2*uint64(o.RingBytes) {
			break
		}
		s.h.count.trimmed.Add(int64(n))
		evict = s.drop() || evict
	}
	return evict
}

// held reports whether the frames up to seq have to stay for the log.
func (s *Stream) held(seq uint64) bool {
	return seq > s.flushed && s.tail.Seq-s.flushed <= uint64(s.o.Hold)
}

// unread reports whether even the fastest follower has not got seq.
func (s *Stream) unread(seq uint64) bool {
	return s.count.Load() > 0 && s.fastest() < seq
}

// drop takes the first segment out of the ring and reports whether somebody
// is still there.
func (s *Stream) drop() bool {
	seg := s.head
	if seg == s.last {
		s.link(newSegment(0, 0, s.appended.Load(), s.total, seg.epoch))
		if s.head != seg {
			return false // it was empty, and is gone
		}
	}
	n := seg.n.Load()
	if n > 0 && s.o.Hold > 0 && seg.index[n-1].seq > s.flushed {
		s.h.count.trimmedUnflushed.Add(int64(n))
	}
	s.head = seg.next.Load()
	s.frames -= n
	s.bytes -= seg.cost()
	s.h.budget.used.Add(-seg.cost())
	seg.gone.Store(true)
	return seg.readers.Load() > 0
}

// relist tells the budget how big the ring is.
func (s *Stream) relist() {
	class := classOf(s.bytes, s.end.Load() != 0)
	if s.closed.Load() {
		class = classNone
	}
	if class != s.class {
		s.h.budget.relist(s, class)
	}
}

// relieve gives back what it can until the budget is kept.
func (s *Stream) relieve(b *budget) {
	s.mu.Lock()
	evict := false
	for b.used.Load() > b.limit && s.bytes > 0 {
		n := s.head.n.Load()
		if n > 0 && s.held(s.head.index[n-1].seq) {
			break
		}
		s.h.count.trimmedMemory.Add(int64(n))
		evict = s.drop() || evict
	}
	s.size = minSegment
	s.relist()
	s.mu.Unlock()
	if evict {
		s.evict()
	}
}

// locate returns the place in the ring of a follower that is at p; false when
// the frame it needs next is not there, or it is not sure that p is a place in
// this stream. One of whom the Source knows nothing (asked) may wait while the
// present epoch has no frame that could show it. Who is at the very beginning
// gets the notes before the first frame as well: the client that started a
// stream may join when its upstream has said something already. The caller
// holds the lock.
func (s *Stream) locate(p sse.Pos, asked bool) (seg *segment, at int32, ok bool) {
	if p.Seq >= s.tail.Seq && (s.last.vouches(p) || asked && !s.begun) {
		if s.tail.Seq == 0 {
			return s.head, 0, true
		}
		return s.last, s.last.n.Load(), true
	}
	for seg = s.head; seg != nil; seg = seg.next.Load() {
		n := seg.n.Load()
		if n == 0 || seg.index[n-1].seq <= p.Seq {
			continue
		}
		at = seg.after(p.Seq, n)
		e := &seg.index[at]
		if ok = e.numbered() && e.seq == p.Seq+1 && seg.vouches(p); ok && p.Seq == 0 {
			return s.head, 0, true
		}
		return seg, at, ok
	}
	return nil, 0, false
}

// Flushed tells that the log has everything up to seq, so that the ring need
// not keep it for the log any longer.
func (s *Stream) Flushed(seq uint64) {
	s.mu.Lock()
	evict := false
	if seq > s.flushed {
		s.flushed = seq
		evict = s.trim()
		s.relist()
	}
	s.mu.Unlock()
	if evict {
		s.evict()
	}
	if s.stuck.Load() > 0 {
		s.retry(false)
	}
}

// Tail returns the position of the last frame; the zero Pos when there was
// none.
func (s *Stream) Tail() sse.Pos {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.tail
}

// Ended tells whether the stream has ended, and how.
func (s *Stream) Ended() (sse.End, bool) {
	end := s.end.Load()
	return sse.End(end &^ endSet), end != 0
}

// Close drops the ring. Followers that have not read everything are served
// from the Source, or cut; those that have are ended, with ReasonClosed if
// the stream has not ended. Further Appends are ignored.
func (s *Stream) Close() {
	if s.closed.Swap(true) {
		return
	}
	s.mu.Lock()
	evict := false
	for s.bytes > 0 {
		evict = s.drop() || evict
	}
	s.relist()
	s.mu.Unlock()
	s.h.count.streams.Add(-1)
	s.unwait()
	if evict {
		s.evict()
	}
	s.Flush()
	s.retry(false)
}

// withEOL gives whole lines another line end.
func withEOL(lines []byte, eol sse.EOL) []byte {
	if eol == sse.LF {
		return lines
	}
	end := eol.String()
	out := make([]byte, 0, len(lines)+8)
	for _, c := range lines {
		if c == '\n' {
			out = append(out, end...)
		} else {
			out = append(out, c)
		}
	}
	return out
}
