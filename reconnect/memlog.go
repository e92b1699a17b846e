package reconnect

import (
	"bytes"
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"ssegate/sse"
)

// MemoryConfig is what a Memory is made from.
type MemoryConfig struct {
	// MaxBytes bounds what all logs together take, in bytes, the frames'
	// own bytes included, even where others share them. 0 means no bound.
	MaxBytes int64
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Followers tells Publish which nodes follow each stream; nil means
	// nobody. It is called with no lock held.
	Followers func(streams []sse.StreamID) [][]string
}

// Memory is the Journal of one process: of a node that stands alone, or of several
// that run side by side in a test. It keeps the frames that it is given, not
// copies of them. It starts no goroutine: a log past its TTL is unknown at
// once, and its memory is freed by whoever asks for it next, by Sweep, or when
// the room is wanted. No method blocks, and the only error besides the
// sentinels is that of a ctx which is done.
//
// Append takes constant time a frame, Read finds its place in logarithmic
// time, and neither depends on how many logs there are.
type Memory struct {
	now    func() time.Time
	max    int64
	shards [64]shard
	order  order
	bytes  atomic.Int64 // of all logs
	frames atomic.Int64
	logs   atomic.Int64
	drops  [reasons]drops
	floor  atomic.Uint64 // epochs of topics begin here, or later

	followers func([]sse.StreamID) [][]string
}

var _ Journal = (*Memory)(nil)

// shard is a part of the logs, by the first byte of their random ids.
type shard struct {
	mu   sync.RWMutex
	logs map[sse.StreamID]*memLog
	_    [24]byte // to a cache line of its own, more or less
}

// memLog is one stream's log. Locks are taken in this order: order.mu,
// memLog.mu, shard.mu.
type memLog struct {
	id      sse.StreamID
	expires atomic.Int64 // Unix nanoseconds; 0 means never
	stale   atomic.Int64 // the same of a topic's frames, which end before the log
	loose   atomic.Bool  // has not been settled since the last Append

	mu      sync.Mutex
	gone    bool // no longer in its shard
	queued  bool // has a place in the order of eviction
	tail    Tail // zero before the first Append
	frames  frames
	bytes   int64
	touched int64  // the last Append, Unix nanoseconds
	topic   *topic // nil if it is none

	link // guarded by order.mu
}

// NewMemory returns an empty log.
func NewMemory(cfg MemoryConfig) *Memory {
	m := &Memory{now: cfg.Now, max: cfg.MaxBytes, followers: cfg.Followers}
	if m.now == nil {
		m.now = time.Now
	}
	for i := range m.shards {
		m.shards[i].logs = map[sse.StreamID]*memLog{}
	}
	return m
}

func (m *Memory) shard(id sse.StreamID) *shard { return &m.shards[id[0]%byte(len(m.shards))] }

// lookup returns the log of id, or nil when there is none at now.
func (m *Memory) lookup(id sse.StreamID, now int64) *memLog {
	s := m.shard(id)
	s.mu.RLock()
	l := s.logs[id]
	s.mu.RUnlock()
	if l != nil && l.expired(now) {
		m.expire(l, now)
		return nil
	}
	return l
}

// create returns the log of id, a new one if need be.
func (m *Memory) create(id sse.StreamID, now int64) *memLog {
	if l := m.lookup(id, now); l != nil {
		return l
	}
	s := m.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.logs[id]
	if l == nil {
		l = &memLog{id: id, bytes: logCost}
		s.logs[id] = l
		m.bytes.Add(logCost)
		m.logs.Add(1)
	}
	return l
}

// locked returns the log of id, a new one if need be, locked.
func (m *Memory) locked(id sse.StreamID, now int64) *memLog {
	l := m.create(id, now)
	for l.mu.Lock(); l.gone; l.mu.Lock() {
		l.mu.Unlock()
		l = m.create(id, now)
	}
	m.refresh(l, now)
	return l
}

func (l *memLog) expired(now int64) bool {
	at := l.expires.Load()
	return at != 0 && at <= now
}

// Append implements [Log].
func (m *Memory) Append(ctx context.Context, batches []Batch) []error {
	var errs []error
	now := m.now().UnixNano()
	fail := ctx.Err()
	for i := range batches {
		err := fail
		if err == nil {
			err = m.append(&batches[i], now)
		}
		if err != nil {
			if errs == nil {
				errs = make([]error, len(batches))
			}
			errs[i] = err
		}
	}
	if m.max > 0 && m.bytes.Load() > m.max {
		m.evict()
	}
	return errs
}

func (m *Memory) append(b *Batch, now int64) error {
	if err := b.Check(); err != nil || len(b.Runs) == 0 {
		return err
	}
	var l *memLog
	if !b.Follows {
		l = m.locked(b.Stream, now)
	} else if l = m.open(b.Stream, now); l == nil {
		return ErrUnknown
	}
	first, had := b.First(), uint64(0)
	switch {
	case first.Epoch < l.tail.Pos.Epoch:
		l.mu.Unlock()
		return ErrFenced
	case first.Epoch == l.tail.Pos.Epoch:
		if first.Seq <= l.tail.Pos.Seq {
			had = l.tail.Pos.Seq - first.Seq + 1
		}
	default:
		for l.frames.n > 0 && l.frames.last().Pos.Seq >= first.Seq {
			m.account(l, -1, -l.frames.pop())
		}
	}
	wasEnded := l.tail.Kind == sse.KindEnd
	var size int64
	was := l.frames.n
	for i := range b.Runs {
		r := &b.Runs[i]
		n := r.Len()
		skip := int(min(uint64(n), had))
		had -= uint64(skip)
		part := r.Part(skip, n)
		size += part.Size()
		l.frames.add(part)
	}
	if l.frames.n > was {
		last := l.frames.last()
		l.tail = Tail{Pos: last.Pos, Kind: last.Kind, End: last.End}
	}
	m.account(l, l.frames.n-was, size)
	if n := b.Limits.Length; n > 0 {
		m.shift(l, ReasonLength, n, math.MaxInt64)
	}
	l.expires.Store(deadline(now, b.Limits.TTL))
	l.loose.Store(true)
	l.touched = now
	queue := !l.queued || wasEnded != (l.tail.Kind == sse.KindEnd)
	l.mu.Unlock()
	if queue {
		m.requeue(l)
	}
	return nil
}

// deadline is when something with that TTL ends; 0 for never.
func deadline(now int64, ttl time.Duration) int64 {
	if ttl <= 0 {
		return 0
	}
	return now + int64(ttl)
}

// Read implements [Log].
func (m *Memory) Read(ctx context.Context, stream sse.StreamID, after sse.Pos, most int) ([]sse.Frame, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	l := m.open(stream, m.now().UnixNano())
	if l == nil {
		return nil, ErrUnknown
	}
	defer l.mu.Unlock()
	if l.tail.Pos.Seq <= after.Seq {
		return nil, nil
	}
	limit := max(1, most)
	var out []sse.Frame
	var gap error
	next := after.Seq + 1
	for f := range l.frames.from(next) {
		if f.Pos.Seq != next {
			if out != nil {
				break
			}
			gap = &Gap{From: next, To: f.Pos.Seq - 1}
			next = f.Pos.Seq
		}
		if out == nil {
			room := min(uint64(l.frames.n), l.tail.Pos.Seq-next+1)
			out = make([]sse.Frame, 0, min(room, uint64(limit)))
		}
		out = append(out, f)
		next++
		if len(out) == limit {
			break
		}
	}
	if out == nil {
		return nil, &Gap{From: next, To: l.tail.Pos.Seq}
	}
	return out, gap
}

// open returns the log of a stream, locked, or nil.
func (m *Memory) open(stream sse.StreamID, now int64) *memLog {
	l := m.lookup(stream, now)
	if l == nil {
		return nil
	}
	l.mu.Lock()
	if l.gone || l.tail == (Tail{}) { // dropped, or made by an Append that has not come so far
		l.mu.Unlock()
		return nil
	}
	m.refresh(l, now)
	return l
}

// Tails implements [Log].
func (m *Memory) Tails(ctx context.Context, streams []sse.StreamID) ([]Tail, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	now := m.now().UnixNano()
	tails := make([]Tail, len(streams))
	for i, id := range streams {
		if l := m.open(id, now); l != nil {
			tails[i] = l.tail
			l.mu.Unlock()
		}
	}
	return tails, nil
}

// Find implements [Log].
func (m *Memory) Find(ctx context.Context, stream sse.StreamID, id []byte) (sse.Pos, error) {
	if err := ctx.Err(); err != nil {
		return sse.Pos{}, err
	}
	l := m.open(stream, m.now().UnixNano())
	if l == nil {
		return sse.Pos{}, ErrUnknown
	}
	defer l.mu.Unlock()
	if len(id) > 0 {
		for f := range l.frames.from(0) {
			if bytes.Equal(f.ID, id) {
				return f.Pos, nil
			}
		}
	}
	return sse.Pos{}, ErrUnknown
}

// Fence implements [Log].
func (m *Memory) Fence(ctx context.Context, stream sse.StreamID, epoch uint64, limits Limits) (sse.Frame, error) {
	if err := ctx.Err(); err != nil {
		return sse.Frame{}, err
	}
	now := m.now().UnixNano()
	l := m.open(stream, now)
	if l == nil {
		return sse.Frame{}, ErrUnknown
	}
	if epoch <= l.tail.Pos.Epoch {
		l.mu.Unlock()
		return sse.Frame{}, ErrFenced
	}
	last := sse.Frame{Pos: l.tail.Pos}
	if l.frames.n > 0 {
		last = l.frames.last()
	}
	l.tail = Tail{Pos: sse.Pos{Epoch: epoch, Seq: l.tail.Pos.Seq}, Kind: sse.KindFence}
	l.expires.Store(deadline(now, limits.TTL))
	l.touched = now
	l.mu.Unlock()
	m.requeue(l) // it lives again
	return last, nil
}

// Touch implements [Log].
func (m *Memory) Touch(ctx context.Context, streams []sse.StreamID, ttl time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	now := m.now().UnixNano()
	until, numbering := deadline(now, ttl), deadline(now, NumberingTTL(ttl))
	for _, id := range streams {
		l := m.open(id, now)
		if l == nil {
			continue
		}
		if l.topic != nil {
			putOff(&l.stale, until)
			putOff(&l.expires, numbering)
		} else {
			putOff(&l.expires, until)
		}
		l.mu.Unlock()
	}
	return nil
}

// putOff moves an end to a later time.
func putOff(end *atomic.Int64, until int64) {
	if was := end.Load(); was != 0 && (until == 0 || until > was) {
		end.Store(until)
	}
}
