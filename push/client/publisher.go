package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Publisher sends messages to a node's push API. Its methods may be called
// concurrently; its fields are not changed meanwhile.
type Publisher struct {
	Base  string // of the API: "http://127.0.0.1:8089"
	Token string // sent as Authorization: Bearer …; "" = none
	Key   string // sent as X-Api-Key; "" = none
	// HTTP sends the requests; nil = http.DefaultClient.
	HTTP *http.Client
}

// Message is the envelope. What is empty is left out, and filled in by ssegate
// where it has to be there.
type Message struct {
	ID        string    `json:"id,omitempty"` // sent again with the same id it is published once
	Timestamp string    `json:"timestamp,omitempty"`
	Type      string    `json:"type,omitempty"` // the event's name: progress, status, error, success, warning, info or custom
	Service   string    `json:"service,omitempty"`
	Source    string    `json:"source,omitempty"`
	Target    Target    `json:"target,omitzero"`
	Data      any       `json:"data,omitempty"`
	Metadata  *Metadata `json:"metadata,omitempty"`
}

// Target says where a message goes (user, channel, service, connection) and
// which of the connections there get it (session, knowledge base, task).
type Target struct {
	UserID       string `json:"user_id,omitempty"`
	Channel      string `json:"channel,omitempty"`
	Service      string `json:"service,omitempty"`
	ConnectionID string `json:"connection_id,omitempty"`
	SessionID    string `json:"session_id,omitempty"`
	KBID         string `json:"kb_id,omitempty"`
	TaskID       string `json:"task_id,omitempty"`
}

// Metadata is how a message is treated.
type Metadata struct {
	Priority string `json:"priority,omitempty"` // low, normal or high
	TTL      int    `json:"ttl,omitempty"`      // seconds
}

// Answer is what became of a message.
type Answer struct {
	ID      string   `json:"id"`
	Status  string   `json:"status"` // delivered, stored, not_connected, rejected or unknown
	Targets []Result `json:"targets"`
	Reason  string   `json:"reason"`
	Detail  string   `json:"detail"`
}

// Result is what became of it at one target.
type Result struct {
	Target    string   `json:"target"`
	Status    string   `json:"status"`
	Position  uint64   `json:"position"`
	Nodes     []string `json:"nodes"`
	Duplicate bool     `json:"duplicate"`
	Reason    string   `json:"reason"`
	Detail    string   `json:"detail"`
}

// Error is a refusal.
type Error struct {
	Status     int           // of HTTP
	Reason     string        // a machine word
	Detail     string        // plain words
	RequestID  string        // to be found in the node's log
	RetryAfter time.Duration // when to try again; 0 = that is no use
	Body       []byte        // the whole answer
}

func (e *Error) Error() string {
	return fmt.Sprintf("ssegate: %d %s: %s (request %s)", e.Status, e.Reason, e.Detail, e.RequestID)
}

// Send sends one message.
func (p *Publisher) Send(ctx context.Context, m Message) (Answer, error) {
	var a Answer
	return a, p.post(ctx, "/api/v1/messages/send", m, &a)
}

// Batch sends messages and returns what became of each. One that is wrong
// stops no other; it is rejected, with the reason.
func (p *Publisher) Batch(ctx context.Context, messages []Message) ([]Answer, error) {
	var out struct{ Results []Answer }
	err := p.post(ctx, "/api/v1/messages/batch", map[string]any{"messages": messages}, &out)
	return out.Results, err
}

// SendTo sends one message to many targets ("user/alice", "connection/c1") and
// returns what became of it at each.
func (p *Publisher) SendTo(ctx context.Context, m Message, targets ...string) (Answer, error) {
	var a Answer
	return a, p.post(ctx, "/api/v1/messages/batch", map[string]any{"message": m, "targets": targets}, &a)
}

// Streamed is what became of a stream.
type Streamed struct {
	Stream  string   `json:"stream"`
	State   string   `json:"state"`  // end or cut
	Events  int      `json:"events"` // or pieces
	Bytes   int64    `json:"bytes"`
	SHA256  string   `json:"sha256"` // of pieces
	Targets []Result `json:"targets"`
}

// Body is what a stream sends.
type Body struct {
	io.Reader
	// Type is its content type: text/event-stream is sent event by event,
	// anything else in pieces. Default application/octet-stream.
	Type string
	Name string // of a file; "" = none
	Size int64  // in bytes; 0 = not known
}

// Stream sends a body to targets ("user/alice") while it is read. It waits
// where the log is slower than the body.
func (p *Publisher) Stream(ctx context.Context, body Body, targets ...string) (Streamed, error) {
	var out Streamed
	if len(targets) == 0 {
		return out, fmt.Errorf("ssegate: a stream needs a target")
	}
	kind, name, _ := strings.Cut(targets[0], "/")
	address := p.Base + "/api/v1/streams/" + url.PathEscape(kind) + "/" + url.PathEscape(name)
	if len(targets) > 1 {
		address += "?to=" + url.QueryEscape(strings.Join(targets[1:], ","))
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, address, body.Reader)
	if err != nil {
		return out, err
	}
	if body.Size > 0 {
		r.ContentLength = body.Size
	}
	if body.Type == "" {
		body.Type = "application/octet-stream"
	}
	r.Header.Set("Content-Type", body.Type)
	if body.Name != "" {
		r.Header.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": body.Name}))
	}
	return out, p.do(r, &out)
}

func (p *Publisher) post(ctx context.Context, path string, body, into any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, p.Base+path, bytes.NewReader(b))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	return p.do(r, into)
}

// do sends a request and reads the answer. The error of a refusal is an
// *Error.
func (p *Publisher) do(r *http.Request, into any) error {
	if p.Token != "" {
		r.Header.Set("Authorization", "Bearer "+p.Token)
	}
	if p.Key != "" {
		r.Header.Set("X-Api-Key", p.Key)
	}
	c := p.HTTP
	if c == nil {
		c = http.DefaultClient
	}
	resp, err := c.Do(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	const most = 16 << 20
	b, err := io.ReadAll(io.LimitReader(resp.Body, most))
	if err != nil {
		return err
	}
	if resp.StatusCode/100 == 2 {
		return json.Unmarshal(b, into)
	}
	var said struct {
		Error struct {
			Reason    string `json:"reason"`
			Detail    string `json:"detail"`
			RequestID string `json:"request_id"`
		} `json:"error"`
		Result json.RawMessage `json:"result"`
	}
	_ = json.Unmarshal(b, &said) // whoever else answered says it in another way
	if len(said.Result) > 0 {
		_ = json.Unmarshal(said.Result, into)
	}
	e := &Error{Status: resp.StatusCode, Reason: said.Error.Reason, Detail: said.Error.Detail, RequestID: said.Error.RequestID, Body: b}
	if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil {
		e.RetryAfter = time.Duration(seconds) * time.Second
	}
	return e
}
