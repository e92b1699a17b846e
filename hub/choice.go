package hub

import (
	"time"

	"ssegate/sse"
)

// FrameMeta is what is known of a frame when a follower is asked whether it
// wants it.
type FrameMeta struct {
	Meta   []byte // as appended or read, never changed
	Time   int64  // of the Frame
	Behind int    // how many newer frames the stream has, as far as known here
}

// A choice is what a follower has that does not want everything, or not for
// ever. It is guarded by the follower's lock.
type choice struct {
	want    func(FrameMeta) bool
	expired func(*Follower) // nil once it was called
	asked   sse.Pos         // the last frame that want was asked about
	until   uint32          // tick of expired
	refused bool            // the frame asked
}

// never is as good as never: a time so many ticks away (three years) is not
// noted.
const never = 1 << 30

// choiceOf returns nil for a follower that makes no choice.
func (h *Hub) choiceOf(o *FollowOptions) *choice {
	if o.Want == nil && o.Expired == nil {
		return nil
	}
	c := &choice{want: o.Want}
	if left := time.Until(o.Until); o.Expired != nil && !o.Until.IsZero() && left/h.cfg.Tick < never {
		now := h.now()
		left += time.Since(h.wheel.start) - time.Duration(now)*h.cfg.Tick
		c.expired, c.until = o.Expired, now+max(h.ticks(max(left, 0)), 1)
	}
	return c
}

// due returns what has to be called now, once.
func (c *choice) due(now uint32) (expired func(*Follower)) {
	if c == nil || c.expired == nil || int32(now-c.until) < 0 {
		return nil
	}
	expired, c.expired = c.expired, nil
	return expired
}

// knows reports whether the follower was asked about a frame. What it did not
// refuse then may still have to be written: from the ring or, when that has
// gone on without it, from the Source.
func (c *choice) knows(p sse.Pos) bool { return p.Seq <= c.asked.Seq && p.Epoch <= c.asked.Epoch }

func (c *choice) ask(p sse.Pos, m FrameMeta) { c.asked, c.refused = p, !c.want(m) }

// refuses tells the answer about a frame that it knows and that comes next.
func (c *choice) refuses(p sse.Pos) bool { return p == c.asked && c.refused }

// wanted returns the first of the next entries before n that a follower with a
// choice does not want; n if it wants them all.
func (f *Follower) wanted(seg *segment, n int32) int32 {
	c := f.choice
	if c.want == nil || !seg.asks.Load() {
		return n
	}
	newest := int(f.s.appended.Load()-seg.first) - 1
	for i := f.idx; i < n; i++ {
		e := &seg.index[i]
		if e.has&hasAsk == 0 {
			continue
		}
		p := sse.Pos{Epoch: seg.epoch, Seq: e.seq}
		if !c.knows(p) {
			_, at, meta := seg.beside(e)
			c.ask(p, FrameMeta{Meta: meta, Time: at, Behind: max(newest-int(i), 0)})
		}
		if c.refuses(p) {
			return i
		}
	}
	return n
}

// passOver goes on behind the next entry as if it had been written.
func (f *Follower) passOver(seg *segment) {
	e := &seg.index[f.idx]
	f.idx, f.off = f.idx+1, e.end
	f.reach(sse.Pos{Epoch: seg.epoch, Seq: e.seq})
	f.s.h.count.skipped.Add(1)
}

// wants asks about a frame of a page.
func (f *Follower) wants(fr *sse.Frame) bool {
	c := f.choice
	if c == nil || c.want == nil || !asks(fr) {
		return true
	}
	if !c.knows(fr.Pos) {
		behind := max(f.s.Tail().Seq, fr.Pos.Seq) - fr.Pos.Seq
		c.ask(fr.Pos, FrameMeta{Meta: fr.Meta, Time: fr.Time, Behind: int(behind)})
	}
	return !c.refuses(fr.Pos)
}

// asks reports whether followers may refuse a frame.
func asks(f *sse.Frame) bool {
	return f.Meta != nil && (f.Kind == sse.KindEvent || f.Kind == sse.KindBare)
}
