package cluster

import (
	"slices"
	"sync/atomic"
	"time"

	"ssegate/hub"
	"ssegate/sse"
)

// Subscription is one client connection that follows topics here. Its methods
// may be called concurrently, also after the client has left.
type Subscription struct {
	id     string
	tag    any
	n      *Node
	topics []Topic
	filter Filter
	leftBy func(s *Subscription, why hub.Reason)
	f      atomic.Pointer[hub.Follower]

	since atomic.Uint64 // Seq after which it gets one topic; 0: not known yet
	merge *merger       // of several topics
}

// ID is the connection's, as of SubscribeOptions.
func (s *Subscription) ID() string { return s.id }

// Tag is the caller's own, as of SubscribeOptions.
func (s *Subscription) Tag() any { return s.tag }

// Topics are the topics that the connection follows.
func (s *Subscription) Topics() []Topic { return s.topics }

// Follower is the connection as the hub has it. With several topics it follows
// a stream of its own, so its Pos is none of a topic's.
func (s *Subscription) Follower() *hub.Follower { return s.f.Load() }

// Pos is how far the connection has got in a topic: what was handed to it, or
// passed over as not meant for it. Zero for a topic that it does not follow,
// and until it is known where the subscription begins.
func (s *Subscription) Pos(t Topic) sse.Pos {
	_, at := s.reach(t.ID)
	return sse.Pos{Seq: at}
}

// reach is what of a topic the connection got: what is above since, up to at;
// zero both until that is known.
func (s *Subscription) reach(id sse.StreamID) (since, at uint64) {
	if s.merge != nil {
		return s.merge.reach(id)
	}
	if s.topics[0].ID != id {
		return 0, 0
	}
	since = s.since.Load()
	if at = s.handed(); since == 0 || at < since {
		return since, since // on its way to where it begins
	}
	return since, at
}

// handed is the Seq of the last frame that was handed to the connection.
func (s *Subscription) handed() uint64 {
	if f := s.f.Load(); f != nil {
		return f.Pos().Seq
	}
	return 0
}

// Kick ends the connection at the next place between two whole events, see
// hub.Follower.Kick.
func (s *Subscription) Kick(why hub.Reason, bye []byte, clean bool) { s.f.Load().Kick(why, bye, clean) }

// Subscribe attaches the connection c to one topic. It never waits: the
// response head and heartbeats go out at once, the rest as soon as it is known
// where the topic is. c is the hub's from then on, and whatever goes wrong
// later ends it through Left. ErrLeaving when the node ends or has no Journal;
// then c is still the caller's.
func (n *Node) Subscribe(t Topic, from From, c hub.Conn, o SubscribeOptions) (*Subscription, error) {
	tp, err := n.topics.enter(t, &o)
	if err != nil {
		return nil, err
	}
	if from.HasAfter {
		n.topics.passed(t.ID, from.After, o.Limits.TTL)
	}
	s := n.subscription([]Topic{t}, &o)
	tp.hub.Follow(c, s.options(&o, tp.start(s, from), s.filter.Want(tp.ring)))
	return s, nil
}

// SubscribeAll is Subscribe to several topics at once; the first of them is
// the connection's primary one. A topic that is named twice counts once. What
// it gets bears ids that stand for its place in all of them, and come back to
// any node as CursorFrom.ID. One topic alone is as with Subscribe; none is
// ErrUnknown.
func (n *Node) SubscribeAll(ts []Topic, from CursorFrom, c hub.Conn, o SubscribeOptions) (*Subscription, error) {
	var topics []Topic
	for _, t := range ts {
		if !slices.Contains(topics, t) {
			topics = append(topics, t)
		}
	}
	switch len(topics) {
	case 0:
		return nil, ErrUnknown
	case 1:
		f := From{Last: from.Last, Since: from.Since}
		if len(from.ID) > 0 {
			f = topics[0].From(from.ID)
		}
		return n.Subscribe(topics[0], f, c, o)
	}
	s := n.subscription(topics, &o)
	if err := n.merge(s, from, &o); err != nil {
		return nil, err
	}
	s.merge.out.Follow(c, s.options(&o, sse.Pos{}, nil))
	s.merge.start()
	return s, nil
}

func (n *Node) subscription(ts []Topic, o *SubscribeOptions) *Subscription {
	s := &Subscription{id: o.ID, tag: o.Tag, n: n, topics: ts, filter: o.Filter, leftBy: o.Left}
	s.filter.Connection = o.ID
	s.filter.Secondary = false
	return s
}

func (s *Subscription) options(o *SubscribeOptions, after sse.Pos, want func(hub.FrameMeta) bool) hub.FollowOptions {
	f := hub.FollowOptions{
		After: after, Head: o.Head, Chunked: o.Chunked, Retry: o.Retry, Heartbeat: o.Heartbeat,
		WriteTimeout: o.WriteTimeout, Until: o.Until, Want: want, Tag: s,
	}
	if expired := o.Expired; expired != nil {
		f.Expired = func(*hub.Follower) { expired(s) }
	}
	return f
}

// join books a subscription whose follower is there now.
func (s *Subscription) join(f *hub.Follower) {
	s.f.Store(f)
	ts := &s.n.topics
	ts.mu.Lock()
	ts.subs[s.id] = s
	ts.mu.Unlock()
}

// gone books that a subscription has ended, and how far it had got.
func (ts *topics) gone(s *Subscription) {
	d := departure{when: time.Now(), filter: s.filter, topics: s.topics}
	for _, t := range s.topics {
		since, at := s.reach(t.ID)
		d.since, d.at = append(d.since, since), append(d.at, at)
	}
	ts.mu.Lock()
	if ts.subs[s.id] == s {
		delete(ts.subs, s.id)
	}
	ts.recent.add(d)
	ts.mu.Unlock()
}

func (s *Subscription) leave(why hub.Reason) {
	if s.leftBy != nil {
		s.leftBy(s, why)
	}
}

// departure is what a connection got that has left.
type departure struct {
	when      time.Time
	filter    Filter
	topics    []Topic
	since, at []uint64
}

const (
	// departed is how long a connection that left still counts for Written.
	departed = time.Minute
	// departuresKept is how many of them are known at most.
	departuresKept = 4096
)

// departures are the connections that left lately.
type departures struct {
	all  []departure // oldest first from next on
	next int
}

func (d *departures) add(one departure) {
	if len(d.all) < departuresKept {
		d.all = append(d.all, one)
		return
	}
	d.all[d.next] = one
	d.next = (d.next + 1) % len(d.all)
}

// count is how many of them were handed the message at seq of a topic.
func (d *departures) count(id sse.StreamID, seq uint64, m *metaView, now time.Time) (written int) {
	for i := range d.all {
		one := &d.all[i]
		if now.Sub(one.when) > departed {
			continue
		}
		at := slices.IndexFunc(one.topics, func(t Topic) bool { return t.ID == id })
		if at < 0 || one.since[at] == 0 || one.since[at] >= seq || one.at[at] < seq {
			continue
		}
		one.filter.Secondary = at > 0
		if one.filter.meant(m) {
			written++
		}
	}
	return written
}

// forget drops those that no longer count.
func (d *departures) forget(now time.Time) {
	if len(d.all) == 0 {
		return
	}
	kept := slices.Concat(d.all[d.next:], d.all[:d.next])
	old := 0
	for old < len(kept) && now.Sub(kept[old].when) > departed {
		old++
	}
	if old > 0 {
		d.all, d.next = kept[old:], 0
	}
}
