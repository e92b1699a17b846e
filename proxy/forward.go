package proxy

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// errClientGone is the cause with which an upstream request is cancelled whose
// client has left.
var errClientGone = errors.New("proxy: the client has left")

// forward sends a request upstream and passes the answer on, piece by piece as
// it comes, in the goroutine of the handler.
func (p *Proxy) forward(x *exchange) {
	a, err := p.roundTrip(p.ctx, x, sendOptions{watch: true})
	if err != nil {
		p.failUpstream(x, err, nil)
		return
	}
	whole := x.upload == nil || x.upload.settle()
	if p.streams != nil && whole && x.method != http.MethodHead && isEventStream(a.resp) {
		a.unwatch()
		p.streams.streaming(x, a)
		return
	}
	p.passThrough(x, a)
}

// passThrough passes an answer on as it is, and closes it.
func (p *Proxy) passThrough(x *exchange, a *answer) {
	if a.resp.StatusCode == http.StatusSwitchingProtocols {
		p.switchProtocols(x, a)
		return
	}
	a.Close(p.relay(x, a))
}

// watchAfter is how long an answer may take before it is worth two system
// calls to learn that the client left.
const watchAfter = 20 * time.Millisecond

// watch calls gone, from any goroutine, when the client leaves while it waits
// for its answer. It looks only once the request is whole, since a client may
// well close its own side behind it. stop must be called before the connection
// is hijacked or serves another request; gone does not begin after that. It
// may be called twice.
func (p *Proxy) watch(x *exchange, gone func()) (stop func()) {
	if p.cfg.Watch == nil {
		return func() {}
	}
	w := &watching{watch: p.cfg.Watch, conn: x.ctx.Conn(), gone: gone}
	w.timer = lateTimer{after: watchAfter, f: w.begin}
	if x.upload == nil {
		w.timer.start()
	} else {
		x.upload.whenWhole(w.timer.start)
	}
	return w.end
}

// watching is one call of Proxy.watch.
type watching struct {
	watch func(net.Conn, func()) func()
	conn  net.Conn
	gone  func()

	timer lateTimer

	mu   sync.Mutex
	stop func()
	over bool
}

func (w *watching) begin() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.over {
		w.stop = w.watch(w.conn, w.gone)
	}
}

func (w *watching) end() {
	w.timer.stop()
	w.mu.Lock()
	w.over = true
	stop := w.stop
	w.stop = nil
	w.mu.Unlock()
	if stop != nil {
		stop()
	}
}

// lateTimer calls f some time after start, unless it is stopped. It is not
// started again after a stop, whichever comes first.
type lateTimer struct {
	after time.Duration
	f     func()

	mu    sync.Mutex
	timer *time.Timer
	over  bool
}

func (t *lateTimer) start() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.over {
		t.timer = time.AfterFunc(t.after, t.f)
	}
}

func (t *lateTimer) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
	if t.timer != nil {
		t.timer.Stop()
	}
}

// isEventStream reports whether an answer is a stream of events.
func isEventStream(resp *http.Response) bool {
	if resp.StatusCode < 200 || resp.StatusCode > 299 || resp.StatusCode == http.StatusNoContent {
		return false
	}
	kind, _, _ := strings.Cut(resp.Header.Get("Content-Type"), ";")
	return strings.EqualFold(trimSpace(kind), "text/event-stream")
}

// outgoing builds the header lines of the upstream request: the client's own, but
// for those that end at this hop, and what is to be known of the way here.
// There is no Via: servers that see one withhold compression and more from
// who may well do without us.
func (x *exchange) outgoing() http.Header {
	h := make(http.Header, len(x.fields)+8)
	values := make([]string, len(x.fields)+8)
	set := func(name, value string) {
		values[0] = value
		h[name], values = values[:1:1], values[1:]
	}
	trusted := x.p.trusted(x.peer)
	named := x.namedHop()
	for _, f := range x.fields {
		name := http.CanonicalHeaderKey(f.name)
		switch {
		case isHop(name), name == "Host", name == "Content-Length", name == "Trailer":
			continue
		case named != nil && named[name]:
			continue
		case name == "X-Request-Id":
			continue
		case name == "X-Real-Ip", name == "Forwarded", strings.HasPrefix(name, "X-Forwarded-"):
			if !trusted {
				continue
			}
		case name == "Expect":
			if x.bodyRead {
				continue
			}
		case name == "Idempotency-Key" || name == "X-Idempotency-Key":
			// The transport would take the canonical name for leave to send
			// a POST twice.
			name = strings.ToLower(name)
		}
		if had, ok := h[name]; ok {
			h[name] = append(had, f.value)
		} else {
			set(name, f.value)
		}
	}
	set("X-Request-Id", x.reqID)
	x.forwarded(h, set)
	if _, ok := h["User-Agent"]; !ok {
		h["User-Agent"] = nil // or the transport names itself
	}
	x.ownHop(set)
	return h
}

// ownHop sets the header lines that are about the hop to the upstream.
func (x *exchange) ownHop(set func(name, value string)) {
	trailers := false
	for v := range x.headers("Te") {
		trailers = trailers || hasToken(v, "trailers")
	}
	if trailers {
		set("Te", "trailers")
	}
	switch {
	case x.upgrade != "":
		set("Upgrade", x.upgrade)
		set("Connection", "Upgrade")
	case trailers:
		set("Connection", "TE")
	}
}

// namedHop are the fields that Connection names beside the usual ones, nil
// for none. Naming a field that routes or frames the request changes nothing:
// those are never copied.
func (x *exchange) namedHop() map[string]bool {
	var named map[string]bool
	for v := range x.headers("Connection") {
		for name := range strings.SplitSeq(v, ",") {
			switch name = trimSpace(name); {
			case name == "", strings.EqualFold(name, "close"), strings.EqualFold(name, "keep-alive"):
			case strings.EqualFold(name, "upgrade"), strings.EqualFold(name, "te"):
			default:
				if named == nil {
					named = make(map[string]bool)
				}
				named[http.CanonicalHeaderKey(name)] = true
			}
		}
	}
	return named
}

// forwarded tells the upstream who asked. What the client itself said of that
// has been dropped, unless it is a trusted proxy: then we add to it.
func (x *exchange) forwarded(h http.Header, set func(name, value string)) {
	if x.peer.IsValid() {
		peer := x.peer.String()
		if prior := h["X-Forwarded-For"]; len(prior) > 0 {
			h["X-Forwarded-For"] = []string{strings.Join(prior, ", ") + ", " + peer}
		} else {
			set("X-Forwarded-For", peer)
		}
	}
	if _, ok := h["X-Forwarded-Proto"]; !ok {
		set("X-Forwarded-Proto", x.proto)
	}
	if _, ok := h["X-Forwarded-Host"]; !ok && x.host != "" {
		set("X-Forwarded-Host", x.host)
	}
	if prior := h["Forwarded"]; len(prior) > 0 && x.peer.IsValid() {
		node := x.peer.String()
		if x.peer.Is6() {
			node = `"[` + node + `]"`
		}
		h["Forwarded"] = []string{strings.Join(prior, ", ") + ", for=" + node + ";proto=" + x.proto}
	}
}

// trusted reports whether an address is a proxy whose word counts.
func (p *Proxy) trusted(a netip.Addr) bool {
	for _, net := range *p.trust.Load() {
		if net.Contains(a) {
			return true
		}
	}
	return false
}

// forwardedFor is the last address in X-Forwarded-For that is no trusted
// proxy: everything before it may be made up.
func (x *exchange) forwardedFor() netip.Addr {
	last := x.peer
	for i := len(x.fields) - 1; i >= 0; i-- {
		if !strings.EqualFold(x.fields[i].name, "X-Forwarded-For") {
			continue
		}
		list := x.fields[i].value
		for list != "" {
			var item string
			if comma := strings.LastIndexByte(list, ','); comma >= 0 {
				list, item = list[:comma], list[comma+1:]
			} else {
				list, item = "", list
			}
			addr, ok := parseNode(trimSpace(item))
			if !ok {
				return last
			}
			if last = addr; !x.p.trusted(addr) {
				return addr
			}
		}
	}
	return last
}

// parseNode reads an address as it stands in X-Forwarded-For: bare, or with a
// port, or in brackets.
func parseNode(s string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(strings.Trim(s, "[]"))
	if err != nil {
		host, _, cut := net.SplitHostPort(s)
		if cut != nil {
			return netip.Addr{}, false
		}
		if a, err = netip.ParseAddr(host); err != nil {
			return netip.Addr{}, false
		}
	}
	return a.Unmap().WithZone(""), true
}
