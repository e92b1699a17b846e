package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/valyala/fasthttp"
	"go.uber.org/zap"

	"ssegate/auth"
	"ssegate/cluster"
	"ssegate/hub"
)

// Config is what a Proxy needs beside its routes. A zero value takes the
// default that its comment names.
type Config struct {
	Log            *zap.Logger    // nil: nothing is logged
	Metrics        *metrics.Set   // where counters go; nil: nowhere that anybody sees
	Node           string         // id of this node
	TrustedProxies []netip.Prefix // peers whose X-Forwarded-* and Forwarded are believed

	MaxConnections int           // clients at a time; 0: 256 Ki
	MaxHeader      int           // bytes of a request's head, request line included; 0: 64 KiB
	HeadTimeout    time.Duration // for a head to arrive whole; 0: 10 s
	IdleTimeout    time.Duration // of a kept connection between two requests; 0: 2 min
	BodyTimeout    time.Duration // silence in the middle of a request body; 0: 1 min
	WriteTimeout   time.Duration // how long a client may take to read one piece of an answer; 0: 1 min

	// Watch calls gone, once and from any goroutine, when the peer of c has
	// left, until stop is called. Neither waits for the other. nil: a client
	// that leaves is noticed only when something is written to it.
	Watch func(c net.Conn, gone func()) (stop func())

	// Cluster and Hub make event streams survive their clients; nil: event
	// streams are passed through like everything else. With a Hub, Watch is
	// the Hub's by default.
	Cluster *cluster.Node
	Hub     *hub.Hub

	// Auth tells who requests come from; nil: nobody is asked, and everybody
	// may do what the configuration allows on this listener.
	Auth *auth.Authenticator

	Redirect bool // new EventSource clients may be sent to a peer with fewer connections
}

// Proxy is the front of a node. All its methods may be called concurrently.
type Proxy struct {
	cfg      Config
	log      *zap.Logger
	table    tableRef
	cors     atomic.Pointer[CORS]
	push     atomic.Pointer[PushConfig] // nil: off
	counters counters
	perIP    requestRate
	perWho   requestRate

	swap     sync.Mutex // over what table is made of
	given    *Table
	own      []*Route // of push
	trust    atomic.Pointer[[]netip.Prefix]
	draining atomic.Bool
	active   atomic.Int64 // requests in their handlers
	tunnels  tunnels
	senders  sync.Pool
	direct   *direct

	// ctx ends when Close is called, and every upstream request with it.
	ctx   context.Context
	close context.CancelFunc

	// streams serves event streams; nil: they are passed through like
	// everything else.
	streams *streams
	limits  atomic.Pointer[Limits]
}

// New makes a Proxy without routes: every request is answered 404 until
// SetTable. Close ends it.
func New(cfg Config) (*Proxy, error) {
	for _, d := range []time.Duration{cfg.HeadTimeout, cfg.IdleTimeout, cfg.BodyTimeout, cfg.WriteTimeout} {
		if d < 0 {
			return nil, errors.New("proxy: a timeout is negative")
		}
	}
	if cfg.MaxHeader < 0 || cfg.MaxConnections < 0 {
		return nil, errors.New("proxy: a limit is negative")
	}
	cfg.MaxHeader = orDefault(cfg.MaxHeader, 64<<10)
	cfg.HeadTimeout = orDefault(cfg.HeadTimeout, 10*time.Second)
	cfg.IdleTimeout = orDefault(cfg.IdleTimeout, 2*time.Minute)
	cfg.BodyTimeout = orDefault(cfg.BodyTimeout, time.Minute)
	cfg.WriteTimeout = orDefault(cfg.WriteTimeout, time.Minute)
	p := &Proxy{cfg: cfg, log: cfg.Log, senders: sync.Pool{New: newSender}, direct: newDirect()}
	if p.log == nil {
		p.log = zap.NewNop()
	}
	if cfg.Metrics == nil {
		cfg.Metrics = metrics.NewSet()
	}
	p.counters.init(cfg.Metrics)
	p.ctx, p.close = context.WithCancel(context.Background())
	p.SetTable(NewTable(nil))
	p.SetCORS(CORS{})
	p.SetTrustedProxies(cfg.TrustedProxies)
	p.SetLimits(Limits{})
	if cfg.Cluster != nil {
		var err error
		if p.streams, err = newStreams(p, cfg.Cluster, cfg.Hub); err != nil {
			return nil, fmt.Errorf("read event streams: %w", err)
		}
		p.direct.mode = directLikely
		if p.cfg.Watch == nil {
			p.cfg.Watch = cfg.Hub.Watch
		}
	}
	return p, nil
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// SetTable swaps the routes at once. Requests in flight keep the route they
// began with.
func (p *Proxy) SetTable(t *Table) {
	p.swap.Lock()
	defer p.swap.Unlock()
	p.given = t
	p.table.Store(t.with(p.own))
}

// SetTrustedProxies swaps the peers whose X-Forwarded-* and Forwarded are
// believed; it holds for requests that come from now on.
func (p *Proxy) SetTrustedProxies(nets []netip.Prefix) { p.trust.Store(&nets) }

// Drain makes every answer from now on the last one on its connection.
func (p *Proxy) Drain() { p.draining.Store(true) }

// Close cancels what is still asked of upstreams, ends the tunnels of upgraded
// connections and waits for these, as long as ctx allows.
func (p *Proxy) Close(ctx context.Context) error {
	p.close()
	if p.streams != nil {
		p.streams.intake.Close()
	}
	return p.tunnels.closeAll(ctx)
}

// Handler answers one request of the public listener. It belongs into a
// Server made by Proxy.Server, without which it does not see what it must.
func (p *Proxy) Handler(ctx *fasthttp.RequestCtx) {
	x := p.newExchange(ctx)
	p.active.Add(1)
	defer p.active.Add(-1)
	defer func() {
		if v := recover(); v != nil {
			p.counters.refused("panic")
			p.log.Error("panic in a request", zap.Any("panic", v), zap.String("request_id", x.reqID), zap.ByteString("stack", debug.Stack()))
			x.broken = true
		}
		x.end()
	}()
	if bad := x.guard(); bad != nil {
		x.keep = false
		p.fail(x, bad.status, bad.reason, bad.detail)
		if ctx.Request.IsBodyStream() {
			lingerOn(ctx.Conn(), ctx.RequestBodyStream()) // nobody knows where its body ends
		}
		return
	}
	if p.limited(x, &p.perIP, x.remote.String(), tooManyOfIP) {
		return
	}
	if p.streams != nil && p.streams.control(x) {
		return
	}
	route, allow := p.table.Load().Match(x.host, x.path, x.method)
	switch {
	case route == nil && allow != "":
		p.failWith(x, http.StatusMethodNotAllowed, "method_not_allowed", "no route of this path takes this method", field{"Allow", allow})
		return
	case route == nil:
		p.fail(x, http.StatusNotFound, "no_route", "no route matches this host and path")
		return
	}
	x.route = route
	if x.upload != nil && route.BodySize > 0 {
		if !x.upload.limit(route.BodySize) {
			p.fail(x, http.StatusRequestEntityTooLarge, "body_too_large", "the request body is larger than this route takes")
			return
		}
	}
	if route.serve != 0 {
		p.servePush(x)
		return
	}
	if p.recognise(x) || p.limitedPrincipal(x) {
		return
	}
	if p.streams != nil && p.streams.before(x) {
		return
	}
	p.forward(x)
}
