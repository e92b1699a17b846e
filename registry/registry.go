package registry

import (
	"context"
	"errors"
	"time"

	"ssegate/sse"
)

// Node is one running ssegate. ID bears a boot nonce, so that a quick restart
// is not taken for the node that died.
type Node struct {
	ID          string    `json:"id"`
	Advertise   string    `json:"advertise,omitempty"` // public base URL
	Internal    string    `json:"internal,omitempty"`  // address of the internal listener
	Started     time.Time `json:"started"`
	Seen        time.Time `json:"seen"` // last heartbeat, by the registry's clock
	Connections int       `json:"connections"`
	Streams     int       `json:"streams"` // owned, still running
	Draining    bool      `json:"draining,omitempty"`
}

// State of a stream as the registry knows it.
type State uint8

const (
	// StateStarting: the upstream has not answered yet.
	StateStarting State = iota
	// StateLive: events may come.
	StateLive
	// StateEnded: the log has (or had) an end frame; Record.End says how.
	StateEnded
	// StateRefused: the upstream answered with something that is no event
	// stream; whoever waits must ask for itself.
	StateRefused
)

// Record is what any node needs to know to let a client come back to a
// stream. Fields that are no words of this package's are opaque to it.
type Record struct {
	Stream        sse.StreamID `json:"stream"`
	Owner         string       `json:"owner"` // node id
	Epoch         uint64       `json:"epoch"` // the owner's term
	State         State        `json:"state"`
	End           sse.End      `json:"end,omitempty"`
	Route         string       `json:"route"`
	Principal     []byte       `json:"principal,omitempty"` // hash of who started it
	Started       time.Time    `json:"started"`
	Ended         time.Time    `json:"ended,omitzero"`
	Tail          sse.Pos      `json:"tail"`
	UpstreamIDs   bool         `json:"upstream_ids,omitempty"`   // the backend's own ids are in its events
	UpstreamID    []byte       `json:"upstream_id,omitempty"`    // the last of them
	UpstreamRetry bool         `json:"upstream_retry,omitempty"` // the backend gives retry hints itself
	Followers     int          `json:"followers,omitempty"`      // clients in the whole cluster; in an owner's answer only
	Head          []byte       `json:"head,omitempty"`           // the first response's head, encoded by package proxy
	Request       []byte       `json:"request,omitempty"`        // kept for a takeover only, encoded by package proxy
}

var (
	// ErrUnknown says that the registry was reached and knows no such thing.
	ErrUnknown = errors.New("registry: unknown")
	// ErrFenced says that a newer epoch owns the stream.
	ErrFenced = errors.New("registry: a newer owner holds this stream")
)

// Any error of a method that is neither sentinel means that the registry
// could not be reached and nothing is known. Every wait ends with ctx, and
// all methods may be called concurrently. Slices handed in or out are shared,
// never changed.

// Nodes is the part about leases.
type Nodes interface {
	// Beat renews the lease of n.ID for ttl and stores n (Seen is set by the
	// driver). lapsed is true when there was no valid lease to renew, as on
	// the first beat: everything the node holds must be registered again.
	Beat(ctx context.Context, n Node, ttl time.Duration) (lapsed bool, err error)
	// List returns the nodes whose lease is valid, sorted by ID.
	List(ctx context.Context) ([]Node, error)
	// Leave ends the lease, and with it all that goes with a lease, and the
	// cleaner's office if the node has it. A node that left is not swept.
	Leave(ctx context.Context, id string) error
	// Sweep removes what nodes without a lease left behind and returns their
	// ids, each death once or, after an error, rather twice than never: dead
	// counts even when err is not nil. One node does this at a time, see
	// Lead.
	Sweep(ctx context.Context) (dead []string, err error)
	// Lead makes node the one cleaner for ttl if nobody else is, or renews
	// it; true when node is the cleaner now.
	Lead(ctx context.Context, node string, ttl time.Duration) (bool, error)
}

// Streams is the part about ownership.
type Streams interface {
	// Put creates or replaces records, each kept for ttl from now; one round
	// trip where the driver can. errs is nil or has one error a record:
	// ErrFenced where the stored record has a newer epoch.
	Put(ctx context.Context, recs []Record, ttl time.Duration) (errs []error)
	// Get returns a record or ErrUnknown.
	Get(ctx context.Context, id sse.StreamID) (Record, error)
	// Claim replaces the record if the stored one still has epoch old and
	// rec.Epoch is newer; ErrFenced otherwise (also when it is gone). Who
	// holds the record in that epoch already may claim it again, so that a
	// Claim whose fate is not known can be repeated.
	Claim(ctx context.Context, rec Record, old uint64, ttl time.Duration) error
	// Touch puts off the end of records and of the interest that live nodes
	// have in them; it never brings an end nearer. Streams without a record
	// are passed over.
	Touch(ctx context.Context, ids []sse.StreamID, ttl time.Duration) error
}

// Interest is the part about which nodes follow which stream.
type Interest interface {
	// Follow and Unfollow set and clear a node's interest in a stream.
	// Interest ends by itself after ttl, and counts for nothing while the
	// node has no valid lease.
	Follow(ctx context.Context, id sse.StreamID, node string, ttl time.Duration) error
	Unfollow(ctx context.Context, id sse.StreamID, node string) error
	// Followers returns the live nodes that follow each stream, in one round
	// trip where the driver can.
	Followers(ctx context.Context, ids []sse.StreamID) ([][]string, error)
}

// Bid is what a node puts under an attach key: the stream it would start.
type Bid struct {
	Stream sse.StreamID `json:"stream"`
	Owner  string       `json:"owner"`
	// Sum is a hash of the request body: another body under the same key is
	// a mistake of the client's.
	Sum []byte `json:"sum,omitempty"`
}

// Same reports whether both are one node's bid for one stream.
func (b Bid) Same(o Bid) bool { return b.Stream == o.Stream && b.Owner == o.Owner }

// MaxPrints is how many streams are kept under one fingerprint.
const MaxPrints = 16

// Keys is the part about finding a stream by what the client sends.
type Keys interface {
	// Elect puts bid under key for ttl if the key is free, and returns what
	// stands there now: won is true when that is bid itself (also when it
	// stood there before). A bid whose owner has no valid lease counts as
	// free; of several that find it so, one wins.
	Elect(ctx context.Context, key string, bid Bid, ttl time.Duration) (now Bid, won bool, err error)
	// Extend puts off the end of a key that still holds this stream;
	// ErrUnknown when it does not.
	Extend(ctx context.Context, key string, stream sse.StreamID, ttl time.Duration) error
	// Release frees a key that still holds this stream; any other is left
	// alone.
	Release(ctx context.Context, key string, stream sse.StreamID) error
	// AddPrint notes that a request with this fingerprint led to the stream;
	// ByPrint returns the streams noted (at most MaxPrints, newest first)
	// whose ttl has not passed.
	AddPrint(ctx context.Context, print string, stream sse.StreamID, ttl time.Duration) error
	ByPrint(ctx context.Context, print string) ([]sse.StreamID, error)
}

// Connection is one client connection that a node holds.
type Connection struct {
	ID     string       `json:"id"`
	Node   string       `json:"node"`
	Stream sse.StreamID `json:"stream"`
	Topics []string     `json:"topics,omitempty"`
	User   string       `json:"user,omitempty"`
	Remote string       `json:"remote"`
	Since  time.Time    `json:"since"`
}

// Connections is the part about who holds whom. A node's connections go with
// its lease.
type Connections interface {
	// PutConns and DropConns change a node's own connections, in one round
	// trip each where the driver can. What conns point to must not change any
	// more: it may be kept. PutConns answers ErrUnknown and keeps nothing when
	// the node has no valid lease: its next Beat says lapsed.
	PutConns(ctx context.Context, node string, conns []*Connection) error
	DropConns(ctx context.Context, node string, ids []string) error
	// Conns returns the connections of the live nodes, in no order.
	Conns(ctx context.Context) ([]Connection, error)
}

// Notes is the part about small values that any node may read, kept for a time
// under a name of the caller's.
type Notes interface {
	// PutNote keeps value under name for ttl from now, in place of what is
	// there.
	PutNote(ctx context.Context, name string, value []byte, ttl time.Duration) error
	// GetNote returns what is kept under name, or ErrUnknown.
	GetNote(ctx context.Context, name string) ([]byte, error)
	// TakeNote returns it and removes it; of several takers one gets it and
	// the others ErrUnknown. What was taken when the answer was lost is gone.
	TakeNote(ctx context.Context, name string) ([]byte, error)
}

// MaxGathered is how many values are kept under one name.
const MaxGathered = 64

// Gathering is the part about what several nodes know of one thing: values that
// are kept beside one another under a name of the caller's, which is none of
// Notes' names.
type Gathering interface {
	// Gather adds value to those under name, and has all of them kept for ttl
	// from now at least. Equal values are one; of more than MaxGathered the
	// newest are kept.
	Gather(ctx context.Context, name string, value []byte, ttl time.Duration) error
	// Gathered returns what is kept under name, newest first; nothing is no
	// error.
	Gathered(ctx context.Context, name string) ([][]byte, error)
}

// Due is the part about what is to be done at a time by whoever comes first.
type Due interface {
	// PutDue has each item wait until at. An item is told from others by its
	// bytes: one that waits already waits until at from now on. Items that
	// nobody takes are dropped a week after their time at the earliest.
	PutDue(ctx context.Context, at time.Time, items [][]byte) error
	// TakeDue returns up to most items whose time is now or before, the
	// earliest first, and has each of them wait until back, which is later: of
	// several takers each item goes to one, and what its taker has not dropped
	// by then comes back, whatever became of the taker or of the answer.
	TakeDue(ctx context.Context, now, back time.Time, most int) ([][]byte, error)
	// DropDue removes items: they are done. Those that are not there are
	// passed over.
	DropDue(ctx context.Context, items [][]byte) error
}

// Registry is all parts together, as a driver provides them. Callers declare
// the parts they need.
type Registry interface {
	Nodes
	Streams
	Interest
	Keys
	Connections
	Notes
	Gathering
	Due
}
