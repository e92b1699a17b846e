package hub

import (
	"iter"
	"slices"
	"sync"
)

// Flush makes one attempt to write what is ready to each follower that is not
// blocked. Calls that come while another is at work return at once: there will
// be one more round, and whoever does it, it is not the first caller, who
// would else pay for everybody.
func (s *Stream) Flush() {
	if s.count.Load() == 0 || s.flushing.Swap(flushAgain) != 0 {
		return
	}
	if !s.round() && !s.h.spawn(s.rounds) {
		s.rounds()
	}
}

// The states of Stream.flushing; 0 is at rest.
const (
	flushing   = 1
	flushAgain = 2
)

// rounds goes on until nobody has called Flush meanwhile.
func (s *Stream) rounds() {
	for !s.round() {
	}
}

// round flushes once; false when it has to be done again.
func (s *Stream) round() bool {
	s.flushing.Store(flushing)
	if s.stuck.Load() > 0 {
		s.retry(true)
	}
	if n := min(s.h.helpers, int(s.count.Load())/followersPerHelper); n > 0 {
		s.flushTogether(n)
	} else {
		var t tour
		s.flush(&t)
	}
	return s.flushing.CompareAndSwap(flushing, 0)
}

// followersPerHelper is how many followers are worth another goroutine: their
// writes take more than a millisecond.
const followersPerHelper = 256

func (s *Stream) flushTogether(helpers int) {
	var t tour
	var wg sync.WaitGroup
	for range helpers {
		wg.Go(func() { s.flush(&t) })
	}
	s.flush(&t)
	wg.Wait()
}

func (s *Stream) flush(t *tour) {
	var w walk
	for w.next(s, t) {
		for _, f := range w.batch[:w.n] {
			if !f.parked.Load() {
				f.run()
			}
		}
	}
}

// evict gets followers out of segments that were dropped.
func (s *Stream) evict() {
	var t tour
	var w walk
	for w.next(s, &t) {
		for _, f := range w.batch[:w.n] {
			if seg := f.seg.Load(); seg != nil && seg.gone.Load() {
				f.evict()
			}
		}
	}
}

// All returns the followers of the moment. What joins or leaves meanwhile may
// be among them or not.
func (s *Stream) All() iter.Seq[*Follower] {
	return func(yield func(*Follower) bool) {
		var t tour
		var w walk
		for w.next(s, &t) {
			for _, f := range w.batch[:w.n] {
				if !yield(f) {
					w.stop(s)
					return
				}
			}
		}
	}
}

// Followers returns how many follow here.
func (s *Stream) Followers() int { return int(s.count.Load()) }

// A tour over the followers of a stream, which several may share: each
// follower is met by one of them.
type tour struct{ at int }

// A walk is one's part in a tour. It takes some followers at a time, so that
// the lock is not held while they are dealt with.
type walk struct {
	state uint8
	n     int
	batch [64]*Follower
}

// The states of a walk.
const (
	walkNew = iota
	walkOn
	walkOver // nothing is left behind the batch
)

// next fills the batch; false after the last one.
func (w *walk) next(s *Stream, t *tour) bool {
	w.n = 0
	if w.state == walkOver {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.state == walkNew {
		w.state = walkOn
		s.walkers++
	}
	for ; t.at < len(s.slots) && w.n < len(w.batch); t.at++ {
		if f := s.slots[t.at]; f != nil {
			w.batch[w.n] = f
			w.n++
		}
	}
	if t.at >= len(s.slots) {
		w.state = walkOver
		s.walkers--
	}
	return w.n > 0
}

// stop ends a walk before its end.
func (w *walk) stop(s *Stream) {
	if w.state == walkOn {
		s.mu.Lock()
		s.walkers--
		s.mu.Unlock()
	}
}

// insert gives a follower a slot. The caller holds the lock.
func (s *Stream) insert(f *Follower) {
	if n := len(s.holes); n > 0 {
		f.slot = s.holes[n-1]
		s.holes = s.holes[:n-1]
		s.slots[f.slot] = f
	} else {
		f.slot = int32(len(s.slots))
		s.slots = append(s.slots, f)
	}
	s.count.Add(1)
	s.raise(f.seq.Load())
}

// remove gives the slot back. Slots do not move while somebody walks over
// them, so that a walk meets everybody.
func (s *Stream) remove(f *Follower) {
	s.mu.Lock()
	s.slots[f.slot] = nil
	s.holes = append(s.holes, f.slot)
	n := int(s.count.Add(-1))
	s.dirty = s.dirty || f.seq.Load() >= s.best.Load()
	if s.walkers == 0 && len(s.slots) >= 64 && n < len(s.slots)/4 {
		s.slots = slices.Clone(slices.DeleteFunc(s.slots, func(f *Follower) bool { return f == nil }))
		s.holes = nil
		for i, f := range s.slots {
			f.slot = int32(i)
		}
	}
	s.mu.Unlock()
	s.unwait()
}
