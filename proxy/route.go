package proxy

import (
	"bytes"
	"cmp"
	"net/http"
	"slices"
	"strings"
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
	Path       string   // prefix, cut at path segments; the longest wins. As a request has it, percent-encoded
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
	RetryToAll         bool          // the hint goes to clients that are no EventSource, too
	Done               []string      // data of a last event that says: finished
	DoneEvents         []string      // event names that say so
	IDs                IDMode
	Takeover           bool     // go on at the upstream by its own last id when the owner died
	Bind               []string // cookies that say whose a stream is
	CutGap             bool     // gap = "cut": a client whose position is gone is cut rather than told
	CutSlow            bool     // slow = "cut"
	LogLength          int
	LogTTL             time.Duration
	RingEvents         int
	RingBytes          int
	WriteTimeout       time.Duration
	EventSize          int           // bytes of one event
	BodySize           int64         // bytes of a request body; 0: no limit
	MaxAge             time.Duration // a connection older than this is moved; 0: never
	RequireAuth        bool          // auth = "require": who cannot say who it is gets 401

	serve pushPath // one of our own paths; 0: goes upstream
}

// Table is the set of routes that requests are matched against.
type Table struct {
	routes []entry // longest path first; see NewTable
}

// entry is a route in a table.
type entry struct {
	*Route
	plain string // its Path as Match compares it; see PlainPath
}

// with returns the table with more routes in it.
func (t *Table) with(more []*Route) *Table {
	routes := make([]*Route, 0, len(t.routes)+len(more))
	for _, e := range t.routes {
		routes = append(routes, e.Route)
	}
	return NewTable(append(routes, more...))
}

// routes are swapped as a whole, so that a request sees one table only.
type tableRef = atomic.Pointer[Table]

// NewTable sorts routes in the order in which they are tried: the longest path
// first; of equal ones those for one host, then those for its sub-domains, then
// those for any; of these, those that name methods; then as they were given.
func NewTable(routes []*Route) *Table {
	t := &Table{routes: make([]entry, len(routes))}
	for i, r := range routes {
		t.routes[i] = entry{r, PlainPath(r.Path)}
	}
	slices.SortStableFunc(t.routes, func(a, b entry) int {
		return cmp.Or(
			cmp.Compare(len(b.plain), len(a.plain)),
			cmp.Compare(hostRank(b.Host), hostRank(a.Host)),
			cmp.Compare(min(1, len(b.Methods)), min(1, len(a.Methods))),
			cmp.Compare(min(1, a.serve), min(1, b.serve)), // what is configured comes before what is ours
		)
	})
	return t
}

// hostRank is higher the fewer hosts a pattern has.
func hostRank(pattern string) int {
	switch {
	case pattern == "":
		return 0
	case strings.HasPrefix(pattern, "*."):
		return len(pattern)
	}
	return 1 << 20
}

// Match finds the route of a request by its Host (a port does not matter), its
// raw path and its method. Where only the method is wrong, allow lists those
// that would do; it is empty where no route fits at all.
//
// The path is compared as a backend would most likely understand it, with
// escapes decoded (but for %2F) and dots and double slashes resolved, so that
// nobody gets around a route by spelling its path differently. What goes
// upstream is the raw one.
func (t *Table) Match(host, path, method string) (route *Route, allow string) {
	host, path = bareHost(host), PlainPath(path)
	var others []string
	for _, r := range t.routes {
		if !r.takesPath(path) || !r.takesHost(host) {
			continue
		}
		if len(r.Methods) == 0 || slices.Contains(r.Methods, method) {
			return r.Route, ""
		}
		others = append(others, r.Methods...)
	}
	slices.Sort(others)
	return nil, strings.Join(slices.Compact(others), ", ")
}

// Named returns the first configured route with this name, nil where there is
// none.
func (t *Table) Named(name string) *Route {
	for _, r := range t.routes {
		if r.Name == name && r.serve == 0 {
			return r.Route
		}
	}
	return nil
}

func (e entry) takesPath(path string) bool {
	rest, ok := strings.CutPrefix(path, e.plain)
	return ok && (rest == "" || rest[0] == '/' || strings.HasSuffix(e.plain, "/")) || path == "*" && e.plain == "/"
}

func (r *Route) takesHost(host string) bool {
	if r.Host == "" {
		return true
	}
	if suffix, ok := strings.CutPrefix(r.Host, "*"); ok {
		return len(host) > len(suffix) && strings.EqualFold(host[len(host)-len(suffix):], suffix)
	}
	return strings.EqualFold(host, r.Host)
}

// bareHost is a host without port and without the dot of the root.
func bareHost(host string) string {
	if end := strings.LastIndexByte(host, ':'); end >= 0 && strings.IndexByte(host[end:], ']') < 0 {
		host = host[:end]
	}
	return strings.TrimSuffix(host, ".")
}

// PlainPath is a path as routes are compared with it: decoded, but for %2F, and
// resolved. It does not allocate where there is nothing to do.
func PlainPath(path string) string {
	path, _, _ = strings.Cut(path, "#")
	plain := true
	for i := 0; i < len(path) && plain; i++ {
		switch path[i] {
		case '%':
			plain = false
		case '/':
			plain = i+1 == len(path) || path[i+1] != '/' && path[i+1] != '.'
		}
	}
	if plain {
		return path
	}
	var out []byte
	for segment := range strings.SplitSeq(unescape(path), "/") {
		switch segment {
		case "", ".":
		case "..":
			out = out[:max(0, bytes.LastIndexByte(out, '/'))]
		default:
			out = append(append(out, '/'), segment...)
		}
	}
	if len(out) == 0 || path[len(path)-1] == '/' {
		out = append(out, '/')
	}
	return string(out)
}

// unescape decodes percent escapes, but leaves those of a slash, as %2F, and
// what is no escape.
func unescape(s string) string {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			hi, lo := hexDigit(s[i+1]), hexDigit(s[i+2])
			if c := byte(hi<<4 | lo); hi >= 0 && lo >= 0 {
				if c == '/' {
					b = append(b, "%2F"...)
				} else {
					b = append(b, c)
				}
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}
