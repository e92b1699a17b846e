package rabbit

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"ssegate/bus"
	"ssegate/bus/internal/link"
)

// Config says which broker, and who we are. Zero fields get the defaults.
type Config struct {
	URL    string // amqp:// or amqps://, as RabbitMQ's URI specification has it
	Prefix string // names the exchange and begins the queues' names; "ssegate" by default
	Node   string // this node's id

	// Heartbeat is how often the broker and we say that we are alive when
	// nothing else is said; whole seconds, 5 s by default. A heartbeat in the
	// URL wins.
	Heartbeat time.Duration
	// DialTimeout bounds one attempt to connect, declare and bind; 5 s by
	// default.
	DialTimeout time.Duration
	// StallAfter is how long the broker may leave a message unconfirmed, or
	// our own probe undelivered, before it counts as down; 3 s by default.
	StallAfter time.Duration
	// QueueBytes bounds what waits in this process to be published; what is
	// beyond is lost with LostOverflow. 32 MiB by default.
	QueueBytes int
	// BrokerBytes bounds what the broker keeps for this node while it does
	// not consume; what is beyond is lost to its senders with LostRefused.
	// 64 MiB by default, and no less than twice bus.MaxBody.
	BrokerBytes int
}

// ErrConfig is matched by every error of New. The errors name no secrets.
var ErrConfig = errors.New("rabbit")

// longestName bounds prefix and node id together: AMQP's names have 255 bytes.
const longestName = 200

// Bus is a bus.Bus. Where Run is not running, Send returns ErrDown or, after
// it, ErrClosed.
type Bus struct {
	cfg  Config
	link *link.Link
}

var _ bus.Bus = (*Bus)(nil)

// New checks cfg; it does not connect.
func New(cfg Config) (*Bus, error) {
	if _, err := amqp.ParseURI(cfg.URL); err != nil {
		return nil, fmt.Errorf("%w: the URL must be like amqp://user:password@host:5672/vhost, special characters percent-encoded", ErrConfig)
	}
	if cfg.Prefix == "" {
		cfg.Prefix = "ssegate"
	}
	if cfg.Node == "" || len(cfg.Node)+len(cfg.Prefix) > longestName {
		return nil, fmt.Errorf("%w: a node id is needed, and together with the prefix it may have %d bytes", ErrConfig, longestName)
	}
	opt := link.Defaults()
	opt.Dial = defaulted(&cfg.DialTimeout, opt.Dial)
	opt.Stall = defaulted(&cfg.StallAfter, opt.Stall)
	opt.Queue = defaulted(&cfg.QueueBytes, opt.Queue)
	defaulted(&cfg.BrokerBytes, 64<<20)
	defaulted(&cfg.Heartbeat, 5*time.Second)
	if cfg.Heartbeat < time.Second || cfg.DialTimeout < 0 || cfg.StallAfter < 0 || cfg.QueueBytes < 0 || cfg.BrokerBytes < 2*bus.MaxBody {
		return nil, fmt.Errorf("%w: a limit is too low", ErrConfig)
	}
	b := &Bus{cfg: cfg}
	b.link = link.New(cfg.Node, opt, b.dial)
	return b, nil
}

// defaulted gives *v the default d when it is zero, and returns it.
func defaulted[T comparable](v *T, d T) T {
	var zero T
	if *v == zero {
		*v = d
	}
	return *v
}

// Send implements bus.Bus. It never waits: what the queue in this process has
// no room for is lost, which the handler is told with LostOverflow.
func (b *Bus) Send(ctx context.Context, to string, msgs []bus.Message) error {
	if len(to) > longestName { // no node of ours, and AMQP could not even say it
		b.link.Lost(to, bus.LostUnroutable)
		return ctx.Err()
	}
	return b.link.Send(ctx, to, msgs)
}

// Run implements bus.Bus.
func (b *Bus) Run(ctx context.Context, h bus.Handler) error { return b.link.Run(ctx, h) }

// Err says why the bus is down, in words for whoever runs the broker; nil
// while it is up.
func (b *Bus) Err() error { return b.link.Err() }

// Garbled counts the parcels that arrived and were not a node's of this
// version.
func (b *Bus) Garbled() uint64 { return b.link.Garbled() }

// dial opens a session's two connections and declares what it needs.
func (b *Bus) dial(ctx context.Context, s *link.Session) (link.Conn, error) {
	c := &conn{s: s, cfg: &b.cfg, answered: make(chan struct{}, 1)}
	if err := c.openConsumer(ctx); err != nil {
		return nil, fmt.Errorf("consuming: %w", err)
	}
	if err := c.openPublisher(ctx); err != nil {
		return nil, fmt.Errorf("publishing: %w", err)
	}
	return c, nil
}

// connect opens one connection to the broker.
func (c *conn) connect(ctx context.Context, what string) (*amqp.Connection, error) {
	props := amqp.NewConnectionProperties()
	props.SetClientConnectionName("ssegate " + c.cfg.Node + " " + what)
	plain := new(net.Dialer)
	return amqp.DialConfig(c.cfg.URL, amqp.Config{
		Heartbeat:  c.cfg.Heartbeat,
		Properties: props,
		Dial: func(network, addr string) (net.Conn, error) {
			return c.s.Wire.Dial(ctx, plain.DialContext, network, addr)
		},
	})
}

func (c *conn) openConsumer(ctx context.Context) error {
	var err error
	if c.sub, err = c.connect(ctx, "consumer"); err != nil {
		return err
	}
	ch, err := c.sub.Channel()
	if err != nil {
		return err
	}
	if err := ch.ExchangeDeclare(c.cfg.Prefix, amqp.ExchangeDirect, true, false, false, false, nil); err != nil {
		return err
	}
	name := c.cfg.Prefix + "." + c.cfg.Node + "." + c.s.String()
	q, err := ch.QueueDeclare(name, false, true, true, false, amqp.Table{
		amqp.QueueMaxLenBytesArg: int64(c.cfg.BrokerBytes),
		amqp.QueueOverflowArg:    amqp.QueueOverflowRejectPublish,
	})
	if err != nil {
		return err
	}
	if err := ch.QueueBind(q.Name, c.cfg.Node, c.cfg.Prefix, false, nil); err != nil {
		return err
	}
	if err := ch.Qos(prefetch, 0, false); err != nil {
		return err
	}
	c.subChannel = ch
	c.subEnd = ch.NotifyClose(make(chan *amqp.Error, 1)) // told of the connection's end as well
	c.deliveries, err = ch.Consume(q.Name, "", false, true, false, false, nil)
	return err
}

func (c *conn) openPublisher(ctx context.Context) error {
	var err error
	if c.pub, err = c.connect(ctx, "publisher"); err != nil {
		return err
	}
	ch, err := c.pub.Channel()
	if err != nil {
		return err
	}
	if err := ch.Confirm(false); err != nil {
		return err
	}
	c.confirms = ch.NotifyPublish(make(chan amqp.Confirmation, 2*windowParcels))
	c.returns = ch.NotifyReturn(make(chan amqp.Return, 2*windowParcels))
	c.blocks = c.pub.NotifyBlocked(make(chan amqp.Blocking, 16))
	c.pubChannel = ch
	c.pubEnd = ch.NotifyClose(make(chan *amqp.Error, 1))
	return nil
}
