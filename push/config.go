package push

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strings"
	"time"

	"ssegate/auth"
	"ssegate/cluster"
	"ssegate/reconnect"
	"ssegate/registry"
	"ssegate/sse"
)

// Cluster is what the API needs of a *cluster.Node.
type Cluster interface {
	Publish(ctx context.Context, posts []cluster.Outgoing) []cluster.Receipt
	Kick(ctx context.Context, connection string) error
	Written(ctx context.Context, t cluster.Topic, pos sse.Pos, meta []byte) cluster.Delivery
	Peers() map[string]registry.Node
	Subscriptions() iter.Seq[*cluster.Subscription]
	ID() string
}

// Log is what it needs of a reconnect.Journal.
type Log interface {
	Read(ctx context.Context, stream sse.StreamID, after sse.Pos, max int) ([]sse.Frame, error)
	Find(ctx context.Context, stream sse.StreamID, id []byte) (sse.Pos, error)
	Passed(ctx context.Context, stream sse.StreamID) (sse.Pos, error)
}

// Registry is what it needs of a registry.Registry.
type Registry interface {
	Conns(ctx context.Context) ([]registry.Connection, error)
	registry.Notes
	registry.Gathering
	registry.Due
}

// Tickets is what it needs of an *auth.Authenticator to give tickets away.
type Tickets interface {
	Issue(ctx context.Context, id *auth.Identity, ttl time.Duration) (ticket string, err error)
}

// Config is what an API is made of. Cluster, Log and Registry are needed.
type Config struct {
	Cluster  Cluster
	Log      Log
	Registry Registry

	// Identify tells who a request comes from, with the errors of
	// auth.Authenticator.Identify. An identity that the request's context
	// bears already (auth.NewContext) is taken as it is. nil: there is no
	// [auth]; everybody may do everything, provided that it is no page in a
	// browser: see Hosts.
	Identify func(r *http.Request) (*auth.Identity, error)
	// Tickets gives one-time tickets away; nil: there are none.
	Tickets Tickets
	// Hosts are the names, without ports, under which this API may be called
	// where there is no [auth]; localhost and addresses always may. A page
	// whose own name was made to lead here has another one.
	Hosts []string
	// Origins tells whether pages of an origin ("https://app.example") may
	// call with the cookies of their users; nil: only those of the same host.
	Origins func(origin string) bool
	// Report is told what an operator should read: a webhook that nobody
	// answers, an item that is no webhook's. It may be called concurrently
	// and must not block. nil: nothing is told.
	Report func(what string, err error)
	// Gone is how long after API.Gone a node that is not back counts as dead;
	// longer than a node that lives needs to say so. Default 5s.
	Gone time.Duration

	Options Options
}

// Options are what a reload may change. The zero value of a field stands for
// its default.
type Options struct {
	// PayloadData sends the member data alone rather than the envelope.
	PayloadData bool
	// Unnamed gives events no name, so that onmessage sees every one.
	Unnamed bool
	// Types are allowed beside those that every API knows.
	Types []string

	TTL    time.Duration // of a topic's log; default 1h
	Length int           // messages that a topic's log keeps; default 10 000
	MaxTTL time.Duration // that a message may ask for; default 24h

	EventSize int // bytes of one event; default 1 MiB
	BodySize  int // bytes of one request, streams excepted; default 8 MiB
	Batch     int // messages of one request, and its targets; default 1 000
	Targets   int // that one stream may have; default 100

	// Rate is how many messages a publisher may send in a second, and Burst
	// how many at once (default: Rate, Batch at the least). 0: no limit.
	Rate, Burst int

	// Wait bounds how long a request waits, once its body is there, for log,
	// registry and other nodes together; default 5s.
	Wait time.Duration
	// Idle is how long a stream may be silent before it counts as cut; 0: for
	// ever. The listener must support read deadlines.
	Idle time.Duration

	// ReceiptTTL is how long receipts can be asked for; default 10m.
	ReceiptTTL time.Duration
	// Alone says that there are no other nodes: receipts need not be kept
	// where others find them.
	Alone bool

	Webhook Webhook
}

// Webhook says who is told of messages for users that nobody got.
type Webhook struct {
	URL string // http or https; "": nobody is told
	// After is how long a message may wait for somebody; default 30s.
	After time.Duration
	// Secret signs what is sent; "": it is not signed.
	Secret string
	// Attempts is how often one message is tried; default 8. Retry is how long
	// after the first attempt the second comes; each pause is twice the last.
	// Default 5s.
	Attempts int
	Retry    time.Duration
	// Timeout bounds one attempt; default 10s.
	Timeout time.Duration
}

// withDefaults returns o with its defaults, or all that is wrong with it.
func (o Options) withDefaults() (Options, error) {
	o.TTL = cmp.Or(o.TTL, time.Hour)
	o.Length = cmp.Or(o.Length, 10_000)
	o.MaxTTL = cmp.Or(o.MaxTTL, 24*time.Hour)
	o.EventSize = cmp.Or(o.EventSize, 1<<20)
	o.BodySize = cmp.Or(o.BodySize, 8<<20)
	o.Batch = cmp.Or(o.Batch, 1000)
	o.Targets = cmp.Or(o.Targets, 100)
	o.Burst = cmp.Or(o.Burst, max(o.Rate, o.Batch))
	o.Wait = cmp.Or(o.Wait, 5*time.Second)
	o.ReceiptTTL = cmp.Or(o.ReceiptTTL, 10*time.Minute)
	w := &o.Webhook
	w.After = cmp.Or(w.After, 30*time.Second)
	w.Attempts = cmp.Or(w.Attempts, 8)
	w.Retry = cmp.Or(w.Retry, 5*time.Second)
	w.Timeout = cmp.Or(w.Timeout, 10*time.Second)

	var errs []error
	for _, t := range o.Types {
		if wrong := wrongType(t); wrong != "" {
			errs = append(errs, fmt.Errorf("push: type %q %s", t, wrong))
		}
	}
	if w.URL != "" {
		u, err := url.Parse(w.URL)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			errs = append(errs, errors.New("push: webhook is no http or https address"))
		}
	}
	for name, n := range map[string]int64{
		"TTL": int64(o.TTL), "Length": int64(o.Length), "MaxTTL": int64(o.MaxTTL), "EventSize": int64(o.EventSize), "BodySize": int64(o.BodySize),
		"Batch": int64(o.Batch), "Targets": int64(o.Targets), "Wait": int64(o.Wait), "ReceiptTTL": int64(o.ReceiptTTL), "Burst": int64(o.Burst),
		"Webhook.After": int64(w.After), "Webhook.Attempts": int64(w.Attempts), "Webhook.Retry": int64(w.Retry), "Webhook.Timeout": int64(w.Timeout),
	} {
		if n < 0 {
			errs = append(errs, fmt.Errorf("push: %s is negative", name))
		}
	}
	if o.Rate < 0 || o.Idle < 0 {
		errs = append(errs, errors.New("push: Rate or Idle is negative"))
	}
	return o, errors.Join(errs...)
}

// wrongType says why a text cannot be a message's type.
func wrongType(t string) string {
	switch {
	case !sse.ValidName([]byte(t)):
		return errName.Error()
	case strings.HasPrefix(t, ours):
		return "begins with " + ours + ", as only events of ssegate do"
	}
	return wrongName(t)
}

// ours begins the names of ssegate's own events.
const ours = "ssegate."

// limits are those of the log of a topic that gets a message with this ttl.
func (o *Options) limits(ttl time.Duration) reconnect.Limits {
	return reconnect.Limits{Length: o.Length, TTL: max(o.TTL, ttl)}
}
