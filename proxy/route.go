package proxy

import (
	"net/http"
	"sync/atomic"
	"time"

	"ssegate/discover"
)

// Upstream is a service behind the gate. It is immutable once it stands in a
// Table, but for the Balancer, which follows discovery.
type Upstream struct {
	Name          string
	Balancer      *discover.Balancer
	Transport     *http.Transport
	HeaderTimeout time.Duration // how long the response head may take; 0: no limit
	IdleTimeout   time.Duration // silence after which an event stream counts as cut; 0: no limit
	Host          string        // Host sent upstream: "client", "upstream", or a literal
}

// AttachMode says by what a second request joins a running stream.
type AttachMode uint8

// The attach modes of a route. Each but AttachOff includes coming back by id.
const (
	AttachID AttachMode = iota
	AttachKey
	AttachContent
	AttachOff
)

// KeySource says where a request carries its attach key.
type KeySource struct {
	In   string // "header", "query" or "json"
	Name string // header name, query parameter, or member of the JSON body (dots go deeper)
}

// IDMode says whose ids the events of a route bear.
type IDMode uint8

// The id modes of a route.
const (
	IDsAuto     IDMode = iota // the edge's, until the backend gives its own
	IDsEdge                   // the edge's, whatever the backend gives
	IDsUpstream               // the backend's only
	IDsOff                    // none are added; no resume by id
)

// HeartbeatStyle says what is written into silence.
type HeartbeatStyle uint8

// The heartbeat styles; see the table of client libraries in docs/concepts.md.
const (
	HeartbeatLine    HeartbeatStyle = iota // ":\n"
	HeartbeatComment                       // ":\n\n"
	HeartbeatEvent                         // "data: heartbeat\n\n"
	HeartbeatOff
)

// Route says what happens to the requests it matches. It is immutable; a
// stream keeps the route it began with.
type Route struct {
	Name       string   // how the route is called in logs, metrics and the status API
	Host       string   // "" = any; lower case, without port; "*.example.com" = any sub-domain
	Path       string   // prefix, cut at path segments; the longest wins
	Methods    []string // empty = any
	Upstream   *Upstream
	HostHeader string // overrides Upstream.Host when not empty

	Attach             AttachMode
	AttachKey          KeySource
	AttachFor          time.Duration // how long after a stream's end a key or content still joins it
	AttachRefuse       bool          // refuse rather than run when the election cannot be held
	AttachBodyLimit    int64         // bytes of body read to find a key or a fingerprint
	CancelOnLeave      bool          // on_disconnect = "cancel"
	DetachFor          time.Duration
	Heartbeat          time.Duration
	HeartbeatStyle     HeartbeatStyle
	HeartbeatData      string
	FirstByteHeartbeat time.Duration // > 0: answer 200 after that long without a response head
	Retry              time.Duration // 0: no hint
	Done               []string      // data of a last event that says: finished
	DoneEvents         []string      // event names that say so
	IDs                IDMode
	Takeover           bool     // go on at the upstream by its own last id when the owner died
	Bind               []string // cookies that say whose a stream is
	CutSlow            bool     // slow = "cut"
	LogLength          int
	LogTTL             time.Duration
	RingEvents         int
	RingBytes          int
	WriteTimeout       time.Duration
	EventSize          int           // bytes of one event
	BodySize           int64         // bytes of a request body; 0: no limit
	MaxAge             time.Duration // a connection older than this is moved; 0: never
}

// Table is the set of routes that requests are matched against.
type Table struct {
	routes []*Route // longest path first; see NewTable
}

// routes are swapped as a whole, so that a request sees one table only.
type tableRef = atomic.Pointer[Table]
