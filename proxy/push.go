package proxy

import (
	"net/http"
)

// PushConfig says how the paths of push are served on the public listener. It
// is not changed once it was handed over.
type PushConfig struct {
	// Route says how connections that follow topics are served, in the words
	// of a route: Heartbeat, HeartbeatStyle, HeartbeatData, Retry, RetryToAll,
	// WriteTimeout, MaxAge, CutGap, CutSlow, RingEvents, RingBytes, LogTTL.
	// BodySize bounds the bodies of the API.
	Route Route
	// MaxTopics is how many topics one connection may follow; 0: 32.
	MaxTopics int
	// API is the push API; nil: it is not on this listener.
	API http.Handler
}

// apiPaths are where the push API lies. Not all below /api: that is a likely
// place of a backend's own.
var apiPaths = []string{
	"/api/v1/messages", "/api/v1/streams", "/api/v1/connections", "/api/v1/tickets",
	"/api/sse/send", "/api/sse/status", "/api/sse/close",
}

// pushPath is what one of our own paths is for.
type pushPath uint8

const (
	followUser    pushPath = iota + 1 // /sse/user/{id}, /api/sse/connect/{id}
	followChannel                     // /sse/stream/{channel}[,{channel}…]
	followService                     // /sse/service/{name}
	acknowledge                       // POST /sse/ack
	callAPI                           // the push API
)

// SetPush switches push on, or with nil off. It holds for requests that come
// from now on; who is connected stays.
func (p *Proxy) SetPush(c *PushConfig) {
	p.swap.Lock()
	defer p.swap.Unlock()
	p.push.Store(c)
	p.own = nil
	if c != nil {
		p.own = c.routes()
	}
	p.table.Store(p.given.with(p.own))
}

// routes are the paths of push: routes like others, so that a longer one that
// is configured wins, and one of the same length too.
func (c *PushConfig) routes() (out []*Route) {
	add := func(path string, serve pushPath) {
		r := c.Route
		r.Name, r.Path, r.serve = "push "+path, path, serve
		out = append(out, &r)
	}
	add("/sse/user", followUser)
	add("/sse/stream", followChannel)
	add("/sse/service", followService)
	add("/sse/ack", acknowledge)
	add("/api/sse/connect", followUser)
	if c.API != nil {
		for _, path := range apiPaths {
			add(path, callAPI)
		}
	}
	return out
}
