package cluster

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"ssegate/bus"
	"ssegate/reconnect"
	"ssegate/registry"
)

// What the messages between nodes mean. The values go over the wire.
const (
	// kindFrames carries frames of an owned stream that are in the log.
	kindFrames bus.Kind = 1 + iota
	// kindFollow tells an owner that the sender follows; the body is the Seq
	// it has and the Seq its fastest client has. Said again now and then.
	kindFollow
	// kindUnfollow is the other end of kindFollow.
	kindUnfollow
	// kindAsk asks an owner for a stream's record; the body is 1 when the
	// answer may wait until the upstream has answered.
	kindAsk
	// kindRecord answers kindAsk: the record as JSON, empty when unknown.
	kindRecord
	// kindStop asks an owner to stop the upstream; answered with kindRecord.
	kindStop
	// kindGone tells a follower that we do not own what it follows.
	kindGone
	// kindFind asks an owner where the first event with an id of the
	// backend's is; answered with kindRecord, its Tail the place.
	kindFind
	// kindFindPrint asks a node for a stream of its own with a fingerprint
	// and an id of the backend's; answered like kindFind. A Tail of zero: there
	// is such a stream, but memory cannot tell whether it had the id.
	kindFindPrint
	// kindTopic carries frames of a topic that are in its log.
	kindTopic
	// kindParcel says which number a parcel with such frames has, or how many
	// there were.
	kindParcel
	// kindLook says that a topic may have more in its log than was told.
	kindLook
	// kindKick asks a node to end a connection; the body is its id. Answered
	// with kindAnswer: 1 when it was there.
	kindKick
	// kindWritten asks how many connections have got a message; the body is
	// its Seq and its meta data. Answered with kindAnswer: how many follow the
	// topic, and how many have it.
	kindWritten
	// kindAnswer answers the two.
	kindAnswer
)

// question is a kindAsk that waits for the upstream's answer.
type question struct {
	from string
	call uint64
}

// receiver is the Node as the bus sees it.
type receiver Node

// Receive implements bus.Handler.
func (r *receiver) Receive(msgs []bus.Message) {
	n := (*Node)(r)
	for i := range msgs {
		n.receive(&msgs[i])
	}
}

// Lost implements bus.Handler: who cannot be reached is no longer sent to;
// if it lives, it will say again that it follows.
func (r *receiver) Lost(to string, why bus.LostReason) {
	n := (*Node)(r)
	n.count.lost(why)
	if why != bus.LostUnroutable {
		return
	}
	n.topics.wire.avoid(to)
	for _, s := range n.all(func(s *Stream) bool { return s.owned.Load() }) {
		s.unfollow(to)
	}
}

// Up implements bus.Handler.
func (r *receiver) Up(up bool) {
	n := (*Node)(r)
	was := n.busUp.Swap(up)
	if was != up {
		what := "bus is down; following the log instead"
		if up {
			what = "bus is up"
		}
		n.cfg.Report(Report{What: what})
	}
	n.topics.lookAtAll()
	if !up {
		select {
		case n.busFell <- struct{}{}:
		default: // it wakes already
		}
	}
	if up {
		n.sent.tell(&n.topics)
		n.wg.Go(func() { n.checkTails(n.ctx); n.refollow(n.ctx) })
	}
}

func (n *Node) receive(m *bus.Message) {
	switch m.Kind {
	case kindFrames:
		s := n.local(m.Stream)
		if s == nil || s.owned.Load() {
			n.post(m.From, bus.Message{Kind: kindUnfollow, Stream: m.Stream})
			return
		}
		frames, err := bus.DecodeFrames(m.Body)
		if err != nil {
			n.count.garbage.Add(1)
			return
		}
		n.count.received.Add(uint64(len(frames)))
		s.receive(frames)
	case kindFollow:
		news, ok := decodeFollow(m.Body)
		if s := n.local(m.Stream); s != nil && s.owned.Load() && ok {
			s.follow(m.From, news)
		} else {
			n.post(m.From, bus.Message{Kind: kindGone, Stream: m.Stream})
		}
	case kindUnfollow:
		if s := n.local(m.Stream); s != nil && s.owned.Load() {
			s.unfollow(m.From)
		}
	case kindGone:
		if s := n.local(m.Stream); s != nil && !s.owned.Load() {
			n.wg.Go(func() { n.reconsider(n.ctx, s, "") })
		}
	case kindAsk:
		q := question{m.From, m.Call}
		s := n.local(m.Stream)
		if s != nil && len(m.Body) > 0 && m.Body[0] == 1 && s.park(q) {
			return
		}
		if s != nil && !s.owned.Load() && s.thinking.Load() {
			return // perhaps it is ours in a moment: no answer judges nothing
		}
		n.answer(q, s)
	case kindFind:
		var body []byte
		if s := n.local(m.Stream); s != nil && s.owned.Load() {
			if pos, _ := s.findInRing(m.Body); pos.Seq > 0 {
				body, _ = json.Marshal(registry.Record{Tail: pos})
			}
		}
		n.post(m.From, bus.Message{Kind: kindRecord, Stream: m.Stream, Call: m.Call, Body: body})
	case kindFindPrint:
		var body []byte
		if rec, ok := n.findPrint(m.Body); ok {
			body, _ = json.Marshal(rec)
		}
		n.post(m.From, bus.Message{Kind: kindRecord, Call: m.Call, Body: body})
	case kindStop:
		s := n.local(m.Stream)
		if s != nil {
			s.cancel(ErrStopped)
		}
		n.answer(question{m.From, m.Call}, s)
	case kindTopic, kindParcel, kindLook:
		n.receiveTopic(m)
	case kindKick, kindWritten:
		n.answerTopics(m)
	case kindRecord, kindAnswer:
		n.mu.Lock()
		c := n.calls[m.Call]
		n.mu.Unlock()
		if c != nil {
			select {
			case c <- *m:
			default:
			}
		}
	default:
		n.count.garbage.Add(1) // a newer node's word that we do not know
	}
}

// park keeps a question until the upstream has answered; false when it has.
func (s *Stream) park(q question) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.begun:
		return false
	default:
	}
	if len(s.waiting) >= 1024 {
		return false
	}
	s.waiting = append(s.waiting, q)
	return true
}

func (n *Node) answer(q question, s *Stream) {
	var body []byte
	if s != nil && s.owned.Load() {
		rec := s.Record()
		rec.Request = nil
		rec.Followers = s.watched()
		body, _ = json.Marshal(rec) // a Record of ours always marshals
	}
	m := bus.Message{Kind: kindRecord, Call: q.call, Body: body}
	if s != nil {
		m.Stream = s.ID
	}
	n.post(q.from, m)
}

// post sends a message without making the caller wait.
func (n *Node) post(to string, m bus.Message) {
	ctx, cancel := context.WithTimeout(n.ctx, 50*time.Millisecond)
	defer cancel()
	n.sendTo(ctx, to, m)
}

func (n *Node) sendTo(ctx context.Context, to string, msgs ...bus.Message) bool {
	for i := range msgs {
		msgs[i].From = n.ID()
	}
	if err := n.cfg.Bus.Send(ctx, to, msgs); err != nil {
		n.count.sendErrors.Add(1)
		return false
	}
	return true
}

// call asks a node for a record and waits for it, at most until ctx is done.
func (n *Node) call(ctx context.Context, to string, m bus.Message) (rec registry.Record, err error) {
	a, err := n.ask(ctx, to, m)
	switch {
	case err != nil:
		return rec, err
	case len(a.Body) == 0:
		return rec, ErrUnknown
	case json.Unmarshal(a.Body, &rec) != nil:
		n.count.garbage.Add(1)
		return rec, ErrUnavailable
	}
	return rec, nil
}

// ask sends a question and waits for the answer, at most until ctx is done.
// The error is ErrUnavailable.
func (n *Node) ask(ctx context.Context, to string, m bus.Message) (bus.Message, error) {
	c := make(chan bus.Message, 1)
	n.mu.Lock()
	n.lastID++
	m.Call = n.lastID
	n.calls[m.Call] = c
	n.mu.Unlock()
	defer func() {
		n.mu.Lock()
		delete(n.calls, m.Call)
		n.mu.Unlock()
	}()
	if !n.sendTo(ctx, to, m) {
		return m, ErrUnavailable
	}
	select {
	case a := <-c:
		return a, nil
	case <-ctx.Done():
		return m, ErrUnavailable
	case <-n.ctx.Done():
		return m, ErrUnavailable
	}
}

// callAll asks every live peer at once and returns the answers of those who
// know something, at most after Config.Ask. all says that every peer has
// answered, that this node knows who they are, and that there is no other who
// might have known.
func (n *Node) callAll(ctx context.Context, m bus.Message) (known []registry.Record, all bool) {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Ask)
	defer cancel()
	var mu sync.Mutex
	var wg sync.WaitGroup
	peers := *n.peers.Load()
	all = n.knows(peers) && n.settled()
	for peer := range peers {
		if peer == n.ID() {
			continue
		}
		wg.Go(func() {
			rec, err := n.call(ctx, peer, m)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				known = append(known, rec)
			case !errors.Is(err, ErrUnknown):
				all = false
			}
		})
	}
	wg.Wait()
	return known, all
}

// nodeByTag finds the node whose tag an edge id bears: this one, a live peer,
// or "" when none is known.
func (n *Node) nodeByTag(tag [8]byte) string {
	if reconnect.OwnerTag(n.ID()) == tag {
		return n.ID()
	}
	for id := range *n.peers.Load() {
		if reconnect.OwnerTag(id) == tag {
			return id
		}
	}
	return ""
}

// following is what a node tells the owner of a stream that it follows.
type following struct {
	have    uint64 // Seq up to which it has everything
	fastest uint64 // Seq that its fastest client has
	clients uint64
}

func (f following) encode() []byte {
	b := binary.AppendUvarint(make([]byte, 0, 16), f.have)
	b = binary.AppendUvarint(b, f.fastest)
	return binary.AppendUvarint(b, f.clients)
}

func decodeFollow(b []byte) (f following, ok bool) {
	for _, v := range []*uint64{&f.have, &f.fastest, &f.clients} {
		n := 0
		if *v, n = binary.Uvarint(b); n <= 0 {
			return f, false
		}
		b = b[n:]
	}
	return f, true
}

// follow books another node's interest in an owned stream and sends it what
// it lacks.
func (s *Stream) follow(node string, news following) {
	s.mu.Lock()
	in := s.nodes[node]
	if in == nil {
		if s.nodes == nil {
			s.nodes = map[string]*interest{}
		}
		in = &interest{sent: news.have}
		s.nodes[node] = in
		s.wanted.Store(true)
		s.node.count.landed.Add(1)
	}
	in.seen, in.fastest, in.clients = time.Now(), news.fastest, int(min(news.clients, 1<<20))
	s.pace()
	s.settle()
	s.mu.Unlock()
	if news.have < s.logged.Load() {
		s.node.out.look(s) // is what it lacks in the log?
	} else {
		s.node.out.add(s)
	}
}

func (s *Stream) unfollow(node string) {
	s.mu.Lock()
	delete(s.nodes, node)
	s.wanted.Store(len(s.nodes) > 0)
	s.pace()
	s.settle()
	s.mu.Unlock()
}

// pace tells the hub how far the fastest follower of another node is. s.mu
// is held.
func (s *Stream) pace() {
	var fastest uint64
	for _, in := range s.nodes {
		fastest = max(fastest, in.fastest+1)
	}
	if length := s.spec.Limits.Length; fastest > 0 && length > 0 {
		// News of a remote follower are old when they arrive, and the log
		// keeps what it has not read: half of what the ring leaves of the
		// log's room is allowed for, and the rest is for one large read.
		fastest += uint64(max(0, length-s.local.RingEvents) / 2)
	}
	s.hub.SetPace(fastest)
}
