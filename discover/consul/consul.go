package consul

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/hashicorp/consul/api"

	"ssegate/discover"
	"ssegate/reconnect"
)

// Config says which Consul to talk to, and what this node is there. The zero
// value of a duration means its default.
type Config struct {
	Address string // http or https URL of the agent; it may bear user:password
	Token   string // ACL token; "" = CONSUL_HTTP_TOKEN

	Service string        // under which all ssegate nodes are registered
	Self    discover.Peer // this node
	TTL     time.Duration // without a beat for so long, this node is critical; 30 s
	Beat    time.Duration // between two beats; a third of TTL
	// DropAfter is how long this node is critical before Consul forgets it;
	// 1 min, and no less there.
	DropAfter time.Duration
	// SessionTTL is how long the cleaner's lock outlives the cleaner, at
	// least; 15 s. Consul allows 10 s to 24 h, and may take twice as long.
	SessionTTL time.Duration

	// Wait bounds one blocking query; 1 min.
	Wait time.Duration
	// Grace is how long an endpoint that is missing after Consul was away is
	// kept all the same: a Consul that has lost its memory learns again from
	// its agents bit by bit. 30 s; negative = not at all.
	Grace time.Duration
	// Report is told of every failed call; nil = nobody. It must not block
	// and may be called concurrently.
	Report func(error)
}

// callTimeout bounds every call but blocking queries, which have theirs on top.
const callTimeout = 5 * time.Second

// leaveTimeout bounds the goodbye.
const leaveTimeout = 2 * time.Second

// Consul is a client of one Consul agent. Its methods may be called
// concurrently. It starts no goroutine.
type Consul struct {
	cfg       Config
	api       *api.Client
	transport *http.Transport
	lock      lock
	last      atomic.Pointer[error] // of the last call that ended
	away      atomic.Uint64         // calls that found no Consul
}

var _ discover.Source = (*Consul)(nil)

// New returns a client. It connects to nothing yet; the error is one of the
// configuration.
func New(cfg Config) (*Consul, error) {
	u, err := url.Parse(cfg.Address)
	if err != nil {
		return nil, errors.New("consul: the address is no URL: want http://host:8500") // which may hold a password
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, fmt.Errorf("consul: address %q: want http://host:8500", u.Redacted())
	}
	defaults(&cfg)
	c := &Consul{cfg: cfg, lock: newLock()}
	c.transport = &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: callTimeout, KeepAlive: 15 * time.Second}).DialContext,
		TLSHandshakeTimeout: callTimeout,
		MaxIdleConnsPerHost: 4,
		IdleConnTimeout:     2 * time.Minute,
	}
	conf := &api.Config{Transport: c.transport, Token: cfg.Token}
	if u.User != nil {
		password, _ := u.User.Password()
		conf.HttpAuth = &api.HttpBasicAuth{Username: u.User.Username(), Password: password}
		u.User = nil
	}
	conf.Address = u.String()
	if c.api, err = api.NewClient(conf); err != nil {
		return nil, fmt.Errorf("consul: %w", err)
	}
	return c, nil
}

func defaults(c *Config) {
	set := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	set(&c.TTL, 30*time.Second)
	set(&c.Beat, c.TTL/3)
	set(&c.DropAfter, time.Minute)
	set(&c.SessionTTL, 15*time.Second)
	set(&c.Wait, time.Minute)
	set(&c.Grace, 30*time.Second)
	if c.Report == nil {
		c.Report = func(error) {}
	}
}

// Close closes the connections that are idle. It is called last.
func (c *Consul) Close() { c.transport.CloseIdleConnections() }

// Err is what the last call to Consul met: nil when it answered, and before
// the first.
func (c *Consul) Err() error {
	if err := c.last.Load(); err != nil {
		return *err
	}
	return nil
}

// note keeps and reports what a call met; what for goes before the error. A
// call that was cancelled tells nothing about Consul.
func (c *Consul) note(ctx context.Context, what string, err error) error {
	if err == nil {
		c.last.Store(&err)
		return nil
	}
	err = fmt.Errorf("consul: %s: %w", what, err)
	if !errors.Is(ctx.Err(), context.Canceled) {
		c.last.Store(&err)
		if refused := new(net.OpError); errors.As(err, &refused) || errors.Is(err, io.EOF) {
			c.away.Add(1)
		}
		c.cfg.Report(err)
	}
	return err
}

// Watch implements [discover.Source]. The endpoints are the instances whose
// checks all pass. The scheme is http unless the instance's meta has
// scheme = "https".
func (c *Consul) Watch(ctx context.Context, service string, update func([]discover.Endpoint)) error {
	w := watch[discover.Endpoint]{
		c: c, service: service, update: update,
		read: readEndpoint,
		id:   func(e discover.Endpoint) string { return e.ID },
	}
	w.run(ctx)
	return nil
}

// WatchPeers does for the nodes of this service, this one among them, what
// Watch does for the endpoints of any.
func (c *Consul) WatchPeers(ctx context.Context, update func([]discover.Peer)) error {
	w := watch[discover.Peer]{
		c: c, service: c.cfg.Service, update: update,
		read: readPeer,
		id:   func(p discover.Peer) string { return p.ID },
	}
	w.run(ctx)
	return nil
}

// What a registration says in its meta.
const (
	metaScheme    = "scheme"
	metaNode      = "node"
	metaAdvertise = "advertise"
	metaInternal  = "internal"
)

// readEndpoint: an instance's id is unique on its agent only.
func readEndpoint(e *api.ServiceEntry) (discover.Endpoint, bool) {
	host := e.Service.Address
	if host == "" {
		host = e.Node.Address
	}
	scheme := e.Service.Meta[metaScheme]
	if scheme != "https" {
		scheme = "http"
	}
	return discover.Endpoint{
		ID:  e.Node.Node + "/" + e.Service.ID,
		URL: scheme + "://" + net.JoinHostPort(host, strconv.Itoa(e.Service.Port)),
	}, true
}

// readPeer passes over what somebody else registered under our name.
func readPeer(e *api.ServiceEntry) (discover.Peer, bool) {
	m := e.Service.Meta
	return discover.Peer{ID: m[metaNode], Advertise: m[metaAdvertise], Internal: m[metaInternal]}, m[metaNode] != ""
}

// backoff between attempts while Consul is away.
func backoff() reconnect.Backoff { return reconnect.Backoff{Max: 3 * time.Second} }

// sleep waits for d or until ctx is done.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
