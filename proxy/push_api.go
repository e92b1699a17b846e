package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"ssegate/auth"
	"ssegate/cluster"
)

// callAPI serves the push API on the public listener.
func (p *Proxy) callAPI(x *exchange, cfg *PushConfig) {
	if x.method == "OPTIONS" {
		p.options(x, "GET, POST, DELETE, OPTIONS")
		return
	}
	id := p.identify(x)
	if id == nil || p.limitedPrincipal(x) {
		return
	}
	p.serveHTTP(x, cfg.API, func(ctx context.Context) context.Context { return auth.NewContext(ctx, id) })
}

// forged answers what a page of a foreign origin sends in the name of its
// visitor, with a cookie that the page has never seen. Browsers send such
// requests without asking first, and say where they come from.
func (p *Proxy) forged(x *exchange) bool {
	origin := x.header("Origin")
	if origin == "" || x.method == "GET" || x.method == "HEAD" || x.header("Cookie") == "" {
		return false
	}
	if _, host, ok := strings.Cut(origin, "://"); ok && strings.EqualFold(host, x.host) {
		return false
	}
	if p.TrustsOrigin(origin) {
		return false
	}
	p.fail(x, 403, "origin_not_allowed", "pages of this origin may not send cookies here")
	return true
}

// maxAck is how long the body of an acknowledgement may be.
const maxAck = 8 << 10

// ack is the body of POST /sse/ack.
type ack struct {
	ID         string   `json:"id"`         // of the last event that the client is done with
	Connection string   `json:"connection"` // the connection that it came by
	Topic      string   `json:"topic"`      // or its topic
	Topics     []string `json:"topics"`     // or all that the connection follows
}

// acknowledge notes that a client has everything up to an event, and has done
// with it what it had to. An id does not say how its topic is called, and who
// acknowledges must be one who may follow it: hence the topic must be known by
// the connection, if that is on this node, by the body, or because it is the
// user's own.
func (st *streams) acknowledge(x *exchange) {
	p := st.p
	if x.path != x.route.Path {
		p.fail(x, 404, "no_route", "the path is "+x.route.Path)
		return
	}
	if !p.takes(x, "POST, OPTIONS") {
		return
	}
	who := p.identify(x)
	if who == nil || p.limitedPrincipal(x) || p.forged(x) {
		return
	}
	if !x.readBody(maxAck) {
		switch err := x.upload.failed(); {
		case errors.Is(err, errBodyCut):
			p.fail(x, 400, "bad_body", "the body did not arrive whole")
		case err != nil:
			bad := why(err)
			p.fail(x, bad.status, bad.reason, bad.detail)
		default:
			p.fail(x, 413, "body_too_large", "an acknowledgement is short")
		}
		return
	}
	var in ack
	if err := json.Unmarshal(x.body, &in); err != nil {
		p.fail(x, 400, "bad_body", "the body is no JSON object with the strings id, connection and topic, and the list topics")
		return
	}
	topics, bad := st.acknowledged(&in, who)
	if bad != nil {
		p.fail(x, bad.status, bad.reason, bad.detail)
		return
	}
	ctx, cancel := context.WithTimeout(p.ctx, 2*time.Second)
	defer cancel()
	err := st.node.Acknowledge(ctx, topics, []byte(in.ID), x.route.LogTTL)
	switch {
	case errors.Is(err, cluster.ErrUnknown):
		p.fail(x, 400, "bad_topic", needTopic)
	case err != nil:
		p.failWith(x, 503, "log_unavailable", "it cannot be noted now", field{"Retry-After", "1"})
	default:
		x.reply(204, x.ours, nil)
	}
}

// topicsOf are the topics that a connection follows, if it is here.
func (st *streams) topicsOf(connection string) []string {
	st.mu.Lock()
	defer st.mu.Unlock()
	if f := st.held[connection]; f != nil {
		return f.Tag().(*client).topics
	}
	return nil
}
