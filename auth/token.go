package auth

import (
	"context"
	"errors"
	"slices"
	"strings"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json" // strict: no key twice, and case counts
	"github.com/go-jose/go-jose/v4/jwt"
)

const (
	maxToken   = 16 << 10 // bytes
	maxSubject = 255      // bytes

	// nbfLeeway is what clocks may differ by at least for nbf: some issuers
	// set it to now, and a token that was made just now is used just now.
	nbfLeeway = 5 * time.Second
)

// token verifies a JWT and reads who it is for.
func (s *state) token(ctx context.Context, raw string) (*Identity, error) {
	switch {
	case len(s.algs) == 0:
		return nil, bad(BadKey, "there is no such API key, and no other tokens are accepted")
	case len(raw) > maxToken:
		return nil, bad(Malformed, "the token is too long")
	}
	signed, err := jose.ParseSignedCompact(raw, s.algs)
	if err != nil {
		if _, ok := errors.AsType[*jose.ErrUnexpectedSignatureAlgorithm](err); ok {
			return nil, bad(Algorithm, "the token's algorithm is not one of those that the configured keys are for")
		}
		return nil, bad(Malformed, "the token is no JWT")
	}
	payload, err := s.verify(ctx, signed)
	if err != nil {
		return nil, err
	}
	return s.claims(payload)
}

// verify returns what a token says once a key of ours has signed it.
func (s *state) verify(ctx context.Context, signed *jose.JSONWebSignature) ([]byte, error) {
	h := signed.Signatures[0].Protected // a compact token has one signature and no other header
	alg := jose.SignatureAlgorithm(h.Algorithm)
	tried := false
	try := func(keys []tokenKey) []byte {
		for _, k := range keys {
			if !k.takes(alg) {
				continue
			}
			tried = true
			if payload, err := signed.Verify(k.key); err == nil {
				return payload
			}
		}
		return nil
	}
	if payload := try(s.keys); payload != nil {
		return payload, nil
	}
	if s.jwks == nil || slices.Contains(hmacAlgs, alg) {
		if !tried {
			return nil, bad(Algorithm, "the token's algorithm is not one of those that the configured keys are for")
		}
		return nil, bad(Signature, "the token's signature is not valid")
	}
	fit, loaded := s.jwks.find(h.KeyID, alg)
	if payload := try(fit); payload != nil {
		return payload, nil
	}
	// A key that is known and did not sign it stays as it is; a kid that is
	// not known, or none at all, may be of a key that is newer than ours.
	if h.KeyID != "" && len(fit) > 0 {
		return nil, bad(Signature, "the token's signature is not valid")
	}
	if s.jwks.refresh(ctx) || !loaded {
		fit, loaded = s.jwks.find(h.KeyID, alg)
		if payload := try(fit); payload != nil {
			return payload, nil
		}
	}
	switch {
	case !loaded:
		return nil, ErrUnavailable
	case len(fit) > 0:
		return nil, bad(Signature, "the token's signature is not valid")
	}
	return nil, bad(UnknownKey, "the token is signed with a key that is not known")
}

// grant is the claim of Config.Claim.
type grant struct {
	Follow  []string `json:"follow"`
	Publish []string `json:"publish"`
	Admin   bool     `json:"admin"`
}

// claims reads a payload whose signature is good.
func (s *state) claims(payload []byte) (*Identity, error) {
	var std jwt.Claims
	if err := json.Unmarshal(payload, &std); err != nil {
		return nil, bad(BadClaims, "one of the token's claims iss, sub, aud, exp and nbf has the wrong form")
	}
	now, c := time.Now(), &s.cfg
	switch {
	case std.Expiry == nil && !c.NoExpiry:
		return nil, bad(NoExpiry, "the token does not say when it expires (exp)")
	case std.Expiry != nil && !now.Before(std.Expiry.Time().Add(c.Leeway)):
		return nil, bad(Expired, "the token has expired")
	case std.NotBefore != nil && now.Before(std.NotBefore.Time().Add(-max(c.Leeway, nbfLeeway))):
		return nil, bad(NotYet, "the token is not valid yet (nbf)")
	case len(c.Issuers) > 0 && !slices.Contains(c.Issuers, std.Issuer):
		return nil, bad(BadIssuer, "the token is from another issuer (iss)")
	case len(c.Audiences) > 0 && !slices.ContainsFunc(c.Audiences, std.Audience.Contains):
		return nil, bad(BadAudience, "the token is for another audience (aud)")
	case std.Subject == "":
		return nil, bad(NoSubject, "the token does not say whose it is (sub)")
	case len(std.Subject) > maxSubject || strings.ContainsFunc(std.Subject, control):
		return nil, bad(BadClaims, "the token's sub is too long or has control characters")
	}
	id := &Identity{Subject: std.Subject}
	if std.Expiry != nil {
		id.Expires = std.Expiry.Time().Add(c.Leeway)
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal(payload, &all); err != nil {
		return nil, bad(BadClaims, "the token's claims are no JSON object")
	}
	raw, ok := all[c.Claim]
	if !ok || c.Claim == "" {
		return id, nil
	}
	var g grant
	err := json.Unmarshal(raw, &g)
	if err == nil {
		id.Follow, err = ParsePatterns(g.Follow)
	}
	if err == nil {
		id.Publish, err = ParsePatterns(g.Publish)
	}
	if err != nil {
		return nil, bad(BadClaims, "the token's claim "+c.Claim+` must be like {"follow": ["channel/news"], "publish": ["channel/*"], "admin": false}`)
	}
	id.Admin = g.Admin
	return id, nil
}
