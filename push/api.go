package push

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"ssegate/auth"
	"ssegate/internal/rate"
)

// API takes messages, streams and questions over HTTP. It is an http.Handler
// whose methods may be called concurrently. Run must run beside it.
type API struct {
	cfg      Config
	mux      *http.ServeMux
	opt      atomic.Pointer[settings]
	rate     rate.Limiter // of messages, each publisher's
	stats    counters
	receipts receipts
	conns    directory
	hook     webhook
	open     openStreams
	name     string // begins the ids that this process makes
	made     atomic.Uint64
}

// settings are Options in the form in which requests need them.
type settings struct {
	Options
	style style
}

// New makes an API. The error says all that is wrong with the options.
func New(cfg Config) (*API, error) {
	a := &API{cfg: cfg, mux: http.NewServeMux()}
	if a.cfg.Report == nil {
		a.cfg.Report = func(string, error) {}
	}
	a.cfg.Gone = cmp.Or(a.cfg.Gone, 5*time.Second)
	if err := a.Reload(cfg.Options); err != nil {
		return nil, err
	}
	var nonce [nonceText * 5 / 8]byte
	rand.Read(nonce[:])
	a.name = "msg_" + strings.ToLower(base32.HexEncoding.EncodeToString(nonce[:]))
	a.receipts.init(a)
	a.conns.reg = cfg.Registry
	a.hook.init(a)
	a.open.init(a)
	a.routes()
	return a, nil
}

// Reload takes other options over, for requests that come from now on; on an
// error the old ones stand.
func (a *API) Reload(o Options) error {
	o, err := o.withDefaults()
	if err != nil {
		return err
	}
	s := &settings{Options: o}
	s.style = style{
		payloadData: o.PayloadData, unnamed: o.Unnamed, types: o.Types,
		ttl: o.TTL, maxTTL: o.MaxTTL, maxEvent: o.EventSize, id: a.newID, now: time.Now,
	}
	a.opt.Store(s)
	return nil
}

// Run does what is to be done besides answering: it keeps receipts, tells the
// webhook, and sees to the streams of nodes that have died. It ends with ctx,
// after it has tried, bounded, to write what is
// still due, and returns nil.
func (a *API) Run(ctx context.Context) error {
	return errors.Join(run(ctx, a.receipts.run, a.hook.run, a.open.run)...)
}

// nonceText is how many characters of an id that is made tell which process
// made it.
const nonceText = 8

// newID makes the id of a message that has none of its own.
func (a *API) newID() string {
	return a.name + strconv.FormatUint(a.made.Add(1), 36)
}

func (a *API) routes() {
	a.handle("POST", "/api/v1/messages/send", (*call).send)
	a.handle("POST", "/api/v1/messages/broadcast", (*call).broadcast)
	a.handle("POST", "/api/v1/messages/batch", (*call).batch)
	a.handle("GET", "/api/v1/messages/{id}", (*call).receipt)
	a.handle("POST", "/api/sse/send", (*call).sendTo)
	a.handle("GET", "/api/sse/status/{userId}", (*call).status)
	a.handle("POST", "/api/sse/close/{userId}", (*call).closeUser)
	a.handle("GET", "/api/v1/connections", (*call).connections)
	a.handle("GET", "/api/v1/connections/stats", (*call).connectionStats)
	a.handle("DELETE", "/api/v1/connections/{id}", (*call).disconnect)
	a.handle("POST", "/api/v1/streams/{kind}/{name}", (*call).stream)
	a.handle("POST", "/api/v1/tickets", (*call).ticket)
	a.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		a.serve(w, r, func(c *call) {
			c.refuse(&refusal{status: http.StatusNotFound, reason: "not_found", detail: "there is no such path in the push API"})
		})
	})
}

func (a *API) handle(method, path string, f func(*call)) {
	a.mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == method {
			a.serve(w, r, f)
			return
		}
		a.serve(w, r, func(c *call) {
			c.refuse(&refusal{status: http.StatusMethodNotAllowed, reason: "method_not_allowed", detail: "use " + method, allow: method})
		})
	})
}

// ServeHTTP serves the paths of the API, and answers all others with 404.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.mux.ServeHTTP(w, r) }

// serve finds out who asks, and lets f answer unless it is somebody who must
// not.
func (a *API) serve(w http.ResponseWriter, r *http.Request, f func(*call)) {
	c := &call{API: a, w: w, r: r, opt: a.opt.Load(), id: r.Header.Get("X-Request-Id")}
	if !goodRequestID(c.id) {
		c.id = rand.Text()
	}
	w.Header()["X-Request-Id"] = []string{c.id}
	if bad := c.guard(); bad != nil {
		c.refuse(bad)
		return
	}
	f(c)
}

func goodRequestID(id string) bool {
	return id != "" && len(id) <= 128 && !strings.ContainsFunc(id, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}

// guard keeps out pages in browsers that act on their own, and finds out who
// asks.
func (c *call) guard() *refusal {
	r := c.r
	if c.cfg.Identify == nil {
		if !c.ownHost() {
			return &refusal{status: http.StatusForbidden, reason: "forbidden_host",
				detail: "this host name is not one of this API's own; call it by its address, or have the name configured"}
		}
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead && r.Header.Get("Authorization") == "" && r.Header.Get("X-Api-Key") == "" && c.foreignPage() {
		return &refusal{status: http.StatusForbidden, reason: "forbidden_origin", detail: "pages of another origin may not do this"}
	}
	if c.who = auth.FromContext(r.Context()); c.who != nil {
		return nil
	}
	if c.cfg.Identify == nil {
		c.who = auth.Anyone()
		return nil
	}
	who, err := c.cfg.Identify(r)
	if err != nil {
		return unidentified(err)
	}
	c.who = who
	return nil
}

func unidentified(err error) *refusal {
	if errors.Is(err, auth.ErrUnavailable) {
		f := unavailable("who you are cannot be verified now")
		f.reason = "auth_unavailable"
		return f
	}
	f := &refusal{status: http.StatusUnauthorized, reason: "unauthorized", detail: "a token or a key is needed: in Authorization or X-Api-Key", challenge: auth.Challenge(err)}
	if bad, ok := errors.AsType[*auth.BadError](err); ok {
		f.detail = bad.Text
	}
	return f
}

// ownHost reports whether the request names a host of ours. Addresses pass: to
// make its own name lead here a page needs a name.
func (c *call) ownHost() bool {
	host := c.r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return true
	}
	return slices.ContainsFunc(c.cfg.Hosts, func(own string) bool { return strings.EqualFold(own, host) })
}

// foreignPage reports whether a page of another origin sends the request.
// Browsers say so; what is no browser says nothing.
func (c *call) foreignPage() bool {
	origin := c.r.Header.Get("Origin")
	if origin != "" && c.cfg.Identify != nil && c.cfg.Origins != nil && c.cfg.Origins(origin) {
		return false
	}
	switch c.r.Header.Get("Sec-Fetch-Site") {
	case "same-origin", "none":
		return false
	case "":
		u, err := url.Parse(origin)
		return origin != "" && (err != nil || u.Host != c.r.Host)
	}
	return true
}

// mediaType is the content type without its parameters, "" if there is none.
func (c *call) mediaType() string {
	ct := c.r.Header.Get("Content-Type")
	if ct == "application/json" {
		return ct
	}
	t, _, err := mime.ParseMediaType(ct)
	if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) {
		return ""
	}
	return t
}

func (c *call) wantJSON() *refusal {
	t := c.mediaType()
	if t == "application/json" || strings.HasPrefix(t, "application/") && strings.HasSuffix(t, "+json") {
		return nil
	}
	return &refusal{status: http.StatusUnsupportedMediaType, reason: "unsupported_media_type", detail: "the body must be JSON: Content-Type: application/json"}
}
