package proxy

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"ssegate/cluster"
	"ssegate/hub"
	"ssegate/intake"
	"ssegate/reconnect"
	"ssegate/registry"
	"ssegate/sse"
)

// streams is the half of a Proxy that knows event streams: it starts them,
// lets clients come back to them, and holds the clients' connections.
type streams struct {
	p       *Proxy
	node    *cluster.Node
	hub     *hub.Hub
	buffers readBuffers
	drafts  drafts
	intake  *intake.Set

	pumps crew
	ctx   context.Context
	stop  context.CancelCauseFunc

	mu     sync.Mutex
	held   map[string]held // by connection id; nil: about to be
	perIP  map[string]int
	perWho map[string]int
	told   map[lastWord]said // what clients were told here about ended streams

	moved atomic.Int64 // followers that were told to come back elsewhere
}

func newStreams(p *Proxy, node *cluster.Node, h *hub.Hub) (st *streams, err error) {
	st = &streams{
		p: p, node: node, hub: h,
		held: map[string]held{}, perIP: map[string]int{}, perWho: map[string]int{},
		told: map[lastWord]said{},
	}
	st.ctx, st.stop = context.WithCancelCause(context.Background())
	st.intake, err = intake.New(0)
	return st, err
}

// held is a client's connection: a follower of one stream, or a subscription
// to topics. Its tag is a *client.
type held interface {
	Kick(why hub.Reason, bye []byte, clean bool)
	Tag() any
}

// client is what is remembered of a connection; the hub carries it as its tag.
type client struct {
	id        string
	ip        string
	who       string
	whois     string
	resumable bool // comes back by itself: EventSource, or has come back before
	retry     time.Duration
	stream    sse.StreamID
	topics    []string   // that it follows, where it is no stream
	after     uint64     // where it came back by an id of the backend's; 0: otherwise
	ending    hub.Reason // why its time will be over, if it has one
	moved     bool       // under streams.mu
}

// asks is what the stream half wants to know of a request.
type asks struct {
	eventSource bool // GET with Accept: text/event-stream
	get         bool
	lastID      []byte
	edge        reconnect.EdgeID
	edgeErr     error // nil: lastID is an edge id
	who         []byte
}

// streamPart is what the stream half keeps of a request on its way.
type streamPart struct {
	first []byte // what this client is told before its first event: whole blocks or lines
}

func (st *streams) ask(x *exchange) asks {
	a := asks{
		eventSource: x.eventSource(),
		get:         x.method == "GET",
		lastID:      []byte(x.lastEventID()),
		who:         principal(x),
		edgeErr:     reconnect.ErrNotEdgeID,
	}
	if len(a.lastID) > 0 {
		a.edge, a.edgeErr = reconnect.ParseEdgeID(a.lastID)
		if _, err := reconnect.ParseCursor(a.lastID); !errors.Is(err, reconnect.ErrNotEdgeID) {
			a.edgeErr = reconnect.ErrDamagedEdgeID // ours, but of topics: no stream has it
		}
	}
	return a
}

// lastEventID is where the client was, as its header says, or its query as
// polyfills send it.
func (x *exchange) lastEventID() string {
	if id := x.header("Last-Event-ID"); id != "" {
		return id
	}
	return x.param(lastIDParam)
}

const lastIDParam = "lastEventId"

// param is the first value of a query parameter, decoded; "" where it is
// missing or cannot be decoded.
func (x *exchange) param(name string) string {
	for part := range strings.SplitSeq(x.query, "&") {
		k, v, _ := strings.Cut(part, "=")
		if k == name {
			v, err := url.QueryUnescape(v)
			if err == nil {
				return v
			}
		}
	}
	return ""
}

// setLastEventID makes id what the upstream is asked to go on from, nil for
// nothing: an edge id never goes upstream, neither in the header nor in the
// query.
func (x *exchange) setLastEventID(id []byte) {
	x.fields = slices.DeleteFunc(x.fields, func(f field) bool { return strings.EqualFold(f.name, "Last-Event-ID") })
	if len(id) > 0 {
		x.fields = append(x.fields, field{"Last-Event-ID", string(id)})
	}
	if strings.Contains(x.query, lastIDParam) {
		x.query = withoutParam(x.query, lastIDParam)
		x.uri = x.path
		if x.query != "" {
			x.uri += "?" + x.query
		}
	}
}

// accepts reports whether an Accept field names a media type outright.
func accepts(accept []byte, media string) bool {
	for part := range strings.SplitSeq(string(accept), ",") {
		name, _, _ := strings.Cut(part, ";")
		if strings.EqualFold(strings.TrimSpace(name), media) {
			return true
		}
	}
	return false
}

// local is how this node serves followers on a route.
func (st *streams) local(route *Route) cluster.Local {
	l := cluster.Local{Heartbeat: heartbeat(route), Slow: hub.SlowLog, CutGap: route.CutGap, Left: st.left,
		RingEvents: route.RingEvents, RingBytes: route.RingBytes}
	if route.CutSlow {
		l.Slow = hub.SlowCut
	}
	return l
}

// heartbeat is what a route writes into silence, in LF; the hub turns it to
// the stream's line end.
func heartbeat(route *Route) []byte {
	switch route.HeartbeatStyle {
	case HeartbeatLine:
		return []byte(":\n")
	case HeartbeatComment:
		return []byte(":\n\n")
	case HeartbeatEvent:
		b, err := sse.AppendMessage(nil, &sse.Message{Data: []byte(route.HeartbeatData)}, sse.LF)
		if err != nil {
			return []byte(":\n")
		}
		return b
	}
	return nil
}

// spec is what a new stream is to know of the request that starts it.
func (st *streams) spec(route *Route, who []byte, cancel context.CancelCauseFunc) cluster.Spec {
	detach := route.DetachFor
	if route.CancelOnLeave {
		detach = 0
	}
	return cluster.Spec{
		Route:     route.Name,
		Principal: who,
		Limits:    reconnect.Limits{Length: route.LogLength, TTL: route.LogTTL},
		Local:     st.local(route),
		DetachFor: detach,
		JoinFor:   route.AttachFor,
		Cancel:    cancel,
	}
}

// started is a stream that waits for its upstream's answer.
type started struct {
	s      *cluster.Stream
	ctx    context.Context // the upstream request's, and then the pump's
	cancel context.CancelCauseFunc
	get    bool // it was asked for by GET
}

// leaving reports whether the upstream was cancelled because this node leaves.
func (r *started) leaving() bool { return context.Cause(r.ctx) == cluster.ErrLeaving }

// left is the end of a stream whose upstream we cancelled because we leave. Who
// comes back with a GET asks the service, as without us. All else is left as if we
// had died: another node goes on with it, where it can inherit it, or says that it
// is lost.
func (r *started) left(inherited bool, rest []byte) {
	if r.get && !inherited {
		r.s.End(sse.EndLeft, rest)
	} else {
		r.s.Abandon()
	}
}

// start makes a stream for a request that is about to go upstream. quiet
// keeps it from the registry until it has won its key.
func (st *streams) start(route *Route, a asks, quiet bool) *started {
	ctx, cancel := context.WithCancelCause(st.ctx)
	spec := st.spec(route, a.who, cancel)
	spec.Quiet = quiet
	return &started{s: st.node.Begin(spec), ctx: ctx, cancel: cancel, get: a.get}
}

// follow hands the client's connection over to the hub as a follower of s.
// The caller's reference to s goes with it. then, unless it is nil, is called
// once the client follows: nothing that comes from there on passes it by.
func (st *streams) follow(x *exchange, s *cluster.Stream, h *head, a asks, after sse.Pos, resumed bool, then func()) {
	rec := s.Record()
	who := asked{
		origin:  x.header("Origin"),
		http11:  !x.http10,
		keeps:   x.header("Connection") != "",
		resumed: resumed,
		reqID:   x.reqID,
		stream:  s.ID.String(),
		ours:    x.ours,
	}
	if x.route.IDs == IDsOff {
		who.stream = ""
	}
	o := hub.FollowOptions{
		After:        after,
		Head:         appendFirst(h.append(nil, who), x.first, who.http11),
		Chunked:      who.http11,
		Heartbeat:    x.route.Heartbeat,
		WriteTimeout: x.route.WriteTimeout,
	}
	if x.route.HeartbeatStyle == HeartbeatOff {
		o.Heartbeat = 0
	}
	if x.route.Retry > 0 && !rec.UpstreamRetry && (a.eventSource || x.route.RetryToAll) {
		o.Retry = reconnect.Jitter(x.route.Retry, nil)
	}
	c := &client{
		id:        st.connectionID(),
		ip:        x.remote.String(),
		who:       hex.EncodeToString(a.who),
		resumable: (a.eventSource || resumed) && x.route.IDs != IDsOff && x.route.Attach != AttachOff,
		retry:     x.route.Retry,
		stream:    s.ID,
		whois:     whois(x, a),
	}
	if resumed && a.edgeErr != nil && len(a.lastID) > 0 {
		c.after = after.Seq
	}
	o.Tag = c
	st.count(c, 1)
	if o.Until, c.ending = until(x, c.resumable); !o.Until.IsZero() {
		o.Expired = func(f *hub.Follower) { st.expired(f) }
	}
	since := time.Now()
	st.node.Connected(registry.Connection{ID: c.id, Stream: s.ID, User: x.user(), Remote: c.ip, Since: since})
	st.hijack(x, c, func(conn net.Conn) held { return s.Follow(st.hub.Hold(conn), o) }, then)
}

// hijack hands the client's connection to hold, and books it; then, unless it
// is nil, is called behind that.
func (st *streams) hijack(x *exchange, c *client, hold func(net.Conn) held, then func()) {
	counted := then != nil && st.pumps.join() // close waits for what is only about to begin
	x.ctx.HijackSetNoResponse(true)
	x.ctx.Hijack(func(conn net.Conn) {
		f := hold(conn)
		st.mu.Lock()
		if _, still := st.held[c.id]; still {
			st.held[c.id] = f // unless it has left already
		}
		st.mu.Unlock()
		if then != nil {
			then()
			st.pumps.leave(counted)
		}
	})
	st.mu.Lock()
	st.held[c.id] = nil
	st.mu.Unlock()
}

// ReasonExpired is why a client left whose token did not hold any longer.
const ReasonExpired hub.Reason = "kicked:expired"

// until is when a connection's time is over, and why; zero for never.
func until(x *exchange, resumable bool) (at time.Time, why hub.Reason) {
	if x.route.MaxAge > 0 && resumable {
		at, why = time.Now().Add(reconnect.Jitter(x.route.MaxAge, nil)), cluster.ReasonMoved // not all that came at once
	}
	asked := x.route.serve != 0 || x.route.RequireAuth && x.method == "GET" // an answer to anything else is let finish
	if id := x.identity; asked && id != nil && !id.Expires.IsZero() && (at.IsZero() || id.Expires.Before(at)) {
		at, why = id.Expires, ReasonExpired
	}
	return at, why
}

// expired ends a connection whose time is over: it is told to come back, and
// cut. A clean end would look like a whole answer to who reads with fetch; cut,
// such a client tries again as EventSource does, and is told what is the matter.
func (st *streams) expired(f held) {
	c := f.Tag().(*client)
	f.Kick(c.ending, bye(c.retry), false)
	if c.ending == cluster.ReasonMoved {
		st.moved.Add(1)
	}
}

// appendFirst puts what a client is told first behind its response head.
func appendFirst(head, first []byte, chunked bool) []byte {
	switch {
	case len(first) == 0:
		return head
	case chunked:
		return fmt.Appendf(head, "%x\r\n%s\r\n", len(first), first)
	}
	return append(head, first...)
}

// left is the other end of follow.
func (st *streams) left(f *hub.Follower, why hub.Reason) {
	c, ok := f.Tag().(*client)
	if !ok {
		return
	}
	st.mu.Lock()
	switch {
	case why == hub.ReasonLost:
		st.tell(lastWord{c.stream, 0, c.whois})
	case why == hub.ReasonFinished && c.after > 0:
		st.tell(lastWord{c.stream, c.after, c.whois})
	}
	st.mu.Unlock()
	st.gone(c)
}

// gone books that a connection is over.
func (st *streams) gone(c *client) {
	st.mu.Lock()
	delete(st.held, c.id)
	st.mu.Unlock()
	st.count(c, -1)
	st.node.Disconnected(c.id)
}

// toldFor is how long last words are remembered.
const toldFor = 10 * time.Minute

// lastWord is what a client was told about a stream that has ended: that it is
// lost (after is 0), or everything behind a position. The latter matters where
// the backend's done marker has no id of its own: a client comes back for
// it with the id before, whether it has it or not. It is sent once more,
// rather than never, but not again and again. See onlyMarker.
type lastWord struct {
	stream sse.StreamID
	after  uint64
	who    string // as far as clients can be told apart, see whois
}

// whois tells clients apart, as well as can be without an id of their own. Two
// that look the same share their last words.
func whois(x *exchange, a asks) string {
	s := newSum("client")
	s.add(a.who)
	s.add([]byte(x.remote.String()))
	s.add([]byte(x.header("User-Agent")))
	return string(s.done())
}

// said is how often a last word was said, less how often it was counted on.
type said struct {
	times int
	last  time.Time
}

// tell notes a last word. st.mu is held.
func (st *streams) tell(w lastWord) {
	now := time.Now()
	if len(st.told) >= 1024 {
		maps.DeleteFunc(st.told, func(_ lastWord, s said) bool { return now.Sub(s.last) > toldFor })
	}
	st.told[w] = said{st.told[w].times + 1, now}
}

// heard reports whether a last word was said here to one who now comes back.
// Each time that it was said is good for one who comes back, so that another
// client who looks the same is told as well.
//
// A client may be back a moment before it is booked that its last connection
// is over: that is waited for.
func (st *streams) heard(w lastWord) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	for range 20 {
		s := st.told[w]
		if s.times > 0 && time.Since(s.last) <= toldFor {
			if s.times--; s.times == 0 {
				delete(st.told, w)
			} else {
				st.told[w] = s
			}
			return true
		}
		if !st.leaving(w) {
			return false
		}
		st.mu.Unlock()
		time.Sleep(5 * time.Millisecond)
		st.mu.Lock()
	}
	return false
}

// leaving reports whether a client that looks the same still follows the
// stream, which has ended. st.mu is held.
func (st *streams) leaving(w lastWord) bool {
	for _, f := range st.held {
		if f == nil {
			continue
		}
		if c := f.Tag().(*client); c.stream == w.stream && c.whois == w.who {
			return true
		}
	}
	return false
}

// connectionID makes the name of a connection. It begins with the tag of this
// node, as edge ids have it, and tells clients nothing else; nobody can guess
// it, since whoever knows it may address the connection.
func (st *streams) connectionID() string {
	var id [16]byte
	tag := reconnect.OwnerTag(st.node.ID())
	rand.Read(id[copy(id[:], tag[:]):])
	return base64.RawURLEncoding.EncodeToString(id[:])
}

// count books a connection under its address and its principal.
func (st *streams) count(c *client, by int) {
	st.mu.Lock()
	defer st.mu.Unlock()
	add := func(m map[string]int, key string) {
		if key == "" {
			return
		}
		if m[key] += by; m[key] <= 0 {
			delete(m, key)
		}
	}
	add(st.perIP, c.ip)
	add(st.perWho, c.who)
}

// full tells which limit one more connection would break, "" for none.
func (st *streams) full(x *exchange, a asks) string {
	l := st.p.limits.Load()
	st.mu.Lock()
	defer st.mu.Unlock()
	switch {
	case l.Connections > 0 && len(st.held) >= l.Connections:
		return "connections"
	case l.PerIP > 0 && st.perIP[x.remote.String()] >= l.PerIP:
		return "connections_per_ip"
	case l.PerPrincipal > 0 && len(a.who) > 0 && st.perWho[hex.EncodeToString(a.who)] >= l.PerPrincipal:
		return "connections_per_principal"
	}
	return ""
}
