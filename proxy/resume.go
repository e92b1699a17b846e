package proxy

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	"ssegate/cluster"
	"ssegate/reconnect"
	"ssegate/registry"
	"ssegate/sse"
)

// comeBack serves a client that bears an edge id.
func (st *streams) comeBack(x *exchange, a asks) (answered bool) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	s, err := st.node.Open(ctx, a.edge.Stream, a.edge.Owner, a.edge.Pos,
		func(registry.Record) cluster.Local { return st.local(x.route) })
	switch {
	case errors.Is(err, cluster.ErrUnknown):
		return st.unknown(x, a, "unknown_stream")
	case err != nil:
		st.p.refuse(x, "stream_unavailable", x.route.Retry)
		return true
	}
	return st.resume(x, a, s, a.edge.Pos)
}

// resume attaches the client to s behind after, or says how the stream ended
// when nothing follows. The caller's reference is used up.
func (st *streams) resume(x *exchange, a asks, s *cluster.Stream, after sse.Pos) (answered bool) {
	rec := s.Record()
	if !st.owns(x, a, rec.Principal) {
		s.Release()
		st.p.fail(x, 403, "not_yours", "this stream was started by somebody else")
		return true
	}
	if full := st.full(x, a); full != "" {
		s.Release()
		st.p.refuse(x, full, x.route.Retry)
		return true
	}
	if rec.State == registry.StateEnded && !s.Replaced(st.ctx, after) {
		if st.nothingAfter(x, a, rec, after) {
			s.Release()
			return st.over(x, a, rec)
		}
		if after.Seq >= rec.Tail.Seq {
			after.Seq = rec.Tail.Seq - 1 // it had more than the log ever got, but not how it ended
		}
	}
	st.follow(x, s, decodeHead(rec.Head), a, after, true, nil)
	return true
}

// nothingAfter reports whether an ended stream has nothing more to say to who
// has everything up to after: no event, and no loss that was not told yet.
func (st *streams) nothingAfter(x *exchange, a asks, rec registry.Record, after sse.Pos) bool {
	switch {
	case after.Seq+1 < rec.Tail.Seq:
		return st.onlyMarker(a, rec, after) && st.heard(lastWord{rec.Stream, after.Seq, whois(x, a)})
	case rec.End == sse.EndLost:
		return st.heard(lastWord{rec.Stream, 0, whois(x, a)})
	}
	return true
}

// onlyMarker reports whether all that follows is a done marker without an id of
// its own. A client that has it shows the same id as one that has not. Of
// anything more, it may have got a part.
func (st *streams) onlyMarker(a asks, rec registry.Record, after sse.Pos) bool {
	return rec.End == sse.EndFinished && after.Seq > 0 && after.Seq+2 == rec.Tail.Seq && // the marker, and the end
		a.edgeErr != nil && string(a.lastID) == string(rec.UpstreamID)
}

// over answers who comes back to a stream that has ended and has all of it.
func (st *streams) over(x *exchange, a asks, rec registry.Record) (answered bool) {
	switch rec.End {
	case sse.EndClean, sse.EndCut, sse.EndDetached, sse.EndLeft:
		if a.get {
			if rec.End == sse.EndLeft && rec.UpstreamID == nil && a.edgeErr == nil {
				st.tellGap(x, a) // it begins anew, and that was our doing
			}
			// A feed, or a backend that marks nothing: as without us, but
			// with its own last id and never with ours.
			x.setLastEventID(rec.UpstreamID)
			return false
		}
	default:
		if a.eventSource {
			st.noContent(x, decodeHead(rec.Head)) // the only answer that stops an EventSource
			return true
		}
	}
	st.emptyEnd(x, rec)
	return true
}

// emptyEnd answers 200 with the head of the stream and no events.
func (st *streams) emptyEnd(x *exchange, rec registry.Record) {
	h := decodeHead(rec.Head)
	fields := []field{{"Content-Type", "text/event-stream"}, {"Cache-Control", "no-cache, no-transform"}, {StreamHeader, rec.Stream.String()}}
	if kind := h.field("Content-Type"); kind != "" {
		fields[0].value = kind
	}
	x.reply(h.Status, append(fields, st.cors(x, h)...), nil)
}

// noContent answers 204.
func (st *streams) noContent(x *exchange, h *head, more ...field) {
	x.reply(204, append(st.cors(x, h), more...), nil)
}

// cors lists a stream's CORS fields where they hold for this origin; else, on
// our own paths, what is configured for these.
func (st *streams) cors(x *exchange, h *head) (fields []field) {
	if !h.allows(asked{origin: x.header("Origin"), resumed: true}) {
		return slices.Clone(x.ours)
	}
	for _, f := range h.Fields {
		if strings.HasPrefix(f[0], "Access-Control-") {
			fields = append(fields, field{f[0], f[1]})
		}
	}
	return fields
}

// unknown answers a client whose edge id leads nowhere: a GET runs again, and
// is told of the gap first; nothing else is ever run twice in silence.
func (st *streams) unknown(x *exchange, a asks, reason string) (answered bool) {
	if !a.get {
		detail := "the stream of this Last-Event-ID is no longer known"
		if reason == "damaged_id" {
			detail = "this Last-Event-ID was cut or changed on its way: send it back as it came"
		}
		st.p.fail(x, 410, reason, detail)
		return true
	}
	x.setLastEventID(nil)
	st.tellGap(x, a)
	return false
}

// tellGap has the answer begin with the word that what the client has is not
// gone on with.
func (st *streams) tellGap(x *exchange, a asks) {
	st.node.CountGap()
	x.first = reconnect.AppendGap(nil, a.edge.Pos.Seq+1, 0, reconnect.GapUnknown, sse.LF)
}
