package auth

import (
	"context"
	"time"
)

// Issue makes a ticket that Identify accepts once within ttl, on any node. It
// stands for id.ForTicket. The error is ErrUnavailable where tickets cannot be
// kept now.
func (a *Authenticator) Issue(ctx context.Context, id *Identity, ttl time.Duration) (ticket string, err error) {
	return "", ErrUnavailable
}
