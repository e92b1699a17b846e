package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"ssegate/cluster"
	"ssegate/registry"
	"ssegate/sse"
)

// controlPrefix is where a stream is followed, stopped and looked at by its
// name, whatever route it came from.
const controlPrefix = "/_ssegate/streams/"

// control answers requests below controlPrefix; false for any other path.
func (st *streams) control(x *exchange) (answered bool) {
	name, ok := strings.CutPrefix(x.path, controlPrefix)
	if !ok {
		return false
	}
	x.ours = st.p.corsFields(x)
	name, action, _ := strings.Cut(name, "/")
	id, err := sse.ParseStreamID(name)
	if err != nil || action != "" && action != "status" {
		st.p.fail(x, 404, "unknown_stream", "the path is "+controlPrefix+"{id} or "+controlPrefix+"{id}/status")
		return true
	}
	x.route = &Route{Name: "control", Retry: 2 * time.Second, Heartbeat: 15 * time.Second, WriteTimeout: time.Minute, LogLength: 1}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	rec, err := st.node.Find(ctx, id, st.ownerTag(x))
	switch {
	case errors.Is(err, cluster.ErrUnknown) || err == nil && rec.State == registry.StateRefused:
		st.p.fail(x, 404, "unknown_stream", "no stream of this name is known")
		return true
	case err != nil:
		st.p.refuse(x, "stream_unavailable", 2*time.Second)
		return true
	}
	if route := st.p.table.Load().Named(rec.Route); route != nil {
		x.route = route
	}
	if x.method == "OPTIONS" {
		st.preflight(x, rec)
		return true
	}
	if st.p.recognise(x) {
		return true
	}
	a := st.ask(x)
	if !st.owns(x, a, rec.Principal) {
		st.p.fail(x, 403, "not_yours", "this stream was started by somebody else")
		return true
	}
	switch {
	case action == "status" && x.method == "GET":
		st.status(x, rec)
	case action == "" && x.method == "GET":
		st.followByName(ctx, x, a, rec)
	case action == "" && x.method == "DELETE":
		st.stopStream(ctx, x, rec)
	default:
		st.p.failWith(x, 405, "method_not_allowed", "use GET to follow, GET …/status to look, DELETE to stop", field{"Allow", "GET, DELETE, OPTIONS"})
	}
	return true
}

// ownerTag is the owner that the client's edge id names, if it bears one.
func (st *streams) ownerTag(x *exchange) [8]byte {
	a := st.ask(x)
	if a.edgeErr == nil {
		return a.edge.Owner
	}
	return [8]byte{}
}

// followByName follows a stream from the start, or from the client's last id.
func (st *streams) followByName(ctx context.Context, x *exchange, a asks, rec registry.Record) {
	if st.p.draining.Load() {
		st.p.refuse(x, "draining", x.route.Retry)
		return
	}
	var after sse.Pos
	switch {
	case a.edgeErr == nil && a.edge.Stream == rec.Stream:
		after = a.edge.Pos
	case len(a.lastID) > 0:
		pos, err := st.node.FindID(ctx, rec.Stream, a.lastID)
		if errors.Is(err, cluster.ErrUnavailable) {
			st.p.refuse(x, "stream_unavailable", x.route.Retry)
			return
		}
		after = pos // an id that it never had: from the start, rather twice than never
	}
	s, err := st.node.Open(ctx, rec.Stream, st.ownerTag(x), after, func(registry.Record) cluster.Local { return st.local(x.route) })
	switch {
	case errors.Is(err, cluster.ErrUnknown):
		st.p.fail(x, 404, "unknown_stream", "no stream of this name is known")
		return
	case err != nil:
		st.p.refuse(x, "stream_unavailable", x.route.Retry)
		return
	}
	if !st.resume(x, a, s, after) {
		// It has ended with nothing to follow, and there is no upstream
		// behind this path to ask again.
		if a.eventSource {
			st.noContent(x, decodeHead(rec.Head))
		} else {
			st.emptyEnd(x, rec)
		}
	}
}

func (st *streams) stopStream(ctx context.Context, x *exchange, rec registry.Record) {
	if rec.State != registry.StateEnded {
		err := st.node.Stop(ctx, rec)
		switch {
		case errors.Is(err, cluster.ErrUnknown):
			// The owner has forgotten it in the meantime: it is over.
		case err != nil:
			st.p.fail(x, 503, "owner_unavailable", "the node that reads the upstream did not answer")
			return
		}
	}
	st.answerJSON(x, rec, map[string]any{"stream": rec.Stream.String(), "stopped": true})
}

// streamStatus is what GET …/status answers.
type streamStatus struct {
	Stream    string    `json:"stream"`
	State     string    `json:"state"` // starting, live, or how it ended
	Ended     bool      `json:"ended"`
	Owner     string    `json:"owner"`
	Epoch     uint64    `json:"epoch"`
	Position  uint64    `json:"position"` // Seq of the last frame
	Followers int       `json:"followers"`
	Route     string    `json:"route"`
	Started   time.Time `json:"started"`
	EndedAt   time.Time `json:"ended_at,omitzero"`
	Node      string    `json:"node"` // who answers
}

func (st *streams) status(x *exchange, rec registry.Record) {
	out := streamStatus{
		Stream: rec.Stream.String(), State: "starting", Owner: rec.Owner, Epoch: rec.Epoch, Position: rec.Tail.Seq,
		Route: rec.Route, Started: rec.Started, EndedAt: rec.Ended, Node: st.node.ID(),
	}
	switch rec.State {
	case registry.StateLive:
		out.State = "live"
	case registry.StateEnded:
		out.State, out.Ended = rec.End.String(), true
	}
	out.Followers, out.Position = st.node.Watched(rec)
	st.answerJSON(x, rec, out)
}

func (st *streams) preflight(x *exchange, rec registry.Record) {
	h := decodeHead(rec.Head)
	const methods = "GET, DELETE, OPTIONS"
	if !h.allows(asked{origin: x.header("Origin"), resumed: true}) {
		st.p.options(x, methods)
		return
	}
	more := []field{{"Access-Control-Allow-Methods", methods}}
	if want := x.header("Access-Control-Request-Headers"); want != "" {
		more = append(more, field{"Access-Control-Allow-Headers", want})
	}
	st.noContent(x, h, more...)
}

func (st *streams) answerJSON(x *exchange, rec registry.Record, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		st.p.fail(x, 500, "internal", "the answer could not be written")
		return
	}
	fields := []field{{"Content-Type", "application/json"}, {"Cache-Control", "no-store"}}
	x.reply(200, append(fields, st.cors(x, decodeHead(rec.Head))...), body)
}
