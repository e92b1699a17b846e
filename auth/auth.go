package auth

import (
	"context"
	"crypto"
	"crypto/sha256"
	"sync/atomic"
	"time"
)

// Config says whom an Authenticator believes. It is not changed after it was
// handed over.
type Config struct {
	// Keys of tokens; any may be given, several of each are for rotation.
	// What is configured says which algorithms are allowed: HS… by secrets,
	// RS… and PS… by RSA keys, ES… by the EC curve, EdDSA by Ed25519 keys.
	Secrets    [][]byte           // at least MinSecret bytes each
	PublicKeys []crypto.PublicKey // *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey; see ParsePEM
	JWKS       string             // address of a key set; https, or http on loopback
	// JWKSRefresh is how often the key set is fetched anew; 0 = 10 minutes.
	JWKSRefresh time.Duration

	Issuers   []string      // one of them must be iss; none = any
	Audiences []string      // one of them must be in aud; none = any
	Leeway    time.Duration // by which clocks may differ
	NoExpiry  bool          // tokens without exp are allowed
	Claim     string        // claim that holds follow, publish and admin

	Cookie     string // cookie that may hold a token; "" = none
	QueryParam string // query parameter that may; "" = none

	Keys []APIKey
}

// MinSecret is the least length of a shared secret in bytes: whoever has one
// token can try secrets at leisure.
const MinSecret = 32

// APIKey is what a service shows instead of a token.
type APIKey struct {
	Name            string
	SHA256          [sha256.Size]byte // of the key
	Follow, Publish []Pattern
	Admin           bool
}

// Notes keeps tickets where every node finds them: package registry's Notes.
// TakeNote answers registry.ErrUnknown for what is not (or no longer) there.
type Notes interface {
	PutNote(ctx context.Context, name string, value []byte, ttl time.Duration) error
	TakeNote(ctx context.Context, name string) ([]byte, error)
}

// Options is what an Authenticator keeps when its Config is changed.
type Options struct {
	Notes  Notes       // nil: there are no tickets
	Report func(error) // told when the key set cannot be fetched, and nil when it can again; not concurrently; may be nil
}

// Authenticator tells who requests come from. All methods may be called
// concurrently.
type Authenticator struct {
	opts  Options
	state atomic.Pointer[state]
}

// state is what a Config comes to.
type state struct {
	cfg Config
}

func (a *Authenticator) now() *state { return a.state.Load() }

// New makes an Authenticator. It does not wait for the key set: Run fetches it.
func New(cfg Config, opts Options) (*Authenticator, error) {
	a := &Authenticator{opts: opts}
	if err := a.Reload(cfg); err != nil {
		return nil, err
	}
	return a, nil
}

// Reload takes another Config over; on an error the old one stands. Keys that
// were fetched from the same address stay.
func (a *Authenticator) Reload(cfg Config) error {
	a.state.Store(&state{cfg: cfg})
	return nil
}

// Run keeps the key set fresh until ctx is done, also for addresses that a
// later Reload brings. Call it once.
func (a *Authenticator) Run(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

// Identify tells who a request comes from. Without credentials the error is
// ErrNone; with ones that are not valid it is a *BadError, and ErrUnavailable
// is wrapped where that cannot be told now. It waits for Redis (a ticket) as
// long as ctx allows, and for the key set JWKSWait at most. A ticket is used
// up by it.
func (a *Authenticator) Identify(ctx context.Context, c Credentials) (*Identity, error) {
	return nil, ErrNone
}
