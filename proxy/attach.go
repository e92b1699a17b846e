package proxy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"ssegate/cluster"
	"ssegate/reconnect"
	"ssegate/registry"
	"ssegate/sse"
)

// before sees every routed request before anything goes upstream. It answers
// those that come back or join a running stream, and prepares the others.
func (st *streams) before(x *exchange) (answered bool) {
	if st.p.draining.Load() {
		st.p.refuse(x, "draining", x.route.Retry)
		return true
	}
	a := st.ask(x)
	if st.redirect(x, a) {
		return true
	}
	if accepts([]byte(x.header("Accept")), "text/event-stream") {
		// It will be a stream: better refused before the service has run.
		if full := st.full(x, a); full != "" {
			st.p.refuse(x, full, x.route.Retry)
			return true
		}
	}
	if x.route.Attach == AttachOff {
		if !errors.Is(a.edgeErr, reconnect.ErrNotEdgeID) {
			x.setLastEventID(nil) // an edge id never goes upstream, not even a damaged one
		}
		return false
	}
	switch {
	case a.edgeErr == nil:
		return st.comeBack(x, a)
	case errors.Is(a.edgeErr, reconnect.ErrDamagedEdgeID):
		return st.unknown(x, a, "damaged_id")
	}
	switch {
	case x.upload == nil:
	case x.route.Takeover:
		x.readBody(x.route.AttachBodyLimit) // it may have to be sent again
	default:
		x.upload.sumUpTo(x.route.AttachBodyLimit) // for the fingerprint
	}
	if len(a.lastID) > 0 && x.route.IDs != IDsEdge && x.route.IDs != IDsOff {
		if st.byPrint(x, a) {
			return true
		}
	}
	switch x.route.Attach {
	case AttachKey:
		if key := st.attachKey(x); key != "" {
			return st.join(x, a, key)
		}
	case AttachContent:
		if !anonymousCookies(x, a.who) && x.readBody(x.route.AttachBodyLimit) {
			return st.join(x, a, "content")
		}
	}
	return st.firstByte(x, a)
}

// print is the fingerprint of a request: who, where and what.
func (st *streams) print(x *exchange, a asks, bodySum [sha256.Size]byte) string {
	s := newSum("print")
	s.add(a.who)
	s.add([]byte(x.route.Name))
	s.add([]byte(x.method))
	s.add([]byte(x.path))
	s.add([]byte(withoutParam(x.query, lastIDParam)))
	s.add(bodySum[:])
	return hex.EncodeToString(s.done())
}

// byPrint serves a client that comes back with an id of the backend's, where
// exactly one stream of the same request has it. Where that cannot be learned
// now the client is asked to come back, as one with an edge id is: what may run
// already is not run again.
func (st *streams) byPrint(x *exchange, a asks) bool {
	if anonymousCookies(x, a.who) || !x.readBody(x.route.AttachBodyLimit) {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	var s *cluster.Stream
	at, err := st.node.ByPrint(ctx, st.print(x, a, sha256.Sum256(x.body)), a.lastID)
	if err == nil {
		s, err = st.node.Open(ctx, at.Stream, at.Owner, at.Pos, func(registry.Record) cluster.Local { return st.local(x.route) })
	}
	switch {
	case errors.Is(err, cluster.ErrUnknown):
		return false // as without us: the backend is asked, with its id
	case err != nil:
		st.p.refuse(x, "stream_unavailable", x.route.Retry)
		return true
	}
	return st.resume(x, a, s, at.Pos)
}

// attachKey finds the key that a request bears, "" for none.
func (st *streams) attachKey(x *exchange) string {
	src := x.route.AttachKey
	var key string
	switch src.In {
	case "header":
		key = x.header(src.Name)
	case "query":
		key = x.param(src.Name)
	case "json":
		if x.readBody(x.route.AttachBodyLimit) {
			key = jsonMember(x.body, src.Name)
		}
	}
	if key == "" || !x.readBody(x.route.AttachBodyLimit) {
		return ""
	}
	return key
}

// jsonMember finds a string or number at a path of dotted names.
func jsonMember(body []byte, path string) string {
	for name := range strings.SplitSeq(path, ".") {
		var object map[string]json.RawMessage
		if json.Unmarshal(body, &object) != nil {
			return ""
		}
		body = object[name]
	}
	var text string
	if json.Unmarshal(body, &text) == nil {
		return text
	}
	var number json.Number
	if json.Unmarshal(body, &number) == nil {
		return number.String()
	}
	return ""
}

// join lets the request join the stream that holds its key, or runs it as the
// one that does. It answers unless nobody holds the key in the end.
func (st *streams) join(x *exchange, a asks, key string) (answered bool) {
	sum := sha256.Sum256(x.body)
	s := newSum("key")
	if x.route.Attach == AttachContent {
		s.add([]byte(st.print(x, a, sha256.Sum256(x.body))))
	} else {
		s.add(a.who)
		s.add([]byte(x.route.Name))
		s.add([]byte(x.path))
		s.add([]byte(key))
	}
	name := hex.EncodeToString(s.done())
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	defer st.p.watch(x, cancel)()
	for range 3 {
		run := st.start(x.route, a, true)
		now, won, err := st.node.Elect(ctx, name, run.s, sum[:], !x.route.AttachRefuse)
		switch {
		case errors.Is(err, cluster.ErrOtherBody):
			run.giveUp(true)
			st.p.fail(x, 422, "other_body", "the attach key was used with another request body")
			return true
		case err != nil:
			run.giveUp(true)
			st.p.refuse(x, "attach_unavailable", x.route.Retry)
			return true
		case won:
			run.s.Announce()
			st.run(x, a, run)
			return true
		}
		run.giveUp(true)
		wait, stop := context.WithTimeout(ctx, st.joinWait(x.route))
		other, err := st.node.Join(wait, now, func(registry.Record) cluster.Local { return st.local(x.route) })
		stop()
		if err == nil {
			return st.resume(x, a, other, st.whereWas(ctx, other, a))
		}
		if !errors.Is(err, cluster.ErrUnknown) {
			st.p.refuse(x, "attach_unavailable", x.route.Retry)
			return true
		}
	}
	return false // whoever held the key never became a stream: run without it
}

// whereWas is the position of a client that joins a stream and bears an id of
// the backend's; the start for one that has none, or one that the stream never
// had: rather twice than never.
func (st *streams) whereWas(ctx context.Context, s *cluster.Stream, a asks) sse.Pos {
	if len(a.lastID) == 0 {
		return sse.Pos{}
	}
	pos, _ := st.node.FindID(ctx, s.ID, a.lastID)
	return pos
}

func (st *streams) joinWait(route *Route) time.Duration {
	if t := route.Upstream.HeaderTimeout; t > 0 {
		return t
	}
	return time.Hour
}

// giveUp forgets a stream that does not come to be; here says whether the
// client's reference is still held.
func (r *started) giveUp(here bool) {
	r.s.Refuse()
	if here {
		r.s.Release()
	}
	r.cancel(nil)
}
