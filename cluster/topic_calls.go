package cluster

import (
	"context"
	"encoding/binary"
	"sync"
	"time"

	"ssegate/bus"
	"ssegate/hub"
	"ssegate/sse"
)

// ReasonKicked is why a connection left that was closed by request.
const ReasonKicked hub.Reason = "kicked:request"

// Kick ends the connection of that id wherever it is: a subscription, or what
// Config.KickOther knows. It asks every live node at once, within Config.Ask.
// ErrUnknown when no node has it, ErrUnavailable when one did not answer and
// no other has it.
func (n *Node) Kick(ctx context.Context, id string) error {
	if n.kick(id) {
		return nil
	}
	var mu sync.Mutex
	done := false
	silent := n.askEach(ctx, bus.Message{Kind: kindKick, Body: []byte(id)}, func(answer []byte) bool {
		mu.Lock()
		defer mu.Unlock()
		done = done || len(answer) > 0 && answer[0] == 1
		return done
	})
	switch {
	case done:
		return nil
	case silent > 0:
		return ErrUnavailable
	}
	return ErrUnknown
}

// kick ends a connection of this node.
func (n *Node) kick(id string) bool {
	n.topics.mu.Lock()
	s := n.topics.subs[id]
	n.topics.mu.Unlock()
	if s != nil {
		s.Kick(ReasonKicked, nil, true)
		return true
	}
	return n.cfg.KickOther != nil && n.cfg.KickOther(id)
}

// Delivery says how far a message has got.
type Delivery struct {
	Connections int // that follow the topic now, on the nodes that answered, and for which it is meant
	Written     int // connections that were handed the message, those that left in the last minute included
	Nodes       int // live nodes, this one included
	Silent      int // nodes of them that did not answer in time: there may be more
}

// Written asks every live node at once how far the message at pos of a topic
// has got, within Config.Ask. meta is the message's. A connection that was too
// far behind for a message of low priority, or got to it after it had expired,
// counts as if it had it.
func (n *Node) Written(ctx context.Context, t Topic, pos sse.Pos, meta []byte) Delivery {
	var d Delivery
	d.Connections, d.Written = n.written(t.ID, pos.Seq, meta)
	var mu sync.Mutex
	m := bus.Message{Kind: kindWritten, Stream: t.ID, Body: append(binary.AppendUvarint(nil, pos.Seq), meta...)}
	d.Silent = n.askEach(ctx, m, func(answer []byte) bool {
		connections, size := binary.Uvarint(answer)
		written, more := binary.Uvarint(answer[max(size, 0):])
		mu.Lock()
		defer mu.Unlock()
		if size > 0 && more > 0 {
			d.Connections += int(min(connections, 1<<31))
			d.Written += int(min(written, 1<<31))
		}
		return false
	})
	d.Nodes = max(len(*n.peers.Load()), 1)
	return d
}

// written is Written for this node.
func (n *Node) written(id sse.StreamID, seq uint64, meta []byte) (connections, written int) {
	var v metaView
	if len(meta) > 0 && !v.read(meta) {
		return 0, 0
	}
	now := time.Now()
	ts := &n.topics
	ts.mu.Lock()
	t := ts.all[id]
	written = ts.recent.count(id, seq, &v, now)
	ts.mu.Unlock()
	if t == nil {
		return 0, written
	}
	count := func(s *Subscription, f *Filter) {
		if !f.meant(&v) {
			return
		}
		connections++
		if since, at := s.reach(id); since > 0 && since < seq && seq <= at {
			written++
		}
	}
	for f := range t.hub.All() {
		s := f.Tag().(*Subscription)
		count(s, &s.filter)
	}
	t.feed.Lock()
	parts := append([]*part(nil), t.watchers...)
	t.feed.Unlock()
	for _, p := range parts {
		count(p.m.s, &p.filter)
	}
	return connections, written
}

// askEach asks every other live node at once and has each answer taken, until
// take has enough; silent is how many did not answer within Config.Ask.
func (n *Node) askEach(ctx context.Context, m bus.Message, take func(answer []byte) bool) (silent int) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Ask)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for peer := range *n.peers.Load() {
		if peer == n.ID() {
			continue
		}
		wg.Go(func() {
			answer, err := n.ask(ctx, peer, m)
			switch {
			case err != nil:
				mu.Lock()
				silent++
				mu.Unlock()
			case take(answer.Body):
				cancel()
			}
		})
	}
	wg.Wait()
	return silent
}

// answerTopics answers another node's question about subscriptions.
func (n *Node) answerTopics(m *bus.Message) {
	body := []byte{0}
	switch m.Kind {
	case kindKick:
		if n.kick(string(m.Body)) {
			body[0] = 1
		}
	case kindWritten:
		seq, size := binary.Uvarint(m.Body)
		if size <= 0 {
			n.count.garbage.Add(1)
			return
		}
		meta := m.Body[size:]
		connections, written := n.written(m.Stream, seq, meta)
		body = binary.AppendUvarint(body[:0], uint64(connections))
		body = binary.AppendUvarint(body, uint64(written))
	}
	n.post(m.From, bus.Message{Kind: kindAnswer, Stream: m.Stream, Call: m.Call, Body: body})
}
