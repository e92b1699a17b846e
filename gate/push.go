package gate

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"time"

	"go.uber.org/zap"

	"ssegate/auth"
	"ssegate/proxy"
	"ssegate/push"
)

// openPush makes the push API, and puts push on the public listener. Without
// [push] there is neither.
func (g *Gate) openPush(cfg Config) error {
	if !cfg.Push.On {
		return nil
	}
	c := push.Config{
		Cluster: g.node, Log: g.drivers.journal, Registry: g.drivers.registry,
		Hosts: cfg.Push.Hosts, Origins: g.proxy.TrustsOrigin,
		Gone: cfg.Cluster.Heartbeat + 2*cfg.Cluster.CheckEvery, // who lives has said so by then
		Report: func(what string, err error) {
			if !g.killed.Load() {
				g.log.Warn(what, zap.Error(err))
			}
		},
		Options: pushOptions(cfg),
	}
	if g.auth != nil {
		c.Identify, c.Tickets = identified, g.auth
	}
	api, err := push.New(c)
	if err != nil {
		return err
	}
	g.push = api
	g.proxy.SetPush(g.pushServing(cfg))
	return nil
}

// pushServing is how push is served on the public listener.
func (g *Gate) pushServing(cfg Config) *proxy.PushConfig {
	c := cfg.Push
	out := &proxy.PushConfig{
		MaxTopics: cfg.Limits.TopicsPerConnection,
		Route: proxy.Route{
			Heartbeat: c.Heartbeat, HeartbeatStyle: heartbeatStyle(c.HeartbeatStyle), HeartbeatData: c.HeartbeatData,
			Retry: c.Retry, RetryToAll: c.RetryToAll, CutSlow: c.Slow == "cut", CutGap: c.Gap == "cut",
			LogLength: c.Length, LogTTL: c.TTL, RingEvents: c.RingEvents, RingBytes: int(c.RingBytes),
			WriteTimeout: c.WriteTimeout, MaxAge: c.MaxAge, EventSize: int(cfg.Limits.EventSize),
		},
	}
	if c.Public && g.auth != nil { // an [auth] that came by a reload asks nobody yet
		out.API = g.push
	}
	return out
}

func heartbeatStyle(name string) proxy.HeartbeatStyle {
	return map[string]proxy.HeartbeatStyle{
		"line": proxy.HeartbeatLine, "comment": proxy.HeartbeatComment, "event": proxy.HeartbeatEvent, "off": proxy.HeartbeatOff,
	}[name]
}

// pushOptions is what the API is to know of the configuration.
func pushOptions(cfg Config) push.Options {
	c := cfg.Push
	return push.Options{
		PayloadData: c.Payload == "data", Unnamed: c.Events == "unnamed", Types: c.Types,
		TTL: c.TTL, Length: c.Length, MaxTTL: c.MaxTTL,
		EventSize: int(cfg.Limits.EventSize), BodySize: int(c.Body), Batch: c.Batch, Targets: c.Fanout,
		Rate: cfg.Limits.MessagesPerPrincipal, Wait: c.Wait, Idle: c.Idle,
		ReceiptTTL: c.ReceiptTTL, Alone: cfg.Cluster.Redis == "",
		Webhook: push.Webhook{
			URL: string(c.Webhook), After: c.WebhookAfter, Secret: string(c.WebhookSecret),
			Attempts: c.WebhookAttempts, Retry: c.WebhookRetry, Timeout: c.WebhookTimeout,
		},
	}
}

// corsRules is [cors] as the proxy has it.
func corsRules(c CORS) proxy.CORS {
	return proxy.CORS{Origins: c.Origins, Credentials: c.Credentials, Headers: c.Headers, MaxAge: c.MaxAge}
}

// identity is who sends a request to the internal listener, or why that is not
// known. It is found out once, for the limits and for the API.
type identity struct {
	id  *auth.Identity
	err error
}

type identityKey struct{}

// identifyWait bounds how long it may take to tell who somebody is.
const identifyWait = 2 * time.Second

// identified is what pushAPI found out.
func identified(r *http.Request) (*auth.Identity, error) {
	found, ok := r.Context().Value(identityKey{}).(identity)
	if !ok {
		return nil, auth.ErrNone
	}
	return found.id, found.err
}

// pushAPI is the push API on the internal listener.
func (g *Gate) pushAPI() http.Handler {
	limited := g.proxy.LimitPrincipals(g.push, func(r *http.Request) string {
		who, _ := identified(r)
		return who.Principal()
	})
	if g.auth == nil {
		return limited
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), identifyWait)
		id, err := g.auth.Identify(ctx, g.auth.Credentials(r))
		cancel()
		limited.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), identityKey{}, identity{id, err})))
	})
}

// registerPush names what push and auth count, where there are any.
func (g *Gate) registerPush() {
	value := func(name string, f func() uint64) {
		g.metrics.NewGauge(name, func() float64 { return float64(f()) })
	}
	if g.auth != nil {
		value("ssegate_auth_accepted_total", func() uint64 { return g.auth.Stats().Accepted })
		value("ssegate_auth_keys_fetched", func() uint64 { return uint64(g.auth.Stats().JWKSKeys) })
		for _, why := range auth.Reasons {
			value(fmt.Sprintf("ssegate_auth_refused_total{reason=%q}", string(why)), func() uint64 { return g.auth.Stats().Refused[why] })
		}
	}
	if g.push == nil {
		return
	}
	cl := func(name string, f func(s clusterStats) uint64) {
		value(name, func() uint64 { return f(g.node.Stats()) })
	}
	cl("ssegate_topics", func(s clusterStats) uint64 { return uint64(s.Topics) })
	cl("ssegate_subscriptions", func(s clusterStats) uint64 { return uint64(s.Subscriptions) })
	cl("ssegate_published_total", func(s clusterStats) uint64 { return s.Published })
	cl(`ssegate_errors_total{what="publish"}`, func(s clusterStats) uint64 { return s.PublishErrors })
	cl("ssegate_topic_holes_total", func(s clusterStats) uint64 { return s.Holes })
	cl("ssegate_topics_renumbered_total", func(s clusterStats) uint64 { return s.Renumbered })
	cl("ssegate_topic_frames_unsent_total", func(s clusterStats) uint64 { return s.WireDropped })
	cl("ssegate_topic_parcels_missed_total", func(s clusterStats) uint64 { return s.ParcelsMissed })
	api := func(name string, f func(s push.Stats) uint64) {
		value(name, func() uint64 { return f(g.push.Stats()) })
	}
	api("ssegate_push_messages_total", func(s push.Stats) uint64 { return s.Messages })
	api(`ssegate_push_targets_total{result="delivered"}`, func(s push.Stats) uint64 { return s.Delivered })
	api(`ssegate_push_targets_total{result="stored"}`, func(s push.Stats) uint64 { return s.Stored })
	api(`ssegate_push_targets_total{result="repeated"}`, func(s push.Stats) uint64 { return s.Repeated })
	api(`ssegate_push_targets_total{result="failed"}`, func(s push.Stats) uint64 { return s.Failed })
	api("ssegate_push_streams_total", func(s push.Stats) uint64 { return s.Streams })
	api("ssegate_push_streams_cut_total", func(s push.Stats) uint64 { return s.CutShort })
	api("ssegate_push_cuts_lost_total", func(s push.Stats) uint64 { return s.CutsLost })
	api("ssegate_push_stream_events_total", func(s push.Stats) uint64 { return s.Events })
	api("ssegate_push_stream_bytes_total", func(s push.Stats) uint64 { return s.Bytes })
	api(`ssegate_webhook_total{result="told"}`, func(s push.Stats) uint64 { return s.WebhookDone })
	api(`ssegate_webhook_total{result="not_needed"}`, func(s push.Stats) uint64 { return s.WebhookGot })
	api(`ssegate_webhook_total{result="retried"}`, func(s push.Stats) uint64 { return s.WebhookRetried })
	api(`ssegate_webhook_total{result="given_up"}`, func(s push.Stats) uint64 { return s.WebhookFailed })
	api("ssegate_receipts_lost_total", func(s push.Stats) uint64 { return s.ReceiptsLost })
}

// writePushRefused writes how often the API has refused something; its reasons
// are known once they occur.
func (g *Gate) writePushRefused(w io.Writer) {
	if g.push == nil {
		return
	}
	refused := g.push.Stats().Refused
	for _, why := range slices.Sorted(maps.Keys(refused)) {
		fmt.Fprintf(w, "ssegate_push_refused_total{reason=%q} %d\n", why, refused[why])
	}
}
