// Package gate is one running ssegate node as a value: configuration with its
// defaults, the choice of drivers, start, reload, drain.
//
// It must not know flags, signals or os.Exit: package main translates those.
package gate

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/VictoriaMetrics/metrics"
	"github.com/valyala/fasthttp"
	"go.uber.org/zap"

	"ssegate/auth"
	"ssegate/cluster"
	"ssegate/hub"
	"ssegate/proxy"
	"ssegate/push"
	"ssegate/registry"
	"ssegate/sse"
)

// Options are what a Gate gets beside its configuration.
type Options struct {
	Logging *Logging // nil: nothing is logged
	Version string
	Notices []Notice // what Load let pass; logged at start
	// Shared lets several nodes of one process be a cluster in memory; nil:
	// what the configuration says.
	Shared *Memory
}

// Gate is one node. New binds its listeners, so that its addresses are known;
// Run serves until told to leave.
type Gate struct {
	opts  Options
	log   *zap.Logger
	id    string
	start time.Time

	mu  sync.Mutex // reload
	cfg atomic.Pointer[Config]
	ups *upstreams

	hub      *hub.Hub
	node     *cluster.Node
	proxy    *proxy.Proxy
	auth     *auth.Authenticator // nil: nobody is asked
	push     *push.API           // nil: there is no push
	drivers  *drivers
	metrics  *metrics.Set
	public   net.Listener
	internal net.Listener
	server   *fasthttp.Server

	draining atomic.Bool
	piped    atomic.Int64 // streams that are being published on the internal listener
	killed   atomic.Bool
	dead     context.Context // done when Kill was called
	kill     context.CancelFunc
	reloads  reloadCounts
}

type reloadCounts struct{ good, bad atomic.Uint64 }

// New makes a node of a valid configuration and binds its listeners. Nothing
// else is begun: outside services need not be there yet. A Gate that is not
// run must be closed by Close.
func New(cfg Config, opts Options) (g *Gate, err error) {
	if opts.Logging == nil {
		opts.Logging = &Logging{Logger: zap.NewNop()}
	}
	g = &Gate{opts: opts, metrics: metrics.NewSet(), start: time.Now()}
	g.id, err = nodeID(cfg.Node.ID)
	if err != nil {
		return nil, err
	}
	g.log = opts.Logging.With(zap.String("node", g.id))
	g.cfg.Store(&cfg)
	g.dead, g.kill = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			g.Close()
			g = nil
		}
	}()
	if g.hub, err = hub.New(hub.Config{Memory: int64(cfg.Limits.Memory) / 2, Tick: tick(cfg)}); err != nil {
		return g, fmt.Errorf("open the hub: %w", err)
	}
	if g.public, err = net.Listen("tcp", cfg.Listen.Public); err != nil {
		return g, fmt.Errorf("listen.public: %w", err)
	}
	if cfg.Listen.Internal != "" {
		if g.internal, err = net.Listen("tcp", cfg.Listen.Internal); err != nil {
			return g, fmt.Errorf("listen.internal: %w", err)
		}
	}
	if g.drivers, err = openDrivers(cfg, g.id, g.advertise(cfg), g.internalAddr(), opts.Shared, g.log); err != nil {
		return g, err
	}
	if g.auth, err = newAuth(cfg, g.drivers.registry, g.log.Named("auth")); err != nil {
		return g, err
	}
	g.node = cluster.New(cluster.Config{
		Self: registry.Node{
			ID: g.id, Advertise: g.advertise(cfg), Internal: g.internalAddr(),
		},
		Hub: g.hub, Log: g.drivers.log, Journal: g.drivers.journal, Registry: g.drivers.registry, Bus: g.drivers.bus, Lead: g.drivers.lead,
		Heartbeat: cfg.Cluster.Heartbeat, DeadAfter: cfg.Cluster.DeadAfter, CheckEvery: cfg.Cluster.CheckEvery,
		TailCheck: cfg.Cluster.TailCheck, Keep: keep(cfg), Linger: g.drivers.linger,
		Resume:    func(s *cluster.Stream, rec registry.Record, from sse.Frame) { g.proxy.Resume(s, rec, from) },
		KickOther: func(id string) bool { return g.proxy.KickConnection(id) },
		Draining:  g.draining.Load,
		Report:    g.report,
	})
	g.proxy, err = proxy.New(proxy.Config{
		Log: g.log.Named("proxy"), Metrics: g.metrics, Node: g.id,
		TrustedProxies: cfg.Listen.TrustedNets(),
		MaxHeader:      int(cfg.Listen.MaxHeader), HeadTimeout: cfg.Listen.ReadHeaderTimeout, IdleTimeout: cfg.Listen.IdleTimeout,
		Cluster: g.node, Hub: g.hub, Redirect: cfg.Cluster.Redirect, Auth: g.auth,
	})
	if err != nil {
		return g, err
	}
	if err = g.openPush(cfg); err != nil {
		return g, err
	}
	g.ups = newUpstreams(g.drivers.source, g.log.Named("upstream"))
	table, err := g.ups.table(cfg)
	if err != nil {
		return g, err
	}
	g.proxy.SetTable(table)
	g.setLive(cfg)
	g.server = g.proxy.Server()
	g.register()
	return g, nil
}

// nodeID is the configured id, or the host's name, with a boot nonce, so that
// a quick restart is not taken for the node that died.
func nodeID(configured string) (string, error) {
	name := configured
	if name == "" {
		host, err := os.Hostname()
		if err != nil {
			return "", fmt.Errorf("node.id is not set and the host has no name: %w", err)
		}
		name = host
	}
	var nonce [4]byte
	rand.Read(nonce[:])
	return name + "-" + hex.EncodeToString(nonce[:]), nil
}

// advertise is the node's public base URL: the configured one, or the
// listener's own address where that says one.
func (g *Gate) advertise(cfg Config) string {
	if cfg.Node.Advertise != "" {
		return cfg.Node.Advertise
	}
	if a, ok := g.public.Addr().(*net.TCPAddr); ok && !a.IP.IsUnspecified() {
		return "http://" + a.String()
	}
	return ""
}

// tick is fine enough for the shortest heartbeat.
func tick(cfg Config) time.Duration {
	t := 100 * time.Millisecond
	for _, r := range cfg.Route {
		if r.Heartbeat > 0 {
			t = min(t, max(r.Heartbeat/4, 5*time.Millisecond))
		}
	}
	return t
}

// keep is how long records live without news: as long as any log they lead to.
func keep(cfg Config) time.Duration {
	k := 3 * cfg.Cluster.DeadAfter
	for _, r := range cfg.Route {
		k = max(k, r.LogTTL)
	}
	return k
}

func limits(cfg Config) proxy.Limits {
	return proxy.Limits{
		Connections:  cfg.Limits.Connections,
		PerIP:        cfg.Limits.ConnectionsPerIP,
		PerPrincipal: cfg.Limits.ConnectionsPerPrincipal,
	}
}

// setLive swaps what cannot fail and holds from now on.
func (g *Gate) setLive(cfg Config) {
	g.proxy.SetLimits(limits(cfg))
	g.proxy.SetRates(cfg.Limits.RequestsPerIP, cfg.Limits.RequestsPerPrincipal)
	g.proxy.SetCORS(corsRules(cfg.CORS))
	g.proxy.SetTrustedProxies(cfg.Listen.TrustedNets())
}

// ID is the node's id, its boot nonce included.
func (g *Gate) ID() string { return g.id }

// Public is the address of the clients' listener, Internal that of the
// internal one ("" where there is none).
func (g *Gate) Public() string { return g.public.Addr().String() }

// Internal is the address of the internal listener, "" where there is none.
func (g *Gate) Internal() string { return g.internalAddr() }

func (g *Gate) internalAddr() string {
	if g.internal == nil {
		return ""
	}
	return g.internal.Addr().String()
}

// Close gives back what New took, for a Gate that is not run.
func (g *Gate) Close() {
	for _, l := range []net.Listener{g.public, g.internal} {
		if l != nil {
			l.Close()
		}
	}
	if g.drivers != nil {
		g.drivers.close()
	}
	if g.ups != nil {
		g.ups.close()
	}
}

// Run serves until ctx is done; then the node drains, as long as
// drain_timeout allows or until now is done, and leaves. It returns nil when
// that is how it ended, else why it had to.
func (g *Gate) Run(ctx, now context.Context) error {
	for _, n := range g.opts.Notices {
		g.log.Warn("configuration", zap.String("notice", n.String()))
	}
	g.log.Info("started", zap.String("version", g.opts.Version), zap.String("public", g.Public()),
		zap.String("internal", g.internalAddr()), zap.String("cluster", g.drivers.kind))

	// Two circles: the inner one (node, hub, discovery) outlives the outer
	// one (listeners), since who leaves still needs them.
	inner, stopInner := context.WithCancel(context.WithoutCancel(ctx))
	defer stopInner()
	hubCtx, stopHub := context.WithCancel(context.WithoutCancel(ctx))
	defer stopHub()
	failed := make(chan error, 8)
	fail := func(what string, err error) {
		if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, net.ErrClosed) {
			failed <- fmt.Errorf("%s: %w", what, err)
		}
	}
	var wg, hubs sync.WaitGroup
	hubs.Go(func() { fail("hub", g.hub.Run(hubCtx)) })
	wg.Go(func() { fail("cluster", g.node.Run(inner)) })
	wg.Go(func() { fail("discovery", g.drivers.run(inner)) })
	if g.auth != nil {
		wg.Go(func() { fail("auth", g.auth.Run(inner)) })
	}
	if g.push != nil {
		wg.Go(func() { fail("push", g.push.Run(inner)) })
	}
	wg.Go(func() { fail("public listener", g.server.Serve(g.public)) })
	internal := g.internalServer()
	if g.internal != nil {
		wg.Go(func() { fail("internal listener", serveInternal(internal, g.internal)) })
	}
	g.ups.run(inner)

	var why error
	select {
	case <-ctx.Done():
	case <-g.dead.Done():
	case why = <-failed:
		g.log.Error("leaving because of a failure", zap.Error(why))
	}
	if g.killed.Load() {
		stopInner() // before the pumps end: nobody is to hear of their ends
		stopHub()
	} else {
		g.leave(now, why != nil)
	}
	bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
	defer cancel()
	g.proxy.CloseStreams(bye)
	if err := g.server.ShutdownWithContext(bye); err != nil && !g.killed.Load() {
		g.log.Warn("requests were cut", zap.Error(err))
	}
	g.public.Close() // where Serve had not begun, Shutdown knows of no listener
	g.proxy.Close(bye)
	stopInner()
	internal.Close()
	g.ups.close()
	wg.Wait()
	stopHub()
	hubs.Wait()
	g.Close()
	g.log.Info("left", zap.Duration("after", time.Since(g.start).Round(time.Millisecond)))
	return why
}

// Kill ends a running node as abruptly as a process can end itself: no
// goodbye, nothing written that was due, connections reset. Run returns soon
// after. It is for demonstrations and tests.
func (g *Gate) Kill() {
	g.killed.Store(true)
	g.public.Close()
	g.node.Abort()
	g.kill()
}

// leave drains: not ready at once, new requests refused kindly, clients that
// can resume moved, the others let finish.
func (g *Gate) leave(now context.Context, failed bool) {
	g.draining.Store(true)
	g.proxy.Drain()
	ctx, cancel := context.WithTimeout(now, g.cfg.Load().Node.DrainTimeout)
	defer cancel()
	if !failed && ctx.Err() == nil {
		g.drain(ctx)
	}
	if answers, _ := g.node.Streams(); errors.Is(ctx.Err(), context.DeadlineExceeded) && answers+g.node.Connections() > 0 {
		g.log.Warn("drain_timeout passed; what still runs is cut; raise node.drain_timeout to let it finish",
			zap.Int("answers", answers), zap.Int("connections", g.node.Connections()))
	}
}

// drain lets finish what can, until ctx is done.
func (g *Gate) drain(ctx context.Context) {
	g.node.Beat(ctx)
	others := 0
	for id, n := range g.node.Peers() {
		if id != g.id && !n.Draining {
			others++
		}
	}
	g.log.Info("draining", zap.Int("connections", g.node.Connections()), zap.Int("other_nodes", others),
		zap.Duration("drain_timeout", g.cfg.Load().Node.DrainTimeout))
	g.proxy.DrainAll(ctx, others > 0)
	for ctx.Err() == nil && g.piped.Load() > 0 {
		select {
		case <-ctx.Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Reload takes over what can change while the node runs: everything that can
// fail comes first, the swap comes last. It takes what Load returned, so that
// a bad configuration is refused, counted and logged here, and changes
// nothing.
func (g *Gate) Reload(cfg Config, notices []Notice, err error) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if err == nil {
		old := *g.cfg.Load()
		live, restart := Diff(old, cfg)
		if len(live)+len(restart) == 0 {
			g.log.Info("reloaded; nothing has changed")
			return nil
		}
		// Whether there is push or auth at all is settled at the start.
		cfg.Push.On, cfg.Auth.On = old.Push.On, old.Auth.On
		var table *proxy.Table
		if table, err = g.reloadable(cfg); err == nil {
			g.node.KeepAtLeast(keep(cfg)) // before a stream can need it
			g.proxy.SetTable(table)
			g.setLive(cfg)
			if g.push != nil {
				g.proxy.SetPush(g.pushServing(cfg))
			}
			if g.opts.Logging != nil {
				g.opts.Logging.SetLevel(cfg.Log.Level)
			}
			g.cfg.Store(&cfg)
			g.reloads.good.Add(1)
			for _, n := range notices {
				g.log.Warn("configuration", zap.String("notice", n.String()))
			}
			g.log.Info("reloaded", zap.Strings("changed", live), zap.Strings("needs_restart", restart))
			return nil
		}
	}
	g.reloads.bad.Add(1)
	g.log.Error("reload refused; the old configuration stands", zap.Error(err))
	return err
}

// reloadable does all of a reload that may fail. What it has swapped when
// something fails later was valid by itself.
func (g *Gate) reloadable(cfg Config) (*proxy.Table, error) {
	var tokens auth.Config
	if g.auth != nil {
		var err error
		if tokens, err = authConfig(cfg.Auth); err != nil {
			return nil, err
		}
	}
	table, err := g.ups.table(cfg)
	if err != nil {
		return nil, err
	}
	if g.auth != nil {
		if err := g.auth.Reload(tokens); err != nil {
			return nil, fmt.Errorf("auth: %w", err)
		}
	}
	if g.push != nil {
		if err := g.push.Reload(pushOptions(cfg)); err != nil {
			return nil, err
		}
	}
	return table, nil
}

// report logs what the cluster has to tell.
func (g *Gate) report(r cluster.Report) {
	if g.killed.Load() {
		return // the dead do not speak
	}
	if g.push != nil && r.Dead() {
		g.push.Gone(r.Node)
	}
	fields := make([]zap.Field, 0, 3)
	if r.Node != "" {
		fields = append(fields, zap.String("about", r.Node))
	}
	if !r.Stream.IsZero() {
		fields = append(fields, zap.String("stream", Redact(r.Stream.String())))
	}
	if r.Err != nil {
		g.log.Warn(r.What, append(fields, zap.Error(r.Err))...)
		return
	}
	g.log.Info(r.What, fields...)
}
