package gate

import (
	"reflect"
	"testing"
)

func TestDiff(t *testing.T) {
	const base = `[[upstream]]
name = "chat"
targets = ["http://h:1"]
[[upstream]]
name = "search"
targets = ["http://h:2"]
[[route]]
path = "/v1"
upstream = "chat"
[[route]]
name = "find"
path = "/search"
upstream = "search"
`
	old, _, err := parse("ssegate.toml", base, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	f := func(change func(*Config), wantLive, wantRestart []string) {
		t.Helper()
		cfg, _, err := parse("ssegate.toml", base, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		change(&cfg)
		live, restart := Diff(old, cfg)
		if !reflect.DeepEqual(live, wantLive) || !reflect.DeepEqual(restart, wantRestart) {
			t.Errorf("live %q, restart %q; want %q, %q", live, restart, wantLive, wantRestart)
		}
	}
	f(func(*Config) {}, nil, nil)
	f(func(c *Config) { c.Route[0].Methods = []string{} }, nil, nil) // as good as none
	f(func(c *Config) {
		c.Node.ID, c.Node.DrainTimeout = "x", 5
		c.Listen.Public, c.Listen.TrustedProxies = ":1", []string{"10.0.0.0/8"}
		c.Listen.Internal, c.Listen.ReadHeaderTimeout, c.Listen.IdleTimeout, c.Listen.MaxHeader = "", 5, 5, 5
		c.Cluster.Redis, c.Cluster.Heartbeat = "redis://h", 5
		c.Limits.ConnectionsPerIP, c.Limits.Memory = 5, 5
		c.Log.Level, c.Log.Format = "debug", "console"
	},
		[]string{"node.drain_timeout", "listen.trusted_proxies", "limits.connections_per_ip", "log.level"},
		[]string{"node.id", "listen.public", "listen.internal", "listen.read_header_timeout", "listen.idle_timeout", "listen.max_header", "cluster.redis", "cluster.heartbeat", "limits.memory", "log.format"})
	f(func(c *Config) {
		c.Upstream[0].Targets = []string{"http://h:1", "http://h:3"}
		c.Route[1].Heartbeat, c.Route[1].Done = 5, nil
	}, []string{"upstream chat targets", "route find heartbeat", "route find done"}, nil)
	// One more at the top is one change.
	f(func(c *Config) {
		r := DefaultRoute()
		r.Path, r.Upstream, r.Host, r.Methods = "/new", "chat", "h", []string{"GET", "PUT"}
		c.Route = append([]Route{r}, c.Route...)
	}, []string{"route h/new GET,PUT added"}, nil)
	f(func(c *Config) {
		c.Upstream, c.Route = c.Upstream[1:], c.Route[1:]
	}, []string{"upstream chat removed", "route /v1 removed"}, nil)
	// API keys are called by their names; what they were is not shown.
	f(func(c *Config) {
		c.Auth.On, c.Auth.Secret = true, "x"
		c.Auth.Key = []AuthKey{{Name: "billing"}}
		c.Push.On, c.Push.TTL, c.Push.Hosts = true, 5, []string{"h"}
		c.CORS.Origins = []string{"*"}
	}, []string{"push.ttl", "auth.secret", "cors.origins", "auth.key billing added"}, []string{"push", "push.hosts", "auth"})
	// A redacted password that differs is a difference all the same.
	f(func(c *Config) { c.Cluster.Redis = "redis://:a@h" }, nil, []string{"cluster.redis"})
}
