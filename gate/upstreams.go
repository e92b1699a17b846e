package gate

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"

	"reflect"
	"slices"
	"strings"
	"sync"

	"go.uber.org/zap"

	"ssegate/discover"
	"ssegate/proxy"
)

// upstreams turns [[upstream]] and [[route]] into the proxy's table. What a
// reload leaves unchanged keeps its connections and what is known of its
// endpoints.
type upstreams struct {
	source discover.Source // of Consul services; nil without Consul
	log    *zap.Logger

	mu     sync.Mutex
	byName map[string]*upstream
	ctx    context.Context // of Run; nil before
	wg     sync.WaitGroup
}

type upstream struct {
	cfg  Upstream
	up   *proxy.Upstream
	stop context.CancelFunc
}

func newUpstreams(source discover.Source, log *zap.Logger) *upstreams {
	return &upstreams{source: source, log: log, byName: map[string]*upstream{}}
}

// table makes the routes of a configuration. Nothing has changed when it
// returns an error.
func (u *upstreams) table(cfg Config) (*proxy.Table, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	next := map[string]*upstream{}
	var errs []error
	for _, c := range cfg.Upstream {
		if old := u.byName[c.Name]; old != nil && reflect.DeepEqual(old.cfg, c) {
			next[c.Name] = old
			continue
		}
		made, err := newUpstream(c)
		if err != nil {
			errs = append(errs, fmt.Errorf("upstream %s: %w", c.Name, err))
			continue
		}
		next[c.Name] = made
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	routes := make([]*proxy.Route, 0, len(cfg.Route))
	for _, r := range cfg.Route {
		up := next[r.Upstream]
		if up == nil {
			return nil, fmt.Errorf("route %s: no upstream %q", r.Label(), r.Upstream)
		}
		routes = append(routes, route(cfg, r, up.up))
	}
	for name, old := range u.byName {
		if next[name] != old && old.stop != nil {
			old.stop() // requests in flight keep the transport they have
			old.up.Transport.CloseIdleConnections()
		}
	}
	u.byName = next
	if u.ctx != nil {
		u.watchAll()
	}
	return proxy.NewTable(routes), nil
}

func newUpstream(c Upstream) (*upstream, error) {
	roots, err := c.Roots()
	if err != nil {
		return nil, err
	}
	t := proxy.NewTransport(proxy.TransportOptions{
		ConnectTimeout: c.ConnectTimeout,
		TLS:            &tls.Config{RootCAs: roots, ServerName: c.ServerName, InsecureSkipVerify: c.Insecure},
	})
	strategy := discover.RoundRobin
	if c.Balance == "least-connections" {
		strategy = discover.LeastConnections
	}
	b := discover.NewBalancer(discover.BalancerConfig{Strategy: strategy, MaxFails: c.MaxFails, FailFor: c.FailFor})
	if len(c.Targets) > 0 {
		list := make([]discover.Endpoint, len(c.Targets))
		for i, t := range c.Targets {
			list[i] = discover.Endpoint{ID: t, URL: strings.TrimSuffix(t, "/")}
		}
		b.Update(list)
	}
	return &upstream{cfg: c, up: &proxy.Upstream{
		Name: c.Name, Balancer: b, Transport: t,
		HeaderTimeout: c.HeaderTimeout, IdleTimeout: c.IdleTimeout, Host: c.HostHeader,
	}}, nil
}

// run begins to follow discovery and health; it does not wait.
func (u *upstreams) run(ctx context.Context) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.ctx = ctx
	u.watchAll()
}

// watchAll starts what is not watched yet. u.mu is held.
func (u *upstreams) watchAll() {
	for _, up := range u.byName {
		if up.stop != nil {
			continue
		}
		ctx, stop := context.WithCancel(u.ctx)
		up.stop = stop
		if up.cfg.Service != "" && u.source != nil {
			u.wg.Go(func() {
				err := u.source.Watch(ctx, up.cfg.Service, func(list []discover.Endpoint) {
					u.log.Info("endpoints", zap.String("upstream", up.cfg.Name), zap.Int("count", len(list)))
					up.up.Balancer.Update(list)
				})
				if err != nil {
					u.log.Error("discovery ended", zap.String("upstream", up.cfg.Name), zap.Error(err))
				}
			})
		}
		if up.cfg.HealthPath != "" {
			u.wg.Go(func() {
				up.up.Balancer.Check(ctx, discover.CheckConfig{
					Path: up.cfg.HealthPath, Every: up.cfg.HealthEvery, Timeout: up.cfg.HealthTimeout,
					Transport: up.up.Transport, Host: literalHost(up.cfg.HostHeader),
				})
			})
		}
	}
}

// literalHost is the Host that checks send, "" for the endpoint's own.
func literalHost(setting string) string {
	if setting == "client" || setting == "upstream" {
		return ""
	}
	return setting
}

// close ends what watchAll began, and waits for it.
func (u *upstreams) close() {
	u.mu.Lock()
	for _, up := range u.byName {
		if up.stop != nil {
			up.stop()
		}
		up.up.Transport.CloseIdleConnections()
	}
	u.mu.Unlock()
	u.wg.Wait()
}

// route turns a [[route]] into the proxy's words.
func route(cfg Config, r Route, up *proxy.Upstream) *proxy.Route {
	out := &proxy.Route{
		Name: r.Label(), Host: strings.ToLower(r.Host), Path: r.Path, Methods: slices.Clone(r.Methods),
		Upstream: up, HostHeader: r.HostHeader,
		AttachFor: r.AttachFor, AttachRefuse: r.AttachUnavailable == "refuse", AttachBodyLimit: int64(r.AttachBodyLimit),
		CancelOnLeave: r.OnDisconnect == "cancel", DetachFor: r.DetachFor,
		Heartbeat: r.Heartbeat, HeartbeatData: r.HeartbeatData, FirstByteHeartbeat: r.FirstByteHeartbeat,
		Retry: r.Retry, RetryToAll: r.RetryToAll, Done: r.Done, DoneEvents: r.DoneEvents,
		Takeover: r.Takeover == "last-event-id", Bind: r.Bind,
		CutSlow: r.Slow == "cut", CutGap: r.Gap == "cut", RequireAuth: r.Auth == "require",
		LogLength: r.LogLength, LogTTL: r.LogTTL, RingEvents: r.RingEvents, RingBytes: int(r.RingBytes),
		WriteTimeout: r.WriteTimeout, MaxAge: r.MaxAge,
		EventSize: int(cfg.Limits.EventSize), BodySize: int64(cfg.Limits.BodySize),
	}
	if in, name, ok := strings.Cut(r.AttachKey, ":"); ok {
		out.AttachKey = proxy.KeySource{In: in, Name: name}
	}
	out.Attach = map[string]proxy.AttachMode{"id": proxy.AttachID, "key": proxy.AttachKey, "content": proxy.AttachContent, "off": proxy.AttachOff}[r.Attach]
	out.IDs = map[string]proxy.IDMode{"auto": proxy.IDsAuto, "edge": proxy.IDsEdge, "upstream": proxy.IDsUpstream, "off": proxy.IDsOff}[r.IDs]
	out.HeartbeatStyle = map[string]proxy.HeartbeatStyle{
		"line": proxy.HeartbeatLine, "comment": proxy.HeartbeatComment, "event": proxy.HeartbeatEvent, "off": proxy.HeartbeatOff,
	}[r.HeartbeatStyle]
	return out
}
