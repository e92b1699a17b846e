package redisbus

import (
	"context"
	"errors"
	"fmt"
	"net"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"ssegate/bus"
	"ssegate/bus/internal/link"
)

// Bus is a bus.Bus. Where Run is not running, Send returns ErrDown or, after
// it, ErrClosed.
type Bus struct {
	client redis.UniversalClient
	prefix string
	opt    link.Options
	link   *link.Link
}

var _ bus.Bus = (*Bus)(nil)

// ErrClient says that a client is of a kind that the bus cannot use: only
// *redis.Client (Sentinel included) and *redis.ClusterClient have the options
// from which it makes connections of its own.
var ErrClient = errors.New("redisbus: want a *redis.Client or a *redis.ClusterClient")

// New returns the bus of a node; prefix begins the channels' names. It does
// not connect. Of the client only the options are used: the bus has connections
// of its own, which neither repeat a command nor wait behind others.
func New(client redis.UniversalClient, prefix, node string) *Bus {
	b := &Bus{client: client, prefix: prefix, opt: link.Defaults()}
	b.opt.Take = 1 << 20
	b.link = link.New(node, b.opt, b.dial)
	return b
}

// Send implements bus.Bus. It never waits: what the queue in this process has
// no room for is lost, which the handler is told with LostOverflow.
func (b *Bus) Send(ctx context.Context, to string, msgs []bus.Message) error {
	return b.link.Send(ctx, to, msgs)
}

// Run implements bus.Bus. It returns ErrClient at once when the client is of
// no use.
func (b *Bus) Run(ctx context.Context, h bus.Handler) error {
	switch b.client.(type) {
	case *redis.Client, *redis.ClusterClient:
		return b.link.Run(ctx, h)
	}
	return fmt.Errorf("%w, not a %T", ErrClient, b.client)
}

// Err says why the bus is down, in words for whoever runs Redis; nil while it
// is up.
func (b *Bus) Err() error { return b.link.Err() }

// Garbled counts the parcels that arrived and were not a node's of this
// version.
func (b *Bus) Garbled() uint64 { return b.link.Garbled() }

// channel is where a node listens.
func (b *Bus) channel(node string) string { return b.prefix + ":bus:" + node }

// pool is how many connections publish, for each server: one, and one more for
// what a cluster client asks beside.
const pool = 2

// own returns a client like b.client whose connections are the session's. It
// does not try anything twice: a PUBLISH whose answer got lost must not come
// again behind newer ones.
func (b *Bus) own(s *link.Session) redis.UniversalClient {
	through := func(dial link.Dialer) link.Dialer {
		return func(ctx context.Context, network, addr string) (net.Conn, error) {
			return s.Wire.Dial(ctx, dial, network, addr)
		}
	}
	quiet := &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	if c, ok := b.client.(*redis.ClusterClient); ok {
		o := *c.Options()
		if o.Dialer == nil {
			o.Dialer = redis.NewDialer(&redis.Options{DialTimeout: b.opt.Dial, TLSConfig: o.TLSConfig})
		}
		o.Dialer = through(o.Dialer)
		o.MaxRedirects, o.MaxRetries, o.DialerRetries = -1, -1, 1
		o.ReadOnly, o.RouteByLatency, o.RouteRandomly = false, false, false
		o.DialTimeout, o.ReadTimeout, o.WriteTimeout = b.opt.Dial, b.opt.Stall, b.opt.Stall
		o.PoolSize, o.MaxConcurrentDials, o.MinIdleConns, o.PipelinePoolSize = pool, pool, 0, -1
		o.MaintNotificationsConfig, o.PushNotificationProcessor = quiet, nil
		return redis.NewClusterClient(&o)
	}
	o := *b.client.(*redis.Client).Options()
	o.Dialer = through(o.Dialer)
	o.MaxRetries, o.DialerRetries = -1, 1
	o.DialTimeout, o.ReadTimeout, o.WriteTimeout = b.opt.Dial, b.opt.Stall, b.opt.Stall
	o.PoolSize, o.MaxConcurrentDials, o.MinIdleConns, o.PipelinePoolSize = pool, pool, 0, -1
	o.MaintNotificationsConfig, o.PushNotificationProcessor = quiet, nil
	o.ClientSideCache, o.ClientSideCacheConfig = nil, nil
	return redis.NewClient(&o)
}

// dial subscribes, and returns when Redis has said so.
func (b *Bus) dial(ctx context.Context, s *link.Session) (link.Conn, error) {
	c := &conn{s: s, b: b, client: b.own(s), left: make(chan struct{})}
	_, c.sharded = c.client.(*redis.ClusterClient)
	if c.sharded {
		c.sub = c.client.SSubscribe(ctx, b.channel(s.Node))
	} else {
		c.sub = c.client.Subscribe(ctx, b.channel(s.Node))
	}
	if _, err := c.sub.ReceiveTimeout(ctx, b.opt.Dial); err != nil {
		c.Close()
		return nil, fmt.Errorf("subscribing: %w", err)
	}
	return c, nil
}

// conn is one session: a client of its own and a subscription.
type conn struct {
	s       *link.Session
	b       *Bus
	client  redis.UniversalClient
	sub     *redis.PubSub
	sharded bool
	left    chan struct{} // Receive was told that the subscription has ended
}

// Publish implements link.Conn: the parcels go out at once, and their answers
// are awaited. A paused Redis makes it wait for the time limit of a write or of
// a read.
func (c *conn) Publish(ctx context.Context, parcels []*link.Parcel) error {
	pipe := c.client.Pipeline()
	for _, p := range parcels {
		if c.sharded {
			pipe.SPublish(ctx, c.b.channel(p.To), p.Data)
		} else {
			pipe.Publish(ctx, c.b.channel(p.To), p.Data)
		}
	}
	cmds, err := pipe.Exec(ctx)
	for i, cmd := range cmds {
		n, err := cmd.(*redis.IntCmd).Result()
		switch {
		case err != nil:
			c.s.Lost(parcels[i].To, bus.LostRefused)
		case n == 0:
			c.s.Lost(parcels[i].To, bus.LostUnroutable)
		}
	}
	return err
}

// Receive implements link.Conn.
func (c *conn) Receive(ctx context.Context, deliver func([]byte)) error {
	for {
		got, err := c.sub.Receive(ctx) // ends when the Wire is cut
		if err != nil {
			return err
		}
		switch m := got.(type) {
		case *redis.Message:
			deliver([]byte(m.Payload))
		case *redis.Subscription:
			if m.Count == 0 {
				close(c.left)
				return errors.New("redisbus: the subscription has ended")
			}
		}
	}
}

// Leave implements link.Conn. Publish has awaited all answers.
func (c *conn) Leave(ctx context.Context) {
	var err error
	if c.sharded {
		err = c.sub.SUnsubscribe(ctx, c.b.channel(c.s.Node))
	} else {
		err = c.sub.Unsubscribe(ctx, c.b.channel(c.s.Node))
	}
	if err != nil {
		return // gone already, which is as well
	}
	select {
	case <-c.left:
	case <-ctx.Done():
	}
}

// Close implements link.Conn.
func (c *conn) Close() {
	// Their errors are about connections that are closed already.
	_ = c.sub.Close()
	_ = c.client.Close()
}
