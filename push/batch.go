package push

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
)

// batch is POST /api/v1/messages/batch. The body is a list of messages, or an
// object that has one as messages, or {"targets": […], "message": {…}}: one
// message for many, so that every target has an answer of its own.
func (c *call) batch() {
	w, bad := c.json()
	if bad != nil {
		c.refuse(bad)
		return
	}
	defer w.free()
	b := batch{c: c, s: &w.scan}
	b.read()
	switch bad := w.syntax(); {
	case bad != nil:
		c.refuse(bad)
	case b.over:
		c.refuse(&refusal{status: http.StatusRequestEntityTooLarge, reason: "too_many", fields: []Problem{{b.what(), "has too many"}},
			detail: b.what() + " has more than the " + strconv.Itoa(c.opt.Batch) + " that are allowed in one request"})
	case b.p.any():
		c.refuse(invalid(&b.p))
	case b.oneForMany:
		b.sendOneToMany()
	default:
		b.sendMany()
	}
}

// batch is the body of a batch.
type batch struct {
	c          *call
	s          *scanner
	p          problems // of the body as a whole
	messages   []message
	wrong      []problems // of each message
	seen       bool       // messages are there
	oneForMany bool
	one        message
	oneWrong   problems
	hasOne     bool
	targets    []string // as they were sent
	over       bool
}

func (b *batch) what() string {
	if b.oneForMany {
		return "targets"
	}
	return "messages"
}

func (b *batch) read() {
	s := b.s
	switch s.space() {
	case '[':
		b.readMessages()
		return
	case '{':
	default:
		if v := s.value(); s.err == nil {
			b.p.add("batch", "is "+v.sort()+`, want a list of messages or an object: {"messages": […]}`)
		}
		return
	}
	r := reader{s: s}
	for s.open('{'); ; {
		name, ok := r.name()
		if !ok {
			break
		}
		switch string(name) {
		case "messages":
			b.readMessages()
		case "message":
			if b.hasOne {
				b.p.add("message", "is there twice")
			}
			one := reader{s: s, style: &b.c.opt.style, field: "message."}
			b.one, b.hasOne, b.oneForMany = one.message(), true, true
			b.oneWrong = one.p
		case "targets":
			b.oneForMany = true
			b.readTargets()
		default:
			s.value()
		}
	}
	switch {
	case s.err != nil:
	case !b.seen && !b.oneForMany:
		b.p.add("messages", "is missing")
	case b.seen && b.oneForMany:
		b.p.add("messages", "cannot stand beside message and targets: send one or the other")
	case b.oneForMany && !b.hasOne:
		b.p.add("message", "is missing")
	case b.oneForMany && b.targets == nil:
		b.p.add("targets", "is missing")
	case b.oneForMany && b.one.named > 0:
		b.p.add("message.target", "cannot stand beside targets: leave it out")
	}
	for _, p := range b.oneWrong.list {
		b.p.add(p.Field, p.Problem)
	}
}

func (b *batch) readMessages() {
	s := b.s
	if b.seen {
		b.p.add("messages", "is there twice")
	}
	b.seen = true
	if c := s.space(); c != '[' {
		if v := s.value(); s.err == nil {
			b.p.add("messages", "is "+v.sort()+", want a list")
		}
		return
	}
	if b.messages == nil {
		b.messages, b.wrong = make([]message, 0, 64), make([]problems, 0, 64)
	}
	for s.open('['); s.element(); {
		if len(b.messages) == b.c.opt.Batch {
			b.over = true
			s.value()
			continue
		}
		from := len(s.out)
		r := reader{s: s, style: &b.c.opt.style}
		m := r.message()
		if s.err != nil {
			return
		}
		s.out = append(s.out[:from], '0') // what it said is in m
		if !r.p.any() && m.named == 0 {
			r.wrong("target", "names nobody: it needs user_id, channel, service, connection_id, session_id, kb_id or task_id")
		}
		b.messages, b.wrong = append(b.messages, m), append(b.wrong, r.p)
	}
}

func (b *batch) readTargets() {
	s := b.s
	if b.targets != nil {
		b.p.add("targets", "is there twice")
	}
	if c := s.space(); c != '[' {
		if v := s.value(); s.err == nil {
			b.p.add("targets", "is "+v.sort()+", want a list of texts: [\"user/alice\"]")
		}
		return
	}
	b.targets = []string{}
	for s.open('['); s.element(); {
		v := s.value()
		switch {
		case s.err != nil:
			return
		case v.kind != '"':
			b.p.add("targets["+strconv.Itoa(len(b.targets))+"]", "is "+v.sort()+", want a text: \"user/alice\"")
		case len(b.targets) == b.c.opt.Batch:
			b.over = true
			continue
		}
		text := ""
		if v.kind == '"' {
			text = unquote(s.out[v.from:v.to])
		}
		b.targets = append(b.targets, text)
	}
}

// sendMany sends what is sound of a list and says of each what became of it.
func (b *batch) sendMany() {
	c := b.c
	good, targets := 0, 0
	out, index := make([]answered, len(b.messages)), make([]int, len(b.messages))
	for i := range b.messages {
		index[i] = i
		out[i] = answered{Index: &index[i], ID: b.messages[i].id, Status: rejected}
		if p := &b.wrong[i]; p.any() {
			out[i].Reason, out[i].Detail, out[i].Fields = "invalid_message", p.String(), p.list
			continue
		}
		m := &b.messages[i]
		if bad := c.may("target", m.at[:m.named]); bad != nil {
			out[i].Reason, out[i].Detail, out[i].Fields = bad.reason, bad.detail, bad.fields
			continue
		}
		out[i].Status = ""
		good++
		targets += m.n
	}
	if bad := c.spend(good); bad != nil {
		c.refuse(bad)
		return
	}
	r := c.round(targets)
	sendings, at := make([]sending, 0, good), make([]int, 0, good)
	for i := range out {
		if out[i].Status == "" {
			sendings, at = append(sendings, r.add(&b.messages[i])), append(at, i)
		}
	}
	r.run(sendings)
	var bad *refusal
	for j := range sendings {
		out[at[j]] = sendings[j].answer()
		out[at[j]].Index = &index[at[j]]
		if f := sendings[j].failed(); f != nil && (bad == nil || !sendings[j].m.own) {
			bad = f
		}
	}
	if len(out) > 0 && good == 0 {
		bad = firstRefusal(out)
	}
	c.answerBatch(out, bad)
}

// firstRefusal is the answer to a batch of which nothing could be taken.
func firstRefusal(out []answered) *refusal {
	f := badRequest("invalid_message", "none of the messages could be taken; of the first: "+out[0].Detail)
	if !slices.ContainsFunc(out, func(a answered) bool { return a.Reason != "forbidden" }) {
		f.status, f.reason = http.StatusForbidden, "forbidden"
	}
	for i, a := range out {
		for _, p := range a.Fields {
			if len(f.fields) < maxProblems {
				f.fields = append(f.fields, Problem{"messages[" + strconv.Itoa(i) + "]." + p.Field, p.Problem})
			}
		}
	}
	return f
}

// answerBatch answers with what became of each; bad is what the request as a
// whole gets, if it did not go well.
func (c *call) answerBatch(out []answered, bad *refusal) {
	accepted, refused := 0, 0
	for i := range out {
		switch out[i].Status {
		case delivered, stored:
			accepted++
		case rejected:
			refused++
		}
	}
	body := struct {
		Accepted int        `json:"accepted"`
		Rejected int        `json:"rejected"`
		Results  []answered `json:"results"`
	}{accepted, refused, out}
	if bad != nil {
		bad.more = body
		c.refuse(bad)
		return
	}
	c.answer(http.StatusOK, body)
}

// sendOneToMany sends one message to each of the targets.
func (b *batch) sendOneToMany() {
	c := b.c
	if bad := c.spend(len(b.targets)); bad != nil {
		c.refuse(bad)
		return
	}
	targets := len(b.targets) + b.one.n
	r := c.round(targets)
	s := r.sending(&b.one, len(b.targets), targets)
	about := r.about(&b.one)
	var first *refusal
	good, had := 0, make(map[string]bool, len(b.targets))
	for i, t := range b.targets {
		if had[t] {
			continue // it goes there once, and has one answer
		}
		had[t] = true
		field := "targets[" + strconv.Itoa(i) + "]"
		p, wrong := ParsePlace(t)
		bad := c.may(field, []Place{p})
		if wrong != "" {
			bad = invalid(&problems{list: []Problem{{field, wrong}}})
			bad.reason = "invalid_target"
		}
		if bad != nil {
			first = cmp.Or(first, bad)
			s.reject(t, bad.reason, bad.detail)
			continue
		}
		good++
		r.put(&s, p, &about)
	}
	if good == 0 && first != nil {
		first.more = answered{ID: b.one.id, Status: rejected, Targets: s.results}
		c.refuse(first)
		return
	}
	s.named = len(s.results)
	r.copies(&s, about)
	r.connections(&s, about)
	sendings := []sending{s}
	r.run(sendings)
	answer := sendings[0].answer()
	if answer.Status = sendings[0].best(); answer.Status == "" {
		answer.Status = notConnected // an empty list reaches nobody
	}
	if bad := sendings[0].failed(); bad != nil {
		bad.more = answer
		c.refuse(bad)
		return
	}
	c.answer(http.StatusOK, answer)
}
