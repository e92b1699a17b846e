package push

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"ssegate/auth"
)

// refusal is an answer that says why something was not done, to people and to
// programs, as every refusal of ssegate does.
type refusal struct {
	status    int
	reason    string // a machine word, also the label of a counter
	detail    string // plain words, never an address or a secret
	fields    []Problem
	after     time.Duration // when to come back; 0: there is no saying
	allow     string        // methods, with 405
	challenge string        // with 401
	// more is put beside the error: what was done before it.
	more any
}

func (f *refusal) Error() string { return f.reason + ": " + f.detail }

func badRequest(reason, detail string) *refusal {
	return &refusal{status: http.StatusBadRequest, reason: reason, detail: detail}
}

// invalid is the answer to mistakes in fields.
func invalid(p *problems) *refusal {
	return &refusal{status: http.StatusBadRequest, reason: "invalid_message", detail: p.String(), fields: p.list}
}

func forbidden(field, detail string) *refusal {
	return &refusal{status: http.StatusForbidden, reason: "forbidden", detail: field + " " + detail, fields: []Problem{{field, detail}}}
}

// soon is when somebody may come back whose message found no log.
const soon = 2 * time.Second

func unavailable(detail string) *refusal {
	return &refusal{status: http.StatusServiceUnavailable, reason: "unavailable", detail: detail, after: soon}
}

// call is one request that is being served.
type call struct {
	*API
	w   http.ResponseWriter
	r   *http.Request
	opt *settings
	who *auth.Identity
	id  string // of the request
	all bool   // the body was read to its end
	// until is when the answer waits for nobody any more; zero: it did not
	// begin to.
	until time.Time
}

// within bounds what the answer to a request waits for: all of it together, not
// each part, by Options.Wait from the first part on. The body is no part of it.
func (c *call) within() (context.Context, context.CancelFunc) {
	if c.until.IsZero() {
		c.until = time.Now().Add(c.opt.Wait)
	}
	return context.WithDeadline(c.r.Context(), c.until)
}

// answer writes v as JSON.
func (c *call) answer(status int, v any) {
	b, err := json.Marshal(v)
	if err != nil { // of what this package made itself
		status, b = http.StatusInternalServerError, []byte(`{"error":{"reason":"internal","detail":"the answer could not be written"}}`)
	}
	c.write(status, append(b, '\n'))
}

func (c *call) write(status int, b []byte) {
	h := c.w.Header()
	h["Content-Type"] = jsonType
	h["Cache-Control"] = noStore
	h["X-Content-Type-Options"] = noSniff
	h["Content-Length"] = []string{strconv.Itoa(len(b))}
	c.w.WriteHeader(status)
	c.w.Write(b)
}

// Values of headers that every answer has; not to be changed.
var (
	jsonType = []string{"application/json"}
	noStore  = []string{"no-store"}
	noSniff  = []string{"nosniff"}
)

// refusedWait is how long a client that was refused may go on sending.
const refusedWait = time.Second

// refuse writes a refusal.
func (c *call) refuse(f *refusal) {
	c.stats.refuse(f.reason)
	h := c.w.Header()
	if c.r.ContentLength != 0 && !c.all {
		// Else net/http would wait for the rest before it answers.
		h.Set("Connection", "close")
		_ = http.NewResponseController(c.w).SetReadDeadline(time.Now().Add(refusedWait)) // where it is supported
	}
	if f.after > 0 {
		h.Set("Retry-After", strconv.FormatInt(max(1, int64((f.after+time.Second-1)/time.Second)), 10))
	}
	if f.allow != "" {
		h.Set("Allow", f.allow)
	}
	if f.challenge != "" {
		h.Set("Www-Authenticate", f.challenge)
	}
	type errorBody struct {
		Reason    string    `json:"reason"`
		Detail    string    `json:"detail"`
		RequestID string    `json:"request_id,omitempty"`
		Fields    []Problem `json:"fields,omitempty"`
	}
	c.answer(f.status, struct {
		Error errorBody `json:"error"`
		More  any       `json:"result,omitempty"`
	}{errorBody{f.reason, f.detail, c.id, f.fields}, f.more})
}
