package push

import (
	"encoding/json"
	"errors"
	"strconv"
	"time"
	"unicode/utf8"

	"ssegate/sse"
)

// encode makes the event of a message that has no problems.
func (r *reader) encode(m *message, e *envelope, whole span) {
	if !m.own {
		m.id = r.style.id()
	}
	out, st := r.s.out, r.style
	const room = 192 // for what is filled in
	b := make([]byte, 0, len("event: \ndata: \n\n")+len(m.name)+whole.to-whole.from+len(m.id)+room)
	if m.name != "" && !st.unnamed {
		b = append(b, "event: "...)
		b = append(b, m.name...)
		b = append(b, '\n')
	}
	b = append(b, "data: "...)
	switch {
	case st.payloadData && e.data.there():
		b = append(b, out[e.data.from:e.data.to]...)
	case st.payloadData:
		b = append(b, "null"...)
	default:
		m.whole = true
		b = e.appendTo(b, out, whole, m, st)
	}
	b = append(b, "\n\n"...)
	if len(b) > st.maxEvent {
		r.big = true
		r.wrong("data", tooBig(len(b), st.maxEvent))
		return
	}
	m.block = b
}

// tooBig says that an event would have more bytes than are allowed.
func tooBig(is, most int) string {
	return "makes an event of " + strconv.Itoa(is) + " bytes, more than the " + strconv.Itoa(most) + " that are allowed: send a stream"
}

// appendTo appends the envelope: as it was sent, and what it lacks.
func (e *envelope) appendTo(b, out []byte, whole span, m *message, st *style) []byte {
	b = append(b, '{')
	n := len(b)
	if !e.id.there() {
		b = append(b, `"id":`...)
		b = appendQuoted(b, m.id)
	}
	if !e.timestamp.there() {
		b = appendComma(b, n)
		b = append(b, `"timestamp":"`...)
		b = st.now().UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z")
		b = append(b, '"')
	}
	if rest := out[whole.from+1 : whole.to-1]; len(rest) > 0 {
		b = appendComma(b, n)
		if !e.metadata.there() {
			b = append(b, rest...)
		} else { // up to its bracket
			at := e.metadata.to - 1
			b = append(b, out[whole.from+1:at]...)
			b = e.appendMissing(b, len(b)-(at-e.metadata.from-1), st)
			b = append(b, out[at:whole.to-1]...)
		}
	}
	if !e.metadata.there() {
		b = appendComma(b, n)
		b = append(b, `"metadata":{`...)
		b = e.appendMissing(b, len(b), st)
		b = append(b, '}')
	}
	return append(b, '}')
}

// appendMissing appends those members of metadata that are not there; from is
// where its first member is, or would be.
func (e *envelope) appendMissing(b []byte, from int, st *style) []byte {
	if !e.priority.there() {
		b = append(appendComma(b, from), `"priority":"normal"`...)
	}
	if !e.ttl.there() {
		b = append(appendComma(b, from), `"ttl":`...)
		b = strconv.AppendInt(b, int64(st.ttl/time.Second), 10)
	}
	if !e.retry.there() {
		b = append(appendComma(b, from), `"retry_count":0`...)
	}
	return b
}

// appendComma appends a comma unless nothing stands behind from.
func appendComma(b []byte, from int) []byte {
	if len(b) > from {
		return append(b, ',')
	}
	return b
}

// appendQuoted appends a text that is no more than a name or an id as JSON.
func appendQuoted(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= utf8.RuneSelf {
			q, _ := json.Marshal(s) // strings always marshal
			return append(b, q...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// errName says that an event cannot have a name.
var errName = errors.New("has a line end or a NUL, which no event's name may have")

// eventBlock is an event with this name and data, without an id line.
func eventBlock(name string, data []byte) ([]byte, error) {
	b, err := sse.AppendMessage(make([]byte, 0, len(name)+len(data)+32), &sse.Message{Name: name, Data: data}, sse.LF)
	if err != nil {
		return nil, errName
	}
	return b, nil
}
