package bus

import (
	"context"
	"errors"

	"ssegate/sse"
)

// Kind says what a message is. The values go over the wire: never renumber.
// What each means, and its Body, is defined by package cluster; the bus only
// carries it.
type Kind uint8

// Message is one message from a node to a node.
type Message struct {
	From   string // node id of the sender; drivers carry it
	Kind   Kind
	Stream sse.StreamID // zero where the message is about none
	Call   uint64       // pairs an answer with its question; 0 where none is awaited
	Body   []byte       // opaque to the bus; not kept after Send returns, not shared after Receive
}

var (
	// ErrDown says that the transport is not connected now; nothing was sent.
	ErrDown = errors.New("bus: not connected")
	// ErrTooBig says that a message exceeds MaxBody.
	ErrTooBig = errors.New("bus: message too big")
	// ErrClosed says that Run has ended.
	ErrClosed = errors.New("bus: closed")
)

// MaxBody bounds the Body of one message, in bytes. A driver may put several
// messages into one parcel and must carry every parcel whose messages keep
// the bound.
const MaxBody = 8 << 20

// LostReason names why parcels did not arrive; used as a metric label.
type LostReason string

const (
	// LostUnroutable: nobody listens under that node id.
	LostUnroutable LostReason = "unroutable"
	// LostRefused: the broker did not take it (nack, or the connection broke
	// before the confirm came).
	LostRefused LostReason = "refused"
	// LostOverflow: the queue to that node, or our own, is full.
	LostOverflow LostReason = "overflow"
)

// Handler is what a Bus calls. Calls come one at a time and must return
// soon; they must not wait for the bus.
type Handler interface {
	// Receive hands over messages in the order in which their sender sent
	// them. The slice and its Bodies belong to the callee.
	Receive(msgs []Message)
	// Lost tells that something sent to node `to` did not arrive. Several
	// losses of one sort may be told in one call.
	Lost(to string, why LostReason)
	// Up tells that the transport came up (messages sent to this node before
	// may have been lost: resync) or went down. Up(true) is the first call of
	// all; the end of Run is no Up(false).
	Up(up bool)
}

// Bus carries messages to nodes by node id.
type Bus interface {
	// Send hands messages for node `to` to the transport as one parcel and
	// returns as soon as they are handed over, without waiting for delivery;
	// it never waits for a broker that does not answer longer than ctx
	// allows. Where its queue is full, a driver does not wait: it loses the
	// parcel and says LostOverflow. Concurrent calls are allowed; messages of
	// sequential calls to one node arrive in order, or not at all. From is
	// this node's id, whatever the messages say. Sending to oneself works.
	// Errors: ErrDown, ErrTooBig, ErrClosed, ctx.Err().
	Send(ctx context.Context, to string, msgs []Message) error
	// Run connects, receives and calls h until ctx is done, reconnecting by
	// itself with jittered backoff; it may be called once. It returns nil
	// when ctx ended it, after everything it started has stopped and what it
	// declared for this node (queues, subscriptions) is gone.
	Run(ctx context.Context, h Handler) error
}

// CheckSize returns ErrTooBig when a Body is longer than MaxBody: what every
// Send asks first.
func CheckSize(msgs []Message) error {
	for i := range msgs {
		if len(msgs[i].Body) > MaxBody {
			return ErrTooBig
		}
	}
	return nil
}
