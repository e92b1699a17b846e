package gate

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"ssegate/bus"
	"ssegate/bus/rabbit"
	"ssegate/bus/redisbus"
	"ssegate/cluster"
	"ssegate/discover"
	"ssegate/discover/consul"
	"ssegate/reconnect"
	"ssegate/reconnect/redislog"
	"ssegate/registry"
	"ssegate/registry/redisreg"
	"ssegate/sse"
)

// clusterStats shortens the metrics' table.
type clusterStats = cluster.Stats

var lostReasons = [...]bus.LostReason{bus.LostUnroutable, bus.LostRefused, bus.LostOverflow}

// Memory is what the nodes of one process share when they are a cluster with
// nothing around them.
type Memory struct {
	Log      *reconnect.Memory
	Registry *registry.Memory
	Bus      *bus.Memory
}

// NewMemory makes a cluster's memory; maxLog bounds the logs, in bytes.
func NewMemory(maxLog int64) *Memory {
	m := &Memory{Registry: registry.NewMemory(nil), Bus: bus.NewMemory()}
	m.Log = reconnect.NewMemory(reconnect.MemoryConfig{MaxBytes: maxLog, Followers: func(topics []sse.StreamID) [][]string {
		nodes, _ := m.Registry.Followers(context.Background(), topics) // it never fails
		return nodes
	}})
	return m
}

// drivers are what stands behind the interfaces of a node.
type drivers struct {
	kind     string // for the log line at start
	log      reconnect.Log
	journal  reconnect.Journal // of topics
	registry registry.Registry
	bus      bus.Bus
	busName  string // "" where the bus is memory
	lead     func(context.Context) (bool, error)
	source   discover.Source
	consul   *consul.Consul
	memory   *Memory       // swept by run; nil where logs are elsewhere
	linger   time.Duration // of frames that nobody elsewhere waits for
	health   map[string]func(context.Context) error
	closers  []func() error
}

// openDrivers chooses by what is configured. No service needs to be there yet.
func openDrivers(cfg Config, node, advertise, internal string, shared *Memory, log *zap.Logger) (*drivers, error) {
	d := &drivers{kind: "memory", health: map[string]func(context.Context) error{}}
	c := cfg.Cluster
	if c.Consul != "" {
		k, err := consul.New(consul.Config{
			Address: string(c.Consul), Service: serviceName(c),
			Self: discover.Peer{ID: node, Advertise: advertise, Internal: internal},
			TTL:  c.DeadAfter, SessionTTL: max(c.DeadAfter/2, 10*time.Second),
			Report: func(err error) { log.Warn("consul", zap.Error(err)) },
		})
		if err != nil {
			return nil, fmt.Errorf("cluster.consul: %w", err)
		}
		d.consul, d.source, d.lead = k, k, k.Lead
		d.health["consul"] = func(context.Context) error { return k.Err() }
		d.closers = append(d.closers, func() error { k.Close(); return nil })
	}
	if c.Redis == "" {
		d.memory = shared
		if shared == nil {
			d.linger = 100 * time.Millisecond // the log dies with the rings
			d.memory = NewMemory(int64(cfg.Limits.Memory) / 2)
		}
		d.log, d.journal, d.registry, d.bus = d.memory.Log, d.memory.Log, d.memory.Registry, d.memory.Bus.Node(node)
		return d, nil
	}
	d.linger = 5 * time.Millisecond // one round trip for more
	client, err := redisClient(string(c.Redis))
	if err != nil {
		return nil, fmt.Errorf("cluster.redis: %w", err)
	}
	d.closers = append(d.closers, client.Close)
	d.health["redis"] = func(ctx context.Context) error { return client.Ping(ctx).Err() }
	reg := redisreg.New(client, c.Prefix)
	logs := redislog.New(client, c.Prefix, redislog.WithInterest(reg.FollowKey), redislog.WithReplicas(c.RedisWait, 0))
	d.closers = append(d.closers, func() error { logs.Close(); return nil })
	d.log, d.journal, d.registry = logs, logs, reg
	if c.RabbitMQ == "" {
		d.kind, d.busName = "redis", "bus"
		d.bus = redisbus.New(client, c.Prefix, node)
		return d, nil
	}
	d.kind, d.busName = "redis+rabbitmq", "rabbitmq"
	d.bus, err = rabbit.New(rabbit.Config{URL: string(c.RabbitMQ), Prefix: c.Prefix, Node: node})
	if err != nil {
		d.close()
		return nil, fmt.Errorf("cluster.rabbitmq: %w", err)
	}
	return d, nil
}

func serviceName(c Cluster) string {
	if c.Service != "" {
		return c.Service
	}
	return c.Prefix
}

// silent keeps go-redis from writing to stderr by itself.
type silent struct{}

func (silent) Printf(context.Context, string, ...any) {}

// redisClient understands one server, Sentinel (master_name) and Cluster
// (addr). Contexts bound every call, so that a Redis that stands still costs
// its callers what they allow and no more.
func redisClient(raw string) (redis.UniversalClient, error) {
	redis.SetLogger(silent{}) // what it would say, the callers' errors say too
	u, err := url.Parse(raw)
	if err != nil {
		return nil, errors.New("is no URL")
	}
	const dial = 2 * time.Second
	q := u.Query()
	switch {
	case q.Has("master_name"):
		o, err := redis.ParseFailoverURL(raw)
		if err != nil {
			return nil, err
		}
		o.ContextTimeoutEnabled, o.DialTimeout = true, dial
		return redis.NewFailoverClient(o), nil
	case q.Has("addr"):
		o, err := redis.ParseClusterURL(raw)
		if err != nil {
			return nil, err
		}
		o.ContextTimeoutEnabled, o.DialTimeout = true, dial
		return redis.NewClusterClient(o), nil
	}
	o, err := redis.ParseURL(raw)
	if err != nil {
		return nil, err
	}
	o.ContextTimeoutEnabled, o.DialTimeout = true, dial
	o.MaxRetries = 1
	return redis.NewClient(o), nil
}

// run keeps registrations and tidies memory until ctx is done.
func (d *drivers) run(ctx context.Context) error {
	var wg sync.WaitGroup
	var err error
	if d.consul != nil {
		wg.Go(func() { err = d.consul.Register(ctx) })
	}
	if d.memory != nil {
		wg.Go(func() {
			tick := time.NewTicker(time.Second)
			defer tick.Stop()
			for {
				select {
				case <-ctx.Done():
					return
				case <-tick.C:
					d.memory.Log.Sweep()
				}
			}
		})
	}
	wg.Wait()
	return err
}

func (d *drivers) close() {
	for _, c := range d.closers {
		c() // nothing is to be done about a connection that does not close
	}
	d.closers = nil
}
