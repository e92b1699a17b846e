package auth

import (
	"net/http"
	"net/url"
	"strings"
)

// Credentials is what a request brings to tell who it is, as it came: nothing
// in it is verified, and all of it is secret. Where there are several, the
// first of these that is not empty counts and the others are not looked at.
type Credentials struct {
	Authorization string // the header; only "Bearer …" is ours, others count as empty
	APIKey        string // the header X-Api-Key
	Ticket        string // the query parameter ticket
	Query         string // the query parameter of Config.QueryParam
	Cookie        string // the value of the cookie of Config.Cookie
}

// bearer is the token of the header Authorization, and whether there is one.
func (c Credentials) bearer() (string, bool) {
	scheme, token, ok := strings.Cut(strings.TrimSpace(c.Authorization), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", false
	}
	return strings.TrimSpace(token), ok
}

// TicketParam is the query parameter of a one-time ticket.
const TicketParam = "ticket"

// Credentials gathers what a request brings. Those who do not have a
// *http.Request take CookieName and SplitQuery.
func (a *Authenticator) Credentials(r *http.Request) Credentials {
	_, token, ticket := a.SplitQuery(r.URL.RawQuery)
	c := Credentials{
		Authorization: r.Header.Get("Authorization"), APIKey: r.Header.Get("X-Api-Key"),
		Ticket: ticket, Query: token,
	}
	if name := a.CookieName(); name != "" {
		if cookie, err := r.Cookie(name); err == nil {
			c.Cookie = cookie.Value
		}
	}
	return c
}

// CookieName is the cookie that may hold a token, "" for none.
func (a *Authenticator) CookieName() string { return a.now().cfg.Cookie }

// SplitQuery takes the token and the ticket out of a raw query, all of their
// occurrences however they are escaped; rest is the remainder byte for byte,
// which may be logged and sent upstream. Of several the first counts. Call it
// only where the request is authenticated by ssegate: elsewhere the parameters
// are the application's own.
func (a *Authenticator) SplitQuery(raw string) (rest, token, ticket string) {
	param := a.now().cfg.QueryParam
	if !mayHave(raw, param) {
		return raw, "", ""
	}
	var out strings.Builder
	first := true
	for part := range strings.SplitSeq(raw, "&") {
		k, v, _ := strings.Cut(part, "=")
		name, value := unescape(k), unescape(v)
		switch {
		case name == TicketParam:
			if ticket == "" {
				ticket = value
			}
		case param != "" && name == param:
			if token == "" {
				token = value
			}
		default:
			if !first {
				out.WriteByte('&')
			}
			out.WriteString(part)
			first = false
		}
	}
	return out.String(), token, ticket
}

// mayHave reports whether it is worth looking closer: most queries have
// neither parameter and no escape that could hide one.
func mayHave(raw, param string) bool {
	return strings.Contains(raw, TicketParam) || param != "" && strings.Contains(raw, param) || strings.ContainsAny(raw, "%+")
}

// unescape reads a part of a query; what is not well escaped stays as it is.
func unescape(s string) string {
	if u, err := url.QueryUnescape(s); err == nil {
		return u
	}
	return s
}
