package proxy

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// CORS says which pages of other origins may use ssegate's own paths: what
// clients subscribe to, the push API, /_ssegate/. What a backend says of its
// own answers is never touched.
type CORS struct {
	// Origins are whole origins ("https://app.example.com"), those of all
	// sub-domains ("https://*.example.com"), or "*" for any. None: pages of
	// other origins get no leave.
	Origins []string
	// Credentials lets pages send cookies and Authorization. Who is let in by
	// "*" alone is never let in with them: any page at all could then act in
	// its visitor's name.
	Credentials bool
	// Headers are the request headers that pages may send, "*" for any. None:
	// those that ssegate itself reads.
	Headers []string
	// MaxAge is how long a browser may remember the answer to a preflight; 0:
	// as long as it likes.
	MaxAge time.Duration
}

// corsHeaders are the request headers that our own paths read, beside those
// that need no leave.
const corsHeaders = "Authorization, Cache-Control, Content-Type, Idempotency-Key, Last-Event-ID, X-Api-Key, X-Request-Id"

// corsExposed are the response headers that a page may read.
const corsExposed = StreamHeader + ", " + ConnectionHeader + ", Retry-After, X-Request-Id"

// SetCORS swaps the rules; they hold for requests that come from now on.
func (p *Proxy) SetCORS(c CORS) { p.cors.Store(&c) }

// allow is what Access-Control-Allow-Origin says to pages of origin, "" for
// nothing, and whether they may send credentials.
func (c *CORS) allow(origin string) (value string, credentials bool) {
	if origin != "" && slices.ContainsFunc(c.Origins, func(rule string) bool { return sameOrigin(rule, origin) }) {
		return origin, c.Credentials
	}
	if slices.Contains(c.Origins, "*") {
		return "*", false
	}
	return "", false
}

// varies reports whether not all origins are answered alike.
func (c *CORS) varies() bool {
	return slices.ContainsFunc(c.Origins, func(rule string) bool { return rule != "*" })
}

// sameOrigin compares an origin with one of the rules. "null" stands for pages
// of no origin at all, so it must be named to be let in.
func sameOrigin(rule, origin string) bool {
	scheme, host, ok := strings.Cut(rule, "://*.")
	if !ok {
		return strings.EqualFold(rule, origin)
	}
	rest, ok := cutPrefixFold(origin, scheme+"://")
	if !ok || len(rest) <= len(host)+1 {
		return false
	}
	sub, tail := rest[:len(rest)-len(host)-1], rest[len(rest)-len(host)-1:]
	return tail[0] == '.' && strings.EqualFold(tail[1:], host) && isHost(sub) && !strings.ContainsAny(sub, ":[]@")
}

func cutPrefixFold(s, prefix string) (rest string, ok bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}

// fields are what an answer of ours says to a page of this origin.
func (c *CORS) fields(origin string) (out []field) {
	if c.varies() {
		out = append(out, field{"Vary", "Origin"})
	}
	value, credentials := c.allow(origin)
	if value == "" {
		return out
	}
	out = append(out, field{"Access-Control-Allow-Origin", value}, field{"Access-Control-Expose-Headers", corsExposed})
	if credentials {
		out = append(out, field{"Access-Control-Allow-Credentials", "true"})
	}
	return out
}

// TrustsOrigin reports whether pages of an origin may act in the name of their
// visitors: it is named, and credentials are let in.
func (p *Proxy) TrustsOrigin(origin string) bool {
	_, credentials := p.cors.Load().allow(origin)
	return credentials
}

// isPreflight reports whether a browser asks for leave to send a request.
func (x *exchange) isPreflight() bool {
	return x.method == "OPTIONS" && x.header("Origin") != "" && x.header("Access-Control-Request-Method") != ""
}

// options answers OPTIONS on a path of ours that takes these methods ("GET,
// HEAD, OPTIONS").
func (p *Proxy) options(x *exchange, methods string) {
	if !x.isPreflight() {
		x.reply(204, append([]field{{"Allow", methods}}, x.ours...), nil)
		return
	}
	x.reply(204, p.cors.Load().preflight(x, methods), nil)
}

// preflight is what a browser is told that asks for leave. Who gets none is
// told nothing, and understands.
func (c *CORS) preflight(x *exchange, methods string) []field {
	out := []field{{"Vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"}}
	value, credentials := c.allow(x.header("Origin"))
	if value == "" {
		return out
	}
	out = append(out, field{"Access-Control-Allow-Origin", value}, field{"Access-Control-Allow-Methods", methods})
	if credentials {
		out = append(out, field{"Access-Control-Allow-Credentials", "true"})
	}
	headers := corsHeaders
	switch {
	case slices.Contains(c.Headers, "*"):
		headers = x.header("Access-Control-Request-Headers") // with credentials a wildcard counts for nothing
	case len(c.Headers) > 0:
		headers = strings.Join(c.Headers, ", ")
	}
	if headers != "" {
		out = append(out, field{"Access-Control-Allow-Headers", headers})
	}
	if c.MaxAge > 0 {
		out = append(out, field{"Access-Control-Max-Age", strconv.FormatInt(int64(c.MaxAge/time.Second), 10)})
	}
	return out
}

// corsFields are what [cors] says to who asks, for an answer of our own.
func (p *Proxy) corsFields(x *exchange) []field { return p.cors.Load().fields(x.header("Origin")) }
