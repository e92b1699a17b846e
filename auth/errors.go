package auth

import (
	"errors"
	"strings"
)

var (
	// ErrNone says that a request brought nothing to tell who it is.
	ErrNone = errors.New("auth: no token, key or ticket")
	// ErrBad says that what it brought is not valid. The error is a
	// *BadError, which says why. Answer 401 with Challenge.
	ErrBad = errors.New("auth: not valid")
	// ErrTicket says that who came with a ticket asked for one. Answer 403.
	ErrTicket = errors.New("auth: a ticket makes no tickets")
	// ErrUnavailable says that it cannot be told now, since the keys or the
	// tickets cannot be reached. Answer 503.
	ErrUnavailable = errors.New("auth: cannot be verified now")
)

// Reason is why a token, key or ticket was refused: one of few texts, fit for
// a metric's label.
type Reason string

// The reasons.
const (
	Malformed   Reason = "malformed"     // no JWT at all
	Algorithm   Reason = "algorithm"     // signed in a way that no key of ours is for; "none" too
	UnknownKey  Reason = "unknown_key"   // its kid is no key's
	Signature   Reason = "signature"     // forged, or signed by another
	Expired     Reason = "expired"       //
	NotYet      Reason = "not_yet_valid" // nbf or iat lies ahead
	NoExpiry    Reason = "no_expiry"     // exp is missing
	NoSubject   Reason = "no_subject"    // sub is missing
	BadIssuer   Reason = "issuer"        //
	BadAudience Reason = "audience"      //
	BadClaims   Reason = "claims"        // a claim has the wrong form
	BadKey      Reason = "api_key"       // no such API key
	BadTicket   Reason = "ticket"        // unknown, used or too old
)

// Reasons are all of them.
var Reasons = [...]Reason{
	Malformed, Algorithm, UnknownKey, Signature, Expired, NotYet, NoExpiry, NoSubject, BadIssuer, BadAudience, BadClaims, BadKey, BadTicket,
}

// BadError is what Identify returns for credentials that are not valid;
// errors.Is(err, ErrBad) holds. Neither field has anything of the token in it.
type BadError struct {
	Reason Reason
	Text   string // for people: "the token has expired"
}

// Error is the text.
func (e *BadError) Error() string { return "auth: " + e.Text }

// Unwrap is ErrBad.
func (e *BadError) Unwrap() error { return ErrBad }

func bad(why Reason, text string) error { return &BadError{why, text} }

// Challenge is the WWW-Authenticate header of a 401 for an error of Identify,
// as RFC 6750 has it.
func Challenge(err error) string {
	b, ok := errors.AsType[*BadError](err)
	if !ok {
		return `Bearer realm="ssegate"`
	}
	return `Bearer realm="ssegate", error="invalid_token", error_description="` + strings.ReplaceAll(b.Text, `"`, "'") + `"`
}
