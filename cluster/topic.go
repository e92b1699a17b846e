package cluster

import (
	"crypto/sha256"
	"time"

	"ssegate/hub"
	"ssegate/reconnect"
	"ssegate/sse"
)

// Topic is a stream without an owner: any node publishes, and the log numbers.
type Topic struct {
	Name string       // `user/{id}`, `channel/{name}`, `service/{name}`
	ID   sse.StreamID // made of Name, the same on every node
}

// TopicOf is the topic of that name.
func TopicOf(name string) Topic {
	sum := sha256.Sum256([]byte("ssegate topic\x00" + name))
	return Topic{Name: name, ID: sse.StreamID(sum[:16])}
}

// From says where in a topic a subscription begins. The zero From: with what
// is published from now on.
type From struct {
	// After is the last position that the client has, if HasAfter.
	After    sse.Pos
	HasAfter bool
	// Unknown: the client came back with an id that says nothing of this
	// topic. It is told of a gap and gets what is published from now on.
	Unknown bool
	// Else: Last is how many of the newest messages come first; Since, the
	// time whose later messages come first. At most one of them.
	Last  int
	Since time.Time
}

// From reads a Last-Event-ID for a subscription to this topic alone.
func (t Topic) From(id []byte) From {
	at, err := reconnect.ParseEdgeID(id)
	if err != nil || at.Stream != t.ID {
		return From{Unknown: true}
	}
	return From{After: at.Pos, HasAfter: true}
}

// CursorFrom says where a subscription to several topics begins. The zero
// CursorFrom: with what is published from now on.
type CursorFrom struct {
	// ID is the Last-Event-ID as the client sent it: a cursor of just these
	// topics, or the id of an event of one of them. Whatever else it is, the
	// client is told of a gap.
	ID []byte
	// Without an ID: as in From, for each topic.
	Last  int
	Since time.Time
}

// SubscribeOptions say how a client follows topics.
type SubscribeOptions struct {
	// ID names the connection in the whole cluster: for Kick, and for messages
	// to this connection alone. Needed, and never used again.
	ID string
	// What hub.FollowOptions has.
	Head         []byte
	Chunked      bool
	Retry        time.Duration
	Heartbeat    time.Duration
	WriteTimeout time.Duration
	// Until is when Expired is called, once, unless the client has left; the
	// zero Until: never. Expired kicks the subscription.
	Until   time.Time
	Expired func(s *Subscription)
	// Filter narrows what the client gets. Its Connection is ID and its
	// Secondary is set by this package.
	Filter Filter

	// How this node serves a topic: what the first subscriber says holds for
	// all until the last one has left.

	HeartbeatText         []byte // one heartbeat, whole lines
	Slow                  hub.Policy
	CutGap                bool             // a client whose position is gone is cut rather than told
	RingEvents, RingBytes int              // kept in memory; 0: the hub's own limits
	Limits                reconnect.Limits // of the topic's log

	// Left is called once, after the client has gone. It must return soon.
	Left func(s *Subscription, why hub.Reason)
	// Tag is the caller's own.
	Tag any
}
