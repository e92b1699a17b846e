package proxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"go.uber.org/zap"

	"ssegate/reconnect"
)

// fail answers with a status and says why, for people and for programs:
//
//	{"error":{"reason":"upstream_unreachable","detail":"…","request_id":"…"}}
//
// reason is a machine word, also the label of a counter; detail says what is
// the matter in plain words and never an address or a secret.
func (p *Proxy) fail(x *exchange, status int, reason, detail string) {
	p.failWith(x, status, reason, detail)
}

// failWith is fail with more header lines.
func (p *Proxy) failWith(x *exchange, status int, reason, detail string, more ...field) {
	p.counters.refused(reason)
	fields := append([]field{
		{"Content-Type", "application/json"},
		{"Cache-Control", "no-store"},
	}, more...)
	fields = append(fields, x.ours...)
	x.reply(status, fields, errorBody(reason, detail, x.reqID))
}

func errorBody(reason, detail, id string) []byte {
	var body struct {
		Error struct {
			Reason    string `json:"reason"`
			Detail    string `json:"detail"`
			RequestID string `json:"request_id,omitempty"`
		} `json:"error"`
	}
	body.Error.Reason, body.Error.Detail, body.Error.RequestID = reason, detail, id
	b, _ := json.Marshal(body) // strings always marshal
	return append(b, '\n')
}

// failUpstream answers a request for which no answer came back. cause is why
// it was cancelled, if it was.
func (p *Proxy) failUpstream(x *exchange, err, cause error) {
	if errors.Is(cause, errClientGone) || errors.Is(err, errBodyCut) || errors.Is(err, errClientGone) {
		x.broken = true // nobody is there to be answered
		p.counters.refused("client_gone")
		return
	}
	if p.ctx.Err() != nil && errors.Is(err, context.Canceled) {
		p.fail(x, http.StatusServiceUnavailable, "shutting_down", "this node is going down")
		return
	}
	r := why(err)
	if c := p.log.Check(zap.InfoLevel, "no answer from upstream"); c != nil {
		c.Write(zap.String("reason", r.reason), zap.String("upstream", x.route.Upstream.Name), zap.String("route", x.route.Name),
			zap.String("request_id", x.reqID), zap.String("error", CutQuotes(err.Error())))
	}
	if x.eventSource() && p.streams != nil {
		// Without us it would have met a broken connection, and come back. A
		// status would stop it for ever.
		p.refuse(x, r.reason, x.route.Retry)
		return
	}
	p.fail(x, r.status, r.reason, r.detail)
}

// refuse asks a client to come back later, in the words that it understands.
// EventSource gives up for ever on any 4xx or 5xx: it gets a 200, the bare line
// `retry:` with jitter, and a cut, since a clean end would look like a whole
// answer to those that read streams with fetch. Others get 503 and Retry-After.
func (p *Proxy) refuse(x *exchange, reason string, after time.Duration) {
	if after <= 0 {
		after = 2 * time.Second
	}
	after = reconnect.Jitter(after, nil)
	if !x.eventSource() {
		seconds := retryAfter(after)
		p.failWith(x, http.StatusServiceUnavailable, reason, "this node cannot take the request now",
			field{"Retry-After", seconds})
		return
	}
	p.counters.refused(reason)
	s := x.sender()
	b := appendStatus(s.room(), http.StatusOK, "")
	b = appendField(b, "Content-Type", "text/event-stream")
	b = appendField(b, "Cache-Control", "no-cache, no-transform")
	b = appendField(b, "X-Accel-Buffering", "no")
	b = appendField(b, "X-Request-Id", x.reqID)
	if origin := x.header("Origin"); origin != "" {
		// There is nothing in it that a page may not see, and without leave
		// to read it the browser would not hear when to come back.
		b = appendField(b, "Access-Control-Allow-Origin", origin)
		b = appendField(b, "Access-Control-Allow-Credentials", "true")
		b = appendField(b, "Vary", "Origin")
	}
	b = appendDate(b)
	line := fmt.Appendf(nil, "retry: %d\n", after.Milliseconds())
	if x.http10 {
		x.keep = false
		b = x.appendConnection(b)
		b = append(b, line...)
	} else {
		b = appendField(b, "Transfer-Encoding", "chunked")
		b = appendLast(b, x.header("Connection") != "")
		b = fmt.Appendf(b, "\r\n%x\r\n%s\r\n", len(line), line)
	}
	s.put(b)
	s.push()
	s.done()
	x.broken = true // no last chunk: a cut
	p.counters.answered(http.StatusOK)
}

// counters say how requests ended. Every refusal has a reason of its own.
type counters struct {
	set     *metrics.Set
	classes [6]*metrics.Counter // answers by the first digit of their status; none at 0
	mu      sync.Mutex
	reasons map[string]*metrics.Counter
}

func (c *counters) init(set *metrics.Set) {
	c.set = set
	for i := 1; i < len(c.classes); i++ {
		c.classes[i] = set.GetOrCreateCounter(fmt.Sprintf(`ssegate_answers_total{class="%dxx"}`, i))
	}
	c.reasons = make(map[string]*metrics.Counter)
}

func (c *counters) answered(status int) {
	if class := status / 100; class >= 1 && class <= 5 {
		c.classes[class].Inc()
	}
}

func (c *counters) refused(reason string) {
	c.mu.Lock()
	n, ok := c.reasons[reason]
	if !ok {
		n = c.set.GetOrCreateCounter(`ssegate_refused_total{reason=` + strconv.Quote(reason) + `}`)
		c.reasons[reason] = n
	}
	c.mu.Unlock()
	n.Inc()
}
