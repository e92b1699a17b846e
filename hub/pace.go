package hub

import (
	"context"
)

// waits is how the appender waits: one way or the other.
type waits struct {
	wake  chan struct{} // of Wait
	again func()        // of Ready, under the stream's lock
}

// Wait blocks while even the fastest follower is further behind the tail than
// the ring's limits, so that an upstream is read no faster than its clients
// read. It returns at once when there is no follower (see SetPace), or the
// stream has ended or is closed. The error is ctx's. One goroutine at a time
// waits, the appender.
func (s *Stream) Wait(ctx context.Context) error {
	defer s.want.Store(0)
	for !s.near(nil) {
		select {
		case <-s.waits.Load().wake:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Ready is Wait for an appender that must not block: true when it may go on.
// Else again is called, once for each false and from any goroutine, with locks
// held, when it is worth asking again.
func (s *Stream) Ready(again func()) bool {
	if !s.near(again) {
		return false
	}
	if s.want.Swap(0) != 0 {
		s.waits.Load().take(s)
	}
	return true
}

// take returns what Ready asked to be called.
func (w *waits) take(s *Stream) (again func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	again, w.again = w.again, nil
	return again
}

// near reports whether the fastest follower is near enough; if not, whoever
// gets further from now on calls unwait, and that calls again, if there is one.
func (s *Stream) near(again func()) bool {
	for {
		s.mu.Lock()
		// Let go a little later than held back, so that a waiting appender
		// is not woken for each event.
		share := 4
		if s.want.Load() != 0 {
			share = 3
		}
		want := s.behind(uint64(s.o.RingEvents*share/4), uint64(s.o.RingBytes*share/4))
		free := s.closed.Load() || s.end.Load() != 0 || s.pace == 0 && s.count.Load() == 0
		if free || max(s.fastest(), s.pace) >= want {
			s.mu.Unlock()
			return true
		}
		w := s.waits.Load()
		if w == nil {
			w = &waits{wake: make(chan struct{}, 1)}
			s.waits.Store(w) // before want tells others to use it
		}
		w.again = again
		was := s.want.Swap(want)
		s.mu.Unlock()
		if was != 0 {
			return false
		}
		// once more, now that followers know
	}
}

// SetPace makes followers elsewhere, the fastest of whom has seq, count for
// Wait like one here; 0 means that there are none.
func (s *Stream) SetPace(seq uint64) {
	s.mu.Lock()
	s.pace = seq
	s.mu.Unlock()
	s.unwait()
}

// unwait lets Wait look again.
func (s *Stream) unwait() {
	if s.want.Load() != 0 {
		w := s.waits.Load()
		if again := w.take(s); again != nil {
			again()
			return
		}
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// reached notes that a follower got as far as seq.
func (s *Stream) reached(seq uint64) {
	s.raise(seq)
	if want := s.want.Load(); want != 0 && seq >= want {
		s.unwait()
	}
}

func (s *Stream) raise(seq uint64) {
	for best := s.best.Load(); seq > best; best = s.best.Load() {
		if s.best.CompareAndSwap(best, seq) {
			return
		}
	}
}

// fastest is how far the fastest follower here has come. The caller holds the
// lock.
func (s *Stream) fastest() uint64 {
	if s.dirty {
		// A follower sets its seq before it raises best, so none is missed.
		s.dirty = false
		s.best.Store(0)
		for _, f := range s.slots {
			if f != nil {
				s.raise(f.seq.Load())
			}
		}
	}
	return s.best.Load()
}

// behind returns the least Seq that is at most so many events and bytes
// behind the tail. The caller holds the lock.
func (s *Stream) behind(events, bytes uint64) uint64 {
	var want uint64
	if s.tail.Seq > events {
		want = s.tail.Seq - events
	}
	if s.total-s.head.base <= bytes {
		return want
	}
	from := s.total - bytes
	for seg := s.head; seg != nil; seg = seg.next.Load() {
		n := seg.n.Load()
		if n == 0 || seg.base+uint64(seg.index[n-1].end) < from {
			continue
		}
		lo, hi := int32(0), n-1
		for lo < hi {
			if mid := (lo + hi) / 2; seg.base+uint64(seg.index[mid].end) < from {
				lo = mid + 1
			} else {
				hi = mid
			}
		}
		return max(want, seg.index[lo].seq)
	}
	return want
}
