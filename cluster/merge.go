package cluster

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"time"

	"ssegate/hub"
	"ssegate/reconnect"
	"ssegate/sse"
)

const (
	// mergeEvents and mergeBytes are what is kept for a connection that
	// follows several topics: what is on its way to it, and no more.
	mergeEvents = 32
	mergeBytes  = 32 << 10
	// mergePage is how many messages of a topic are merged at once.
	mergePage = 8
	// mergePause is how long a topic is left alone that cannot be read.
	mergePause = 100 * time.Millisecond
)

// A merger brings several topics to one connection: it has a stream of its own
// in the hub, and a goroutine that puts the topics' frames into it as fast as
// the client takes them. A client that is slow waits for the log, not in
// memory.
type merger struct {
	s     *Subscription
	ts    *topics
	out   *hub.Stream
	parts []*part // in the order of reconnect.SortTopics
	set   reconnect.CursorSet
	from  CursorFrom
	ids   mergeIDs
	ctx   context.Context
	end   context.CancelFunc
	wake  chan struct{}

	// Of the goroutine.
	next  uint64 // Seq in out
	frame []sse.Frame
	buf   []byte
	seqs  []uint64

	mu    sync.Mutex
	dirty []*part
	steps []step // what the client may not have yet
}

// part is one of a merger's topics.
type part struct {
	m      *merger
	t      *topic
	filter Filter
	want   func(hub.FrameMeta) bool
	order  *order // nil: it has begun
	gap    uint64 // where a gap begins that is to be told before all else

	// Under m.mu.
	since, at uint64
	marked    bool
}

// step is a frame of out: the client that has it has of a part's topic what is
// up to seq.
type step struct {
	out  uint64
	part *part
	seq  uint64
}

// merge prepares to bring topics to a subscription.
func (n *Node) merge(s *Subscription, from CursorFrom, o *SubscribeOptions) error {
	m := &merger{s: s, ts: &n.topics, from: from, wake: make(chan struct{}, 1)}
	ids := make([]sse.StreamID, len(s.topics))
	for i, t := range s.topics {
		ids[i] = t.ID
	}
	m.set = reconnect.SortTopics(ids)
	m.parts = make([]*part, len(ids))
	for i, t := range s.topics {
		tp, err := n.topics.enter(t, o)
		if err != nil {
			m.release()
			return err
		}
		p := &part{m: m, t: tp, filter: s.filter}
		p.filter.Secondary = i > 0
		p.want = p.filter.Want(tp.ring)
		at, _ := slices.BinarySearchFunc(ids, t.ID, func(a, b sse.StreamID) int { return bytes.Compare(a[:], b[:]) })
		m.parts[at] = p
		tp.watch(p)
		// What is published from now on is theirs: before the client can see
		// that it follows, however long the rest takes.
		p.begin(From{Last: from.Last, Since: from.Since})
	}
	m.ids.init(m)
	m.out = n.cfg.Hub.Open(hub.StreamOptions{
		Heartbeat:  o.HeartbeatText,
		RingEvents: mergeEvents, RingBytes: mergeBytes,
		Joined: joined,
		Left:   m.left,
	})
	s.merge = m
	m.ctx, m.end = context.WithCancel(n.ctx)
	return nil
}

// start begins to bring what there is, once the client follows: else the ring
// would take more than it has room for.
func (m *merger) start() {
	if !m.ts.spawn(m.run) {
		m.end()
		m.out.Close()
		m.release()
	}
}

func (m *merger) left(_ *hub.Follower, why hub.Reason) {
	m.ts.gone(m.s)
	m.end()
	m.s.leave(why)
}

// release gives the topics back.
func (m *merger) release() {
	for _, p := range m.parts {
		if p != nil {
			p.t.unwatch(p)
			m.ts.release(p.t)
		}
	}
}

// mark says that a topic has news. It never waits.
func (p *part) mark() {
	m := p.m
	m.mu.Lock()
	if !p.marked {
		p.marked = true
		m.dirty = append(m.dirty, p)
	}
	m.mu.Unlock()
	nudge(m.wake)
}

// reach is Subscription.reach.
func (m *merger) reach(id sse.StreamID) (since, at uint64) {
	i := slices.IndexFunc(m.parts, func(p *part) bool { return p.t.ID == id })
	if i < 0 {
		return 0, 0
	}
	has := m.s.handed()
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.parts[i]
	since, at = p.since, p.at
	for _, s := range m.steps {
		if s.part == p && s.out > has {
			at = max(since, s.seq-1)
			break
		}
	}
	return since, at
}

// run merges until the client has left or the node ends.
func (m *merger) run() {
	ctx := m.ctx
	defer m.release()
	defer m.out.Close()
	if !m.begin(ctx) {
		return
	}
	m.ids.ahead()
	var later []*part // that could not be read
	for {
		m.mu.Lock()
		due := append(later, m.dirty...)
		later = nil
		m.dirty = nil
		for _, p := range due {
			p.marked = false
		}
		m.mu.Unlock()
		for len(due) > 0 {
			// In turns, so that a busy topic does not keep the others waiting.
			more := due[:0]
			for _, p := range due {
				switch n, err := m.page(ctx, p); {
				case ctx.Err() != nil:
					return
				case err != nil:
					later = append(later, p)
				case n:
					more = append(more, p)
				}
			}
			due = more
		}
		wait := m.ids.renew()
		if len(later) > 0 {
			wait = mergePause
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			return
		case <-t.C:
		case <-m.wake:
			if len(later) > 0 {
				sleep(ctx, mergePause/10)
			}
		}
		t.Stop()
	}
}

// page brings the next messages of a topic, once there is room for them; more
// when there may be others behind them.
func (m *merger) page(ctx context.Context, p *part) (more bool, err error) {
	tail, _, _ := p.t.position()
	if p.at >= tail.Seq {
		return false, nil
	}
	if err := m.out.Wait(ctx); err != nil {
		return false, err
	}
	frames := p.t.hub.Frames(p.at, mergePage, mergeBytes)
	for i := range frames {
		if frames[i].Pos.Seq != p.at+1+uint64(i) {
			frames = frames[:i] // what is missing there, the log knows
			break
		}
	}
	var gap *reconnect.Gap
	if len(frames) == 0 {
		frames, gap, err = m.fromLog(ctx, p)
		if err != nil {
			return false, err
		}
	}
	if gap != nil {
		p.t.ts.n.count.gaps.Add(1)
		if p.t.cutGap {
			m.cut()
			return false, nil
		}
		m.tell(reconnect.AppendGap(nil, gap.From, gap.To, reconnect.GapTrimmed, sse.LF))
		m.reached(p, gap.To, false)
	}
	for i := range frames {
		m.add(p, &frames[i], tail.Seq)
	}
	m.out.Flush()
	return len(frames) > 0 || gap != nil, nil
}

// fromLog reads what the topic's ring does not have.
func (m *merger) fromLog(ctx context.Context, p *part) ([]sse.Frame, *reconnect.Gap, error) {
	select {
	case m.ts.reads <- struct{}{}:
		defer func() { <-m.ts.reads }()
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, topicWait)
	defer cancel()
	return p.t.read(ctx, sse.Pos{Seq: p.at}, mergePage)
}

// add puts a message into the connection's stream, unless it is not for it.
func (m *merger) add(p *part, f *sse.Frame, tail uint64) {
	if f.Pos.Seq <= p.at {
		return
	}
	if f.Kind == sse.KindNote { // a new numbering begins
		m.reached(p, f.Pos.Seq, false)
		return
	}
	wanted := f.Meta == nil || p.want(hub.FrameMeta{Meta: f.Meta, Time: f.Time, Behind: int(min(tail-min(tail, f.Pos.Seq), 1<<30))})
	m.reached(p, f.Pos.Seq, wanted)
	if !wanted {
		return
	}
	m.buf = append(m.buf[:0], idField...)
	m.buf = append(m.ids.append(m.buf), '\n')
	m.buf = append(m.buf, withoutID(f.Block)...)
	m.frame = append(m.frame[:0], sse.Frame{Pos: sse.Pos{Epoch: 1, Seq: m.next}, Kind: f.Kind, Block: m.buf})
	m.out.Append(m.frame)
}

// reached moves a part on; wanted, the next frame of out is what does it.
func (m *merger) reached(p *part, seq uint64, wanted bool) {
	has := m.s.handed()
	m.mu.Lock()
	defer m.mu.Unlock()
	p.at = seq
	if !wanted {
		return
	}
	m.next++
	n := 0
	for n < len(m.steps) && m.steps[n].out <= has {
		n++
	}
	m.steps = append(slices.Delete(m.steps, 0, n), step{m.next, p, seq})
}

// tell says something to the client that is no message.
func (m *merger) tell(block []byte) {
	m.out.Append([]sse.Frame{{Kind: sse.KindNote, Block: block}})
	m.out.Flush()
}

// cut ends the connection where something is missing.
func (m *merger) cut() {
	if f := m.s.f.Load(); f != nil {
		f.Kick(hub.ReasonGap, nil, false)
	}
}
