package auth

import (
	"context"
	"strings"
	"time"
)

// Identity is who a request comes from, verified, and what that one may do. It
// is not changed once made, so that many goroutines may read it. The nil
// Identity is nobody and may do nothing.
type Identity struct {
	Subject string    `json:"sub,omitempty"`     // of the token or ticket; "" for an API key
	Follow  []Pattern `json:"follow,omitempty"`  // topics it may follow, beside its own user/{Subject}
	Publish []Pattern `json:"publish,omitempty"` // topics it may publish to
	Admin   bool      `json:"admin,omitempty"`   // may list and end connections, and see every receipt
	Expires time.Time `json:"exp,omitzero"`      // when its streams end; zero = never
	Key     string    `json:"key,omitempty"`     // name of the API key; "" for a person
	Ticket  bool      `json:"-"`                 // it came with a ticket, which makes no other: see Issue
}

// Anyone is who a request comes from where there is no [auth]: it may do
// everything, for ever.
func Anyone() *Identity {
	return &Identity{Follow: []Pattern{Everything}, Publish: []Pattern{Everything}, Admin: true}
}

// MayFollow reports whether it may follow a topic ("channel/news") or all that
// a pattern covers ("channel/room.*"). Its own user/{Subject} it always may,
// other users' only where a pattern says so.
func (id *Identity) MayFollow(topic string) bool {
	if id == nil {
		return false
	}
	own, ok := strings.CutPrefix(topic, "user/")
	if ok && own != "" && own == id.Subject && !strings.Contains(own, "*") { // a name is no pattern
		return true
	}
	return covered(id.Follow, topic)
}

// MayPublish reports whether it may publish to a topic, or to all that a
// pattern covers. To reach everybody (a broadcast), ask for Everything.
func (id *Identity) MayPublish(topic string) bool {
	return id != nil && covered(id.Publish, topic)
}

// Principal names who it is for counting and for owning streams: "sub:alice"
// or "key:billing"; "" for nobody in particular. It is unique among
// identities, and stays the same from token to token.
func (id *Identity) Principal() string {
	switch {
	case id == nil:
		return ""
	case id.Key != "":
		return "key:" + id.Key
	case id.Subject != "":
		return "sub:" + id.Subject
	}
	return ""
}

// ForTicket is what a ticket carries of an identity: who it is, until when,
// and what it may follow. A ticket stands in an address, which lands in
// histories and logs of others, so it never publishes or administers, nor does
// it make another one.
func (id *Identity) ForTicket() *Identity {
	if id == nil {
		return nil
	}
	return &Identity{Subject: id.Subject, Follow: id.Follow, Expires: id.Expires, Key: id.Key, Ticket: true}
}

type contextKey struct{}

// NewContext returns a context that bears the identity of a request.
func NewContext(ctx context.Context, id *Identity) context.Context {
	return context.WithValue(ctx, contextKey{}, id)
}

// FromContext returns the identity that NewContext put there, nil for nobody.
func FromContext(ctx context.Context) *Identity {
	id, _ := ctx.Value(contextKey{}).(*Identity)
	return id
}
