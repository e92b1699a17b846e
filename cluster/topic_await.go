package cluster

import (
	"context"
	"slices"
	"sync"
	"time"

	"ssegate/reconnect"
	"ssegate/sse"
)

// Await waits until it is known where these topics are, as long as ctx allows:
// a subscription that begins with what is published from now on then misses
// nothing that is published after Await has returned. o says how the topics are
// served, should nobody follow them here yet. While log or registry are away it
// does not wait: they would come no sooner.
func (n *Node) Await(ctx context.Context, ts []Topic, o SubscribeOptions) {
	for _, id := range ts {
		t, err := n.topics.enter(id, &o)
		if err != nil {
			return
		}
		defer n.topics.release(t)
		if n.topics.failing.Load() {
			return
		}
		select {
		case <-t.ready:
		case <-ctx.Done():
			return
		}
	}
}

// Acknowledge notes in the log that a client has everything of some topics up
// to the event of that id: of the one topic that the id is of, or of all where
// it is that of a connection with just these. Receipts tell of it for ttl.
// ErrUnknown when the id says nothing of these topics; other errors are those of
// log or registry.
func (n *Node) Acknowledge(ctx context.Context, ts []Topic, id []byte, ttl time.Duration) error {
	if n.cfg.Journal == nil {
		return ErrUnknown
	}
	if at, err := reconnect.ParseEdgeID(id); err == nil {
		if !slices.ContainsFunc(ts, func(t Topic) bool { return t.ID == at.Stream }) {
			return ErrUnknown
		}
		return n.cfg.Journal.Pass(ctx, at.Stream, at.Pos, ttl)
	}
	ids := make([]sse.StreamID, len(ts))
	for i, t := range ts {
		ids[i] = t.ID
	}
	set := reconnect.SortTopics(ids)
	seqs, err := n.places(ctx, set, len(ids), id)
	if err != nil {
		return err
	}
	return each(ids, func(id sse.StreamID) error {
		return n.cfg.Journal.Pass(ctx, id, sse.Pos{Seq: seqs[slices.Index(ids, id)]}, ttl)
	})
}

// passes notes in the log what clients say, by coming back or by saying so,
// that they have. Nobody waits for it, and of a topic only the furthest place
// counts, however many come back at once.
type passes struct {
	mu      sync.Mutex
	due     map[sse.StreamID]passing
	running bool
}

type passing struct {
	pos sse.Pos
	ttl time.Duration
}

// passed notes that a client has everything of a topic up to pos.
func (ts *topics) passed(id sse.StreamID, pos sse.Pos, ttl time.Duration) {
	p := &ts.passes
	p.mu.Lock()
	defer p.mu.Unlock()
	if had, ok := p.due[id]; pos.IsZero() || ok && had.pos.Seq >= pos.Seq || !ok && len(p.due) >= registrarOps {
		return
	}
	if p.due == nil {
		p.due = map[sse.StreamID]passing{}
	}
	p.due[id] = passing{pos, ttl}
	if !p.running {
		p.running = ts.spawn(ts.tellPassed)
	}
}

// tellPassed writes what is due until nothing is. What fails is not tried
// again: it is a hint, and the client's next one says more.
func (ts *topics) tellPassed() {
	p := &ts.passes
	for {
		p.mu.Lock()
		due := p.due
		p.due, p.running = nil, len(due) > 0
		p.mu.Unlock()
		if len(due) == 0 {
			return
		}
		ids := make([]sse.StreamID, 0, len(due))
		for id := range due {
			ids = append(ids, id)
		}
		ctx, cancel := context.WithTimeout(ts.n.ctx, topicWait)
		_ = each(ids, func(id sse.StreamID) error {
			return ts.n.cfg.Journal.Pass(ctx, id, due[id].pos, due[id].ttl)
		})
		cancel()
	}
}
