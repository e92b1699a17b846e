package hub

import "time"

// quiet is how long nothing is appended to a stream whose ring is tightened.
const quiet = 10 * time.Second

// tighten gives back what a quiet ring does not use: it puts a copy in the
// place of the last segment, as big as what is in it, unless that gains
// little. The wheel calls it when it looks at a follower.
func (s *Stream) tighten() {
	s.mu.Lock()
	if s.h.now()-s.at < s.h.ticks(quiet) {
		s.mu.Unlock()
		return
	}
	s.loose.Store(false)
	old := s.last
	spare := old.spare()
	if s.closed.Load() || 4*spare <= s.bytes || old.n.Load() == 0 {
		s.mu.Unlock()
		return
	}
	c := old.tight()
	if s.head == old {
		s.head = c
	} else {
		before := s.head
		for before.next.Load() != old {
			before = before.next.Load()
		}
		before.next.Store(c)
	}
	s.last = c
	s.size = 0
	s.bytes -= spare
	s.h.budget.used.Add(-spare)
	s.relist()
	old.moved.Store(c)
	s.mu.Unlock()
	// Who comes to the old one after this finds where it was moved to.
	for f := range s.All() {
		f.moveOut(old, c)
	}
}

// moveOut has the follower go on in the copy of a segment.
func (f *Follower) moveOut(old, c *segment) {
	f.mu.Lock()
	if f.seg.Load() == old {
		f.move(c)
	}
	evict := f.seg.Load() == c && c.gone.Load()
	f.mu.Unlock()
	if evict {
		f.evict()
	}
}

// move puts the cursor at the same place in the copy of its segment.
func (f *Follower) move(c *segment) {
	c.readers.Add(1)
	f.seg.Swap(c).readers.Add(-1)
}
