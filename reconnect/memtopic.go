package reconnect

import (
	"context"
	"math"
	"time"
	"unsafe"

	"ssegate/sse"
)

// topic is what a log has besides when it numbers by itself. Its numbering
// stands in the log's tail. A memLog with a topic outlives its frames.
type topic struct {
	hole      bool  // the numbering begins at 2
	time      int64 // of the last frame, Unix milliseconds
	gone      uint64
	goneTime  int64 // gone is the Seq of the last frame that was dropped, this its time
	passed    sse.Pos
	passedEnd int64 // Unix nanoseconds; 0 means never

	once, once0 map[string]taken // the ids of late, and those from before
	begun       int64            // when once was, Unix milliseconds
	width       int64            // how long it is kept on, milliseconds
	onceBytes   int64            // of once, as accounted
	once0Bytes  int64
}

// taken is what is known of a post besides its id.
type taken struct {
	pos sse.Pos
	end int64 // when it is forgotten, Unix milliseconds
}

const (
	topicCost = int64(unsafe.Sizeof(topic{}))
	takenCost = int64(unsafe.Sizeof(taken{})) + 48 // and its place in a map
)

// lost notes that a frame is no longer kept.
func (t *topic) lost(f sse.Frame) { t.gone, t.goneTime = f.Pos.Seq, f.Time }

// raise keeps numberings that begin from now on above pos.
func (m *Memory) raise(pos sse.Pos) {
	above := pos.Seq/EpochSeqs + 1
	for was := m.floor.Load(); was < above; was = m.floor.Load() {
		if m.floor.CompareAndSwap(was, above) {
			return
		}
	}
}

// refresh drops the frames of a topic that are past their time. l must be
// locked.
func (m *Memory) refresh(l *memLog, now int64) {
	at := l.stale.Load()
	if at == 0 || at > now {
		return
	}
	l.stale.Store(0)
	m.shift(l, ReasonTTL, 0, math.MaxInt64)
	l.tail.Kind = 0
	m.forget(l, now/int64(time.Millisecond))
}

// forget drops the ids of a topic, which must be locked, whose time is over.
func (m *Memory) forget(l *memLog, now int64) {
	t := l.topic
	if now-t.begun >= t.width {
		m.account(l, 0, -t.once0Bytes)
		t.once0, t.once0Bytes = nil, 0
	}
	if now-t.begun >= 2*t.width {
		m.account(l, 0, -t.onceBytes)
		t.once, t.onceBytes = nil, 0
	}
}

// number makes l, which must be locked, a topic whose numbering has come as
// far as after, and puts off the end of that. One that begins anew has lost
// what was up to after, so it begins with a hole. It reports whether l has no
// place in the order of eviction yet.
func (m *Memory) number(l *memLog, after sse.Pos, ttl time.Duration, now int64) (unplaced bool) {
	unplaced = l.topic == nil && !l.queued
	first := l.topic == nil
	if first {
		l.topic = new(topic)
		m.account(l, 0, topicCost)
	}
	if known := l.tail.Pos.Seq; first || known < after.Seq {
		epoch := max(uint64(max(1, now/int64(time.Millisecond))), m.floor.Load(), max(known, after.Seq)/EpochSeqs+1)
		l.tail = Tail{Pos: Origin(epoch)}
		if l.topic.hole = known < after.Seq; l.topic.hole {
			l.tail.Pos.Seq++
		}
	}
	if end := deadline(now, NumberingTTL(ttl)); end == 0 || end > l.expires.Load() {
		l.expires.Store(end)
	}
	l.touched = now
	return unplaced
}

// Open implements [Journal].
func (m *Memory) Open(ctx context.Context, topics []OpenTopic) ([]sse.Pos, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	now := m.now().UnixNano()
	tails := make([]sse.Pos, len(topics))
	for i := range topics {
		t := &topics[i]
		l := m.locked(t.Stream, now)
		unplaced := m.number(l, t.After, t.TTL, now)
		tails[i] = l.tail.Pos
		l.mu.Unlock()
		if unplaced {
			m.requeue(l)
		}
	}
	m.spare()
	return tails, nil
}

// spare evicts if there is too much.
func (m *Memory) spare() {
	if m.max > 0 && m.bytes.Load() > m.max {
		m.evict()
	}
}

// Publish implements [Journal].
func (m *Memory) Publish(ctx context.Context, batch []Posts) []Posted {
	done := make([]Posted, len(batch))
	if err := ctx.Err(); err != nil {
		for i := range done {
			done[i].Err = err
		}
		return done
	}
	posts := 0
	for i := range batch {
		posts += len(batch[i].Posts)
	}
	pos := make([]sse.Pos, posts) // of all topics
	now := m.now().UnixNano()
	for i := range batch {
		n := len(batch[i].Posts)
		if n == 0 {
			continue
		}
		done[i].Pos, pos = pos[:n:n], pos[n:]
		m.publish(&batch[i], &done[i], now)
	}
	m.spare()
	if m.followers != nil {
		ids := make([]sse.StreamID, len(batch))
		for i := range batch {
			ids[i] = batch[i].Stream
		}
		for i, who := range m.followers(ids) {
			done[i].Followers = who
		}
	}
	return done
}

func (m *Memory) publish(b *Posts, d *Posted, now int64) {
	l := m.locked(b.Stream, now)
	m.number(l, b.After, b.Limits.TTL, now)
	t := l.topic
	t.time = max(t.time, now/int64(time.Millisecond))
	d.Time = t.time
	f := sse.Frame{Kind: sse.KindEvent, Pos: l.tail.Pos, Time: t.time}
	size, added := int64(0), 0
	for i := range b.Posts {
		p := &b.Posts[i]
		if p.Once > 0 && len(p.ID) > 0 {
			if was, ok := t.seen(p.ID); ok {
				if d.Dup == nil {
					d.Dup = make([]bool, len(b.Posts))
				}
				d.Pos[i], d.Dup[i] = was, true
				continue
			}
			m.remember(l, p, sse.Pos{Epoch: f.Pos.Epoch, Seq: f.Pos.Seq + 1})
		}
		f.Pos.Seq++
		f.ID, f.Meta, f.Block = p.ID, p.Meta, p.Block
		d.Pos[i] = f.Pos
		size += l.frames.push(&f)
		added++
	}
	if added > 0 {
		l.tail = Tail{Pos: f.Pos, Kind: sse.KindEvent}
		m.account(l, added, size)
		if n := b.Limits.Length; n > 0 {
			m.shift(l, ReasonLength, n, math.MaxInt64)
		}
		l.stale.Store(deadline(now, b.Limits.TTL))
	}
	queue := !l.queued
	l.mu.Unlock()
	if queue {
		m.requeue(l)
	}
}

// seen returns where a post with that id stands that is remembered.
func (t *topic) seen(id []byte) (sse.Pos, bool) {
	was, ok := t.once[string(id)]
	if !ok {
		was, ok = t.once0[string(id)]
	}
	if !ok || t.time >= was.end {
		return sse.Pos{}, false
	}
	return was.pos, true
}

// remember notes that a post is taken at pos. Ids are kept in two
// generations, each as long as the longest Once, so that what is old goes at
// once. l must be locked.
func (m *Memory) remember(l *memLog, p *Post, pos sse.Pos) {
	t := l.topic
	t.width = max(t.width, p.Once.Milliseconds())
	if t.once == nil || t.time-t.begun >= t.width {
		m.account(l, 0, -t.once0Bytes)
		t.once0, t.once0Bytes = t.once, t.onceBytes
		t.once, t.onceBytes = map[string]taken{}, 0
		t.begun = t.time
	}
	if _, ok := t.once[string(p.ID)]; !ok {
		size := takenCost + int64(len(p.ID))
		t.onceBytes += size
		m.account(l, 0, size)
	}
	t.once[string(p.ID)] = taken{pos, t.time + p.Once.Milliseconds()}
}

// numbered returns the log of a topic, locked, or nil.
func (m *Memory) numbered(ctx context.Context, stream sse.StreamID) (*memLog, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	l := m.open(stream, m.now().UnixNano())
	if l == nil {
		return nil, ErrUnknown
	}
	if l.topic == nil {
		l.mu.Unlock()
		return nil, ErrUnknown
	}
	return l, nil
}

// Since implements [Journal].
func (m *Memory) Since(ctx context.Context, stream sse.StreamID, at time.Time) (sse.Pos, error) {
	l, err := m.numbered(ctx, stream)
	if err != nil {
		return sse.Pos{}, err
	}
	defer l.mu.Unlock()
	ms, t := at.UnixMilli(), l.topic
	f, ok := l.frames.since(ms)
	if !ok {
		origin := Origin(l.tail.Pos.Epoch)
		if l.frames.n == 0 && l.tail.Pos.Seq > origin.Seq && t.goneTime >= ms {
			return origin, nil // it was there
		}
		if t.hole && l.tail.Pos.Seq == origin.Seq+1 && ms <= int64(origin.Epoch) {
			return origin, nil // the hole may be of that time
		}
		return l.tail.Pos, nil
	}
	before := sse.Pos{Epoch: f.Pos.Epoch, Seq: f.Pos.Seq - 1}
	origin := Origin(f.Pos.Epoch)
	if l.hole(f) {
		if ms <= int64(origin.Epoch) {
			return origin, nil
		}
		return before, nil
	}
	if f.Pos == l.frames.first().Pos && before != origin && (t.gone != before.Seq || t.goneTime >= ms) {
		return origin, nil // what is missing before it may be of that time
	}
	return before, nil
}

// hole reports whether f is the first frame of a numbering that begins with a
// hole. l must be locked.
func (l *memLog) hole(f sse.Frame) bool {
	phantom := Origin(f.Pos.Epoch).Seq + 1
	if f.Pos.Seq != phantom+1 {
		return false
	}
	if f.Pos == l.frames.first().Pos {
		return l.topic.hole && f.Pos.Epoch == l.tail.Pos.Epoch
	}
	for at := range l.frames.from(phantom) {
		return f.Pos == at.Pos
	}
	return false
}

// Back implements [Journal].
func (m *Memory) Back(ctx context.Context, stream sse.StreamID, n int) (sse.Pos, error) {
	l, err := m.numbered(ctx, stream)
	if err != nil {
		return sse.Pos{}, err
	}
	defer l.mu.Unlock()
	if n = min(n, l.frames.n); n <= 0 {
		return l.tail.Pos, nil
	}
	pos := l.frames.back(n).Pos
	pos.Seq--
	return pos, nil
}

// Pass implements [Journal]. It is noted with the topic, and goes with it; of
// what is no topic nothing is noted.
func (m *Memory) Pass(ctx context.Context, stream sse.StreamID, pos sse.Pos, ttl time.Duration) error {
	l, err := m.numbered(ctx, stream)
	if err == ErrUnknown {
		return nil
	}
	if err != nil {
		return err
	}
	defer l.mu.Unlock()
	t, now := l.topic, m.now().UnixNano()
	end := deadline(now, ttl)
	if old := t.passed == (sse.Pos{}) || t.passedEnd != 0 && t.passedEnd <= now; old {
		t.passed, t.passedEnd = pos, end
		return nil
	}
	if t.passed.Seq < pos.Seq {
		t.passed = pos
	}
	if t.passedEnd != 0 && (end == 0 || end > t.passedEnd) {
		t.passedEnd = end
	}
	return nil
}

// Passed implements [Journal].
func (m *Memory) Passed(ctx context.Context, stream sse.StreamID) (sse.Pos, error) {
	l, err := m.numbered(ctx, stream)
	if err == ErrUnknown {
		return sse.Pos{}, nil
	}
	if err != nil {
		return sse.Pos{}, err
	}
	defer l.mu.Unlock()
	t := l.topic
	if t.passedEnd != 0 && t.passedEnd <= m.now().UnixNano() {
		return sse.Pos{}, nil
	}
	return t.passed, nil
}
