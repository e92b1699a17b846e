package hub

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// A budget bounds the memory of all rings together. It keeps the streams in
// lists by the size of their rings, so that who has to give is found at once
// however many streams there are.
type budget struct {
	limit int64
	used  atomic.Int64

	mu    sync.Mutex
	lists [classes]*Stream // circular; nil when empty
}

// The classes of streams: those whose ring is empty are in no list, those
// that have ended come first, then the biggest, by powers of two.
const (
	classNone  = 0
	classEnded = 1
	classLive  = 2
	classes    = classLive + 48
)

func classOf(bytes int64, ended bool) int32 {
	switch {
	case bytes == 0:
		return classNone
	case ended:
		return classEnded
	default:
		return classLive + int32(min(bits.Len64(uint64(bytes)), classes-classLive-1))
	}
}

// relist puts a stream into the list that is right for it. The caller holds
// its lock.
func (b *budget) relist(s *Stream, class int32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if old := s.class; old != classNone {
		if s.bigNext == s {
			b.lists[old] = nil
		} else {
			s.bigPrev.bigNext, s.bigNext.bigPrev = s.bigNext, s.bigPrev
			if b.lists[old] == s {
				b.lists[old] = s.bigNext
			}
		}
		s.bigNext, s.bigPrev = nil, nil
	}
	s.class = class
	if class == classNone {
		return
	}
	first := b.lists[class]
	if first == nil {
		s.bigNext, s.bigPrev = s, s
		b.lists[class] = s
		return
	}
	s.bigNext, s.bigPrev = first, first.bigPrev
	first.bigPrev.bigNext, first.bigPrev = s, s
}

// givers names some streams, in the order in which they have to give: the
// ended ones, then the biggest. Who was named stands last in its list then.
func (b *budget) givers(out []*Stream) []*Stream {
	b.mu.Lock()
	defer b.mu.Unlock()
	take := func(class int) {
		s := b.lists[class]
		if s == nil {
			return
		}
		for first := s; len(out) < cap(out); {
			out = append(out, s)
			if s = s.bigNext; s == first {
				break
			}
		}
		b.lists[class] = s
	}
	take(classEnded)
	for class := classes - 1; class >= classLive && len(out) < cap(out); class-- {
		take(class)
	}
	return out
}

// relieve trims rings until the budget is kept. What a Hold protects stays,
// and the work is bounded: the next segment that is added goes on with it.
// The caller holds no locks.
func (b *budget) relieve() {
	if b.used.Load() <= b.limit {
		return
	}
	var some [16]*Stream
	for _, s := range b.givers(some[:0]) {
		if b.used.Load() <= b.limit {
			return
		}
		s.relieve(b)
	}
}
