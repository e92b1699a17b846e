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

// next names the stream that has to give next, or nil. Who was named goes to
// the end of its list.
func (b *budget) next() *Stream {
	b.mu.Lock()
	defer b.mu.Unlock()
	take := func(class int) *Stream {
		s := b.lists[class]
		if s != nil {
			b.lists[class] = s.bigNext
		}
		return s
	}
	if s := take(classEnded); s != nil {
		return s
	}
	for class := classes - 1; class >= classLive; class-- {
		if s := take(class); s != nil {
			return s
		}
	}
	return nil
}

// relieve trims rings until the budget is kept, within limits: what a Hold
// protects stays. The caller holds no locks.
func (b *budget) relieve() {
	for range 16 {
		if b.used.Load() <= b.limit {
			return
		}
		s := b.next()
		if s == nil {
			return
		}
		s.relieve(b)
	}
}
