package push

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"ssegate/auth"
)

// How long tickets live.
const (
	defaultTicket = time.Minute
	maxTicket     = time.Hour
)

// ticket is POST /api/v1/tickets: a one-time ticket for the caller, to open an
// EventSource with, which can send no headers. {"ttl": 60} says for how many
// seconds it can be used; a service says for whom it is: {"user_id": "u1"}.
func (c *call) ticket() {
	if c.cfg.Tickets == nil {
		c.refuse(&refusal{status: http.StatusNotFound, reason: "not_found", detail: "there are no tickets where nobody has to say who they are"})
		return
	}
	who := c.who
	if who.Ticket { // it may be for somebody else's name, so Issue would not know
		c.refuse(&refusal{status: http.StatusForbidden, reason: "forbidden",
			detail: "a ticket is for following, and makes no other ticket: ask with a token or a key, in Authorization or X-Api-Key"})
		return
	}
	ttl, user, bad := c.readTicket()
	if bad == nil && user != "" && user != who.Subject {
		if topic := User.topic(user); !who.Admin && !who.MayPublish(topic) {
			bad = forbidden("user_id", "is somebody for whom you may not ask")
		}
		who = &auth.Identity{Subject: user, Expires: who.Expires}
	}
	if bad == nil {
		bad = c.spend(1)
	}
	if bad != nil {
		c.refuse(bad)
		return
	}
	if !who.Expires.IsZero() { // it ends with the token, and says so
		ttl = min(ttl, time.Until(who.Expires).Truncate(time.Second))
	}
	if ttl < time.Second {
		c.refuse(&refusal{status: http.StatusUnauthorized, reason: "token_expired", challenge: auth.Challenge(nil),
			detail: "the token ends within a second, and a ticket of it would: ask with a new one"})
		return
	}
	ctx, cancel := c.within()
	defer cancel()
	ticket, err := c.cfg.Tickets.Issue(ctx, who, ttl)
	switch {
	case errors.Is(err, auth.ErrUnavailable):
		c.refuse(unavailable("tickets cannot be kept now"))
		return
	case err != nil:
		c.refuse(badRequest("no_ticket", "no ticket can be given to you"))
		return
	}
	c.answer(http.StatusOK, struct {
		Ticket  string `json:"ticket"`
		Param   string `json:"param"`      // of the address to open
		Expires int    `json:"expires_in"` // seconds
	}{ticket, auth.TicketParam, int(ttl / time.Second)})
}

func (c *call) readTicket() (ttl time.Duration, user string, bad *refusal) {
	ttl = defaultTicket
	if c.r.ContentLength == 0 {
		return ttl, "", nil
	}
	w, bad := c.json()
	if bad != nil {
		return 0, "", bad
	}
	defer w.free()
	s := &w.scan
	r := reader{s: s}
	var seconds, name span
	if s.space() != '{' {
		if v := s.value(); s.err == nil {
			r.wrong("ticket", "is "+v.sort()+`, want an object: {"ttl": 60}`)
		}
	} else {
		for s.open('{'); ; {
			member, ok := r.name()
			if !ok {
				break
			}
			switch v := s.value(); {
			case v.kind == 'n':
			case string(member) == "ttl":
				seconds = v
			case string(member) == "user_id":
				name = v
			}
		}
	}
	if bad := w.syntax(); bad != nil {
		return 0, "", bad
	}
	if n, ok := r.number("ttl", seconds, int64(maxTicket/time.Second), "a whole number of seconds"); ok {
		if n == 0 {
			r.wrong("ttl", "is 0, want 1 to "+strconv.Itoa(int(maxTicket/time.Second)))
		}
		ttl = time.Duration(n) * time.Second
	}
	user, _ = r.nameOf("user_id", name)
	if r.p.any() {
		return 0, "", invalid(&r.p)
	}
	return ttl, user, nil
}
