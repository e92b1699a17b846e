package cluster

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"ssegate/hub"
	"ssegate/reconnect"
	"ssegate/registry"
	"ssegate/sse"
)

// firstSeq is below every Seq of a topic: those begin at the time in ms. What
// is below it names an order.
const firstSeq = 1 << 40

// An order is where a follower wants to begin, when only the log can say where
// that is. The follower's Seq is the order's number until then.
type order struct {
	from From
	now  uint64        // the tail when it was given, 0 while that was unknown
	s    *Subscription // nil: of one of several topics
}

// start returns the position after which a new follower gets what is
// published.
func (t *topic) start(s *Subscription, from From) sse.Pos {
	t.feed.Lock()
	defer t.feed.Unlock()
	o := &order{from: from, s: s}
	if t.open {
		if seq, ok := t.starts(&from); ok {
			s.since.Store(seq)
			return sse.Pos{Seq: seq}
		}
		o.now = t.tail.Seq
	}
	t.lastOrd++
	if t.orders == nil {
		t.orders = map[uint64]*order{}
	}
	t.orders[t.lastOrd] = o
	return sse.Pos{Seq: t.lastOrd}
}

// starts is where From begins, if that can be told without the log. The caller
// holds feed.
func (t *topic) starts(from *From) (seq uint64, ok bool) {
	switch {
	case from.Unknown || from.Last > 0 || !from.Since.IsZero():
		return 0, false
	case !from.HasAfter:
		return t.tail.Seq, true
	default:
		return from.After.Seq, from.After.Seq >= firstSeq && from.After.Seq <= t.tail.Seq
	}
}

// errNotYet says that nothing can be read now. Followers wait.
var errNotYet = hub.ErrNotYet

// begin finds where an order begins; gap is where the gap begins that is to be
// told, 0 when there is none.
func (t *topic) begin(ctx context.Context, o *order) (at sse.Pos, gap uint64, err error) {
	t.feed.Lock()
	tail, now, open := t.tail, max(o.now, t.began.Seq), t.open
	seq, known := t.starts(&o.from)
	t.feed.Unlock()
	j := t.ts.n.cfg.Journal
	from := &o.from
	switch {
	case !open:
		return at, 0, errNotYet
	case !from.HasAfter && !from.Unknown && from.Last <= 0 && from.Since.IsZero():
		at.Seq = now
	case known:
		at.Seq = seq
	case from.Unknown:
		at.Seq, gap = now, from.After.Seq+1
	case from.HasAfter && from.After.Seq >= firstSeq:
		// Ahead of what this node has: another one was faster, or the log has
		// lost it since.
		tails, err := j.Tails(ctx, []sse.StreamID{t.ID})
		switch {
		case err != nil:
			return at, 0, t.ts.away(err)
		case tails[0].Pos.Seq >= from.After.Seq:
			at.Seq = from.After.Seq
		default:
			at.Seq, gap = max(now, tails[0].Pos.Seq), tails[0].Pos.Seq+1
		}
		t.ts.look(t)
	case !from.Since.IsZero():
		at, err = j.Since(ctx, t.ID, from.Since)
	case from.HasAfter: // from the start
		at, err = j.Back(ctx, t.ID, 1<<30)
	default:
		at, err = j.Back(ctx, t.ID, from.Last)
	}
	if errors.Is(err, reconnect.ErrUnknown) {
		at.Seq, err = now, nil // there is nothing older
	}
	if err != nil {
		return at, 0, t.ts.away(err)
	}
	at.Epoch = tail.Epoch
	return at, gap, nil
}

// read is the log behind a position: frames as they are in the log, and what
// is missing before them. Where a newer numbering goes on behind after and
// nothing is missing, a note without a block stands where it begins. errNotYet
// when nothing can be known now.
func (t *topic) read(ctx context.Context, after sse.Pos, most int) ([]sse.Frame, *reconnect.Gap, error) {
	if t.ts.isAway() {
		return nil, nil, errNotYet
	}
	tail, _, _ := t.position()
	frames, err := t.ts.n.cfg.Journal.Read(ctx, t.ID, after, most)
	gap, lost := errors.AsType[*reconnect.Gap](err)
	switch {
	case lost:
		return frames, gap, nil
	case err == nil && len(frames) == 0 && after.Seq < tail.Seq && tail == reconnect.Origin(tail.Epoch):
		// The tail was there before the log was asked.
		return []sse.Frame{{Kind: sse.KindNote, Pos: tail}}, nil, nil
	case errors.Is(err, reconnect.ErrUnknown), err == nil && len(frames) == 0:
		if tail, _, _ := t.position(); after.Seq < tail.Seq {
			t.ts.look(t) // the log has forgotten
			return nil, nil, errNotYet
		}
		return nil, nil, nil
	case errors.Is(err, reconnect.ErrBroken):
		return nil, nil, err
	case err != nil:
		return nil, nil, t.ts.away(err)
	}
	if first := frames[0].Pos; first.Seq != after.Seq+1 {
		frames = slices.Insert(frames, 0, sse.Frame{Kind: sse.KindNote, Pos: sse.Pos{Epoch: first.Epoch, Seq: first.Seq - 1}})
	}
	return frames, nil, nil
}

// topicSource is where followers read that the ring cannot serve, and where
// they learn where they begin.
type topicSource topic

// Read implements hub.Source.
func (ts *topicSource) Read(ctx context.Context, after sse.Pos, most int) ([]sse.Frame, error) {
	t := (*topic)(ts)
	if after.Seq < firstSeq {
		return t.begun(ctx, after.Seq)
	}
	frames, gap, err := t.read(ctx, after, most)
	if err != nil {
		return nil, err
	}
	out := make([]sse.Frame, 0, len(frames)+1)
	if gap != nil {
		to := sse.Pos{Epoch: after.Epoch, Seq: gap.To}
		if len(frames) > 0 {
			to.Epoch = frames[0].Pos.Epoch
		}
		out = append(out, t.note(to, gap.From, gap.To, reconnect.GapTrimmed))
	}
	size := 0
	for i := range frames {
		size += len(frames[i].Block) + idRoom
	}
	buf := make([]byte, 0, size)
	for _, f := range frames {
		if f.Kind != sse.KindNote {
			at := len(buf)
			buf = t.withID(buf, &f)
			f.Block = buf[at:len(buf):len(buf)]
		}
		out = append(out, f)
	}
	return out, nil
}

// begun moves a follower to where its order begins.
func (t *topic) begun(ctx context.Context, number uint64) ([]sse.Frame, error) {
	t.feed.Lock()
	o := t.orders[number]
	t.feed.Unlock()
	if o == nil {
		return nil, errNotYet // it has left
	}
	at, gap, err := t.begin(ctx, o)
	if err != nil {
		return nil, err
	}
	if o.s != nil {
		o.s.since.Store(at.Seq)
	}
	t.drop(number)
	if gap > 0 {
		return []sse.Frame{t.note(at, gap, 0, reconnect.GapUnknown)}, nil
	}
	return []sse.Frame{{Kind: sse.KindNote, Pos: at}}, nil
}

// drop forgets an order.
func (t *topic) drop(number uint64) {
	t.feed.Lock()
	defer t.feed.Unlock()
	if delete(t.orders, number); len(t.orders) == 0 {
		t.orders = nil
	}
}

// note tells of a gap that ends at a position, or cuts who is not to be told.
func (t *topic) note(at sse.Pos, from, to uint64, reason string) sse.Frame {
	t.ts.n.count.gaps.Add(1)
	if t.cutGap {
		return sse.Frame{Kind: sse.KindBare, Pos: at} // does not fit
	}
	return sse.Frame{Kind: sse.KindNote, Pos: at, Block: reconnect.AppendGap(nil, from, to, reason, sse.LF)}
}

// logPause is how long nobody asks a log that was away a moment ago.
const logPause = 50 * time.Millisecond

// away notes that the log could not be reached, and is what followers are
// told.
func (ts *topics) away(err error) error {
	if errors.Is(err, reconnect.ErrBroken) || errors.Is(err, registry.ErrUnknown) {
		return err
	}
	ts.n.count.logErrors.Add(1)
	ts.awayAt.Store(int64(time.Since(ts.n.cfg.Self.Started)) + 1)
	return errNotYet
}

func (ts *topics) isAway() bool {
	at := ts.awayAt.Load()
	return at > 0 && time.Since(ts.n.cfg.Self.Started)-time.Duration(at) < logPause
}

// withoutID is a block of a ring or a Source without its id line.
func withoutID(block []byte) []byte {
	if bytes.HasPrefix(block, []byte(idField)) {
		return block[bytes.IndexByte(block, '\n')+1:]
	}
	return block
}
