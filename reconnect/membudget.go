package reconnect

import (
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"ssegate/sse"
)

// logCost is what is counted for each log besides its frames: with its place in
// a map.
const logCost = int64(unsafe.Sizeof(memLog{})) + 64

// Reason says why a Memory dropped frames; used as a metric label.
type Reason uint8

const (
	// ReasonLength: the log has its Limits.Length.
	ReasonLength Reason = iota
	// ReasonTTL: the log was past its Limits.TTL.
	ReasonTTL
	// ReasonEnded: the room was wanted, and the stream had ended.
	ReasonEnded
	// ReasonLive: the room was wanted, and nothing that had ended was left.
	// The log goes on and knows its tail, but no longer those frames.
	ReasonLive
	// ReasonIdle: the room was wanted, and no log had frames any more. A topic
	// lost its numbering, and the ids that it remembered.
	ReasonIdle

	reasons = iota
)

var reasonNames = [reasons]string{"length", "ttl", "memory_ended", "memory_live", "memory_idle"}

func (r Reason) String() string { return reasonNames[r] }

// Drops counts what went for one reason.
type Drops struct {
	Logs   uint64 // dropped whole
	Frames uint64
}

type drops struct{ logs, frames atomic.Uint64 }

// MemoryStats is what a Memory holds now and what it has dropped so far.
type MemoryStats struct {
	Logs, Frames int64
	Bytes        int64 // as they count for MaxBytes
	Dropped      [reasons]Drops
}

// Stats may be called at any time; the numbers are not of one instant.
func (m *Memory) Stats() MemoryStats {
	s := MemoryStats{Logs: m.logs.Load(), Frames: m.frames.Load(), Bytes: m.bytes.Load()}
	for i := range m.drops {
		s.Dropped[i] = Drops{Logs: m.drops[i].logs.Load(), Frames: m.drops[i].frames.Load()}
	}
	return s
}

// account adds to what l holds; l must be locked.
func (m *Memory) account(l *memLog, frames int, bytes int64) {
	l.bytes += bytes
	m.bytes.Add(bytes)
	m.frames.Add(int64(frames))
}

// shift drops the oldest frames of l, which must be locked, until only keep
// are left or room bytes are free.
func (m *Memory) shift(l *memLog, why Reason, keep int, room int64) {
	var size int64
	had := l.frames.n
	for l.frames.n > keep && size < room {
		last, freed := l.frames.shift(l.frames.n-keep, room-size)
		if l.topic != nil {
			l.topic.lost(last)
		}
		size += freed
	}
	if n := had - l.frames.n; n > 0 {
		m.account(l, -n, -size)
		m.drops[why].frames.Add(uint64(n))
	}
}

// order is the order in which logs give way: those that have ended, by when
// they did, then the live ones by their last Append, then topics without
// frames. A live log that was appended to stays where it is; it is moved when
// its turn has come, so that Append need not come here.
type order struct {
	mu                sync.Mutex
	ended, live, idle queue
}

// queue is a list of logs, the next to go first.
type queue struct{ first, last *memLog }

// link is a log's place in a queue.
type link struct {
	in         *queue // nil: in none
	prev, next *memLog
	since      int64 // what touched was when it was queued
}

func (q *queue) push(l *memLog) {
	l.in, l.prev, l.next = q, q.last, nil
	if q.last != nil {
		q.last.next = l
	} else {
		q.first = l
	}
	q.last = l
}

func (l *memLog) unlink() {
	q := l.in
	if q == nil {
		return
	}
	if l.prev != nil {
		l.prev.next = l.next
	} else {
		q.first = l.next
	}
	if l.next != nil {
		l.next.prev = l.prev
	} else {
		q.last = l.prev
	}
	l.link = link{}
}

// requeue puts l where it belongs now: it is new, has ended, or lives again.
func (m *Memory) requeue(l *memLog) {
	m.order.mu.Lock()
	defer m.order.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unlink()
	if l.gone {
		return
	}
	q := &m.order.live
	switch {
	case l.tail.Kind == sse.KindEnd:
		q = &m.order.ended
	case l.topic != nil && l.frames.n == 0:
		q = &m.order.idle
	}
	q.push(l)
	l.queued, l.since = q != &m.order.idle, l.touched
}

// evict makes room: a little more than is wanted, so that not every Append
// has to.
func (m *Memory) evict() {
	goal := m.max - m.max/32
	m.order.mu.Lock()
	defer m.order.mu.Unlock()
	for m.bytes.Load() > goal {
		if l := m.order.ended.first; l != nil {
			l.mu.Lock()
			m.drop(l, ReasonEnded)
			l.mu.Unlock()
			continue
		}
		l := m.order.live.first
		if l == nil {
			l = m.order.idle.first
		}
		if l == nil {
			return
		}
		l.mu.Lock()
		if q := l.in; l.touched > l.since {
			since := l.touched
			l.unlink()
			q.push(l)
			l.since = since
		} else if q == &m.order.idle {
			m.drop(l, ReasonIdle)
		} else {
			m.shift(l, ReasonLive, 0, m.bytes.Load()-goal)
			if l.frames.n == 0 {
				l.unlink() // nothing to be had until it is appended to
				l.queued = false
				if l.topic != nil {
					m.forget(l, m.now().UnixMilli())
					m.order.idle.push(l)
					l.since = l.touched
				}
			}
		}
		l.mu.Unlock()
	}
}

// expire drops l if its time is over at now and nobody else did it before.
func (m *Memory) expire(l *memLog, now int64) bool {
	m.order.mu.Lock()
	defer m.order.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone || !l.expired(now) {
		return false
	}
	m.drop(l, ReasonTTL)
	return true
}

// drop forgets l. order.mu and l.mu must be held.
func (m *Memory) drop(l *memLog, why Reason) {
	s := m.shard(l.id)
	s.mu.Lock()
	delete(s.logs, l.id)
	s.mu.Unlock()
	m.drops[why].logs.Add(1)
	m.drops[why].frames.Add(uint64(l.frames.n))
	m.account(l, -l.frames.n, -l.bytes)
	m.logs.Add(-1)
	if l.topic != nil {
		m.raise(l.tail.Pos)
		l.topic = nil
	}
	l.frames = frames{}
	l.gone = true
	l.unlink()
}

// settleAfter is when a ring that nothing is appended to has been made smaller,
// if it ever is.
const settleAfter = time.Minute

// Sweep frees the logs that are past their TTL, and what rings that have become
// quiet do not use any more, in time that grows with the number of logs. It
// returns how many were past it, not counting topics that live on without their
// frames. It may run beside all else; the owner of m calls it now and then.
func (m *Memory) Sweep() (swept int) {
	now := m.now().UnixNano()
	var old []*memLog
	for i := range m.shards {
		s := &m.shards[i]
		old = old[:0]
		s.mu.RLock()
		for _, l := range s.logs {
			if at := l.stale.Load(); l.expired(now) || at != 0 && at <= now || l.loose.Load() {
				old = append(old, l)
			}
		}
		s.mu.RUnlock()
		for _, l := range old {
			if l.expired(now) && m.expire(l, now) {
				swept++
				continue
			}
			l.mu.Lock()
			m.refresh(l, now)
			if now-l.touched >= int64(settleAfter) {
				l.frames.settle()
				l.loose.Store(false)
			}
			l.mu.Unlock()
		}
	}
	return swept
}
