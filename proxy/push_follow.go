package proxy

import (
	"context"
	"encoding/hex"
	"net"
	"time"

	"ssegate/cluster"
	"ssegate/hub"
	"ssegate/reconnect"
	"ssegate/registry"
)

// ConnectionHeader names a connection in its response, so that a message can
// be sent to it alone and its client can acknowledge what it has.
const ConnectionHeader = "Ssegate-Connection"

// maxTopics is how many topics a connection may follow where nothing is said.
const maxTopics = 32

// awaitTopics bounds how long the head of a new connection waits for the log to
// tell where its topics are.
const awaitTopics = 250 * time.Millisecond

// servePush answers a request to one of the paths of push. Nothing below them
// is anybody else's.
func (p *Proxy) servePush(x *exchange) {
	x.ours = p.corsFields(x)
	cfg := p.push.Load()
	if cfg == nil || p.streams == nil {
		p.fail(x, 404, "no_route", "no route matches this host and path") // switched off a moment ago
		return
	}
	switch x.route.serve {
	case callAPI:
		p.callAPI(x, cfg)
	case acknowledge:
		p.streams.acknowledge(x)
	default:
		p.streams.subscribe(x, cfg)
	}
}

// takes reports whether a path of ours takes the request's method; if not, or
// if all that is asked is what it takes, the request has been answered.
func (p *Proxy) takes(x *exchange, methods string) bool {
	switch {
	case x.method == "OPTIONS":
		p.options(x, methods)
	case !hasToken(methods, x.method):
		p.failWith(x, 405, "method_not_allowed", "this path takes "+methods, field{"Allow", methods})
	default:
		return true
	}
	return false
}

// subscribe makes the client a follower of the topics that its path names.
func (st *streams) subscribe(x *exchange, cfg *PushConfig) {
	p := st.p
	if !p.takes(x, "GET, HEAD, OPTIONS") {
		return
	}
	if p.draining.Load() {
		p.refuse(x, "draining", x.route.Retry)
		return
	}
	if st.redirect(x, st.ask(x)) { // before a ticket is used up
		return
	}
	id := p.identify(x)
	if id == nil || p.limitedPrincipal(x) {
		return
	}
	topics, bad := x.topicsOf(orDefault(cfg.MaxTopics, maxTopics))
	var w wants
	if bad == nil {
		w, bad = x.wants()
	}
	if bad == nil && !x.readBody(0) {
		bad = badRequest("bad_body", "a subscription has no body")
	}
	if bad != nil {
		p.fail(x, bad.status, bad.reason, bad.detail)
		return
	}
	for _, topic := range topics {
		if !id.MayFollow(topic) {
			p.fail(x, 403, "forbidden", "whoever this is may not follow "+topic)
			return
		}
	}
	a := st.ask(x)
	if full := st.full(x, a); full != "" {
		p.refuse(x, full, x.route.Retry)
		return
	}
	if x.method == "HEAD" {
		x.replyHead(200, append(subscribedFields(), x.ours...))
		return
	}
	st.subscribed(x, a, topics, w)
}

// subscribed hands the connection over. From here on nothing can be answered.
func (st *streams) subscribed(x *exchange, a asks, names []string, w wants) {
	c := &client{
		id: st.connectionID(), ip: x.remote.String(), who: hex.EncodeToString(a.who),
		resumable: true, retry: x.route.Retry, topics: names,
	}
	topics := make([]cluster.Topic, len(names))
	for i, name := range names {
		topics[i] = cluster.TopicOf(name)
	}
	o := cluster.SubscribeOptions{
		ID: c.id, Tag: c, Chunked: !x.http10,
		Head:         appendFirst(st.subscribedHead(x, c), firstSign(x.route), !x.http10),
		Heartbeat:    x.route.Heartbeat,
		WriteTimeout: x.route.WriteTimeout,
		Filter:       cluster.Filter{Session: w.session, KB: w.kb, Task: w.task},

		HeartbeatText: heartbeat(x.route), Slow: hub.SlowLog, CutGap: x.route.CutGap,
		RingEvents: x.route.RingEvents, RingBytes: x.route.RingBytes,
		Limits: reconnect.Limits{Length: x.route.LogLength, TTL: x.route.LogTTL},
		Left:   func(_ *cluster.Subscription, _ hub.Reason) { st.gone(c) },
	}
	if x.route.CutSlow {
		o.Slow = hub.SlowCut
	}
	if x.route.HeartbeatStyle == HeartbeatOff {
		o.Heartbeat = 0
	}
	if x.route.Retry > 0 && (a.eventSource || x.route.RetryToAll) {
		o.Retry = reconnect.Jitter(x.route.Retry, nil)
	}
	if o.Until, c.ending = until(x, true); !o.Until.IsZero() {
		o.Expired = func(s *cluster.Subscription) { st.expired(s) }
	}
	if len(a.lastID) == 0 && w.last == 0 && w.since.IsZero() {
		// Who has seen the head may rely on getting what is published next.
		ctx, cancel := context.WithTimeout(st.ctx, awaitTopics)
		st.node.Await(ctx, topics, o)
		cancel()
	}
	st.count(c, 1)
	st.node.Connected(registry.Connection{ID: c.id, Topics: names, User: x.user(), Remote: c.ip, Since: time.Now()})
	st.hijack(x, c, func(conn net.Conn) held { return st.attach(c, st.hub.Hold(conn), topics, a.lastID, w, o) }, nil)
}

// attach begins the subscription: behind the client's last id where it has
// one, else where its query says, else with what comes from now on.
func (st *streams) attach(c *client, conn hub.Conn, topics []cluster.Topic, lastID []byte, w wants, o cluster.SubscribeOptions) held {
	var s *cluster.Subscription
	var err error
	if len(topics) == 1 {
		from := cluster.From{Last: w.last, Since: w.since}
		if len(lastID) > 0 {
			from = topics[0].From(lastID)
		}
		s, err = st.node.Subscribe(topics[0], from, conn, o)
	} else {
		s, err = st.node.SubscribeAll(topics, cluster.CursorFrom{ID: lastID, Last: w.last, Since: w.since}, conn, o)
	}
	if err != nil { // the node is leaving
		conn.Close(hub.CloseNow)
		st.gone(c)
		return nil
	}
	return s
}

// firstSign goes out behind the head: some proxies and clients hold a head back
// until something follows it.
func firstSign(route *Route) []byte {
	if route.HeartbeatStyle == HeartbeatLine || route.HeartbeatStyle == HeartbeatComment {
		return heartbeat(route)
	}
	return nil
}

func subscribedFields() []field {
	return []field{
		{"Content-Type", "text/event-stream"},
		{"Cache-Control", "no-cache, no-transform"},
		{"X-Accel-Buffering", "no"},
	}
}

// subscribedHead is the response head of a connection that follows topics.
func (st *streams) subscribedHead(x *exchange, c *client) []byte {
	b := appendStatus(make([]byte, 0, 512), 200, "")
	for _, f := range append(subscribedFields(), x.ours...) {
		b = appendField(b, f.name, f.value)
	}
	b = appendField(b, ConnectionHeader, c.id)
	b = appendField(b, "X-Request-Id", x.reqID)
	b = appendDate(b)
	if !x.http10 {
		b = appendField(b, "Transfer-Encoding", "chunked")
	}
	return append(appendLast(b, !x.http10 && x.header("Connection") != ""), "\r\n"...)
}

// KickConnection ends the connection of that id, if it is one that follows a
// stream; those that follow topics are the cluster's to end. Its client is told
// to come back and cut, as with everything that ends from outside.
func (p *Proxy) KickConnection(id string) bool {
	if p.streams == nil {
		return false
	}
	p.streams.mu.Lock()
	h := p.streams.held[id]
	p.streams.mu.Unlock()
	f, ok := h.(*hub.Follower)
	if ok {
		f.Kick(cluster.ReasonKicked, bye(f.Tag().(*client).retry), false)
	}
	return ok
}
