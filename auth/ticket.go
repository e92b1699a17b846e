package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"ssegate/registry"
)

// A ticket is 32 random bytes in base64. The note is called by its hash, so
// that who can read the registry cannot use what is in it.
const ticketBytes = 32

func ticketNote(ticket string) string {
	sum := sha256.Sum256([]byte(ticket))
	return "ticket:" + hex.EncodeToString(sum[:])
}

// Issue makes a ticket that Identify accepts once within ttl, on any node. It
// stands for id.ForTicket. ErrUnavailable is wrapped where tickets cannot be
// kept now. Who came with a ticket gets ErrTicket: each would be good for
// another, and a ticket of seconds for ever.
func (a *Authenticator) Issue(ctx context.Context, id *Identity, ttl time.Duration) (ticket string, err error) {
	if id != nil && id.Ticket {
		return "", ErrTicket
	}
	if a.opts.Notes == nil {
		return "", fmt.Errorf("%w: tickets are kept nowhere", ErrUnavailable)
	}
	value, err := json.Marshal(id.ForTicket())
	if err != nil {
		return "", err // a year beyond 9999 in Expires
	}
	var secret [ticketBytes]byte
	rand.Read(secret[:]) // never fails
	ticket = base64.RawURLEncoding.EncodeToString(secret[:])
	if err := a.opts.Notes.PutNote(ctx, ticketNote(ticket), value, ttl); err != nil {
		return "", fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return ticket, nil
}

// redeem takes a ticket. Of several who come with the same one gets it.
func (a *Authenticator) redeem(ctx context.Context, ticket string) (*Identity, error) {
	unknown := bad(BadTicket, "the ticket is unknown, was used already or is too old")
	if raw, err := base64.RawURLEncoding.DecodeString(ticket); err != nil || len(raw) != ticketBytes || a.opts.Notes == nil {
		return nil, unknown
	}
	value, err := a.opts.Notes.TakeNote(ctx, ticketNote(ticket))
	if errors.Is(err, registry.ErrUnknown) {
		return nil, unknown
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	id := new(Identity)
	if json.Unmarshal(value, id) != nil || id.Principal() == "" {
		return nil, unknown
	}
	if !id.Expires.IsZero() && !time.Now().Before(id.Expires) {
		return nil, bad(Expired, "the token that the ticket was made for has expired")
	}
	return id.ForTicket(), nil
}
