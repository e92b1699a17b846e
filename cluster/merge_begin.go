package cluster

import (
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"sync/atomic"
	"time"

	"ssegate/reconnect"
	"ssegate/registry"
	"ssegate/sse"
)

// begin finds where each topic begins for the connection; false when it has
// left before. Until all are known nothing is brought, so that no id stands for
// less than the client has.
func (m *merger) begin(ctx context.Context) bool {
	if !m.orders(ctx) {
		return false
	}
	for _, p := range m.parts {
		for {
			at, gap, err := m.place(ctx, p)
			if err == nil {
				p.gap = gap
				m.mu.Lock()
				p.since, p.at = at, at
				m.mu.Unlock()
				break
			}
			select {
			case <-ctx.Done():
				return false
			case <-m.wake: // a topic that was opened, say
				sleep(ctx, time.Millisecond)
			case <-time.After(mergePause):
			}
			if ctx.Err() != nil {
				return false
			}
		}
	}
	missed := uint64(0)
	for _, p := range m.parts {
		missed = max(missed, p.gap)
		p.mark()
	}
	if missed > 0 { // once, not for each of the topics
		m.ts.n.count.gaps.Add(1)
		if m.parts[0].t.cutGap {
			m.cut()
			return false
		}
		m.tell(reconnect.AppendGap(nil, missed, 0, reconnect.GapUnknown, sse.LF))
	}
	return true
}

func (m *merger) place(ctx context.Context, p *part) (at, gap uint64, err error) {
	ctx, cancel := context.WithTimeout(ctx, topicWait)
	defer cancel()
	pos, gap, err := p.t.begin(ctx, p.order)
	return pos.Seq, gap, err
}

// begin says where a part begins, as far as is known.
func (p *part) begin(from From) {
	p.order = &order{from: from}
	p.t.feed.Lock()
	if p.t.open {
		p.order.now = p.t.tail.Seq
	}
	p.t.feed.Unlock()
}

// orders says of each part where it is to begin; false when the client has
// left before that is known.
func (m *merger) orders(ctx context.Context) bool {
	id := m.from.ID
	if len(id) == 0 {
		return true
	}
	if edge, err := reconnect.ParseEdgeID(id); err == nil {
		for _, p := range m.parts {
			p.order.from = From{Unknown: p.t.ID != edge.Stream, HasAfter: p.t.ID == edge.Stream, After: edge.Pos}
			if p.order.from.Unknown {
				p.order.from.After = sse.Pos{}
			} else {
				m.ts.passed(p.t.ID, edge.Pos, p.t.limits.TTL)
			}
		}
		return true
	}
	seqs, ok := m.places(ctx, id)
	if ctx.Err() != nil {
		return false
	}
	for i, p := range m.parts {
		p.order.from = From{Unknown: !ok}
		if ok {
			p.order.from = From{HasAfter: true, After: sse.Pos{Seq: seqs[i]}}
			m.ts.passed(p.t.ID, p.order.from.After, p.t.limits.TTL)
		}
	}
	return true
}

// places are those that a cursor stands for. It waits for the registry as long
// as that takes.
func (m *merger) places(ctx context.Context, id []byte) (seqs []uint64, ok bool) {
	for {
		nctx, cancel := context.WithTimeout(ctx, topicWait)
		seqs, err := m.ts.n.places(nctx, m.set, len(m.parts), id)
		cancel()
		if err == nil {
			return seqs, true
		}
		if errors.Is(err, ErrUnknown) || ctx.Err() != nil {
			return nil, false
		}
		m.ts.n.count.registryErrors.Add(1)
		sleep(ctx, 2*mergePause)
	}
}

// places are those that a cursor stands for in the topics of a set, with the
// help of its base. ErrUnknown when it stands for none; other errors are the
// registry's.
func (n *Node) places(ctx context.Context, set reconnect.CursorSet, topics int, id []byte) ([]uint64, error) {
	c, err := reconnect.ParseCursor(id)
	if err != nil {
		return nil, ErrUnknown
	}
	var was []uint64
	if c.Base != (reconnect.CursorSet{}) {
		note, err := n.cfg.Registry.GetNote(ctx, baseName(c.Base))
		switch {
		case errors.Is(err, registry.ErrUnknown):
			return nil, ErrUnknown
		case err != nil:
			return nil, err
		}
		was, _ = reconnect.ParseCursorBase(note, set, topics)
	}
	seqs, ok := c.Seqs(set, topics, was)
	if !ok {
		return nil, ErrUnknown
	}
	return seqs, nil
}

// baseName is where the registry keeps a base.
func baseName(base reconnect.CursorSet) string {
	return "cursor/" + base64.RawURLEncoding.EncodeToString(base[:])
}

const (
	// idsShort is how long an id may be until a new base is asked for, and
	// idsOften how often that is done at most.
	idsShort = 56
	idsOften = 50 * time.Millisecond
	// idsAlone is how many topics fit into 64 characters without a base.
	idsAlone = 4
	// idsKeep is how long a base is kept at least. When half of that is over
	// it is kept on; idsAgain is when that is tried again.
	idsKeep  = time.Hour
	idsAgain = 10 * time.Second
)

// mergeIDs makes a merger's ids. A base counts from the moment when the
// registry has it, so that an id means something on every node whatever
// becomes of this one. Until then ids are longer.
type mergeIDs struct {
	m    *merger
	keep time.Duration // how long a base is kept in the registry

	base  mergeBase // of the last id; none: it stands alone
	asked time.Time
	busy  atomic.Bool
	fruit atomic.Pointer[mergeBase] // of what was asked for
}

// mergeBase is a base that the registry has had since a time.
type mergeBase struct {
	name   reconnect.CursorSet
	places []uint64 // nil: no base
	since  time.Time
}

func (d *mergeIDs) init(m *merger) {
	d.m = m
	d.keep = idsKeep
	for _, p := range m.parts {
		d.keep = max(d.keep, p.t.limits.TTL)
	}
}

// ahead has a base stored before there is an id, so that the first one is short
// as well unless it comes at once.
func (d *mergeIDs) ahead() {
	if len(d.m.parts) <= idsAlone {
		return
	}
	places := make([]uint64, len(d.m.parts))
	for i, p := range d.m.parts {
		places[i] = p.at
	}
	d.ask(mergeBase{name: reconnect.NewCursorBase(), places: places})
}

// append appends the id of where all parts are now.
func (d *mergeIDs) append(dst []byte) []byte {
	m := d.m
	if b := d.fruit.Swap(nil); b != nil {
		d.base = *b
	}
	m.seqs = m.seqs[:0]
	for _, p := range m.parts {
		m.seqs = append(m.seqs, p.at)
	}
	at := len(dst)
	if d.base.places == nil {
		dst = reconnect.AppendCursor(dst, m.set, m.seqs)
	} else {
		dst = reconnect.AppendBasedCursor(dst, d.base.name, d.base.places, m.seqs)
	}
	if len(dst)-at > idsShort && len(m.parts) > idsAlone && time.Since(d.asked) >= idsOften {
		d.ask(mergeBase{name: reconnect.NewCursorBase(), places: slices.Clone(m.seqs)})
	}
	return dst
}

// renew has the base of the last id kept on, for as long as the connection is
// there; it returns when to call it again.
func (d *mergeIDs) renew() time.Duration {
	if d.base.places == nil {
		return time.Hour
	}
	if b := d.fruit.Load(); b != nil && b.name == d.base.name {
		d.base.since = b.since
	}
	left := time.Until(d.base.since.Add(d.keep / 2))
	if left <= 0 && time.Since(d.asked) >= idsAgain {
		d.ask(d.base)
	}
	return max(left, idsAgain)
}

// ask has a base stored, unless one is being stored.
func (d *mergeIDs) ask(b mergeBase) {
	if d.busy.Swap(true) {
		return
	}
	b.since = time.Now()
	d.asked = b.since
	m := d.m
	note := reconnect.AppendCursorBase(nil, m.set, b.places)
	ok := m.ts.spawn(func() {
		defer d.busy.Store(false)
		ctx, cancel := context.WithTimeout(m.ts.n.ctx, topicWait)
		defer cancel()
		if err := m.ts.n.cfg.Registry.PutNote(ctx, baseName(b.name), note, d.keep); err != nil {
			m.ts.n.count.registryErrors.Add(1)
			return
		}
		d.fruit.Store(&b)
	})
	if !ok {
		d.busy.Store(false)
	}
}
