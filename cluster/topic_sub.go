package cluster

import (
	"context"
	"iter"

	"ssegate/hub"
	"ssegate/sse"
)

// Subscription is one client connection that follows topics here. Its methods
// may be called concurrently, also after the client has left.
type Subscription struct {
	id     string
	tag    any
	topics []Topic
	f      *hub.Follower
}

// ID is the connection's, as of SubscribeOptions.
func (s *Subscription) ID() string { return s.id }

// Tag is the caller's own, as of SubscribeOptions.
func (s *Subscription) Tag() any { return s.tag }

// Topics are the topics that the connection follows.
func (s *Subscription) Topics() []Topic { return s.topics }

// Follower is the connection as the hub has it. With several topics it follows
// a stream of its own, so its Pos is none of a topic's.
func (s *Subscription) Follower() *hub.Follower { return s.f }

// Pos is how far the connection has got in a topic: what was handed to it, or
// passed over as not meant for it. Zero for a topic that it does not follow,
// and until it is known where the subscription begins.
func (s *Subscription) Pos(t Topic) sse.Pos { return sse.Pos{} }

// Kick ends the connection at the next place between two whole events, see
// hub.Follower.Kick.
func (s *Subscription) Kick(why hub.Reason, bye []byte, clean bool) { s.f.Kick(why, bye, clean) }

// Subscribe attaches the connection c to one topic. It never waits: the
// response head and heartbeats go out at once, the rest as soon as it is known
// where the topic is. c is the hub's from then on, and whatever goes wrong
// later ends it through Left. ErrLeaving when the node ends or has no Journal;
// then c is still the caller's.
func (n *Node) Subscribe(t Topic, from From, c hub.Conn, o SubscribeOptions) (*Subscription, error) {
	return nil, ErrLeaving
}

// SubscribeAll is Subscribe to several topics at once; the first of them is
// the connection's primary one. A topic that is named twice counts once. What
// it gets bears ids that stand for its place in all of them, and come back to
// any node as CursorFrom.ID. One topic alone is as with Subscribe.
func (n *Node) SubscribeAll(ts []Topic, from CursorFrom, c hub.Conn, o SubscribeOptions) (*Subscription, error) {
	return nil, ErrLeaving
}

// Subscriptions are those of the moment on this node.
func (n *Node) Subscriptions() iter.Seq[*Subscription] {
	return func(func(*Subscription) bool) {}
}

// Subscribers is how many subscriptions this node has to a topic.
func (n *Node) Subscribers(t Topic) int { return 0 }

// ReasonKicked is why a connection left that was closed by request.
const ReasonKicked hub.Reason = "kicked:request"

// Kick ends the connection of that id wherever it is: a subscription, or what
// Config.KickOther knows. It asks every live node at once, within Config.Ask.
// ErrUnknown when no node has it, ErrUnavailable when one did not answer and
// no other has it.
func (n *Node) Kick(ctx context.Context, id string) error { return ErrUnknown }

// Delivery says how far a message has got.
type Delivery struct {
	Connections int // that follow the topic now, on the nodes that answered, and are meant
	Written     int // connections that were handed the message, those that left lately included
	Nodes       int // live nodes, this one included
	Silent      int // nodes of them that did not answer in time: there may be more
}

// Written asks every live node at once how far the message at pos of a topic
// has got, within Config.Ask. meta is the message's.
func (n *Node) Written(ctx context.Context, t Topic, pos sse.Pos, meta []byte) Delivery {
	return Delivery{}
}
