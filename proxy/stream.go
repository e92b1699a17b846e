package proxy

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"io"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"ssegate/cluster"
	"ssegate/registry"
	"ssegate/sse"
)

// streaming takes over an upstream's answer that is an event stream: the
// client becomes the first follower, and a pump reads the answer for as long
// as it lasts, whatever becomes of the client.
func (st *streams) streaming(x *exchange, up *answer) {
	a := st.ask(x)
	body, err := decodedBody(up.resp)
	if err != nil {
		st.p.passThrough(x, up) // a coding that we cannot read is none of our business
		return
	}
	if full := st.full(x, a); full != "" {
		body.Close()
		up.Close(nil)
		st.p.refuse(x, full, x.route.Retry)
		return
	}
	run := st.start(x.route, a, false)
	route, print := x.route, st.open(x, a, run, up)
	st.follow(x, run.s, keepHead(up.resp, x.header("Origin")), a, sse.Pos{}, false,
		func() { st.pump(run, route, print, up, body) })
}

// open tells a stream what its upstream has answered, and returns the request's
// fingerprint.
func (st *streams) open(x *exchange, a asks, run *started, up *answer) (print string) {
	print = st.printOf(x, a)
	if x.route.Takeover {
		run.s.KeepRequest(x.keepRequest(print))
	}
	run.s.SetHead(keepHead(up.resp, x.header("Origin")).encode())
	return print
}

// run asks the upstream for a request that holds an attach key. Others may be
// waiting for its answer, so a client that leaves does not end it; the detach
// clock does.
func (st *streams) run(x *exchange, a asks, run *started) {
	var fate clientFate
	stop := st.p.watch(x, func() {
		if fate.leave() {
			run.s.Release()
		}
	})
	up, err := st.p.roundTrip(run.ctx, x, sendOptions{})
	stop()
	here := fate.stay()
	if err != nil {
		st.p.failUpstream(x, err, context.Cause(run.ctx))
		run.giveUp(here)
		return
	}
	body, derr := decodedBody(up.resp)
	if derr != nil || !isEventStream(up.resp) || !x.uploaded() {
		run.s.Refuse() // whoever waits need not wait for the rest
		st.p.passThrough(x, up)
		run.giveUp(here)
		return
	}
	route, print := x.route, st.open(x, a, run, up)
	pump := func() { st.pump(run, route, print, up, body) }
	if here {
		st.follow(x, run.s, keepHead(up.resp, x.header("Origin")), a, sse.Pos{}, false, pump)
	} else {
		x.broken = true
		pump()
	}
}

// clientFate decides once whether a client left while its upstream was asked,
// or stayed to be answered.
type clientFate struct{ decided atomic.Bool }

func (f *clientFate) leave() bool { return !f.decided.Swap(true) }
func (f *clientFate) stay() bool  { return !f.decided.Swap(true) }

// uploaded reports whether the request's body has gone upstream as a whole.
// Before that the connection cannot be taken over.
func (x *exchange) uploaded() bool { return x.upload == nil || x.upload.settle() }

// firstByte serves a route that asks for heartbeats before the upstream's
// first byte: when the answer takes too long, the client is given a response
// head and silence with heartbeats, and what comes of the request is told
// within the stream. It answers unless the route does not ask.
func (st *streams) firstByte(x *exchange, a asks) (answered bool) {
	wait := x.route.FirstByteHeartbeat
	if wait <= 0 || x.upgrade != "" || x.method == "HEAD" || !mayAccept(x, "text/event-stream") || !x.readBody(x.route.AttachBodyLimit) {
		return false
	}
	if full := st.full(x, a); full != "" {
		st.p.refuse(x, full, x.route.Retry)
		return true
	}
	run := st.start(x.route, a, true)
	apart := x.apart()
	type result struct {
		up  *answer
		err error
	}
	results := make(chan result, 1)
	st.pumps.Go(func() {
		up, err := st.p.roundTrip(run.ctx, apart, sendOptions{})
		results <- result{up, err}
	})
	stop := st.p.watch(x, func() { run.cancel(errClientGone) })
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case r := <-results:
		stop()
		if r.err != nil {
			st.p.failUpstream(x, r.err, context.Cause(run.ctx))
			run.giveUp(true)
			return true
		}
		body, err := decodedBody(r.up.resp)
		if err != nil || !isEventStream(r.up.resp) {
			st.p.passThrough(x, r.up)
			run.giveUp(true)
			return true
		}
		run.s.Announce()
		route, print := x.route, st.open(x, a, run, r.up)
		st.follow(x, run.s, keepHead(r.up.resp, x.header("Origin")), a, sse.Pos{}, false,
			func() { st.pump(run, route, print, r.up, body) })
	case <-timer.C:
		stop()
		h := plainHead(x.header("Origin"))
		run.s.Announce()
		print := st.printOf(x, a)
		if x.route.Takeover {
			run.s.KeepRequest(x.keepRequest(print))
		}
		run.s.SetHead(h.encode())
		x.first = append(heartbeat(x.route), x.first...) // the byte that the route asks for
		route := x.route
		st.follow(x, run.s, h, a, sse.Pos{}, false, nil)
		st.pumps.Go(func() {
			r := <-results
			st.late(run, route, print, r.up, r.err)
		})
	}
	return true
}

// late goes on with a request whose client was given a head already.
func (st *streams) late(run *started, route *Route, print string, up *answer, err error) {
	end := func(reason, detail string) {
		run.s.Fail(sse.EndCut, reason, detail)
		run.cancel(nil)
	}
	if err != nil && run.leaving() {
		run.left(false, nil)
		run.cancel(nil)
		return
	}
	if err != nil {
		r := why(err)
		end(r.reason, r.detail)
		return
	}
	if !isEventStream(up.resp) {
		up.Close(nil)
		end("not_an_event_stream", "the upstream answered "+up.resp.Status)
		return
	}
	body, derr := decodedBody(up.resp)
	if derr != nil {
		up.Close(nil)
		end("unknown_coding", "the upstream's content coding is not known")
		return
	}
	st.pump(run, route, print, up, body)
}

// pump has an upstream's stream read to its end: by the intake, or by a
// goroutine of its own where the intake cannot.
func (st *streams) pump(run *started, route *Route, print string, up *answer, body io.ReadCloser) {
	p := newPump(run.s, route, print, &st.drafts)
	if !st.take(run, p, up) {
		st.pumps.Go(func() { st.read(run, p, up, body) })
	}
}

// read runs a pump and ends its stream as the upstream ended.
func (st *streams) read(run *started, p *pump, up *answer, body io.ReadCloser) {
	stop := context.AfterFunc(run.ctx, func() { up.cancel(context.Cause(run.ctx)) })
	end, rest, why := p.run(run.ctx, run.cancel, body, p.route.Upstream.IdleTimeout, &st.buffers)
	stop()
	body.Close()
	st.ended(run, p, up, end, rest, why)
}

// ended ends a stream as its upstream ended.
func (st *streams) ended(run *started, p *pump, up *answer, end sse.End, rest []byte, why error) {
	run.s.SetUpstreamID(p.lastID)
	switch {
	case end == sse.EndCut && run.leaving():
		run.left(p.route.Takeover && p.lastID != nil, rest)
	case why != nil:
		run.s.Fail(end, "event_too_large", why.Error())
	default:
		run.s.End(end, rest)
	}
	up.Close(nil)
	run.cancel(nil)
}

// Resume goes on with a stream that this node has taken over from a dead one:
// the upstream is asked for what follows its own last id. It does not block.
func (p *Proxy) Resume(s *cluster.Stream, rec registry.Record, from sse.Frame) {
	st := p.streams
	lost := func(detail string) { s.Fail(sse.EndLost, "upstream_lost", detail) }
	route := p.table.Load().Named(rec.Route)
	x, print := restoreRequest(p, route, rec.Request)
	if x == nil || len(from.ID) == 0 {
		lost("the node that read the upstream died, and the upstream gave no id to go on from")
		return
	}
	x.setLastEventID(from.ID)
	ctx, cancel := context.WithCancelCause(st.ctx)
	s.Adopt(route.DetachFor, route.AttachFor, cancel)
	if rec.UpstreamIDs {
		s.SetUpstreamIDs(print) // who comes back with them finds it here
	}
	run := &started{s: s, ctx: ctx, cancel: cancel, get: x.method == "GET"}
	st.pumps.Go(func() {
		up, err := p.roundTrip(ctx, x, sendOptions{})
		if err != nil {
			lost("the node that read the upstream died, and the upstream could not be asked again")
			cancel(nil)
			return
		}
		body, err := decodedBody(up.resp)
		if err != nil || !isEventStream(up.resp) {
			up.Close(nil)
			lost("the node that read the upstream died, and the upstream did not go on")
			cancel(nil)
			return
		}
		pump := newPump(s, route, print, &st.drafts)
		pump.own, pump.lastID = pump.own || rec.UpstreamIDs, from.ID
		st.read(run, pump, up, body)
	})
}

// printOf is the fingerprint under which a client that comes back with the
// backend's ids is found, "" where it must not be.
func (st *streams) printOf(x *exchange, a asks) string {
	if x.route.IDs != IDsAuto && x.route.IDs != IDsUpstream || x.route.Attach == AttachOff || anonymousCookies(x, a.who) {
		return ""
	}
	sum, ok := x.bodySum()
	if !ok {
		return ""
	}
	return st.print(x, a, sum)
}

// bodySum is the hash of the request's body, where all of it is known.
func (x *exchange) bodySum() ([sha256.Size]byte, bool) {
	switch {
	case x.upload == nil:
		return sha256.Sum256(nil), true
	case x.bodyRead:
		return sha256.Sum256(x.body), x.bodyWhole
	}
	return x.upload.bodySum()
}

// mayAccept reports whether a client may be answered with this media type: it
// says so, or it does not say otherwise.
func mayAccept(x *exchange, media string) bool {
	said := false
	for v := range x.headers("Accept") {
		said = true
		if accepts([]byte(v), media) || accepts([]byte(v), "*/*") || accepts([]byte(v), "text/*") {
			return true
		}
	}
	return !said
}

// keptRequest is what a takeover sends upstream; it travels in the registry.
type keptRequest struct {
	Method string      `json:"m"`
	URI    string      `json:"u"`
	Host   string      `json:"h"`
	Proto  string      `json:"p"`
	Remote string      `json:"r"`
	ReqID  string      `json:"i"`
	Fields [][2]string `json:"f"`
	Body   []byte      `json:"b,omitempty"`
	Print  string      `json:"s,omitempty"` // its fingerprint
}

// keepRequest is nil when the body is not known as a whole.
func (x *exchange) keepRequest(print string) []byte {
	if x.upload != nil && !x.bodyWhole {
		return nil
	}
	k := keptRequest{
		Method: x.method, URI: x.uri, Host: x.host, Proto: x.proto, Remote: x.remote.String(), ReqID: x.reqID, Body: x.body,
		Print: print,
	}
	for _, f := range x.fields {
		if strings.EqualFold(f.name, "Last-Event-ID") {
			continue
		}
		k.Fields = append(k.Fields, [2]string{f.name, f.value})
	}
	b, _ := json.Marshal(k) // strings and bytes always marshal
	return b
}

// restoreRequest makes an exchange of what keepRequest kept, nil where that
// is not possible, and returns its fingerprint.
func restoreRequest(p *Proxy, route *Route, kept []byte) (x *exchange, print string) {
	var k keptRequest
	if route == nil || json.Unmarshal(kept, &k) != nil || k.Method == "" || !strings.HasPrefix(k.URI, "/") {
		return nil, ""
	}
	x = &exchange{
		p: p, route: route, method: k.Method, uri: k.URI, host: k.Host, proto: k.Proto, reqID: k.ReqID,
		body: k.Body, bodyRead: true, bodyWhole: true,
	}
	x.path, x.query, _ = strings.Cut(k.URI, "?")
	x.remote, _ = netip.ParseAddr(k.Remote)
	for _, f := range k.Fields {
		x.fields = append(x.fields, field{f[0], f[1]})
	}
	return x, k.Print
}

// apart is the exchange without its connection, so that it can go upstream
// while the connection is taken over. Its body has been read.
func (x *exchange) apart() *exchange {
	return &exchange{
		p: x.p, route: x.route, reqID: x.reqID, remote: x.remote, peer: x.peer, proto: x.proto,
		method: x.method, uri: x.uri, path: x.path, query: x.query, host: x.host,
		fields: slices.Clone(x.fields), body: x.body, bodyRead: true, bodyWhole: true,
	}
}
