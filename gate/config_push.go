package gate

import (
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Push is the table [push]: topics that services publish to and clients
// follow. Without the table there are none.
type Push struct {
	On     bool     `toml:"-" present:"push" reload:"restart"`
	Public bool     `toml:"public"`                 // the API is on the public listener too; needs [auth]
	Open   bool     `toml:"open"`                   // without [auth] others than this machine may come
	Hosts  []string `toml:"hosts" reload:"restart"` // names under which the API may be called where there is no [auth]

	Payload string   `toml:"payload" oneof:"envelope,data"` // what an event's data is
	Events  string   `toml:"events" oneof:"typed,unnamed"`  // whether type becomes the event's name
	Types   []string `toml:"types"`                         // allowed beside the known ones

	Length int           `toml:"length" min:"1"`     // messages that a topic's log keeps
	TTL    time.Duration `toml:"ttl" min:"1s"`       // after the last message
	MaxTTL time.Duration `toml:"max_ttl" min:"1s"`   // that a message may ask for
	Wait   time.Duration `toml:"wait" min:"10ms"`    // for the log to take a message
	Batch  int           `toml:"batch" min:"1"`      // messages of one request
	Fanout int           `toml:"fan_out" min:"1"`    // targets of one stream
	Body   Size          `toml:"body_size" min:"1"`  // of one request, streams excepted
	Idle   time.Duration `toml:"idle" min:"0 or 1s"` // silence that cuts a publisher's stream; 0 = never

	ReceiptTTL      time.Duration `toml:"receipt_ttl" min:"1s"`
	Webhook         SecretText    `toml:"webhook"`                // told of messages that nobody got; "" = none. Paths of such addresses are secrets often enough
	WebhookAfter    time.Duration `toml:"webhook_after" min:"1s"` // how long somebody may take to come
	WebhookSecret   SecretText    `toml:"webhook_secret"`         // signs what is sent; "" = not signed
	WebhookTimeout  time.Duration `toml:"webhook_timeout" min:"1ms"`
	WebhookAttempts int           `toml:"webhook_attempts" min:"1"`
	WebhookRetry    time.Duration `toml:"webhook_retry" min:"1ms"` // after the first attempt; each pause is twice the last

	Heartbeat      time.Duration `toml:"heartbeat" min:"10ms"`
	HeartbeatStyle string        `toml:"heartbeat_style" oneof:"line,comment,event,off"`
	HeartbeatData  string        `toml:"heartbeat_data"`
	Retry          time.Duration `toml:"retry" min:"0 or 1ms"`
	RetryToAll     bool          `toml:"retry_to_all"`
	Slow           string        `toml:"slow" oneof:"log,cut"`
	Gap            string        `toml:"gap" oneof:"say,cut"`
	RingEvents     int           `toml:"ring_events" min:"1"`
	RingBytes      Size          `toml:"ring_bytes" min:"1KiB"`
	WriteTimeout   time.Duration `toml:"write_timeout" min:"0 or 10ms"`
	MaxAge         time.Duration `toml:"max_age" min:"0 or 1s"`
}

// CORS is the table [cors]: which pages of other origins may use the paths
// that ssegate itself answers. What a backend says is never touched.
type CORS struct {
	Origins     []string      `toml:"origins"` // "https://app.example.com", "https://*.example.com", "*"
	Credentials bool          `toml:"credentials"`
	Headers     []string      `toml:"headers"`               // that pages may send; empty = those that ssegate reads, "*" = any
	MaxAge      time.Duration `toml:"max_age" min:"0 or 1s"` // of a preflight's answer; 0 = as the browser likes
}

func defaultPush() Push {
	r := DefaultRoute() // who follows a topic is served like who follows an answer
	return Push{
		Payload: "envelope", Events: "typed",
		Length: 10_000, TTL: time.Hour, MaxTTL: 24 * time.Hour,
		Wait: 5 * time.Second, Batch: 1000, Fanout: 100, Body: 8 * MiB,
		ReceiptTTL:   10 * time.Minute,
		WebhookAfter: 30 * time.Second, WebhookTimeout: 10 * time.Second, WebhookAttempts: 8, WebhookRetry: 5 * time.Second,
		Heartbeat: r.Heartbeat, HeartbeatStyle: r.HeartbeatStyle, HeartbeatData: r.HeartbeatData,
		Retry: r.Retry, Slow: r.Slow, Gap: r.Gap, RingEvents: r.RingEvents, RingBytes: r.RingBytes, WriteTimeout: r.WriteTimeout,
	}
}

func (l *loader) checkPush(cfg *Config) {
	p := &cfg.Push
	if !p.On {
		return
	}
	l.checkWhoMayPush(cfg)
	for i, h := range p.Hosts {
		if lower := strings.ToLower(h); goodHost.MatchString(lower) && !strings.HasPrefix(lower, "*") {
			p.Hosts[i] = lower
		} else {
			l.problem(item("push.hosts", i+1), "%s is no host: write a name without scheme and port, such as \"push.internal\"", shown(h))
		}
	}
	for i, t := range p.Types {
		at := item("push.types", i+1)
		switch {
		case t == "" || len(t) > 64 || strings.ContainsFunc(t, func(c rune) bool { return c <= ' ' || c == 0x7f }):
			l.problem(at, "%s is no type: write up to 64 letters, without spaces and control characters", shown(t))
		case strings.HasPrefix(t, "ssegate."):
			l.problem(at, "%s begins as ssegate's own events do: choose another name", shown(t))
		}
	}
	idle := func(name string, is bool, why string) { l.idle(*p, Default().Push, "push", name, is, why) }
	idle("hosts", cfg.Auth.On, "beside [auth]")
	l.checkWebhook(p)
	for _, name := range []string{"webhook_after", "webhook_secret", "webhook_timeout", "webhook_attempts", "webhook_retry"} {
		idle(name, p.Webhook == "", "without webhook")
	}

	silent := p.HeartbeatStyle == "off"
	if p.Heartbeat == 0 && !silent {
		l.problem("push.heartbeat", "0 is no pace: write heartbeat_style = \"off\" if none are wanted")
	}
	if p.Heartbeat > time.Minute && !silent {
		l.notice("push.heartbeat", "%s is long: many proxies and load balancers cut a connection that is silent for 60s", brief(p.Heartbeat))
	}
	idle("heartbeat", silent, `with heartbeat_style = "off"`)
	idle("heartbeat_data", p.HeartbeatStyle != "event", fmt.Sprintf("with heartbeat_style = %q", p.HeartbeatStyle))
	idle("retry_to_all", p.Retry == 0, "with retry = 0")
	l.checkRing("push", "length", cfg, p.RingEvents, p.RingBytes, p.Length)
}

// checkWhoMayPush refuses listeners on which strangers could follow and
// publish without saying who they are.
func (l *loader) checkWhoMayPush(cfg *Config) {
	p := &cfg.Push
	switch {
	case cfg.Auth.On:
		l.idle(*p, Default().Push, "push", "open", true, "beside [auth]")
		return
	case p.Public:
		l.problem("push.public", "needs [auth]: whoever reaches listen.public could publish to every user")
	}
	if p.Open {
		l.notice("push.open", "whoever reaches the listeners may follow every user's messages, since there is no [auth]")
		return
	}
	if host, _, err := net.SplitHostPort(cfg.Listen.Public); err == nil && !loopback(host) {
		l.problem("push.open", "listen.public (%s) can be reached from other machines, and without [auth] whoever reaches it may follow every user's messages: add [auth], or write open = true if that is meant", shown(cfg.Listen.Public))
	}
}

// checkWebhook never quotes the address: a token may be in it.
func (l *loader) checkWebhook(p *Push) {
	if p.Webhook == "" || l.bad["push.webhook"] {
		return
	}
	u, err := url.Parse(string(p.Webhook))
	switch {
	case err != nil || u.Fragment != "" || strings.ContainsAny(string(p.Webhook), " \t\r\n"):
		l.problem("push.webhook", "cannot be read as a URL: write it as https://host/path")
	case u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || !goodPort(u.Port()):
		l.problem("push.webhook", "is no address: write it as https://host/path")
	}
}

func (l *loader) checkCORS(c *CORS) {
	any := slices.Contains(c.Origins, "*")
	for i, o := range c.Origins {
		at := item("cors.origins", i+1)
		if o == "*" || o == "null" {
			continue
		}
		scheme, host, _ := strings.Cut(strings.ToLower(o), "://")
		name := strings.TrimPrefix(host, "*.")
		u, err := url.Parse(scheme + "://" + name)
		switch {
		case err != nil || scheme != "http" && scheme != "https" || u.Hostname() == "" || u.User != nil || !goodPort(u.Port()) || strings.ContainsAny(name, "* \t\r\n"):
			l.problem(at, "%s is no origin: write \"https://app.example.com\", \"https://*.example.com\" for all sub-domains, or \"*\" for all", shown(o))
		case u.Host != name:
			l.problem(at, "%s has something after the host, which no origin has: write \"%s://%s\"", shown(o), scheme, strings.TrimSuffix(host, strings.TrimPrefix(name, u.Host)))
		default:
			c.Origins[i] = scheme + "://" + host
		}
	}
	if any && len(c.Origins) > 1 && !c.Credentials {
		l.notice("cors.origins", "\"*\" lets all origins in, the others need not be named")
	}
	if c.Credentials && any {
		l.problem("cors.credentials", "not with \"*\" among the origins: any page at all could then act in its visitor's name. Name the origins, such as [\"https://app.example.com\"]")
	}
	for i, h := range c.Headers {
		if !goodToken.MatchString(h) {
			l.problem(item("cors.headers", i+1), "%s is no header's name", shown(h))
		}
	}
	for _, name := range []string{"credentials", "headers", "max_age"} {
		l.idle(*c, Default().CORS, "cors", name, len(c.Origins) == 0 && !l.bad["cors.origins"], "without origins")
	}
}
