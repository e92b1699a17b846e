package proxy

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"ssegate/auth"
)

// identifyWait bounds how long it may take to tell who somebody is: a ticket
// is looked up in the registry, a key set may have to be fetched.
const identifyWait = 2 * time.Second

// recogniseWait is the same where nobody has to be told: a key set that cannot
// be fetched is no reason to keep a backend's client waiting.
const recogniseWait = 250 * time.Millisecond

// credentials are what the request brings to tell who it is. rest is its query
// without them.
func (p *Proxy) credentials(x *exchange) (c auth.Credentials, rest string) {
	c = auth.Credentials{Authorization: x.header("Authorization"), APIKey: x.header("X-Api-Key")}
	rest, c.Query, c.Ticket = p.cfg.Auth.SplitQuery(x.query)
	if name := p.cfg.Auth.CookieName(); name != "" {
		c.Cookie = x.cookie(name)
	}
	return c, rest
}

// setQuery replaces the query, byte for byte.
func (x *exchange) setQuery(query string) {
	x.query, x.uri = query, x.path
	if query != "" {
		x.uri += "?" + query
	}
}

// identify tells who sends a request to one of our own paths, or to a route
// that asks. Without [auth] that is anyone. It has answered where the result
// is nil. Tokens and tickets are taken out of the query first, so that nobody
// logs or forwards them.
func (p *Proxy) identify(x *exchange) *auth.Identity {
	if p.cfg.Auth == nil {
		return auth.Anyone()
	}
	c, rest := p.credentials(x)
	if rest != x.query {
		x.setQuery(rest)
	}
	ctx, cancel := context.WithTimeout(p.ctx, identifyWait)
	defer cancel()
	id, err := p.cfg.Auth.Identify(ctx, c)
	if err != nil {
		p.unidentified(x, err)
		return nil
	}
	x.identity = id
	return id
}

// unidentified answers who did not say, or could not prove, who it is. It is a
// 401 to EventSource, too: it stops, and its page hears of it, since to come
// back with the same token would help nobody.
func (p *Proxy) unidentified(x *exchange, err error) {
	challenge := field{"Www-Authenticate", auth.Challenge(err)}
	bad, isBad := errors.AsType[*auth.BadError](err)
	switch {
	case isBad:
		p.failWith(x, http.StatusUnauthorized, "unauthorized", bad.Text, challenge)
	case errors.Is(err, auth.ErrNone):
		p.failWith(x, http.StatusUnauthorized, "unauthorized", "a token is needed: in Authorization, the configured cookie or the configured query parameter", challenge)
	default:
		p.refuse(x, "auth_unavailable", 2*time.Second)
	}
}

// recognise looks who sends a request that goes upstream. Where the route asks
// for it (auth = "require") it answers who is nobody. Else a token that can be
// verified here and now names whose the stream is, and any other is the
// backend's own business: it stays where it is. Tickets are not looked at
// there, since they are used up, and Redis would be waited for.
func (p *Proxy) recognise(x *exchange) (answered bool) {
	switch {
	case x.route.RequireAuth && x.isPreflight():
		return false // a browser shows no credentials when it asks what it may send
	case x.route.RequireAuth:
		x.ours = p.corsFields(x)
		if p.cfg.Auth == nil { // a reload brought it, with an [auth] that needs a restart
			p.unidentified(x, auth.ErrNone)
			return true
		}
		answered = p.identify(x) == nil
		x.ours = nil
		return answered
	case p.cfg.Auth == nil:
		return false
	}
	c, rest := p.credentials(x)
	ctx, cancel := context.WithTimeout(p.ctx, recogniseWait)
	defer cancel()
	try := func(c auth.Credentials) error {
		if c == (auth.Credentials{}) {
			return auth.ErrNone
		}
		id, err := p.cfg.Auth.Identify(ctx, c)
		if err == nil {
			x.identity = id
		}
		return err
	}
	if err := try(auth.Credentials{Authorization: c.Authorization, APIKey: c.APIKey}); !errors.Is(err, auth.ErrNone) {
		return false
	}
	if c.Query != "" && try(auth.Credentials{Query: c.Query}) == nil {
		if c.Ticket != "" { // the backend's own
			rest = strings.TrimPrefix(rest+"&", "&") + auth.TicketParam + "=" + url.QueryEscape(c.Ticket)
		}
		x.setQuery(rest)
		return false
	}
	_ = try(auth.Credentials{Cookie: c.Cookie})
	return false
}

// user is the verified name of the person who sends the request, "" for none.
func (x *exchange) user() string {
	if x.identity == nil {
		return ""
	}
	return x.identity.Subject
}
