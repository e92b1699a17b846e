package push

import (
	"net/http"
)

// answered is what the API says of one message.
type answered struct {
	Index   *int      `json:"index,omitempty"` // in a batch
	ID      string    `json:"id,omitempty"`
	Status  string    `json:"status"`
	Targets []result  `json:"targets,omitempty"`
	Reason  string    `json:"reason,omitempty"`
	Detail  string    `json:"detail,omitempty"`
	Fields  []Problem `json:"fields,omitempty"`
}

func (s *sending) answer() answered {
	return answered{ID: s.m.id, Status: s.best(), Targets: s.results}
}

// message reads the one message that a body is.
func (c *call) message() (m message, bad *refusal) {
	w, bad := c.json()
	if bad != nil {
		return m, bad
	}
	defer w.free()
	r := reader{s: &w.scan, style: &c.opt.style}
	m = r.message()
	if bad := w.syntax(); bad != nil {
		return m, bad
	}
	if r.big {
		return m, tooLargeEvent(&r.p)
	}
	if r.p.any() {
		return m, invalid(&r.p)
	}
	return m, nil
}

// tooLargeEvent is invalid for the one mistake that has a status of its own.
func tooLargeEvent(p *problems) *refusal {
	f := invalid(p)
	f.status, f.reason = http.StatusRequestEntityTooLarge, "too_large"
	return f
}

// needTarget is the answer to a message that goes nowhere.
func needTarget(field string) *refusal {
	var p problems
	p.add(field, "names nobody: it needs user_id, channel, service, connection_id, session_id, kb_id or task_id")
	return invalid(&p)
}

// send is POST /api/v1/messages/send.
func (c *call) send() {
	m, bad := c.message()
	if bad == nil && m.named == 0 {
		bad = needTarget("target")
	}
	if bad == nil {
		bad = c.may("target", m.at[:m.named])
	}
	if bad == nil {
		bad = c.spend(1)
	}
	if bad != nil {
		c.refuse(bad)
		return
	}
	c.sendOne(&m)
}

// sendOne sends a message that may be sent, and answers.
func (c *call) sendOne(m *message) {
	r := c.round(m.n)
	s := []sending{r.add(m)}
	r.run(s)
	if bad := s[0].failed(); bad != nil {
		bad.more = s[0].answer()
		c.refuse(bad)
		return
	}
	c.answer(http.StatusOK, s[0].answer())
}

// sendTo is POST /api/sse/send: {"userId": "u1", "message": any, "event": "…"}.
// The event's data is the message itself: a text as it is, anything else as
// JSON. An id and a ttl, if they are there, count as those of a message.
func (c *call) sendTo() {
	w, bad := c.json()
	if bad != nil {
		c.refuse(bad)
		return
	}
	defer w.free()
	m, bad := c.readSendTo(w)
	if bad == nil {
		bad = c.may("userId", m.places())
	}
	if bad == nil {
		bad = c.spend(1)
	}
	if bad != nil {
		c.refuse(bad)
		return
	}
	c.sendOne(&m)
}

func (c *call) readSendTo(w *work) (m message, bad *refusal) {
	s := &w.scan
	r := reader{s: s, style: &c.opt.style}
	var user, msg, event, id, ttl span
	if s.space() != '{' {
		if v := s.value(); s.err == nil {
			r.wrong("", "is "+v.sort()+`, want an object: {"userId": "…", "message": …}`)
		}
	} else {
		for s.open('{'); ; {
			name, ok := r.name()
			if !ok {
				break
			}
			var to *span
			switch string(name) {
			case "userId":
				to = &user
			case "message":
				to = &msg
			case "event":
				to = &event
			case "id":
				to = &id
			case "ttl":
				to = &ttl
			}
			v := s.value()
			if to == nil || s.err != nil {
				continue
			}
			if to.there() {
				r.wrong(string(name), "is there twice")
			}
			if *to = v; v.kind == 'n' && to != &msg {
				*to = span{}
			}
		}
	}
	if bad := w.syntax(); bad != nil {
		return m, bad
	}
	if name, ok := r.nameOf("userId", user); ok {
		m.goes(User, name)
		m.named = m.n
	} else if !user.there() {
		r.wrong("userId", "is missing")
	}
	if name, ok := r.text("event", event); ok {
		if wrong := wrongType(name); name != "" && wrong != "" {
			r.wrong("event", wrong)
		}
		m.name = name
	}
	if text, ok := r.text("id", id); ok {
		if wrong := wrongID(text); wrong != "" {
			r.wrong("id", wrong)
		}
		m.id, m.own = text, true
	}
	m.ttl = r.seconds("ttl", ttl)
	switch msg.kind {
	case 0:
		r.wrong("message", "is missing")
	case 'n':
		r.wrong("message", "is null, want something to tell: a text, an object, a list, a number, true or false")
	}
	if r.p.any() {
		return m, invalid(&r.p)
	}
	if !m.own {
		m.id = c.newID()
	}
	data := s.out[msg.from:msg.to]
	if msg.kind == '"' {
		data = []byte(unquote(data))
	}
	block, err := eventBlock(m.name, data)
	switch {
	case err != nil:
		r.wrong("event", err.Error())
		return m, invalid(&r.p)
	case len(block) > c.opt.EventSize:
		r.wrong("message", tooBig(len(block), c.opt.EventSize))
		return m, tooLargeEvent(&r.p)
	}
	m.block = block
	return m, nil
}
