package push

import (
	"bytes"
	"cmp"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Priority says what a client that cannot keep up loses: low is lost, normal
// and high never are.
type Priority uint8

// The priorities. The zero Priority is normal.
const (
	Normal Priority = iota
	Low
	High
)

// types are the types that messages may have. More of them can be allowed, see
// Options.Types.
var types = []string{"progress", "status", "error", "success", "warning", "info", "custom"}

// A message is one thing to be told: what the API took, ready for the log.
type message struct {
	id    string
	own   bool      // the id is its sender's: sent again it is the same message
	name  string    // of the event; "" for none
	at    [5]Place  // where it goes
	n     int       // how many of at there are
	named int       // how many of them its target names; what follows is the service's own copy
	aimed bool      // it has a target
	about narrowing // who of those that listen there gets it
	prio  Priority
	ttl   time.Duration // 0 = as long as the topic keeps it
	block []byte        // the event, without an id line
	whole bool          // the event's data is the envelope
}

// narrowing is who gets a message of a topic: connections that ask for this
// session, knowledge base or task, and those that ask for none.
type narrowing struct {
	Session, KB, Task string
	Connection        string // this connection and no other
}

func (m *message) places() []Place { return m.at[:m.n] }

// goes adds a place, once.
func (m *message) goes(k Kind, name string) {
	if p := (Place{k, name}); !slices.Contains(m.places(), p) {
		m.at[m.n] = p
		m.n++
	}
}

// style is how messages become events.
type style struct {
	payloadData bool // the data alone, not the envelope
	unnamed     bool // no event: line
	types       []string
	ttl         time.Duration // what metadata.ttl is filled in with
	maxTTL      time.Duration
	maxEvent    int // bytes of an event
	id          func() string
	now         func() time.Time
}

// known is a type that messages may have, "" for any other.
func (st *style) known(t []byte) string {
	for _, list := range [][]string{types, st.types} {
		for _, known := range list {
			if string(t) == known {
				return known
			}
		}
	}
	return ""
}

// envelope is where the members of a message are, in the scanner's out.
type envelope struct {
	id, timestamp, typ, service, source, target, data, metadata span
	userID, channel, targetService, connection                  span
	session, kb, task                                           span
	priority, ttl, retry                                        span
}

// member is the place for a member of this name, nil for one that is unknown
// and passes.
func (e *envelope) member(name []byte) *span {
	switch string(name) {
	case "id":
		return &e.id
	case "timestamp":
		return &e.timestamp
	case "type":
		return &e.typ
	case "service":
		return &e.service
	case "source":
		return &e.source
	case "target":
		return &e.target
	case "data":
		return &e.data
	case "metadata":
		return &e.metadata
	}
	return nil
}

func (e *envelope) targetMember(name []byte) *span {
	switch string(name) {
	case "user_id":
		return &e.userID
	case "channel":
		return &e.channel
	case "service":
		return &e.targetService
	case "connection_id":
		return &e.connection
	case "session_id":
		return &e.session
	case "kb_id":
		return &e.kb
	case "task_id":
		return &e.task
	}
	return nil
}

func (e *envelope) metaMember(name []byte) *span {
	switch string(name) {
	case "priority":
		return &e.priority
	case "ttl":
		return &e.ttl
	case "retry_count":
		return &e.retry
	}
	return nil
}

// reader reads messages: the text once, the mistakes all together.
type reader struct {
	s     *scanner
	p     problems
	field string // what stands before the names of fields: "", "messages[3]."
	style *style
	big   bool // the only problem is that it makes too large an event
}

func (r *reader) wrong(field, problem string) {
	if field == "" {
		r.p.add(cmp.Or(strings.TrimSuffix(r.field, "."), "message"), problem)
		return
	}
	r.p.add(r.field+field, problem)
}

// message reads one message. What it returns counts only if the scanner has no
// error and there are no problems.
func (r *reader) message() (m message) {
	var e envelope
	whole := r.object(&e)
	if r.s.err != nil {
		return m
	}
	if whole.kind != '{' {
		r.wrong("", "is "+whole.sort()+", want an object: a message")
		return m
	}
	r.read(&m, &e)
	if !r.p.any() {
		r.encode(&m, &e, whole)
	}
	return m
}

// object scans the text of a message. null stands for what is not there: it is
// how many libraries write an option that is not set. Where something is to be
// filled in, it is taken out.
func (r *reader) object(e *envelope) span {
	s := r.s
	v := span{from: len(s.out), kind: s.space()}
	if v.kind != '{' {
		return s.value()
	}
	for s.open('{'); ; {
		before := len(s.out) // and the comma before the member is behind it
		name, ok := r.name()
		if !ok {
			break
		}
		at := e.member(name)
		var val span
		switch {
		case at == &e.target:
			val = r.part(e, "target.")
		case at == &e.metadata:
			val = r.part(e, "metadata.")
		default:
			val = s.value()
		}
		if at == nil || s.err != nil {
			continue
		}
		if at.there() {
			r.wrong(string(name), "is there twice")
		}
		if *at = val; val.kind == 'n' && at != &e.data {
			*at = span{}
			if at == &e.id || at == &e.timestamp || at == &e.metadata {
				s.out = s.out[:before]
			}
		}
	}
	v.to = len(s.out)
	return v
}

// part scans target or metadata, whose members' names begin with prefix.
func (r *reader) part(e *envelope, prefix string) span {
	s, fill := r.s, prefix == "metadata."
	v := span{from: len(s.out), kind: s.space()}
	if v.kind != '{' {
		return s.value()
	}
	for s.open('{'); ; {
		before := len(s.out)
		name, ok := r.name()
		if !ok {
			break
		}
		at := e.targetMember(name)
		if fill {
			at = e.metaMember(name)
		}
		val := s.value()
		if at == nil || s.err != nil {
			continue
		}
		if at.there() {
			r.wrong(prefix+string(name), "is there twice")
		}
		if *at = val; val.kind == 'n' {
			if *at = (span{}); fill {
				s.out = s.out[:before]
			}
		}
	}
	v.to = len(s.out)
	return v
}

// name goes to the next member and returns its name, escapes read.
func (r *reader) name() ([]byte, bool) {
	b, ok := r.s.named()
	if !ok {
		return nil, false
	}
	if bytes.IndexByte(b, '\\') >= 0 {
		return []byte(unquote(b)), true
	}
	return b[1 : len(b)-1], true
}

// unquote is what a scanned string says.
func unquote(b []byte) string {
	if bytes.IndexByte(b, '\\') < 0 {
		return string(b[1 : len(b)-1])
	}
	var s string
	_ = json.Unmarshal(b, &s) // the scanner has checked it
	return s
}

// plain is the text of a member that has to be a string; ok is false if it is
// not there, or wrong and said so. It is the reader's own, and gone with it.
func (r *reader) plain(field string, v span) (s []byte, ok bool) {
	switch v.kind {
	case 0:
		return nil, false
	case '"':
		b := r.s.out[v.from:v.to]
		if bytes.IndexByte(b, '\\') >= 0 {
			return []byte(unquote(b)), true
		}
		return b[1 : len(b)-1], true
	case '0':
		r.wrong(field, `is a number, want a string: "`+short(r.s.out[v.from:v.to])+`"`)
	default:
		r.wrong(field, "is "+v.sort()+", want a string")
	}
	return nil, false
}

// text is plain, to keep.
func (r *reader) text(field string, v span) (string, bool) {
	b, ok := r.plain(field, v)
	return string(b), ok
}

func short(b []byte) string { return string(b[:min(len(b), 40)]) }

// nameOf is text for a name.
func (r *reader) nameOf(field string, v span) (string, bool) {
	s, ok := r.text(field, v)
	if ok {
		if wrong := wrongName(s); wrong != "" {
			r.wrong(field, wrong)
			return "", false
		}
	}
	return s, ok
}

// number is the value of a member that has to be a whole number from 0 to
// most.
func (r *reader) number(field string, v span, most int64, what string) (int64, bool) {
	if !v.there() {
		return 0, false
	}
	if v.kind == '0' {
		n, err := strconv.ParseInt(string(r.s.out[v.from:v.to]), 10, 64)
		if err == nil && 0 <= n && n <= most {
			return n, true
		}
	}
	r.wrong(field, "is "+v.sort()+" that is not "+what+" from 0 to "+strconv.FormatInt(most, 10))
	return 0, false
}

// seconds is the value of a member that says how long a message is good for.
func (r *reader) seconds(field string, v span) time.Duration {
	n, _ := r.number(field, v, int64(r.style.maxTTL/time.Second), "a whole number of seconds")
	return time.Duration(n) * time.Second
}

// read checks the members and notes what they say.
func (r *reader) read(m *message, e *envelope) {
	if id, ok := r.text("id", e.id); ok {
		if wrong := wrongID(id); wrong != "" {
			r.wrong("id", wrong)
		}
		m.id, m.own = id, true
	}
	if t, ok := r.plain("timestamp", e.timestamp); ok && !isTime(t) {
		r.wrong("timestamp", "is no time, write it as 2006-01-02T15:04:05.000Z")
	}
	if t, ok := r.plain("type", e.typ); ok {
		if m.name = r.style.known(t); m.name == "" {
			r.wrong("type", "is "+quote(string(t))+", want one of "+strings.Join(types, ", ")+" or none (what is special goes into custom)")
		}
	}
	if s, ok := r.plain("source", e.source); ok {
		switch {
		case len(s) > 5*MaxName:
			r.wrong("source", "is longer than "+strconv.Itoa(5*MaxName)+" bytes")
		case bytes.ContainsFunc(s, unicode.IsControl):
			r.wrong("source", "has a control character")
		}
	}
	r.readTarget(m, e)
	if e.metadata.there() && e.metadata.kind != '{' {
		r.wrong("metadata", "is "+e.metadata.sort()+", want an object")
	}
	if s, ok := r.plain("metadata.priority", e.priority); ok {
		switch string(s) {
		case "normal":
		case "low":
			m.prio = Low
		case "high":
			m.prio = High
		default:
			r.wrong("metadata.priority", "is "+quote(string(s))+", want low, normal or high")
		}
	}
	m.ttl = r.seconds("metadata.ttl", e.ttl)
	r.number("metadata.retry_count", e.retry, 1_000_000, "a whole number")
}

// readTarget finds the places that a message goes to. session_id, kb_id and
// task_id say who of those there gets it or, alone, name the channels.
// connection_id does the same: it is a place only where it stands alone.
func (r *reader) readTarget(m *message, e *envelope) {
	m.aimed = e.target.there()
	if m.aimed && e.target.kind != '{' {
		r.wrong("target", "is "+e.target.sort()+`, want an object: {"user_id": "…"}`)
	}
	for _, f := range []struct {
		field string
		kind  Kind
		at    span
	}{
		{"target.user_id", User, e.userID}, {"target.channel", Channel, e.channel}, {"target.service", Service, e.targetService},
	} {
		if name, ok := r.nameOf(f.field, f.at); ok {
			m.goes(f.kind, name)
		}
	}
	connection, direct := r.nameOf("target.connection_id", e.connection)
	if direct && m.n == 0 {
		m.goes(Connection, connection)
	}
	m.about.Connection = connection
	alone := m.n == 0
	for _, f := range []struct {
		field, prefix string
		at            span
		to            *string
	}{
		{"target.session_id", "session:", e.session, &m.about.Session},
		{"target.kb_id", "kb:", e.kb, &m.about.KB},
		{"target.task_id", "task:", e.task, &m.about.Task},
	} {
		if name, ok := r.nameOf(f.field, f.at); ok {
			if *f.to = name; alone {
				m.goes(Channel, f.prefix+name)
			}
		}
	}
	m.named = m.n
	if name, ok := r.nameOf("service", e.service); ok {
		m.goes(Service, name)
	}
}

// isTime reports whether s is a time of ISO 8601, with or without a zone:
// what the libraries of services write.
func isTime(b []byte) bool {
	if (&time.Time{}).UnmarshalText(b) == nil { // RFC 3339, as nearly all do
		return true
	}
	for _, layout := range []string{"2006-01-02T15:04:05", "2006-01-02 15:04:05", "2006-01-02T15:04:05-0700", "2006-01-02 15:04:05Z07:00"} {
		if _, err := time.Parse(layout, string(b)); err == nil {
			return true
		}
	}
	return false
}
