package hub

import (
	"sync"
	"sync/atomic"
	"time"
)

// wheelSlots is how many ticks ahead a follower can be noted. What is further
// away is looked at on the way.
const wheelSlots = 512

// A wheel is the one timer of all followers. Each is in it once, at the time
// when it is next worth looking at; writing an event does not touch it.
type wheel struct {
	start time.Time
	now   atomic.Uint32

	mu     sync.Mutex
	slots  [wheelSlots]*Follower
	closed bool
}

// put notes a follower for a tick, instead of the one noted before; false
// when the wheel stands still for ever.
func (w *wheel) put(f *Follower, tick uint32) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return false
	}
	w.unlink(f)
	now := w.now.Load()
	in := min(max(int32(tick-now), 1), wheelSlots-1)
	at := (now + uint32(in)) % wheelSlots
	f.wheelAt = int32(at)
	f.wheelNext = w.slots[at]
	if f.wheelNext != nil {
		f.wheelNext.wheelPrev = f
	}
	w.slots[at] = f
	return true
}

func (w *wheel) remove(f *Follower) {
	w.mu.Lock()
	w.unlink(f)
	w.mu.Unlock()
}

func (w *wheel) unlink(f *Follower) {
	if f.wheelAt < 0 {
		return
	}
	if f.wheelPrev != nil {
		f.wheelPrev.wheelNext = f.wheelNext
	} else {
		w.slots[f.wheelAt] = f.wheelNext
	}
	if f.wheelNext != nil {
		f.wheelNext.wheelPrev = f.wheelPrev
	}
	f.wheelPrev, f.wheelNext, f.wheelAt = nil, nil, -1
}

// pop takes one follower out of a slot.
func (w *wheel) pop(at uint32) *Follower {
	w.mu.Lock()
	defer w.mu.Unlock()
	f := w.slots[at]
	if f != nil {
		w.unlink(f)
	}
	return f
}

// turn moves the time on to now and looks at who was noted for the ticks
// between. One goroutine calls it.
func (w *wheel) turn(now uint32) {
	for last := w.now.Load(); last != now; {
		last++
		w.now.Store(last)
		for f := w.pop(last % wheelSlots); f != nil; f = w.pop(last % wheelSlots) {
			f.tick(last)
		}
	}
}

// close ends all followers and takes no more.
func (w *wheel) close() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	for at := range uint32(wheelSlots) {
		for f := w.pop(at); f != nil; f = w.pop(at) {
			f.end(ReasonShutdown)
		}
	}
}
