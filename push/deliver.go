package push

import (
	"errors"
	"slices"
	"time"

	"ssegate/cluster"
	"ssegate/registry"
)

// What may become of a message at one target.
const (
	delivered    = "delivered"     // in the log, and somebody was there
	stored       = "stored"        // in the log, for whoever comes
	notConnected = "not_connected" // the connection is not there; nothing is kept
	rejected     = "rejected"      // not taken, Reason says why
	unknown      = "unknown"       // the log did not answer: it may be in it or not
)

// result is what became of a message at one target.
type result struct {
	Target    string   `json:"target"`
	Status    string   `json:"status"`
	Position  uint64   `json:"position,omitempty"`
	Nodes     []string `json:"nodes,omitempty"`     // that have somebody there
	Duplicate bool     `json:"duplicate,omitempty"` // it was there before
	Reason    string   `json:"reason,omitempty"`
	Detail    string   `json:"detail,omitempty"`

	node string               // that has the connection which is the target
	conn *registry.Connection // that one, where the target is not a stream's
	as   string               // the topic that it gets the message by anyway
}

// sending is a message on its way.
type sending struct {
	m       *message
	results []result
	named   int   // how many of results were asked for
	posts   []int // for each result the post, -1 for none
	direct  bool  // connections are among the targets
}

// round is what one request publishes: all at once.
type round struct {
	c     *call
	posts []cluster.Outgoing
	got   []cluster.Receipt
	now   time.Time
	// room for what the sendings of the round say, made at once
	results []result
	at      []int
}

// round begins one with room for so many targets.
func (c *call) round(targets int) *round {
	return &round{
		c: c, now: time.Now(), posts: make([]cluster.Outgoing, 0, targets),
		results: make([]result, targets), at: make([]int, targets),
	}
}

// sending begins one with so many targets.
func (r *round) sending(m *message, named, targets int) sending {
	s := sending{m: m, named: named, results: r.results[:0:targets], posts: r.at[:0:targets]}
	r.results, r.at = r.results[targets:], r.at[targets:]
	return s
}

// meta is what the message's frames say of who gets them.
func (m *message) meta(now time.Time) cluster.Meta {
	meta := cluster.Meta{
		Session: m.about.Session, KB: m.about.KB, Task: m.about.Task, Connection: m.about.Connection,
	}
	switch m.prio {
	case Low:
		meta.Priority = cluster.PriorityLow
	case High:
		meta.Priority = cluster.PriorityHigh
	}
	if m.ttl > 0 {
		meta.Expires = now.Add(m.ttl).UnixMilli()
	}
	return meta
}

// may reports whether the caller may send the message to all that it names.
func (c *call) may(field string, places []Place) *refusal {
	for _, p := range places {
		if !c.who.MayPublish(p.String()) {
			return forbidden(field, "names "+p.String()+", to which you may not publish")
		}
	}
	return nil
}

// add puts a message into the round, once for each of its places.
func (r *round) add(m *message) sending {
	s := r.sending(m, m.named, m.n)
	about := r.about(m)
	for _, p := range m.at[:m.named] {
		r.put(&s, p, &about)
	}
	r.copies(&s, about)
	r.connections(&s, about)
	return s
}

// about is what all posts of a message share.
type about struct {
	meta    cluster.Meta
	encoded []byte // meta
	id      []byte
	once    time.Duration
}

// about says it. Only an id that its sender gave is remembered: nobody else can
// send the message again.
func (r *round) about(m *message) about {
	a := about{meta: m.meta(r.now), id: []byte(m.id)}
	a.encoded = a.meta.Encode()
	if m.own {
		if a.once = m.ttl; a.once <= 0 {
			a.once = r.c.opt.TTL
		}
	}
	return a
}

// copies puts in what the service's own listeners get of a message. They get
// it also where the message is for one connection alone.
func (r *round) copies(s *sending, a about) {
	for _, p := range s.m.at[s.m.named:s.m.n] {
		topic := p.String()
		if slices.ContainsFunc(s.results, func(res result) bool { return res.Target == topic }) {
			continue // it goes there anyway
		}
		if !r.c.who.MayPublish(topic) {
			s.reject(topic, "forbidden", "you may not publish there")
			continue
		}
		if a.meta.Connection != "" {
			a.meta.Connection = ""
			a.encoded = a.meta.Encode()
		}
		r.put(s, p, &a)
	}
}

// put puts a message into the round for one place. What is for a connection
// waits for [round.connections].
func (r *round) put(s *sending, p Place, a *about) {
	res := result{Target: p.String()}
	if p.Kind != Connection {
		s.results, s.posts = append(s.results, res), append(s.posts, len(r.posts))
		r.posts = append(r.posts, r.c.post(res.Target, s.m, a, a.encoded))
		return
	}
	ctx, cancel := r.c.within()
	conn, err := r.c.conns.find(ctx, p.Name)
	cancel()
	switch {
	case err != nil:
		s.reject(res.Target, "unavailable", "where the connection is cannot be told now")
		return
	case conn == nil || len(conn.Topics) == 0:
		res.Status = notConnected
	default:
		res.conn, res.node, s.direct = conn, conn.Node, true
	}
	s.results, s.posts = append(s.results, res), append(s.posts, -1)
}

// connections puts in what goes to single connections, now that the topics are
// known: who follows one of them gets the message by that, and once. A topic's
// copy is narrowed no further than one for a connection in it.
func (r *round) connections(s *sending, a about) {
	if !s.direct {
		return
	}
	for i := range s.results {
		res := &s.results[i]
		if res.conn == nil {
			continue
		}
		for j := range s.results {
			if s.posts[j] >= 0 && slices.Contains(res.conn.Topics, s.results[j].Target) {
				res.as = s.results[j].Target
				break
			}
		}
		if res.as != "" {
			continue
		}
		with := a
		with.meta.Connection = res.conn.ID
		if a.once > 0 { // the topic may have had the message, and this is another one in it
			with.id = slices.Concat(a.id, []byte("@"), []byte(res.conn.ID))
		}
		s.posts[i] = len(r.posts)
		r.posts = append(r.posts, r.c.post(res.conn.Topics[0], s.m, &with, with.meta.Encode()))
	}
}

// repeat has the connections that are reached by a topic say what it says.
func (s *sending) repeat() {
	if !s.direct {
		return
	}
	for i := range s.results {
		if res := &s.results[i]; res.as != "" {
			of := s.results[slices.IndexFunc(s.results, func(other result) bool { return other.Target == res.as })]
			of.Target = res.Target
			*res = of
		}
	}
}

// reject notes that a message does not go to a target.
func (s *sending) reject(target, reason, detail string) {
	s.results, s.posts = append(s.results, result{Target: target, Status: rejected, Reason: reason, Detail: detail}), append(s.posts, -1)
}

// post is the message as the log of one topic gets it.
func (c *call) post(topic string, m *message, a *about, meta []byte) cluster.Outgoing {
	return cluster.Outgoing{
		Topic: cluster.TopicOf(topic), ID: a.id, Once: a.once, Meta: meta, Block: m.block, Limits: c.opt.limits(m.ttl),
	}
}

// run publishes what was put into the round, waits until the log has it, and
// notes what became of it: for the senders, for whoever asks for a receipt, and
// for the webhook.
func (r *round) run(sendings []sending) {
	if len(r.posts) == 0 {
		return
	}
	ctx, cancel := r.c.within()
	defer cancel()
	r.got = r.c.cfg.Cluster.Publish(ctx, r.posts)
	for i := range sendings {
		r.settle(&sendings[i])
	}
	r.c.hook.book(ctx, r, sendings)
	for i := range sendings {
		sendings[i].repeat()
	}
}

func (r *round) settle(s *sending) {
	c := r.c
	var kept *receipt
	for i, at := range s.posts {
		if at < 0 {
			continue
		}
		post, got, res := &r.posts[at], &r.got[at], &s.results[i]
		if c.outcome(res, got); got.Err != nil {
			continue
		}
		if kept == nil {
			kept = &receipt{ID: s.m.id, Time: got.Time, own: s.m.own}
		}
		kept.add(res.Target, post, got)
	}
	if kept != nil {
		c.receipts.keep(kept)
	}
}

// outcome is what a receipt of the cluster says, in the API's words.
func (c *call) outcome(res *result, got *cluster.Receipt) {
	switch {
	case errors.Is(got.Err, cluster.ErrNotStored):
		res.Status, res.Reason, res.Detail = rejected, "unavailable", "the log could not be reached; nothing is stored"
		c.stats.failed.Add(1)
		return
	case got.Err != nil:
		res.Status, res.Reason, res.Detail = unknown, "fate_unknown", "the log did not answer in time"
		c.stats.failed.Add(1)
		return
	}
	c.stats.messages.Add(1)
	res.Position, res.Duplicate = got.Pos.Seq, got.Dup
	got.Nodes = c.having(res, got)
	if got.Dup {
		c.stats.repeated.Add(1)
	}
	if res.Nodes = got.Nodes; len(res.Nodes) > 0 {
		res.Status = delivered
		c.stats.delivered.Add(1)
	} else {
		res.Status = stored
		c.stats.stored.Add(1)
	}
}

// having are the nodes that have somebody who gets a message. What is on this
// one is known; of the others, that they had somebody a moment ago who follows
// the topic, whatever that connection asked for.
func (c *call) having(res *result, got *cluster.Receipt) []string {
	self := c.cfg.Cluster.ID()
	known := slices.Contains(got.Nodes, self)
	if res.node == "" && known == got.Here {
		return got.Nodes
	}
	var nodes []string // got.Nodes is shared
	for _, n := range got.Nodes {
		if n != self && (res.node == "" || n == res.node) {
			nodes = append(nodes, n)
		}
	}
	if got.Here {
		nodes = append(nodes, self)
		slices.Sort(nodes)
	}
	return nodes
}

// best is what became of the message as a whole: the best that it met with
// where it was sent, but what is not known comes first.
func (s *sending) best() string {
	best := ""
	for _, res := range s.results[:s.named] {
		if rank(res.Status) > rank(best) {
			best = res.Status
		}
	}
	return best
}

func rank(status string) int {
	switch status {
	case unknown:
		return 5
	case delivered:
		return 4
	case stored:
		return 3
	case notConnected:
		return 2
	case rejected:
		return 1
	}
	return 0
}

// failed is the answer to a message that found no log, or nil. Copies of the
// service's own count too: they were promised.
func (s *sending) failed() *refusal {
	none, fate := false, false
	for _, res := range s.results {
		none = none || res.Reason == "unavailable"
		fate = fate || res.Reason == "fate_unknown"
	}
	if !none && !fate {
		return nil
	}
	return lost(s.m.own, fate)
}

// lost is the answer to a message that found no log. own tells that its id is
// its sender's, so that it can be sent again; fate, that it may be in the log.
func lost(own, fate bool) *refusal {
	switch {
	case own:
		return unavailable("the log could not be reached, the message's fate is unknown; send it again with the same id, and it is there once")
	case fate:
		return unavailable("the log did not answer, the message's fate is unknown; sent again it may be there twice, since it came without an id of its own")
	}
	return unavailable("the log could not be reached, and not every target has the message; send it again")
}
