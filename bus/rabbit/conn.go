package rabbit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"ssegate/bus"
	"ssegate/bus/internal/link"
)

const (
	// What may be published and not yet confirmed. While it is used up, what
	// is sent waits in our queue, where it is put together into fewer, bigger
	// messages. A single message of any size is always let through.
	windowParcels = 64
	windowBytes   = 4 << 20

	// prefetch is how many messages the broker hands over ahead of our
	// acknowledgement.
	prefetch = 64
)

// Errors that end a session.
var (
	errUnconfirmed = errors.New("rabbit: the broker does not confirm what is published")
	errCancelled   = errors.New("rabbit: the broker has cancelled our consumer: the queue is gone")
	errClosed      = errors.New("rabbit: connection closed")
)

// conn is one session: two connections, a channel on each.
type conn struct {
	s   *link.Session
	cfg *Config

	sub        *amqp.Connection
	subChannel *amqp.Channel
	subEnd     chan *amqp.Error
	deliveries <-chan amqp.Delivery

	pub        *amqp.Connection
	pubChannel *amqp.Channel
	pubEnd     chan *amqp.Error
	confirms   chan amqp.Confirmation
	returns    chan amqp.Return
	blocks     chan amqp.Blocking

	answered chan struct{} // something was confirmed: one token

	mu      sync.Mutex
	pending []pending // published and not confirmed, in order of their tags
	bytes   int       // of all in pending
}

// pending is a parcel that the broker has not confirmed.
type pending struct {
	tag  uint64
	to   string
	size int
	at   time.Time // when it was written; zero while it is being written
}

// Publish implements link.Conn: it writes the parcels, then waits until the
// window has room again. A paused broker makes it wait in a write, which the
// Wire's patience bounds, or for confirms, which watch bounds.
func (c *conn) Publish(ctx context.Context, parcels []*link.Parcel) error {
	for i, p := range parcels {
		if err := c.publish(ctx, p); err != nil {
			for _, p := range parcels[i+1:] {
				c.s.Lost(p.To, bus.LostRefused)
			}
			return err
		}
	}
	for !c.within(windowParcels-1, windowBytes) {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.answered:
		}
	}
	return nil
}

func (c *conn) publish(ctx context.Context, p *link.Parcel) error {
	tag := c.pubChannel.GetNextPublishSeqNo()
	c.mu.Lock() // booked first: the confirm may be quicker than our return
	c.pending = append(c.pending, pending{tag: tag, to: p.To, size: len(p.Data)})
	c.bytes += len(p.Data)
	c.mu.Unlock()
	err := c.pubChannel.PublishWithContext(ctx, c.cfg.Prefix, p.To, true, false, amqp.Publishing{
		DeliveryMode: amqp.Transient,
		Body:         p.Data,
	})
	if err != nil {
		return err // Close tells of the loss
	}
	c.mu.Lock()
	if n := len(c.pending); n > 0 && c.pending[n-1].tag == tag {
		c.pending[n-1].at = time.Now()
	}
	c.mu.Unlock()
	return nil
}

// within reports whether no more than that is unconfirmed.
func (c *conn) within(parcels, bytes int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.pending) <= parcels && c.bytes <= bytes
}

// settle books the broker's answer for everything up to a tag.
func (c *conn) settle(answer amqp.Confirmation) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for n < len(c.pending) && c.pending[n].tag <= answer.DeliveryTag {
		p := c.pending[n]
		c.bytes -= p.size
		if p.tag == answer.DeliveryTag && !answer.Ack {
			c.s.Lost(p.to, bus.LostRefused)
		}
		n++
	}
	if c.pending = c.pending[n:]; len(c.pending) == 0 {
		c.pending = nil
	}
	select {
	case c.answered <- struct{}{}:
	default:
	}
}

// overdue reports whether the oldest parcel should long have been confirmed.
func (c *conn) overdue() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.pending) > 0 && !c.pending[0].at.IsZero() && time.Since(c.pending[0].at) > c.cfg.StallAfter
}

// Receive implements link.Conn.
func (c *conn) Receive(ctx context.Context, deliver func([]byte)) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { c.s.Fail(c.watch(ctx)) })
	return c.consume(ctx, deliver)
}

// consume hands over what arrives. It acknowledges when nothing more is there,
// or half of the prefetch is used up.
func (c *conn) consume(ctx context.Context, deliver func([]byte)) error {
	var last, acked uint64
	for {
		var d amqp.Delivery
		var ok bool
		select {
		case d, ok = <-c.deliveries:
		default:
			if last > acked {
				if err := c.subChannel.Ack(last, true); err != nil {
					return err
				}
				acked = last
			}
			select {
			case d, ok = <-c.deliveries:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		if !ok {
			select {
			case err := <-c.subEnd:
				return reason(err)
			default:
				return errCancelled
			}
		}
		deliver(d.Body)
		if last = d.DeliveryTag; last-acked >= prefetch/2 {
			if err := c.subChannel.Ack(last, true); err != nil {
				return err
			}
			acked = last
		}
	}
}

// watch takes what the broker says about what we publish, at once, for the
// client library waits for it. It returns why the session must end.
func (c *conn) watch(ctx context.Context) error {
	tick := time.NewTicker(c.cfg.StallAfter / 4)
	defer tick.Stop()
	blocked := false
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case err := <-c.pubEnd:
			return reason(err)
		case answer, ok := <-c.confirms:
			if !ok {
				c.confirms = nil // pubEnd says why
				continue
			}
			c.settle(answer)
		case r, ok := <-c.returns:
			if !ok {
				c.returns = nil
				continue
			}
			c.s.Lost(r.RoutingKey, bus.LostUnroutable)
		case b, ok := <-c.blocks:
			switch {
			case !ok:
				c.blocks = nil
			case b.Active:
				blocked = true
				c.s.Blocked(fmt.Errorf("rabbit: the broker blocks publishers: %s", b.Reason))
			default:
				blocked = false
				c.touch()
				c.s.Blocked(nil)
			}
		case <-tick.C:
			if !blocked && c.overdue() {
				return errUnconfirmed
			}
		}
	}
}

// touch sets the clock of all that is unconfirmed back: while the broker was
// blocked it could not confirm.
func (c *conn) touch() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.pending {
		if !c.pending[i].at.IsZero() {
			c.pending[i].at = time.Now()
		}
	}
}

// reason makes an error of what NotifyClose says.
func reason(err *amqp.Error) error {
	if err == nil {
		return errClosed
	}
	return err
}

// Leave implements link.Conn.
func (c *conn) Leave(ctx context.Context) {
	for !c.within(0, 0) {
		select {
		case <-ctx.Done():
			return
		case <-c.answered:
		}
	}
	deadline, _ := ctx.Deadline()
	// An error says that the connection is gone already, which is as well.
	// The broker answers when the exclusive queue is gone.
	_ = c.sub.CloseDeadline(deadline)
	_ = c.pub.CloseDeadline(deadline)
}

// Close implements link.Conn. What is unconfirmed is lost, or may be.
func (c *conn) Close() {
	for _, p := range c.pending {
		c.s.Lost(p.to, bus.LostRefused)
	}
	c.pending = nil
	for range c.deliveries { // ends when the client library has let go
	}
	for range c.pubEnd {
	}
}
